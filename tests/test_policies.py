"""Names of augmentations: what they stand for, and what refuses them."""

from __future__ import annotations

import inspect
import re

import pytest

from petgan import enlarge
from petgan.errors import ConfigError
from petgan.policies import ENLARGEMENTS, POLICIES, TRANSFORMATIONS, normal_policy, policy_of
from petgan.registry import load


def test_names_stand_in_one_order_and_once():
    assert normal_policy("color, cutout,color") == "cutout,color"
    assert policy_of("color,translation", "other") == ("translation", "color")
    assert policy_of("none", "pet") == ()


def test_auto_goes_by_the_modality():
    for modality, policy in POLICIES.items():
        assert policy_of("auto", modality) == policy
        text = ",".join(policy) or "none"
        assert normal_policy(text) == text  # known, and in order


def test_policies_leave_alone_what_means_something():
    assert "color" not in POLICIES["pet"]  # SUV
    assert all("scale" not in policy for policy in POLICIES.values())  # texture
    assert all("flip-x" not in policy for policy in POLICIES.values())  # laterality


@pytest.mark.parametrize("text", ["colour", "none,color", "color,auto", "", "color,"])
def test_an_unknown_name_is_answered_with_the_known_ones(text):
    with pytest.raises(ConfigError, match="none, auto, or some of flip-x, scale, translation") as caught:
        normal_policy(text)
    assert "\n" not in str(caught.value)


def test_auto_says_for_which_modality_it_has_none():
    with pytest.raises(ConfigError, match=re.escape("got 'ct'; allowed: pet, mammogram; name the")):
        policy_of("auto", "ct")


def test_every_name_leads_to_a_function():
    for name in (*TRANSFORMATIONS, *ENLARGEMENTS):
        registry = TRANSFORMATIONS if name in TRANSFORMATIONS else ENLARGEMENTS
        assert inspect.isfunction(load(registry[name]))
    assert load(ENLARGEMENTS["ricap"]) is enlarge.ricap
