--- Reads data written as a Lua script, which has the pure functions that templates have.
-- @module atomicwriter.data.script

local pure = require "atomicwriter.template.pure"

local find, format, gsub, match = string.find, string.format, string.gsub, string.match

-- A name that Lua does not shorten in its messages, as it would a path.
local CHUNK = "=(data)"

local function new_environment()
    return setmetatable(pure.new(), {
        __index = function(_, name) error(format("undefined: %s", tostring(name)), 2) end,
    })
end

-- Message and line. Lua likes to show what it met, and that may be a secret.
local function explain(message)
    if type(message) ~= "string" then return "the error is a " .. type(message) end
    local line, text = match(message, "^%(data%):(%d+): (.*)$")
    text = gsub(gsub(text or message, " near .*$", ""), " %(constant .*%)", "")
    return text, tonumber(line)
end

local M = {}

--- Run TEXT and take what it returns.
-- @tparam string text Lua source; a first line that starts with `#` is passed over
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] string what is wrong; only what the script itself says in `error` shows its contents
-- @treturn[2] ?number line
function M.decode(text)
    if find(text, "^\27") then return nil, "a data file must be Lua source, this is bytecode" end
    local source = gsub(text, "^#[^\n]*", "", 1)
    local chunk, message = load(source, CHUNK, "t", new_environment())
    if not chunk then return nil, explain(message) end
    local ok, result = pcall(chunk)
    if not ok then return nil, explain(result) end
    if type(result) ~= "table" then
        return nil, "the script must return a table, not a " .. type(result)
    end
    return result
end

return M
