--- Stay, and project again whenever an input changes.
--
-- The loop waits for file events, signals and timers; what it then does, it does to the end:
-- gather, write, reload, one projection after the other. So no two commands ever overlap, and what
-- changed meanwhile is found by the next look at the inputs. A projection that fails keeps its
-- last good version; the failure is told once, and tried again when an input changes and, in case
-- it was the world's fault, later and later.
-- @module atomicwriter.cli.watching

local projection = require "atomicwriter.cli.projection"

local format, max, min = string.format, math.max, math.min

local DEBOUNCE = 0.1 -- seconds
local DEBOUNCE_MAX = 20 -- times that, when changes never cease
local SETTLE = 0.05 -- an edit may hide in the same tick of the clock for so long
local RETRY_MIN, RETRY_MAX = 1, 60

local function now()
    return require("atomicwriter.cli.process").now()
end

local function wait(predicate, timeout)
    return require("atomicwriter.cli.process").wait(predicate, timeout)
end

-- Tell of a failure once, and of the recovery.
local function report(self, item, err)
    local message = err and tostring(err)
    if message and item.message ~= message then
        self._console:log_error(err)
    elseif not message and item.message then
        self._console:info(format("%s: recovered", item.name))
    end
    item.message = message
end

-- Whether two payloads have the same entries; OTHER may be nil.
local function is_same(payload, other)
    if not other then return false end
    for path, entry in pairs(payload) do
        local twin = other[path]
        if type(entry) == "table" and type(twin) == "table" then
            for field, value in pairs(entry) do
                if twin[field] ~= value then return false end
            end
        elseif entry ~= twin then
            return false
        end
    end
    for path in pairs(other) do
        if payload[path] == nil then return false end
    end
    return true
end

-- Gather and write one projection; sets when to come back to it.
local function apply(self, item)
    local target = item.projection
    local payload, err = target:gather()
    -- What could not be reloaded is not tried again until an input changes, or SIGHUP asks for it.
    local outcome
    if payload and (item.asked or not is_same(payload, item.refused)) then
        outcome = target:write(payload)
        err = outcome.error
        item.refused = outcome.code == projection.RELOAD_FAILED and payload or nil
    end
    if self._announcing and (outcome or err) then
        self._announcing:tell(target, outcome, err)
    end
    report(self, item, err)
    item.due, item.delay = nil, err and min((item.delay or RETRY_MIN / 2) * 2, RETRY_MAX) or nil
    if err then
        item.due = now() + item.delay
    elseif target.inputs:unsettled() then
        item.due = now() + SETTLE
    elseif self._interval > 0 then
        item.due = now() + self._interval
    end
end

local function new_items(projections)
    local items = {}
    for index, target in ipairs(projections) do
        items[index] = { projection = target, name = target.target, asked = true }
    end
    return items
end

