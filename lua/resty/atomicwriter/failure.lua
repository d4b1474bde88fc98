--- Errors inside nginx: tables that read as a sentence, like those of the core.
-- The core's own errors lose their metatable on the way out of a worker thread; `new` gives
-- them one again.
-- @module resty.atomicwriter.failure

local Failure = {}

function Failure:__tostring()
    return self.message
end

-- So that "cannot write: " .. err works where it is needed most.
function Failure.__concat(a, b)
    return tostring(a) .. tostring(b)
end

local M = {}

--- Make an error of FIELDS, which becomes the error itself.
-- @tparam table fields `code` and `message`, which is whole: it begins with the target
-- @treturn table
function M.new(fields)
    if fields.committed == nil then fields.committed = false end
    return setmetatable(fields, Failure)
end

return M
