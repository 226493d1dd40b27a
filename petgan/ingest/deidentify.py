"""Keyed hashes in the place of names: HMAC-SHA256, with a key that stays outside the dataset.

A hash without a key of a patient id can be searched back; with one it cannot, by whoever lacks the key.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from petgan.errors import ConfigError, DiskError

KEY_BYTES = 32
KEY_FILE_VARIABLE = "PETGAN_KEY_FILE"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """The secret, and the hashes made with it."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """Names the key without telling it."""
        return hmac.digest(self.secret, b"petgan key id", "sha256").hex()[:8]

    def patient(self, identity: str) -> str:
        """16 hexadecimal digits for a patient."""
        return self._digest("patient", identity).hex()[:16]

    def series(self, identity: str) -> str:
        """16 hexadecimal digits for a series, or for a file that is none of one."""
        return self._digest("source", identity).hex()[:16]

    def name(self, name: str) -> str:
        """16 hexadecimal digits for a file name."""
        return self._digest("name", name).hex()[:16]

    def seal(self, what: str, identity: str) -> str:
        """64 hexadecimal digits for an identity of some kind; kinds do not share hashes."""
        return self._digest(what, identity).hex()

    def place(self, what: str, facts: str) -> bytes:
        """32 bytes: where a cache keeps what follows from `facts`."""
        return self._digest(what, facts)

    def fraction(self, patient: str) -> float:
        """A number in [0, 1) for a patient, uniform over patients."""
        return int.from_bytes(self._digest("split", patient)[:6], "big") / 2**48

    def _digest(self, what: str, identity: str) -> bytes:
        # What names of files cannot say in UTF-8 comes back as the bytes that it was, in every locale.
        said = identity.encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, f"petgan {what}\0".encode() + said, "sha256")


def key_file(given: Path | str | None = None) -> Path:
    """Where the key is: as given, else as the environment says, else in the user's configuration."""
    if given:
        return Path(given)
    default = Path.home() / ".config" / "petgan" / "identity.key"
    return Path(os.environ.get(KEY_FILE_VARIABLE) or default)


def load_key(given: Path | str | None = None, *, make: bool = True) -> Key:
    """Read the key; make one, for the user alone, where there is none yet.

    Processes that make one at the same moment get the same.

    Parameters
    ----------
    given : path, optional
        See `key_file`.
    make : bool
        Whether a missing one is made.

    Raises
    ------
    ConfigError
        If the file is no key, or missing and not to be made.
    DiskError
        If it cannot be made or read.
    """
    path = key_file(given)
    try:
        if not path.exists():
            if not make:
                raise ConfigError(
                    f"there is no key file {path}", hint="name the one of the ingest with --key-file"
                )
            _make(path)
        secret = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        hint = "choose another with --key-file"
        raise DiskError(f"cannot use the key file {path}: {error.strerror}", hint=hint) from None
    if len(secret) < KEY_BYTES:
        raise ConfigError(
            f"the key file {path} is damaged: it has {len(secret)} bytes",
            allowed=f"{KEY_BYTES} or more",
            hint="bring the key back from where you keep it: with another one every id changes",
        )
    if mode & 0o077:
        logger.warning("the key file %s can be read by others: chmod 600 %s", path, path)
    return Key(secret)


def warn_of_key_beside(output: Path | str, given: Path | str | None = None) -> None:
    """Warn if the key lies in the folder of a dataset, or below: who is given the folder would get both."""
    path, folder = key_file(given).resolve(), Path(output).resolve().parent
    if folder in path.parents:
        logger.warning(
            "the key file %s lies beside the dataset: keep it elsewhere, so that it is not passed on with it",
            path,
        )


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # By chance, not by process: those of several machines may share a number and a folder.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
