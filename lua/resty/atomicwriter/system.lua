--- The few system calls that nginx's Lua has no function for, each of them one call and one that
-- does not block.
--
-- They are declared under names of our own: a C name can be declared once in a Lua state, and
-- other modules may have declared it already, in other words.
-- @module resty.atomicwriter.system

local ffi = require "ffi"

if not pcall(ffi.typeof, "struct aw_resty_pollfd") then
    ffi.cdef [[
        struct aw_resty_pollfd { int fd; short events; short revents; };
        long aw_resty_readlink(const char *path, char *buffer, size_t size) __asm__("readlink");
        int aw_resty_poll(struct aw_resty_pollfd *fds, unsigned long count, int ms) __asm__("poll");
        int aw_resty_kill(int pid, int signal) __asm__("kill");
    ]]
end

local C = ffi.C
local POLLIN = 1
local ESRCH = 3
local SIZE = 4096

local buffer = ffi.new("char[?]", SIZE)
local poll = ffi.new("struct aw_resty_pollfd[1]")

local M = {}

--- What the symbolic link PATH reads; nil when it cannot be read.
function M.readlink(path)
    local length = tonumber(C.aw_resty_readlink(path, buffer, SIZE))
    return length >= 0 and ffi.string(buffer, length) or nil
end

--- Whether something can be read from the descriptor FD now.
function M.readable(fd)
    poll[0].fd, poll[0].events, poll[0].revents = fd, POLLIN, 0
    return C.aw_resty_poll(poll, 1, 0) > 0
end

--- Whether the process PID exists.
function M.lives(pid)
    return C.aw_resty_kill(pid, 0) == 0 or ffi.errno() ~= ESRCH
end

return M
