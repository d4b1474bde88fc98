--- One target and what belongs into it: gathered, checked, published, reloaded.
--
-- The order is always: gather the payload, write it (the check looks at the staged tree), and once
-- it is published run the reload or send the signal. When that fails, the previous version is
-- published again, under a new name, and reloaded.
--
-- The outcome's `code` is the exit code of the command line: 0 done, 1 failed, 3 refused by the
-- check, 4 published but not reloaded.
-- @module atomicwriter.cli.projection

local find, format, gsub, match = string.find, string.format, string.gsub, string.match

local PROGRESS_AFTER = 1 -- seconds
local HOOK_INTERVAL = 1000000 -- instructions of Lua: some milliseconds

local DONE, FAILED, CHECK_FAILED, RELOAD_FAILED = 0, 1, 3, 4

local Projection = {}
Projection.__index = Projection

local function process()
    return require "atomicwriter.cli.process"
end

-- Commands ------------------------------------------------------------------------------------

-- Run COMMAND, a shell command or a function, which gets ARGUMENT. True, or nil and why not; where
-- a function raised it is in `_raised`.
local function call(self, command, argument, options)
    self._raised = nil
    if type(command) == "function" then
        local ok, answer, reason = xpcall(command, self._on_raise, argument)
        if not ok then
            self._raised = answer.traceback
            return nil, answer.message
        end
        -- A reload that says nothing has done its work; a check has to say yes.
        local is_silent = answer == nil and reason == nil
        if answer == true or is_silent and options.may_be_silent then return true end
        return nil, reason and tostring(reason) or "it did not return true"
    end
    options.timeout, options.signals = self._timeout, self._services.signals
    local status, err = process().run(command, options)
    if not status then return nil, tostring(err) end
    if not status.ok then return nil, "the command " .. process().describe(status) end
    return true
end

-- What commands find in their environment: the target, and MORE.
local function environment(self, more)
    more.ATOMICWRITER_TARGET = process().absolute(self.target) or self.target
    return more
end

local function check(self, stage)
    local command = self._check
    if type(command) == "string" then
        command = require("atomicwriter.cli.placeholder").fill(command, stage)
    end
    return call(self, command, stage, {
        on_stop = self._stays and "finish" or "pass",
        env = environment(self, { ATOMICWRITER_STAGE = stage }),
    })
end

local function send_signal(self)
    local pid, err = process().read_pid(self._pid_file)
    if not pid then return nil, tostring(err) end
    local sent, send_err = process().kill(pid, self._signal)
    if not sent then return nil, tostring(send_err) end
    return true
end

-- Tell the consumers of RESULT.version. True, or nil and why not.
local function reload(self, result)
    local ok, why = true, nil
    if self._reload then
        self._services.console:debug("reloading")
        ok, why = call(self, self._reload, result, {
            on_stop = "finish", may_be_silent = true,
            env = environment(self, {
                ATOMICWRITER_VERSION = result.version,
                ATOMICWRITER_PREVIOUS = result.previous or "",
            }),
        })
    end
    if ok and self._signal then ok, why = send_signal(self) end
    if ok then return true end
    return nil, "the reload failed: " .. why
end

-- Publish what was live before RESULT again. What became of it in words, and the version that is
-- live now, when it worked.
local function roll_back(self, result)
    if not self._rolls_back then return "the new version stays, as was asked" end
    if not result.previous then
        return "the new version stays, since there is no previous one to roll back to"
    end
    local back, err = self._writer:rollback(result.previous, { expect = result.version })
    if not back then return "it was not rolled back: " .. tostring(err) end
    local ok, why = reload(self, back)
    local what = format("rolled back to %s, live as %s", result.previous, back.version)
    if ok then return what, back.version end
    return format("%s, but then %s", what, why), back.version
end

-- Results -------------------------------------------------------------------------------------

local SIGNS = { { "added", "+" }, { "updated", "~" }, { "removed", "-" } }

