--- A key in etcd that says what this machine has, for as long as it lives.
--
-- The key, PREFIX, host and target one after the other, hangs on a lease that a child keeps alive;
-- when we or the whole machine are gone, so is the key. etcdctl tells of each renewal on its
-- standard output; when we have been killed, it ends the next time it tries, since nobody reads
-- that, and the lease runs out.
-- @module atomicwriter.cli.etcd.announcement

local console = require "atomicwriter.cli.console"
local process = require "atomicwriter.cli.process"

local format, match, max, min = string.format, string.match, math.max, math.min

local TTL = 30 -- seconds
local RETRY_MIN, RETRY_MAX = 0.5, 30
local REVOKE_TIMEOUT = 2

local Announcement = {}
Announcement.__index = Announcement

-- Steps -----------------------------------------------------------------------------------------

local function told(self, err)
    local message = err and tostring(err)
    if message and message ~= self._message then
        self._console:warn(format("cannot announce %s: %s", self.target, message))
    elseif not message and self._message then
        self._console:info(format("%s: announced again", self.target))
    end
    self._message = message
end

-- Wait longer and longer, and never as long as the others.
local function back_off(self, task)
    local delay = self._delay or RETRY_MIN
    self._delay = min(delay * 2, RETRY_MAX)
    task:sleep(delay * (0.5 + process.random()))
end

-- Start a lease and the child that keeps it alive. True, or nil and an error.
local function begin(self, task)
    local output, err = self._client:await(task, { "lease", "grant", format("%d", self._ttl) })
    if not output then return nil, err end
    -- As text: a double could not hold the number that JSON would have.
    self._lease = match(output, "lease (%x+) granted")
    if not self._lease then
        return nil, self._client:failure "Error: etcdctl printed no lease that we know"
    end
    local child, start_err = self._client:start { "lease", "keep-alive", self._lease }
    if not child then return nil, start_err end
    self._keeper = child
    return true
end

local function put(self, task)
    local wanted = self._wanted
    local output, err = self._client:await(task, { "put", "--lease=" .. self._lease, "--",
        self.key }, { input = wanted })
    if not output then return nil, err end
    self._put = wanted
    return true
end

-- Keep what is wanted there for as long as the lease lives. What fails is tried again on the same
-- lease: where etcd is slow, because all of a fleet want something of it, a new one for each
-- attempt would make it slower.
local function keep(self, task)
    local keeper = self._keeper
    self._put = nil
    while not keeper.status do
        keeper:take()
        local done, err = true, nil
        if self._put ~= self._wanted then
            done, err = put(self, task)
            told(self, err)
        end
        if not done then
            if err.kind == "no_lease" then return end
            back_off(self, task)
        else
            self._delay = nil
            task:wait(function()
                return keeper.status or #keeper.chunks > 0 or self._put ~= self._wanted
            end)
        end
    end
end

local function run(self, task)
    while true do
        task:wait(function() return self._wanted end)
        local begun, err = begin(self, task)
        if begun then
            keep(self, task)
            self._keeper:destroy()
            self._keeper = nil
        else
            told(self, err)
        end
        back_off(self, task)
    end
end

-- The outside -----------------------------------------------------------------------------------

--- Announce STATE from now on, instead of what was before.
-- @tparam table state strings and numbers by name; `host` and `target` are added
function Announcement:tell(state)
    local record = { host = self._host, target = self.target }
    for name, value in pairs(state) do record[name] = value end
    self._wanted = console.encode(record)
end

--- Take it back.
function Announcement:close()
    self.task.done = true
    if self._keeper then
        self._keeper:destroy()
        self._client:run({ "lease", "revoke", self._lease }, { timeout = REVOKE_TIMEOUT })
    end
    self._client:close()
end

local M = {}

--- Announce a target. Nothing is put before the first `tell`, nor without steps of its `task`.
-- @tparam table client of `atomicwriter.cli.etcd.client`, for the announcement alone
-- @tparam string prefix
-- @tparam string target absolute
-- @tparam table opts `console`, `host`; `ttl`: seconds (30) after which a machine that is gone is
--  forgotten
-- @treturn Announcement
function M.new(client, prefix, target, opts)
    local self = setmetatable({
        target = target, key = prefix .. opts.host .. target, _host = opts.host,
        _client = client, _console = opts.console, _ttl = max(1, math.ceil(opts.ttl or TTL)),
    }, Announcement)
    self.task = require("atomicwriter.cli.task").new(function(task) run(self, task) end)
    return self
end

-- What there is to say ----------------------------------------------------------------------------

--- What a machine has, after an attempt to give it something.
-- @tparam table before what it had, as of the last call; empty at first
-- @tparam table projection with `origin`, `has_check`, `has_reload`
-- @tparam ?table outcome of `projection:write`; nil: the payload could not be gathered
-- @tparam ?table err
-- @treturn table `revision`, `version`; `reads`: by prefix, the keys that it has of that revision,
--  in short, see `atomicwriter.cli.etcd.feed.summary`; `check`: `"passed"` or `"failed"`; `reload`:
--  `"done"`, `"failed"` or `"rolled back"`; `error` and `tried`, the revision of it, when the last
--  attempt has failed
function M.state_of(before, projection, outcome, err)
    local origin = projection.origin or {}
    local state = {
        revision = before.revision, reads = before.reads, version = before.version,
        check = before.check, reload = before.reload,
    }
    local reason = err or outcome and outcome.reload_error
    if reason then state.error, state.tried = tostring(reason), origin.revision end
    if not outcome then return state end
    if err then
        if err.code == "check_failed" then state.check = "failed" end
        return state
    end
    if projection.has_check and outcome.result.changed then state.check = "passed" end
    if outcome.rolled_back then
        state.reload, state.version = "rolled back", outcome.live
        return state
    end
    if projection.has_reload and outcome.result.changed then
        state.reload = outcome.reload_error and "failed" or "done"
    end
    state.revision, state.reads = origin.revision, origin.reads
    state.version = outcome.live or outcome.result.version
    return state
end

return M
