"""petgan: synthetic breast images from few real ones, at the scale of a Slurm cluster."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_results"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: pandas would double the start of every command.
    if name == "load_results":
        from petgan.report.results import load_results

        return load_results
    raise AttributeError(f"module 'petgan' has no attribute {name!r}")
