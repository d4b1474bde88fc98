--- The process environment, and env files as `kubectl create configmap --from-env-file` reads them.
-- @module atomicwriter.env

local failure = require "atomicwriter.failure"
local unicode = require "atomicwriter.unicode"

local byte, char, find, format, gmatch, gsub, match, sub =
    string.byte, string.char, string.find, string.format, string.gmatch, string.gsub,
    string.match, string.sub

local BOM = "\239\187\191"

-- White space beyond ASCII, as Go's unicode.IsSpace has it.
local WIDE_SPACES = {
    ["\194\133"] = true, ["\194\160"] = true, ["\225\154\128"] = true, ["\226\128\168"] = true,
    ["\226\128\169"] = true, ["\226\128\175"] = true, ["\226\129\159"] = true,
    ["\227\128\128"] = true,
}
for codepoint = 0x2000, 0x200a do WIDE_SPACES[unicode.encode(codepoint)] = true end

local function fail(message, line, path)
    return nil, failure.new { code = "env", message = message, line = line, path = path }
end

local function check_type(value, wanted, position, name)
    if type(value) ~= wanted then
        error(format("bad argument #%d to '%s' (%s expected, got %s)",
            position, name, wanted, type(value)), 3)
    end
end

-- Env files -----------------------------------------------------------------------------------

local function trim_left(line)
    local position = 1
    while true do
        position = find(line, "[^ \t\n\v\f\r]", position)
        if not position then return "" end
        if byte(line, position) < 0x80 then break end
        local _, width = unicode.decode(line, position)
        if not WIDE_SPACES[sub(line, position, position + width - 1)] then break end
        position = position + width
    end
    return sub(line, position)
end

-- Why KEY is no name, or nil when it is one. KEY is never shown: a line that got here by mistake
-- may be part of a secret.
local function key_fault(key)
    if key == "" then return "the name is empty" end
    if not find(key, "^[-._a-zA-Z][-._a-zA-Z0-9]*$") then
        return "not a valid name (it must match [-._a-zA-Z][-._a-zA-Z0-9]*)"
    end
    if key == "." then return "the name must not be '.'" end
    if sub(key, 1, 2) == ".." then return "the name must not be or start with '..'" end
    return nil
end

-- Key and value of LINE; nothing for a line that says nothing; nil and the reason for a bad one.
local function parse_line(line, getenv)
    if not unicode.is_valid(line) then return nil, "invalid UTF-8" end
    line = trim_left(line)
    if line == "" or byte(line) == 0x23 then return false end
    local equals = find(line, "=", 1, true)
    local key = equals and sub(line, 1, equals - 1) or line
    local fault = key_fault(key)
    if fault then return nil, fault end
    if equals then return key, sub(line, equals + 1) end
    return key, getenv(key) or ""
end

-- Patterns ------------------------------------------------------------------------------------

local function escape(character)
    return (gsub(character, "%p", "%%%0"))
end

