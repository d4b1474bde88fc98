--- atomicwriter's side: it is called from Lua, in this process.

local atomicwriter = require "atomicwriter"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"
local payloads = require "spec.bench.speed.payloads"

local luv, now = measure.luv, measure.now

local REST = 10 -- milliseconds

local started = 0 -- so many of us

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
    if self.waits then writer:settle() end
    local took = (now() - start) / 1000
    assert(result.changed == (self.differ ~= "none"), "bench: that should not have happened")
    return took
end

--- What goes on in a thread ends, and the files it touched are no longer of this instant.
function Ours:rest()
    if not self.rests then return end
    self.writer:settle()
    luv.sleep(REST)
end

--- Write REPETITIONS times and append the microseconds to SAMPLES. Between two of them there is
-- a rest, if the work has one.
function Ours:run(repetitions, samples)
    collectgarbage()
    for _ = 1, repetitions do
        samples[#samples + 1] = write_once(self)
        self:rest()
    end
end

function Ours:close()
    if self.writer then self.writer:close() end
    os.execute("rm -rf " .. host.shell_quote(self.target))
end

local M = {}

--- Whether a writer has all the OPTIONS, a map.
function M.has(options)
    return (pcall(atomicwriter.new, "/", options))
end

--- Get ready in DIRECTORY for a WORK: { differ = "all"|"one"|"none", fresh =, durability =,
-- options =, rests = for the thread and some milliseconds more, after the time that counts,
-- waits = for the thread, in the time that counts }. As for the floor, a first time is not counted.
--
-- What does not change has not changed just now, either: that is how a write that is repeated
-- every minute finds it.
function M.start(work, n, layout, directory)
    local self = setmetatable({}, Ours)
    self.differ, self.waits = work.differ, work.waits
    self.rests = work.rests
    self.options = options_of(work)
    started = started + 1
    self.target = ("%s/lua-%d-%d"):format(directory, luv.os_getpid(), started)
    self.current, self.other = payloads.pair(work.differ, n, layout)
    if not work.fresh then self.writer = assert(atomicwriter.new(self.target, self.options)) end
    local first = self.writer or assert(atomicwriter.new(self.target, self.options))
    assert(first:write(self.current))
    if work.differ == "none" then luv.sleep(50) end
    write_once(self)
    self:rest()
    return self
end

return M
