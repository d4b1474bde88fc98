--- Reading a target for a command.
-- @module atomicwriter.cli.reading

local gmatch, sub = string.gmatch, string.sub

local M = {}

-- PATH without empty components and ".", as a snapshot lists it; "" is the version itself.
local function clean(path)
    local components = {}
    for component in gmatch(path, "[^/]+") do
        if component ~= "." then components[#components + 1] = component end
    end
    return table.concat(components, "/")
end

--- Call FN with a snapshot of the live version.
-- @tparam string target
-- @tparam table console told of failures
-- @tparam function fn returns true, or nil and an error, or what the console says when it cannot
--  write
-- @treturn number exit code
function M.with_snapshot(target, console, fn)
    local snapshot, err = require("atomicwriter").open(target)
    if not snapshot then return console:fail(err, target) end
    local done, why = fn(snapshot)
    snapshot:close()
    if done then return 0 end
    if type(why) == "table" then return console:fail(why, target) end
    console:error(why)
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
    local about, stat_err = snapshot:stat(path)
    if not about then return nil, stat_err end
    local cleaned = clean(path)
    if cleaned == "" then return all end
    local found = {}
    for _, name in ipairs(all) do
        if name == cleaned or sub(name, 1, #cleaned + 1) == cleaned .. "/" then
            found[#found + 1] = name
        end
    end
    return found
end

return M
