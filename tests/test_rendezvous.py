"""How ranks meet: in threads of this process."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from petgan import rendezvous
from petgan.board import Board, Visitor
from petgan.errors import (
    ConfigError,
    DatasetError,
    Interrupted,
    RankCountError,
    RankMismatchError,
    RendezvousError,
)
from petgan.place import Place
from petgan.rendezvous import common_address, difference, interfaces, meet, published, refusals
from petgan.runs import read_json, write_json


@pytest.fixture(autouse=True)
def impatience(monkeypatch):
    monkeypatch.setenv("PETGAN_RENDEZVOUS_SECONDS", "5")
    monkeypatch.setattr(rendezvous, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(rendezvous, "FAREWELL_SECONDS", 1.0)


@pytest.fixture
def together(tmp_path):
    """Have ranks meet; what each of them comes to, a network or an error."""

    def together(ranks=3, absent=(), hellos=None, stopping=None, delays=None):
        file = tmp_path / "meet.json"

        def one(rank):
            time.sleep((delays or {}).get(rank, 0))
            place = Place(rank, ranks, rank, ranks, 0, 1, f"n{rank}", "7", file)
            hello = {"facts": {"dataset": "abc"}, "gpu": None, **(hellos or {}).get(rank, {})}
            stop = (stopping or {}).get(rank, lambda: False)
            try:
                with refusals(place):
                    return meet(place, hello, stop)[0]
            except Exception as error:
                return error

        present = [rank for rank in range(ranks) if rank not in absent]
        with ThreadPoolExecutor(ranks) as pool:
            return dict(zip(present, pool.map(one, present), strict=True))

    return together


def all_say(found, kind, words):
    return all(type(error) is kind and words in str(error) for error in found.values())


# --- meeting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("delays", [{}, {0: 0.5}, {2: 0.5}])
def test_ranks_find_each_other_whoever_comes_first(together, delays):
    found = together(delays=delays)
    assert len(found) == 3
    networks = set(found.values())
    assert len(networks) == 1
    assert networks.pop().address == "127.0.0.1"  # on one node
    assert next(iter(found.values())).interface == "lo"


def test_the_file_of_an_earlier_start_is_left_alone(together, tmp_path):
    closed = socket.socket()
    closed.bind(("", 0))
    stale = {"secret": "x", "addresses": {"127.0.0.1": closed.getsockname()[1]}}
    write_json(tmp_path / "meet.json", {"job": "7", **stale})  # of this very job, whose board is gone
    assert len(set(together(delays={0: 0.5}).values())) == 1
    write_json(tmp_path / "meet.json", {"job": "6", "error": "ConfigError", "sentence": "old"})
    assert len(set(together(delays={0: 0.5}).values())) == 1
    closed.close()


def test_a_board_of_somebody_else_at_the_same_address_is_not_taken(together, tmp_path):
    board = Board(["127.0.0.1"], 3)
    board.put("verdict", {"address": "127.0.0.1"})
    write_json(tmp_path / "meet.json", {"job": "7", "secret": "x", "addresses": board.ports})
    found = together(absent=[0])
    board.close()
    assert all_say(found, RendezvousError, "rank 0 could not be reached at ['127.0.0.1'] within 5 s")


def test_without_rank_0_the_others_give_up(together, tmp_path):
    found = together(absent=[0])
    assert all_say(found, RendezvousError, "rank 0 did not appear within 5 s")
    assert all_say(found, RendezvousError, str(tmp_path / "meet.json"))


def test_without_another_rank_all_say_who_is_missing(together):
    found = together(4, absent=[1, 3])
    assert all_say(found, RendezvousError, "ranks 1, 3 of 4 did not come within 5 s")


def test_a_rank_that_was_told_of_another_number_stops_all(tmp_path):
    file = tmp_path / "meet.json"

    def one(rank, ranks):
        place = Place(rank, ranks, rank, ranks, 0, 1, f"n{rank}", "7", file)
        with pytest.raises(RankCountError, match="told of 2 ranks, rank 1 on n1 of others: got 3"):
            meet(place, {"facts": {}, "gpu": None}, lambda: False)
        return True

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, (0, 1), (2, 3))) == [True, True]


def test_what_differs_stops_all_with_one_sentence(together):
    found = together(hellos={2: {"facts": {"dataset": "xyz"}}})
    words = "the ranks differ in their dataset: abc on ranks 0, 1 (nodes n0, n1) but xyz on rank 2 (node n2)"
    assert all_say(found, RankMismatchError, words)


@pytest.mark.parametrize("late", [0, 0.5])
def test_a_failure_of_rank_0_stops_those_who_come_later_too(tmp_path, together, late):
    place = Place(0, 3, rendezvous=tmp_path / "meet.json", job="7")
    with pytest.raises(DatasetError), refusals(place):
        raise DatasetError("there is none")
    found = together(absent=[0], delays={1: late})
    assert all_say(found, DatasetError, "there is none")


def test_what_nobody_expected_on_rank_0_reaches_the_others_as_well(tmp_path):
    place = Place(0, 3, rendezvous=tmp_path / "meet.json", job="7")
    with pytest.raises(ZeroDivisionError), refusals(place):
        print(1 / 0)
    assert read_json(place.rendezvous)["sentence"] == "rank 0 failed: ZeroDivisionError('division by zero')"


@pytest.mark.parametrize("rank", [0, 2])
def test_a_signal_to_one_rank_stops_all(together, rank):
    found = together(stopping={rank: lambda: True})
    assert all_say(found, Interrupted, "before its first step")


def test_a_signal_while_a_rank_is_still_missing(together):
    began = time.monotonic()
    found = together(absent=[1], stopping={2: lambda: time.monotonic() > began + 0.5})
    assert all_say(found, Interrupted, "before its first step")  # and not that one is missing


def test_a_signal_where_rank_0_never_comes(together):
    found = together(absent=[0], stopping={1: lambda: True, 2: lambda: True})
    assert all_say(found, Interrupted, "before its first step")


def test_rank_0_that_dies_after_all_have_found_it(tmp_path):
    board = Board(["127.0.0.1"], 2)
    file = tmp_path / "meet.json"
    write_json(file, {"job": "7", "secret": board.secret, "addresses": board.ports})
    threading.Timer(0.5, board.close).start()
    with pytest.raises(RendezvousError, match="rank 0 is gone"):
        meet(Place(1, 2, job="7", rendezvous=file), {"facts": {}}, lambda: False)


def test_a_verdict_that_names_an_unknown_address_is_refused(tmp_path):
    board = Board(["127.0.0.1"], 2)
    board.put("verdict", {"address": "10.0.0.1"})
    file = tmp_path / "meet.json"
    write_json(file, {"job": "7", "secret": board.secret, "addresses": board.ports})
    with pytest.raises(RendezvousError, match=r"does not reach: got '10.0.0.1'; allowed: 127.0.0.1"):
        meet(Place(1, 2, job="7", rendezvous=file), {"facts": {}}, lambda: False)
    board.close()


@pytest.mark.parametrize(
    "said", [7, [], {"ranks": 2}, {"node": "n1", "ranks": "2", "facts": {}, "reach": []}]
)
def test_a_rank_that_speaks_otherwise_is_refused(tmp_path, said):
    file = tmp_path / "meet.json"

    def speak():
        while not (meeting := rendezvous._meeting(Place(job="7", rendezvous=file))):
            time.sleep(0.01)
        (port,) = meeting["addresses"].values()
        Visitor("127.0.0.1", port, meeting["secret"]).put("hello.1", said)

    with ThreadPoolExecutor(1) as pool:
        spoken = pool.submit(speak)
        with pytest.raises(RendezvousError, match="rank 1 says of itself what rank 0 does not understand"):
            meet(Place(0, 2, job="7", rendezvous=file), {"facts": {}, "gpu": None}, lambda: False)
        spoken.result()


def test_only_the_owner_can_ever_read_the_file(tmp_path, together, monkeypatch):
    modes, replace = [], Path.replace

    def look(temporary, target):
        modes.append(stat.S_IMODE(temporary.stat().st_mode))
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", look)
    monkeypatch.setattr(os, "chmod", None)  # not needed
    mask = os.umask(0)
    try:
        assert len(set(together().values())) == 1
    finally:
        os.umask(mask)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "meet.json").stat().st_mode) == 0o600


def test_the_file_is_not_written_through_a_link_or_into_a_file_that_is_there(tmp_path):
    file, other = tmp_path / "meet.json", tmp_path / "others.txt"
    other.write_text("")
    (tmp_path / f".meet.json.{os.getpid()}.tmp").symlink_to(other)
    rendezvous.write_private(file, {"a": "ü"})
    assert read_json(file) == {"a": "ü"}
    assert other.read_text() == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["meet.json", "others.txt"]


def test_only_the_job_that_wrote_it_reads_the_file(tmp_path):
    place = Place(1, 2, job="7+1", rendezvous=tmp_path / "meet.json")
    words = {"secret": "s", "addresses": {"10.0.0.1": 1}}
    write_json(place.rendezvous, {"job": "7", **words})
    assert rendezvous._meeting(place) == {}
    place.rendezvous.write_text('{"job": "7+')
    assert rendezvous._meeting(place) == {}
    for said in ([], 7, {}, {"job": "7+1"}, {"job": "7+1", "secret": 1, "addresses": []}):
        place.rendezvous.write_text(json.dumps(said))
        assert rendezvous._meeting(place) == {}
    place.rendezvous.write_text(json.dumps({"job": "7+1", **words}))
    assert rendezvous._meeting(place)["addresses"] == {"10.0.0.1": 1}


# --- comparing ----------------------------------------------------------------------------------


def hello(node="n0", gpu=None, **facts):
    return {"node": node, "gpu": gpu, "facts": facts}


def test_ranks_that_agree_differ_in_nothing():
    digest = "ab" * 32
    hellos = {rank: hello(f"n{rank}", dataset=digest, code=None) for rank in range(3)}
    assert difference(hellos) is None


@pytest.mark.parametrize("name", ["version", "code", "image", "configuration", "dataset", "weights"])
def test_every_fact_counts(name):
    hellos = {rank: hello(f"n{rank // 2}", **{name: "ab" * 32}) for rank in range(4)}
    hellos[3]["facts"][name] = None
    words = (
        f"differ in their {name}: abababababab on ranks 0, 1, 2 (nodes n0, n1) but none on rank 3 (node n1)"
    )
    assert words in str(difference(hellos))


def test_a_sentence_is_shown_whole():
    hellos = {0: hello(dataset="ab" * 32), 1: hello(dataset="/data/x.h5 cannot be read: Füße")}
    assert "but /data/x.h5 cannot be read: Füße on rank 1 (node n0)" in str(difference(hellos))


def test_many_ranks_make_no_long_sentence():
    hellos = {rank: hello(f"n{rank}", code="a") for rank in range(512)}
    hellos[7]["facts"]["code"] = "b"
    assert "ranks 0, 1, 2, 3, 4, 5, 6, 8 and 503 more (nodes n0, n1" in str(difference(hellos))
    assert len(str(difference(hellos))) < 400


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        ([("n0", "0"), ("n0", "1"), ("n1", "0"), ("n1", "1")], None),
        ([("n0", "GPU-a"), ("n0", "GPU-b"), ("n1", "GPU-c")], None),
        ([("n0", None), ("n0", None)], None),
        ([("n0", "0"), ("n0", "0"), ("n1", "0")], "one GPU, 0, would be used by several ranks: ranks 0, 1"),
        ([("n0", "GPU-a"), ("n1", "GPU-a")], "one GPU, GPU-a, would be used by several ranks: ranks 0, 1"),
        ([("n0", "0"), ("n1", "")], "no GPU is visible on rank 1 (node n1)"),
        ([("n0", ""), ("n0", "")], "no GPU is visible on ranks 0, 1 (node n0)"),
    ],
)
def test_each_rank_has_a_gpu_of_its_own(gpus, words):
    error = difference({rank: hello(node, gpu) for rank, (node, gpu) in enumerate(gpus)})
    assert error is None if words is None else words in str(error)


# --- networks -----------------------------------------------------------------------------------


def test_this_hosts_loopback_is_found_and_comes_last():
    found = interfaces()
    assert found["127.0.0.1"] == "lo"
    assert list(found)[-1].startswith("127.")


def test_fast_networks_come_first(tmp_path):
    kinds = {
        "eth1": ("1", "pci0"),
        "ib0": ("32", "pci0"),
        "lo": ("772", "virtual"),
        "tun0": ("65534", "virtual"),
    }
    kinds |= {"docker0": ("1", "virtual"), "eth0": ("1", "pci0")}
    for name, (kind, bus) in kinds.items():
        device = tmp_path / "devices" / bus / "net" / name
        device.mkdir(parents=True)
        (device / "type").write_text(f"{kind}\n")
        (tmp_path / name).symlink_to(device)
    order = sorted(kinds, key=lambda name: rendezvous._preference(name, tmp_path))
    assert order == ["ib0", "eth0", "eth1", "docker0", "tun0", "lo"]


@pytest.mark.parametrize(
    ("nodes", "own", "expected"),
    [
        (2, {"10.0.0.1": "ib0", "192.168.0.1": "eth0", "127.0.0.1": "lo"}, ["10.0.0.1", "192.168.0.1"]),
        (1, {"10.0.0.1": "ib0", "127.0.0.1": "lo"}, ["127.0.0.1"]),
        (2, {"127.0.0.1": "lo"}, ["127.0.0.1"]),
        (1, {"10.0.0.1": "ib0"}, ["10.0.0.1"]),
    ],
)
def test_loopback_is_for_one_node_or_for_want_of_anything_else(nodes, own, expected):
    assert published(Place(nodes=nodes), own) == expected


def test_a_named_interface_is_taken_or_its_absence_told():
    own = {"10.0.0.1": "ib0", "192.168.0.1": "eth0", "127.0.0.1": "lo"}
    assert published(Place(interface="eth0"), own) == ["192.168.0.1"]
    with pytest.raises(ConfigError, match=r"n1 has no such .*: got 'ib1'; allowed: eth0, ib0, lo"):
        published(Place(interface="ib1", node_name="n1"), own)


def test_the_network_is_the_first_that_all_reach():
    hellos = {0: {"reach": ["a", "b", "c"]}, 1: {"reach": ["c", "b"]}, 2: {"reach": ["b", "c", "a"]}}
    assert common_address(["a", "b", "c"], hellos) == "b"
    hellos[1] |= {"reach": ["a"], "node": "n1"}
    hellos[0]["node"], hellos[2] = "n0", {"reach": ["b"], "node": "n2"}
    with pytest.raises(RendezvousError, match=r"no network connects all ranks: .*'rank 1 on n1': \['a'\]"):
        common_address(["a", "b", "c"], hellos)
