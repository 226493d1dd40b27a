"""Pages: one file each, which asks the network for nothing, in one style."""

from __future__ import annotations

import base64
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package in; what is not marked as safe is escaped."""
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    return environment.get_template(template).render(**values)


def data_uri(content: bytes, kind: str = "png") -> str:
    """An image's file, as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _read(name: str) -> str:
    return resources.files("petgan.report").joinpath(name).read_text(encoding="utf-8")
