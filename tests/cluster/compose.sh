#!/usr/bin/env bash
# Three containers with addresses of their own are a cluster: it trains like one host, and survives what clusters suffer.
#
#   tests/cluster/compose.sh          after image.sh; says SKIPPED where no Docker engine is
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

docker image inspect "$SEGDIST_IMAGE" >/dev/null 2>&1 || fail "no image $SEGDIST_IMAGE: run tests/cluster/image.sh"
up docker/compose.yaml
ready() { [ "$(on node1 cat /shared/hosts | wc -l)" = 3 ] && on node1 ssh node2 true && on node1 ssh node3 true; }
within 60 ready || fail "the nodes do not reach each other"
on node1 segdist demo-data --out /shared/data >/dev/null

# cluster ARGS...: launch/mpirun.sh on the first node, over all three; output and code into files.
cluster() { timeout 300 docker exec --user segdist "$(container node1)" launch/mpirun.sh --hosts /shared/hosts "$@" </dev/null; }
# start ARGS...: the same in the background.
start() {
    code=0
    cluster "$@" >"$output" 2>&1 &
    job=$!
}
# ends SECONDS: the job in the background has ended by then; sets `code`.
ends() {
    within "$1" eval "! kill -0 $job" || { cat "$output"; fail "the job did not end within $1 s"; }
    wait $job || code=$?
}
blame='(rank [0-9]+ \(host node3|mpirun.sh: node3).*'
names_node3() { grep -aqE "$blame" "$output" || { cat "$output"; fail "nothing names node3"; }; }

say "doctor over three hosts"
report=$(cluster doctor --json | tr -d '\0') && echo "$report"
grep -q '3 on 3 host(s)' <<<"$report" || fail "doctor does not see three hosts"

say "three hosts train what three ranks of one host train"
# shellcheck disable=SC2046
on node1 launch/mpirun.sh --np 3 --mpi "--oversubscribe" $(arguments /shared/alone 40) >/dev/null
# shellcheck disable=SC2046
cluster $(arguments /shared/cluster 40) >/dev/null
diff <(losses node1 /shared/alone) <(losses node1 /shared/cluster) || fail "losses differ"
on node1 cmp /shared/{alone,cluster}/checkpoints/step-00000040/model.safetensors || fail "parameters differ"
say "equal, bit for bit, losses and parameters"

say "a node is paused"
# shellcheck disable=SC2046
start $(arguments /shared/paused 500 DIST.stall_timeout_s 15)
within 120 has_steps node1 /shared/paused 2 || { cat "$output"; fail "no steps"; }
docker pause "$(container node3)" >/dev/null
ends 60
docker unpause "$(container node3)" >/dev/null
[ $code != 0 ] || fail "exit code 0"
names_node3
say "ended with code $code: $(grep -aom 1 -E "$blame" "$output")"

say "a node is killed, comes back, and the run continues"
# shellcheck disable=SC2046
start $(arguments /shared/killed 40)
within 120 has_steps node1 /shared/killed 4 || { cat "$output"; fail "no steps"; }
docker kill "$(container node3)" >/dev/null
killed=$SECONDS
ends 20
say "ended $((SECONDS - killed)) s after it"
[ $code != 0 ] || fail "exit code 0"
names_node3
docker start "$(container node3)" >/dev/null
within 30 ready || fail "node3 does not come back"
# shellcheck disable=SC2046
cluster $(arguments /shared/killed 40) >/dev/null || fail "the run does not continue"
on node1 cmp /shared/{cluster,killed}/checkpoints/step-00000040/model.safetensors || fail "parameters differ"
say "continued to the parameters of the undisturbed run"

say "a node is killed and stays away: the launcher starts again without it"
# shellcheck disable=SC2046
start --restarts 1 $(arguments /shared/fewer 40)
within 120 has_steps node1 /shared/fewer 4 || { cat "$output"; fail "no steps"; }
docker kill "$(container node3)" >/dev/null
ends 180
docker start "$(container node3)" >/dev/null
[ $code = 0 ] || { cat "$output"; fail "exit code $code"; }
grep -aq 'node3 does not answer' "$output" || { cat "$output"; fail "nothing names node3"; }
[ "$(losses node1 /shared/fewer | wc -l)" = 40 ] || fail "steps are missing"
within 30 ready || fail "node3 does not come back"
say "finished: $(grep -aom 1 'failed with code.*' "$output")"

say "a rank is killed on another host, and the others go on"
# shellcheck disable=SC2046
start --elastic $(arguments /shared/elastic 40)
within 120 has_steps node1 /shared/elastic 4 || { cat "$output"; fail "no steps"; }
on node3 pkill -KILL -x segdist
ends 120
[ $code = 0 ] || { cat "$output"; fail "exit code $code"; }
grep -aq 'with 2 ranks' "$output" || { cat "$output"; fail "nobody says that two go on"; }
[ "$(losses node1 /shared/elastic | wc -l)" = 40 ] || fail "steps are missing"
say "$(grep -aom 1 'going on from step.*' "$output")"

say "the network of a node is cut"
network=$(docker inspect -f '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}' "$(container node3)")
# shellcheck disable=SC2046
start $(arguments /shared/cut 500 DIST.stall_timeout_s 15)
within 120 has_steps node1 /shared/cut 2 || { cat "$output"; fail "no steps"; }
docker network disconnect "$network" "$(container node3)"
ends 60
docker network connect "$network" "$(container node3)"
[ $code != 0 ] || fail "exit code 0"
names_node3
say "ended with code $code: $(grep -aom 1 -E "$blame" "$output")"

say "the folder of the run is full"
code=0
# Room for one checkpoint of about 90 MB, not for two.
# shellcheck disable=SC2046
docker run --rm --volumes-from "$(container node1)" --tmpfs /full:size=150m,mode=1777 "$SEGDIST_IMAGE" bash -c "
    segdist $(arguments /full/run 9) CHECKPOINT.retry_minutes=0.1; code=\$?
    ls /full/run/checkpoints && segdist eval --json $(arguments /full/run 9 | sed 's/DIST.*//') || exit 99
    exit \$code" >"$output" 2>&1 || code=$?
[ $code != 99 ] || { cat "$output"; fail "the checkpoint before is not intact"; }
[ $code != 0 ] || { cat "$output"; fail "exit code 0 without room for the last checkpoint"; }
say "ended with code $code, the checkpoint before is intact: $(grep -am 1 -i 'no space' "$output")"
say PASSED
