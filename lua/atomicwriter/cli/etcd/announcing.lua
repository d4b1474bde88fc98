--- The announcements of all targets of a process.
-- @module atomicwriter.cli.etcd.announcing

local announcement = require "atomicwriter.cli.etcd.announcement"

local Announcing = {}
Announcing.__index = Announcing

local function hostname()
    return require("atomicwriter.cli.process").uv().os_gethostname()
end

-- The version that is live before anything was written; nil when there is none.
local function live_version(target)
    local snapshot = require("atomicwriter").open(target)
    if not snapshot then return nil end
    local version = snapshot.version
    snapshot:close()
    return version
end

local function of_target(self, target)
    local entry = self._entries[target]
    if entry then return entry end
    local made = announcement.new(self._client:copy(), self._prefix,
        require("atomicwriter.cli.process").absolute(target) or target,
        { console = self._services.console, host = hostname(), ttl = self._ttl })
    entry = { announcement = made, state = { version = live_version(target) } }
    self._entries[target] = entry
    self._services:etcd():add(made.task)
    return entry
end

--- Announce what came of an attempt, see `atomicwriter.cli.etcd.announcement`.
-- @tparam table projection
-- @tparam ?table outcome
-- @tparam ?table err
function Announcing:tell(projection, outcome, err)
    local entry = of_target(self, projection.target)
    entry.state = announcement.state_of(entry.state, projection, outcome, err)
    entry.announcement:tell(entry.state)
end

--- Take back what is announced of other targets.
-- @tparam table used targets as keys
function Announcing:retain(used)
    for target, entry in pairs(self._entries) do
        if not used[target] then
            entry.announcement:close()
            self._entries[target] = nil
        end
    end
end

--- Take everything back.
function Announcing:close()
    self:retain {}
end

local M = {}

--- Prepare to announce.
-- @tparam table client of `atomicwriter.cli.etcd.client`
-- @tparam string prefix
-- @tparam ?number ttl
-- @tparam table services
-- @treturn Announcing
function M.new(client, prefix, ttl, services)
    return setmetatable({
        _client = client, _prefix = prefix, _ttl = ttl, _services = services, _entries = {},
    }, Announcing)
end

return M
