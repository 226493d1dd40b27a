"""Ranks that are threads of one process."""

from __future__ import annotations

import tensorflow as tf

from petgan.distributed import Alone


class InThread(Alone):
    """A rank that is a thread of this process, whose collectives wait for the other threads."""

    def __init__(self, rank, ranks, barrier, board):
        self.rank, self.ranks, self._barrier, self._board = rank, ranks, barrier, board

    def _exchange(self, value):
        self._board[self.rank] = value
        self._barrier.wait(60)
        values = [self._board[rank] for rank in range(self.ranks)]
        self._barrier.wait(60)
        return values

    def average(self, tensors):
        return [tf.reduce_mean(tf.stack(each), axis=0) for each in zip(*self._exchange(tensors), strict=True)]

    def gather(self, tensor):
        # As Horovod's: what a gradient of a gradient needs is again a sum over the ranks.
        others = [[self.rank, self.ranks - self.rank - 1], *[[0, 0]] * len(tensor.shape)]
        return self._sum(tf.pad(tensor[None], others))

    def _sum(self, tensor):
        @tf.custom_gradient
        def summed(x):
            return tf.add_n(self._exchange(x)), self._sum

        return summed(tensor)
