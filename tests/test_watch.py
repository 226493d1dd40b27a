"""What is said of a training by its logged metrics: series made on purpose, sound ones and broken ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petgan.watch import GRACE, LINES, PATIENCE, VARIED, WINDOW, Watch

STEPS = 1000
quickly = settings(max_examples=30, deadline=None)
BROKEN = {
    "collapsed": {"variation": 0.005},
    "diverged": {"d_gradient": 1e6},
    "stalled": {"g_gradient": 0.0},
}


def training(seed=0, every=10, steps=STEPS):
    """A training whose metrics stay what they are but for noise, each of a size of its own: its lines."""
    random = np.random.default_rng(seed)
    sizes = {name: 10 ** random.uniform(-2, 2) for name in ("d_loss", "g_loss", "d_gradient", "g_gradient")}
    logged = range(every, steps + 1, every)
    return [
        {
            "step": step,
            **{name: float(size * random.lognormal(0, 1)) for name, size in sizes.items()},
            "d_loss": float(sizes["d_loss"] * random.normal()),
            "variation": float(random.uniform(0.03, 2)),
            "d_real": float(1e9 * random.normal()),
        }
        for step in logged
    ]


def broken(lines, what, first, last=STEPS):
    return [line | BROKEN[what] if first <= line["step"] <= last else line for line in lines]


def verdicts(lines):
    """Kind and beginning of the trouble after each line, by its step; None where there is none."""
    watch, found = Watch(), {}
    for line in lines:
        watch.look(line)
        found[line["step"]] = watch.trouble and (watch.trouble.kind, watch.trouble.since)
    return found


@quickly
@given(seed=st.integers(0, 2**32 - 1), every=st.integers(1, 300))
def test_a_steady_training_is_never_in_trouble(seed, every):
    assert not any(verdicts(training(seed, every)).values())


@pytest.mark.parametrize("what", BROKEN)
@quickly
@given(seed=st.integers(0, 2**32 - 1), every=st.integers(1, 100), first=st.integers(501, 600))
def test_what_breaks_is_named_with_its_step_once_it_has_lasted(what, seed, every, first):
    found = verdicts(broken(training(seed, every, steps=1200), what, first, 1200))
    bad = [step for step in found if step >= first]
    for step, trouble in found.items():
        lasted = step >= bad[0] + WINDOW and step >= bad[LINES - 1]
        assert trouble == ((what, bad[0]) if lasted else None)


@quickly
@given(cut=st.integers(0, STEPS // 10), first=st.integers(GRACE, 600), last=st.integers(600, STEPS))
def test_the_lines_alone_count_and_not_when_they_were_read(cut, first, last):
    lines = broken(training(), "diverged", first, last)
    watch = Watch(lines[:cut])
    for line in lines[cut:]:
        watch.look(line)
    assert watch.trouble == Watch(lines).trouble


def test_what_recovers_is_no_trouble_any_more_and_may_come_again():
    found = verdicts(broken(broken(training(), "collapsed", 300, 500), "collapsed", 700))
    assert found == {
        step: ("collapsed", 300) if 400 <= step <= 500 else ("collapsed", 700) if step >= 800 else None
        for step in found
    }


@pytest.mark.parametrize("what", BROKEN)
def test_one_good_line_in_between_begins_the_count_anew(what):
    lines = broken(broken(training(), what, 300, 390), what, 410)
    assert verdicts(lines)[500] is None
    assert verdicts(lines)[510] == (what, 410)


@pytest.mark.parametrize("what", ["diverged", "stalled"])
def test_the_first_steps_do_not_count(what):
    assert not any(verdicts(broken(training(), what, 90, GRACE + WINDOW)).values())
    assert verdicts(broken(training(), what, 90))[GRACE + 10 + WINDOW] == (what, GRACE + 10)


def test_a_generator_that_has_not_varied_yet_has_time():
    lines = training(steps=2 * PATIENCE)
    assert not any(verdicts(broken(lines, "collapsed", 1, PATIENCE + WINDOW)).values())
    found = verdicts(broken(lines, "collapsed", 1, 2 * PATIENCE))
    since = PATIENCE + 10
    assert found == {step: ("collapsed", since) if step >= since + WINDOW else None for step in found}
    once = [line | {"variation": 0.01 if line["step"] != 200 else VARIED} for line in lines]
    assert verdicts(once)[210 + WINDOW] == ("collapsed", 210)


def test_a_divergence_does_not_become_what_is_usual():
    """However long it lasts, and though it is told from the run's own values."""
    found = verdicts(broken(training(steps=20_000), "diverged", 300, 20_000))
    assert all(found[step] == ("diverged", 300) for step in range(400, 20_001, 10))


def test_a_training_that_was_never_sound_is_told_by_a_loss_without_sense():
    lines = [line | {"g_loss": -3e10, "g_gradient": 2e8} for line in training()]
    trouble = Watch(lines).trouble
    assert str(trouble) == f"diverged since step {GRACE + 10}: g_loss is -3e+10"


def test_a_discriminator_that_wins_and_loses_again_is_no_trouble():
    """What vanishes for long and comes back is nothing new; a hinge leaves no gradient at all."""
    won = {"d_loss": 1e-9, "d_gradient": 0.0, "g_loss": 30.0, "g_gradient": 500.0}
    lost = {"d_loss": 0.7, "d_gradient": 40.0}
    lines = training(steps=3000)
    assert not any(verdicts([line if 300 < line["step"] < 700 else line | won for line in lines]).values())
    assert not any(verdicts([line | won | (lost if line["step"] > 2000 else {}) for line in lines]).values())


def test_what_is_said():
    assert str(Watch(broken(training(), "collapsed", 300)).trouble) == (
        "collapsed since step 300: generated images vary by 0.005 of what real ones do"
    )
    lines = [line | {"d_gradient": 2.0 if line["step"] < 300 else 1e6} for line in training()]
    assert str(Watch(lines).trouble) == "diverged since step 300: d_gradient is 1e+06, 500000 times the usual"
    assert str(Watch(broken(training(), "stalled", 300)).trouble) == (
        "stalled since step 300: no gradient reaches the generator any more"
    )


def test_metrics_that_a_method_does_not_report_are_not_missed():
    assert Watch().trouble is None
    assert Watch([{"step": step, "loss": 0.5} for step in range(10, STEPS, 10)]).trouble is None
