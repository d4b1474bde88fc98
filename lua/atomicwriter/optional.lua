--- Loads libraries that may be missing.
-- @module atomicwriter.optional

local M = {}

--- Load NAME as `pcall(require, NAME)` does; but a SIGINT, which the interpreter raises as an error
-- anywhere, is raised again, and not taken for a library that is missing.
-- @tparam string name
-- @treturn boolean whether it was loaded
-- @return the library, or why not
function M.load(name)
    local loaded, library = pcall(require, name)
    if not loaded and string.find(tostring(library), "interrupted!", 1, true) then
        error(library, 0)
    end
    return loaded, library
end

return M
