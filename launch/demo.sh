#!/usr/bin/env bash
# From nothing to a trained network on synthetic images, in a few minutes on two cores:
# sets up, builds, makes a data set, packs it, trains on two ranks, evaluates, and draws what was learned.
#
#   ./launch/demo.sh                            everything under runs/demo/
#   ./launch/demo.sh TRAIN.num_epoch 10         overrides go to the training
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh
cargo build --release
segdist=target/release/segdist
run=runs/demo

# Open MPI refuses to run as root unless told twice; two ranks fit any machine.
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi
mpirun=(.deps/bin/mpirun -np 2 --bind-to none)

if [ ! -e $run/data/training.odgt ]; then
    rm -rf $run
    $segdist demo-data --out $run/data
fi
for part in training validation; do
    [ -e $run/shards/$part/index.json ] ||
        $segdist pack --odgt $run/data/$part.odgt --root $run/data --out $run/shards/$part
done

# With this few cores, each rank computes on its share of them.
export OMP_NUM_THREADS=$(( ($(nproc) + 1) / 2 ))
"${mpirun[@]}" $segdist --cfg configs/demo.yaml "$@"
"${mpirun[@]}" $segdist eval --cfg configs/demo.yaml --checkpoint latest
$segdist predict --cfg configs/demo.yaml --out $run/overlays $run/data/images/validation
$segdist report --out $run/report.html $run/run

cat <<TEXT

report       $run/report.html
overlays     $run/overlays/*.overlay.png
curve        $run/run/curve.png
checkpoints  $run/run/checkpoints/
metrics      $run/run/metrics.jsonl
TEXT
