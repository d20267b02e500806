#!/usr/bin/env bash
# Builds target/wheel/segdist-…-py3-none-manylinux_…whl: `pip install` of it brings libtorch and Open MPI from PyPI with it.
#
#   ./launch/wheel.sh
#   python3 -m venv env && env/bin/pip install target/wheel/segdist-*.whl && env/bin/segdist demo
#
# Python installs it, and nothing of it runs when the program does. The wheel works for Python 3.10 to 3.14, with GPUs and
# without; it needs at least this machine's glibc, which stands in its name, so build it on the oldest system you serve.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh --mpi wheel
here=$PWD cargo=${CARGO_HOME:-$HOME/.cargo} out=target/wheel
# pip puts the program into PREFIX/bin, Open MPI into PREFIX/lib, and libtorch where that Python keeps its packages. No
# path of this machine stays inside.
search=
for minor in 10 11 12 13 14; do search+=":\$ORIGIN/../lib/python3.$minor/site-packages/torch/lib"; done
export SEGDIST_RPATH=\$ORIGIN/../lib$search
export RUSTFLAGS="--remap-path-prefix=$cargo=/cargo --remap-path-prefix=$here=/segdist"
export CFLAGS="-ffile-prefix-map=$here=/segdist -ffile-prefix-map=$cargo=/cargo" CXXFLAGS="-ffile-prefix-map=$here=/segdist -ffile-prefix-map=$cargo=/cargo"
CARGO_TARGET_DIR=$out/build cargo build --locked --release --bin segdist
cp "$out/build/release/segdist" "$out/segdist"
strip "$out/segdist"
for place in "$here" "$cargo" "$HOME/"; do
    ! grep -qF "$place" "$out/segdist" || { echo "wheel: $place stands in the program" >&2; exit 1; }
done
LD_LIBRARY_PATH=.deps/torch/lib:.deps/lib "$out/segdist" man >"$out/segdist.1"
python3 launch/wheel.py "$out/segdist" "$out"
