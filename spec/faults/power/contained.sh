#!/bin/sh
# contained.sh COMMAND…: run it, as root, where whatever it starts and mounts ends with it.
#
# It has namespaces of its own for processes and mounts, and its scratch files lie in a
# memory of its own. However it ends, by ^C, SIGTERM or SIGKILL, the kernel then ends
# each process in there; and with the last of them go the mounts, the loop devices under
# these, and the memory.
set -eu

# The inner shell is process 1: signals reach it only because it traps them.
exec unshare --mount --pid --fork --kill-child --mount-proc sh -c '
    trap "exit 130" INT
    trap "exit 143" TERM
    trap "exit 129" HUP
    mount -t tmpfs -o mode=1777 none /dev/shm || exit
    TMPDIR=/dev/shm "$@" &
    wait $!' sh "$@"
