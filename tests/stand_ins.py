"""Commands that print what they are told to, in place of those that are not there."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" >> {calls}
env > {env}
[ "$1" != --parsable ] || cat > {input}
cat {out}
cat {error} >&2
exit {code}
"""


def put(folder: Path, name: str, out: str = "", *, error: str = "", code: int = 0) -> Callable[[], list[str]]:
    """Put command `name` into `folder`; returns a function that gives the arguments of each call so far."""
    files = {what: folder / f"{name}.{what}" for what in ("calls", "env", "input", "out", "error")}
    files["out"].write_text(out)
    files["error"].write_text(error)
    files["calls"].touch()
    quoted = {what: shlex.quote(str(file)) for what, file in files.items()}
    (folder / name).write_text(SCRIPT.format(**quoted, code=code))
    (folder / name).chmod(0o755)
    return lambda: files["calls"].read_text().splitlines()
