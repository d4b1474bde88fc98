--- The `{}` of a shell command.
-- @module atomicwriter.cli.placeholder

local M = {}

-- How PATH is written in each state of the shell's quoting.
local spelled = {
    unquoted = function(path) return "'" .. path:gsub("'", "'\\''") .. "'" end,
    single = function(path) return (path:gsub("'", "'\\''")) end,
    double = function(path) return (path:gsub('[\\"$`]', "\\%0")) end,
}

-- Read one piece of a command at AT. STACK has the states that we are in, the innermost last.
-- Returns the first byte after it, and whether it is a placeholder.
local function read_piece(command, at, stack)
    local state = stack[#stack]
    local two = command:sub(at, at + 1)
    local c = two:sub(1, 1)
    if two == "{}" then return at + 2, true end
    if state == "single" then
        if c == "'" then stack[#stack] = nil end
    elseif c == "\\" then
        return at + 2
    elseif two == "$(" then
        stack[#stack + 1] = "unquoted"
        return at + 2
    elseif c == '"' then
        stack[state == "double" and #stack or #stack + 1] = state ~= "double" and "double" or nil
    elseif state == "double" then -- luacheck: ignore 542
        -- the rest means nothing here
    elseif c == "'" then
        stack[#stack + 1] = "single"
    elseif c == "(" then
        stack[#stack + 1] = "unquoted"
    elseif c == ")" and #stack > 1 then
        stack[#stack] = nil
    elseif c == "#" and (at == 1 or command:find("^[%s;&|(]", at - 1)) then
        return command:find("\n", at, true) or #command + 1
    end
    return at + 1
end

--- Replace each `{}` of a command by a path.
--
-- The shell sees the path as it is, whatever bytes it has, and wherever the `{}` stands: unquoted,
-- in `"…"`, in `'…'`, in `$(…)`. `\{}` is left for others, such as `find -exec`, and so is a `{}`
-- in a comment. This is no parser of the shell's language: within backquotes, here-documents, and
-- a `case` within `$(…)`, only a path that needs no quoting is safe.
-- @tparam string command for `/bin/sh -c`
-- @tparam string path
-- @treturn string
function M.fill(command, path)
    local plain = path:find("^[%w_/.,:=@+-]+$")
    local out, stack, at = {}, { "unquoted" }, 1
    while at <= #command do
        local state = stack[#stack]
        local after, is_placeholder = read_piece(command, at, stack)
        if is_placeholder then
            out[#out + 1] = plain and path or spelled[state](path)
        else
            out[#out + 1] = command:sub(at, after - 1)
        end
        at = after
    end
    return table.concat(out)
end

return M
