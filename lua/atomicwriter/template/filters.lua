--- The filters of templates. Each takes the value, then its arguments, and returns the new value.
-- They are pure. What a filter cannot take it refuses by name and type, never showing the value.
-- The encoders are loaded when a filter needs them.
-- @module atomicwriter.template.filters

local value = require "atomicwriter.template.value"

local byte, char, find, format, gsub, match, rep, sub =
    string.byte, string.char, string.find, string.format, string.gsub, string.match, string.rep,
    string.sub
local concat, floor = table.concat, math.floor

local function fail(name, message)
    error(format("filter '%s': %s", name, message), 0)
end

local function text_of(name, input, what)
    local text = value.text(input)
    if not text then
        fail(name, format("%s must be a string, got a %s", what or "the value", type(input)))
    end
    return text
end

local function list_of(name, input)
    if type(input) ~= "table" then fail(name, "the value must be a list, got a " .. type(input)) end
    return input
end

local function count_of(name, input, default)
    if input == nil then input = default end
    if type(input) ~= "number" or input < 0 or input % 1 ~= 0 then
        fail(name, "the width must be a whole number")
    end
    return input
end

-- What the encoder of this name makes of the rest. Its message is passed on as the filter's.
local function encode_with(name, ...)
    local encoder = require("atomicwriter.template." .. name)
    local ok, text = pcall(encoder.encode, ...)
    if not ok then fail(name, tostring(text)) end
    return text
end

-- Base64 ----------------------------------------------------------------------------------------

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
local DIGIT_AT, VALUE_OF = {}, {}
for index = 0, 63 do
    local digit = sub(ALPHABET, index + 1, index + 1)
    DIGIT_AT[index], VALUE_OF[digit] = digit, index
end

local function encode_group(group)
    local first, second, third = byte(group, 1, 3)
    local bits = first * 65536 + (second or 0) * 256 + (third or 0)
    return DIGIT_AT[floor(bits / 262144)]
        .. DIGIT_AT[floor(bits / 4096) % 64]
        .. (second and DIGIT_AT[floor(bits / 64) % 64] or "=")
        .. (third and DIGIT_AT[bits % 64] or "=")
end

local function decode_group(group)
    local bits = 0
    for index = 1, 4 do bits = bits * 64 + (VALUE_OF[sub(group, index, index)] or 0) end
    local bytes = char(floor(bits / 65536), floor(bits / 256) % 256, bits % 256)
    local _, padding = gsub(group, "=", "")
    return sub(bytes, 1, 3 - padding)
end

-- Lines -----------------------------------------------------------------------------------------

local function indent(name, input, width)
    local pad = rep(" ", count_of(name, width, 4))
    return (gsub(text_of(name, input), "[^\n]+", function(line) return pad .. line end))
end

local M = {}

--- Stand in for a value that is undefined or null; with ALSO_EMPTY, also for "" and false.
function M.default(input, substitute, also_empty)
    if value.is_null(input) or also_empty and (input == "" or input == false) then
        return substitute
    end
    return input
end

--- Refuse a value that is undefined, null or an empty string, with MESSAGE.
function M.required(input, message)
    if value.is_null(input) or input == "" then
        if message == nil then message = "a required value is missing" end
        error(text_of("required", message, "the message"), 0)
    end
    return input
end

function M.upper(input) return string.upper(text_of("upper", input)) end

function M.lower(input) return string.lower(text_of("lower", input)) end

--- Drop white space at both ends.
function M.trim(input) return match(text_of("trim", input), "^%s*(.-)%s*$") end

--- Put WIDTH (4) spaces before every line that is not empty.
function M.indent(input, width) return indent("indent", input, width) end

--- The same after a line break, for a block below a YAML key: `key: {{ value | nindent(2) }}`.
function M.nindent(input, width) return "\n" .. indent("nindent", input, width) end

--- Join a list with SEPARATOR (",").
function M.join(input, separator)
    local texts = {}
    for index, item in ipairs(list_of("join", input)) do
        texts[index] = text_of("join", item, "each item")
    end
    return concat(texts, text_of("join", separator == nil and "," or separator, "the separator"))
end

