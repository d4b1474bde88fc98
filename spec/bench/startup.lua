--- How long the command takes that changes nothing, beside loading argparse.
--
--    make bench
--    lua5.4 spec/bench/startup.lua [--rounds 200]
--
-- `atomicwriter write` on an unchanged target of 10 files, and `lua -e 'require "argparse"'`, in
-- turns in one run; what counts is the ratio of the medians.

local measure = require "spec.bench.measure"

local uv = measure.luv

local FILES = 10
local TARGET_RATIO = 3
local COMMAND = (os.getenv("ATOMICWRITER_BUILD") or "build") .. "/bin/atomicwriter"

local rounds = 200
for index = 1, #arg, 2 do
    if arg[index] ~= "--rounds" or not tonumber(arg[index + 1]) then
        io.stderr:write("usage: startup.lua [--rounds N]\n")
        os.exit(2)
    end
    rounds = tonumber(arg[index + 1])
end

local function interpreter()
    local index = 0
    while arg[index - 1] do index = index - 1 end
    return arg[index]
end

-- Milliseconds from the start of a program to its end, which has to be a success.
local function time(program, words)
    local code
    local start = measure.now()
    local options = { args = words, stdio = { nil, nil, 2 } }
    local handle, err = uv.spawn(program, options, function(status) code = status end)
    if not handle then error("bench: " .. program .. ": " .. err) end
    while not code do uv.run("once") end
    local elapsed = (measure.now() - start) / 1e6
    handle:close()
    uv.run("nowait")
    if code ~= 0 then error("bench: " .. program .. " failed") end
    return elapsed
end

local directory = assert(uv.fs_mkdtemp((os.getenv("TMPDIR") or "/tmp") .. "/startup.XXXXXX"))
local source = directory .. "/source"
assert(uv.fs_mkdir(source, 493))
for index = 1, FILES do
    local file = assert(io.open(("%s/file%d"):format(source, index), "w"))
    file:write("data ", index, "\n")
    file:close()
end
local write = { "write", directory .. "/target", "--create", "--from-file", source, "--quiet" }
local require_argparse = { "-e", "require 'argparse'" }

time(COMMAND, write)
uv.sleep(50)
local ours, base = {}, {}
for round = 1, rounds do
    base[round] = time(interpreter(), require_argparse)
    ours[round] = time(COMMAND, write)
end
os.execute("rm -rf '" .. directory .. "'")

local our_median, our_spread = measure.summary(ours)
local base_median, base_spread = measure.summary(base)
print(("start-up, %d rounds in turns, medians (half of the distance between the quartiles)")
    :format(rounds))
local LINE = "  %-44s %6.2f ms (%.0f %%)"
print(LINE:format("lua -e 'require \"argparse\"'", base_median, base_spread))
print(LINE:format("atomicwriter write, 10 files, unchanged", our_median, our_spread))
print(("  ratio %.2f, wanted at most %.1f: %s"):format(our_median / base_median, TARGET_RATIO,
    our_median / base_median <= TARGET_RATIO and "met" or "MISSED"))
