--- Child processes, signals and waiting, on the event loop of luv.
--
-- What luv calls back only sets fields and sends signals. Whoever waits looks at those fields, so
-- nothing runs inside a callback, and every function here can be called wherever Lua code runs,
-- also from a writer's check. luv is loaded when a function is called.
--
-- Descriptors: the core and luv open theirs with O_CLOEXEC, so that a child gets its standard
-- streams alone. luv gives it default signal actions and an empty signal mask.
-- @module atomicwriter.cli.process

local failure = require "atomicwriter.failure"

local M = {}

local OUTPUT_LIMIT = 64 * 1024 * 1024
local ERRORS_LIMIT = 64 * 1024
local GRACE = 5 -- seconds between SIGTERM and SIGKILL
local PID_MAX = 2 ^ 31 - 1 -- luv cuts off what a C int cannot hold, and -1 would be everybody
local TICK = 0.02 -- seconds between two looks at a group of processes that nobody can wait for

---- the loop ------------------------------------------------------------------

--- The library luv.
-- @treturn table
-- @raise an error of code `no_library` that names the packages, when it is not installed, or why
--  it cannot be loaded
function M.uv()
    local found, uv = require("atomicwriter.optional").load("luv")
    if found then return uv end
    local why = tostring(uv):match("error loading module[^\n]*\n%s*([^\n]*)") -- no descriptors, say
    error(failure.new {
        code = "no_library",
        message = why and "the library luv cannot be loaded: " .. why
            or "processes and file events need the library luv (Debian: lua-luv, LuaRocks: luv)",
    }, 0)
end

--- Seconds on a clock that never steps back.
-- @treturn number
function M.now()
    return M.uv().hrtime() / 1e9
end

--- A random number from 0 to 1, another one on each machine of a fleet.
-- @treturn number
function M.random()
    local a, b, c = M.uv().random(3):byte(1, 3)
    return (a * 65536 + b * 256 + c) / 16777216
end

--- PATH from the root.
-- @tparam string path
-- @treturn[1] string
-- @treturn[2] nil PATH is relative, and the working directory is gone
-- @treturn[2] string why
function M.absolute(path)
    if path:find("^/") then return path end
    local cwd, why = M.uv().cwd()
    if not cwd then return nil, "the working directory is gone: " .. why end
    return cwd .. "/" .. path
end

--- Close handles of luv, and let it free them now: it crashes at the end of a program in which one
-- is closed by half. Not for use in a callback.
-- @tparam {userdata,...} handles
function M.release(handles)
    local uv = M.uv()
    local open = 0
    for _, handle in ipairs(handles) do
        if not handle:is_closing() then
            open = open + 1
            handle:close(function() open = open - 1 end)
        end
    end
    while open > 0 do uv.run("nowait") end
end

local turning = false -- the loop cannot be run from within itself

--- Run the loop until PREDICATE() holds.
-- @tparam function predicate looks at fields and does nothing else; called between events
-- @tparam[opt] number timeout seconds, also fractions; without it wait for ever
-- @treturn boolean false when the time is over, or when nothing is left that could happen
function M.wait(predicate, timeout)
    local uv = M.uv()
    local over = false
    local before_blocking = uv.new_prepare()
    local handles = { before_blocking }
    if timeout then
        uv.update_time()
        handles[2] = uv.new_timer()
        handles[2]:start(math.max(0, math.ceil(timeout * 1000)), 0, function() over = true end)
    end
    -- One turn of the loop runs the timers, and then blocks until there is an event: whatever a
    -- timer did has to be seen in between.
    before_blocking:start(function()
        local fine, holds = pcall(predicate)
        if over or holds or not fine then uv.stop() end
    end)
    uv.unref(before_blocking)
    local fine, holds = pcall(predicate)
    while fine and not holds and not over do
        turning = true
        local alive = uv.run("once")
        turning = false
        fine, holds = pcall(predicate)
        if not alive then break end
    end
    M.release(handles)
    if not fine then error(holds, 0) end
    return holds and true or false
end

local function never() return false end

---- signals by name -----------------------------------------------------------

local numbers, names