local function describe(self, result, dry_run)
    local lines = {}
    for _, kind in ipairs(SIGNS) do
        for _, path in ipairs(result[kind[1]]) do lines[#lines + 1] = kind[2] .. " " .. path end
    end
    local what = format("unchanged, %s", result.version or "nothing is live")
    if result.changed then
        what = format("%s (%d added, %d updated, %d removed, %d unchanged)",
            dry_run and "would be published" or "published " .. result.version,
            #result.added, #result.updated, #result.removed, result.unchanged)
    end
    lines[#lines + 1] = format("%s: %s", self.target, what)
    return lines
end

local LISTS = { "added", "updated", "removed", "warnings" }

-- RESULT for the JSON encoder, which takes an empty table for an object.
local function record_of(self, result, more)
    local record = { target = self.target }
    for name, value in pairs(result) do record[name] = value end
    for name, value in pairs(more or {}) do record[name] = value end
    for _, name in ipairs(LISTS) do
        record[name] = require("atomicwriter.template.json").list(result[name])
    end
    return record
end

-- Print RESULT and what MORE there is to say of it. The exit code: CODE, or at least that of a
-- failure when it cannot be printed.
local function print_result(self, result, more, lines, code)
    local console = self._services.console
    local printed, why = console:result(function()
        return record_of(self, result, more)
    end, lines)
    if printed then return code end
    local is_live = result.changed and more.live
    console:error(format("%s: %s%s", self.target, is_live and more.live .. " is live, but " or "",
        why))
    return math.max(code, FAILED)
end

-- With what to do next, where that is known.
local function advise(self, err)
    local signals = self._services.signals
    local ended = err.code == "check_failed" and signals and signals.stop and not self._stays
    if err.code == "cancelled" or ended then
        err.code, self._services.interrupted = "cancelled", true
        err.message = format("%s: interrupted; nothing was published", self.target)
    elseif err.code == "no_target" and self._gather and not self._options.create
        and find(err.message, "no such", 1, true) then
        err.message = err.message .. " (--create, or create = true, makes it)"
    end
end

local function failed(self, err)
    advise(self, err)
    if err.code == "check_failed" then err.traceback = self._raised end
    self._services.console:fail_in_json(err, self.target)
    return { code = err.code == "check_failed" and CHECK_FAILED or FAILED, error = err }
end

-- The steps -----------------------------------------------------------------------------------

local PHASES = {
    lock = "waiting for another writer", compare = "comparing", write = "writing",
    sync = "syncing",
}

-- What the writer calls now and then: signals come in, the terminal shows how far it is.
local function watch_progress(self)
    local services = self._services
    local compared, started = false, nil
    return function(progress)
        -- A write that changes nothing shall not have to load luv, unless it takes its time.
        local quick = progress.phase == "compare" and not compared
        compared = true
        if quick and not services.signals then return true end
        local found, why = pcall(require, "luv")
        if not found then
            -- The interpreter raises a SIGINT anywhere, also while luv is being loaded.
            return not find(tostring(why), "interrupted!", 1, true), "SIGINT"
        end
        local signals = services:catch_signals()
        signals:poll()
        local waits = progress.phase == "lock"
        if signals.stop and (waits or not self._stays) then return false, signals.stop end
        if signals.stops > 1 then return false, signals.stop end
        started = started or process().now()
        if process().now() - started >= PROGRESS_AFTER then
            local count = progress.phase ~= "lock"
                and format(", %d of %d files, %.1f MiB", progress.files, progress.total,
                    progress.bytes / 2 ^ 20) or ""
            services.console:progress(
                format("%s: %s%s", self.target, PHASES[progress.phase] or progress.phase, count))
        end
        return true
    end
end

local function open_writer(self)
    if self._writer then return self._writer end
    local writer, err = require("atomicwriter").new(self.target, self._options)
    if not writer then return nil, err end
    self._writer = writer
    return writer
end

-- Gather, but not for ever once signals are caught: a template can loop without end.
local function gather_interruptibly(self)
    local signals = self._services.signals
    if not signals then return self._gather(self) end
    local first, interrupted = signals.stops, nil
    debug.sethook(function()
        signals:poll()
        if signals.stops > first then
            debug.sethook()
            interrupted = require("atomicwriter.failure").new {
                code = "cancelled", message = self.target .. ": interrupted while rendering",
            }
            error(interrupted, 0)
        end
    end, "", HOOK_INTERVAL)
    local ok, payload, err = pcall(self._gather, self)
    debug.sethook()
    if interrupted then return nil, interrupted end -- wherever it was raised, and caught
    if not ok then error(payload, 0) end
    return payload, err
end

--- Gather the payload, the inputs of which are noted for `inputs`.
-- @treturn[1] table payload
-- @treturn[2] nil
-- @treturn[2] table error
function Projection:gather()
    if not self._services.new_inputs then return gather_interruptibly(self) end
    local set = self._services.new_inputs()
    self.inputs = set
    for _, path in ipairs(self._watch) do set:add(path) end
    return require("atomicwriter.input").observe(function(path) set:add(path) end,
        gather_interruptibly, self)
end

-- That the target cannot be made, or nil.
local function parent_failure(self)
    local input = require "atomicwriter.input"
    if not self._options.create or input.is_directory(self.target) then return nil end
    local parent = match(gsub(self.target, "(.)/+$", "%1"), "^(.*/)") or "."
    if input.is_directory(parent) then return nil end
    return require("atomicwriter.failure").new {
        code = "no_target", message = self.target .. ": its parent directory does not exist",
    }
end

local function refuse_empty(self, payload)
    return require("atomicwriter.cli.sources").refuse_empty(self.target, payload,
        self._allow_empty)
end

--- What a write of PAYLOAD would do; prints it.
-- @tparam table payload
-- @treturn table outcome
function Projection:plan(payload)
    local empty = refuse_empty(self, payload)
    if empty then return failed(self, empty) end
    local writer, err = open_writer(self)
    if not writer then return failed(self, err) end
    local result, plan_err = nil, parent_failure(self)
    if not plan_err then result, plan_err = writer:plan(payload) end
    if not result then return failed(self, plan_err) end
    local code = print_result(self, result, {}, describe(self, result, true), DONE)
    return { code = code, result = result }
end

local function publish(self, payload)
    local writer, err = open_writer(self)
    if not writer then return nil, err end
    if self._check or self._reload or self._signal then self._services:catch_signals() end
    local options = { progress = watch_progress(self) }
    if self._check then options.check = function(stage) return check(self, stage) end end
    return writer:write(payload, options)
end

-- A version is live although the write failed, in the sync after the swap, say: it gets its reload
-- like any other, since the next write will find nothing changed.
local function reload_committed(self)
    local versions = self._writer:versions()
    local live, previous = versions and versions[1], versions and versions[2]
    if not live then return end
    local ok, why = reload(self, { version = live.name, previous = previous and previous.name })
    if not ok then
        self._services.console:error(format("%s: %s", self.target, why),
            { traceback = self._raised })
    end
end

-- What follows a write: reload, and print. RESULT and ERR are what it returned.
local function finish(self, result, err)
    local console = self._services.console
    console:clear_progress()
    if not result then
        if err.committed then reload_committed(self) end
        return failed(self, err)
    end
    for _, warning in ipairs(result.warnings) do console:warn(warning) end
    if not result.changed and self._stays then return { code = DONE, result = result } end
    local lines, more = describe(self, result), { live = result.version }
    local code = DONE
    if result.changed then
        local ok, why = reload(self, result)
        if not ok then
            local what, version = roll_back(self, result)
            more.reload_error, more.rolled_back, code = why, version ~= nil, RELOAD_FAILED
            more.live = version or result.version
            lines[#lines + 1] = format("%s: %s", self.target, what)
            console:error(format("%s: %s; %s", self.target, why, what),
                { traceback = self._raised })
        end
    end
    return {
        code = print_result(self, result, more, lines, code), result = result, live = more.live,
        reload_error = more.reload_error, rolled_back = more.rolled_back,
    }
end

--- Write PAYLOAD and reload; prints the result.
-- @tparam table payload one without any file is an error, unless `allow_empty` is set
-- @treturn table outcome: `code`; `result` of the write, or `error`, which the caller logs; `live`,
--  the version that is live now, `reload_error` and `rolled_back` where something was published
function Projection:write(payload)
    local empty = refuse_empty(self, payload)
    if empty then return failed(self, empty) end
    return finish(self, publish(self, payload))
end

--- Publish a retained version again, and reload; prints the result.
-- @tparam ?string version nil: the newest retained one
-- @treturn table outcome
function Projection:rollback(version)
    local writer, err = open_writer(self)
    if not writer then return failed(self, err) end
    if self._reload or self._signal then self._services:catch_signals() end
    local result, rollback_err =
        writer:rollback(version, { progress = watch_progress(self) })
    if not result and not version and rollback_err.code == "not_found" then
        rollback_err.message = format("%s: no version is retained to roll back to", self.target)
    end
    return finish(self, result, rollback_err)
end

--- Close the writer.
function Projection:close()
    if self._writer then self._writer:close() end
    self._writer = nil
end

local M = { DONE = DONE, RELOAD_FAILED = RELOAD_FAILED }

--- Make a projection.
-- @tparam table fields `target`; `gather`: `function(projection)` that returns a payload, or nil
--  and an error; `options` of the writer; `allow_empty`: a payload without any file is no error;
--  `check` and `reload`: shell commands or functions; `signal` and `pid_file`; `rollback` (true):
--  undo what cannot be reloaded; `timeout` of commands in seconds (60; 0: none); `watch`: more
--  paths whose change means to gather again; `on_raise`: what becomes of an error that CHECK or
--  RELOAD raises, a table with `message` and `traceback`
-- @tparam table services `console`; `signals` or nil; `new_inputs`: makes a set of inputs, or nil;
--  `stays`: it watches, so that signals cancel no write and what is unchanged is not told
-- @treturn table
function M.new(fields, services)
    return setmetatable({
        target = fields.target,
        _gather = fields.gather, _options = fields.options, _check = fields.check,
        _reload = fields.reload, _signal = fields.signal, _pid_file = fields.pid_file,
        _rolls_back = fields.rollback ~= false, _allow_empty = fields.allow_empty,
        _timeout = require("atomicwriter.cli.values").command_timeout(fields.timeout),
        has_check = fields.check ~= nil, has_reload = (fields.reload or fields.signal) ~= nil,
        _watch = fields.watch or {}, _on_raise = fields.on_raise,
        _services = services, _stays = services.stays,
    }, Projection)
end

return M
