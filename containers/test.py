"""Does the image work? test.py cpu|gpu: libraries load, Horovod adds over two ranks, nothing is left behind.

Needs no GPU: NCCL is asked whether it was built in, and every library of CUDA is loaded but the driver's.
"""

import ctypes
import multiprocessing
import os
import shutil
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
RANKS = 2


def main() -> None:
    kind = sys.argv[1]
    check_left_behind()
    check_packages(kind)
    check_allreduce()
    print(f"the {kind} image works")


def check(condition: object, message: str) -> None:
    if not condition:
        sys.exit(f"the image does not work: {message}")


def check_left_behind() -> None:
    found = [
        program for program in ("g++", "gcc", "ld", "cmake", "make", "nvcc", "pip") if shutil.which(program)
    ]
    check(not found, f"{', '.join(found)} is left from its build")
    left = [*Path("/etc/apt").glob("sources.list*/*"), *Path("/var/lib/apt/lists").glob("*_*")]
    left += [path for path in map(Path, ("/etc/apt/sources.list", "/etc/pip.conf")) if path.exists()]
    check(not left, f"{', '.join(map(str, left))} is left from its build")


def check_packages(kind: str) -> None:
    import h5py
    import horovod.tensorflow as hvd
    import keras
    import tensorflow as tf

    import petgan
    import petgan.trainer

    check(hvd.gloo_built(), "Horovod was built without Gloo")
    check(not hvd.mpi_built(), "Horovod was built with MPI")
    check(bool(hvd.nccl_built()) == (kind == "gpu"), f"nccl_built() is {hvd.nccl_built()}")
    if kind == "cpu":
        check("libtcmalloc" in Path("/proc/self/maps").read_text(), "TCMalloc is not loaded")
        check(os.environ.get("TF_ONEDNN_USE_SYSTEM_ALLOCATOR") == "1", "TensorFlow does not use it")
    if kind == "gpu":
        check(tf.test.is_built_with_cuda(), "TensorFlow was built without CUDA")
        load_cuda()
    print(f"petgan {petgan.__version__}, TensorFlow {tf.__version__}, Keras {keras.__version__},", end=" ")
    print(f"h5py {h5py.__version__}, NCCL {hvd.nccl_built() or 'none'}")


def load_cuda() -> None:
    """Load every library of NVIDIA's wheels, in rounds, because they need each other."""
    import nvidia

    waiting = sorted(Path(nvidia.__path__[0]).glob("*/lib/*.so*"))
    check(any("nccl" in path.name for path in waiting), "NCCL is missing")
    while waiting:
        errors = {path: error for path in waiting if (error := load_error(path))}
        check(len(errors) < len(waiting), f"does not load: {', '.join(errors.values())}")
        waiting = list(errors)


def load_error(library: Path) -> str | None:
    try:
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    except OSError as error:
        # The driver's own library comes with --nv.
        return None if "libcuda.so.1" in str(error) else str(error)
    return None


def check_allreduce() -> None:
    """Two ranks over Gloo: the sum of 1 and 2 is 3."""
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousServer

    server = RendezvousServer(verbose=0)
    port = server.start()
    try:
        server.init(get_host_assignments(parse_hosts(f"localhost:{RANKS}"), RANKS))
        with multiprocessing.get_context("spawn").Pool(RANKS) as pool:
            ranks = [(rank, port) for rank in range(RANKS)]
            sums = pool.starmap_async(one_rank, ranks, chunksize=1).get(timeout=180)
    finally:
        server.stop()
    check(sums == [[3.0, 3.0, 3.0]] * RANKS, f"allreduce of 1 and 2 gave {sums}")


def one_rank(rank: int, port: int) -> list[float]:
    """Add rank + 1, three times, over all ranks."""
    place = {"RANK": rank, "SIZE": RANKS, "LOCAL_RANK": rank, "LOCAL_SIZE": RANKS}
    place |= {"CROSS_RANK": 0, "CROSS_SIZE": 1, "HOSTNAME": "localhost", "GLOO_IFACE": "lo"}
    place |= {"GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "GLOO_RENDEZVOUS_PORT": port}
    place |= {"CONTROLLER": "gloo", "CPU_OPERATIONS": "gloo"}
    os.environ.update({f"HOROVOD_{name}": str(value) for name, value in place.items()})
    import horovod.tensorflow as hvd
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    hvd.init()
    check(hvd.size() == RANKS, f"a rank sees {hvd.size()} ranks instead of {RANKS}")
    total = hvd.allreduce(tf.fill([3], float(rank + 1)), op=hvd.Sum).numpy().tolist()
    hvd.shutdown()
    return total


if __name__ == "__main__":
    main()
