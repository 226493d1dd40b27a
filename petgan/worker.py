"""What runs inside the container: ``python -m petgan.worker TASK JSON``, JSON being the task's arguments.

This is the only place that knows training and evaluation both.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petgan import __version__
from petgan.config import DatasetRef, Point, Resources, RunConfig
from petgan.distributed import Alone, join
from petgan.errors import EXIT_FAILURE, DatasetError, DiskError, PetganError, TrainingError, UserError
from petgan.place import Place, take_gpu
from petgan.rendezvous import refusals
from petgan.runs import RunFolder, file_digest, read_json, tidied_up_on, write_json
from petgan.session import Follower, Session, StopSignals

if TYPE_CHECKING:
    import keras
    import numpy as np

    from petgan.checkpoint import Header
    from petgan.methods.feed import Data
    from petgan.store import StoredImages

WARNINGS = (signal.SIGTERM, signal.SIGUSR2)  # the latter is Slurm's
SCORED_IMAGES = 64  # at most, of the validation split: benchmarks/scoring.py has what they cost
PUBLISHED = "dcgan"  # any of the study's presets: their generators make images in the same way
RESIDENT_SHARE = 0.25  # of the memory of a rank: larger training sets are streamed
SCORE_SEED = 1  # of the noise and of the random patches

logger = logging.getLogger("petgan.worker")


def train(run: str) -> None:
    """Train the run whose folder is `run`, or go on with it; with the other ranks, if there are any."""
    signals = StopSignals()
    signals.listen()
    try:
        _train(RunFolder(Path(run)), signals)
    finally:
        if __name__ != "__main__":  # in a process of its own, a second signal is not to break off its end
            signals.unlisten()


def _train(folder: RunFolder, signals: StopSignals) -> None:
    if folder.status().state == "done":
        logger.info("%s is done already", folder.path)
        return
    place = Place.from_environment()
    if place.rank:
        _log_as(place)
    with contextlib.ExitStack() as stack:
        with refusals(place):
            member = Session(folder, place, signals) if place.rank == 0 else Follower(place, signals)
            session = stack.enter_context(member)
            config = folder.config()
            place.check(config)
            ranks, data, validation = _meet(folder, config, place, session)
        from petgan import trainer

        nodes = ranks.tell_all(place.node_name)
        if ranks.rank == 0:
            _write_lineage(folder, config, place, nodes)
            _tell_enlargement(config, data.images.shape[0])
        with _memory_errors(config):
            score = _validation_score(validation, config.point.preset, data.shown)
            trainer.train(folder, config, data, session, score, ranks)
        ranks.close()


def _log_as(place: Place) -> None:
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(f"rank {place.rank}: %(message)s"))


def _meet(
    folder: RunFolder, config: RunConfig, place: Place, session: Follower
) -> tuple[Alone, Data, np.ndarray]:
    """Read the images, import TensorFlow, and start together with the ranks that have done the same."""
    images = validation = source = shown = problem = None
    digests = {"dataset": config.dataset.digest, "source": config.source_digest}
    try:
        images, validation = _read_images(config)
        source, shown = _read_shown(config, validation)
    except PetganError as error:
        if place.ranks == 1:
            raise
        problem, digests = error, digests | _what_is_wrong(config, error)
    gpu = take_gpu(place) if place.started and config.resources.gpus else None
    import_quietly()
    if gpu is not None and not _sees_gpu():  # with Slurm's word but without a driver, or without --nv
        gpu = ""
    use_cpus(config.resources.cpus)
    facts = {
        "version": __version__,
        "code": os.environ.get("PETGAN_CODE_DIGEST"),
        "image": os.environ.get("PETGAN_IMAGE_DIGEST"),
        "configuration": file_digest(folder.config_file),
        **digests,
    }
    ranks = join(place, facts, gpu, lambda: session.stop_requested)
    if problem is not None:  # which all ranks have
        raise problem
    assert images is not None and validation is not None  # noqa: S101, PT018
    from petgan.methods.feed import Data

    return ranks, Data(images, config.dataset.modality, source, shown), validation


def _sees_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _what_is_wrong(config: RunConfig, problem: PetganError) -> dict[str, str | None]:
    """What this rank says of a dataset that it cannot train on: its digest, if that is the problem."""
    from petgan.store import Dataset

    for kind, known in (("dataset", config.dataset), ("source", config.source)):
        with contextlib.suppress(PetganError), contextlib.ExitStack() as opened:
            if known and (found := opened.enter_context(Dataset(known.path)).digest) != known.digest:
                return {kind: found}
    return {"dataset": str(problem)}


def _read_images(config: RunConfig) -> tuple[np.ndarray | StoredImages, np.ndarray]:
    """The training images, and the validation images that are scored against."""
    return _read_splits(config.dataset, config)


def _read_shown(
    config: RunConfig, validation: np.ndarray
) -> tuple[np.ndarray | StoredImages | None, np.ndarray | None]:
    """The training images that are translated, and the validation images that the generator is shown."""
    if config.shown is None:
        return None, None
    source = None
    if config.source is not None:
        source, validation = _read_splits(config.source, config)
    if not len(validation):
        raise DatasetError(
            f"{config.shown.path} has no validation images to show to a generator of {config.point.preset}",
            hint="ingest with another --split",
        )
    return source, validation


def _read_splits(reference: DatasetRef, config: RunConfig) -> tuple[np.ndarray | StoredImages, np.ndarray]:
    """A dataset's training images, and its validation images or some of all patients."""
    import numpy as np

    from petgan.enlarge import enlarge
    from petgan.store import Dataset

    with contextlib.ExitStack() as opened:
        dataset = opened.enter_context(Dataset(reference.path))
        if dataset.digest != reference.digest:
            raise DatasetError(
                f"{dataset.path}: the dataset has changed since the run began",
                value=dataset.digest[:12],
                allowed=reference.digest[:12],
                hint="bring the old dataset back, or give the run a folder of its own",
            )
        if dataset.dtype != "uint8":
            raise DatasetError(
                f"{dataset.path} cannot be trained on: its pixels are {dataset.dtype}",
                allowed="uint8",
                hint="ingest the files again with a window",
            )
        if dataset.image_size != config.point.image_size:
            raise DatasetError(
                f"{dataset.path} has images of another size",
                value=dataset.image_size,
                allowed=[config.point.image_size],
            )
        dataset.verify()
        images: np.ndarray | StoredImages = dataset.stored("train")
        fits = math.prod(images.shape) <= _resident_bytes(config.resources)
        if fits or config.point.enlarge != "none":
            images = dataset.images("train")
        else:
            logger.info("%d images are read from their file as they are needed", images.shape[0])
            opened.pop_all()
        validation = dataset.images("validation")
    if len(validation) > SCORED_IMAGES:  # of all patients, who stand one after the other
        chosen = np.random.default_rng(SCORE_SEED).choice(len(validation), SCORED_IMAGES, replace=False)
        validation = validation[np.sort(chosen)]
    if not images.shape[0]:
        raise DatasetError(f"{reference.path} has no training images", hint="ingest with another --split")
    if isinstance(images, np.ndarray):
        point = config.point
        images = enlarge(images, point.enlarge, point.enlarge_factor, point.seed)
    return images, validation


