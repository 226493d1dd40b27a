"""Ways to make more of few images, by name: changed in every update, or made before training.

The names are known here without TensorFlow and NumPy; the functions are named, not imported.
"""

from __future__ import annotations

from petgan.errors import ConfigError
from petgan.registry import Registry

#: Transformations of `petgan.methods.augment`, in the order in which they are applied.
TRANSFORMATIONS: Registry[str] = Registry("transformation")
TRANSFORMATIONS.add("flip-x", "petgan.methods.augment:flip_x")
TRANSFORMATIONS.add("scale", "petgan.methods.augment:scale")
TRANSFORMATIONS.add("translation", "petgan.methods.augment:translation")
TRANSFORMATIONS.add("cutout", "petgan.methods.augment:cutout")
# Last: what came in from outside changes as air does.
TRANSFORMATIONS.add("color", "petgan.methods.augment:color")

#: What ``auto`` stands for, by the dataset's modality.
#:
#: What always happens to the images may leak into what the generator makes; a policy therefore only
#: changes what carries no meaning.
#:
#: - Mammograms: translation, as a patient's place in the field varies anyway.
#: - PET: nothing. On phantom PET (308 images of 32 pixels, 4,000 steps), whose breasts lie in the middle of
#:   every image, translation leaked: generated breasts were smeared into crosses. The same networks without
#:   it had a sliced Wasserstein distance of 31 and not 52, and as good a KID (one seed).
#: - Neither has cutout: its straight edges leaked. On 120 mammograms of 32 pixels, 4,000 steps, one seed, a
#:   DCGAN drew faint lines across the breasts, and its KID was 136 with it and 29 without (times 1e-6).
#: - PET: no color. A grey value is an uptake (SUV) and black is none: neither may move. Exposure, film and
#:   digitizer of mammograms vary, so that color may be asked for by name; it was not measured.
#: - Neither is mirrored: the heart is on the left, and an ingest may have turned all breasts to one side.
#:   No transformation turns: the pectoral muscle of an MLO view is on top, and the chest wall is straight.
#: - Neither is scaled: that blurs the texture, which is PET's noise, and microcalcifications.
POLICIES: dict[str, tuple[str, ...]] = {"pet": (), "mammogram": ("translation",)}

#: Ways of `petgan.enlarge`; ``combination`` is all the others, one after another, in this order.
ENLARGEMENTS: Registry[str] = Registry("enlargement")
ENLARGEMENTS.add("ricap", "petgan.enlarge:ricap")
ENLARGEMENTS.add("rotation", "petgan.enlarge:rotation")
ENLARGEMENTS.add("translation", "petgan.enlarge:translation")
ENLARGEMENTS.add("combination", "petgan.enlarge:combination")


def normal_policy(text: str) -> str:
    """``none``, ``auto``, or names joined by commas in the order of `TRANSFORMATIONS`, each once.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    if text in ("none", "auto"):
        return text
    names = {name.strip() for name in text.split(",")}
    for name in sorted(names):
        if name not in TRANSFORMATIONS:
            raise ConfigError(
                "there is no such augmentation",
                value=name,
                allowed=f"none, auto, or some of {', '.join(TRANSFORMATIONS)}, joined by commas",
            )
    return ",".join(name for name in TRANSFORMATIONS if name in names)


def policy_of(text: str, modality: str) -> tuple[str, ...]:
    """The transformations that `text` stands for on images of `modality`, in their order.

    Raises
    ------
    ConfigError
        If a name is unknown, or if ``auto`` knows no policy for `modality`.
    """
    text = normal_policy(text)
    if text == "none":
        return ()
    if text != "auto":
        return tuple(text.split(","))
    if modality not in POLICIES:
        raise ConfigError(
            "augment: auto knows no policy for this modality",
            value=modality,
            allowed=POLICIES,
            hint=f"name the transformations: some of {', '.join(TRANSFORMATIONS)}, joined by commas",
        )
    return POLICIES[modality]
