#!/usr/bin/env bash
# How much of the gradients' way over a slow network is hidden behind backward.
#
#   tests/network/overlap.sh [--rounds N] [--rate RATE] [--batch N] [--side N] [--ddp PYTHON STEP REPO] [KEY VALUE]...
#
# Two network namespaces joined by a veth pair of RATE (1gbit), one rank of one thread in each, and `segdist bench
# overlap` in them N (1) times. With --ddp also PyTorch's DistributedDataParallel over gloo in the same namespaces, and
# two such processes without it: STEP is a script that takes REPO --bs --size --iters --threads [--ddp] and prints a
# line of JSON with median_s.
# Needs root, iproute2 and a release build; says SKIPPED without. The namespaces are removed in the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

rounds=1 rate=1gbit ddp=() batch=2 side=256
while [[ ${1:-} == --* ]]; do
    case $1 in
        --rounds) rounds=$2; shift 2 ;;
        --rate) rate=$2; shift 2 ;;
        --batch) batch=$2; shift 2 ;;
        --side) side=$2; shift 2 ;;
        --ddp) ddp=("$2" "$3" "$4"); shift 4 ;;
        *) sed -n 's/^# \?//; 2,11p' "$0" >&2; exit 2 ;;
    esac
done
step=(bench overlap --json MODEL.arch_encoder resnet18dilated MODEL.arch_decoder ppm_deepsup TRAIN.fix_bn True
    TRAIN.batch_size_per_gpu "$batch" DATASET.imgSizes "($side,)" DATASET.imgMaxSize "$side" "$@")

skip() { echo "SKIPPED: $1"; exit 0; }
[[ $(id -u) == 0 ]] || skip "network namespaces need root"
for tool in ip tc unshare; do command -v $tool >/dev/null || skip "$tool is not here"; done
binary=$PWD/target/release/segdist mpirun=$PWD/.deps/bin/mpirun
[[ -x $binary && -x $mpirun ]] || skip "first: launch/setup.sh && cargo build --release"

names=("segdist$$a" "segdist$$b") addresses=(10.77.7.1 10.77.7.2)
work=$(mktemp -d)
clean() {
    for name in "${names[@]}"; do ip netns del "$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT
for name in "${names[@]}"; do ip netns add "$name" 2>/dev/null || skip "network namespaces cannot be made here"; done
ip link add veth0 netns "${names[0]}" type veth peer name veth0 netns "${names[1]}"
for i in 0 1; do
    ip -n "${names[i]}" addr add "${addresses[i]}/24" dev veth0
    ip -n "${names[i]}" link set lo up
    ip -n "${names[i]}" link set veth0 up
    ip netns exec "${names[i]}" tc qdisc add dev veth0 root tbf rate "$rate" burst 256kb latency 20ms
done

# Runs a command in the namespace of an address, under a host name of its own, by which Open MPI tells hosts apart.
cat >"$work/on" <<END
#!/usr/bin/env bash
case \$1 in ${addresses[0]}) name=${names[0]} ;; ${addresses[1]}) name=${names[1]} ;; *) exit 1 ;; esac
shift
exec ip netns exec "\$name" unshare --uts sh -c 'hostname "\$0"; exec "\$@"' "\$name" "\$@"
END
# In ssh's place: mpirun gives it the address and a line for the shell.
cat >"$work/agent" <<END
#!/usr/bin/env bash
exec "$work/on" "\$1" sh -c "\${*:2}"
END
chmod +x "$work/on" "$work/agent"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMP_NUM_THREADS=1

field() { sed -n "s/.*\"$1\": *\([-0-9.]*\).*/\1/p" "$2" >>"$work/$3"; }

# Both ranks under mpirun.
together() {
    "$work/on" "${addresses[0]}" "$mpirun" -np 2 --host "${addresses[0]}:1,${addresses[1]}:1" --map-by node --bind-to none \
        --prtemca plm_ssh_agent "$work/agent" --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include 10.77.7.0/24 \
        -x OMP_NUM_THREADS "$binary" "${step[@]}" >"$work/out" 2>"$work/err" || { cat "$work/err"; exit 1; }
    for key in overlapped_s serial_s alone_s backward_s sum_s hidden; do field $key "$work/out" $key; done
}

# name command...: the same command in both namespaces at once; @ in it is the namespace's index.
beside() {
    local name=$1 i jobs=()
    shift
    for i in 0 1; do
        "$work/on" "${addresses[i]}" "${@//@/$i}" >"$work/out$i" 2>"$work/err$i" &
        jobs+=($!)
    done
    for i in 0 1; do wait "${jobs[i]}" || { cat "$work/err$i"; exit 1; }; done
    field median_s "$work/out0" "$name"
}

torch() { beside "$1" env MASTER_ADDR="${addresses[0]}" MASTER_PORT=29500 WORLD_SIZE=2 RANK=@ GLOO_SOCKET_IFNAME=veth0 \
    "${ddp[0]}" "${ddp[1]}" "${ddp[2]}" --bs "$batch" --size "$side" --iters 10 --threads 1 "${@:2}"; }

for ((round = 1; round <= rounds; round++)); do
    together
    if ((${#ddp[@]})); then
        torch ddp_s --ddp
        torch ddp_alone_s
    fi
done

median() { sort -g "$work/$1" | awk '{ value[NR] = $1 } END { print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'; }
awk -v overlapped="$(median overlapped_s)" -v serial="$(median serial_s)" -v alone="$(median alone_s)" \
    -v backward="$(median backward_s)" -v sum="$(median sum_s)" -v hidden="$(median hidden)" 'BEGIN {
    printf "serial %.3f s, overlapped %.3f s, alone %.3f s\n", serial, overlapped, alone
    printf "backward takes %.3f s, %.2f times the sum over ranks of %.3f s\n", backward, backward / sum, sum
    printf "hidden: %.0f %%\n", 100 * hidden }'
if ((${#ddp[@]})); then
    printf 'DDP over gloo %.3f s, alone %.3f s\n' "$(median ddp_s)" "$(median ddp_alone_s)"
fi