def _resident_bytes(resources: Resources) -> float:
    """How much a rank's training images may take of its node's memory, which it shares with the others."""
    return RESIDENT_SHARE * resources.mem_gb * 2**30 / resources.ranks_per_node


def _tell_enlargement(config: RunConfig, images: int) -> None:
    point = config.point
    if point.enlarge != "none":
        stored = images // point.enlarge_factor
        logger.info("training on %d stored images and %d made by %s", stored, images - stored, point.enlarge)


@contextlib.contextmanager
def _memory_errors(config: RunConfig) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        if "No space left" in str(error):  # TensorBoard's log is written by TensorFlow
            raise DiskError("cannot write TensorBoard's log: the disk is full", hint="make room") from None
        point = config.point
        raise TrainingError(
            f"there is not enough memory for {point.preset} at {point.image_size} pixels",
            value=f"batch_size {point.batch_size}",
            hint="take a smaller batch_size, or a machine with more",
        ) from None


def _validation_score(
    images: np.ndarray, preset: str, shown: np.ndarray | None = None
) -> Callable[[keras.Model], float] | None:
    from petgan.metrics import sliced_wasserstein
    from petgan.samples import generate

    if len(images) < 2:
        return None

    def score(generator: keras.Model) -> float:
        generated = generate(generator, len(images), SCORE_SEED, preset, shown)
        return sliced_wasserstein(images, generated, seed=SCORE_SEED)

    return score


