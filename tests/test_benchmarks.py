"""The benchmarks that need little run from end to end: their figures are for people, not for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def said_by(*command):
    """Run on one core; the lines of its output."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is started has it too
    try:
        done = subprocess.run(
            [sys.executable, *map(str, command)], capture_output=True, text=True, timeout=200
        )
    finally:
        os.sched_setaffinity(0, cores)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_ingest_against_the_loop(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = ["--files=20", "--rounds=1", "--sides", "16", "--png-side=16", "--size=16"]
    head, _, *table = said_by(BENCHMARKS / "ingest.py", *options)
    assert "1 cores" in head
    assert "20 files a kind" in head
    names, rule, *lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert len(names) == len(rule) == 7
    files = ("DICOM PET 16 × 16", "PNG 16 × 16", "one DICOM: the start alone")
    methods = ("loop", "petgan, 1 worker", "the same again")
    assert [line[:2] for line in lines] == [[kind, method] for kind in files for method in methods]
    for kind, _, rate, *numbers in lines:
        assert all(float(number) > 0 for number in numbers)
        if kind == files[-1]:
            assert rate == ""
        else:
            seconds = float(numbers[0])  # of which two digits behind the point are shown
            assert 20 / (seconds + 0.005) - 0.5 <= float(rate) <= 20 / (seconds - 0.005) + 0.5
    assert list(tmp_path.iterdir()) == []


def test_metrics_against_the_plain_way(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # where there are no weights
    options = ["--features=24", "--many=60", "--large=200", "--rounds=1"]
    head, _, *table, _, fid, kid, pr, dc, last = said_by(BENCHMARKS / "metrics.py", *options)
    assert head == "24 features, 1 cores, seconds"
    assert last == "features: no learned weights of InceptionV3 found, give them by --weights"
    names = ("FID", "KID", "precision, recall", "density, coverage")
    rows = [(line[:18].strip(), *line[18:].split()) for line in table]
    assert [row[:3] for row in rows] == [(n, *c) for c in (("404", "150"), ("60", "60")) for n in names]
    for _, _, _, ours, plain, ratio, difference in rows:
        assert min(float(ours), float(plain), float(ratio)) >= 0
        assert float(difference) < 1e-6
    for name, line in zip(names, (fid, kid, pr, dc), strict=True):
        assert line[:26].strip() == name
        count, seconds, peak = map(float, line[26:].split())
        assert (count, seconds >= 0, 0.01 < peak < 1) == (200, True, True)


def test_report(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    head, bare, whole, page = said_by(BENCHMARKS / "report.py", "--points=2", "--seeds=2", "--size=16")
    assert head == "2 points x 2 seeds, images of 16 pixels"
    assert float(whole.split()[2]) > float(bare.split()[5])
    assert float(page.split()[2]) > 0
    assert list(tmp_path.iterdir()) == []


def test_compressions_of_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    small = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import store; "
        "store.SIZE, store.PATIENTS = 56, 1; store.main()"
    )
    head, _, *table = said_by("-c", small, BENCHMARKS, "--images=2", "--rounds=1")
    assert head == "2 images of 56 pixels; microseconds an image"
    sizes = {}
    for line in table:
        name, compression, size, *times = line[:20].strip(), line[20:38].strip(), *line[38:].split()
        sizes[name, compression] = float(size.rstrip("%"))
        assert len(times) == 3
        assert all(float(time) > 0 for time in times)
    kinds = ("PET uint8", "PET float32", "mammogram uint8", "mammogram float32")
    compressions = ("none", "lzf", "shuffle, lzf", "gzip 1", "shuffle, gzip 1", "shuffle, gzip 4")
    assert list(sizes) == [(kind, compression) for kind in kinds for compression in compressions]
    for kind in kinds:
        assert sizes[kind, "none"] >= 100
        assert sizes[kind, "shuffle, gzip 4"] < sizes[kind, "none"]
    assert list(tmp_path.iterdir()) == []


def test_share_of_the_score_during_training():
    options = ["--sizes=16", "--presets", "gan", "--rounds=1", "--block-seconds=0.1", "--images=2"]
    head, names, rule, line = said_by(BENCHMARKS / "scoring.py", *options)
    assert head == "1 cores, 2 images scored against 2"
    assert names.count("|") == rule.count("|") == line.count("|")
    preset, size, step, score, *shares = [cell.strip() for cell in line.split("|")[1:-1]]
    assert (preset, size) == ("gan", "16")
    step, score = (float(cell.removesuffix(" s")) for cell in (step, score))  # four and three digits shown
    for between, share in zip((400, 30), shares, strict=True):
        assert (score - 0.0005) / ((step + 0.00005) * between) <= float(share.rstrip("%")) / 100 + 0.00005
        assert (score + 0.0005) / ((step - 0.00005) * between) >= float(share.rstrip("%")) / 100 - 0.00005


def test_training_against_the_notebook_and_the_matrix_rate(tmp_path):
    options = ["--presets=gan", "--sizes=16", "--batch-size=4", "--rounds=1", "--block-seconds=0.1"]
    head, _, names, _, row = said_by(
        BENCHMARKS / "training.py", *options, "--plot", tmp_path / "training.png"
    )
    assert head == "1 cores, batch 4, float32, medians of 1"
    found = dict(
        zip(*([cell.strip() for cell in line.split("|")[1:-1]] for line in (names, row)), strict=True)
    )
    steps, rate, matrix, share = (
        float(found[name]) for name in ("steps/s", "GFLOP/s", "matrix GFLOP/s", "share")
    )
    # By hand: the generator's 32, 256, 512, 1024, 256 units and the discriminator's 256, 512, 256, 1.
    generator = 32 * 256 + 256 * 512 + 512 * 1024 + 1024 * 256
    discriminator, first = 256 * 512 + 512 * 256 + 256, 256 * 512
    passes = (
        generator + 2 * (3 * discriminator - first)  # its turn: the images are not differentiated
        + 3 * generator - 32 * 256 + 2 * discriminator  # the generator's
    )  # fmt: skip
    assert float(found["TFLOP a step"]) == pytest.approx(2e-12 * 4 * passes, rel=0.01)
    assert rate == pytest.approx(1e3 * float(found["TFLOP a step"]) * steps, rel=0.02)
    assert share == pytest.approx(rate / matrix, rel=0.02)
    assert float(found["times notebook"]) > 0
    assert (tmp_path / "training.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("activation", "penalized", "images", "hidden", "scores"),
    [
        ("tanh", False, 1, 1, 1),
        # And the gradients by scores, by hidden units before and behind tanh, and by images.
        ("tanh", True, 2, 3, 2),
        # Before and after it: its backward pass computes the sigmoid once more.
        ("silu", False, 1, 2, 1),
    ],
)
def test_held_memory_is_what_backward_passes_take_from_forward_ones(
    monkeypatch, activation, penalized, images, hidden, scores
):
    import tensorflow as tf

    monkeypatch.syspath_prepend(BENCHMARKS)
    from training import counted

    n, units = 6, 50
    first, second = tf.Variable(tf.ones((3, units))), tf.Variable(tf.ones((units, 1)))
    x = tf.Variable(tf.ones((n, 3)))

    def update(step):
        with tf.GradientTape() as tape:
            shown = x * tf.cast(step, tf.float32)
            with tf.GradientTape() as inner:
                inner.watch(shown)
                value = tf.reduce_sum((getattr(tf.nn, activation)(shown @ first) @ second) ** 2)
            if penalized:
                value = tf.reduce_sum(inner.gradient(value, shown) ** 2)
        for variable, slope in zip((first, second), tape.gradient(value, (first, second)), strict=True):
            variable.assign_sub(slope)

    _, held = counted(update)
    assert held * 1e9 == pytest.approx(4 * n * (3 * images + units * hidden + scores))


@pytest.mark.slow
def test_recipes_are_compared_seed_by_seed_along_their_training(make_dataset, make_run, tmp_path):
    import keras

    from petgan import cli

    dataset, runs = make_dataset(), []
    for recipe in ("few-shot", "thesis"):
        for seed in (0, 1):
            every = {"log": 2, "sample": 4, "score": 4, "checkpoint": 2, "keep": 2}
            run = make_run(dataset, f"{recipe}-{seed}", every, recipe=recipe, seed=seed, steps=4)
            assert cli.main(["run", str(run.path)]) == 0
            runs.append(run.path)
    image = keras.Input((16, 16, 1))
    keras.Model(image, keras.layers.Dense(6)(keras.layers.Flatten()(image))).save(tmp_path / "tiny.keras")
    plot = tmp_path / "recipes.png"
    options = ["--network", tmp_path / "tiny.keras", "--images=16", "--plot", plot]
    head, _, _, _, *table, _, compared = said_by(BENCHMARKS / "recipes.py", *runs, *options)
    assert head == "9 held-out images, 16 generated; KID in tiny"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    assert [row[:3] for row in rows] == [[r, s, "2"] for r in ("few-shot", "thesis") for s in ("2", "4")]
    last = {row[0]: [float(value) for value in row[3:]] for row in rows if row[1] == "4"}
    kid, swd = (part.split() for part in compared.removeprefix("few-shot minus thesis: ").split("; "))
    for n, (name, mean, low, high, seeds, _) in enumerate((kid, swd)):
        assert (name, seeds) == (("KID", "SWD")[n], "2")
        assert float(mean) == pytest.approx(last["few-shot"][n] - last["thesis"][n], abs=0.16)
        assert float(low.strip("[,")) <= float(mean) <= float(high.strip("],"))
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_recipes_that_cannot_be_compared_are_refused(make_dataset, make_run, tmp_path):
    import keras

    image = keras.Input((16, 16, 1))
    keras.Model(image, keras.layers.Dense(6)(keras.layers.Flatten()(image))).save(tmp_path / "tiny.keras")
    dataset = make_dataset()
    one = make_run(dataset, "one")
    for name, values, problem in (
        ("other-preset", {"preset": "gan"}, "several datasets or presets"),
        ("other-rate", {"learning_rate": 0.5, "seed": 1}, "recipe thesis differ in more than their seeds"),
        ("the-same", {}, "several runs of recipe thesis with one seed"),
    ):
        other = make_run(dataset, name, **values)
        command = [BENCHMARKS / "recipes.py", one.path, other.path, "--network", tmp_path / "tiny.keras"]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=200)
        assert done.returncode == 2
        assert problem in done.stderr
