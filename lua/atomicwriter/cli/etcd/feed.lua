--- A live copy of all that is below a prefix of etcd.
--
-- It begins with one read, which is one revision, and goes on with the events after that revision.
-- etcd never splits the events of a revision, and neither do we: `files` is always what was below
-- the prefix at `revision`. What etcdctl 3.4 does in bad times, and what we do about it:
--
-- - When the connection is lost, `watch` keeps quiet, and resumes by itself, without a gap; after a
--   long time it looks for the server every two minutes only. So it is asked for its progress every
--   three seconds. In 3.4.23 the answer may overtake events: all it tells is that there is a
--   connection, and that etcd has gone back, when it has a revision before ours: a backup was
--   restored, or etcd was made anew. Then, or when there is no answer, a check is made at once.
-- - etcd's gRPC proxy never answers that. So a check, a read of the keys alone, is made once a
--   minute, too, and more often while nothing answers. It also finds whatever a bug may have lost.
--   Then everything is read again.
-- - When the revision to resume from has been compacted, `watch` prints a response that says so,
--   and ends or, when interactive, does not. Everything is read again.
-- - `watch` would outlive us and not notice. An interactive one ends when its input does.
--
-- When nothing answers, the copy stays as it was.
-- @module atomicwriter.cli.etcd.feed

local encoding = require "atomicwriter.cli.etcd.encoding"
local failure = require "atomicwriter.failure"
local process = require "atomicwriter.cli.process"

local find, format, gmatch, match, max, min, sub =
    string.find, string.format, string.gmatch, string.match, math.max, math.min, string.sub

local CHECK = 60 -- seconds between looks at whether anything was missed
local CHECK_TIMEOUT, CHECK_RETRY_MAX = 30, 10
local PULSE = 3 -- between questions whether there is a connection
local PATIENCE = 1.5 -- for the answer
local HASTE = 1.5 -- for a check that there is reason for
local GRACE = 5 -- for what is under way to come in
local RETRY_MIN, RETRY_MAX = 0.5, 30
local SETTLED = 10 -- after so long, a watch that ends has not failed at once

-- What `publish` leaves beside the files, see `atomicwriter.cli.etcd.publication`: here, and below
-- when somebody publishes there.
local MARK = "..published"

