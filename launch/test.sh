#!/usr/bin/env bash
# Sets up, builds in release, checks format and lints, and runs every test, those under mpirun included.
#
#   ./launch/test.sh                  everything; then with MPICH, and on clusters of containers where Docker is
#   ./launch/test.sh --test ranks     what `cargo test` is given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

./launch/setup.sh
cargo fmt --check
cargo clippy --release --all-targets --quiet -- -D warnings
cargo build --release --all-targets

# The tests start ranks of their own: two at a time, so that two cores are enough.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
log=target/test.log
status=0
cargo test --release --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
if [ $# = 0 ]; then
    ./tests/mpich/run.sh 2>&1 | tee -a "$log" || status=$?
    ./tests/cluster/run.sh 2>&1 | tee -a "$log" || status=$?
fi
awk '
    /^test result:/ { passed += $4; failed += $6 }
    /^\[(image|compose|slurm) [0-9:]+\] PASSED/ { passed++ }
    /^tests\/cluster\/[a-z]+\.sh failed$/ || /^\[mpich [0-9:]+\] FAILED/ { failed++ }
    END { print passed + 0 " passed, " failed + 0 " failed" }' "$log"
exit "$status"
