--- Labels and annotations as files, in the format of the Kubernetes downward API.
--
-- One line `key="value"` per key, keys in byte order, no newline after the last line, and an empty
-- map is an empty file. Keys stand raw, values are quoted exactly as Go's `strconv.Quote` does, so
-- the files cannot be told from those that a kubelet writes (`fieldpath.FormatMap`).
-- @module atomicwriter.labels

local failure = require "atomicwriter.failure"
local unicode = require "atomicwriter.unicode"

local byte, char, find, format, match, sub =
    string.byte, string.char, string.find, string.format, string.match, string.sub
local concat, sort = table.concat, table.sort

-- Anything but printable ASCII without the quote and the backslash. ("]" must come first.)
local NEEDS_CARE = "[^]\32\33\35-\91\94-\126]"

local ESCAPE_OF = {
    [0x07] = "\\a", [0x08] = "\\b", [0x09] = "\\t", [0x0a] = "\\n", [0x0b] = "\\v",
    [0x0c] = "\\f", [0x0d] = "\\r", [0x22] = '\\"', [0x5c] = "\\\\",
}

local BYTE_OF_ESCAPE = {
    a = "\a", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", v = "\v",
    ["\\"] = "\\", ['"'] = '"',
}

-- How many hexadecimal digits follow.
local HEX_DIGITS = { x = 2, u = 4, U = 8 }

local function fail(message, line)
    return nil, failure.new { code = "labels", message = message, line = line }
end

local function quote_character(text, position)
    local codepoint, width = unicode.decode(text, position)
    if not codepoint then return format("\\x%02x", byte(text, position)), 1 end
    if ESCAPE_OF[codepoint] then return ESCAPE_OF[codepoint], width end
    -- loaded only now: its tables are large, and most labels are plain ASCII
    if codepoint >= 0x80 and require("atomicwriter.printable").contains(codepoint) then
        return sub(text, position, position + width - 1), width
    end
    if codepoint < 0x80 then return format("\\x%02x", codepoint), width end
    return format(codepoint < 0x10000 and "\\u%04x" or "\\U%08x", codepoint), width
end

local function unquote_escape(text, position)
    local letter = sub(text, position, position)
    if BYTE_OF_ESCAPE[letter] then return BYTE_OF_ESCAPE[letter], position + 1 end

    local digits = HEX_DIGITS[letter]
    if digits then
        local hex = sub(text, position + 1, position + digits)
        if #hex < digits or find(hex, "%X") then
            return nil, format("\\%s needs %d hexadecimal digits", letter, digits)
        end
        local value = tonumber(hex, 16)
        local bytes
        if letter == "x" then bytes = char(value) else bytes = unicode.encode(value) end
        if not bytes then return nil, format("\\%s names no character", letter) end
        return bytes, position + 1 + digits
    end

    local octal = match(text, "^[0-7][0-7][0-7]", position)
    if not octal then return nil, "unknown escape" end
    local value = tonumber(octal, 8)
    if value > 255 then return nil, "an octal escape is at most \\377" end
    return char(value), position + 3
end

local function unquote(text)
    if not find(text, '^".*"$') then return nil, "the value is not in double quotes" end
    local inner = sub(text, 2, -2)
    local out, position = {}, 1
    while true do
        local special = find(inner, '[\\"]', position)
        if not special then break end
        if byte(inner, special) == 0x22 then return nil, "a quote in the value is not escaped" end
        local bytes, next_position = unquote_escape(inner, special + 1)
        if not bytes then return nil, next_position end
        out[#out + 1] = sub(inner, position, special - 1)
        out[#out + 1] = bytes
        position = next_position
    end
    out[#out + 1] = sub(inner, position)
    return concat(out)
end

-- Why KEY cannot stand in the file, or nil when it can.
local function key_fault(key)
    if key == "" then return "the key is empty" end
    if find(key, "=", 1, true) then return "the key contains '='" end
    if find(key, "[\1-\31\127]") or find(key, "\0", 1, true) then
        return "the key contains a control byte"
    end
    return nil
end

local function parse_line(line)
    local equals = find(line, "=", 1, true)
    if not equals then return nil, "no '=' in the line" end
    local key = sub(line, 1, equals - 1)
    local fault = key_fault(key)
    if fault then return nil, fault end
    local value, reason = unquote(sub(line, equals + 1))
    if not value then return nil, reason end
    return key, value
end

local M = {}

--- Quote TEXT as Go's `strconv.Quote` does.
-- @tparam string text any bytes
-- @treturn string in double quotes, always valid UTF-8
function M.quote(text)
    if type(text) ~= "string" then
        error("bad argument #1 to 'quote' (string expected, got " .. type(text) .. ")", 2)
    end
    local out, position = { '"' }, 1
    while true do
        local special = find(text, NEEDS_CARE, position)
        if not special then break end
        local quoted, width = quote_character(text, special)
        out[#out + 1] = sub(text, position, special - 1)
        out[#out + 1] = quoted
        position = special + width
    end
    out[#out + 1] = sub(text, position)
    out[#out + 1] = '"'
    return concat(out)
end

--- Write MAP in the downward-API file format.
-- Raises when MAP is no table of strings.
-- @tparam table map key to value, both strings
-- @treturn[1] string the file's text; empty for an empty map
-- @treturn[2] nil
-- @treturn[2] table error, code `labels`: a key is empty or has a `=`, a newline or a control byte
function M.format(map)
    if type(map) ~= "table" then
        error("bad argument #1 to 'format' (table expected, got " .. type(map) .. ")", 2)
    end
    local keys = {}
    for key, value in pairs(map) do
        if type(key) ~= "string" then error("keys must be strings, got a " .. type(key), 2) end
        if type(value) ~= "string" then
            error(format("the value of %q must be a string, got a %s", key, type(value)), 2)
        end
        local fault = key_fault(key)
        if fault then return fail(fault .. ": " .. M.quote(key)) end
        keys[#keys + 1] = key
    end
    sort(keys)
    for index, key in ipairs(keys) do
        keys[index] = key .. "=" .. M.quote(map[key])
    end
    return concat(keys, "\n")
end

--- Read TEXT in the downward-API file format: what `format` writes, in any order of lines.
-- All of Go's escapes are understood, and one newline after the last line is tolerated. A byte of
-- invalid UTF-8 that stands there unescaped is kept.
-- @tparam string text
-- @treturn[1] table map of key to value
-- @treturn[2] nil
-- @treturn[2] table error, code `labels`, with `line`; it never shows a value
function M.parse(text)
    if type(text) ~= "string" then
        error("bad argument #1 to 'parse' (string expected, got " .. type(text) .. ")", 2)
    end
    local map, line_of = {}, {}
    local number, position = 0, 1
    while position <= #text do
        number = number + 1
        local newline = find(text, "\n", position, true) or #text + 1
        local key, value = parse_line(sub(text, position, newline - 1))
        if not key then return fail(value, number) end
        if line_of[key] then
            local message = "the key %s stands in line %d already"
            return fail(format(message, M.quote(key), line_of[key]), number)
        end
        map[key], line_of[key] = value, number
        position = newline + 1
    end
    return map
end

return M