local function is_mark(path)
    return path == MARK or sub(path, -#MARK - 1) == "/" .. MARK
end

local Feed = {}
Feed.__index = Feed

-- Reading ---------------------------------------------------------------------------------------

-- The words of a read of all keys, at REVISION or now.
local function read_words(self, revision, more)
    local words = { "get", "--prefix", more }
    if revision then words[#words + 1] = "--rev=" .. encoding.number(revision) end
    words[#words + 1] = "--"
    words[#words + 1] = self.prefix
    return words
end

local M = { MARK = MARK }

--- What a read of all keys below PREFIX has found.
-- @tparam string prefix
-- @tparam string output of `etcdctl get --prefix`, as JSON
-- @treturn[1] table `files`, path to value; `mods`, path to the revision that set it, with those of
--  marks; `mark`, the value of that of PREFIX; `nested`, the path of a mark below, if there is one;
--  `revision` of all of it
-- @treturn[2] nil
-- @treturn[2] table error
function M.parse(prefix, output)
    local answer = encoding.decode_json(output)
    local revision = answer and answer.header and answer.header.revision
    if not revision then
        return nil, failure.new { code = "etcd", message = "etcdctl printed no JSON that we know" }
    end
    local files, mods, mark, nested = {}, {}, nil, nil
    for _, pair in ipairs(answer.kvs or {}) do
        local path = sub(encoding.decode_base64(pair.key), #prefix + 1)
        mods[path] = pair.mod_revision
        if path == MARK then
            mark = encoding.decode_base64(pair.value)
        elseif is_mark(path) then
            nested = path
        else
            files[path] = encoding.decode_base64(pair.value)
        end
    end
    return { files = files, mods = mods, mark = mark, nested = nested, revision = revision }
end

--- What tells the keys of one revision from those of any other, deletions included: after a key was
-- put, the newest revision is larger, and after one was only deleted, there are fewer.
-- @tparam table mods
-- @treturn table `newest`, the largest revision that set a key, and `keys`, how many there are
function M.summary(mods)
    local newest, keys = 0, 0
    for _, mod in pairs(mods) do newest, keys = max(newest, mod), keys + 1 end
    return { newest = newest, keys = keys }
end

local function same(mods, others)
    for path, mod in pairs(mods) do
        if others[path] ~= mod then return false end
    end
    for path in pairs(others) do
        if mods[path] == nil then return false end
    end
    return true
end

-- Take what was read for what there is.
local function adopt(self, state)
    if self.revision and state.revision < self.revision then
        self._console:warn(format("%s: etcd has gone back from revision %.0f to %.0f; all is read "
            .. "again", self.prefix, self.revision, state.revision))
    end
    if not self.revision or not same(self.mods, state.mods) or state.revision < self.revision then
        self.generation = self.generation + 1
        self.files, self.mods = state.files, state.mods
    end
    self.revision = state.revision
    self.failure = nil
end

local function tell(self, err)
    if not self.revision or self._told == tostring(err) then return end
    self._told = tostring(err)
    self._console:warn(format("%s: %s; what was read last stays", self.prefix, self._told))
end

local function answered(self)
    if self._told then self._console:info(self.prefix .. ": etcd answers again") end
    self._told = nil
end

local function failed(self, err)
    self.failure = err
    self.attempts = self.attempts + 1
    tell(self, err)
    return nil, err
end

local function read(self, task)
    self._refresh = false -- whatever comes of it: or there would be no pause before the next
    local output, err = self.client:await(task, read_words(self))
    if not output then return failed(self, err) end
    local state, parse_err = M.parse(self.prefix, output)
    if not state then return failed(self, parse_err) end
    adopt(self, state)
    self.attempts = self.attempts + 1
    answered(self)
    return true
end

--- Read as of REVISION, for who reads other prefixes, too, and wants no mixture. Waits.
-- @tparam number revision not before that of the feed
-- @tparam ?table signals
-- @treturn[1] boolean true: the feed is as of REVISION
-- @treturn[2] nil
-- @treturn[2] table error
function Feed:catch_up(revision, signals)
    local output, err = self.client:run(read_words(self, revision), { signals = signals })
    if not output then return nil, err end
    local state, parse_err = M.parse(self.prefix, output)
    if not state then return nil, parse_err end
    state.revision = revision -- the header has that of the whole store
    adopt(self, state)
    return true
end

-- Events ----------------------------------------------------------------------------------------

-- Have a check made at once.
local function hurry(check)
    check.due, check.timeout = process.now(), HASTE
end

-- Take the events of a response, all or none: those of a revision come together. What a read has
-- brought already is passed over.
local function take_events(self, events)
    local news = {}
    for _, event in ipairs(events) do
        if event.kv.mod_revision > self.revision then news[#news + 1] = event end
    end
    if #news == 0 then return end
    local files, mods = {}, {}
    for path, value in pairs(self.files) do files[path] = value end
    for path, mod in pairs(self.mods) do mods[path] = mod end
    local revision = self.revision
    for _, event in ipairs(news) do
        local path = sub(encoding.decode_base64(event.kv.key), #self.prefix + 1)
        local is_put = event.type ~= 1 and event.type ~= "DELETE"
        mods[path] = is_put and event.kv.mod_revision or nil
        if not is_mark(path) then
            files[path] = is_put and encoding.decode_base64(event.kv.value) or nil
        end
        revision = max(revision, event.kv.mod_revision)
    end
    self.files, self.mods, self.revision = files, mods, revision
    self.generation = self.generation + 1
end

-- What an answer tells: that there is a connection, and whether etcd has gone back. A member that
-- lags behind would look the same, so a check has to find out.
local function heard(self, response)
    local pulse, check = self._pulse, self._check
    if pulse.asked and #(response.Events or {}) == 0 then self._pulses = true end
    pulse.asked, pulse.due = false, process.now() + PULSE
    local revision = (response.Header or {}).revision or self.revision
    if (revision < self.revision or check.failed) and not check.child then hurry(check) end
end

-- Ask whether there is a connection; if there was no answer, where there was one before, look at
-- once.
local function step_pulse(self)
    local pulse, check = self._pulse, self._check
    if not pulse.asked then
        self._watch:say("progress\n")
        pulse.asked, pulse.due = true, process.now() + PATIENCE
    else
        pulse.due = math.huge
        local is_idle = not check.child and not check.seen and not check.failed
        if self._pulses and is_idle then hurry(check) end
    end
end

-- Take the whole lines that the watch has printed. Returns why it is over, if it is: `"compacted"`
-- or `"cancelled"`.
local function take_lines(self)
    local text = self._watch:take()
    if text == "" then return nil end
    local whole, rest = match(self._rest .. text, "^(.*\n)([^\n]*)$")
    self._rest = rest or self._rest .. text
    for line in gmatch(whole or "", "[^\n]+") do
        local response = find(line, "^{") and encoding.decode_json(line)
        if response then
            heard(self, response)
            if response.Canceled then
                return (response.CompactRevision or 0) > 0 and "compacted" or "cancelled"
            end
            take_events(self, response.Events or {})
            answered(self)
        end
    end
    return nil
end

-- Checks ----------------------------------------------------------------------------------------

-- The keys that etcd has now, as far as CHILD, a read of them, has found out.
local function keys_of(self, child)
    if not child.status then -- its time is over
        child:destroy()
        return nil, self.client:failure("Error: deadline exceeded")
    end
    local output, err = self.client:finish(child)
    if not output then return nil, err end
    return M.parse(self.prefix, output)
end

-- Whether something that SEEN, an earlier read, has found never came.
local function has_missed(self, seen)
    if seen.revision < self.revision then return false end
    return not same(self.mods, seen.mods)
end

-- A check: `due` is when the next step of it is to be made.
local function new_check(self)
    return {
        due = process.now() + self._interval * (0.5 + process.random()), retry = self._retry_min,
    }
end

-- Make the next step of a check. Returns why everything is to be read again, if so.
local function step_check(self, check)
    if check.child then
        local keys, err = keys_of(self, check.child)
        check.child, check.timeout = nil, nil
        if not keys then
            tell(self, err)
            check.failed = true
            check.due = process.now() + check.retry * (0.5 + process.random())
            check.retry = min(check.retry * 2, CHECK_RETRY_MAX)
            return nil
        end
        answered(self)
        if keys.revision < self.revision then return "read" end -- another history than before
        if check.failed then return "resume" end
        if not has_missed(self, keys) then return "fine" end
        check.seen, check.due = keys, process.now() + self._grace
    elseif check.seen then
        if has_missed(self, check.seen) then return "read" end
        return "fine"
    else
        local err
        check.child, err = self.client:start(read_words(self, nil, "--keys-only"))
        check.due = process.now() + (check.child and check.timeout or CHECK_TIMEOUT)
        if err then tell(self, err) end
    end
    return nil
end

-- Watching --------------------------------------------------------------------------------------

local function start_watch(self)
    local child, err = self.client:start({ "watch", "-i" }, { talk = true })
    if not child then return nil, err end
    self._watch, self._rest = child, ""
    child:say(format("watch --prefix --rev %s %s\n", encoding.number(self.revision + 1),
        encoding.quote(self.prefix)))
    return true
end

local function end_watch(self)
    if self._watch then self._watch:destroy() end
    self._watch = nil
end

local function end_check(self)
    local check = self._check
    if check and check.child then check.child:destroy() end
    self._check = nil
end

-- Follow the events for as long as that works. Returns what is to be done next: `"read"`
-- everything, or `"resume"` after the last event.
local function watch(self, task)
    local started, err = start_watch(self)
    if not started then
        failed(self, err)
        return "resume"
    end
    local child, check = self._watch, new_check(self)
    local pulse = { due = process.now() + PULSE * (0.5 + process.random()), asked = false }
    self._check, self._pulse = check, pulse
    local begun = process.now()
    local outcome
    while not outcome do
        local due = min(check.due, pulse.due)
        task:wait(function()
            return #child.chunks > 0 or child.status or self._refresh
                or check.child and check.child.status
        end, due < math.huge and max(due - process.now(), 0) or nil)
        local over = take_lines(self)
        if over == "compacted" then
            self._console:debug(format("%s: what follows revision %.0f has been compacted; all is "
                .. "read again", self.prefix, self.revision))
            outcome = "read"
        elseif self._refresh or child.too_much then -- then what came after is lost
            outcome = "read"
        elseif over or child.status then
            -- No leader, no permission, or killed by somebody.
            failed(self, self.client:failure(match(child.errors, "watch was canceled %((.-)%)\n")
                or child.errors))
            outcome = "resume"
        elseif check.child and check.child.status or check.due <= process.now() then
            local found = step_check(self, check)
            if found == "fine" then
                check = new_check(self)
                self._check = check
            elseif found then
                self._console:debug(format("%s: a check found revision %.0f behind, or a "
                    .. "connection lost: %s", self.prefix, self.revision, found))
                outcome = found
            end
        elseif pulse.due <= process.now() then
            step_pulse(self)
        end
    end
    end_check(self)
    end_watch(self)
    if process.now() - begun >= SETTLED then self._delay = nil end
    return outcome
end

-- Wait longer and longer, and never as long as the others.
local function back_off(self, task)
    local delay = self._delay or self._retry_min
    self._delay = min(delay * 2, RETRY_MAX)
    task:wait(function() return self._refresh end, delay * (0.5 + process.random()))
end

local function follow(self, task)
    local step = "read"
    repeat
        local fine = step ~= "read" or read(self, task)
        if fine and self._follows then
            step = watch(self, task)
            back_off(self, task)
        elseif self._follows then
            back_off(self, task)
        end
    until not self._follows
end

-- The outside -----------------------------------------------------------------------------------

--- Have it read everything again, as soon as it can.
function Feed:refresh()
    self._refresh = true
end

--- Stop.
function Feed:close()
    end_watch(self)
    end_check(self)
    self.client:close()
    self.task.done = true
end

--- Make a feed; it does nothing before the first step of its `task`.
--
-- Its fields: `revision`, nil until something was read, `files`, a map of path to value that is
-- never changed but replaced, and `mods`, a map of path to the revision that set it, with those of
-- marks; `generation`, which grows whenever they change; `failure`, why the last attempt came to
-- nothing, if so; `attempts`, how many were made.
-- @tparam table client of `atomicwriter.cli.etcd.client`, for the feed alone
-- @tparam string prefix
-- @tparam table opts `console`; `follows`: it goes on after the first read; and for specs `check`
--  and `retry`: seconds instead of 60 and 0.5; `grace`: instead of 5
-- @treturn Feed
function M.new(client, prefix, opts)
    local self = setmetatable({
        client = client, prefix = prefix, generation = 0, attempts = 0, files = {}, mods = {},
        _console = opts.console, _follows = opts.follows, _refresh = false,
        _interval = opts.check or CHECK, _retry_min = opts.retry or RETRY_MIN,
        _grace = opts.grace or GRACE,
    }, Feed)
    self.task = require("atomicwriter.cli.task").new(function(task) follow(self, task) end)
    return self
end

return M
