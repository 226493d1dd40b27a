"""What every metric asks of its arrays."""

from __future__ import annotations

import numpy as np

from petgan.errors import ConfigError
from petgan.metrics.blocks import row_blocks


def checked_features(name: str, features: np.ndarray, at_least: int = 2) -> np.ndarray:
    """Features (n, d), finite, with n >= `at_least`: float32 and float64 as they are, others as float64.

    Metrics count in float64, which they come to block by block: a set may fill much of the memory.

    Raises
    ------
    ConfigError
        If they are anything else.
    """
    out = np.asarray(features)
    if out.dtype.kind not in "biuf":
        raise ConfigError(f"the {name} features have the wrong type", value=out.dtype.name, allowed="numbers")
    if out.dtype not in (np.float32, np.float64):
        out = out.astype(np.float64)
    if out.ndim != 2 or out.shape[1] == 0:
        raise ConfigError(f"the {name} features have the wrong shape", value=out.shape, allowed="(n, d)")
    _check_count(name, len(out), at_least)
    if not all(np.isfinite(out[rows]).all() for rows in row_blocks(len(out))):
        raise ConfigError(f"the {name} features hold values that are not finite")
    return out


def checked_images(name: str, images: np.ndarray, at_least: int = 1) -> np.ndarray:
    """Grey images as uint8 (n, size, size), with n >= `at_least`.

    Raises
    ------
    ConfigError
        If they are anything else.
    """
    out = np.asarray(images)
    if out.dtype != np.uint8:
        raise ConfigError(f"the {name} images have the wrong type", value=out.dtype.name, allowed="uint8")
    if out.ndim == 4 and out.shape[3] == 1:
        out = out[..., 0]
    if out.ndim != 3 or out.shape[1] != out.shape[2]:
        raise ConfigError(
            f"the {name} images have the wrong shape",
            value=np.shape(images),
            allowed="(n, size, size) or (n, size, size, 1)",
        )
    _check_count(name, len(out), at_least)
    return out


def check_same_width(real: np.ndarray, fake: np.ndarray) -> None:
    """Raise a `ConfigError` unless both arrays have the same shape but for their length."""
    if real.shape[1:] != fake.shape[1:]:
        raise ConfigError(
            "real and fake differ in shape", value=fake.shape[1:], allowed=f"{real.shape[1:]}, as the real"
        )


def _check_count(name: str, count: int, at_least: int) -> None:
    if count < at_least:
        raise ConfigError(f"there are too few {name} samples", value=count, allowed=f"{at_least} or more")
