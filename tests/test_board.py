"""The board, and strangers at it. The words of its proofs are computed here once more, by hand."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket

import pytest

from petgan.board import GLOO_KEYS, MAX_BYTES, Board, Visitor
from petgan.errors import RendezvousError

HERE = "127.0.0.1"
ELSEWHERE = "127.0.0.2"  # this host has it as well, but no rank comes from there


@pytest.fixture
def board():
    board = Board([HERE], 2)
    yield board
    board.close()


@pytest.fixture
def ask(board):
    """A request without petgan's client: the status, the body and the headers of the answer."""

    def ask(method, path, body=b"", headers=None, source=HERE):
        connection = http.client.HTTPConnection(
            HERE, board.ports[HERE], timeout=20, source_address=(source, 0)
        )
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        return answer.status, said, answer.headers

    return ask


def proof(secret, *parts):
    text = b"".join(b"%d:%s" % (len(part), part) for part in parts)
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def proven(secret, method, path, body=b"", nonce=b"n"):
    right = proof(secret, b"ask", method, path, nonce, body)
    return {"X-Petgan-Proof": right, "X-Petgan-Nonce": nonce.decode()}


@pytest.fixture
def visitor(board):
    return Visitor(HERE, board.ports[HERE], board.secret)


# --- ranks --------------------------------------------------------------------------------------


def test_a_rank_writes_and_reads_what_is_for_it(board, visitor):
    assert visitor.get("verdict") is None
    visitor.put("hello.1", {"ü": [1, None]})
    assert board.get("hello.1") == {"ü": [1, None]}
    board.put("verdict", {"address": HERE})
    assert visitor.get("verdict") == {"address": HERE}
    assert visitor.local_address() == HERE


@pytest.mark.parametrize("key", ["verdict", "hello.0", "hello.x", "hello.1/2", "hello.", "stopping2", ""])
def test_not_even_a_rank_writes_what_is_rank_0s(board, visitor, key):
    with pytest.raises(RendezvousError, match=f"refuses PUT {key}: 403"):
        visitor.put(key, 1)
    assert board.get(key) is None


def test_no_rank_reads_what_another_says(visitor):
    visitor.put("hello.1", 1)
    with pytest.raises(RendezvousError, match=r"refuses GET hello.1: 403"):
        visitor.get("hello.1")


def test_the_proof_is_what_it_says(board, ask):
    board.put("verdict", 7)
    path = b"/petgan/verdict"
    status, said, headers = ask("GET", path.decode(), headers=proven(board.secret, b"GET", path))
    assert (status, said) == (200, b"7")
    assert headers["X-Petgan-Proof"] == proof(board.secret, b"answer", b"200", path, b"n", b"7")


def test_it_listens_where_it_is_told_and_nowhere_else(board):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((ELSEWHERE, board.ports[HERE]), 5)


def test_it_listens_on_several_addresses():
    board = Board([HERE, ELSEWHERE], 2)
    for address, port in board.ports.items():
        Visitor(address, port, board.secret).put("stopping", address)
        assert board.get("stopping") == address
    board.close()
    for address, port in board.ports.items():
        with pytest.raises(OSError, match="refused"):
            Visitor(address, port, board.secret).get("verdict")


def test_an_address_that_is_not_of_this_host_is_a_sentence():
    with pytest.raises(RendezvousError, match=r"cannot listen on 192\.0\.2\.1"):
        Board([HERE, "192.0.2.1"], 2)


# --- strangers ----------------------------------------------------------------------------------


def wrong(secret):
    """Requests that are not quite those of a rank, by what is wrong with them."""
    put, path, body = b"PUT", b"/petgan/stopping", b"true"
    right = proven(secret, put, path, body)
    return {
        "no proof": {},
        "no nonce": {"X-Petgan-Proof": right["X-Petgan-Proof"]},
        "another nonce": {**right, "X-Petgan-Nonce": "m"},
        "another secret": proven("0" * 64, put, path, body),
        "another value": proven(secret, put, path, b"false"),
        "another key": proven(secret, put, b"/petgan/seen.1", body),
        "another method": proven(secret, b"GET", path, body),
        "not ASCII": {**right, "X-Petgan-Proof": "\xfc" * 64},
        "empty": {**right, "X-Petgan-Proof": ""},
    }


@pytest.mark.parametrize("name", wrong(""))
def test_a_stranger_writes_nothing(board, ask, name):
    status, said, headers = ask("PUT", "/petgan/stopping", b"true", wrong(board.secret)[name])
    assert (status, said, headers["X-Petgan-Proof"]) == (403, b"", None)
    assert board.get("stopping") is None