local function load_signals()
    numbers, names = {}, {}
    for name, number in pairs(M.uv().constants) do
        if name:find("^SIG%u") then
            numbers[name] = number
            -- SIGIOT and SIGPOLL are second names of SIGABRT and SIGIO.
            if name ~= "SIGIOT" and name ~= "SIGPOLL" then names[number] = name end
        end
    end
end

--- The number of a signal.
-- @tparam string name `"HUP"` or `"SIGHUP"`, in small letters, too
-- @treturn ?number nil when there is no such signal
function M.signal_number(name)
    if not numbers then load_signals() end
    name = name:upper()
    return numbers[name] or numbers["SIG" .. name]
end

local function signal_name(number)
    if not names then load_signals() end
    return names[number] or ("SIG%d"):format(number)
end

--- Send a signal to a process, or to the process group -PID.
-- @tparam number pid
-- @tparam string name `"HUP"` or `"SIGHUP"`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table error, which names the process
function M.kill(pid, name)
    local number = M.signal_number(name)
    if not number then
        return nil, failure.new { code = "io", message = "there is no signal " .. name }
    end
    local sent, text = M.uv().kill(pid, number)
    if sent then return true end
    return nil, failure.new {
        code = "io",
        op = "kill",
        message = ("process %d cannot be signalled: %s"):format(pid, (text:gsub("^%u+: ", ""))),
    }
end

--- The process in a pid file.
-- @tparam string path
-- @treturn[1] number
-- @treturn[2] nil
-- @treturn[2] table error: unreadable, or no number in it
function M.read_pid(path)
    local file, why, errno = io.open(path, "r")
    local text = file and file:read(64)
    if file then file:close() end
    local pid = text and tonumber(text:match("^%s*(%d+)%s*$"))
    if pid and pid > 0 and pid <= PID_MAX then return pid end -- 0 would be ourselves
    return nil, failure.new {
        code = "io", path = path, errno = errno,
        message = file and "there is no process id in it"
            or "the pid file cannot be read: " .. why:gsub("^.*: ", ""),
    }
end

---- signals to ourselves -------------------------------------------------------

local Signals = {}
Signals.__index = Signals

local CAUGHT = { "SIGINT", "SIGTERM", "SIGHUP" }

local function receive(self, name)
    if name == "SIGHUP" and not self.hangup_stops then
        self.hangups = self.hangups + 1
    else
        self.stop = self.stop or name
        self.stops = self.stops + 1
    end
    if self.forward_to then self.forward_to(name) end
end

