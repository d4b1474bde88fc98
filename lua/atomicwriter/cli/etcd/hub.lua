--- All that goes on with etcd beside the main loop: feeds, shared by who reads the same prefix, and
-- other tasks. Whoever waits for everything asks `stirred` and `due`, and then makes a `step`.
-- @module atomicwriter.cli.etcd.hub

local failure = require "atomicwriter.failure"

local format, max, min = string.format, math.max, math.min

local Hub = {}
Hub.__index = Hub

-- The feed of a request; made when there is none.
local function feed_of(self, request)
    local name = request.client.identity .. " " .. request.prefix
    if not self._feeds[name] then
        self._feeds[name] = require("atomicwriter.cli.etcd.feed").new(request.client:copy(),
            request.prefix, { console = self._services.console, follows = self._services.stays })
    end
    return self._feeds[name]
end

local function interrupted()
    return nil, failure.new { code = "cancelled", message = "interrupted while reading from etcd" }
end

-- Wait for the first read of a feed; later ones are not waited for.
local function load(feed, signals)
    feed.task:run_until(function()
        return feed.attempts > 0 or signals.stop
    end)
    if feed.revision then return true end
    if feed.attempts == 0 then return interrupted() end
    return nil, feed.failure
end

-- Bring all FEEDS of the same etcd to one revision. The one that is ahead has it from an event or
-- a read of its own; nobody else's events tell that nothing has changed for them.
local function align(requests, feeds, signals)
    local newest = {}
    for index, feed in ipairs(feeds) do
        local identity = requests[index].client.identity
        newest[identity] = max(newest[identity] or 0, feed.revision)
    end
    for index, feed in ipairs(feeds) do
        local revision = newest[requests[index].client.identity]
        if feed.revision < revision then
            local done, err = feed:catch_up(revision, signals)
            if not done and err.kind == "compacted" then feed:refresh() end
            if not done and err.kind == "future" then -- etcd has gone back, and some do not know
                for _, each in ipairs(feeds) do each:refresh() end
            end
            if not done then return nil, err end
        end
    end
    return true
end

local function read_all(requests, feeds, signals)
    for _, feed in ipairs(feeds) do
        local loaded, err = load(feed, signals)
        if not loaded then return nil, err end
    end
    local aligned, err = align(requests, feeds, signals)
    if not aligned then return nil, err end
    for _, feed in ipairs(feeds) do
        -- A misspelt prefix, or an etcd that was made anew, must not empty a target.
        if next(feed.mods) == nil then
            return nil, failure.new {
                code = "etcd",
                message = format("etcd at %s has no key below %s", feed.client.endpoints,
                    feed.prefix),
                revision = feed.revision,
            }
        end
    end
    return true
end

--- What is below the prefixes now: of each etcd as of one revision. Who observes inputs is told of
-- the feeds.
-- @tparam {table,...} requests each `{ client =, prefix = }`
-- @treturn[1] {table,...} for each request `files`, a map of path to value that must not be
-- changed, `mods` as a feed has them, and `revision`
-- @treturn[2] nil
-- @treturn[2] table error, with the `revision` that it refuses, if so
function Hub:read(requests)
    local signals = self._services:catch_signals()
    local feeds, results = {}, {}
    for index, request in ipairs(requests) do feeds[index] = feed_of(self, request) end
    local done, err = read_all(requests, feeds, signals)
    for index, feed in ipairs(feeds) do
        require("atomicwriter.input").note(feed)
        results[index] = { files = feed.files, mods = feed.mods, revision = feed.revision }
    end
    if not done and signals.stop then return interrupted() end
    if not done then return nil, err end
    return results
end

--- Have another task stepped.
-- @tparam table task of `atomicwriter.cli.task`
function Hub:add(task)
    self._tasks[#self._tasks + 1] = task
end

local function each_task(self, fn)
    for _, feed in pairs(self._feeds) do fn(feed.task) end
    for _, task in ipairs(self._tasks) do fn(task) end
end

--- Whether a step would get any further.
-- @treturn boolean
function Hub:stirred()
    local any = false
    each_task(self, function(task) any = any or task:ready() end)
    return any
end

--- When a step is wanted, whatever happens.
-- @treturn number on the clock of `process.now`; infinite when never
function Hub:due()
    local due = math.huge
    each_task(self, function(task)
        if not task.done then due = min(due, task.due or due) end
    end)
    return due
end

--- Go on with everything.
function Hub:step()
    each_task(self, function(task) task:step() end)
    for index = #self._tasks, 1, -1 do
        if self._tasks[index].done then table.remove(self._tasks, index) end
    end
end

--- Read everything again.
function Hub:refresh()
    for _, feed in pairs(self._feeds) do feed:refresh() end
end

--- How often anything has changed.
-- @treturn number
function Hub:generation()
    local sum = self._closed
    for _, feed in pairs(self._feeds) do sum = sum + feed.generation end
    return sum
end

--- Close the feeds that are not among those in use.
-- @tparam table used feeds as keys
function Hub:retain(used)
    for name, feed in pairs(self._feeds) do
        if not used[feed] then
            self._closed = self._closed + feed.generation
            feed:close()
            self._feeds[name] = nil
        end
    end
end

--- Stop everything.
function Hub:close()
    self:retain {}
end

local M = {}

--- Make a hub.
-- @tparam table services `console`, `catch_signals`, `stays`
-- @treturn Hub
function M.new(services)
    return setmetatable({ _services = services, _feeds = {}, _tasks = {}, _closed = 0 }, Hub)
end

return M
