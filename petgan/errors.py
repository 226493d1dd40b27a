"""Every error that petgan raises on purpose, in one tree, with the exit code that it leads to.

A message is one sentence: what failed, the value received, the values allowed, what to do next.
"""

from __future__ import annotations

from collections.abc import Iterable

EXIT_FAILURE = 1
EXIT_USER_MISTAKE = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: stopped at a checkpoint, to be started again

_NOT_GIVEN = object()


class PetganError(Exception):
    """A failure of the work: not the user's mistake, and known well enough to be explained.

    Parameters
    ----------
    what : str
        What failed.
    value : object, optional
        The value received.
    allowed : str or iterable, optional
        The values allowed, or their description.
    hint : str, optional
        What to do next.
    """

    exit_code = EXIT_FAILURE

    def __init__(
        self,
        what: str,
        *,
        value: object = _NOT_GIVEN,
        allowed: str | Iterable[object] | None = None,
        hint: str | None = None,
    ) -> None:
        parts = [what if value is _NOT_GIVEN else f"{what}: got {value!r}"]
        if allowed is not None:
            values = allowed if isinstance(allowed, str) else ", ".join(map(str, allowed))
            parts.append(f"allowed: {values}")
        if hint is not None:
            parts.append(hint)
        super().__init__("; ".join(parts))


class UserError(PetganError):
    """A mistake that the user can mend."""

    exit_code = EXIT_USER_MISTAKE


class ConfigError(UserError):
    """A configuration, grid file or option that cannot be what was meant."""


class InputError(UserError):
    """An input file or folder that is missing, broken or of a kind that petgan does not read."""


class DatasetError(UserError):
    """A dataset that is missing, damaged, changed, or of another schema version."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or of another network."""


class DiskError(UserError):
    """A disk that is full or a folder that cannot be written: the user has to make room."""


class TrainingError(PetganError):
    """A training that cannot go on, such as a loss that is not a number."""


class RendezvousError(PetganError):
    """Ranks that did not find each other."""

    exit_code = 70


class RankCountError(PetganError):
    """Ranks that are more or fewer than the run asks for."""

    exit_code = 71


class RankMismatchError(PetganError):
    """Ranks that would not train the same run: other data, code, configuration, or a GPU that is shared."""

    exit_code = 72


class RunBusyError(UserError):
    """A run that another live process is training."""


class Interrupted(PetganError):
    """A run that was asked to stop, has checkpointed, and can be started again."""

    exit_code = EXIT_INTERRUPTED
