"""The board on which the ranks of a run meet: a small key-value server that rank 0 opens for a moment.

Ranks are on a network that other users of the cluster are on as well. So the board

- listens on the addresses that it publishes alone: on 127.0.0.1 where all ranks are on one node;
- takes petgan's own words only with a proof, an HMAC-SHA256 of the request with a secret that stands in the
  rendezvous file, which nobody but the run's owner can read; its answers carry one too, so that nobody can
  pose as the board. The verdict can only be written by rank 0 itself;
- takes Gloo's words, whose client in Horovod can prove nothing, only once all ranks have met, only from
  addresses from which a proof has come, and each but once: a rank whose place another has taken is refused,
  and the run ends, rather than training with somebody between;
- is closed as soon as the ranks are connected, before the first step.

What remains is somebody with a shell on one of the run's own nodes, who can read Gloo's addresses in that
moment, or write them first and so end the run. And what Gloo and NCCL then send is neither authenticated nor
encrypted: this is theirs. Where a network is shared with people who must not see gradients, give the nodes
to one job alone (``--exclusive``) and name an interface that only they reach.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import re
import secrets
import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from petgan.errors import RendezvousError

CONNECT_SECONDS = 3.0
REQUEST_SECONDS = 3.0  # that a request may take to arrive
MAX_BYTES = 1 << 18  # of one value; the longest are Gloo's, some 150 bytes a rank
MAX_KEY = 200  # characters
GLOO_KEYS = 32  # a rank, at most; Horovod writes two in each of its six groups

_PROOF, _NONCE = "X-Petgan-Proof", "X-Petgan-Nonce"
_OURS = "/petgan/"
_WRITTEN_BY_VISITORS = re.compile(r"(hello|seen)\.[1-9][0-9]{0,6}|stopping")
_READ_BY_VISITORS = ("verdict",)


def prove(secret: str, *parts: str | bytes) -> str:
    """HMAC-SHA256 of `parts`, each with its length, as hexadecimal digits."""
    total = hmac.new(secret.encode(), digestmod=hashlib.sha256)
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        total.update(b"%d:" % len(data) + data)
    return total.hexdigest()


# --- the server ---------------------------------------------------------------------------------


class Board:
    """The server, on rank 0.

    Parameters
    ----------
    addresses : sequence of str
        This host's own, to listen on.
    ranks : int
        How many will come.

    Attributes
    ----------
    secret : str
        What visitors have to know.
    ports : dict
        Of each address.
    """

    def __init__(self, addresses: Sequence[str], ranks: int) -> None:
        self.secret = secrets.token_hex(32)
        self._ours: dict[str, bytes] = {}
        self._gloos: dict[str, bytes] = {}
        self._most = GLOO_KEYS * ranks
        self._lock = threading.Lock()
        self._known = set(addresses)  # rank 0's own Horovod comes from there
        self._admits_gloo = False
        self._servers: list[_Server] = []
        try:
            for address in addresses:
                self._servers.append(_Server(address, self.answer))
        except OSError as error:
            self.close()
            raise RendezvousError(f"cannot listen on {address}: {error}") from None
        self.ports = {server.server_address[0]: server.server_address[1] for server in self._servers}

    def put(self, key: str, value: Any) -> None:
        """Write a word of rank 0, as JSON."""
        with self._lock:
            self._ours[key] = json.dumps(value).encode()

    def get(self, key: str) -> Any:
        """The word of `key`, or None while there is none."""
        with self._lock:
            found = self._ours.get(key)
        return None if found is None else json.loads(found)

    def admit_gloo(self) -> None:
        """From now on, take Gloo's words from the ranks' addresses."""
        with self._lock:
            self._admits_gloo = True

    def close(self) -> None:
        """Listen no more."""
        for server in self._servers:
            server.close()
        self._servers = []

    def answer(
        self, method: str, path: str, body: bytes, nonce: str, proof: str, visitor: str
    ) -> tuple[HTTPStatus, bytes, str]:
        """Judge a request from the address `visitor`: the status, the body and the proof of the answer."""
        with self._lock:
            if not path.startswith(_OURS):
                return *self._answer_gloo(method, path, body, visitor), ""
            expected = prove(self.secret, "ask", method, path, nonce, body)
            if not hmac.compare_digest(expected.encode(), proof.encode()):
                return HTTPStatus.FORBIDDEN, b"", ""
            self._known.add(visitor)
            status, said = self._answer_rank(method, path.removeprefix(_OURS), body)
            return status, said, prove(self.secret, "answer", str(int(status)), path, nonce, said)

    def _answer_rank(self, method: str, key: str, body: bytes) -> tuple[HTTPStatus, bytes]:
        if method == "GET" and key in _READ_BY_VISITORS:
            return _found(self._ours, key)
        if method != "PUT" or not _WRITTEN_BY_VISITORS.fullmatch(key):
            return HTTPStatus.FORBIDDEN, b""
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return HTTPStatus.BAD_REQUEST, b""
        self._ours[key] = body
        return HTTPStatus.OK, b""

    def _answer_gloo(self, method: str, path: str, body: bytes, visitor: str) -> tuple[HTTPStatus, bytes]:
        if not self._admits_gloo or visitor not in self._known:
            return HTTPStatus.FORBIDDEN, b""
        if method == "GET":
            return _found(self._gloos, path)
        if method == "PUT":
            if self._gloos.get(path, body) != body:
                return HTTPStatus.CONFLICT, b""
            if path not in self._gloos and len(self._gloos) >= self._most:
                return HTTPStatus.INSUFFICIENT_STORAGE, b""
            self._gloos[path] = body
        return HTTPStatus.OK, b""  # DELETE, at the end of a meeting: all goes with the board


def _found(said: dict[str, bytes], key: str) -> tuple[HTTPStatus, bytes]:
    return (HTTPStatus.OK, said[key]) if key in said else (HTTPStatus.NOT_FOUND, b"")


_Answer = Callable[[str, str, bytes, str, str, str], tuple[HTTPStatus, bytes, str]]


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: str, answer: _Answer) -> None:
        super().__init__((address, 0), _Handler)
        self.answer = answer
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor that is gone before its answer is no matter."""


