--- Errors of the builders: tables that read as a sentence.
-- They have the shape of the core's errors (`code`, `message`, `path`, `errno`, `op`), so a caller
-- treats both alike. `tostring(err)` puts the place before the message.
-- @module atomicwriter.failure

local Failure = {}

function Failure:__tostring()
    local place = self.path or ""
    if self.line then
        place = (place == "" and "line " or place .. ":") .. string.format("%d", self.line)
    end
    local text = self.message
    if place ~= "" then text = place .. ": " .. text end
    if self.included_from then
        text = text .. " (included from " .. table.concat(self.included_from, ", ") .. ")"
    end
    return text
end

local M = {}

--- Make an error of FIELDS, which becomes the error itself.
-- @tparam table fields `code` and `message`; `path`, `line`, `errno`, `op` where they apply
-- @treturn table the error, with `__tostring`
function M.new(fields)
    return setmetatable(fields, Failure)
end

--- Tell whether VALUE is an error made by `new`.
-- @param value anything
-- @treturn boolean
function M.is(value)
    return getmetatable(value) == Failure
end

return M