def use_cpus(cpus: int) -> None:
    """Give TensorFlow `cpus` threads, so that results are the same at every start, bit for bit.

    Without a GPU, all of them work within one operation: a DCGAN spends most of its time in a chain of
    convolutions of which each waits for the one before, and two side by side hold the memory of two. That
    the threads' sums do not hang on chance is not promised by TensorFlow; a test tries it.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(cpus)
    tf.config.threading.set_inter_op_parallelism_threads(cpus if _sees_gpu() else 1)
    tf.config.experimental.enable_op_determinism()


def _write_lineage(folder: RunFolder, config: RunConfig, place: Place, nodes: Sequence[str]) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    point = config.point
    before = read_json(folder.lineage_file) if folder.lineage_file.is_file() else {}
    write_json(
        folder.lineage_file,
        {
            "run_id": config.run_id,
            "dataset_digest": config.dataset.digest,
            "source_digest": config.source_digest,
            "parent": {"file": point.init_from, "digest": point.init_digest} if point.init_from else None,
            "image_digest": os.environ.get("PETGAN_IMAGE_DIGEST"),
            "code_version": __version__,
            "code_digest": os.environ.get("PETGAN_CODE_DIGEST"),
            "versions": {
                "python": platform.python_version(),
                "tensorflow": tf.__version__,
                "keras": keras.__version__,
                "numpy": np.__version__,
            },
            "jobs": list(dict.fromkeys([*before.get("jobs", []), *([place.job] if place.job else [])])),
            "hosts": sorted({*before.get("hosts", []), *nodes}),
            "ranks": place.ranks,
            "cpus": config.resources.cpus,
        },
    )


def evaluate(
    experiment: str,
    protocol: str = "petgan",
    weights: str | None = None,
    models: Sequence[str] = (),
    images: int | None = None,
    check_ruler: bool = False,
    force: bool = False,
) -> None:
    """Score the finished runs of the experiment whose folder is `experiment`, or check its rulers only."""
    from petgan import evaluate as evaluation
    from petgan.features import find_networks
    from petgan.runs import ExperimentFolder

    folder, networks = ExperimentFolder(Path(experiment)), find_networks(weights, models)
    with tidied_up_on(*WARNINGS):
        import_quietly()
        if check_ruler:
            evaluation.check_experiment(folder, networks, images)
        else:
            evaluation.evaluate_experiment(
                folder, draw, protocol=protocol, networks=networks, images=images, force=force
            )


def synthesize(source: str, count: int, output: str, **options: Any) -> None:
    """Make a synthetic dataset; see `petgan.synthesize.synthesize`."""
    from petgan import synthesize as synthesis

    for name in ("dataset", "png", "dicom", "inputs"):
        if options.get(name) is not None:
            options[name] = Path(options[name])
    with tidied_up_on(*WARNINGS):
        import_quietly()
        synthesis.synthesize(Path(source), count, Path(output), draw, **options)


def draw(
    checkpoint: Path, count: int, seed: int, averaged: bool = True, inputs: np.ndarray | None = None
) -> tuple[np.ndarray, Header | None]:
    """Draw images from the averaged generator of a checkpoint, or the plain one; see `petgan.evaluate.Draw`.

    Raises
    ------
    DatasetError
        If the generator is shown images of a size that it cannot take.
    """
    from petgan.checkpoint import read_generator
    from petgan.samples import generate

    generator, header = read_generator(checkpoint, averaged)
    preset = header.point.preset if header else PUBLISHED
    if inputs is not None and header is not None:
        inputs = _as_shown(inputs, header.point, checkpoint)
    return generate(generator, count, seed, preset, inputs), header


def _as_shown(inputs: np.ndarray, point: Point, checkpoint: Path) -> np.ndarray:
    """Images of the run's size as they are; those that are as small as its generator wants them, for it."""
    import numpy as np

    from petgan.methods import method_of
    from petgan.methods.pixels import to_network

    method = method_of(point.preset)
    assert method.inputs is not None  # noqa: S101
    size, full = inputs.shape[1], point.image_size
    if size == full:
        return inputs
    small = method.inputs(np.zeros((1, full, full, 1), np.uint8)).shape[1]
    if size != small:
        raise DatasetError(
            f"the generator of {checkpoint} is shown images of another size",
            value=size,
            allowed=dict.fromkeys((small, full)),
        )
    return np.asarray(to_network(inputs), np.float32)


def import_quietly() -> None:
    """Import TensorFlow without its greetings, which come before it looks at its log level."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        import tensorflow  # noqa: F401
    except ModuleNotFoundError:
        raise UserError(
            "this needs TensorFlow, which is not installed here",
            hint="pip install 'petgan[train]', or give the command in an image: apptainer run IMAGE ...",
        ) from None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


TASKS: dict[str, Callable[..., None]] = {"train": train, "evaluate": evaluate, "synthesize": synthesize}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one task and return its exit code."""
    task, arguments = sys.argv[1:] if argv is None else argv
    if os.environ.get("PETGAN_STOP_WITH_STDIN"):
        threading.Thread(target=_stop_with_stdin, daemon=True).start()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # it comes with Keras, and tells of its fonts
    try:
        TASKS[task](**_arguments(arguments))
    except PetganError as error:
        rank = os.environ.get("PETGAN_RANK", "0")
        print(f"petgan: {'' if rank == '0' else f'rank {rank}: '}{error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception:
        logger.exception("%s failed", task)
        return EXIT_FAILURE
    return 0


def _stop_with_stdin() -> None:
    """Stop when the pipe that our parent holds ends: it has been killed."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _arguments(text: str) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(text)
    return arguments


if __name__ == "__main__":
    raise SystemExit(main())
