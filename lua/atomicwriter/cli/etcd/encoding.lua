--- How etcdctl writes and reads keys and values.
--
-- It prints JSON in which they are base64. What it reads, transactions and the lines of an
-- interactive watch, has them as string literals of Go, one request a line; it splits a line with
-- a regular expression before it looks at the literals, so that all but printable ASCII has to be
-- escaped, and quotes, too.
-- @module atomicwriter.cli.etcd.encoding

local byte, format, gsub = string.byte, string.format, string.gsub

local M = {}

--- TEXT as a string literal of Go, in printable ASCII.
-- @tparam string text any bytes
-- @treturn string
function M.quote(text)
    return '"' .. gsub(text, "[^ !#-&(-Z[%]^-~]", function(character)
        return format("\\x%02x", byte(character))
    end) .. '"'
end

--- Base64 decoded; nothing stands for nothing, as etcdctl leaves out what is empty.
-- @tparam ?string text
-- @treturn string
function M.decode_base64(text)
    if not text or text == "" then return "" end
    return require("atomicwriter.template.filters").base64decode(text)
end

--- The JSON that etcdctl printed.
-- @tparam string text
-- @treturn ?table nil when it is none
function M.decode_json(text)
    local loaded, cjson = require("atomicwriter.optional").load("cjson")
    if not loaded then
        error(require("atomicwriter.failure").new {
            code = "no_library",
            message = "etcd needs lua-cjson: install lua-cjson (Debian) or lua-cjson (LuaRocks)",
        }, 0)
    end
    local fine, item = pcall(cjson.decode, text)
    return fine and type(item) == "table" and item or nil
end

--- A revision as text. cjson makes floats of all numbers; revisions are far from 2^53.
-- @tparam number revision
-- @treturn string
function M.number(revision)
    return format("%.0f", revision)
end

return M