def test_the_same_request_with_the_right_proof_is_taken(board, ask):
    headers = proven(board.secret, b"PUT", b"/petgan/stopping", b"true")
    assert ask("PUT", "/petgan/stopping", b"true", headers)[0] == 200
    assert board.get("stopping") is True


@pytest.mark.parametrize("path", ["/petgan/verdict", "/petgan/token", "//petgan/verdict", "/verdict", "/"])
def test_a_stranger_reads_nothing(board, ask, path):
    board.put("verdict", {"address": HERE})
    status, said, _ = ask("GET", path)
    assert (status, said) == (403, b"")


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"x" * 1000])
def test_what_is_not_json_is_refused(board, ask, body):
    headers = proven(board.secret, b"PUT", b"/petgan/hello.1", body)
    assert ask("PUT", "/petgan/hello.1", body, headers)[0] == 400
    assert board.get("hello.1") is None


def raw(board, text):
    """The status line that answers `text`, sent as it is."""
    with socket.create_connection((HERE, board.ports[HERE]), 20) as connection:
        connection.sendall(text)
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"Content-Length: %d\r\n\r\n" % (MAX_BYTES + 1), b"413"),  # before anything of it is read
        (b"Content-Length: 999999999999999999999\r\n\r\n", b"411"),
        (b"Content-Length: -1\r\n\r\n", b"411"),
        (b"Content-Length: x\r\n\r\n", b"411"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"\r\n", b"411"),
        (b"Content-Length: 10\r\n\r\nabc", b"400"),  # and no more comes
    ],
)
def test_a_body_is_as_long_as_it_says_and_not_too_long(board, text, status):
    assert raw(board, b"PUT /petgan/hello.1 HTTP/1.0\r\n" + text).split()[1] == status
    assert raw(board, b"GET /%s HTTP/1.0\r\n\r\n" % (b"x" * 300)).split()[1] == b"414"


def test_garbage_does_not_stop_it(board, visitor):
    for text in (b"\x00\xff\r\n\r\n", b"", b"GET\r\n\r\n", b"POST /petgan/verdict HTTP/1.0\r\n\r\n"):
        raw(board, text)
    assert visitor.get("verdict") is None


def test_who_poses_as_the_board_is_not_believed(board):
    board.put("verdict", {"address": HERE})
    with pytest.raises(OSError, match="is not this run's board"):
        Visitor(HERE, board.ports[HERE], "0" * 64).get("verdict")


# --- Gloo ---------------------------------------------------------------------------------------


def test_gloo_speaks_once_all_have_met_and_from_a_ranks_address(board, ask):
    assert ask("PUT", "/global/0", b"a")[0] == 403
    board.admit_gloo()
    assert ask("GET", "/global/0")[0] == 404
    assert ask("PUT", "/global/0", b"a")[0] == 200
    assert ask("GET", "/global/0")[:2] == (200, b"a")
    for method in ("GET", "PUT", "DELETE"):
        assert ask(method, "/global/0", b"z", source=ELSEWHERE)[:2] == (403, b"")
    assert ask("DELETE", "/global/0")[0] == 200


def test_a_proof_makes_an_address_a_ranks(board, ask):
    board.admit_gloo()
    assert ask("GET", "/petgan/verdict", source=ELSEWHERE)[0] == 403
    assert ask("PUT", "/global/1", b"b", source=ELSEWHERE)[0] == 403
    headers = proven(board.secret, b"GET", b"/petgan/verdict")
    assert ask("GET", "/petgan/verdict", headers=headers, source=ELSEWHERE)[0] == 404
    assert ask("PUT", "/global/1", b"b", source=ELSEWHERE)[0] == 200


def test_nobody_takes_the_place_of_a_rank_that_has_spoken(board, ask):
    board.admit_gloo()
    assert ask("PUT", "/local_node0/0", b"mine")[0] == 200
    assert ask("PUT", "/local_node0/0", b"theirs")[0] == 409
    assert ask("PUT", "/local_node0/0", b"mine")[0] == 200  # sent again after an answer that was lost
    assert ask("GET", "/local_node0/0")[1] == b"mine"


def test_gloos_words_are_no_words_of_ranks_and_not_too_many(board, ask):
    board.admit_gloo()
    assert ask("PUT", "/petgan/verdict", b"1")[0] == 403
    answers = [ask("PUT", f"/x/{n}", b"1")[0] for n in range(2 * GLOO_KEYS + 2)]
    assert answers == [200] * 2 * GLOO_KEYS + [507] * 2
    assert board.get("verdict") is None
