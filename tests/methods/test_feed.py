"""Real images of an update: the same whether they are resident or streamed from their file."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf

from petgan.config import resolve_point
from petgan.methods.feed import BATCHES_AHEAD, make_feed
from petgan.store import Dataset

POINT = resolve_point({"preset": "dcgan", "image_size": 16, "batch_size": 8, "seed": 3})


def batches(feed, steps, turns):
    batch = tf.function(lambda step: [feed.batch(step, turn) for turn in range(turns)], autograph=False)
    return [[b.numpy() for b in batch(tf.constant(step))] for step in steps]


@pytest.mark.parametrize("share", [slice(0, 8), slice(4, 8)])
def test_streamed_images_are_the_resident_ones(make_dataset, share):
    with Dataset(make_dataset()) as dataset:
        resident = make_feed(dataset.images("train"), POINT, share, turns=2)
        streamed = make_feed(dataset.stored("train"), POINT, share, turns=2)
        steps = [0, 1, 2, 7, 8, 3]  # a resume jumps; a retried step comes again
        for ours, theirs in zip(batches(streamed, steps, 2), batches(resident, steps, 2), strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert a.dtype == np.uint8
                assert (a == b).all()


def test_batches_are_read_before_they_are_asked_for():
    class Slow:
        shape = (30, 16, 16, 1)

        def __init__(self):
            self.read_so_far, self.enough = 0, threading.Event()

        def read(self, indices):
            self.read_so_far += 1
            if self.read_so_far == 1 + BATCHES_AHEAD:
                self.enough.set()
            return np.zeros((len(indices), 16, 16, 1), np.uint8)

    images = Slow()
    batches(make_feed(images, POINT, slice(0, 8), turns=1), [0], 1)
    assert images.enough.wait(30)


def test_an_error_of_the_file_reaches_the_update(make_dataset):
    class Broken:
        shape = (30, 16, 16, 1)

        def read(self, indices):
            raise OSError("gone")

    with pytest.raises(tf.errors.UnknownError, match="gone"):
        batches(make_feed(Broken(), POINT, slice(0, 8), turns=1), [0], 1)
