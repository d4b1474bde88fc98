--- Reads the files that a payload or a template is made of, so that somebody can know which.
--
-- Whoever wants to make the same thing again when its files change runs the making within
-- `observe`, and is told of every file and directory right before it is read.
-- @module atomicwriter.input

local failure = require "atomicwriter.failure"

local gsub = string.gsub

local ENOTDIR = 20

local M = {}

-- Tells the observers of all calls of `observe` that are running; nil when there are none.
local observe_all

--- Tell the observers that PATH is about to be read, or listed, by somebody else than `read`.
-- @param path a string, of a file or directory, which need not exist; or a table that stands for an
--  input that is no file, and has a field `generation`, which grows when it changes
function M.note(path)
    if observe_all then observe_all(path) end
end

--- The error for what @{read} or @{is_directory} could not do.
-- @tparam string path
-- @tparam string message as they return it
-- @tparam ?number errno as they return it
-- @treturn table error, code `io`
function M.failure(path, message, errno)
    return failure.new { code = "io", op = "open", message = message, path = path, errno = errno }
end

--- Tell whether PATH is a directory, without opening it when it is a pipe.
-- @tparam string path
-- @treturn[1] boolean
-- @treturn[2] nil there is nothing, or nothing for us to see
-- @treturn[2] string why, without the path
-- @treturn[2] number errno
function M.is_directory(path)
    local handle, message, errno = io.open(path .. "/.", "rb")
    if handle then
        handle:close()
        return true
    end
    if errno == ENOTDIR then return false end
    return nil, gsub(message, "^.*: ", ""), errno
end

--- All that comes out of a pipe, `/dev/stdin` or a shell's `<(command)`.
-- @tparam string path
-- @treturn[1] string
-- @treturn[2] nil it is no pipe, or cannot be opened
function M.read_pipe(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local data = not file:seek("cur") and file:read("*a") or nil
    file:close()
    return data
end

--- All of a file, told to the observers.
-- @tparam string path
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] string why not, without the path
-- @treturn[2] ?number errno
function M.read(path)
    M.note(path)
    local file, message, errno = io.open(path, "rb")
    local text, read_message, read_errno
    if file then
        text, read_message, read_errno = file:read("*a")
        file:close()
    end
    if text then return text end
    message = gsub(message or read_message, "^.*: ", "") -- Lua puts the path in front
    return nil, message, errno or read_errno
end

local function finish(outer, ok, ...)
    observe_all = outer
    if not ok then error((...), 0) end
    return ...
end

--- Call a function, and tell OBSERVER of each file and directory that it reads.
-- Calls may be nested: the outer observer is told too. What FN raises is raised again as it is, but
-- its traceback ends here; whoever wants a longer one takes it within FN.
-- @tparam function observer called with a path right before it is read
-- @tparam function fn called with the rest of the arguments; it must not yield
-- @return what FN returns
function M.observe(observer, fn, ...)
    local outer = observe_all
    function observe_all(path)
        if outer then outer(path) end
        observer(path)
    end
    return finish(outer, pcall(fn, ...))
end

return M
