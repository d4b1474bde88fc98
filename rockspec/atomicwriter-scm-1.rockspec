rockspec_format = "3.0"
package = "atomicwriter"
version = "scm-1"
source = {
    url = "file://.", -- build with `luarocks make` in a checkout
}
description = {
    summary = "Project a set of files into a directory, all or nothing",
    detailed = [[
        Writes a payload (path -> data, mode, owner) into a directory so that every
        reader sees either the whole old set of files or the whole new one, and the
        change survives a power cut. Uses the layout of Kubernetes' ConfigMap and
        Secret volumes.
    ]],
    license = "MIT",
    labels = { "filesystem", "linux" },
}
supported_platforms = { "linux" }
dependencies = {
    "lua >= 5.1, < 5.5",
}
-- The Makefile knows the files; GNU make is needed anyway for the C library.
build = {
    type = "make",
    build_target = "modules",
    install_target = "install-lua",
    variables = {
        BUILD = "build/luarocks",
        LUA = "$(LUA)",
        LUA_INCDIR = "$(LUA_INCDIR)",
        INST_LUADIR = "$(LUADIR)",
        INST_LIBDIR = "$(LIBDIR)",
        INST_BINDIR = "$(BINDIR)",
        CFLAGS = "$(CFLAGS)",
    },
}
