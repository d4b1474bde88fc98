--- Runs the executable `atomicwriter` as a user would.

local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"

local M = {}

-- For LuaJIT the script itself is run by it: what `make` has built is for Lua 5.4.
local function program()
    local root = lfs.currentdir()
    local build = os.getenv("ATOMICWRITER_BUILD") or root .. "/build"
    if not rawget(_G, "jit") then return { build .. "/bin/atomicwriter" } end
    return { "env", "LUA_PATH=" .. root .. "/lua/?.lua;;", "LUA_CPATH=" .. build .. "/luajit/?.so;;",
        sandbox.interpreter(), root .. "/lua/bin/atomicwriter" }
end

--- The words of a command line: words("status", target).
function M.words(...)
    local words = program()
    for _, word in ipairs { ... } do words[#words + 1] = word end
    return words
end

--- Run it and wait: exit status, standard output, standard error.
function M.run(...)
    return sandbox.run(M.words(...))
end

--- Run it in directory DIR, with SETTINGS, "NAME=VALUE", in its environment.
function M.run_in(dir, settings, ...)
    local words = { "env", "-C", dir }
    for _, setting in ipairs(settings) do words[#words + 1] = setting end
    for _, word in ipairs(M.words(...)) do words[#words + 1] = word end
    return sandbox.run(words)
end

--- Start it in the background: a child of `sandbox.spawn`.
function M.spawn(...)
    return sandbox.spawn(M.words(...))
end

return M
