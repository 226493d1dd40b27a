# make demo               the whole road on synthetic patients
# make test               every check that needs no cluster
# make test-fuzz          20,000 broken files of each kind: an hour
# Both make .venv first; another interpreter is chosen with PYTHON=python3.12.
#
# The others change the machine: as root, on Debian 12, they install Slurm, MariaDB and Apptainer, see
# slurm/testbed/README.md. They make the CPU image (once, minutes) and a Slurm of two nodes.
# make cluster            start it; slurm/testbed/testbed stop ends it
# make demo-cluster       the demo through its queue, in containers
# make test-cluster       every check that needs a cluster
# make test-cluster-long  ten requeues, a hundred kills, a study's submitter killed, the demo, the image for GPUs: an hour or two
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TESTBED := slurm/testbed/testbed

.PHONY: demo test test-fuzz lint clean cluster test-cluster test-cluster-long demo-cluster

demo: $(VENV)/.installed-train
	$(BIN)/petgan demo

test: lint
	$(BIN)/pytest

test-fuzz: $(VENV)/.installed-dev
	$(BIN)/pytest -n 2 -m fuzz --timeout=14400

cluster: $(VENV)/.installed-dev
	$(TESTBED) install
	ln -sf "$$(containers/build.sh cpu | tail -n 1)" containers/petgan-cpu.sif
	$(TESTBED) start

test-cluster: cluster
	$(BIN)/pytest -n 2 --dist loadfile -m 'cluster and not long' --timeout=600; status=$$?; $(TESTBED) stop; exit $$status

test-cluster-long: cluster
	$(BIN)/pytest -m long --timeout=7200; status=$$?; $(TESTBED) stop; exit $$status

demo-cluster: cluster
	eval "$$($(TESTBED) env)" && $(BIN)/petgan demo --into demo-cluster --profile slurm/profiles/testbed.yaml

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV) || { echo "Python's venv is missing: apt-get install python3-venv"; exit 1; }

$(VENV)/.installed-%: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) demo
