#!/bin/sh
# run.sh COMMAND…: run a benchmark where it may litter and mount.
#
# It finds a directory on disk in BENCH_DISK and one in memory in BENCH_MEMORY, which are
# removed however it ends. As root it has namespaces of its own for mounts and processes, so
# that images it has mounted go with it, also after ^C.
set -eu

here=$(dirname "$0")
disk=$(mktemp -d "${TMPDIR:-/tmp}/atomicwriter-bench.XXXXXX")
memory=
trap 'rm -rf "$disk" ${memory:+"$memory"}' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

if test "$(id -u)" = 0 && unshare --mount --pid --fork true 2>/dev/null; then
    "$here/../faults/power/contained.sh" \
        env BENCH_DISK="$disk" BENCH_MEMORY=/dev/shm BENCH_MOUNTS=yes "$@"
else
    test ! -d /dev/shm || memory=$(mktemp -d /dev/shm/atomicwriter-bench.XXXXXX)
    env BENCH_DISK="$disk" BENCH_MEMORY="$memory" "$@"
fi
