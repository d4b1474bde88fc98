--- The consumer's side: act on each new version of a target.
--
-- There may be a child, the service that reads the target. It is started at once and restarted at
-- each new version, unless it is to be signalled, or left alone while a reload command runs.
-- One loop waits for versions, signals and the child's end; what it then does, it does to the end,
-- so that no two actions ever overlap, and the last version always gets its own.
--
-- The child has our standard streams but a session of its own: a terminal's ^C reaches us alone,
-- and the child gets it from us, once.
-- @module atomicwriter.cli.follow

local process = require "atomicwriter.cli.process"

local DEBOUNCE = 0.1 -- seconds
local DEBOUNCE_MAX = 20 -- times that, when versions never cease
local GRACE = 10
local LOOK_EVERY = 1 -- seconds; a target that is gone does not always make an event
local TICK = 0.02

-- Handed on to the child besides those that process.signals catches.
local ALSO_FORWARDED = { "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH" }

---- the target -----------------------------------------------------------------------

-- The descriptor stays readable until the watcher is asked, so it is polled once and then again.
local function await_event(self)
    self.readable = false
    self.poll:start("r", function()
        self.readable = true
        self.poll:stop()
    end)
end

local function unwatch(self)
    if not self.watcher then return end
    process.release { self.poll }
    self.watcher:close()
    self.watcher, self.poll, self.readable = nil, nil, false
end

-- Watch the target, and find the version that is live now.
local function watch(self)
    local atomicwriter = require "atomicwriter"
    local watcher, err = atomicwriter.watch(self.target)
    if not watcher then return nil, err end
    self.watcher = watcher
    self.poll = process.uv().new_poll(watcher:fd())
    await_event(self)
    local snapshot = atomicwriter.open(self.target)
    if snapshot then
        self.version = snapshot.version
        snapshot:close()
    end
    return true
end

-- Ask which version is live. A target that cannot be watched is tried again each time.
local function look(self)
    local version, why
    if self.watcher then
        version, why = self.watcher:wait(0)
        if version then self.version = version end
        if version or why == "timeout" then return await_event(self) end
        unwatch(self)
    else
        local watched
        watched, why = watch(self)
        if watched then
            self.console:info(("%s: it is back"):format(self.target))
            self.trouble = nil
            return
        end
    end
    if not self.trouble then
        self.console:error(("%s; waiting for it"):format(tostring(why)))
        self.trouble = true
    end
end

-- A version of a target that is gone is not acted upon.
local function is_outdated(self)
    return self.watcher and self.version ~= self.acted
end

---- the child ----------------------------------------------------------------------

local function environment(self)
    return {
        ATOMICWRITER_TARGET = process.absolute(self.target) or self.target,
        ATOMICWRITER_VERSION = self.version or "",
    }
end

local function start_child(self)
    local opts = { stdio = "inherit", env = environment(self) }
    local child, err = process.start(self.command, opts)
    self.child = child
    if child then return true end
    self.console:error(tostring(err))
end

local function child_ended(self)
    return self.child and self.child.status
end

-- End what the ended child has left in its group: SIGTERM, and after DEADLINE or a second signal
-- that stops us, SIGKILL.
local function end_group(self, deadline)
    local child = self.child
    if not child:has_group() then return end
    child:signal_group("TERM")
    while child:has_group() do
        if process.now() >= deadline or self.signals.stops > 1 then
            return child:signal_group("KILL")
        end
        process.wait(function() return false end, TICK)
    end
end

-- End the child and all of its group: SIGTERM, and when the grace is over, SIGKILL.
local function stop_child(self)
    local child = self.child
    local deadline = process.now() + self.grace
    child:signal("TERM")
    process.wait(function() return child.status or self.signals.stops > 1 end, self.grace)
    if not child.status then
        if self.signals.stops <= 1 then
            self.console:warn(("%s did not end within %g s and is killed")
                :format(self.command[1], self.grace))
        end
        child:signal("KILL")
        process.wait(function() return child.status end)
    end
    end_group(self, deadline)
    child:close()
end

---- acting on a version -----------------------------------------------------------------

local function reload(self)
    local status, err = process.run(self.reload, {
        env = environment(self), timeout = self.timeout, signals = self.signals,
        on_stop = "finish",
    })
    if status and status.ok then return end
    self.console:error(("%s: the reload %s"):format(self.version,
        status and process.describe(status) or "failed: " .. tostring(err)))
end

