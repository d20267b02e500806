#!/usr/bin/env bash
# What waiting threads cost: training steps and evaluation on an idle machine and beside one busy process, on one rank and
# on two, before (GCC's OpenMP lets threads spin) and after (they soon sleep: what the program sets itself). Prints a table.
#
#   tests/measure/busy.sh                      three rounds with target/release/segdist
#   tests/measure/busy.sh --rounds 5 --side 160
#   BEFORE=OMP_WAIT_POLICY=ACTIVE tests/measure/busy.sh
#
# Within a round all cases are run in turn, so that slower minutes of the machine fall on all of them. Medians over the
# rounds; nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

rounds=3 side=128
while [ $# -gt 0 ]; do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --side) side=$2; shift 2 ;;
        *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 2 ;;
    esac
done
# How libgomp waits where nobody says otherwise.
before=${BEFORE:-GOMP_SPINCOUNT=300000}
segdist=$PWD/target/release/segdist
cores=$(nproc)
work=$(mktemp -d)
spinning=
stop() { [ -z "$spinning" ] || kill "$spinning" 2>/dev/null || true; spinning=; }
trap 'stop; rm -rf "$work"' EXIT
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset OMP_WAIT_POLICY GOMP_SPINCOUNT KMP_BLOCKTIME

"$segdist" demo-data --out "$work/data" >/dev/null
head -n 16 "$work/data/validation.odgt" >"$work/data/some.odgt"
keys=(MODEL.arch_encoder=resnet18dilated MODEL.arch_decoder=ppm_deepsup MODEL.init=random DATASET.num_class=5
    "DATASET.imgSizes=($side,)" "DATASET.imgMaxSize=$((side * 2))" "DATASET.root_dataset=$work/data"
    "DATASET.list_train=$work/data/training.odgt" "DATASET.list_val=$work/data/some.odgt" "DIR=$work/run")
"$segdist" -q "${keys[@]}" DATASET.list_val= TRAIN.num_epoch=1 TRAIN.epoch_iters=1 TRAIN.batch_size_per_gpu=1 >/dev/null

# run RANKS WORDS...: segdist on so many ranks that share the cores.
run() {
    local ranks=$1
    shift
    export OMP_NUM_THREADS=$(((cores + ranks - 1) / ranks))
    if [ "$ranks" = 1 ]; then "$segdist" "$@"; else
        .deps/bin/mpirun -np "$ranks" --oversubscribe --bind-to none "$segdist" "$@"
    fi
}

# seconds RANKS VERB: of a step, or of an image of an evaluation.
seconds() {
    case $2 in
        train) run "$1" bench step --json "${keys[@]}" | grep -o '"median_s":[0-9.e-]*' | cut -d: -f2 ;;
        eval) run "$1" eval --json "${keys[@]}" 2>/dev/null | grep -o '"images_per_s":[0-9.e-]*' | cut -d: -f2 |
            awk '{ print 1 / $1 }' ;;
    esac
}

for ((round = 1; round <= rounds; round++)); do
    for ranks in 1 2; do for verb in train eval; do for machine in idle busy; do for way in before after; do
        # A busy neighbour is one process that never waits.
        [ "$machine" = idle ] || { sh -c 'while :; do :; done' & spinning=$!; }
        if [ "$way" = before ]; then time=$(export "${before?}"; seconds "$ranks" "$verb"); else time=$(seconds "$ranks" "$verb"); fi
        stop
        echo "$ranks $verb $machine $way $time" | tee -a "$work/times" >&2
    done; done; done; done
done

sort -k1,4 -k5,5g "$work/times" | awk '
    { key = $1 " " $2 " " $3 " " $4; n[key]++; value[key, n[key]] = $5 }
    function median(key) { return value[key, int((n[key] + 1) / 2)] }
    END {
        print "| ranks | | idle before | idle after | after ÷ before | busy before | busy after | after ÷ before | busy ÷ idle before | busy ÷ idle after |"
        print "|---|---|---|---|---|---|---|---|---|---|"
        for (ranks = 1; ranks <= 2; ranks++) for (v = 1; v <= 2; v++) {
            verb = v == 1 ? "train" : "eval"
            a = median(ranks " " verb " idle before"); b = median(ranks " " verb " idle after")
            c = median(ranks " " verb " busy before"); d = median(ranks " " verb " busy after")
            printf "| %d | %s | %.3f s | %.3f s | %.2f | %.3f s | %.3f s | %.2f | %.1f | %.1f |\n", ranks, verb, a, b, b / a, c, d, d / c, c / a, d / b
        }
    }'
