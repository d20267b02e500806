#!/usr/bin/env bash
# One node of the Slurm cluster in docker/slurm/compose.yaml.
#
#   slurm-node control|compute
#
# The first node to start makes the key that all share, in a volume of the cluster's own.
set -euo pipefail

exec 9>/etc/munge/lock
flock 9
if [ ! -e /etc/munge/munge.key ]; then
    head -c 1024 /dev/urandom >/etc/munge/munge.key
    chown munge:munge /etc/munge /etc/munge/munge.key
    chmod 600 /etc/munge/munge.key
fi
flock -u 9
install -d -o munge -g munge -m 755 /run/munge
runuser -u munge -- /usr/sbin/munged

case $1 in
    control) exec runuser -u slurm -- /usr/sbin/slurmctld -D ;;
    compute) exec /usr/sbin/slurmd -D -N "$(hostname)" ;;
    *) echo "slurm-node: $1: control or compute" >&2; exit 2 ;;
esac
