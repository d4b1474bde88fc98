--- A program that does a work when it is told to, and says how long each time took: the floor,
-- or a rival in another language. It stays, so that it can take turns with us.
--
-- It reads a number of repetitions a line and answers each with a line of as many
-- microseconds, by CLOCK_MONOTONIC.

local measure = require "spec.bench.measure"

local uv = measure.luv

local Partner = {}
Partner.__index = Partner

local function fail(self, what)
    error(("bench: %s %s; is it built? try: make bench"):format(self.command, what), 0)
end

--- The next line that the program prints.
local function next_line(self)
    while true do
        local line, rest = self.text:match("^([^\n]*)\n(.*)$")
        if line then
            self.text = rest
            return line
        end
        if self.ended then fail(self, "ended") end
        uv.run("once")
    end
end

--- Do the work REPETITIONS times and append the microseconds to SAMPLES.
function Partner:run(repetitions, samples)
    self.stdin:write(repetitions .. "\n")
    local found = 0
    for number in next_line(self):gmatch("[%d.]+") do
        samples[#samples + 1] = tonumber(number)
        found = found + 1
    end
    if found ~= repetitions then fail(self, "answered something else") end
end

--- Let it clean up and end.
function Partner:close()
    self.stdin:close()
    while not self.ended do uv.run("once") end
    self.stdout:close()
    uv.run("nowait")
    if self.status ~= 0 then fail(self, "failed") end
end

local M = {}

--- Start PROGRAM with the list WORDS.
function M.start(program, words)
    local self = setmetatable({ text = "", stdin = uv.new_pipe(), stdout = uv.new_pipe() }, Partner)
    self.command = program .. " " .. table.concat(words, " ")
    local handle, err
    handle, err = uv.spawn(program, { args = words, stdio = { self.stdin, self.stdout, 2 } },
        function(status)
            self.ended, self.status = true, status
            handle:close()
        end)
    if not handle then fail(self, "does not start: " .. tostring(err)) end
    self.stdout:read_start(function(_, data) self.text = self.text .. (data or "") end)
    return self
end

return M
