--- What the fuzz targets in Lua have in common: demands on what the code under test returns.

local failure = require "atomicwriter.failure"

local M = {}

-- Stands where a secret may stand; no message of ours could have it by chance.
M.SECRET = "Zq7-Secret"

--- Raise unless OK; the message is put together only then.
function M.that(ok, message, ...)
    if not ok then error(message:format(...), 2) end
end

--- ERR is a failure with CODE that names a line of TEXT.
-- @param mute messages that name no line
function M.failure(err, code, text, mute)
    M.that(failure.is(err), "no failure, but %q", tostring(err))
    M.that(err.code == code, "code %s", tostring(err.code))
    M.that(type(err.message) == "string" and err.message ~= "", "no message")
    if mute and mute[err.message] then return end
    local _, newlines = text:gsub("\n", "")
    M.that(type(err.line) == "number" and err.line % 1 == 0, "no line: %s", err.message)
    M.that(err.line >= 1 and err.line <= newlines + 1, "line %d of %d: %s", err.line,
        newlines + 1, err.message)
    M.that(tostring(err):find(":?" .. ("%d"):format(err.line) .. ": "), "%s", tostring(err))
end

--- Neither an error nor anything in it shows the secret.
function M.discreet(err)
    for _, text in pairs(err or {}) do
        M.that(not tostring(text):find(M.SECRET, 1, true), "shows a secret: %s", tostring(text))
    end
    M.that(not tostring(err):find(M.SECRET, 1, true), "shows a secret: %s", tostring(err))
end

--- A and B are equal: type, value, and all that they contain.
function M.same(a, b, where)
    where = where or "it"
    if type(a) ~= "table" or type(b) ~= "table" then
        M.that(a == b or (a ~= a and b ~= b), "%s: %q is not %q", where, tostring(a), tostring(b))
        return
    end
    for key, item in pairs(a) do M.same(item, b[key], where .. "." .. tostring(key)) end
    for key in pairs(b) do M.that(a[key] ~= nil, "%s.%s is new", where, tostring(key)) end
end

return M