-- The projections that are to be made again: all, those whose inputs changed, those that are due.
local function find_work(self, all)
    local work = {}
    for _, item in ipairs(self._items) do
        item.asked = all or item.projection.inputs:changed() ~= nil
        if item.asked or item.due and item.due <= now() then
            work[#work + 1] = item
        end
    end
    return work
end

local function follow_inputs(self)
    local sets = { self._loader and self._loader.inputs }
    for _, item in ipairs(self._items) do sets[#sets + 1] = item.projection.inputs end
    local union = require("atomicwriter.cli.inputs").union(sets)
    self._watcher:follow(union)
    local hub = self._services.hub
    if hub then hub:retain(union.feeds) end
    if self._announcing then
        local targets = {}
        for _, item in ipairs(self._items) do targets[item.projection.target] = true end
        self._announcing:retain(targets)
    end
    if self._watcher.reason and not self._reason_told then
        self._reason_told = true
        self._console:warn(self._watcher.reason)
    end
end

-- Wait for an event, a signal, or the time at which something is due.
local function wait_for_change(self)
    local hub = self._services.hub
    local due = hub and hub:due() or math.huge
    for _, item in ipairs(self._items) do due = min(due, item.due or due) end
    wait(function()
        return self._signals.stop or self._signals.hangups > 0 or self._watcher.dirty
            or hub and hub:stirred()
    end, due < math.huge and max(due - now(), 0) or nil)
end

-- Let etcd's side go on. Whether anything has changed there.
local function step_hub(self)
    local hub = self._services.hub
    if not hub then return false end
    local before = hub:generation()
    hub:step()
    return hub:generation() ~= before
end

-- Wait until no more events come in.
local function let_settle(self)
    local signals, watcher, hub = self._signals, self._watcher, self._services.hub
    local stop_at = now() + self._debounce * DEBOUNCE_MAX
    repeat
        watcher.dirty = false
        local more = wait(function()
            return watcher.dirty or signals.stop or hub and hub:stirred()
        end, self._debounce)
        step_hub(self)
    until not more or signals.stop or now() >= stop_at
end

local function pause(self)
    if self._splay <= 0 then return end
    wait(function() return self._signals.stop end,
        require("atomicwriter.cli.process").random() * self._splay)
end

-- Read the script anew; what it said before stays when it cannot be read.
local function load_again(self)
    local projections, err = self._loader:load()
    report(self, self._script, err)
    if not projections then return false end
    local told = {}
    for _, item in ipairs(self._items) do
        item.projection:close()
        told[item.name] = item.message
    end
    self._items = new_items(projections)
    for _, item in ipairs(self._items) do item.message = told[item.name] end
    return true
end

local function look(self)
    local signals = self._signals
    local etcd_changed = step_hub(self)
    if self._watcher.dirty or signals.hangups > 0 or etcd_changed then let_settle(self) end
    if signals.stop then return end
    local all = signals.hangups > 0
    if all and self._services.hub then self._services.hub:refresh() end
    signals.hangups = 0
    if self._loader and (all or self._loader.inputs:changed()) and load_again(self) then
        all = true
    end
    local work = find_work(self, all)
    if #work > 0 then pause(self) end
    for _, item in ipairs(work) do
        if not signals.stop then apply(self, item) end
    end
end

-- What announces this machine, if that is asked for; or nil and an error.
local function new_announcing(args, services)
    if not args.announce then return false end
    local client, err = require("atomicwriter.cli.etcd.requests").client(args)
    if not client then return nil, err end
    return require("atomicwriter.cli.etcd.announcing").new(client, args.announce,
        args.announce_ttl, services)
end

local M = {}

--- Project, then watch until SIGINT or SIGTERM ends it.
-- @tparam table projections made with the services below and `new_inputs`
-- @tparam table args `debounce`, `splay`, `interval`: seconds
-- @tparam table services `console`, `signals`
-- @tparam[opt] table loader what PROJECTIONS come from, if that can change: `loader:load()` returns
--  new ones, or nil and an error, and `loader.inputs` are the inputs that it read
-- @treturn number exit code: 0, unless it cannot begin
function M.run(projections, args, services, loader)
    local announcing, err = new_announcing(args, services)
    if announcing == nil then return services.console:fail(err) end
    local self = {
        _items = new_items(projections), _loader = loader,
        _script = { name = loader and loader.name },
        _debounce = args.debounce or DEBOUNCE, _splay = args.splay or 0,
        _interval = args.interval or 0,
        _console = services.console, _signals = services.signals, _services = services,
        _watcher = require("atomicwriter.cli.inputs").watch(), _announcing = announcing,
    }
    for _, item in ipairs(self._items) do
        if not self._signals.stop then apply(self, item) end
    end
    self._console:info("watching for changes")
    while not self._signals.stop do
        follow_inputs(self)
        wait_for_change(self)
        look(self)
    end
    self._watcher:close()
    if self._announcing then self._announcing:close() end
    for _, item in ipairs(self._items) do item.projection:close() end
    self._console:info("ended by " .. self._signals.stop)
    return projection.DONE
end

return M
