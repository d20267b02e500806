#!/usr/bin/env bash
# What is too long for launch/test.sh: hours on two cores. After launch/setup.sh.
#
#   ./launch/nightly.sh                 every part, and a table at the end
#   ./launch/nightly.sh kills overlap   parts by name
#
# A part's output is target/nightly/NAME.log. The exit code is 1 when a part failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

wanted=("$@")
logs=target/nightly
mkdir -p "$logs"
rows=("part|result|time|last words")
failed=0

# part NAME SECONDS COMMAND...: runs it unless other parts were asked for; longer than that, it has failed.
part() {
    local name=$1 limit=$2 log=$logs/$1.log start=$SECONDS status=0 result=passed
    shift 2
    ((${#wanted[@]} == 0)) || [[ " ${wanted[*]} " == *" $name "* ]] || return 0
    echo "[nightly $(date +%T)] $name: $*"
    timeout --kill-after 60 "$limit" "$@" >"$log" 2>&1 </dev/null || status=$?
    local words
    words=$(grep -E '^(test result:|SKIPPED|hidden:|\[[a-z]+ [0-9:]+\])' "$log" | tail -n 1)
    if [ "$status" != 0 ]; then
        result="FAILED ($status)" failed=1
        tail -n 20 "$log"
    elif [[ $words == *SKIPPED* ]]; then
        result=skipped
    fi
    rows+=("$name|$result|$((SECONDS - start)) s|$words")
}

tests() { part "$1" "$2" env RUST_TEST_THREADS=1 "$3" cargo test --release --test ranks -- "${@:4}"; }

part build 3600 cargo build --release --bins --tests
tests kills 10800 SEGDIST_KILLS=100 kill:: elastic::
tests many-ranks 3600 SEGDIST_RANKS=48 many::
part overlap 3600 ./tests/network/overlap.sh --rounds 2 --side 288

printf '%s\n' "${rows[@]}" | column -t -s '|'
exit "$failed"
