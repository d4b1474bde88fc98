--- copying.lua TARGET SOURCES: project the files of a directory by `source`, as a process of its
-- own, and print the most memory that it ever had, in KiB.

local atomicwriter = require "atomicwriter"
local luv = require "luv"

local target, sources = arg[1], arg[2]
local payload = {}
local listing = assert(luv.fs_scandir(sources))
for name in luv.fs_scandir_next, listing do
    payload[name] = { source = sources .. "/" .. name }
end
local writer = assert(atomicwriter.new(target, { durability = "none", keep = 0, create = true }))
assert(writer:write(payload))
writer:close()
for line in io.lines("/proc/self/status") do
    local peak = line:match("^VmHWM:%s*(%d+)")
    if peak then print(peak) end
end
