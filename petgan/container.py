"""Images, and the command that runs something in one: with the files it was given and no others."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from petgan.errors import InputError
from petgan.runs import file_digest

PYTHON = "python3"  # in an image

#: Variables that Apptainer itself is started with; APPTAINER_BIND would mount what nobody asked for.
_KEPT = ("PATH", "HOME", "USER", "TMPDIR", "APPTAINER_TMPDIR", "APPTAINER_CACHEDIR")


@dataclass(frozen=True)
class Image:
    """A container's image, known by its content.

    Parameters
    ----------
    path : str
    digest : str
        SHA-256 of the file.
    size, modified : int
        Bytes, and nanoseconds since the epoch: an image that agrees in both is taken to be the same.
    """

    path: str
    digest: str
    size: int
    modified: int

    def as_record(self) -> dict[str, Any]:
        return asdict(self)


def identify(path: Path | str) -> Image:
    """Read an image's digest.

    Raises
    ------
    InputError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no image {path}", hint="'petgan container build' makes one")
    with open(path, "rb") as file:
        if not file.read(64).startswith((b"#!/usr/bin/env run-", b"hsqs")):
            raise InputError(f"{path} is no image", hint="'petgan container build' makes one")
    facts = path.stat()
    return Image(str(path.resolve()), file_digest(path), facts.st_size, facts.st_mtime_ns)


def refuse_if_changed(image: Mapping[str, Any]) -> None:
    """Compare an image with what it was when its digest was taken.

    Raises
    ------
    InputError
        If the file has gone or is another one.
    """
    try:
        facts = Path(image["path"]).stat()
    except OSError:
        raise InputError(
            f"there is no image {image['path']} on this node",
            hint="put it where all nodes see it, and name it in the profile",
        ) from None
    if (facts.st_size, facts.st_mtime_ns) != (image["size"], image["modified"]):
        raise InputError(
            f"the image {image['path']} has changed since the submission",
            hint="bring the old one back, or submit again",
        )


def exec_command(
    image: str,
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    read_only: Sequence[Path],
    writable: Sequence[Path],
    scratch: Path,
    gpus: bool,
) -> tuple[list[str], dict[str, str]]:
    """The ``apptainer exec`` of a command, and the environment to start it with.

    Parameters
    ----------
    image : str
    command : sequence of str
    environment : mapping
        All that the command is to see of variables.
    read_only, writable : sequence of Path
        Files and folders, seen at their own paths. A folder within another one comes after it.
    scratch : Path
        An empty folder that is to be ``/tmp``; Apptainer's own has 64 MB.
    gpus : bool
        Whether to bring the host's GPU driver along.

    Returns
    -------
    argv : list of str
    environment : dict of str to str
    """
    mounts = [_mount(path, path, "ro") for path in dict.fromkeys(map(str, read_only))]
    mounts += [_mount(path, path) for path in dict.fromkeys(map(str, writable))]
    mounts.append(_mount(str(scratch), "/tmp"))  # noqa: S108
    argv = [
        "apptainer", "--silent", "exec",
        *(["--nv"] if gpus else []),
        # --no-eval: otherwise a shell would run what stands in a variable's value.
        "--cleanenv", "--no-eval", "--no-home", "--no-mount", "home,cwd,tmp,hostfs", "--pwd", "/",
        *(part for mount in mounts for part in ("--mount", mount)),
        image,
        *command,
    ]  # fmt: skip
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return argv, {**kept, **{f"APPTAINERENV_{name}": value for name, value in environment.items()}}


def _mount(source: str, target: str, *mode: str) -> str:
    """A mount as Apptainer reads it: fields as in CSV, so that a path may hold commas and quotes."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(
        ["type=bind", f"source={source}", f"destination={target}", *mode]
    )
    return out.getvalue()
