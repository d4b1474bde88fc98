--- Reads YAML, with libyaml through the `yaml` module that comes with lyaml.
--
-- lyaml's own loader shows contents in its messages, tells the line of the token before, takes
-- 12:30 for 750 and the second of two equal keys. So libyaml's events are put together here.
-- @module atomicwriter.data.yaml

local value = require "atomicwriter.template.value"

local find, gsub, lower, match, sub =
    string.find, string.gsub, string.lower, string.match, string.sub

-- Beyond it a document is a mistake or an attack, and the stack is not endless.
local DEPTH_MAX = 1000

local TAG_PREFIX = "tag:yaml.org,2002:"

-- Errors travel as a table, and only up to M.decode.
local function fail(message, line, column)
    error({ message = message, line = line, column = column }, 0)
end

local function fail_at(event, message)
    fail(message, event.start_mark.line + 1, event.start_mark.column + 1)
end

-- Scalars ---------------------------------------------------------------------------------------

local BOOLEANS = {
    ["true"] = true, yes = true, on = true, ["false"] = false, no = false, off = false,
}

-- As YAML 1.1 has them: yes, Yes and YES, but not yEs.
local function boolean_of(text)
    if find(text, "^%u?%l+$") or find(text, "^%u+$") then return BOOLEANS[lower(text)] end
    return nil
end

-- Patterns of whole numbers that are not decimal: the base, and how many digits a double holds.
local BASES = {
    { "^0x(%x+)$", 16, 13 }, { "^0o([0-7]+)$", 8, 17 }, { "^0([0-7]+)$", 8, 17 },
    { "^0b([01]+)$", 2, 53 },
}

local function based_number(digits)
    for _, base in ipairs(BASES) do
        local tail = match(digits, base[1])
        if tail then return #tail <= base[3] and tonumber(tail, base[2]) or nil end
    end
    return nil
end

local function is_decimal(digits)
    local mantissa = gsub(digits, "[eE][-+]?%d+$", "")
    return find(mantissa, "^%d+%.?%d*$") or find(mantissa, "^%.%d+$")
end

local function number_of(text)
    local sign, rest = match(text, "^([-+]?)([%d.].*)$")
    if not sign then return nil end
    local digits = gsub(rest, "_", "")
    local number = based_number(digits)
    if number then return sign == "-" and -number or number end
    if find(digits, "^0%a") then return nil end
    if is_decimal(digits) then return value.exact_number((sign == "-" and "-" or "") .. digits) end
    if lower(rest) == ".inf" then return sign == "-" and -math.huge or math.huge end
    if lower(rest) == ".nan" and sign == "" then return 0 / 0 end
    return nil
end

local NULLS = { [""] = true, ["~"] = true, null = true, Null = true, NULL = true }

local Loader = {}
Loader.__index = Loader

-- What a plain scalar stands for.
function Loader:resolve(text)
    if NULLS[text] then return self.null end
    local item = boolean_of(text)
    if item == nil then item = number_of(text) end
    if item == nil then return text end
    return item
end

local TYPE_OF_TAG = { bool = "boolean", int = "number", float = "number" }

