#!/usr/bin/env bash
# Sets up, builds in release, checks format and lints, and runs every test (those under mpirun included).
#
#   ./launch/test.sh                  everything
#   ./launch/test.sh --test ranks     what `cargo test` is given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh
cargo fmt --check
cargo clippy --release --all-targets --quiet -- -D warnings
cargo build --release --all-targets

# The tests start ranks of their own: one after the other, so that two cores are enough.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
cargo test --release --no-fail-fast "$@"
