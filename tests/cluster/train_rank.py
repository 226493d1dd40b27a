"""One rank's worker, with a mishap: ``train_rank.py RUN MISHAP [ARGUMENT]``.

none                    train
missing RANK            this rank is somewhere else, for as long as the others wait
dataset NODE:FILE       this node reads another file as the run's dataset
signal RANK:NAME:STEP   this rank gets a signal when the run has logged a step
early RANK:NAME         it gets it while it starts
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from petgan import store, worker
from petgan.runs import RunFolder

RANK = int(os.environ["PETGAN_RANK"])


def main(run, mishap="none", argument=""):
    parts = argument.split(":")
    mine = mishap == "dataset" or (mishap != "none" and int(parts[0]) == RANK)
    if mishap == "missing" and mine:
        time.sleep(float(os.environ["PETGAN_RENDEZVOUS_SECONDS"]) + 2)
        return 0
    if mishap == "dataset" and os.environ["PETGAN_NODE"] == parts[0]:
        dataset = store.Dataset
        store.Dataset = lambda path: dataset(parts[1])
    if mishap in ("signal", "early") and mine:
        step = int(parts[2]) if mishap == "signal" else 0
        threading.Thread(
            target=signal_at, args=(step, RunFolder(Path(run)), signal.Signals[parts[1]]), daemon=True
        ).start()
    return worker.main(["train", json.dumps({"run": run})])


def signal_at(step, run, number):
    while signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL:
        time.sleep(0.01)
    while step and not any(line["step"] >= step for line in run.metrics()):
        time.sleep(0.02)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.exit(code)
