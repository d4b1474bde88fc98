--- Work that goes on beside the main loop: coroutines that wait for children and timers.
--
-- A task runs until it waits, and goes on at a `step` once what it waits for has come. Steps are
-- made by whoever waits for everything (`atomicwriter.cli.watching`), never in a callback of luv;
-- so tasks run one at a time, and data of theirs changes at steps only.
-- @module atomicwriter.cli.task

local process = require "atomicwriter.cli.process"

local Task = {}
Task.__index = Task

--- Wait within the task until PREDICATE() holds.
-- @tparam function predicate looks at fields and does nothing else
-- @tparam[opt] number timeout seconds
-- @treturn boolean whether it holds; false: the time is over
function Task:wait(predicate, timeout)
    self.predicate, self.due = predicate, timeout and process.now() + timeout
    coroutine.yield()
    local holds = predicate()
    self.predicate, self.due = nil, nil
    return holds and true or false
end

local function never() return false end

--- Do nothing for so long, within the task.
-- @tparam number seconds
function Task:sleep(seconds)
    self:wait(never, seconds)
end

--- Whether a step would get any further.
-- @treturn boolean
function Task:ready()
    if self.done then return false end
    return not self.predicate or self.predicate() or self.due ~= nil and self.due <= process.now()
end

--- Go on for as long as nothing has to be waited for. An error within the task is raised here.
function Task:step()
    while self:ready() do
        local fine, err = coroutine.resume(self._thread)
        if not fine then
            self.done = true
            if type(err) == "table" then error(err, 0) end -- a library is missing
            error(debug.traceback(self._thread, tostring(err)), 0)
        end
        self.done = coroutine.status(self._thread) == "dead"
    end
end

--- Step and wait until PREDICATE() holds, the task has ended, or it is late.
-- @tparam function predicate looks at fields and does nothing else
-- @tparam[opt] number deadline on the clock of `process.now`
function Task:run_until(predicate, deadline)
    deadline = deadline or math.huge
    self:step()
    while not self.done and not predicate() and process.now() < deadline do
        local due = math.min(self.due or math.huge, deadline)
        process.wait(function() return self:ready() or predicate() end,
            due < math.huge and math.max(due - process.now(), 0) or nil)
        self:step()
    end
end

local M = {}

--- Make a task. Nothing of it runs before the first step.
-- @tparam function body called with the task
-- @treturn Task its field `due` is the time at which it wants a step, if any
function M.new(body)
    -- luv calls back in the coroutine in which it was loaded, which must outlive it: never in ours.
    process.uv()
    local self = setmetatable({ done = false }, Task)
    self._thread = coroutine.create(function() body(self) end)
    return self
end

return M
