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

# The library has the functions of the header and no other.
declared=$(sed -n 's/^AW_API .*[ *]\(aw_[a-z_]*\)(.*/\1/p' csrc/atomicwriter.h | sort)
exported=$(nm -D --defined-only "$root/lib/libatomicwriter.so" | awk '{ print $3 }' | sort)
test "$declared" = "$exported" || {
    echo "declared:" $declared
    echo "exported:" $exported
    exit 1
}

export PKG_CONFIG_LIBDIR="$root/lib/pkgconfig"
test "$(pkg-config --variable=libdir atomicwriter)" = "$prefix/lib"
for source in examples/c/*.c; do
    ${CC:-cc} -std=c11 -D_GNU_SOURCE -Wall -Wextra -o "$stage/program" "$source" \
        -I"$root/include" -L"$root/lib" $(pkg-config --libs-only-l atomicwriter)
    LD_LIBRARY_PATH="$root/lib" ldd "$stage/program" | grep "$root/lib/libatomicwriter.so"
done
rm -f "$stage/program"

for lua in lua5.4 luajit; do
    api=5.4
    test $lua = lua5.4 || api=5.1
    # A module has one symbol to show and does not bring a Lua of its own.
    module=$root/lib/lua/$api/atomicwriter/core.so
    test "$(nm -D --defined-only "$module" | awk '{ print $3 }')" = luaopen_atomicwriter_core
    if readelf -d "$module" | grep 'NEEDED.*lua'; then exit 1; fi
    LUA_PATH="$root/share/lua/$api/?.lua" LUA_CPATH="$root/lib/lua/$api/?.so" \
        $lua -e 'print(_VERSION, require "atomicwriter"._VERSION)'
done

# The command finds its modules by itself, its manual and its completion are there.
env -u LUA_PATH -u LUA_CPATH "$root/bin/atomicwriter" --version 2>/dev/null && {
    echo "it should look below $prefix, where nothing is"
    exit 1
}
sed -i "s|'$prefix|'$root|g" "$root/bin/atomicwriter"
(cd / && "$root/bin/atomicwriter" --version && "$root/bin/atomicwriter" write --help >/dev/null)
grep -q '^.SH NAME' "$root/share/man/man1/atomicwriter.1"
bash -n "$root/share/bash-completion/completions/atomicwriter"

$make uninstall DESTDIR="$stage" PREFIX="$prefix"
left=$(find "$stage" ! -type d)
test -z "$left" || { echo "left behind: $left"; exit 1; }
left=$(find "$stage" -name '*atomicwriter*' ! -path "$root")
test -z "$left" || { echo "left behind: $left"; exit 1; }
