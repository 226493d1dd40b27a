"""The worker's frame; what its tasks do is tested with their modules."""

from __future__ import annotations

import json
import sys

from petgan import worker


def test_without_tensorflow_it_says_what_to_install(make_dataset, make_run, monkeypatch, capfd):
    run = make_run(make_dataset())
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # importing it raises ModuleNotFoundError
    assert worker.main(["train", json.dumps({"run": str(run.path)})]) == 2
    assert "needs TensorFlow" in capfd.readouterr().err
    status = run.status()
    assert status.state == "failed"
    assert "pip install 'petgan[train]'" in status.error
