--- Env files and patterns of names. The bytes are an env file; and a pattern, in the first line,
-- with the names to match below it.
--
-- Both agree with oracles: kubectl's rules written down line by line, and a matcher that tries all
-- ways. Errors name the line and never show a value.

local env = require "atomicwriter.env"
local unicode = require "atomicwriter.unicode"
local require_ = require "spec.fuzz.require"

local that = require_.that

-- Go's unicode.IsSpace.
local SPACES = { " ", "\t", "\n", "\v", "\f", "\r" }
for _, codepoint in ipairs {
    0x85, 0xa0, 0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
    0x2009, 0x200a, 0x2028, 0x2029, 0x202f, 0x205f, 0x3000,
} do
    SPACES[#SPACES + 1] = unicode.encode(codepoint)
end

local function getenv(name)
    if #name % 2 == 0 then return "from " .. name end
    return nil
end

local function trimmed(line)
    for _, space in ipairs(SPACES) do
        if line:sub(1, #space) == space then return trimmed(line:sub(#space + 1)) end
    end
    return line
end

local function is_name(name)
    if name == "" or name == "." or name:sub(1, 2) == ".." or name:find("^[0-9]") then
        return false
    end
    return not name:find("[^-._a-zA-Z0-9]")
end

-- The map and the names in order; or nil and the number of the first bad line.
local function read(text)
    local map, order, number = {}, {}, 0
    if text:sub(1, 3) == "\239\187\191" then text = text:sub(4) end
    if text:sub(-1) == "\n" then text = text:sub(1, -2) end
    for line in (text .. "\n"):gmatch("([^\n]*)\n") do
        number = number + 1
        if line:sub(-1) == "\r" then line = line:sub(1, -2) end
        if not unicode.is_valid(line) then return nil, number end
        line = trimmed(line)
        if line ~= "" and line:sub(1, 1) ~= "#" then
            local name, value = line:match("^([^=]*)=(.*)$")
            if not name then name, value = line, getenv(line) or "" end
            if not is_name(name) or map[name] then return nil, number end
            map[name] = value
            order[#order + 1] = name
        end
    end
    return map, order
end

local function check_parse(text)
    local map, order = env.parse(text, { getenv = getenv })
    local wanted, wanted_order = read(text)
    if map then
        that(wanted, "line %s is accepted", tostring(wanted_order))
        require_.same(map, wanted)
        return require_.same(order, wanted_order)
    end
    require_.failure(order, "env", text)
    that(not wanted and order.line == wanted_order, "line %d is refused, not %s", order.line,
        tostring(wanted_order))
end

local function check_secrets(text)
    local secret = text:gsub("([^=\n]*)=", "%1=" .. require_.SECRET)
    local _, err = env.parse(secret, { getenv = getenv })
    if err and err.code then require_.discreet(err) end
end

-- Patterns --------------------------------------------------------------------------------------

-- Whether the class that begins after the "[" at POSITION has BYTE in it, and where it ends; nil
-- when it is never closed. A "]" that comes first is a member.
local function class_at(glob, position, byte)
    local index, negated, found = position + 1, false, false
    if glob:find("^[!^]", index) then index, negated = index + 1, true end
    local close = glob:find("]", index + 1, true)
    if not close then return nil end
    while index < close do
        local low, high = glob:byte(index), glob:byte(index)
        if glob:sub(index + 1, index + 1) == "-" and index + 2 < close then
            high = glob:byte(index + 2)
            index = index + 2
        end
        found = found or (low <= byte and byte <= high)
        index = index + 1
    end
    return found ~= negated, close
end

local function matches(glob, at, name, from)
    if at > #glob then return from > #name end
    local character = glob:sub(at, at)
    if character == "*" then
        for stop = from, #name + 1 do
            if matches(glob, at + 1, name, stop) then return true end
        end
        return false
    end
    -- Whether a class closes does not depend on the byte, so that any will do at the end.
    local inside, close
    if character == "[" then inside, close = class_at(glob, at, name:byte(from) or 0) end
    if from > #name then return false end
    if close then return inside and matches(glob, close + 1, name, from + 1) end
    if character == "\\" and at < #glob then
        at = at + 1
        character = glob:sub(at, at)
    elseif character == "?" then
        character = name:sub(from, from)
    end
    return character == name:sub(from, from) and matches(glob, at + 1, name, from + 1)
end

local STARS_MAX, NAME_MAX = 4, 40 -- each star costs a power of the length

local function check_match(text)
    local glob, rest = text:match("^([^\n]*)\n?(.*)$")
    local _, stars = glob:gsub("%*", "")
    if stars > STARS_MAX or glob:find("%z") then return end
    local names = { [glob:sub(1, NAME_MAX)] = "" }
    for name in rest:gmatch("[^\n%z]+") do names[name:sub(1, NAME_MAX)] = "" end
    local found = env.match(glob, { environ = function() return names end })
    for name in pairs(names) do
        that((found[name] ~= nil) == matches(glob, 1, name, 1), "%q and %q", glob, name)
    end
end

return function(bytes)
    check_parse(bytes)
    check_secrets(bytes)
    check_match(bytes)
end
