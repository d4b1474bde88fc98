--- memory.lua DIRECTORY N: what a writer that stays open keeps, as a process of its own.
--
-- The caller's own table and strings are there before and after. Then a writer writes it twice,
-- so that it has looked at each file; the rubbish is collected; and what is in use more than
-- before is the writer's. Prints it in bytes: of malloc, as counted by malloc itself, and of
-- memory of the process's own (Pss), which has the holes as well.

local atomicwriter = require "atomicwriter"
local luv = require "luv"
local heap = require "bench.heap"

local SIZE = 1024
local directory, n = arg[1], tonumber(arg[2])

local function resident()
    for line in io.lines("/proc/self/smaps_rollup") do
        local kib = line:match("^Pss:%s*(%d+)")
        if kib then return 1024 * kib end
    end
end

-- LuaJIT has memory of its own that malloc does not know.
local function in_use()
    collectgarbage()
    collectgarbage()
    return heap() + (jit and 1024 * collectgarbage("count") or 0), resident()
end

local payload = {}
for i = 0, n - 1 do
    payload[("f%05d"):format(i)] = ("%d "):format(i):rep(SIZE):sub(1, SIZE)
end
in_use()
local used, pss = in_use()
local writer = assert(atomicwriter.new(directory .. "/memory", { durability = "none", keep = 0,
    create = true }))
for _ = 1, 3 do
    assert(writer:write(payload))
    luv.sleep(50)
end
local used_after, pss_after = in_use()
assert(payload and writer)
print(("%d %d"):format(used_after - used, pss_after - pss))