-- The Lua class for what stands between the brackets of a glob; ranges are written out, since Lua
-- leaves a range that ends in punctuation undefined.
local function class_of(body)
    local negated, members = match(body, "^([!^]?)(.*)$")
    local out, index = {}, 1
    while index <= #members do
        local first = byte(members, index)
        local last = match(members, "^%-(.)", index + 1)
        if last then
            for code = first, byte(last) do out[#out + 1] = escape(char(code)) end
            index = index + 3
        else
            out[#out + 1] = escape(char(first))
            index = index + 1
        end
    end
    if #out == 0 then return negated == "" and "[^%z\1-\255]" or "." end -- of "[z-a]"
    return "[" .. (negated == "" and "" or "^") .. table.concat(out) .. "]"
end

-- What is between the brackets that begin at INDEX, and the index after them; nil for a "[" that is
-- never closed, which stands for itself. A "]" that comes first is a member.
local function class_at(glob, index)
    local first = match(glob, "^%[[!^]?()", index)
    local close = first and find(glob, "]", first + 1, true)
    if close then return sub(glob, index + 1, close - 1), close + 1 end
end

local function glob_to_pattern(glob)
    local out, index = { "^" }, 1
    while index <= #glob do
        local character = sub(glob, index, index)
        local body, stop = class_at(glob, index)
        if character == "*" then
            if out[#out] ~= ".*" then out[#out + 1] = ".*" end
        elseif character == "?" then
            out[#out + 1] = "."
        elseif body then
            out[#out + 1] = class_of(body)
            index = stop - 1
        elseif character == "\\" and index < #glob then
            index = index + 1
            out[#out + 1] = escape(sub(glob, index, index))
        else
            out[#out + 1] = escape(character)
        end
        index = index + 1
    end
    out[#out + 1] = "$"
    return table.concat(out)
end

-- The process environment ---------------------------------------------------------------------

local function read_environ_file()
    local file = io.open("/proc/self/environ", "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    if not text then return nil end
    local map = {}
    for name, value in gmatch(text, "([^%z=]+)=(%Z*)") do
        if map[name] == nil then map[name] = value end -- getenv finds the first
    end
    return map
end

local M = {}

--- The process environment as a map.
-- The core knows it as it is now; without the core it is what the process was started with.
-- @treturn[1] table map of name to value
-- @treturn[2] nil
-- @treturn[2] table error, code `env`
function M.environ()
    local loaded, core = require("atomicwriter.optional").load("atomicwriter.core")
    if loaded and type(core) == "table" and core.environ then return core.environ() end
    local map = read_environ_file()
    if map then return map end
    return fail("cannot list the environment without atomicwriter.core or /proc/self/environ")
end

--- The variables of the process environment whose names match PATTERN.
-- @tparam string pattern for the whole name, as a shell's: `*`, `?`, `[a-z]`, `[!a-z]`, `\` quotes
-- @tparam[opt] table opts `environ`: a function in place of `env.environ`
-- @treturn[1] table map of name to value, empty when nothing matches
-- @treturn[2] nil
-- @treturn[2] table error, code `env`
function M.match(pattern, opts)
    check_type(pattern, "string", 1, "match")
    local map, err = (opts and opts.environ or M.environ)()
    if not map then return nil, err end
    local lua_pattern = glob_to_pattern(pattern)
    local found = {}
    for name, value in pairs(map) do
        if find(name, lua_pattern) then found[name] = value end
    end
    return found
end

--- Read the text of an env file by kubectl's rules.
-- Lines end at LF, one CR before it is dropped, and so is a UTF-8 BOM on the first line. White
-- space before the name goes, everything after the `=` stays: there are no quotes, no escapes, no
-- `export` and no comments after a value. Empty lines and lines that start with `#` are skipped. A
-- name without `=` takes its value from the process environment, empty when unset. Unlike
-- kubectl's, lines may have any length.
-- @tparam string text
-- @tparam[opt] table opts `getenv`: a function in place of `os.getenv`; `name`: the file's name,
-- for errors; `seen`: a table to share between texts, so that a name in two of them is an error
-- @treturn[1] table map of name to value
-- @treturn[1] table list of the names in the order of the file
-- @treturn[2] nil
-- @treturn[2] table error, code `env`, with `line`, and `path` when `name` was given; it never
-- shows a value
function M.parse(text, opts)
    check_type(text, "string", 1, "parse")
    if opts ~= nil then check_type(opts, "table", 2, "parse") end
    opts = opts or {}
    local getenv, seen = opts.getenv or os.getenv, opts.seen or {}
    local map, order, places = {}, {}, {}
    local number, position = 0, 1
    if sub(text, 1, 3) == BOM then position = 4 end
    while position <= #text do
        number = number + 1
        local newline = find(text, "\n", position, true) or #text + 1
        local line = gsub(sub(text, position, newline - 1), "\r$", "")
        local key, value = parse_line(line, getenv)
        if key == nil then return fail(value, number, opts.name) end
        if key then
            local place = places[key] or seen[key]
            if place then
                return fail(format("%s is set in %s already", key, place), number, opts.name)
            end
            places[key] = opts.name and opts.name .. ":" .. number or "line " .. number
            map[key] = value
            order[#order + 1] = key
        end
        position = newline + 1
    end
    for _, key in ipairs(order) do seen[key] = places[key] end
    return map, order
end

return M