class _Handler(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        try:
            body = self._body()
        except _Refused as refused:
            status, said, proof = refused.status, b"", ""
        else:
            nonce, given = self.headers.get(_NONCE, ""), self.headers.get(_PROOF, "")
            server = cast(_Server, self.server)
            status, said, proof = server.answer(
                self.command, self.path, body, nonce, given, self.client_address[0]
            )
        self.send_response(status)
        self.send_header("Content-Length", str(len(said)))
        if proof:
            self.send_header(_PROOF, proof)
        self.end_headers()
        self.wfile.write(said)

    do_PUT = do_DELETE = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if len(self.path) > MAX_KEY:
            raise _Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
        length = self.headers.get("Content-Length", "0" if self.command != "PUT" else "")
        if not re.fullmatch("[0-9]{1,18}", length):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MAX_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        return body

    def log_message(self, *words: object) -> None:
        """Say nothing."""


class _Refused(Exception):
    def __init__(self, status: HTTPStatus) -> None:
        self.status = status


# --- its visitors -------------------------------------------------------------------------------


class Visitor:
    """The board as another rank sees it.

    Parameters
    ----------
    address, port
        Where it is.
    secret : str
        Of `Board`.
    """

    def __init__(self, address: str, port: int, secret: str) -> None:
        self.address, self.port, self._secret = address, port, secret

    def put(self, key: str, value: Any) -> None:
        """Write a word, as JSON.

        Raises
        ------
        OSError
            If the board cannot be reached, or what answers is another.
        RendezvousError
            If the board refuses it.
        """
        self._ask("PUT", key, json.dumps(value).encode())

    def get(self, key: str) -> Any:
        """The word of `key`, or None while there is none; errors are those of `put`."""
        found = self._ask("GET", key)
        return None if found is None else json.loads(found)

    def local_address(self) -> str:
        """The own address of this host on the way to the board."""
        with socket.create_connection((self.address, self.port), CONNECT_SECONDS) as connection:
            address: str = connection.getsockname()[0]
            return address

    def _ask(self, method: str, key: str, body: bytes = b"") -> bytes | None:
        path, nonce = f"{_OURS}{key}", secrets.token_hex(16)
        headers = {_NONCE: nonce, _PROOF: prove(self._secret, "ask", method, path, nonce, body)}
        # http.client heeds no proxy of the environment.
        connection = http.client.HTTPConnection(self.address, self.port, timeout=CONNECT_SECONDS)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            said = answer.read(MAX_BYTES)
        except http.client.HTTPException as error:
            raise OSError(f"no board at {self.address}: {error!r}") from None
        finally:
            connection.close()
        expected = prove(self._secret, "answer", str(answer.status), path, nonce, said)
        given = answer.headers.get(_PROOF, "")
        if not hmac.compare_digest(expected.encode(), given.encode()):
            raise OSError(f"what answers at {self.address} is not this run's board")
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise RendezvousError(
                f"rank 0's board at {self.address} refuses {method} {key}: {answer.status}",
                hint="have every node run the same version of petgan",
            )
        return said