local function signal_service(self)
    if self.child then return self.child:signal(self.signal) end
    local pid, err = process.read_pid(self.pid_file)
    local sent
    if pid then sent, err = process.kill(pid, self.signal) end
    if not sent then self.console:error(("%s: %s"):format(self.version, tostring(err))) end
end

local function restart(self)
    stop_child(self)
    return self.signals.stop or start_child(self)
end

-- Returns nil when there is no service left to follow for.
local function act(self)
    self.acted = self.version
    self.console:info(("%s: version %s"):format(self.target, self.version),
        { target = self.target, version = self.version })
    if self.reload then
        reload(self)
    elseif self.signal then
        signal_service(self)
    else
        return restart(self)
    end
    return true
end

---- the loop ---------------------------------------------------------------------------

local function is_ending(self)
    return self.signals.stop or child_ended(self)
end

-- Wait until no more versions come in.
local function let_settle(self)
    local stop_at = process.now() + self.debounce * DEBOUNCE_MAX
    while process.wait(function() return self.readable or is_ending(self) end, self.debounce) do
        if is_ending(self) or process.now() >= stop_at then break end
        look(self)
    end
    look(self)
end

-- Follow until the service or we are to end. Returns nil when a restart failed.
local function serve(self)
    while not is_ending(self) do
        look(self)
        if is_outdated(self) then let_settle(self) end
        if not is_ending(self) and is_outdated(self) and not act(self) then return nil end
        if not is_outdated(self) then
            process.wait(function() return self.readable or is_ending(self) end, LOOK_EVERY)
        end
    end
    return true
end

-- The signal that stops us went to the child as well: its end is ours.
local function leave(self)
    local child = self.child
    if not child then return 0 end
    process.wait(function() return child.status end)
    if self.signals.stop then
        end_group(self, process.now() + self.grace)
    else
        self.console:info(("%s %s"):format(self.command[1], process.describe(child.status)))
    end
    child:close()
    return child.status.code
end

local function forward_signals(self)
    local function forward(name)
        if self.child then self.child:signal(name) end
    end
    self.signals:forward(forward)
    local handles = {}
    if not self.command then return handles end
    for i, name in ipairs(ALSO_FORWARDED) do
        handles[i] = process.uv().new_signal()
        handles[i]:start(process.signal_number(name), function() forward(name) end)
    end
    return handles
end

local function run(self)
    local watched, err = watch(self)
    if not watched then
        self.console:error(tostring(err))
        return 1
    end
    self.acted = self.version
    local handles = forward_signals(self)
    local code = 1
    if self.signals.stop then
        code = 0
    elseif (not self.command or start_child(self)) and serve(self) then
        code = leave(self)
    end
    process.release(handles)
    self.signals:forward(nil)
    unwatch(self)
    return code
end

local M = {}

--- Follow a target until SIGINT or SIGTERM, or the child's own end.
--
-- The version that is live at the start is not acted upon. Versions that come in a burst, or while
-- one is acted upon, are acted upon once, with the last of them. Child and reload find the target
-- and the version in `ATOMICWRITER_TARGET` and `ATOMICWRITER_VERSION`.
--
-- SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are handed on to the child. After
-- SIGINT or SIGTERM it has as long to end as it likes; what it then leaves in its process group is
-- ended, too. A target that disappears is waited for.
-- @tparam table options
-- @tparam string options.target
-- @tparam[opt] {string,...} options.command the child: a program, and its arguments
-- @tparam[opt] string options.signal is sent instead of restarting: `"HUP"`
-- @tparam[opt] string options.pid_file names the process to signal when there is no child
-- @tparam[opt] string options.reload shell command, run instead of restarting
-- @tparam[opt=0.1] number options.debounce seconds without a new version before acting
-- @tparam[opt=10] number options.grace seconds between SIGTERM and SIGKILL at a restart
-- @tparam[opt] number options.timeout seconds that a reload may take
-- @tparam table console
-- @tparam Signals signals
-- @treturn number exit code: the child's, 128 + N when signal N ended it; 0 without a child; 1 when
--  the target is missing at the start, or the child cannot be started
function M.run(options, console, signals)
    return run {
        target = options.target, command = options.command, signal = options.signal,
        pid_file = options.pid_file, reload = options.reload, timeout = options.timeout,
        debounce = options.debounce or DEBOUNCE, grace = options.grace or GRACE,
        console = console, signals = signals, readable = false,
    }
end

return M
