#!/usr/bin/env bash
# One node of the cluster in docker/compose.yaml: makes the cluster's ssh key if it is the first to start, says that it is
# there (its name goes into /shared/hosts), and waits for mpirun to come in by ssh on port 2222.
#
#   docker/node.sh            in the container; SLOTS is the number of ranks it takes (1)
#
# The key belongs to this cluster alone: it is made when the cluster starts, in a volume of its own, and is in no image.
set -euo pipefail

ssh=$HOME/.ssh
exec 9>"$ssh/lock"
flock 9
if [ ! -e "$ssh/config" ]; then
    ssh-keygen -q -t ed25519 -N '' -f "$ssh/id_ed25519"
    ssh-keygen -q -t ed25519 -N '' -f "$ssh/host_key"
    cp "$ssh/id_ed25519.pub" "$ssh/authorized_keys"
    echo "* $(cut -d' ' -f1,2 "$ssh/host_key.pub")" >"$ssh/known_hosts"
    printf 'Host *\n    Port 2222\n    LogLevel ERROR\n' >"$ssh/config"
    chmod 600 "$ssh"/*
fi
grep -q "^$(hostname) " /shared/hosts 2>/dev/null || echo "$(hostname) slots=${SLOTS:-1}" >>/shared/hosts
sort -V -o /shared/hosts /shared/hosts
flock -u 9

exec /usr/sbin/sshd -D -e -p 2222 -f /dev/null -h "$ssh/host_key" -o PidFile=none -o PasswordAuthentication=no \
    -o SetEnv="PATH=$PATH" -o AuthorizedKeysFile="$ssh/authorized_keys"
