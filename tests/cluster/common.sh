# shellcheck shell=bash
# What the cluster tests share, to be sourced: the engine, the image, small trainings, waiting with a bound, cleaning up.

cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
export SEGDIST_IMAGE=${SEGDIST_IMAGE:-segdist} SEGDIST_SLURM_IMAGE=${SEGDIST_SLURM_IMAGE:-segdist-slurm} OMP_NUM_THREADS=1
test=$(basename "$0" .sh)
# Every run has a cluster of its own, so that two checkouts on one engine leave each other in peace.
project=segdist-$test-$$

say() { echo "[$test $(date +%T)] $*"; }
fail() { say "FAILED: $*"; exit 1; }
if ! timeout 20 docker info >/dev/null 2>&1; then say "SKIPPED: no Docker engine answers"; exit 0; fi
if docker compose version >/dev/null 2>&1; then compose=(docker compose); else compose=(docker-compose); fi
if ! "${compose[@]}" version >/dev/null 2>&1; then say "SKIPPED: neither 'docker compose' nor docker-compose is here"; exit 0; fi

# For what a command printed.
output=$(mktemp) composed=
# What a test made goes when it ends, however it ends.
clean() {
    rm -f "$output"
    [ -z "$composed" ] || "${compose[@]}" down --volumes --timeout 2 >/dev/null 2>&1 || true
}
trap clean EXIT

# up FILE: starts the cluster of a compose file.
up() {
    compose+=(--project-name "$project" --file "$1")
    composed=$1
    "${compose[@]}" up --detach >/dev/null 2>&1 || fail "$1 does not start"
}
container() { docker ps --all --quiet --filter "label=com.docker.compose.project=$project" --filter "label=com.docker.compose.service=$1"; }
# on NODE COMMAND...: runs as the user of the image.
on() { docker exec --user segdist --env OMP_NUM_THREADS "$(container "$1")" "${@:2}" </dev/null; }

# within SECONDS COMMAND...: waits until the command succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.5
    done
}

# arguments DIR STEPS [KEY VALUE ...]: a training of seconds on the images of `segdist demo-data --out /shared/data`.
arguments() {
    local dir=$1 steps=$2
    shift 2
    echo --cfg /opt/segdist/configs/demo.yaml DIR "$dir" DATASET.root_dataset /shared/data \
        DATASET.list_train /shared/data/training.odgt DATASET.list_val /shared/data/validation.odgt \
        TRAIN.num_epoch 1 TRAIN.epoch_iters "$steps" TRAIN.batch_size_per_gpu 2 TRAIN.workers 1 TRAIN.disp_iter 1 \
        CHECKPOINT.every_steps 3 DIST.start_timeout_s 600 DIST.stall_timeout_s 600 "$@"
}
# steps NODE DIR: how many updates the run has written down.
steps() { on "$1" grep -c '"event":"train"' "$2/metrics.jsonl" 2>/dev/null || true; }
has_steps() { [ "$(steps "$1" "$2")" -ge "$3" ]; }
# losses NODE DIR: step and loss of every update, the last word on each step.
losses() {
    on "$1" grep '"event":"train"' "$2/metrics.jsonl" |
        sed -E 's/.*"step":([0-9]+).*"loss":([^,}]+).*/\1 \2/' | awk '{ last[$1] = $2 } END { for (s in last) print s, last[s] }' |
        sort -n
}
