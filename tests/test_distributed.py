"""What training speaks through, as far as it can be had without Horovod: tests/cluster/ has the rest."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from petgan import distributed
from petgan.distributed import ALONE, Alone, check_equal_weights, contact, join
from petgan.errors import ConfigError, DiskError, RankMismatchError, TrainingError, UserError
from petgan.place import Place


class Told(Alone):
    """One of two ranks, which is told what the other says."""

    ranks = 2
    node_name = "n0"

    def __init__(self, other):
        self.other = other

    def tell_all(self, value):
        return [value, self.other(value)]


def test_one_rank_speaks_with_itself_and_needs_no_horovod():
    assert join(Place(), {}, None, lambda: True) is ALONE
    tensors = [object(), object()]
    assert all(a is b for a, b in zip(ALONE.average(tensors), tensors, strict=True))
    assert (ALONE.any(True), ALONE.any(False)) == (True, False)
    assert ALONE.tell_all({"a": 1}) == [{"a": 1}]
    assert ALONE.first_does(lambda: 7) == 7
    with pytest.raises(ConfigError):
        ALONE.first_does(lambda: (_ for _ in ()).throw(ConfigError("x")))


def test_one_rank_without_the_gpu_that_its_run_asks_for_is_refused():
    place = Place(node_name="n1", started=True)
    with pytest.raises(RankMismatchError, match=r"no GPU is visible on rank 0 \(node n1\)"):
        join(place, {}, "", lambda: False)
    assert join(place, {}, "GPU-aa", lambda: False) is ALONE


def test_several_ranks_without_horovod_are_told_what_to_do(monkeypatch):
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match="several ranks need Horovod, which is not installed here: got '2 ranks'"
    ):
        join(Place(ranks=2), {}, None, lambda: False)


def test_a_run_of_one_rank_imports_neither_horovod_nor_tensorflow_to_start():
    script = (
        "import sys; from petgan.distributed import join; from petgan.place import Place\n"
        "import petgan.session; join(Place.from_environment(), {}, None, lambda: False)\n"
        "assert not {'horovod', 'tensorflow', 'keras'} & set(sys.modules), sorted(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# --- when a rank has gone -----------------------------------------------------------------------


class HorovodInternalError(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        HorovodInternalError("anything"),
        RuntimeError("{{function_node __wrapped__HorovodAllreduce}} Horovod has been shut down"),
        OSError("[gloo/transport/tcp/pair.cc:598] Connection closed by peer [10.0.0.1]:4711"),
    ],
)
def test_horovods_errors_are_one_sentence(error):
    with pytest.raises(TrainingError, match="lost contact with another rank") as raised, contact(Told(None)):
        raise error
    assert raised.value.__cause__ is error


def test_other_errors_stay_what_they_are():
    for ranks, error in (
        (Told(None), ValueError("x")),
        (Told(None), DiskError("horovod.txt: the disk is full")),
        (ALONE, RuntimeError("horovod")),
    ):
        with pytest.raises(type(error)) as raised, contact(ranks):
            raise error
        assert raised.value is error


# --- weights ------------------------------------------------------------------------------------


def test_equal_weights_are_let_pass_and_others_refused():
    ours = [np.ones((2, 3), "float32"), np.arange(4)]
    check_equal_weights(Told(lambda said: said), ours)
    for theirs in (
        [ours[0], ours[1] + 1],
        [np.nextafter(ours[0], 2), ours[1]],
        [ours[0].T, ours[1]],
        [ours[0].astype("float64"), ours[1]],
    ):
        heard = []
        check_equal_weights(Told(lambda said: heard.append(said) or said), theirs)  # noqa: B023
        with pytest.raises(RankMismatchError, match="the ranks differ in their weights"):
            check_equal_weights(Told(lambda said: heard[0]), ours)  # noqa: B023
