--- Who gets the processor when a thread writes and a worker has a request: the worker, at once.
--
-- Creating, syncing and removing hundreds of files keeps a thread busy for milliseconds. Linux
-- shares a processor out in slices. Who wakes up waits until the slice of who runs is used up,
-- which is looked at when the clock ticks: up to 4 ms for a request that has just arrived. Two
-- things help, and take no rights:
--
-- * A longer slice (Linux 6.12): whoever has a shorter one may interrupt. No share of the processor
-- is lost by it, and it ends with the write.
-- * A lower priority: then even a worker that has had more than its share lately may interrupt. It
-- cannot be taken back, so it is for the threads of a pool that is ours alone.
-- @module resty.atomicwriter.turns

local ffi = require "ffi"

if not pcall(ffi.typeof, "struct aw_resty_sched_attr") then
    ffi.cdef [[
        struct aw_resty_sched_attr {
            uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority;
            uint64_t runtime, deadline, period;
        };
        long aw_resty_sched_getattr(long number, long thread, struct aw_resty_sched_attr *attr,
            unsigned long size, unsigned long flags) __asm__("syscall");
        long aw_resty_sched_setattr(long number, long thread, struct aw_resty_sched_attr *attr,
            unsigned long flags) __asm__("syscall");
        int aw_resty_sched_yield(void) __asm__("sched_yield");
    ]]
end

local C = ffi.C
local SIZE = ffi.sizeof "struct aw_resty_sched_attr"
local SETATTR = ({ x64 = 314, arm64 = 274 })[ffi.arch] -- and getattr is the next one
local OTHER, BATCH = 0, 3
local LONGEST = 100e6 -- nanoseconds
local NICE = 10       -- a tenth of a worker's share

local attr = ffi.new "struct aw_resty_sched_attr"

local M = {}

-- What the kernel knows of this thread, in `attr`. False when it cannot be asked, and for a thread
-- that somebody has given another policy.
local function ask()
    return SETATTR ~= nil and C.aw_resty_sched_getattr(SETATTR + 1, 0, attr, SIZE, 0) == 0
        and (attr.policy == OTHER or attr.policy == BATCH)
end

local function set()
    return C.aw_resty_sched_setattr(SETATTR, 0, attr, 0) == 0
end

--- How this thread gets its turns.
-- @treturn[1] number nanoseconds of a slice; 0 where the kernel knows no such thing
-- @treturn[1] number its nice value
-- @treturn[2] nil when it cannot be told
function M.now()
    if not ask() then return nil end
    return tonumber(attr.runtime), attr.nice
end

--- Call FN, which does not raise, while this thread lets others go first. Where the kernel does not
-- have it FN is called all the same.
-- @tparam boolean ours whether the thread may keep a lower priority for ever
-- @tparam function fn
-- @param ... its arguments
-- @return both that FN returns
function M.last(ours, fn, ...)
    if not ask() then return fn(...) end
    if ours and attr.nice < NICE then attr.nice = NICE end
    if attr.runtime ~= 0 then attr.runtime = LONGEST end
    if set() then C.aw_resty_sched_yield() end -- the slice that has begun has the old length
    local kind, value = fn(...)
    if ask() and attr.runtime == LONGEST then
        attr.runtime = 0 -- the kernel's own
        set()
    end
    return kind, value
end

return M
