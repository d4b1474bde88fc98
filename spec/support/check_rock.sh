#!/bin/sh
# check_rock.sh TREE LUA_VERSION: build and install the rock into TREE without
# any network, and load every module from there and from nowhere else.
set -eu
tree=$1 version=$2

rm -rf "$tree"
luarocks lint rockspec/atomicwriter-scm-1.rockspec
luarocks --lua-version="$version" make --tree "$tree" --deps-mode=none \
    rockspec/atomicwriter-scm-1.rockspec

share=$(cd "$tree/share/lua/$version" && pwd)
lib=$(cd "$tree/lib/lua/$version" && pwd)
count=0
for file in $(cd lua && find . -name '*.lua' ! -path './resty/*'); do
    name=$(echo "${file#./}" | sed 's|\.lua$||; s|/init$||; s|/|.|g')
    LUA_PATH="$share/?.lua;$share/?/init.lua" LUA_CPATH="$lib/?.so" \
        "lua$version" -e "require '$name'"
    count=$((count + 1))
done
test $count -gt 0
echo "loaded $count modules from $tree"
