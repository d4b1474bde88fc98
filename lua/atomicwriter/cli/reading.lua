--- Reading a target for a command.
-- @module atomicwriter.cli.reading

local failure = require "atomicwriter.failure"

local format, sub = string.format, string.sub

local M = {}

--- Call FN with a snapshot of the live version.
-- @tparam string target
-- @tparam table console told of failures
-- @tparam function fn returns true, or nil and an error or the reason why standard output failed
-- @treturn number exit code
function M.with_snapshot(target, console, fn)
    local snapshot, err = require("atomicwriter").open(target)
    if not snapshot then return console:fail(err, target) end
    local done, why = fn(snapshot)
    snapshot:close()
    if done then return 0 end
    if type(why) == "table" then return console:fail(why, target) end
    console:error("cannot write to standard output: " .. why)
    return 1
end

--- The files at or below PATH.
-- @tparam table snapshot
-- @tparam ?string path nil: all
-- @treturn[1] {string,...}
-- @treturn[2] nil
-- @treturn[2] table error, code `not_found` when there is none
function M.paths(snapshot, path)
    local all, err = snapshot:paths()
    if not all or not path then return all, err end
    local prefix = path:gsub("/+$", "") .. "/"
    local found = {}
    for _, name in ipairs(all) do
        if name == path or sub(name, 1, #prefix) == prefix then found[#found + 1] = name end
    end
    if #found > 0 then return found end
    local about, stat_err = snapshot:stat(path)
    if about then return found end -- an empty directory
    return nil, stat_err or failure.new {
        code = "not_found", message = format("%s: no such file", path), path = path,
    }
end

return M
