"""Silence for the libraries that read files: their warnings quote what the files hold."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

READERS = ("pydicom", "PIL", "h5py")


@contextmanager
def mute() -> Iterator[None]:
    """Let no warning and no log message of `READERS` out, in this process."""
    loggers = [logging.getLogger(name) for name in READERS]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled
