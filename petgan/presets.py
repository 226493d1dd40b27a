"""The presets: which networks, which loss, and the recipe that goes with them.

A preset is known here without TensorFlow; the function that builds its networks is named, not imported.
The fields that a preset takes are the keys of its defaults (see `petgan.config.Point`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from petgan.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A named network and training recipe.

    Parameters
    ----------
    networks : str
        ``"module:function"``; the function takes ``image_size``, ``latent_size``, ``dropout`` and
        ``quirks`` and returns (generator, discriminator).
    loss : str
        ``"bce"`` (binary cross-entropy on a sigmoid) or ``"wasserstein"``.
    defaults : mapping
        Field of `petgan.config.Point` to its value; fields that are absent are refused.
    quirks : tuple of str
        The deviations of the published study that can be switched on by name.
    """

    networks: str
    loss: str
    defaults: Mapping[str, Any]
    quirks: tuple[str, ...] = field(default=())


PRESETS: Registry[Preset] = Registry("preset")

_ADVERSARIAL = {
    "latent_size": 32,
    "batch_size": 32,
    "optimizer": "rmsprop",
    "learning_rate": 8e-4,
    "beta_1": None,
    "beta_2": None,
    "discriminator_decay": 6e-8,
    "generator_decay": 3e-8,
    "gradient_clip": 1.0,
    "dropout": 0.4,
    "n_critic": 1,
    "ema_decay": 0.999,
}
_WASSERSTEIN = {
    **_ADVERSARIAL,
    "latent_size": 128,
    "discriminator_decay": 0.0,
    "generator_decay": 0.0,
    "gradient_clip": None,
    "dropout": 0.25,
    "n_critic": 5,
}

PRESETS.add(
    "gan",
    Preset("petgan.models.gan:build", "bce", _ADVERSARIAL, ("unit-range", "uniform-noise")),
)
PRESETS.add(
    "dcgan",
    Preset(
        "petgan.models.dcgan:build",
        "bce",
        _ADVERSARIAL,
        ("unit-range", "uniform-noise", "relu-before-leaky"),
    ),
)
PRESETS.add(
    "wgan",
    Preset(
        "petgan.models.wgan:build",
        "wasserstein",
        {**_WASSERSTEIN, "batch_size": 16, "learning_rate": 5e-5, "weight_clip": 0.01},
    ),
)
PRESETS.add(
    "wgan-gp",
    Preset(
        "petgan.models.wgan:build",
        "wasserstein",
        {
            **_WASSERSTEIN,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "beta_1": 0.0,
            "beta_2": 0.9,
            "gp_weight": 1.0,
        },
    ),
)
