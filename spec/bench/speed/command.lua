--- Running other programs: timed, or for what they print.

local host = require "spec.bench.host"
local measure = require "spec.bench.measure"

local uv = measure.luv

local M = {}

--- Run the shell command TEXT, which must not fail. Returns the microseconds from its start to
-- its end, of the shell's as well.
function M.time(text)
    local code
    local start = measure.now()
    local handle = assert(uv.spawn("/bin/sh",
        { args = { "-ec", text }, stdio = { nil, nil, 2 } }, function(status) code = status end))
    while not code do uv.run("once") end
    local took = (measure.now() - start) / 1000
    handle:close()
    uv.run("nowait")
    if code ~= 0 then error("bench: failed: " .. text, 0) end
    return took
end

--- The interpreter that runs us, as a word for the shell.
function M.interpreter()
    local index = 0
    while arg[index - 1] do index = index - 1 end
    return host.shell_quote(arg[index])
end

--- The shell command that runs the script NAME of children/ with WORDS.
function M.child(name, ...)
    local words = { M.interpreter(), "spec/bench/children/" .. name .. ".lua" }
    for i = 1, select("#", ...) do
        words[#words + 1] = host.shell_quote(tostring((select(i, ...))))
    end
    return table.concat(words, " ")
end

--- Where PROGRAM is, or nil: what the system has goes before what a user has put there.
function M.find(program)
    return host.output_of("PATH=/usr/bin:/bin:/usr/sbin:/sbin:$PATH; command -v "
        .. program):match("^[^\n]+")
end

return M
