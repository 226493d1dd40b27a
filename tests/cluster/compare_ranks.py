"""Several ranks against one, for every preset; rank 0 prints what it found as JSON, the last line.

In float32 the gradients that the ranks apply are compared with those that one rank would have applied from
the same weights, turn by turn. In float64 the weights of two runs, on all ranks and on one, are compared at
the end: rounding, which training amplifies, is then too small to matter.

Now and then the input of a ReLU lies within rounding of its kink, and one rank and several go different ways
there: in float32, about once in a hundred turns of a DCGAN. Such a turn is told from a wrong gradient by
the gradient of one rank itself: it then jumps as far when the weights are moved by some of their roundings,
since an activation is a sum of many rounded terms.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from petgan.checkpoint import all_variables
from petgan.config import resolve_point
from petgan.distributed import ALONE, check_equal_weights, join
from petgan.methods import method_of
from petgan.methods.adversarial import make_networks, make_update
from petgan.methods.feed import Data
from petgan.models import cut, dcgan, gan, pggan, srgan, unet, wgan
from petgan.place import Place

# The presets' own layers, but narrow, for ranks that share two cores.
gan.GENERATOR_UNITS, gan.DISCRIMINATOR_UNITS = (32, 64, 64), (64, 32)
dcgan.DISCRIMINATOR_FILTERS = (8, 16, 32, 64)
wgan.CRITIC_LAYERS, wgan.LAST_FILTERS = ((8, 2), (16, 2), (32, 2), (64, 1)), 16
pggan.FILTERS, unet.WIDTHS = (16, 16, 8), (16, 16, 8)
srgan.GENERATOR_FILTERS, srgan.BLOCKS, srgan.DISCRIMINATOR_LAYERS = 8, 2, ((8, 1), (8, 2), (16, 1), (16, 2))
cut.GENERATOR_FILTERS, cut.BLOCKS, cut.DISCRIMINATOR_LAYERS = (8, 16, 16), 1, ((8, 2), (16, 2), (16, 1))

CLOSE = 1e-5
KINK_TRIALS = 24
ROUNDINGS = 16
PRESETS = ("gan", "dcgan", "wgan", "wgan-gp")
# Of these, and of GANs with all that a recipe can ask for, the weights alone ("others").
OTHERS: dict[str, dict[str, object]] = {
    "pggan": {"preset": "pggan", "latent_size": 8, "steps": 5},
    "srgan": {"preset": "srgan"},
    "ddpm": {"preset": "ddpm"},
    "cut": {"preset": "cut"},
    "few-shot": {"preset": "dcgan", "recipe": "few-shot", "ada_target": 0.1, "minibatch_std": True},
    "few-shot-pet": {"preset": "dcgan", "recipe": "few-shot-pet"},
    "stable": {"preset": "dcgan", "recipe": "stable", "r1_weight": 1.0, "lecam_weight": 0.1},
    "penalty": {"preset": "wgan-gp", "n_critic": 1, "normalization": "layer", "minibatch_std": True},
}
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 1), dtype=np.uint8)
DATA = Data(IMAGES, "mammogram", source=IMAGES[::-1].copy())


def point_of(preset):
    if preset in OTHERS:
        return resolve_point({"image_size": 16, "batch_size": 8, **OTHERS[preset]})
    point = resolve_point({"preset": preset, "image_size": 16, "batch_size": 8, "latent_size": 8})
    return point.model_copy(update={"n_critic": min(point.n_critic, 2)})


class Recorder:
    """Keeps the gradients of each turn; with `others`, applies theirs in place of its own.

    So two updates of the same step go through the same weights, turn by turn.
    """

    def __init__(self, networks, n_critic, others=None):
        self.turns = []
        for optimizer, model, turns in (
            (networks.discriminator_optimizer, networks.discriminator, n_critic),
            (networks.generator_optimizer, networks.generator, 1),
        ):
            kept = [
                [tf.Variable(tf.zeros_like(v.value)) for v in model.trainable_variables] for _ in range(turns)
            ]
            theirs = others.turns[len(self.turns) : len(self.turns) + turns] if others else kept
            self.turns += kept
            self._record(optimizer, iter(kept), iter(theirs))

    def _record(self, optimizer, kept, applied):
        apply = optimizer.apply

        def recording(gradients, variables):
            for place, gradient in zip(next(kept), gradients, strict=True):
                place.assign(gradient)
            apply([place.value() for place in next(applied)], variables)

        optimizer.apply = recording

    def gradients(self):
        return [np.concatenate([v.numpy().ravel() for v in turn]) for turn in self.turns]


def compare_gradients(preset, steps, ranks):
    """Relative distances of the ranks' gradients to one rank's: all turns, and those at a kink."""
    point = point_of(preset)
    networks = make_networks(point)
    recorder = Recorder(networks, point.n_critic)
    update = tf.function(make_update(point, networks, Data(IMAGES), ranks), autograph=False)
    if ranks.rank == 0:
        single = Single(point, recorder)
    distances, at_kinks = [], 0
    for step in range(steps):
        before = [np.asarray(v).copy() for v in all_variables(networks)]
        update(tf.constant(step))
        if ranks.rank == 0:
            theirs = single.gradients(before, step)
            for turn, ours in enumerate(recorder.gradients()):
                found = distance(ours, theirs[turn])
                if found > CLOSE and found < 2 * single.jump(before, step, turn):
                    at_kinks += 1
                else:
                    distances.append(found)
    check_equal_weights(ranks, (np.asarray(v) for v in all_variables(networks)))
    return {"turns": len(distances), "distance": max(distances, default=0.0), "at_kinks": at_kinks}


class Single:
    """One rank, from any weights, along the way that the ranks have gone."""

    def __init__(self, point, recorder):
        self._networks = make_networks(point)
        self._recorder = Recorder(self._networks, point.n_critic, others=recorder)
        update = make_update(point, self._networks, Data(IMAGES), ALONE)
        self._update = tf.function(update, autograph=False)

    def gradients(self, weights, step):
        for variable, value in zip(all_variables(self._networks), weights, strict=True):
            variable.assign(value)
        self._update(tf.constant(step))
        return self._recorder.gradients()

    def jump(self, weights, step, turn):
        """How far the gradient of a turn jumps when the weights are moved by up to ROUNDINGS of theirs."""
        still, random = self.gradients(weights, step)[turn], np.random.default_rng(0)
        jumps = []
        for _ in range(KINK_TRIALS):
            moved = [
                w + random.uniform(-ROUNDINGS, ROUNDINGS, w.shape).astype(w.dtype) * np.spacing(w)
                if w.dtype.kind == "f"
                else w
                for w in weights
            ]
            jumps.append(distance(self.gradients(moved, step)[turn], still))
        return max(jumps)


def distance(a, b):
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def compare_weights(preset, steps, ranks):
    """The largest distance of the networks' weights after the same training on all ranks and on one."""
    point = point_of(preset)

    def trained(with_ranks):
        method = method_of(point.preset)
        networks = method.make_networks(point)
        update = tf.function(method.make_update(point, networks, DATA, with_ranks), autograph=False)
        for step in range(steps):
            metrics = update(tf.constant(step))
        models = [part for part in networks.values() if isinstance(part, keras.Model)]
        return [np.concatenate([w.ravel() for w in model.get_weights()]) for model in models], {
            name: float(value) for name, value in metrics.items()
        }

    ours, our_metrics = trained(ranks)
    if ranks.rank:
        return None
    theirs, their_metrics = trained(ALONE)
    distances = [distance(a, b) for a, b in zip(ours, theirs, strict=True)]
    distances += [abs(our_metrics[name] - value) for name, value in their_metrics.items()]
    return float(max(distances))


def use_floats(name):
    keras.config.set_floatx(name)
    keras.config.set_dtype_policy(name)


def main(steps, what="gradients"):
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    ranks = join(Place.from_environment(), {}, None, lambda: False)
    found = {"ranks": ranks.ranks}
    for name in OTHERS if what == "others" else ():
        use_floats("float64")
        found[name] = compare_weights(name, steps, ranks)
        keras.backend.clear_session()
    for preset in PRESETS if what == "gradients" else ():
        use_floats("float32")
        found[preset] = compare_gradients(preset, steps, ranks)
        use_floats("float64")
        found[preset]["weights"] = compare_weights(preset, steps, ranks)
        keras.backend.clear_session()
    ranks.close()
    if ranks.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
