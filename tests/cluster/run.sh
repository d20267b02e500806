#!/usr/bin/env bash
# All tests that need a cluster, on containers; each says SKIPPED where no Docker engine is.
#
#   tests/cluster/run.sh
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

failed=0
for test in image compose slurm; do
    timeout --kill-after 30 3600 "./$test.sh" || { echo "tests/cluster/$test.sh failed"; failed=$((failed + 1)); }
    # The others need the image.
    [ "$test" != image ] || [ "$failed" = 0 ] || break
done
exit $((failed > 0))
