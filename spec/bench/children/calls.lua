--- calls.lua DIRECTORY one|none flat|dirs N TIMES: write so often that many files of which one
-- changes or none, for the system calls to be counted.
--
-- There is a rest between two writes, so that no file has changed within the same tick.

local atomicwriter = require "atomicwriter"
local luv = require "luv"
local payloads = require "spec.bench.speed.payloads"

local directory, differ, layout = arg[1], arg[2], arg[3]
local n, times = tonumber(arg[4]), tonumber(arg[5])

local current, other = payloads.pair(differ, n, layout)
local writer = assert(atomicwriter.new(directory .. "/calls", { durability = "none", keep = 0,
    create = true }))
for _ = -3, times do -- first it writes all, then it reads them once
    current, other = other, current
    assert(writer:write(current))
    luv.sleep(20)
end
