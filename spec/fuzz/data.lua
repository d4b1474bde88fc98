--- Data files. The first line is the name of the file, its suffix in particular; what follows is
-- what it says.
--
-- Loading ends, or fails with a line of the file and shows nothing of it, wherever in it a secret
-- stands. What JSON or YAML has said can be written by the filter of that name, and is read from
-- that as the same.

local data = require "atomicwriter.data"
local filters = require "atomicwriter.template.filters"
local input = require "atomicwriter.input"
local value = require "atomicwriter.template.value"
local require_ = require "spec.fuzz.require"

local that = require_.that

local INSTRUCTIONS = 2000 * 1000

-- For which counting instructions is too late.
local SLOW = { "find", "match", "gsub", "move", "rep", "concat" }

-- Where cjson and libyaml name no place.
local NO_LINE = {
    ["JSON parser does not support UTF-16 or UTF-32"] = true,
    ["found incompatible YAML document"] = true,
    ["found duplicate %YAML directive"] = true, ["found duplicate %TAG directive"] = true,
    ["found undefined tag handle"] = true,
}

local function load_text(name, text, limit)
    local read = input.read
    input.read = function() return text end
    limit(INSTRUCTIONS)
    local ok, item, err = pcall(data.load, name)
    limit(100 * INSTRUCTIONS)
    input.read = read
    if not ok then
        that(tostring(item):find("too long", 1, true), "loading raises %s", tostring(item))
        return nil
    end
    return item, err
end

local function check_failure(err, name, text)
    that(err.path == name, "path %s", tostring(err.path))
    local is_script = name:find("lua$")
    if is_script and not err.line then return end
    if not name:find("env$") then text = text:gsub("\r", "\n") end -- which ends a line for others
    if name:find("ya?ml$") then -- for libyaml, so do others, and a file ends on a new line
        text = text:gsub("\194\133", "\n"):gsub("\226\128[\168\169]", "\n") .. "\n"
    end
    require_.failure(err, name:find("env$") and "env" or "data", text, NO_LINE)
end

-- Where the text has room for it: after a third of it.
local function check_secrets(name, text, limit)
    if name:find("lua$") and (text:find "error" or text:find "assert") then return end
    local middle = math.floor(#text / 3)
    for _, place in ipairs { middle, 0, #text } do
        local _, err = load_text(name,
            text:sub(1, place) .. require_.SECRET .. text:sub(place + 1), limit)
        if err and err.code then require_.discreet(err) end
    end
end

local WRITERS = { json = filters.json, yaml = filters.yaml, yml = filters.yaml }

-- ITEM with its large numbers as text: a whole one is read as a string of its digits, so that 1e17
-- comes back as such.
local function normal(item)
    if type(item) == "number" and math.abs(item) >= 2 ^ 53 then return value.number_text(item) end
    if type(item) ~= "table" or value.is_null(item) then return item end
    local copy = {}
    for key, field in pairs(item) do copy[normal(key)] = normal(field) end
    return copy
end

local function check_again(name, item, limit)
    local suffix = name:match("%w+$")
    limit(INSTRUCTIONS)
    local ok, text = pcall(WRITERS[suffix], item)
    limit(100 * INSTRUCTIONS)
    if not ok then return end -- an alias that is written out too often, a number that JSON has not
    local again, err = load_text(name, text .. "\n", limit) -- which no filter adds
    that(again ~= nil or err == nil, "%q: %s", text, tostring(err))
    if again ~= nil then require_.same(normal(again), normal(item)) end
end

-- Whether the script is one that counting instructions does not bound.
local function is_slow(text)
    for _, word in ipairs(SLOW) do
        if text:find(word, 1, true) then return true end
    end
    return false
end

return function(bytes, limit)
    local suffix, text = bytes:match("^(%l+)\n(.*)$")
    local name = "file." .. (suffix or "json")
    text = text or bytes
    if suffix == "lua" and is_slow(text) then return end
    local item, err = load_text(name, text, limit)
    if item ~= nil and WRITERS[suffix or "json"] then check_again(name, item, limit) end
    if item == nil and err then
        if suffix and not WRITERS[suffix] and suffix ~= "lua" and suffix ~= "env" then
            return that(err.code == "data", "%s", tostring(err))
        end
        check_failure(err, name, text)
    end
    check_secrets(name, text, limit)
end
