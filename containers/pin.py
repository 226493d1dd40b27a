"""Write requirements-{cpu,gpu,build}.txt: every package of the images, with its version and its digest.

Run it with the image's Python (3.11, x86-64), by hand, when versions are to move:

    python containers/pin.py [PACKAGE==VERSION ...]      (held at these versions where they occur)

The packages come from pyproject.toml, so that the image holds what the tests run with.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

FOLDER = Path(__file__).parent
PROJECT = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
PETGAN = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["train"]
HOROVOD = ["cffi", "cloudpickle", "packaging", "psutil", "pyyaml"]  # without them Horovod does not start


def tensorflow_as(name: str) -> list[str]:
    return [line.replace("tensorflow==", f"{name}==") for line in PETGAN]


FILES = {
    "cpu": tensorflow_as("tensorflow-cpu") + HOROVOD,
    "gpu": tensorflow_as("tensorflow[and-cuda]") + HOROVOD,
    # What builds Horovod and does not stay in the image. Horovod asks for a setuptools from before 70, that
    # one for a wheel from before 0.46. CUDA 12's wheels, which TensorFlow takes, bring no nvcc; CUDA 13's do.
    "build": ["setuptools<70", "wheel<0.46", "packaging", "pip", "hatchling"],
    "build-gpu": ["nvidia-cuda-nvcc==13.0.*", "nvidia-cuda-crt==13.0.*", "nvidia-nvvm==13.0.*",
                  "nvidia-cuda-runtime==13.0.*", "nvidia-cuda-cccl==13.0.*"],
}  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder) / "held.txt"
        held.write_text("\n".join(sys.argv[1:]))
        for name, packages in FILES.items():
            lines = resolve(packages, held if name in ("cpu", "gpu") else None)
            text = "# Written by pin.py; for Python 3.11 on x86-64.\n" + "\n".join(lines) + "\n"
            (FOLDER / f"requirements-{name}.txt").write_text(text)
            print(f"requirements-{name}.txt: {len(lines)} packages")


def resolve(packages: list[str], held: Path | None) -> list[str]:
    """``name==version --hash=...`` of `packages` and all that they need, sorted."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    command += ["--only-binary=:all:", "--report=-", *packages]
    command += ["--constraint", str(held)] if held else []
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return sorted(
        f"{item['metadata']['name'].lower().replace('_', '-')}=={item['metadata']['version']}"
        f" --hash=sha256:{item['download_info']['archive_info']['hashes']['sha256']}"
        for item in report["install"]
    )


if __name__ == "__main__":
    main()
