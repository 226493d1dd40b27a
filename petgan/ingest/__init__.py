"""Image files in, one dataset out: grey, square, windowed, split by patient and without identity.

=====================================  ===================================================================
`pipeline`                             the whole way, top down
`scan`                                 finds the images, and seals whose they are: `patients`,
                                       `collections`, `deidentify`
`formats`                              what can be read: `dicom` (with `suv`, `mammography`, `codecs`),
                                       `ddsm`, `raster`
`plan`                                 settles the options: `units`, `window`, `volume`, `field`
`images`                               makes pictures alike: `film`, `resize`; in processes of `parallel`
`duplicates`, `split`                  who has to be in one split, and in which
`record`, `quarantine`                 what was done, and what a person has to look at
`known`, `cache`                       what a second run need not read again
`audit`, `lookup`                      what identifies (`identities`, `basic_profile`, `embedded`,
                                       `needles`), and the way back for who has the key
=====================================  ===================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petgan.ingest.formats import FORMATS, Format
    from petgan.ingest.frame import Header, Refused
    from petgan.ingest.pipeline import cache_folder, ingest, make_plan
    from petgan.ingest.plan import Options, Plan

__all__ = ["FORMATS", "Format", "Header", "Options", "Plan", "Refused", "cache_folder", "ingest", "make_plan"]

# Imported when they are first used: a worker process needs the readers, and nothing else.
_HOME = {
    "FORMATS": "formats", "Format": "formats", "Header": "frame", "Refused": "frame", "Options": "plan",
    "Plan": "plan", "cache_folder": "pipeline", "ingest": "pipeline", "make_plan": "pipeline",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"petgan.ingest.{_HOME[name]}"), name)
