--- Children under strace: what they ask of the kernel, with calls that fail, or with
-- the child killed at one of them.

local sandbox = require "spec.support.sandbox"

local M = {}

local usable, reason
local quick = {} -- stop the child at the traced calls alone, where strace can
--- Whether children can be traced here; nil and why not.
function M.available()
    if usable == nil then
        local status, _, stderr = sandbox.run "strace -f -o /dev/null true"
        usable = status == 0
        if sandbox.run "strace --seccomp-bpf -f -o /dev/null -e trace=sync true" == 0 then
            quick = { "--seccomp-bpf" }
        end
        reason = "strace cannot be used here: " .. (stderr:match("[^\n]+") or "it is silent")
    end
    return usable or nil, not usable and reason or nil
end

local function split_arguments(text)
    local list, depth, quoted, start = {}, 0, false, 1
    local i = 1
    while i <= #text do
        local c = text:sub(i, i)
        if quoted then
            if c == "\\" then i = i + 1
            elseif c == '"' then quoted = false end
        elseif c == '"' then quoted = true
        elseif c == "{" or c == "[" or c == "<" then depth = depth + 1
        elseif c == "}" or c == "]" or c == ">" then depth = depth - 1
        elseif c == "," and depth == 0 then
            list[#list + 1] = text:sub(start, i - 1)
            start = i + 2
        end
        i = i + 1
    end
    list[#list + 1] = text:sub(start)
    return list
end

local function parse(line)
    local call, rest = line:match("^%d+ +([%w_]+)(%(.*)$")
    if not call then return nil end
    local inside, result = rest:match("^%((.*)%) += (.*)$")
    if not inside then return nil end
    return {
        call = call,
        arguments = split_arguments(inside),
        result = result,
        failed = result:match("^%-1 ") ~= nil,
        text = call .. rest,
    }
end

--- Trace the command WORDS.
-- @tparam string scratch a directory for the log
-- @tparam {string,...} words the command
-- @return exit status, stdout, stderr, and the list of events: `call`, `arguments`,
--  `result`, `failed`, `text`, and `nth`, which counts the calls of one name
function M.record(scratch, words)
    local log = sandbox.fresh(scratch, "strace")
    local command = { "strace", "-f", "-qq", "-y", "-s", "256", "-o", log }
    for _, word in ipairs(words) do command[#command + 1] = word end
    local status, stdout, stderr = sandbox.run(command)
    local events, nth = {}, {}
    for line in (sandbox.read_file(log) or ""):gmatch("[^\n]+") do
        local event = parse(line)
        if event then
            nth[event.call] = (nth[event.call] or 0) + 1
            event.nth = nth[event.call]
            events[#events + 1] = event
        end
    end
    os.remove(log)
    return status, stdout, stderr, events
end

--- Run the command WORDS, with what happens to its NTH call of the name CALL: "error=EIO",
-- "signal=SIGKILL" (the call is then not made), "delay_exit=1000000". NTH is counted from
-- the start of the process; "3+" means all from the third.
-- @return exit status, stdout, stderr
function M.inject(words, call, what, nth)
    local command = { "strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" .. call,
        "-e", ("inject=%s:%s:when=%s"):format(call, what, nth) }
    local how = what:find("signal=", 1, true) and {} or quick -- together they send no signal
    for _, list in ipairs { how, words } do
        for _, word in ipairs(list) do command[#command + 1] = word end
    end
    return sandbox.run(command)
end

--- The events between the child's marks "/=begin" and "/=end".
function M.marked(events)
    local found, inside = {}, false
    for _, event in ipairs(events) do
        local mark = event.call == "openat" and event.arguments[2]:match('^"/=(%a+)"')
        if mark then
            inside = mark == "begin"
        elseif inside then
            found[#found + 1] = event
        end
    end
    assert(#found > 0, "the trace has no marked part")
    return found
end

--- The first of EVENTS whose text has the plain TEXT in it.
function M.find(events, text)
    for _, event in ipairs(events) do
        if event.text:find(text, 1, true) then return event end
    end
    error("no such call in the trace: " .. text, 2)
end

--- The string argument N of EVENT; without strace's escapes, so for plain names only.
function M.name(event, n)
    return (event.arguments[n]:gsub('^"(.*)"$', "%1"))
end

--- The path behind the descriptor argument N ("5</tmp/x>"), or nil.
function M.path(event, n)
    return event.arguments[n]:match("^[%w_]+<(.*)>$")
end

--- The absolute path that a directory argument N and the name after it stand for.
function M.at(event, n)
    local name = M.name(event, n + 1)
    if name:sub(1, 1) == "/" then return name end
    if name == "." then return M.path(event, n) end
    return M.path(event, n) .. "/" .. name
end

return M
