#!/usr/bin/env bash
# Build Horovod for the TensorFlow of one Python and install it there: Gloo, and NCCL for GPUs.
#
#   horovod.sh cpu|gpu [PYTHON]
#
# The images are built with it; it serves a host's virtual environment as well. Needs g++, cmake and make, and for
# gpu the packages of tensorflow[and-cuda]; nvcc comes from its Python wheel and does not stay. About 3 minutes on
# 2 cores.
set -euo pipefail

kind=${1:-}
python=$(command -v "${2:-python3}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
version=0.28.1
digest=92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0

die() {
    echo "horovod.sh: $*" >&2
    exit 1
}

[[ $kind = cpu || $kind = gpu ]] || die "'$kind' is no kind of build; write cpu or gpu"
for program in g++ cmake make; do
    command -v $program >/dev/null || die "$program is missing: apt-get install g++ cmake make"
done
"$python" -c 'import tensorflow' 2>/dev/null || die "$python has no TensorFlow: pip install 'petgan[train]' first"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    # setuptools and wheel of the right age, beside the environment's own ones
    pip install --require-hashes --target "$work/tools" -r "$here/requirements-build.txt"
    export PYTHONPATH=$work/tools
    echo "horovod==$version --hash=sha256:$digest" >"$work/horovod.txt"
    pip download --require-hashes --no-deps --no-binary horovod --no-build-isolation --dest "$work" -r "$work/horovod.txt"
    tar -C "$work" -xf "$work/horovod-$version.tar.gz"
}

pip() { "$python" -m pip --quiet --disable-pip-version-check "$@"; }

# What Horovod does not know of TensorFlow 2.21.
patch_source() {
    local source=$work/horovod-$version/horovod/tensorflow
    # Its XLA operations need headers that TensorFlow no longer ships whole.
    sed -i '/xla_mpi_ops\.cc/d' "$source/CMakeLists.txt"
    # AsGpuStreamValue is no longer exported: the stream itself tells its handle.
    "$python" - "$source/mpi_ops.cc" <<'PATCH'
import re, sys
path = sys.argv[1]
text = open(path).read()
declaration = re.compile(r"// Forward declaration of AsGpuStreamValue\n.*?\} // namespace gpu\n", re.S)
definition = """namespace stream_executor {
namespace gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
} // namespace gpu
} // namespace stream_executor
"""
text, removed = declaration.subn("", text)
end = "#endif // TENSORFLOW_VERSION >= 2011000000\n"
text, added = re.subn(re.escape(end), lambda _: end + definition, text, count=1)
assert removed == added == 1, "this is not the source of Horovod that the patch was made for"
open(path, "w").write(text)
PATCH
}

# A CUDA toolkit and an NCCL as Horovod looks for them, out of Python wheels.
lay_out_cuda() {
    pip install --require-hashes --no-deps --target "$work/cuda" -r "$here/requirements-build-gpu.txt"
    local cuda nccl
    cuda=$(dirname "$(dirname "$(find "$work/cuda" -path '*/bin/nvcc')")")
    nccl=$("$python" -c 'import nvidia.nccl; print(list(nvidia.nccl.__path__)[0])')
    [ -e "$cuda/lib64" ] || ln -s lib "$cuda/lib64"
    # CMake looks for the shared runtime by this name; what is linked is the static one.
    [ -e "$cuda/lib/libcudart.so" ] || ln -s "$(basename "$cuda"/lib/libcudart.so.*)" "$cuda/lib/libcudart.so"
    mkdir -p "$work/nccl/lib"
    ln -s "$nccl/include" "$work/nccl/include"
    ln -s "$nccl/lib/libnccl.so.2" "$work/nccl/lib/libnccl.so"
    export PATH=$cuda/bin:$PATH HOROVOD_CUDA_HOME=$cuda HOROVOD_NCCL_HOME=$work/nccl HOROVOD_NCCL_LINK=shared
    export HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_BUILD_CUDA_CC_LIST=75,80,86,89,90,100
    # NCCL is found beside Horovod in site-packages, whatever was loaded before.
    export LDFLAGS='-Wl,-s -Wl,-rpath,$ORIGIN/../../nvidia/nccl/lib'
}

build() {
    export LDFLAGS=${LDFLAGS:--Wl,-s} # without debug symbols
    export HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1
    export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 TF_CPP_MIN_LOG_LEVEL=3
    export HOROVOD_BUILD_ARCH_FLAGS="-mf16c -mavx -mfma" # of every cluster node since 2013, not of this one
    MAKEFLAGS=-j$(nproc)
    export MAKEFLAGS
    pip wheel --no-build-isolation --no-deps --wheel-dir "$work" "$work/horovod-$version" >"$work/log" 2>&1 || {
        tail -n 100 "$work/log" >&2
        die "the build failed; the end of its log is above"
    }
    unset PYTHONPATH
    pip install --no-deps --force-reinstall "$work"/horovod-*.whl
}

echo "horovod.sh: building Horovod $version ($kind) for $python"
fetch
patch_source
[ "$kind" = cpu ] || lay_out_cuda
build
"$python" -c 'import horovod.tensorflow as hvd; assert hvd.gloo_built()' 2>/dev/null ||
    die "Horovod was built but does not load: try '$python -c \"import horovod.tensorflow\"'"
echo "horovod.sh: Horovod $version is installed"
