"""A realistic experiment and its report, made once."""

from __future__ import annotations

import pytest

from petgan.report.page import write_report
from tests.report.experiments import score, write_experiment

HOSTILE = "<script>alert('x')</script> & 50%_of $x$ Brüste"
ERROR = "d_loss is not a number at step 20: got nan; the training has diverged: try a lower learning_rate"


@pytest.fixture(scope="session")
def experiment(tmp_path_factory):
    """18 runs: three presets, two optimizers, three seeds; some failed, some pending."""
    runs = []
    for p, preset in enumerate(("gan", "dcgan", "wgan-gp")):
        for o, optimizer in enumerate(("rmsprop", "adam")):
            for seed in (0, 1, 2):
                run = {"values": {"preset": preset, "optimizer": optimizer, "seed": seed}}
                value = 0.1 + 0.05 * p + 0.02 * o + 0.001 * seed
                if (preset, optimizer) == ("wgan-gp", "adam"):
                    run["state"] = "new"
                elif (preset, seed) == ("dcgan", 2):
                    run |= {"state": "failed", "error": ERROR}
                else:
                    run["scores"] = [score("kid", value), score("fid", 200 + 1000 * value)]
                    run["samples"] = 112 if preset == "gan" else 16
                runs.append(run)
    table = {"title": HOSTILE, "sweep": "sweep", "rows": "optimizer", "columns": "preset", "by": None}
    published = {
        "where": {"dataset": "i3m"},
        "rows": [
            {"table": "7.5", "dataset": "i3m", "model": "gan", "optimizer": "adam", "dropout": None,
             "batch_size": None, "learning_rate": None, "gp_weight": None, "fid": 301.263}
        ],
    }  # fmt: skip
    path = tmp_path_factory.mktemp("experiments") / "pet"
    return write_experiment(path, runs, tables=[table], name=HOSTILE, published=published)


@pytest.fixture(scope="session")
def page(experiment, tmp_path_factory):
    """The experiment's report, in a folder of its own."""
    return write_report([experiment], tmp_path_factory.mktemp("report"))
