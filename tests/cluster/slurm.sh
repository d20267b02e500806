#!/usr/bin/env bash
# A real Slurm over two containers: a training is preempted, goes back into the queue by its own exit code, continues, and
# ends with the losses of an undisturbed run.
#
#   tests/cluster/slurm.sh          after image.sh; says SKIPPED where no Docker engine is
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

docker image inspect "$SEGDIST_IMAGE" >/dev/null 2>&1 || fail "no image $SEGDIST_IMAGE: run tests/cluster/image.sh"
timeout 1200 docker build --build-arg SEGDIST_IMAGE="$SEGDIST_IMAGE" -t "$SEGDIST_SLURM_IMAGE" docker/slurm >"$output" 2>&1 ||
    { tail -40 "$output"; fail "the Slurm image does not build"; }
up docker/slurm/compose.yaml
idle() { [ "$(on control sinfo --noheader --format '%T %D')" = "idle 2" ]; }
within 60 idle || { "${compose[@]}" logs; fail "Slurm's nodes do not come up"; }
on control sinfo
on control segdist demo-data --out /shared/data >/dev/null

submit() { on control sbatch --parsable --chdir /shared /opt/segdist/launch/slurm.sbatch "$@"; }
state() { on control scontrol show job "$1" | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
in_state() { [ "$(state "$1")" = "$2" ]; }
show() { on control cat "/shared/segdist-$1.out"; on control scontrol show job "$1"; }

say "doctor under srun"
report=$(on control srun --nodes 2 --ntasks-per-node 1 --mpi=pmix --chdir /shared segdist doctor --json) && echo "$report"
grep -q 'srun --mpi=pmix' <<<"$report" && grep -q '2 on 2 host(s)' <<<"$report" ||
    fail "srun does not start ranks that find each other"

say "an undisturbed run"
# shellcheck disable=SC2046
quiet=$(submit $(arguments /shared/quiet 60))
within 240 in_state "$quiet" COMPLETED || { show "$quiet"; fail "the undisturbed run did not complete"; }

say "a run that is preempted"
# shellcheck disable=SC2046
job=$(submit $(arguments /shared/disturbed 60))
within 120 has_steps control /shared/disturbed 4 || { show "$job"; fail "no steps"; }
on control scancel --signal=USR1 "$job"
within 60 in_state "$job" PENDING || { show "$job"; fail "the job did not go back into the queue"; }
on control scontrol show job "$job"
# Slurm holds a requeued job back for two minutes, in which the nodes end its first start; here that takes seconds.
within 60 idle || fail "the nodes do not come free"
sleep 10
on control scontrol update "JobId=$job" StartTime=now
within 300 in_state "$job" COMPLETED || { show "$job"; fail "the preempted run did not complete"; }
show "$job"
on control scontrol show job "$job" | grep -q 'Restarts=1' || fail "the job was not started twice"
diff <(losses control /shared/quiet) <(losses control /shared/disturbed) || fail "losses differ"
say "Slurm's record of finished jobs:"
docker exec "$(container control)" cat /var/log/slurm/jobs.log
say "PASSED: the losses of both runs are equal"
