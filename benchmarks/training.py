"""Training against the loop that notebooks write, against the machine's matrix rate, and over ranks.

    python benchmarks/training.py --sizes 64 224 --ranks 1 2 4 --plot training.png

For each preset: updates a second (one of the generator and ``n_critic`` of the discriminator), images a
second that the discriminator sees, the rate of the step's convolutions and matrix products as a share of
matrix products in the same processes, and how many times the steps of the notebook loop: ``predict``
and ``train_on_batch`` twice, or Keras' published WGAN-GP.

Peak memory is what the process takes in two updates, beyond what TensorFlow, Horovod and an update's graph
take in another one: resident memory, or what TensorFlow has given out of the GPU's. Held is what backward
passes take from forward ones, the weights, the optimizers' state and the largest set of gradients.

Each figure is of a process of its own; petgan and the notebook take turns, and medians are printed. All
use the same cores: several ranks share them. Ranks need Horovod: give the command in the image,

    apptainer exec IMAGE python benchmarks/training.py ...

A GPU is used where TensorFlow sees one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from petgan.config import Point, resolve_point
from petgan.presets import PRESETS
from petgan.worker import import_quietly, use_cpus

BLOCKS = 3
MATRIX, GPU_MATRIX = 2048, 8192
TRAINING_IMAGES = 64
CORES = len(os.sched_getaffinity(0))
COLUMNS = (
    "preset", "pixels", "ranks", "steps/s", "images/s", "TFLOP a step", "GFLOP/s", "matrix GFLOP/s", "share",
    "peak GB", "held GB", "times notebook",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224], help="pixels")
    parser.add_argument("--batch-size", type=int, default=32, help="global")
    parser.add_argument("--compute-dtype", default="float32")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=3, help="processes a figure")
    parser.add_argument(
        "--block-seconds", type=float, default=4.0, help="of steps between two looks at the clock"
    )
    parser.add_argument("--plot", type=Path, help="PNG file to draw the table into")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        import_quietly()
        print(json.dumps(CHILDREN[args.child](args)))
        return
    print(f"{CORES} cores, batch {args.batch_size}, {args.compute_dtype}, medians of {args.rounds}\n")
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    rows = []
    for preset, size in itertools.product(args.presets, args.sizes):
        for row in measured(preset, size, args):
            rows.append(row)
            print("| " + " | ".join(_cell(row[c]) for c in COLUMNS) + " |", flush=True)
    if args.plot:
        plot(rows, args.plot)


def measured(preset: str, size: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a number of ranks."""
    found: dict[Any, list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for ranks in args.ranks:
            least = argparse.Namespace(**{**vars(args), "batch_size": 2 * ranks})
            before = in_processes("small", ranks, preset, 32, least)
            ours = in_processes("petgan", ranks, preset, size, args)
            found.setdefault(ranks, []).append({**ours, "peak_gb": ours["peak_gb"] - before["memory_gb"]})
        if preset in NOTEBOOKS:
            found.setdefault("notebook", []).append(in_processes("notebook", 1, preset, size, args))
    middle = {
        key: {name: statistics.median(result[name] for result in results) for name in results[0]}
        for key, results in found.items()
    }
    rows = []
    for ranks in args.ranks:
        ours = middle[ranks]
        rate = ours["gflop"] / ours["seconds"]
        point = point_of(preset, size, args)
        rows.append(
            {
                "preset": preset,
                "pixels": size,
                "ranks": ranks,
                "steps/s": 1 / ours["seconds"],
                "images/s": args.batch_size * (point.n_critic or 1) / ours["seconds"],
                "TFLOP a step": ours["gflop"] / 1000,
                "GFLOP/s": rate,
                "matrix GFLOP/s": ours["matrix"],
                "share": rate / ours["matrix"],
                "peak GB": ours["peak_gb"],
                "held GB": ours["held_gb"],
                "times notebook": middle["notebook"]["seconds"] / ours["seconds"]
                if preset in NOTEBOOKS
                else None,
            }
        )
    return rows


def in_processes(
    child: str, ranks: int, preset: str, size: int, args: argparse.Namespace
) -> dict[str, float]:
    """What rank 0 says of one measurement."""
    command = [sys.executable, __file__, "--child", child, "--presets", preset, "--sizes", str(size)]
    command += [
        "--batch-size",
        str(args.batch_size),
        "--compute-dtype",
        args.compute_dtype,
        "--ranks",
        str(ranks),
    ]
    command += ["--block-seconds", str(args.block_seconds)]
    with tempfile.TemporaryDirectory() as folder:
        processes = []
        for rank in range(ranks):
            place = {"RANK": rank, "RANKS": ranks, "LOCAL_RANK": rank, "LOCAL_RANKS": ranks, "NODE": 0,
                     "NODES": 1, "RENDEZVOUS": f"{folder}/rendezvous", "INTERFACE": "lo"}  # fmt: skip
            environment = {f"PETGAN_{k}": str(v) for k, v in place.items()} if ranks > 1 else {}
            environment |= {"OPENBLAS_NUM_THREADS": str(max(1, CORES // ranks))}
            processes.append(
                subprocess.Popen(
                    command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
                )
            )
        said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{child} of {preset} at {size} pixels on {ranks} ranks failed")
    result: dict[str, float] = json.loads(said[0].splitlines()[-1])
    return result


# --- in a process of its own --------------------------------------------------------------------


def small(args: argparse.Namespace) -> dict[str, float]:
    """Memory after an update of little, less what its networks take of it."""
    steps, _, networks, ranks = made(args)
    steps(1)
    memory = memory_gb("current", "VmRSS:") - weights_gb(networks)
    ranks.close()
    return {"memory_gb": memory}


def petgan(args: argparse.Namespace) -> dict[str, float]:
    steps, update, networks, ranks = made(args)
    steps(2)
    peak = memory_gb("peak", "VmHWM:")  # before the matrices' own
    # All ranks have to carry out equally many updates: the first of them says how many.
    seconds, matrix = timed(
        steps, args.block_seconds, args.compute_dtype, lambda mine: ranks.first_does(lambda: mine)
    )
    gflop, activations = counted(update)
    gradients = 4e-9 * max(
        sum(np.prod(v.shape) for v in model.trainable_variables)
        for model in networks.values()
        if hasattr(model, "trainable_variables") and hasattr(model, "layers")
    )
    ranks.close()
    return {
        "seconds": seconds,
        "matrix": matrix * ranks.ranks,
        "gflop": gflop * ranks.ranks,
        "peak_gb": peak,
        "held_gb": activations + weights_gb(networks) + gradients,
    }


def made(args: argparse.Namespace) -> tuple[Callable[[int], None], Callable[..., Any], dict[str, Any], Any]:
    """The function that carries out a number of updates, one update, its networks and the ranks."""
    from petgan.distributed import join
    from petgan.methods import method_of
    from petgan.methods.feed import Data
    from petgan.place import Place
    from petgan.trainer import compiles, in_one_call

    place = Place.from_environment()
    use_cpus(max(1, CORES // place.ranks))
    point = point_of(args.presets[0], args.sizes[0], args)
    method = method_of(point.preset)
    ranks = join(place, {}, None, lambda: False)
    networks = method.make_networks(point)
    source = images_of(point) if PRESETS[point.preset].shown == "source" else None
    data = Data(images_of(point), source=source)
    update = method.make_update(point, networks, data, ranks)
    # A network that grows has its full size in the end.
    updates, count = in_one_call(update, compiles(data, ranks)), itertools.count(point.steps - 1)

    def steps(number: int) -> None:
        for step in itertools.islice(count, number):
            metrics = updates(step, 1)
        float(metrics["g_loss"][0])

    return steps, update, networks, ranks


def weights_gb(networks: dict[str, Any]) -> float:
    """Of networks, averages and the optimizers' state."""
    from petgan.methods.networks import variables_of

    return sum(4e-9 * float(np.prod(v.shape)) for part in networks.values() for v in variables_of(part))


def counted(update: Callable[..., Any]) -> tuple[float, float]:
    """GFLOP of an update's convolutions and matrix products, and GB of what its backward passes need.

    A network that grows is counted as it ends: the last of its cases.
    """
    import tensorflow as tf

    graph = tf.function(update, autograph=False).get_concrete_function(tf.TensorSpec((), tf.int32)).graph
    flop = held = 0.0
    graphs = [graph]
    for graph in graphs:
        ops = _carried_out(graph)
        flop += sum(map(_flop, ops))
        held = max(held, _held_at_once(ops))
        graphs += [
            graph._get_function(op.get_attr("branches")[-1].name).graph for op in ops if op.type == "Case"
        ]
    return 1e-9 * flop, 1e-9 * held


def _carried_out(graph: Any) -> list[Any]:
    """The operations that results and changes of variables hang on: TensorFlow leaves out the others."""
    waiting, found = [*(tensor.op for tensor in graph.outputs), *graph.control_outputs], set()
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            waiting += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
    return [op for op in graph.get_operations() if op in found]


def _held_at_once(ops: list[Any]) -> float:
    """The most bytes of tensors that a later backward pass still takes, one operation after another.

    An operation is of the pass that its name tells, or of a later one whose results it takes: each gradient
    of a tape has ``gradient_tape`` in its name, once more for each tape within that tape.
    """
    place = {op: n for n, op in enumerate(ops)}
    passes: dict[Any, int] = {}  # 0 forward, 1 backward, 2 backward through slopes
    of_data: dict[Any, bool] = {}  # and not of weights alone, as in an optimizer
    until: dict[str, tuple[int, int, float]] = {}
    for n, op in enumerate(ops):
        before = [tensor.op for tensor in op.inputs if tensor.op in passes]
        of_data[op] = op.type == "Placeholder" or (
            op.type != "ReadVariableOp" and any(of_data[source] for source in before)
        )
        # Swish computes its sigmoid once more, from forward tensors alone, but not before a slope is there.
        after = [s for s in op.control_inputs if s in passes and "gradient_tape" in s.name]
        passes[op] = max([op.name.count("gradient_tape"), *(passes[source] for source in [*before, *after])])
        for tensor in op.inputs:
            while tensor.op.type in ("Reshape", "Identity", "IdentityN", "ExpandDims", "Squeeze"):
                tensor = tensor.op.inputs[tensor.value_index]  # the same memory
            source = tensor.op
            if passes[source] == passes[op] or source.type == "Placeholder" or not of_data[source]:
                continue
            if tensor.shape.is_fully_defined():
                size = float(tensor.dtype.size * np.prod(tensor.shape))
                until[tensor.name] = place[source], n, size
    changes = np.zeros(len(ops) + 1)
    for first, last, size in until.values():
        changes[first] += size
        changes[last + 1] -= size
    return float(changes.cumsum().max())


def _flop(op: Any) -> float:
    """Two for each multiplication of a convolution, of its gradients, or of a matrix product."""
    if op.type == "Conv2D":
        kernel, outputs = op.inputs[1].shape, op.outputs[0].shape
        return float(2 * np.prod(kernel[:3]) * np.prod(outputs))
    if op.type == "Conv2DBackpropInput":
        kernel, outputs = op.inputs[1].shape, op.inputs[2].shape
        return float(2 * np.prod(kernel[:3]) * np.prod(outputs))
    if op.type == "Conv2DBackpropFilter":
        kernel, outputs = op.outputs[0].shape, op.inputs[2].shape
        return float(2 * np.prod(kernel[:3]) * np.prod(outputs)) if kernel.rank else 0.0
    if op.type in ("MatMul", "BatchMatMulV2"):
        a, out = op.inputs[0].shape, op.outputs[0].shape
        inner = a[-2] if op.type == "MatMul" and op.get_attr("transpose_a") else a[-1]
        return float(2 * inner * np.prod(out))
    return 0.0


def notebook(args: argparse.Namespace) -> dict[str, float]:
    point = point_of(args.presets[0], args.sizes[0], args)
    step = NOTEBOOKS[point.preset](point, images_of(point))

    def steps(number: int) -> None:
        for _ in range(number):
            step()

    seconds, matrix = timed(steps, args.block_seconds, point.compute_dtype, lambda mine: mine)
    return {"seconds": seconds, "matrix": matrix}


def predict_and_train_on_batch(point: Point, images: np.ndarray) -> Callable[[], None]:
    """The study's own loop."""
    import keras

    from petgan.models import networks_of
    from petgan.models.layers import plain

    generator, discriminator = map(plain, networks_of(point))
    scaled, random = images / np.float32(127.5) - 1, np.random.default_rng(0)

    def optimizer() -> keras.Optimizer:
        return keras.optimizers.RMSprop(point.learning_rate, clipvalue=point.gradient_clip)

    discriminator.compile(optimizer(), "binary_crossentropy")
    noise = keras.Input((point.latent_size,))
    combined = keras.Model(noise, discriminator(generator(noise)))
    combined.compile(optimizer(), "binary_crossentropy")
    n = point.batch_size

    def step() -> None:
        real = scaled[random.integers(len(scaled), size=n)]
        fake = generator.predict(random.normal(size=(n, point.latent_size)), verbose=0)
        discriminator.trainable = True
        discriminator.train_on_batch(real, np.ones((n, 1)))
        discriminator.train_on_batch(fake, np.zeros((n, 1)))
        discriminator.trainable = False
        combined.train_on_batch(random.normal(size=(n, point.latent_size)), np.ones((n, 1)))

    return step


def custom_train_step(point: Point, images: np.ndarray) -> Callable[[], None]:
    """Keras' published WGAN-GP, a model with a train_step of its own; or with clipped weights instead."""
    import keras
    import tensorflow as tf

    from petgan.models import networks_of
    from petgan.models.layers import plain

    generator, critic = map(plain, networks_of(point))
    scaled, random = images / np.float32(127.5) - 1, np.random.default_rng(0)
    n = point.batch_size

    class WGAN(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            real = data[0]
            for _ in range(point.n_critic or 1):
                with tf.GradientTape() as tape:
                    fake = generator(tf.random.normal((n, point.latent_size)), training=True)
                    loss = tf.reduce_mean(critic(fake, training=True)) - tf.reduce_mean(
                        critic(real, training=True)
                    )
                    if point.gp_weight is not None:
                        mixed = real + tf.random.uniform((n, 1, 1, 1)) * (fake - real)
                        with tf.GradientTape() as inner:
                            inner.watch(mixed)
                            scores = critic(mixed, training=True)
                        norm = tf.sqrt(tf.reduce_sum(tf.square(inner.gradient(scores, mixed)), [1, 2, 3]))
                        loss += point.gp_weight * tf.reduce_mean((norm - 1) ** 2)
                variables = critic.trainable_variables
                self.critic_optimizer.apply(tape.gradient(loss, variables), variables)
                if point.weight_clip is not None:
                    for variable in variables:
                        variable.assign(tf.clip_by_value(variable, -point.weight_clip, point.weight_clip))
            with tf.GradientTape() as tape:
                fake = generator(tf.random.normal((n, point.latent_size)), training=True)
                g_loss = -tf.reduce_mean(critic(fake, training=True))
            variables = generator.trainable_variables
            self.generator_optimizer.apply(tape.gradient(g_loss, variables), variables)
            return {"loss": loss, "g_loss": g_loss}

    model = WGAN()
    model.compile()
    for name, network in (("critic_optimizer", critic), ("generator_optimizer", generator)):
        made = keras.optimizers.get(point.optimizer)
        made.build(network.trainable_variables)
        setattr(model, name, made)
    return lambda: model.train_on_batch(scaled[random.integers(len(scaled), size=n)])


NOTEBOOKS = {
    "gan": predict_and_train_on_batch,
    "dcgan": predict_and_train_on_batch,
    "wgan": custom_train_step,
    "wgan-gp": custom_train_step,
}
CHILDREN = {"small": small, "petgan": petgan, "notebook": notebook}


def timed(
    steps: Callable[[int], None], block_seconds: float, compute_dtype: str, agree: Callable[[int], int]
) -> tuple[float, float]:
    """Median seconds of a step, and the median matrix rate (GFLOP/s) measured between them."""
    steps(1)  # builds the graph
    start = time.perf_counter()
    steps(1)
    number = agree(max(1, round(block_seconds / (time.perf_counter() - start))))
    seconds, rates = [], []
    for _ in range(BLOCKS):
        rates.append(matrix_gflops(compute_dtype))
        start = time.perf_counter()
        steps(number)
        seconds.append((time.perf_counter() - start) / number)
    return statistics.median(seconds), statistics.median(rates)


def matrix_gflops(compute_dtype: str) -> float:
    """Matrix products of a GPU in `compute_dtype`; without one NumPy's, float32, on this rank's cores."""
    import tensorflow as tf

    from petgan.trainer import on_gpu

    size, number = (GPU_MATRIX, 20) if on_gpu() else (MATRIX, 3)
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    matrix = tf.cast(a, compute_dtype) if on_gpu() else a
    if on_gpu():
        (matrix @ matrix)[0, 0].numpy()  # which loads the library
    start = time.perf_counter()
    for _ in range(number):
        product = matrix @ matrix
    if on_gpu():
        product[0, 0].numpy()
    return number * 2e-9 * size**3 / (time.perf_counter() - start)


def point_of(preset: str, size: int, args: argparse.Namespace) -> Point:
    values = {
        "preset": preset,
        "image_size": size,
        "batch_size": args.batch_size,
        "compute_dtype": args.compute_dtype,
    }
    return resolve_point(values)


def images_of(point: Point) -> np.ndarray:
    shape = (TRAINING_IMAGES, point.image_size, point.image_size, 1)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def memory_gb(given_out: str, resident: str) -> float:
    """Memory of the GPU's that TensorFlow has given out, or of this process where there is none."""
    import tensorflow as tf

    from petgan.trainer import on_gpu

    if on_gpu():
        return 1e-9 * float(tf.config.experimental.get_memory_info("GPU:0")[given_out])
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(resident)).split()[1]) * 1024e-9


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the rate of every row as a share of the matrix rate: a panel a size, a bar a number of ranks."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    presets, sizes, ranks = (list(dict.fromkeys(row[key] for row in rows)) for key in COLUMNS[:3])
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(4.5 * len(sizes), 0.25 * len(presets) * len(ranks) + 1.5),
        sharey=True, squeeze=False, layout="constrained",
    )  # fmt: skip
    height = 0.8 / len(ranks)
    for size, axes in zip(sizes, panels[0], strict=True):
        for n, count in enumerate(ranks):
            shown = [row for row in rows if (row["pixels"], row["ranks"]) == (size, count)]
            places = [presets.index(row["preset"]) + n * height for row in shown]
            label = f"{count} rank{'s' if count > 1 else ''}"
            bars = axes.barh(places, [row["share"] for row in shown], height, label=label)
            told = [f"{row['steps/s']:.3g} steps/s" for row in shown]
            axes.bar_label(bars, told, padding=3, fontsize="small")
        axes.set(title=f"{size} pixels", xlabel="share of the matrix rate", xlim=(0, 1.35))
        axes.set_yticks([n + 0.4 - height / 2 for n in range(len(presets))], presets)
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(loc="upper right")
    figure.savefig(path, dpi=150)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
