--- JSON with its keys in order.
--
-- The well-kept encoders write keys in the order of the hash table, which differs from run to run,
-- and a file that differs is a new version for everyone who watches it. Hence these few lines. What
-- they write is ASCII-safe only as far as the input is: bytes beyond ASCII pass as they are.
-- @module atomicwriter.template.json

local value = require "atomicwriter.template.value"

local format, gsub, rep = string.format, string.gsub, string.rep

local ESCAPE_OF = {
    ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
    ["\t"] = "\\t",
}

local function escape(character)
    return ESCAPE_OF[character] or format("\\u%04x", string.byte(character))
end

local function quote(text)
    return '"' .. gsub(text, '[%c"\\]', escape) .. '"'
end

local encode -- for recursion

-- Join ITEMS between brackets, on lines of their own when STEP is not empty.
local function join(items, open, close, step, depth)
    if #items == 0 then return open .. close end
    if step == "" then return open .. table.concat(items, ",") .. close end
    local inner, outer = "\n" .. rep(step, depth + 1), "\n" .. rep(step, depth)
    return open .. inner .. table.concat(items, "," .. inner) .. outer .. close
end

local function encode_table(map, step, depth, parents)
    if parents[map] then error("a table contains itself", 0) end
    parents[map] = true
    local items = {}
    local is_list = value.is_list(map)
    if is_list then
        for index, item in ipairs(map) do items[index] = encode(item, step, depth + 1, parents) end
    else
        local colon = step == "" and ":" or ": "
        for _, key in ipairs(value.sorted_keys(map)) do
            local text = value.text(key)
            if not text then error("a key is a " .. type(key), 0) end
            items[#items + 1] = quote(text) .. colon .. encode(map[key], step, depth + 1, parents)
        end
    end
    parents[map] = nil
    if is_list then return join(items, "[", "]", step, depth) end
    return join(items, "{", "}", step, depth)
end

function encode(item, step, depth, parents)
    if value.is_null(item) then return "null" end
    local kind = type(item)
    if kind == "string" then return quote(item) end
    if kind == "boolean" then return tostring(item) end
    if kind == "table" then return encode_table(item, step, depth, parents) end
    if kind ~= "number" then error("cannot encode a " .. kind, 0) end
    if item ~= item or item == math.huge or item == -math.huge then
        error("cannot encode a number that is not finite", 0)
    end
    return value.number_text(item)
end

local M = {}

--- A copy of a list that is encoded as one, also when it is empty.
-- @tparam table items
-- @treturn table
function M.list(items)
    local copy = {}
    for index, item in ipairs(items) do copy[index] = item end
    return value.mark_list(copy)
end

--- Encode ITEM. An empty table is an object, unless it is marked as a list. Raises for what JSON
-- cannot hold.
-- @param item
-- @tparam[opt=""] string step indentation of each level; none: everything on one line
-- @treturn string
function M.encode(item, step)
    return encode(item, step or "", 0, {})
end

--- Quote a string as JSON does.
-- @tparam string text
-- @treturn string
M.quote = quote

return M
