#!/bin/sh
# check_install.sh STAGE: install into STAGE, use the library from C through
# pkg-config and from Lua, uninstall, and find nothing left.
set -eu
stage=$1
rm -rf "$stage"
mkdir -p "$stage"
stage=$(cd "$stage" && pwd)
prefix=/opt/atomicwriter
root=$stage$prefix
make=${MAKE:-make}

$make install DESTDIR="$stage" PREFIX="$prefix"
(cd "$stage" && find . ! -type d | sort)

export PKG_CONFIG_LIBDIR="$root/lib/pkgconfig"
for source in examples/c/*.c; do
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -Wall -Wextra -o "$stage/program" "$source" \
        -I"$root/include" -L"$root/lib" $(pkg-config --libs-only-l atomicwriter)
    LD_LIBRARY_PATH="$root/lib" ldd "$stage/program" | grep "$root/lib/libatomicwriter.so"
done
rm -f "$stage/program"
test "$(pkg-config --variable=prefix atomicwriter)" = "$prefix"

for lua in lua5.4 luajit; do
    api=5.4
    test $lua = lua5.4 || api=5.1
    LUA_PATH="$root/share/lua/$api/?.lua" LUA_CPATH="$root/lib/lua/$api/?.so" \
        $lua -e 'print(_VERSION, require "atomicwriter"._VERSION)'
done

$make uninstall DESTDIR="$stage" PREFIX="$prefix"
left=$(find "$stage" ! -type d)
test -z "$left" || { echo "left behind: $left"; exit 1; }
left=$(find "$stage" -name '*atomicwriter*' ! -path "$root")
test -z "$left" || { echo "left behind: $left"; exit 1; }
