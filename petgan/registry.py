"""Named things that can be added to: presets, metrics, input formats, feature networks.

An entry may be a reference ``"package.module:attribute"``, so that a name is known without importing
what stands behind it: the login node lists networks that only the worker can build.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from petgan.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary whose ``KeyError`` names the valid keys.

    Parameters
    ----------
    kind : str
        What the entries are, in the singular: it stands in the error message.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register `entry` under `name`; a name is given once."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            close = get_close_matches(str(name), self._entries, n=1)
            raise ConfigError(
                f"there is no such {self.kind}",
                value=name,
                allowed=self.names(),
                hint=f"did you mean {close[0]!r}?" if close else None,
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def names(self) -> list[str]:
        """All names, in the order of their registration."""
        return list(self._entries)


def load(reference: str) -> Any:
    """Import what ``"package.module:attribute"`` names."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)
