--- Reads JSON, with lua-cjson.
-- @module atomicwriter.data.json

local value = require "atomicwriter.template.value"

local find, gsub, match, sub = string.find, string.gsub, string.match, string.sub

-- How cjson calls the parts of a text.
local TOKENS = {
    T_OBJ_BEGIN = "'{'", T_OBJ_END = "'}'", T_ARR_BEGIN = "'['", T_ARR_END = "']'",
    T_STRING = "a string", T_NUMBER = "a number", T_BOOLEAN = "a boolean", T_NULL = "null",
    T_COLON = "':'", T_COMMA = "','", T_END = "the end of the file",
}

-- A number with neither of these is never too much for a double.
local LONG_NUMBER, HUGE_EXPONENT = ("%d"):rep(16), "[eE]%+?%d%d%d"

local function new_decoder()
    local loaded, cjson = require("atomicwriter.optional").load("cjson")
    if not loaded then return nil end
    local decoder = cjson.new()
    decoder.decode_invalid_numbers(false) -- no NaN, no 0x10, no 007
    return decoder
end

local function place_of(text, position)
    local before = sub(text, 1, position - 1)
    local _, newlines = gsub(before, "\n", "")
    local _, characters = gsub(match(before, "[^\n]*$"), "[^\128-\191]", "")
    return newlines + 1, characters + 1
end

-- What cjson says is about tokens and never shows the text.
local function explain(text, message)
    local why, position = match(message, "^(.*) at character (%d+)$")
    if not why then return message end
    why = gsub(gsub(why, "T_[%u_]+", TOKENS), "^Expected", "expected")
    return why, place_of(text, tonumber(position))
end

-- Where the string ends that begins at START.
local function end_of_string(text, start)
    local stop = start
    repeat
        stop = find(text, '["\\]', stop + 1)
        local escaped = sub(text, stop, stop) == "\\"
        if escaped then stop = stop + 1 end
    until not escaped
    return stop
end

-- What stands for the items of an empty list, which cjson could not tell from an empty object. As a
-- key it has a byte that is unlikely in any other.
local NO_ITEMS = "\1no items"

-- TEXT, which is valid, with NO_ITEMS as the only key in an object for each empty list.
local function mark_empty_lists(text)
    local out, kept, position = {}, 1, 1
    while true do
        local start = find(text, '["%[]', position)
        if not start then break end
        if sub(text, start, start) == '"' then
            position = end_of_string(text, start) + 1
        else
            local stop = match(text, "^%[[ \t\r\n]*%]()", start)
            if stop then
                out[#out + 1] = sub(text, kept, start - 1) .. '{"\\u0001no items":0}'
                kept = stop
            end
            position = stop or start + 1
        end
    end
    return table.concat(out) .. sub(text, kept)
end

-- TEXT, which is valid, with each whole number that no double can hold as a string; nil and the
-- position of a number that is too large for anything.
local function quote_long_numbers(text)
    local out, kept, position = {}, 1, 1
    while true do
        local start, stop = find(text, '["%d-][%d.eE+-]*', position)
        if not start then break end
        if sub(text, start, start) == '"' then
            stop = end_of_string(text, start)
        else
            local number = value.exact_number(sub(text, start, stop))
            if number == math.huge or number == -math.huge then return nil, start end
            if type(number) == "string" then
                out[#out + 1] = sub(text, kept, start - 1) .. '"' .. number .. '"'
                kept = stop + 1
            end
        end
        position = stop + 1
    end
    return table.concat(out) .. sub(text, kept)
end

local to_integer = math.tointeger -- luacheck: ignore 143

-- ITEM with its empty lists, and with whole numbers as integers, where Lua has such: cjson makes
-- floats of all, and a float reads 8080.0 when Lua itself makes it part of a string.
local function mend(item)
    if type(item) == "number" then return to_integer and to_integer(item) or item end
    if type(item) ~= "table" then return item end
    if item[NO_ITEMS] then return value.mark_list({}) end
    for key, field in next, item do item[key] = mend(field) end
    return item
end

local M = {}

--- Decode TEXT, which is valid UTF-8.
-- @tparam string text
-- @return[1] the value; null is `cjson.null`
-- @treturn[2] nil
-- @treturn[2] string what is wrong; it shows nothing of the text
-- @treturn[2] ?number line
-- @treturn[2] ?number column, in characters
function M.decode(text)
    local decoder = new_decoder()
    if not decoder then
        return nil, "JSON needs lua-cjson: install lua-cjson (Debian) or lua-cjson (LuaRocks)"
    end
    local nul = find(text, "\0", 1, true) -- for cjson the text would end there
    if nul then return nil, "a NUL byte is not allowed", place_of(text, nul) end
    local ok, item = pcall(decoder.decode, text)
    if not ok then return nil, explain(text, item) end
    local marked = text
    if find(text, LONG_NUMBER) or find(text, HUGE_EXPONENT) then
        local quoted, position = quote_long_numbers(text)
        if not quoted then return nil, "a number is too large", place_of(text, position) end
        marked = quoted
    end
    if find(marked, "%[[ \t\r\n]*%]") then marked = mark_empty_lists(marked) end
    if marked ~= text then item = decoder.decode(marked) end
    return mend(item)
end

return M
