--- Runs the executable `atomicwriter` as a user would.

local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"

local M = {}

-- For LuaJIT the script itself is run by it: what `make` has built is for Lua 5.4.
local function program()
    local root = lfs.currentdir()
    local build = os.getenv("ATOMICWRITER_BUILD") or root .. "/build"
    if not rawget(_G, "jit") then return { build .. "/bin/atomicwriter" } end
    return {
        "env", "LUA_PATH=" .. root .. "/lua/?.lua;;", "LUA_CPATH=" .. build .. "/luajit/?.so;;",
        sandbox.interpreter(), root .. "/lua/bin/atomicwriter",
    }
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

local function describe(words, status, stdout, stderr)
    return ("%s\nexit status %s\nstdout: %s\nstderr: %s"):format(
        table.concat(words, " "), status, stdout, stderr)
end

--- Run it; it has to succeed and say nothing on standard error: what it printed.
function M.must(...)
    local status, stdout, stderr = M.run(...)
    if status ~= 0 or stderr ~= "" then error(describe({ ... }, status, stdout, stderr), 2) end
    return stdout
end

--- Run it; it has to end with exit status WANTED, print nothing, and say why in one line: that
-- line, without the newline.
function M.fails(wanted, ...)
    local status, stdout, stderr = M.run(...)
    if status ~= wanted or stdout ~= "" or not stderr:find("^atomicwriter: [^\n]+\n$") then
        error(describe({ ... }, status, stdout, stderr), 2)
    end
    return (stderr:gsub("\n$", ""))
end

--- The setting for `run_in` that makes `require NAME` fail, as where NAME is not installed.
function M.without(name)
    return ("LUA_INIT=package.preload['%s'] = function() error('not installed', 0) end")
        :format(name)
end

--- Start it in the background: a child of `sandbox.spawn`.
function M.spawn(...)
    return sandbox.spawn(M.words(...))
end

return M
