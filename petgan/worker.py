"""What runs inside the container: ``python -m petgan.worker TASK JSON``, JSON being the task's arguments.

This is the only place that knows training and evaluation both.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from petgan import __version__
from petgan.config import RunConfig
from petgan.errors import EXIT_FAILURE, DatasetError, Interrupted, PetganError
from petgan.runs import RunFolder, write_json

if TYPE_CHECKING:
    import keras
    import numpy as np

SCORED_IMAGES = 128  # at most, of the validation split
SCORE_SEED = 1  # of the noise and of the random patches

logger = logging.getLogger("petgan.worker")


def train(run: str) -> None:
    """Train the run whose folder is `run`, or go on with it."""
    folder = RunFolder(Path(run))
    try:
        _train(folder)
    except Interrupted as interruption:
        folder.update_status(state="interrupted", error=str(interruption))
        raise
    except PetganError as error:
        if folder.status().state != "running":
            folder.update_status(state="failed", error=str(error))
        raise


def _train(folder: RunFolder) -> None:
    from petgan.store import Dataset

    config = folder.config()
    if folder.status().state == "done":
        logger.info("%s is done already", folder.path.name)
        return
    with Dataset(config.dataset.path) as dataset:
        if dataset.digest != config.dataset.digest:
            raise DatasetError(
                f"{dataset.path} has changed since the run began",
                value=dataset.digest[:12],
                allowed=config.dataset.digest[:12],
                hint="bring the old dataset back, or give the run a folder of its own",
            )
        images = dataset.images("train")
        validation = dataset.images("validation")[:SCORED_IMAGES]
    if not len(images):
        raise DatasetError(
            f"{config.dataset.path} has no training images", hint="ingest with another --split"
        )

    use_cpus(config.resources.cpus)
    from petgan.checkpoint import read_generator
    from petgan.models.layers import plain
    from petgan.trainer import train

    _write_lineage(folder, config)
    train(folder, images, _validation_score(validation))
    generator, _ = read_generator(folder.last_checkpoints()[0])
    plain(generator).save(folder.generator_file)


def _validation_score(images: np.ndarray) -> Callable[[keras.Model], float] | None:
    from petgan.metrics import sliced_wasserstein
    from petgan.samples import generate

    if len(images) < 2:
        return None

    def score(generator: keras.Model) -> float:
        return sliced_wasserstein(images, generate(generator, len(images), SCORE_SEED), seed=SCORE_SEED)

    return score


def use_cpus(cpus: int) -> None:
    """Give TensorFlow `cpus` threads in the way that keeps results the same, bit for bit.

    Several threads within one operation split its sums by chance: two runs of a DCGAN differed. Several
    operations side by side do not touch a sum, and were no slower.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(cpus)
    tf.config.experimental.enable_op_determinism()


def _write_lineage(folder: RunFolder, config: RunConfig) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    point = config.point
    write_json(
        folder.lineage_file,
        {
            "run_id": config.run_id,
            "dataset_digest": config.dataset.digest,
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
            "hosts": [socket.gethostname()],
            "cpus": config.resources.cpus,
        },
    )


TASKS: dict[str, Callable[..., None]] = {"train": train}


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one task and return its exit code."""
    task, arguments = sys.argv[1:] if argv is None else argv
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, _stop)
    try:
        TASKS[task](**_arguments(arguments))
    except PetganError as error:
        print(f"petgan: {error}", file=sys.stderr)
        return error.exit_code
    except Exception:
        logger.exception("%s failed", task)
        return EXIT_FAILURE
    return 0


def _arguments(text: str) -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(text)
    return arguments


def _stop(signum: int, frame: FrameType | None) -> None:
    # While training runs, the trainer takes these signals as "checkpoint and stop".
    raise Interrupted(f"stopped by {signal.Signals(signum).name} before the work began")


if __name__ == "__main__":
    raise SystemExit(main())
