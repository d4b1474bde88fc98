--- What the benchmarks say about the machine they ran on.

local M = {}

--- One word for the shell.
function M.shell_quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- What a command prints.
function M.output_of(command)
    local pipe = assert(io.popen(command, "r"))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

--- The first line of a file; nil when it cannot be read.
function M.first_line(path)
    local file = io.open(path, "r")
    local line = file and file:read("*l")
    if file then file:close() end
    return line
end

--- What DIRECTORY is on: "ext4 with a journal", "tmpfs", …
function M.file_system(directory)
    local where = M.shell_quote(directory)
    local text = M.output_of("findmnt -no FSTYPE,SOURCE -T " .. where .. " 2>/dev/null")
    local kind, source = text:match("^(%S+)%s+(%S+)")
    if not kind then return "unknown file system" end
    if kind ~= "ext4" then return kind end
    local device = source:match("([^/]+)$")
    local journals = M.output_of("ls -d /proc/fs/jbd2/" .. M.shell_quote(device)
        .. "-* 2>/dev/null")
    return journals ~= "" and "ext4 with a journal" or "ext4 without a journal"
end

--- How many processors of which kind.
function M.cpu()
    local file = io.open("/proc/cpuinfo", "r")
    local text = file and file:read("*a") or ""
    if file then file:close() end
    local _, count = text:gsub("processor%s*:", "")
    return ("%d x %s"):format(count, text:match("model name%s*:%s*([^\n]+)") or "unknown processor")
end

return M
