#!/usr/bin/env bash
# Starts segdist on the hosts of a file, one rank per slot, from a shell in which nothing needs to be set.
#
#   ./launch/mpirun.sh --hosts hosts.txt --cfg configs/ade20k-resnet50dilated-ppm_deepsup.yaml TRAIN.num_epoch 10
#   ./launch/mpirun.sh --np 2 doctor                           this machine alone, any verb
#
#   --hosts FILE       lines `HOST slots=RANKS`, as many slots as the host has GPUs; ssh must reach them without a password
#   --np N             ranks in all (the sum of the slots; 1 without a hosts file)
#   --interface NAME   network interface or CIDR network that ranks talk over, such as ib0 or 10.1.0.0/16
#   --bind WHAT        none: a rank's threads go wherever they like, each rank takes its share of the cores (default);
#                      numa: they stay in one NUMA domain, with the memory; core: OMP_NUM_THREADS of them get cores each
#   --restarts N       after a failure, start again up to N times, from the last checkpoint, on the hosts that answer; not
#                      where a start came no further than the one before it on the same hosts
#   --elastic          when ranks die, the others go on without them (DIST.elastic; Open MPI 5)
#   --mpi "OPTIONS"    anything else for mpirun
#
# Ctrl-C or SIGTERM asks the run to write a checkpoint and stop (mpirun itself would kill it); twice ends it at once.
# Exit code of a training: 0 only if the run says in metrics.jsonl that it is finished, since mpirun can return 0 when a
# host has died; 75: stopped on request, start again to continue; 2: bad configuration or input; else the failure's.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
say() { echo "mpirun.sh: $*" >&2; }
die() { say "$*"; exit 2; }
. "$here/launch/common.sh"

hosts='' np='' interface='' bind=none restarts=0 elastic='' extra=()
# The hosts that are left, once some do not answer.
left=$(mktemp)
trap 'rm -f "$left"' EXIT
while [ $# -gt 0 ]; do
    case $1 in
        --hosts) hosts=${2:?--hosts needs a file}; shift 2 ;;
        --np) np=${2:?--np needs a number}; shift 2 ;;
        --interface) interface=${2:?--interface needs a name}; shift 2 ;;
        --bind) bind=${2:?--bind needs none, numa or core}; shift 2 ;;
        --restarts) restarts=${2:?--restarts needs a number}; shift 2 ;;
        --elastic) elastic=1; shift ;;
        --mpi) read -ra extra <<<"${2:?--mpi needs options}"; shift 2 ;;
        --) shift; break ;;
        *) break ;;
    esac
