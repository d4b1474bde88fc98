--- What runs in a worker thread: one call of a writer.
--
-- A worker thread has a Lua state of its own, with neither `ngx` nor anything of the worker's.
-- Arguments and results are copied, tables without their metatables, and functions not at
-- all; so a check goes by name, and an error is a plain table on its way.
-- @module resty.atomicwriter.thread

local atomicwriter = require "atomicwriter"
local turns = require "resty.atomicwriter.turns"

local M = {}

local ACTIONS = {}

function ACTIONS.write(writer, call)
    return writer:write(call.payload, { check = call.check })
end

function ACTIONS.plan(writer, call)
    return writer:plan(call.payload)
end

function ACTIONS.rollback(writer, call)
    return writer:rollback(call.version, { check = call.check, expect = call.expect })
end

function ACTIONS.versions(writer)
    return writer:versions()
end

-- The function that "MODULE" is or "MODULE:NAME" has.
local function find_check(name)
    local module, field = name:match("^([^:]+):?(.*)$")
    local found = module and require(module)
    if field ~= "" and type(found) == "table" then found = found[field] end
    if type(found) ~= "function" then
        error("option 'check': " .. name .. " is no function of a module", 0)
    end
    return found
end

local function perform(writer, action, call)
    if call.check then call.check = find_check(call.check) end
    return ACTIONS[action](writer, call)
end

-- The fields of an error of the core.
local function fields_of(err)
    local fields = {}
    for key, value in pairs(err) do fields[key] = value end
    return fields
end

--- Do ACTION on TARGET with a writer that is closed again.
-- @tparam string target
-- @tparam table options of `atomicwriter.new`
-- @tparam string action `"write"`, `"plan"`, `"rollback"` or `"versions"`
-- @tparam table call its arguments, by name
-- @treturn[1] string `"done"`
-- @treturn[1] table the result
-- @treturn[2] string `"failed"`
-- @treturn[2] table the fields of the error
-- @treturn[3] string `"misuse"`
-- @treturn[3] string the message
function M.run(target, options, action, call)
    local made, writer, err = pcall(atomicwriter.new, target, options)
    if not made then return "misuse", tostring(writer) end
    if not writer then return "failed", fields_of(err) end
    local ran, result, why = pcall(perform, writer, action, call)
    writer:close()
    if not ran then return "misuse", tostring(result) end
    if not result then return "failed", fields_of(why) end
    return "done", result
end

--- As `run`, in a thread beside a worker's, which goes first.
-- @tparam ?boolean ours whether this is a thread of a pool for nothing but this; nil: nobody goes
--  first
-- @param ... as of `run`
function M.run_beside(ours, ...)
    if ours == nil then return M.run(...) end
    return turns.last(ours, M.run, ...)
end

return M