--- Split at each SEPARATOR, which is no pattern; without one, at white space.
function M.split(input, separator)
    local text, parts = text_of("split", input), {}
    if separator == nil then
        for word in string.gmatch(text, "%S+") do parts[#parts + 1] = word end
        return parts
    end
    separator = text_of("split", separator, "the separator")
    if separator == "" then fail("split", "the separator is empty") end
    local position = 1
    while true do
        local start, stop = find(text, separator, position, true)
        parts[#parts + 1] = sub(text, position, (start or #text + 1) - 1)
        if not start then return parts end
        position = stop + 1
    end
end

--- Replace each OLD, which is no pattern, by NEW.
function M.replace(input, old, new)
    local parts = M.split(text_of("replace", input), text_of("replace", old, "what to replace"))
    return concat(parts, text_of("replace", new, "the replacement"))
end

--- In double quotes, escaped as JSON, which YAML and TOML read too.
function M.quote(input)
    return require("atomicwriter.template.json").quote(text_of("quote", input))
end

--- In single quotes, each single quote doubled, as in YAML and SQL.
function M.squote(input) return "'" .. gsub(text_of("squote", input), "'", "''") .. "'" end

--- As one word of a POSIX shell; a list becomes as many words.
function M.shell(input)
    if type(input) == "table" then
        local words = {}
        for index, item in ipairs(input) do words[index] = M.shell(item) end
        return concat(words, " ")
    end
    local text = text_of("shell", input)
    if find(text, "\0", 1, true) then fail("shell", "the value contains a NUL byte") end
    return "'" .. gsub(text, "'", "'\\''") .. "'"
end

--- JSON with sorted keys, on one line, or on several with INDENT spaces a level. An empty table is
-- an object.
function M.json(input, indent_width)
    return encode_with("json", input, rep(" ", count_of("json", indent_width, 0)))
end

--- YAML with sorted keys, without document markers. Needs the package lyaml.
function M.yaml(input) return encode_with("yaml", input) end

function M.base64(input)
    return (gsub(text_of("base64", input), "..?.?", encode_group))
end

--- Decode base64; line breaks are ignored, and nothing else that does not belong there.
function M.base64decode(input)
    local text = gsub(text_of("base64decode", input), "[\r\n]", "")
    if #text % 4 ~= 0 or not find(text, "^[%w+/]*=?=?$") then
        fail("base64decode", "the value is not valid base64")
    end
    return (gsub(text, "....", decode_group))
end

local HTML = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&#34;", ["'"] = "&#39;" }

function M.html(input) return (gsub(text_of("html", input), "[&<>\"']", HTML)) end

--- Percent-encode everything but RFC 3986's unreserved characters.
function M.urlencode(input)
    return (gsub(text_of("urlencode", input), "[^%w._~-]", function(character)
        return format("%%%02X", byte(character))
    end))
end

--- As POSIX basename.
function M.basename(input)
    local text = text_of("basename", input)
    if find(text, "^/+$") then return "/" end
    return match(gsub(text, "/+$", ""), "[^/]*$")
end

--- As POSIX dirname.
function M.dirname(input)
    local text = gsub(text_of("dirname", input), "(.)/+$", "%1")
    local directory = match(text, "^(.*)/[^/]*$")
    if not directory then return "." end
    directory = gsub(directory, "/+$", "")
    return directory == "" and "/" or directory
end

--- A sorted copy of a list: numbers, then strings by bytes; of tables, by their field KEY.
function M.sort(input, key)
    local copy = {}
    for index, item in ipairs(list_of("sort", input)) do copy[index] = item end
    local function sort_key(item)
        if key == nil then return item end
        if type(item) ~= "table" then fail("sort", "an item without fields, to sort by a field") end
        return rawget(item, key)
    end
    table.sort(copy, function(a, b) return value.less(sort_key(a), sort_key(b)) end)
    return copy
end

--- The keys of a table, sorted.
function M.keys(input) return value.sorted_keys(list_of("keys", input)) end

--- The lines of a text as a list, without line ends.
function M.lines(input)
    local text, lines = text_of("lines", input), {}
    if text ~= "" and sub(text, -1) ~= "\n" then text = text .. "\n" end
    for line in string.gmatch(text, "(.-)\r?\n") do lines[#lines + 1] = line end
    return lines
end

return M
