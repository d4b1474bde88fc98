#!/bin/sh
# deps.sh GROUP…: install those packages of the groups that are missing.
#
# Asks dpkg first: when all is there, it needs no network and no root. "a|b"
# means that either will do. On a system without apt-get it looks for the
# programs and headers themselves, and says what is missing.
set -eu

build='gcc make libc6-dev pkg-config|pkgconf lua5.4 liblua5.4-dev diffutils
       lua-argparse lua-luv lua-cjson lua-yaml'
luajit='luajit2|luajit libluajit2-5.1-dev|libluajit-5.1-dev'
test='lua-busted lua-filesystem lua-penlight nginx-light libnginx-mod-http-lua wrk openssl curl
      strace util-linux procps unicode-data etcd-server etcd-client'
check='lua-check cppcheck clang valgrind libc6-dbg luarocks gcovr lua-ldoc git
       e2fsprogs libclang-rt-dev|libclang-rt-14-dev|libclang-common-14-dev'

power='e2fsprogs xfsprogs btrfs-progs fuse3 libfuse3-dev mount'
bench='lua-penlight strace util-linux mount e2fsprogs xfsprogs btrfs-progs rsync python3-minimal
       gnuplot-nox'

build_programs='cc make lua5.4'
luajit_programs='luajit'
test_programs='busted strace flock pgrep'
power_programs='mkfs.ext4 mkfs.xfs mkfs.btrfs fusermount3'
bench_programs= # the benchmark skips what it cannot measure, and says so
check_programs='luacheck cppcheck clang valgrind luarocks gcovr ldoc git'

wanted=
programs=
for group; do
    eval "wanted=\"\$wanted \$$group\" programs=\"\$programs \$${group}_programs\""
done

installed() {
    test "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed
}

# The first alternative that apt-get knows.
choose() {
    for name in $(echo "$1" | tr '|' ' '); do
        if apt-cache show "$name" >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "${1%%|*}"
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    missing=
    for name in $programs; do
        command -v "$name" >/dev/null || missing="$missing $name"
    done
    test -z "$missing" && exit 0
    echo "missing:$missing" >&2
    echo "This system has no apt-get. Please install what Debian calls:" >&2
    echo " " $wanted >&2
    exit 1
fi

missing=
for package in $wanted; do
    found=
    for name in $(echo "$package" | tr '|' ' '); do
        if installed "$name"; then found=yes; break; fi
    done
    test -n "$found" || missing="$missing $package"
done
test -n "$missing" || exit 0

as_root=
if test "$(id -u)" != 0; then
    if ! command -v sudo >/dev/null; then
        echo "Missing, and there is no sudo to install it with:$missing" >&2
        exit 1
    fi
    as_root=sudo
fi
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@" </dev/null
}

echo "installing:$missing"
apt update
names=
for package in $missing; do
    names="$names $(choose "$package")"
done
apt install -y --no-install-recommends $names
