--- YAML with its keys in order.
--
-- Written by libyaml, through the `yaml` module that comes with lyaml. lyaml's own `dump` goes
-- through a table in the order of the hash table, which differs from run to run; so the events are
-- sent from here.
-- @module atomicwriter.template.yaml

local unicode = require "atomicwriter.unicode"
local value = require "atomicwriter.template.value"

local find, lower = string.find, string.lower

-- What YAML 1.1 or 1.2 may read as something else than a string when it is not quoted.
local RESERVED = {
    null = true, ["true"] = true, ["false"] = true, yes = true, no = true, on = true, off = true,
    y = true, n = true,
}

local function is_plain(text)
    return find(text, "^[%a_/][%w_./ @+-]*$") and not find(text, " $") and not RESERVED[lower(text)]
end

local function scalar(emit, text, style)
    emit {
        type = "SCALAR", value = text, style = style, plain_implicit = true, quoted_implicit = true,
    }
end

local node -- for recursion

local function table_node(emit, map, parents)
    if parents[map] then error("a table contains itself", 0) end
    parents[map] = true
    if value.is_list(map) then
        emit { type = "SEQUENCE_START", style = "BLOCK", implicit = true }
        for _, item in ipairs(map) do node(emit, item, parents) end
        emit { type = "SEQUENCE_END" }
    else
        emit { type = "MAPPING_START", style = "BLOCK", implicit = true }
        for _, key in ipairs(value.sorted_keys(map)) do
            node(emit, key, parents)
            node(emit, map[key], parents)
        end
        emit { type = "MAPPING_END" }
    end
    parents[map] = nil
end

local function number_text(number)
    local text = value.number_text(number)
    return find(text, "^%-?[in]") and text:gsub("(%a+)$", ".%1") or text -- .inf, .nan
end

function node(emit, item, parents)
    local kind = type(item)
    if value.is_null(item) then
        scalar(emit, "null", "PLAIN")
    elseif kind == "table" then
        table_node(emit, item, parents)
    elseif kind == "string" then
        -- libyaml refuses it too, but lyaml then frees what it has not allocated
        if not unicode.is_valid(item) then error("a string is not valid UTF-8", 0) end
        local quoted = find(item, "\n") and "LITERAL" or "DOUBLE_QUOTED"
        scalar(emit, item, is_plain(item) and "PLAIN" or quoted)
    elseif kind == "number" then
        scalar(emit, (number_text(item)), "PLAIN")
    elseif kind == "boolean" then
        scalar(emit, tostring(item), "PLAIN")
    else
        error("cannot encode a " .. kind, 0)
    end
end

local M = {}

--- Encode ITEM as a YAML document without markers and without a newline at the end.
-- An empty table is a mapping. Raises for what YAML cannot hold, and when lyaml is not installed.
-- @param item
-- @treturn string
function M.encode(item)
    local loaded, yaml = require("atomicwriter.optional").load("yaml")
    if not loaded or type(yaml) ~= "table" or not yaml.emitter then
        error("it needs the package lyaml: install lua-yaml (Debian) or lyaml (LuaRocks)", 0)
    end
    local emitter = yaml.emitter()
    local function emit(event)
        local ok, text = emitter.emit(event)
        if not ok then error("libyaml cannot encode the value", 0) end
        return text
    end
    emit { type = "STREAM_START", encoding = "UTF8" }
    emit { type = "DOCUMENT_START", implicit = true }
    node(emit, item, {})
    emit { type = "DOCUMENT_END", implicit = true }
    local text = emit { type = "STREAM_END" }
    text = text:gsub("^%-%-%- ?\n?", ""):gsub("\n%.%.%.\n$", "\n"):gsub("\n$", "")
    return text
end

return M
