"""Patients whose truth the tests know."""

from dataclasses import replace

import numpy as np

from petgan.phantom import pet


def patient(number=0, **breast):
    who = pet.random_patient(np.random.default_rng(number))
    return replace(who, breast=replace(who.breast, **breast))


def plain(**changes):
    """A breast of fat alone, without texture, centred."""
    flat = np.zeros_like(patient().breast.coarse)
    changes = {
        "radius_mm": 60.0, "length_mm": 100.0, "roundness": 2.5, "waves": (), "centre_mm": (0.0, 0.0),
        "lean_mm": (0.0, 0.0), "gland_extent": -5.0, "fat_suv": 0.4, "lesions": (),
        "coarse": flat, "fine": flat,
    } | changes  # fmt: skip
    return patient(**changes)