--- Catch SIGINT, SIGTERM and SIGHUP from now on.
--
-- Its fields: `stop`, nil or the name of the first signal that asked to stop; `stops`, how many
-- such came; `hangups`, how many SIGHUP came since whoever heeds them set it to 0. They change
-- while the loop runs: in @{wait}, @{run} and @{Signals:poll}.
-- @tparam[opt=false] boolean hangup_stops SIGHUP asks to stop, too, as for who does not stay
-- @treturn Signals
function M.signals(hangup_stops)
    local uv = M.uv()
    local self = setmetatable({
        stops = 0, hangups = 0, handles = {}, hangup_stops = hangup_stops,
    }, Signals)
    for _, name in ipairs(CAUGHT) do
        local handle = uv.new_signal()
        handle:start(M.signal_number(name), function() receive(self, name) end)
        self.handles[#self.handles + 1] = handle
    end
    return self
end

--- Let in what has come, without waiting. Does nothing where the loop is running anyway.
function Signals:poll() -- luacheck: ignore 212
    if not turning then M.uv().run("nowait") end
end

--- Call FN with the name of each signal, too, as soon as it comes; nil: no longer.
-- @tparam ?function fn may send signals, and do nothing else; it must not raise
function Signals:forward(fn)
    self.forward_to = fn
end

--- Let signals have their default actions again.
function Signals:close()
    M.release(self.handles)
    self.handles = {}
end

--- End this process by the signal that asked it to stop, so that whoever waits for it, a shell for
-- example, can tell.
function Signals:die()
    self:close()
    M.kill(M.uv().getpid(), self.stop or "SIGTERM")
end

---- starting a child ------------------------------------------------------------

local Child = {}
Child.__index = Child

local function checked_words(command)
    local words = command
    if type(command) == "string" then
        words = { "/bin/sh", "-c", command }
    elseif type(command) ~= "table" or type(command[1]) ~= "string" then
        error("a command is a string or a list of strings", 3)
    end
    for _, word in ipairs(words) do
        if type(word) ~= "string" then error("a command's words are strings", 3) end
        if word:find("%z") then error("a command cannot hold a NUL byte", 3) end
    end
    return words
end

-- Our environment with EXTRA in it, and without what is false there, as a list; nil when it is just
-- ours.
local function environment(uv, extra)
    if not extra then return nil end
    local all, list = uv.os_environ(), {}
    for name, value in pairs(extra) do all[name] = value or nil end
    for name, value in pairs(all) do list[#list + 1] = name .. "=" .. value end
    return list
end

local function cannot_start(uv, program, cwd, text)
    local why = text:gsub("^%u+: ", "")
    if cwd and not uv.fs_stat(cwd) then
        return failure.new { code = "io", op = "chdir", path = cwd,
            message = "there is no such directory to run " .. program .. " in" }
    elseif text:find("^ENOENT") then
        why = program:find("/", 1, true) and "there is no such program"
            or "there is no such program in PATH"
    end
    return failure.new { code = "io", op = "execve", path = program,
        message = "cannot be started: " .. why }
end

-- A pipe rather than the socket that luv would make: /dev/stdout can be opened in the child.
-- Returns our end as a handle and the descriptor of theirs, or nil and luv's error.
local function new_pipe(uv, ours, theirs)
    local ends, why = uv.pipe({}, {})
    if not ends then return nil, why end
    local pipe = uv.new_pipe(false)
    local opened, open_why = pipe:open(ends[ours])
    if opened then return pipe, ends[theirs] end
    pipe:close()
    for _, fd in pairs(ends) do uv.fs_close(fd) end
    return nil, open_why
end

local function collect(child, limit)
    child.chunks, child.size = {}, 0
    child.from:read_start(function(_, data)
        if not data or child.too_much then return end
        child.size = child.size + #data
        child.too_much = child.size > limit
        child.chunks[#child.chunks + 1] = data
    end)
end

-- The last of what it says on standard error: reasons come at the end.
local function collect_errors(child)
    child.errors = ""
    child.errors_from:read_start(function(_, data)
        if data then child.errors = (child.errors .. data):sub(-ERRORS_LIMIT) end
    end)
end

-- Writing to a child that has ended must not end us, for as long as its handles are there.
local function survive_its_end(uv, child)
    child.pipe_signal = uv.new_signal()
    child.pipe_signal:start(M.signal_number("PIPE"), function() end)
end

-- A child need not read what it is given: SIGPIPE is caught until all is written.
local function feed(uv, child, input)
    survive_its_end(uv, child)
    local to, pipe_signal = child.to, child.pipe_signal
    to:write(input, function() -- or when the child is closed, which then has no handles any more
        if not to:is_closing() then to:close() end
        if not pipe_signal:is_closing() then pipe_signal:close() end
    end)
end

-- The three standard streams, and those of our descriptors that are the child's only; then, if
-- there is one, an error.
local function streams(uv, child, opts)
    if opts.stdio == "inherit" then return { 0, 1, 2 }, {} end
    local stdio, theirs = { nil, 2, 2 }, {}
    local function connect(number, ours, their_end)
        local pipe, fd = new_pipe(uv, ours, their_end)
        if not pipe then return nil, fd end
        stdio[number], theirs[#theirs + 1] = fd, fd
        return pipe
    end
    local why
    if opts.talk or opts.input and opts.input ~= "" then
        child.to, why = connect(1, "write", "read")
    end
    if opts.capture and not why then child.from, why = connect(2, "read", "write") end
    if opts.capture_errors and not why then
        child.errors_from, why = connect(3, "read", "write")
    end
    return stdio, theirs, why
end

--- Start a command and do not wait for it. Most want @{run}.
-- @param command a string for `/bin/sh -c`, or a list: a program, found in PATH, and its arguments
-- @tparam[opt] table opts `cwd`, `env`, `input`, `capture`, `capture_errors`, `limit` as for
--  @{run}; `talk`: its standard input stays open for @{Child:say}; `stdio`: `"inherit"` for our
--  three standard streams
-- @treturn[1] Child with the fields `pid`, which is its process group, too, and `status`: nil
--  while it runs, changed while the loop runs
-- @treturn[2] nil
-- @treturn[2] table error, which names the program
function M.start(command, opts)
    opts = opts or {}
    local words = checked_words(command)
    local uv = M.uv()
    local child = setmetatable({ timeout = opts.timeout }, Child)
    local stdio, theirs, why = streams(uv, child, opts)
    if why then
        for _, fd in ipairs(theirs) do uv.fs_close(fd) end
        child:close()
        return nil, cannot_start(uv, words[1], nil, why)
    end
    local handle, pid = uv.spawn(words[1], {
        args = { (table.unpack or unpack)(words, 2) }, -- luacheck: ignore 113
        stdio = stdio,
        env = environment(uv, opts.env),
        cwd = opts.cwd,
        detached = true, -- a session of its own, so that a terminal's ^C reaches us alone
    }, function(code, signal)
        child.status = {
            ok = code == 0 and signal == 0,
            code = signal == 0 and code or 128 + signal,
            signal = signal ~= 0 and signal_name(signal) or nil,
        }
    end)
    for _, fd in ipairs(theirs) do uv.fs_close(fd) end
    child.handle, child.pid = handle, pid
    if not handle then
        child:close()
        return nil, cannot_start(uv, words[1], opts.cwd, pid)
    end
    if opts.talk then
        survive_its_end(uv, child)
    elseif child.to then
        feed(uv, child, opts.input)
    end
    if child.from then collect(child, opts.limit or OUTPUT_LIMIT) end
    if child.errors_from then collect_errors(child) end
    return child
end

--- Write to the standard input of a child that was started with `talk`. What it does not read is
-- lost.
-- @tparam string text
function Child:say(text)
    self.to:write(text)
end

--- What it has written since the last call, as far as that has come in.
-- @treturn string
function Child:take()
    local text = table.concat(self.chunks)
    self.chunks, self.size = {}, 0
    return text
end

--- Send a signal to the child alone.
-- @tparam string name
function Child:signal(name)
    if not self.status then M.kill(self.pid, name) end
end

--- Send a signal to the child and to what it has started, as far as it stayed in its group.
-- @tparam string name
function Child:signal_group(name)
    M.kill(-self.pid, name)
end

-- Whether a process of the group PGID runs; nil when /proc does not tell.
local function runs_in_group(uv, pgid)
    local listing = uv.fs_scandir("/proc")
    local any
    while listing do
        local name = uv.fs_scandir_next(listing)
        if not name then break end
        local file = name:find("^%d+$") and io.open("/proc/" .. name .. "/stat", "rb")
        local text = file and file:read("*a")
        if file then file:close() end
        local state, group = (text or ""):match("^.*%) (%a) %d+ (%d+)")
        if state then any = any or false end
        if tonumber(group) == pgid and state ~= "Z" and state ~= "X" then any = true end
    end
    return any
end

--- Whether anybody of its group runs still. The kernel counts zombies, too, as long as their parent
-- does not wait for them; in a container that may be for ever.
-- @treturn boolean
function Child:has_group()
    local uv = M.uv()
    return uv.kill(-self.pid, 0) == 0 and runs_in_group(uv, self.pid) ~= false
end

--- Release what we hold of it. It goes on if it still runs.
function Child:close()
    local handles = {}
    for _, name in ipairs { "handle", "to", "pipe_signal", "from", "errors_from" } do
        handles[#handles + 1] = self[name]
        self[name] = nil
    end
    M.release(handles)
end

--- Kill it, wait until it is gone, so that no zombie stays, and release what we hold of it.
function Child:destroy()
    if not self.status then
        self:signal_group("SIGKILL")
        M.wait(function() return self.status end, GRACE)
    end
    self:close()
end

---- waiting for a child ------------------------------------------------------------

-- What has to be done about CHILD before it ends: its time is over, we are asked to stop, or it
-- writes more than we can take.
local function attend(child, opts)
    local signals = opts.signals or { stops = 0 }
    local before = signals.stops -- those were meant for what ran then
    local heeded, killed = before, false
    local deadline = opts.timeout and M.now() + opts.timeout
    local function something_happened()
        return child.status or signals.stops > heeded or (child.too_much and not killed)
    end
    while not child.status do
        local left = deadline and deadline - M.now()
        local happened = M.wait(something_happened, left)
        if child.status then
            break
        elseif not happened and child.timed_out then
            child:signal_group("SIGKILL")
            deadline = nil
        elseif not happened then
            child.timed_out = true
            child:signal_group("SIGTERM")
            deadline = M.now() + (opts.grace or GRACE)
        elseif child.too_much or signals.stops > before + 1 then
            child:signal_group("SIGKILL")
            heeded, killed = signals.stops, true
        else
            if opts.on_stop == "pass" then child:signal_group(signals.stop) end
            heeded = signals.stops
        end
    end
    return deadline
end

-- End what CHILD has left in its group: whoever is there at DEADLINE is killed.
local function end_group(child, signals, deadline)
    while child:has_group() do
        if M.now() >= deadline or (signals and signals.stops > 1) then
            child:signal_group("SIGKILL")
            return
        end
        M.wait(never, TICK)
    end
end

--- All that was in its pipes when it ended: one turn of the loop reads more than a pipe can hold.
-- What it has left in the background may keep a pipe open for ever, or write for ever, so its end
-- is not waited for.
-- @treturn string what it wrote since the last call of @{Child:take}
function Child:drain()
    M.uv().run("nowait")
    return self:take()
end

--- Run a command and wait for it.
--
-- It runs in a session and process group of its own. What it leaves in the background goes on,
-- except after a timeout.
-- @param command a string for `/bin/sh -c`, or a list: a program, found in PATH, and its arguments
-- @tparam[opt] table opts
-- @tparam[opt] string opts.cwd directory to run it in
-- @tparam[opt] table opts.env variables added to our environment, name to value; false: taken out
-- @tparam[opt] string opts.input its standard input; else that is empty
-- @tparam[opt] boolean opts.capture its standard output goes into `output` of the status; else to
--  our standard error
-- @tparam[opt] boolean opts.capture_errors the last 64 KiB of its standard error go into `errors`
--  of the status; only together with `capture`
-- @tparam[opt=67108864] number opts.limit bytes of output that are taken; more is an error
-- @tparam[opt] number opts.timeout seconds after which its group gets SIGTERM
-- @tparam[opt=5] number opts.grace seconds from then to SIGKILL
-- @tparam[opt] Signals opts.signals signals that ask us to stop; the second one that comes while it
--  runs kills its group
-- @tparam[opt] string opts.on_stop `"pass"`: the first of them goes to its group, too; else it is
--  left to end by itself
-- @treturn[1] table status: `ok`, it exited with 0; `code`, its exit status, 128 + N when it was
--  ended by signal N; `signal`, the name of that, or nil; `timed_out`; `timeout` as given; `output`
-- @treturn[2] nil
-- @treturn[2] table error: it cannot be started, or wrote too much
function M.run(command, opts)
    opts = opts or {}
    checked_words(command) -- misuse is the caller's
    local child, err = M.start(command, opts)
    if not child then return nil, err end
    local deadline = attend(child, opts)
    if child.timed_out and deadline then end_group(child, opts.signals, deadline) end
    local output = opts.capture and child:drain()
    child:close()
    if child.too_much then
        return nil, failure.new { code = "io", message = ("the command wrote more than %d bytes")
            :format(opts.limit or OUTPUT_LIMIT) }
    end
    local status = child.status
    status.timed_out = child.timed_out or false
    status.timeout = opts.timeout
    status.output, status.errors = output or nil, child.errors
    if status.timed_out then status.ok = false end
    return status
end

--- Say in words how a command ended.
-- @tparam table status of @{run}
-- @treturn string to follow the command's name: `"exited with status 3"`
function M.describe(status)
    if status.timed_out then
        return ("took longer than %g s and was ended"):format(status.timeout)
    elseif status.signal then
        return "was ended by " .. status.signal
    end
    return ("exited with status %d"):format(status.code)
end

return M
