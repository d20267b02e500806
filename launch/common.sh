# shellcheck shell=bash
# What the launchers share, to be sourced: where a run is, how far it has come, and when a Slurm job starts again.
# The caller has the array `segdist`, the words that call the program.

# run_dir ARGS...: DIR of the training that these arguments ask for; nothing for other verbs.
run_dir() {
    local words=()
    [[ $1 == -* || $1 == [A-Z]* || $1 == train ]] || return 0
    [ "$1" != train ] || shift
    while [ $# -gt 0 ]; do
        case $1 in
            --resume) shift ;;
            --resume=* | -q | --quiet) ;;
            *) words+=("$1") ;;
        esac
        shift
    done
    # shellcheck disable=SC2154
    "${segdist[@]}" config "${words[@]}" | sed -n 's/^DIR: *//p' | tr -d "\"'"
}

# says_finished DIR: whether the run's last word is that it is finished.
says_finished() {
    grep -E '"event":"(train|finished)"' "$1/metrics.jsonl" 2>/dev/null | tail -n 1 | grep -q '"event":"finished"'
}

# newest_step DIR: the step of the newest complete checkpoint, -1 where there is none.
newest_step() {
    local name
    name=$(cd "$1/checkpoints" 2>/dev/null && printf '%s\n' step-* | grep -E '^step-[0-9]+$' | sort | tail -n 1)
    if [ -n "$name" ]; then echo $((10#${name#step-})); else echo -1; fi
}

# train_in_slurm DIR REQUEUE_MAX COMMAND...: one start of a job. Exits with the command's code; with 1 where it returned 0
# and the run does not say that it is finished. A run that stopped on request (75), or failed of what may pass (1), goes
# back into the queue, at most REQUEUE_MAX times, and only if this start has come further than the last: else it would
# turn in circles.
train_in_slurm() {
    local dir=$1 requeue_max=$2 before after child code=0
    shift 2
    # The wheel's PMIx has no munge module and would say so for every rank; Slurm accepts its native one as well.
    export PMIX_MCA_psec=${PMIX_MCA_psec:-native}
    before=$(newest_step "$dir")
    echo "slurm: job $SLURM_JOB_ID on $SLURM_JOB_NODELIST, start $((${SLURM_RESTART_COUNT:-0} + 1)), from step $before"
    "$@" &
    child=$!
    # Signals to the batch script alone (scancel --batch, --signal=B:USR1@120) go on to the ranks.
    trap 'kill -USR1 $child 2>/dev/null' USR1 TERM
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do code=0; wait "$child" || code=$?; done

    if [ "$code" = 0 ] && ! says_finished "$dir"; then
        echo "slurm: the launcher returned 0, but $dir/metrics.jsonl does not say that the run is finished"
        code=1
    fi
    after=$(newest_step "$dir")
    echo "slurm: ended with code $code at step $after"
    if [ "$code" = 75 ] || [ "$code" = 1 ]; then
        if [ "$after" -le "$before" ]; then
            echo "slurm: not queued again: this start has not come further than step $before"
        elif [ "${SLURM_RESTART_COUNT:-0}" -ge "$requeue_max" ]; then
            echo "slurm: not queued again: started $((requeue_max + 1)) times"
        else
            # Slurm ends this script when it takes the job back.
            scontrol requeue "$SLURM_JOB_ID" && sleep 60
        fi
    fi
    exit "$code"
}
