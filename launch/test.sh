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

# The tests start ranks of their own: two at a time, so that two cores are enough.
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-2}
log=target/test.log
status=0
cargo test --release --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + 0 " passed, " failed + 0 " failed" }' "$log"
exit "$status"
