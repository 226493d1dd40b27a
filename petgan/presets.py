"""The presets: which networks, which loss, and the recipe that goes with them.

A preset is known here without TensorFlow; the function that builds its networks is named, not imported.
The fields that a preset takes are the keys of its defaults (see `petgan.config.Point`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from petgan.registry import Registry


@dataclass(frozen=True)
class Preset:
    """A named network and training recipe.

    Parameters
    ----------
    networks : str
        ``"module:function"``; the function takes a `petgan.config.Point` and returns (generator,
        discriminator), or whatever networks its method trains.
    method : str
        How they are trained: ``"module:METHOD"``, see `petgan.methods.Method`.
    defaults : mapping
        Field of `petgan.config.Point` to its value; fields that are absent are refused.
    recipes : mapping
        Name to what it sets in place of defaults; without any, the preset takes none.
    quirks : tuple of str
        The deviations of the published study that can be switched on by name.
    shown : {"nothing", "dataset", "source"}
        Of which dataset its generator is shown images: of none, it makes them of noise; of the run's own;
        or of a second one, which such a preset needs.
    fully_connected : bool
        Layers of images are not in it: no instance normalization, and a discriminator without any.
    """

    networks: str
    method: str
    defaults: Mapping[str, Any]
    quirks: tuple[str, ...] = ()
    recipes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shown: Literal["nothing", "dataset", "source"] = "nothing"
    fully_connected: bool = False


PRESETS: Registry[Preset] = Registry("preset")

_STYLE = {
    "normalization": "batch",
    "activation": None,
    "spectral_norm": False,
    "minibatch_std": False,
    "generator_width": 1.0,
    "discriminator_width": 1.0,
}

ADVERSARIAL = "petgan.methods.adversarial:METHOD"

_FEW_IMAGES = {"augment": "none", "ada_target": None, "enlarge": "none", "enlarge_factor": 1}
_ADVERSARIAL = {
    "recipe": "thesis",
    "loss": "bce",
    **_STYLE,
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
    "discriminator_learning_rate": None,
    "r1_weight": None,
    "lecam_weight": None,
    "freeze_layers": 0,
    **_FEW_IMAGES,
}
_WASSERSTEIN = {
    **_ADVERSARIAL,
    "loss": "wasserstein",
    "latent_size": 128,
    "discriminator_decay": 0.0,
    "generator_decay": 0.0,
    "gradient_clip": None,
    "dropout": 0.25,
    "n_critic": 5,
    "normalization": "none",
}

# A discriminator that cannot win outright.
_STABLE = {
    "loss": "hinge",
    "spectral_norm": True,
    "dropout": 0.0,
    "optimizer": "adam",
    "learning_rate": 2e-4,
    "beta_1": 0.5,
    "beta_2": 0.9,
    "gradient_clip": None,
}
_RECIPES: dict[str, Mapping[str, Any]] = {
    "thesis": {},  # the study's own
    "stable": _STABLE,
    # Slower and slower, and images moved once it knows them.
    "few-shot": {
        **_STABLE,
        "generator_decay": 2.5e-4,
        "discriminator_decay": 2.5e-4,
        "augment": "auto",
        "ada_target": 0.6,
    },
}
# And a wider generator, as the published one ends in 8 filters at 64 pixels, with a discriminator that keeps
# up with it. Images of PET may not be moved (`petgan.policies`): with momentum the two seem to circle,
# without it the discriminator soon knows the images, unless it is narrow; both slow down early.
_DCGAN_RECIPES = {
    **_RECIPES,
    "few-shot": {**_RECIPES["few-shot"], "generator_width": 2.0, "discriminator_learning_rate": 4e-4},
    "few-shot-pet": {
        **_STABLE,
        "beta_1": 0.0,
        "generator_decay": 1e-3,
        "discriminator_decay": 1e-3,
        "generator_width": 2.0,
        "discriminator_width": 0.5,
    },
}
# The sign of a critic's score says nothing: its images are always moved.
_WASSERSTEIN_RECIPES: dict[str, Mapping[str, Any]] = {"thesis": {}, "few-shot": {"augment": "auto"}}

PRESETS.add(
    "gan",
    Preset(
        "petgan.models.gan:build",
        ADVERSARIAL,
        _ADVERSARIAL,
        ("unit-range", "uniform-noise"),
        _RECIPES,
        fully_connected=True,
    ),
)
PRESETS.add(
    "dcgan",
    Preset(
        "petgan.models.dcgan:build",
        ADVERSARIAL,
        _ADVERSARIAL,
        ("unit-range", "uniform-noise", "relu-before-leaky"),
        _DCGAN_RECIPES,
    ),
)
PRESETS.add(
    "wgan",
    Preset(
        "petgan.models.wgan:build",
        ADVERSARIAL,
        {**_WASSERSTEIN, "batch_size": 16, "learning_rate": 5e-5, "weight_clip": 0.01},
        recipes=_WASSERSTEIN_RECIPES,
    ),
)
PRESETS.add(
    "wgan-gp",
    Preset(
        "petgan.models.wgan:build",
        ADVERSARIAL,
        {
            **_WASSERSTEIN,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "beta_1": 0.0,
            "beta_2": 0.9,
            "gp_weight": 1.0,
        },
        recipes=_WASSERSTEIN_RECIPES,
    ),
)
PRESETS.add(
    "ddpm",
    Preset(
        "petgan.models.unet:build",
        "petgan.methods.diffusion:METHOD",
        {
            "batch_size": 32,
            "optimizer": "adam",
            "learning_rate": 2e-4,  # Ho 2020, appendix B, as is the dropout
            "beta_1": None,
            "beta_2": None,
            "gradient_clip": None,
            "dropout": 0.1,
            "ema_decay": 0.999,
        },
    ),
)
PRESETS.add(
    "pggan",
    Preset(
        "petgan.models.pggan:build",
        "petgan.methods.progressive:METHOD",
        {
            "latent_size": 64,
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 1e-3,
            "beta_1": 0.0,
            "beta_2": 0.99,
            "gp_weight": 10.0,
            "n_critic": 1,
            "ema_decay": 0.999,
        },
    ),
)
PRESETS.add(
    "srgan",
    Preset(
        "petgan.models.srgan:build",
        "petgan.methods.superresolution:METHOD",
        {
            "batch_size": 16,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "beta_1": 0.9,
            "beta_2": 0.999,
            "ema_decay": 0.999,
        },
        shown="dataset",
    ),
)
PRESETS.add(
    "cut",
    Preset(
        "petgan.models.cut:build",
        "petgan.methods.translation:METHOD",
        {
            "loss": "least-squares",
            "batch_size": 4,
            "optimizer": "adam",
            "learning_rate": 2e-4,
            "beta_1": 0.5,
            "beta_2": 0.999,
            "gradient_clip": None,
            "ema_decay": 0.999,
        },
        shown="source",
    ),
)