function Loader:scalar(event)
    local text, tag = event.value, event.tag
    if not tag and event.style == "PLAIN" then return self:resolve(text) end
    if not tag then return text end
    local name = sub(tag, 1, #TAG_PREFIX) == TAG_PREFIX and sub(tag, #TAG_PREFIX + 1)
    if name == "null" then return self.null end
    if not TYPE_OF_TAG[name] then return text end
    local item = self:resolve(text)
    if type(item) ~= TYPE_OF_TAG[name] then fail_at(event, "the value does not fit its tag") end
    return item
end

-- Nodes -----------------------------------------------------------------------------------------

-- What libyaml says is followed by the place, and by where the thing began that it is about. Its
-- lines count from 1 here.
local function fail_with(message)
    local text, place = match(message, "^(.-) at document: %d+(.*)$")
    local line, column = match(place or "", "^, line: (%d+), column: (%d+)")
    if not line then line, column = match(place or "", "line: (%d+), column: (%d+)") end
    fail(text or message, tonumber(line), tonumber(column))
end

function Loader:next()
    local ok, event = pcall(self.parse)
    if not ok then fail_with(event) end
    return event
end

function Loader:sequence(event, depth)
    local list = {}
    if event.anchor then self.open[event.anchor] = true end
    while true do
        local item_event = self:next()
        -- Templates take a table with a metatable as it is, so only those have one that need it.
        if item_event.type == "SEQUENCE_END" then
            return #list == 0 and value.mark_list(list) or list
        end
        list[#list + 1] = self:node(item_event, depth)
    end
end

-- A word such as `on` stays a word when it is a key.
function Loader:key(event, depth)
    if event.type == "SCALAR" and not event.tag and boolean_of(event.value) ~= nil then
        return event.value
    end
    local key = self:node(event, depth)
    if value.is_null(key) or type(key) == "table" or key ~= key then
        fail_at(event, "a key must be a string, a number or a boolean")
    end
    return key
end

-- Add to MAP what the maps of the list MERGED have and it has not.
local function merge(map, merged, event)
    for _, other in ipairs(merged) do
        if type(other) ~= "table" or value.is_null(other) then
            fail_at(event, "'<<' needs a mapping, or a list of such")
        end
        for key, item in pairs(other) do
            if map[key] == nil then map[key] = item end
        end
    end
end

function Loader:mapping(event, depth)
    local map, merges = {}, {}
    if event.anchor then self.open[event.anchor] = true end
    while true do
        local key_event = self:next()
        if key_event.type == "MAPPING_END" then break end
        local key = self:key(key_event, depth)
        local value_event = self:next()
        local item = self:node(value_event, depth)
        if key == "<<" and key_event.style == "PLAIN" then
            local is_list = type(item) == "table" and value.is_list(item)
            merges[#merges + 1] = { list = is_list and item or { item }, event = value_event }
        elseif map[key] ~= nil then
            fail_at(key_event, "the key stands in this mapping already")
        else
            map[key] = item
        end
    end
    for _, found in ipairs(merges) do merge(map, found.list, found.event) end
    return map
end

function Loader:alias(event)
    local anchor = event.anchor
    if self.open[anchor] then fail_at(event, "the alias stands within what it is an alias of") end
    if self.anchors[anchor] == nil then fail_at(event, "the alias has no anchor") end
    return self.anchors[anchor]
end

local READERS = {
    SCALAR = Loader.scalar, SEQUENCE_START = Loader.sequence, MAPPING_START = Loader.mapping,
    ALIAS = Loader.alias,
}

function Loader:node(event, depth)
    if depth >= DEPTH_MAX then fail_at(event, "it is nested too deeply") end
    local item = READERS[event.type](self, event, depth + 1)
    if event.anchor and event.type ~= "ALIAS" then
        self.anchors[event.anchor], self.open[event.anchor] = item, nil
    end
    return item
end

-- What libyaml refuses without saying where: control characters, C1 but for NEL, U+FEFF, and U+FFFE
-- and U+FFFF.
local REFUSED = {
    "[%z\1-\8\11\12\14-\31\127]", "\194[\128-\132\134-\159]", "\239\187\191",
    "\239\191[\190\191]",
}

local function check_bytes(text)
    local position
    for _, pattern in ipairs(REFUSED) do
        local found = find(text, pattern)
        if found and found < (position or found + 1) then position = found end
    end
    if not position then return end
    local _, newlines = gsub(sub(text, 1, position), "\n", "")
    fail("control characters are not allowed", newlines + 1)
end

-- The only document; an empty table when there is none, as for a file of comments.
function Loader:document(text)
    check_bytes(text)
    self:next() -- the start of the stream
    local event = self:next()
    if event.type == "STREAM_END" then return {} end
    local item = self:node(self:next(), 0)
    self:next() -- the end of the document
    event = self:next()
    if event.type ~= "STREAM_END" then fail_at(event, "there is more than one document") end
    return item
end

local M = {}

--- Decode TEXT, which is valid UTF-8: libyaml's binding does not survive anything else.
-- @tparam string text
-- @return[1] the value; null is `lyaml.null`
-- @treturn[2] nil
-- @treturn[2] string what is wrong; it shows nothing of the text
-- @treturn[2] ?number line
-- @treturn[2] ?number column, in characters
function M.decode(text)
    local loaded, yaml = require("atomicwriter.optional").load("yaml")
    local loaded_too, functional = require("atomicwriter.optional").load("lyaml.functional")
    if not loaded or not loaded_too or not yaml.parser then
        return nil, "YAML needs lyaml: install lua-yaml (Debian) or lyaml (LuaRocks)"
    end
    local self = setmetatable({
        parse = yaml.parser(text),
        null = functional.NULL,
        anchors = {}, -- name -> value
        open = {},    -- names of the anchors whose values are being read
    }, Loader)
    local ok, item = pcall(self.document, self, text)
    if ok then return item end
    if type(item) ~= "table" then error(item, 0) end
    return nil, item.message, item.line, item.column
end

return M
