#!/usr/bin/env bash
# The image builds from the Dockerfile as it stands, is fit to train, holds neither compiler nor Python, and runs as a user.
#
#   tests/cluster/image.sh          says SKIPPED where no Docker engine is
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

./docker/base.sh || fail "no base images"
say "building (a few minutes the first time)"
timeout 3000 docker build -f docker/Dockerfile -t "$SEGDIST_IMAGE" . >"$output" 2>&1 || { tail -40 "$output"; fail "the image does not build"; }

run() { timeout 120 docker run --rm "$SEGDIST_IMAGE" "$@"; }
run segdist doctor || fail "segdist doctor is not content on a CPU machine without data"
# Captured first: grep -q leaves early, and a closed pipe would count as a failure of docker run.
grep -q '"ok":true' <<<"$(run segdist doctor --json)" || fail "segdist doctor --json does not say ok"
grep -q 'sums of known values are right' <<<"$(run mpirun -np 2 --map-by :oversubscribe --bind-to none segdist doctor)" ||
    fail "two ranks in one container do not find each other"
[ "$(run id -u)" != 0 ] || fail "the image runs as root"
for absent in cargo rustc python3 cc; do
    ! run bash -c "command -v $absent" || fail "the image holds $absent"
done
! run bash -c 'ls /etc/ssh/ssh_host_* ~/.ssh/* 2>/dev/null' || fail "the image holds ssh keys"
[ -z "$(docker image inspect -f '{{join .Config.Entrypoint " "}}' "$SEGDIST_IMAGE")" ] || fail "the image has an entry point"
size=$(docker image inspect -f '{{.Size}}' "$SEGDIST_IMAGE")
say "PASSED: the image has $((size / 1000000)) MB"
