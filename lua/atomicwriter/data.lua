--- Data files for templates: JSON, YAML, env files, Lua.
--
-- What a file says arrives as plain tables, strings, numbers and booleans. The nulls of JSON and
-- YAML are undefined for a template. A whole number of 2^53 or more arrives as a string of its
-- digits, since a number might not hold it. JSON and YAML may be nested 1000 deep.
--
-- - `.json`: of two equal keys the last one counts.
-- - `.yaml`, `.yml`: YAML 1.1, in a single document; equal keys are an error, tags of one's own
--   are passed over, `12:30` is a string, and so are `yes` and `on` when they are keys.
-- - `.env`: as `atomicwriter.env.parse` reads it.
-- - `.lua`: a script that returns a table. It has the pure functions that templates have.
--
-- @module atomicwriter.data

local failure = require "atomicwriter.failure"
local input = require "atomicwriter.input"
local unicode = require "atomicwriter.unicode"
local value = require "atomicwriter.template.value"

local find, format, gmatch, lower, match, sub =
    string.find, string.format, string.gmatch, string.lower, string.match, string.sub

local BOM = "\239\187\191"

-- Modules that decode, by the suffix of the file.
local DECODERS = {
    json = "atomicwriter.data.json", yaml = "atomicwriter.data.yaml",
    yml = "atomicwriter.data.yaml", lua = "atomicwriter.data.script",
}

local function check_type(item, wanted, position, name)
    if type(item) ~= wanted then
        error(format("bad argument #%d to '%s' (%s expected, got %s)",
            position, name, wanted, type(item)), 3)
    end
end

local function fail(path, message, line, column)
    if column then message = format("column %d: %s", column, message) end
    return nil, failure.new {
        code = "data", message = message, path = path, line = line, column = column,
    }
end

local function first_invalid_line(text)
    local number = 0
    for line in gmatch(text, "[^\n]*\n?") do
        number = number + 1
        if not unicode.is_valid(line) then return number end
    end
end

local M = {}

--- Read a data file. Its suffix says how.
-- The file is read through `atomicwriter.input`, so observers learn of it.
-- @tparam string path
-- @return[1] what it says, usually a table
-- @treturn[2] nil
-- @treturn[2] table error: code `data` or `env` with `line` and perhaps `column`, or `io`. It shows
-- nothing of the file's contents but what a script says itself in `error`
function M.load(path)
    check_type(path, "string", 1, "load")
    local suffix = lower(match(path, "%.([^./]+)$") or "")
    if not DECODERS[suffix] and suffix ~= "env" then
        return fail(path, "a data file must end in .json, .yaml, .yml, .env or .lua")
    end
    local text, message, errno = input.read(path)
    if not text then return nil, input.failure(path, message, errno) end
    if suffix == "env" then return require("atomicwriter.env").parse(text, { name = path }) end
    if sub(text, 1, #BOM) == BOM then text = sub(text, #BOM + 1) end
    if suffix ~= "lua" and not unicode.is_valid(text) then
        return fail(path, "invalid UTF-8", first_invalid_line(text))
    end
    local item, fault, line, column = require(DECODERS[suffix]).decode(text)
    if item == nil then return fail(path, fault, line, column) end
    return item
end

-- The key that COMPONENT stands for: a number only for an item that is there.
local function key_of(map, component)
    local number = tonumber(component)
    if map[component] == nil and number and map[number] ~= nil then return number end
    return component
end

--- Set a value by its dotted name, making tables on the way. A number finds an item of a list.
-- @tparam table map changed in place
-- @tparam string name such as `server.port`
-- @param item
-- @treturn[1] boolean true
-- @treturn[2] nil MAP is as it was
-- @treturn[2] string why not
function M.set(map, name, item)
    check_type(map, "table", 1, "set")
    check_type(name, "string", 2, "set")
    if find("." .. name .. ".", "..", 1, true) then
        return nil, format("the name '%s' has an empty component", name)
    end
    local parent, last = match(name, "^(.*)%.([^.]*)$")
    local current, position = map, 0
    for component in gmatch(parent or "", "[^.]+") do
        position = position + #component + 1
        local key = key_of(current, component)
        if value.is_null(current[key]) then current[key] = {} end
        current = current[key]
        if type(current) ~= "table" then
            return nil, format("%s is a %s, not a table", sub(name, 1, position - 1), type(current))
        end
    end
    last = last or name
    current[key_of(current, last)] = item
    return true
end

return M
