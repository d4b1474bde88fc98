--- atomicwriter's side: it is called from Lua, in this process.

local atomicwriter = require "atomicwriter"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"
local payloads = require "spec.bench.speed.payloads"

local now, sleep = measure.now, measure.luv.sleep

local Ours = {}
Ours.__index = Ours

local function options_of(work)
    local options = { durability = work.durability or "none", keep = 0, create = true }
    for name, value in pairs(work.options or {}) do options[name] = value end
    return options
end

--- One write; returns the microseconds it took. A fresh writer is made and closed in that time.
local function write_once(self)
    self.current, self.other = self.other, self.current
    local writer = self.writer
    local start = now()
    if not writer then writer = assert(atomicwriter.new(self.target, self.options)) end
    local result = assert(writer:write(self.current))
    if not self.writer then writer:close() end
    local took = (now() - start) / 1000
    assert(result.changed == (self.differ ~= "none"), "bench: that should not have happened")
    return took
end

--- Write REPETITIONS times and append the microseconds to SAMPLES. Between two of them there is
-- a rest, if the work has one: what goes on in a thread has to be over.
function Ours:run(repetitions, samples)
    collectgarbage()
    for _ = 1, repetitions do
        samples[#samples + 1] = write_once(self)
        if self.rest then sleep(self.rest) end
    end
end

function Ours:close()
    if self.writer then self.writer:close() end
    os.execute("rm -rf " .. host.shell_quote(self.target))
end

local M = {}

--- Get ready in DIRECTORY for a WORK: { differ = "all"|"one"|"none", fresh =, durability =,
-- options =, rest = milliseconds }. As for the floor, a first time is not counted.
--
-- What does not change has not changed just now, either: that is how a write that is repeated
-- every minute finds it.
function M.start(work, n, layout, directory)
    local self = setmetatable({}, Ours)
    self.differ, self.rest = work.differ, work.rest
    self.options = options_of(work)
    self.target = ("%s/lua-%d"):format(directory, measure.luv.os_getpid())
    self.current, self.other = payloads.pair(work.differ, n, layout)
    if not work.fresh then self.writer = assert(atomicwriter.new(self.target, self.options)) end
    local first = self.writer or assert(atomicwriter.new(self.target, self.options))
    assert(first:write(self.current))
    if work.differ == "none" then sleep(50) end
    write_once(self)
    if self.rest then sleep(self.rest) end
    return self
end

return M