done
[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"; exit 2; }
[ -z "$hosts" ] || [ -r "$hosts" ] || die "$hosts: no such hosts file"

# first PATH...: the first that can be run, then whatever PATH has under the first one's name.
first() {
    local candidate
    for candidate in "$@" "$(command -v "${1##*/}" || true)"; do
        [ -x "$candidate" ] && readlink -f "$candidate" && return
    done
    die "no ${1##*/}: run ./launch/setup.sh and cargo build --release"
}
segdist=("$(first "$here/target/release/segdist" "$here/bin/segdist")")
mpirun=$(first "$here/.deps/bin/mpirun" "$here/bin/mpirun")
"$mpirun" --version 2>&1 | grep -q 'Open MPI' ||
    die "$mpirun is not Open MPI's; with another MPI start segdist by that MPI's own mpiexec, one rank per GPU"

options=(
    # Remote hosts look for Open MPI's daemon under the same prefix; no PATH is needed there.
    --prefix "$(dirname "$(dirname "$mpirun")")"
    # Fill a host before the next one, so that neighbours in rank share memory (and NVLink).
    --map-by slot
    --bind-to "$bind"
    # No interface that only exists inside one host may be chosen for talking to others.
    --mca btl_tcp_if_exclude lo,docker0,virbr0
)
if "$mpirun" --version 2>&1 | grep -q 'Open MPI) 5'; then
    # Notice within half a minute that a host has vanished without closing its connections (the default is 8 minutes).
    options+=(--prtemca oob_tcp_keepalive_time 10 --prtemca oob_tcp_keepalive_intvl 5 --prtemca oob_tcp_keepalive_probes 3)
fi
if [ -n "$elastic" ]; then
    # A dead rank does not end the others, and MPI tells them of it; of its message layers only ob1 is made for that.
    options+=(--with-ft ulfm --mca pml ob1)
    set -- "$@" DIST.elastic True
fi
[ -z "$hosts" ] || options+=(--hostfile "$hosts")
if [ -n "$interface" ]; then
    # MPI's messages over TCP, and NCCL's, over this interface only.
    options=("${options[@]/btl_tcp_if_exclude/btl_tcp_if_include}")
    options=("${options[@]/lo,docker0,virbr0/$interface}")
    export NCCL_SOCKET_IFNAME=$interface
fi

# Between hosts NCCL must not try interfaces that lead nowhere, unless told which to use; one host may have no other than lo.
[ -z "$hosts" ] || export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-^lo,docker0,virbr0}
# UCX caches whether memory is the host's or a GPU's, and is wrong about memory that libtorch's allocator reuses.
export UCX_MEMTYPE_CACHE=${UCX_MEMTYPE_CACHE:-n}
# What goes to every rank where it is set. Set these yourself where a fabric needs it:
#   OMP_NUM_THREADS          threads per rank, instead of its share of the cores
#   OMPI_MCA_pml             ucx: InfiniBand and RoCE through UCX (chosen by itself where it works); ob1: plain TCP
#   UCX_NET_DEVICES          adapter and port, such as mlx5_0:1; by default all of them
#   UCX_TLS                  transports that UCX may use, such as rc,sm,cuda_copy,cuda_ipc
#   UCX_IB_GID_INDEX         RoCE: which address of the port; 3 is RoCE v2 on most systems (show_gids lists them)
#   NCCL_IB_HCA              adapters for NCCL, such as mlx5; with NCCL_IB_DISABLE=1 it uses TCP
#   NCCL_IB_GID_INDEX        the same as UCX_IB_GID_INDEX, for NCCL
#   NCCL_NET_GDR_LEVEL       how far apart GPU and adapter may be for direct transfers: LOC, PIX, PXB, PHB, SYS
#   NCCL_DEBUG               WARN or INFO, to see what NCCL chose
#   RUST_LOG, RUST_BACKTRACE segdist's own
for name in OMP_NUM_THREADS UCX_MEMTYPE_CACHE UCX_NET_DEVICES UCX_TLS UCX_IB_GID_INDEX NCCL_SOCKET_IFNAME NCCL_IB_HCA \
    NCCL_IB_DISABLE NCCL_IB_GID_INDEX NCCL_NET_GDR_LEVEL NCCL_DEBUG RUST_LOG RUST_BACKTRACE; do
    [ -z "${!name:-}" ] || options+=(-x "$name")
done
# Open MPI wants to hear twice that running as root is meant (containers).
if [ "$(id -u)" = 0 ]; then export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; fi

# host_lines: the hosts file without comments.
host_lines() { [ -z "$hosts" ] || sed 's/#.*//;/^[[:space:]]*$/d' "$hosts"; }
# silent_hosts: the other hosts that do not answer within five seconds.
silent_hosts() {
    local host
    for host in $(host_lines | awk '{ print $1 }' | grep -vxF -e "$(hostname)" -e localhost); do
        timeout 5 ssh -o BatchMode=yes -o ConnectTimeout=3 "$host" true </dev/null >/dev/null 2>&1 || echo "$host" &
    done
    wait
}

signals=0 child=
ask_to_stop() {
    signals=$((signals + 1))
    [ -n "$child" ] || exit 130
    if [ "$signals" = 1 ]; then
        say "asking the run to write a checkpoint and stop; once more ends it at once"
        kill -USR1 "$child" 2>/dev/null || true
    else
        kill -TERM "$child" 2>/dev/null || true
    fi
}
trap ask_to_stop INT TERM USR1

# without_mpiruns_word: the lines it reads, but for the seven in which mpirun says that a rank ended with a code: the rank
# has said why, and this script says what follows. Signals do not end it, so that nothing is lost that is said after them.
without_mpiruns_word() {
    trap '' INT TERM USR1
    local line block=()
    while IFS= read -r line || [ -n "$line" ]; do
        block+=("$line")
        # A block stands between two rules; whatever is no block passes at once.
        if [[ ! ${block[0]} =~ ^-{70,}$ ]] || [ ${#block[@]} -gt 20 ]; then
            printf '%s\n' "${block[@]}"
        elif [ ${#block[@]} -gt 1 ] && [[ $line =~ ^-{70,}$ ]]; then
            if [[ ${block[*]} == *'exited with non-zero status'* ]]; then
                printf '%s\n' "${block[@]}" | grep -E '^(segdist: |\[rank )' || true
            else
                printf '%s\n' "${block[@]}"
            fi
        else
            continue
        fi
        block=()
    done
    [ ${#block[@]} = 0 ] || printf '%s\n' "${block[@]}"
}

# run ARGS...: one start; returns mpirun's exit code.
run() {
    local count=$np code=0 gone=0 seen=0 heard listener
    [ -n "$count" ] || count=$(host_lines | awk '{ n = 1; for (i = 2; i <= NF; i++) if (sub(/^slots=/, "", $i)) n = $i
        sum += n } END { print sum ? sum : 1 }')
    # In a session of its own, so that the terminal's Ctrl-C reaches only this script.
    exec {heard}> >(without_mpiruns_word >&2)
    listener=$!
    setsid "$mpirun" -np "$count" "${options[@]}" "${extra[@]}" "${segdist[@]}" "$@" </dev/null 2>&"$heard" {heard}>&- &
    child=$!
    exec {heard}>&-
    # When a host stops answering without a word, mpirun waits for its daemon for ever after its own ranks have ended.
    while kill -0 "$child" 2>/dev/null; do
        if pgrep -P "$child" -x segdist >/dev/null; then seen=1 gone=0; else gone=$((gone + seen)); fi
        if [ "$gone" = 10 ]; then
            say "the ranks of this host ended 10 s ago, but mpirun still waits for another host: ending it"
            kill -KILL -- "-$child" 2>/dev/null || true
        fi
        sleep 1 & wait $! || true
    done
    { wait "$child" || code=$?; } 2>/dev/null
    [ "$gone" -lt 10 ] || code=1
    child=
    # What was said last is shown before this script adds to it; a process that is left behind may hold the pipe.
    for _ in {1..20}; do kill -0 "$listener" 2>/dev/null || break; sleep 0.1; done
    return "$code"
}

dir=$(run_dir "$@")
for ((start = 0; ; start++)); do
    code=0 before=$(newest_step "$dir")
    run "$@" || code=$?
    if [ -n "$dir" ] && [ "$code" = 0 ] && ! says_finished "$dir"; then
        say "mpirun returned 0, but $dir/metrics.jsonl does not say that the run is finished"
        code=1
    fi
    [ "$code" != 75 ] || say "stopped at step $(newest_step "$dir"): start again to continue"
    case $code in 2 | 75) exit "$code" ;; esac
    [ -z "$dir" ] || [ "$code" != 0 ] || exit 0
    lost=$(silent_hosts)
    [ "$code" != 0 ] || [ -n "$lost" ] || exit 0
    [ "$code" != 0 ] || code=1
    for host in $lost; do say "$host does not answer: it is down, paused, or cut from the network"; done
    [ "$signals" = 0 ] && [ "$start" -lt "$restarts" ] || { say "failed with code $code"; exit "$code"; }
    if [ -n "$lost" ]; then
        # The order of samples does not depend on the number of ranks, so the run may go on with fewer hosts.
        answering=$(host_lines | awk -v lost=" ${lost//$'\n'/ } " '!index(lost, " " $1 " ")')
        echo "$answering" >"$left"
        options=("${options[@]/"$hosts"/"$left"}") hosts=$left np=
    elif [ -n "$dir" ] && [ "$(newest_step "$dir")" -le "$before" ]; then
        say "failed with code $code; not started again: it came no further than step $before"
        exit "$code"
    fi
    say "failed with code $code; start $((start + 2)) of $((restarts + 1))"
done
