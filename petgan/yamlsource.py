"""YAML files whose every value knows its line, so that a mistake can be pointed at."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from petgan.errors import ConfigError

#: Keys and positions that lead from the top of a file to a value.
Place = tuple[str | int, ...]

_MAX_VALUES = 100_000
_MAX_DEPTH = 40


class _Loader(yaml.SafeLoader):
    """YAML 1.1, but 1e-4 is a number, as YAML 1.2 and everybody has it."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class YamlSource:
    """A YAML text that knows on which line each of its values stands."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._lines: dict[Place, int] = {}
        self._unique: set[int] = set()

    @property
    def folder(self) -> Path:
        return self._path.parent

    def read(self) -> Any:
        """The content, with the same types as ``yaml.safe_load`` gives."""
        try:
            loader = _Loader(self._text)
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = f", line {mark.line + 1}" if mark else ""
            raise ConfigError(
                f"{self._path}{line}: this is no YAML: {error.problem or error.context}"
            ) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{self._path}: this is no YAML: {str(error).splitlines()[0]}") from None
        except RecursionError:
            raise ConfigError(f"{self._path}: this is nested too deeply") from None

    def error(self, place: Place, message: str, **details: Any) -> ConfigError:
        """A `ConfigError` that names the file and the line of the value at `place`."""
        while place and place not in self._lines:
            place = place[:-1]
        return ConfigError(f"{self._path}, line {self._lines.get(place, 1)}: {message}", **details)

    def unknown_key(self, place: Place, allowed: list[str]) -> ConfigError:
        """A `ConfigError` on the key at the end of `place`."""
        close = get_close_matches(str(place[-1]), allowed, n=1)
        return self.error(
            place,
            f"there is no key {place[-1]!r} here",
            allowed=allowed,
            hint=f"did you mean {close[0]!r}?" if close else None,
        )

    def _value(self, loader: _Loader, node: yaml.Node, place: Place) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if len(place) > _MAX_DEPTH or len(self._lines) > _MAX_VALUES:
            raise self.error(place, "this is nested too deeply, or an alias stands within itself")
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, child, (*place, n)) for n, child in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, place)
        return loader.construct_object(node)

    def _mapping(self, loader: _Loader, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        if id(node) not in self._unique:
            self._refuse_repetition(node, place)
            self._unique.add(id(node))
            loader.flatten_mapping(node)  # what "<<" brings in comes first, so that our own keys win
        content = {}
        for key_node, value_node in node.value:
            key = key_node.value
            self._lines[(*place, key)] = key_node.start_mark.line + 1
            content[key] = self._value(loader, value_node, (*place, key))
        return content

    def _refuse_repetition(self, node: yaml.MappingNode, place: Place) -> None:
        seen: dict[str, int] = {}
        for key_node, _ in node.value:
            line = key_node.start_mark.line + 1
            self._lines[(*place, "")] = line
            if not isinstance(key_node, yaml.ScalarNode):
                raise self.error((*place, ""), "a key must be a word")
            if key_node.value in seen:
                raise self.error(
                    (*place, ""),
                    f"the key {key_node.value!r} stands here twice, first on line {seen[key_node.value]}",
                )
            seen[key_node.value] = line
