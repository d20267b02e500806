#!/usr/bin/env bash
# From nothing to a trained network on synthetic images, in a few minutes on two cores: sets up, builds, and starts
# `segdist demo`, which makes a data set, packs it, trains on two ranks, evaluates, and draws what was learned.
#
#   ./launch/demo.sh                            everything under runs/demo/
#   ./launch/demo.sh TRAIN.num_epoch 10         overrides go to the training
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh
cargo build --release
exec target/release/segdist demo --out runs/demo "$@"
