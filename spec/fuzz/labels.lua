--- Labels files. The bytes are such a file; and a text to quote; and, split at NUL bytes, the keys
-- and values of a map.
--
-- What parses can be written, and parses to the same again; what can be written parses to what it
-- was, one line a key, in byte order; a value that is quoted is printable and comes back. Errors
-- name a line and never show a value.

local labels = require "atomicwriter.labels"
local unicode = require "atomicwriter.unicode"
local require_ = require "spec.fuzz.require"

local that = require_.that

local function check_parse(text)
    local map, err = labels.parse(text)
    if not map then return require_.failure(err, "labels", text) end
    local written = labels.format(map)
    that(written, "what parses cannot be written")
    require_.same(labels.parse(written), map)
end

-- The key ends at the first "=", so that this is always within a value.
local function check_secrets(text)
    local _, err = labels.parse((text:gsub("=", '="' .. require_.SECRET, 1)))
    require_.discreet(err)
    _, err = labels.parse((text:gsub('="', '="' .. require_.SECRET)))
    require_.discreet(err)
end

local function check_quote(text)
    local quoted = labels.quote(text)
    that(quoted:find('^".*"$') and not quoted:find("[%z\1-\31\127]"), "bytes in %q", quoted)
    that(unicode.is_valid(quoted), "invalid UTF-8 in %q", quoted)
    local map = labels.parse("k=" .. quoted)
    that(map and map.k == text, "%q is quoted as %s", text, quoted)
end

local function is_key(key)
    return key ~= "" and not key:find("[=%z\1-\31\127]")
end

local function check_format(text)
    local map, good, keys = {}, true, {}
    for key, value in (text .. "\0"):gmatch("(%Z*)%z(%Z*)") do
        if map[key] == nil then keys[#keys + 1] = key end
        map[key] = value
        good = good and is_key(key)
    end
    local written, err = labels.format(map)
    that((written ~= nil) == good, "format: %s", tostring(err))
    if not good then return end
    require_.same(labels.parse(written), map)
    table.sort(keys)
    local number = 0
    for line in written:gmatch("[^\n]+") do
        number = number + 1
        that(line:sub(1, #keys[number] + 2) == keys[number] .. '="', "line %d: %s", number, line)
    end
    that(number == #keys and written:sub(-1) ~= "\n", "%d lines", number)
end

return function(bytes)
    check_parse(bytes)
    check_secrets(bytes)
    check_quote(bytes)
    check_format(bytes)
end
