#!/usr/bin/env bash
# Sets up, builds in release and runs the tests, those under mpirun included.
#
#   ./launch/test.sh                  every test, with Open MPI
#   ./launch/test.sh --all            format and lints first; then the tests that start ranks with MPICH in place of Open
#                                     MPI, and clusters of containers, where apt and Docker are
#   ./launch/test.sh --test ranks     what `cargo test` is given
#
# What takes hours is launch/nightly.sh's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=no
[ "${1:-}" != --all ] || { all=yes; shift; }

./launch/setup.sh
if [ $all = yes ]; then
    cargo fmt --check
    cargo clippy --release --all-targets --quiet -- -D warnings
fi
cargo build --release --tests --bins

# The tests start ranks of their own: two at a time, so that two cores are enough.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
log=target/test.log
status=0
cargo test --release --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
if [ $all = yes ]; then
    ./tests/mpich/run.sh 2>&1 | tee -a "$log" || status=$?
    ./tests/cluster/run.sh 2>&1 | tee -a "$log" || status=$?
fi
awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^\[(image|compose|slurm) [0-9:]+\] PASSED/ { passed++ }
    /^tests\/cluster\/[a-z]+\.sh failed$/ || /^\[mpich [0-9:]+\] FAILED/ { failed++ }
    END { print passed + 0 " passed, " failed + 0 " failed" }' "$log"
exit "$status"
