--- What code that is to be pure may call: templates, and data files in Lua.
-- @module atomicwriter.template.pure

local value = require "atomicwriter.template.value"

-- The libraries, less what is not pure: string.dump, math.random, math.randomseed.
local LIBRARIES = { string = string, table = table, math = math }
local IMPURE = { dump = true, random = true, randomseed = true }

-- Like pairs, but always in the same order, so that the same input makes the same output.
local function ordered_pairs(map)
    if type(map) ~= "table" then error("pairs needs a table, got a " .. type(map), 0) end
    local keys, position = value.sorted_keys(map), 0
    return function()
        position = position + 1
        local key = keys[position]
        if key ~= nil then return key, rawget(map, key) end
    end
end

local function text_or_address(item)
    return value.text(item) or tostring(item)
end

local M = {}

--- The names of the libraries among the functions.
M.LIBRARIES = { "string", "table", "math" }

--- A fresh table of functions, and of copies of the libraries.
-- @treturn table
function M.new()
    local functions = {
        ipairs = ipairs, next = next, pairs = ordered_pairs, select = select, type = type,
        tonumber = tonumber, tostring = text_or_address, error = error, assert = assert,
    }
    for _, name in ipairs(M.LIBRARIES) do
        local copy = {}
        for key, item in pairs(LIBRARIES[name]) do
            if not IMPURE[key] then copy[key] = item end
        end
        functions[name] = copy
    end
    functions.table.unpack = table.unpack or unpack -- luacheck: ignore 113 143
    return functions
end

return M
