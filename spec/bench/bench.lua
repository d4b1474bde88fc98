--- How long atomicwriter takes from Lua, beside a plain C program that does
-- only the necessary system calls for the same work (floor.c).
--
--    make bench
--    lua5.4 spec/bench/bench.lua [--n 1,10,100] [--mode rewrite,onechanged,unchanged]
--        [--layout flat,dirs] [--dir PATH]... [--seconds 1.5] [--json FILE]
--
-- Both work in the same directory, in turns, so that what else the machine does
-- falls upon both alike. What counts is the ratio of the medians; absolute times
-- do not travel. Clock: CLOCK_MONOTONIC on both sides (lua-luv's hrtime).

local atomicwriter = require "atomicwriter"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"

local luv = measure.luv

local SIZE = 1024
local PER_DIRECTORY = 100
local FLOOR = (os.getenv("ATOMICWRITER_BUILD") or "build") .. "/spec/bench/floor"

-- The promises of the first core: mode, N and the greatest ratio.
local TARGETS = {
    rewrite = { [100] = 1.3, [1000] = 1.3 },
    unchanged = { [1000] = 1.5 },
}

-- ---- the two sides ---------------------------------------------------------

--- Run the floor; append its times in microseconds to SAMPLES.
local function run_floor(mode, n, directory, layout, repetitions, samples)
    local command = ("%s %s %d %s %s %d"):format(host.shell_quote(FLOOR), mode, n,
        host.shell_quote(directory), layout, repetitions)
    local found = 0
    for number in host.output_of(command):gmatch("([%d.]+)\n") do
        found = found + 1
        if found <= repetitions then -- the last line is the median
            samples[#samples + 1] = tonumber(number)
        end
    end
    if found ~= repetitions + 1 then
        error("bench: " .. command .. " failed; is it built? try: make bench")
    end
end

local function path_of(index, layout)
    if layout == "flat" then
        return ("f%05d"):format(index)
    end
    return ("d%03d/f%05d"):format(math.floor(index / PER_DIRECTORY), index)
end

--- Two payloads that are written in turn. They differ in all files, or in one.
local function payloads(mode, n, layout)
    local first, second = {}, {}
    local a, b = ("a"):rep(SIZE), ("b"):rep(SIZE)
    local changed = math.floor(n / 2)
    for i = 0, n - 1 do
        local path = path_of(i, layout)
        first[path] = a
        second[path] = (mode == "rewrite" or (mode == "onechanged" and i == changed)) and b or a
    end
    return first, second
end

--- Write REPETITIONS times; append the times to SAMPLES. As for the floor, a
-- first time is not counted. What does not change has not changed just now: that
-- is how a write that is repeated every minute finds it.
local function run_lua(mode, n, directory, layout, repetitions, samples)
    local target = ("%s/lua-%d"):format(directory, luv.os_getpid())
    local options = { durability = "none", keep = 0, create = true }
    local writer = assert(atomicwriter.new(target, options))
    local current, next_one = payloads(mode, n, layout)
    assert(writer:write(current))
    if mode == "unchanged" then luv.sleep(50) end
    collectgarbage()
    for i = 0, repetitions do
        current, next_one = next_one, current
        local start = luv.hrtime()
        local result = assert(writer:write(current))
        local took = (luv.hrtime() - start) / 1000
        assert(result.changed == (mode ~= "unchanged"))
        if i > 0 then samples[#samples + 1] = took end
    end
    writer:close()
    os.execute("rm -rf " .. host.shell_quote(target))
end

-- ---- one line of the table -------------------------------------------------

local function run_both(mode, n, directory, layout, seconds)
    local floor, lua = {}, {}
    local each = n <= 10 and 20 or n <= 100 and 8 or n <= 1000 and 3 or 1
    local rounds = 0
    local deadline = luv.hrtime() + seconds * 1e9
    local enough = luv.hrtime() + 10 * seconds * 1e9
    -- The odd round begins with the one, the even one with the other.
    while rounds < 3 or luv.hrtime() < deadline or (rounds < 5 and luv.hrtime() < enough) do
        rounds = rounds + 1
        if rounds % 2 == 0 then run_lua(mode, n, directory, layout, each, lua) end
        run_floor(mode, n, directory, layout, each, floor)
        if rounds % 2 == 1 then run_lua(mode, n, directory, layout, each, lua) end
    end
    local row = { mode = mode, n = n, layout = layout, runs = #lua }
    row.floor, row.floor_spread, row.floor_quiet = measure.summary(floor)
    row.lua, row.lua_spread, row.lua_quiet = measure.summary(lua)
    row.ratio = row.lua / row.floor
    row.quiet_ratio = row.lua_quiet / row.floor_quiet
    row.target = TARGETS[mode] and TARGETS[mode][n]
    return row
end

local function print_row(row)
    local verdict = ""
    if row.target then
        verdict = ("<= %.2f %s"):format(row.target, row.ratio <= row.target and "met" or "MISSED")
    end
    print(("  %-10s %-4s %6d %12.1f %3.0f%% %12.1f %3.0f%% %9.2f %7.2f %7.2f %6d  %s"):format(
        row.mode, row.layout, row.n, row.floor, row.floor_spread, row.lua, row.lua_spread,
        row.lua / row.n, row.ratio, row.quiet_ratio, row.runs, verdict))
    io.stdout:flush()
end

-- ---- the command line ------------------------------------------------------

local function split(text)
    local parts = {}
    for part in text:gmatch("[^,]+") do parts[#parts + 1] = part end
    return parts
end

local function options_from(arguments)
    local options = {
        n = { "1", "10", "100", "1000", "10000" },
        mode = { "rewrite", "onechanged", "unchanged" },
        layout = { "flat", "dirs" },
        dirs = {},
        seconds = 1.5,
    }
    local i = 1
    while i <= #arguments do
        local name, value = arguments[i]:match("^%-%-(.+)$"), arguments[i + 1]
        if not name or not value then
            error("bench: expected --option value, got " .. arguments[i], 0)
        elseif name == "n" or name == "mode" or name == "layout" then
            options[name] = split(value)
        elseif name == "dir" then
            options.dirs[#options.dirs + 1] = value
        elseif name == "seconds" then
            options.seconds = assert(tonumber(value), "bench: --seconds needs a number")
        elseif name == "json" then
            options.json = value
        else
            error("bench: no such option: --" .. name, 0)
        end
        i = i + 2
    end
    if #options.dirs == 0 then
        options.dirs = { "/dev/shm", os.getenv("TMPDIR") or "/tmp" }
    end
    return options
end

local function json_of(rows, machine)
    local lines = {}
    for _, row in ipairs(rows) do
        lines[#lines + 1] = ('  {"fs": %q, "mode": %q, "layout": %q, "n": %d, "floor_us": %.2f, '
            .. '"floor_spread": %.3f, "lua_us": %.2f, "lua_spread": %.3f, "ratio": %.4f, '
            .. '"quiet_ratio": %.4f, '
            .. '"runs": %d}'):format(row.fs, row.mode, row.layout, row.n, row.floor,
                row.floor_spread / 100, row.lua, row.lua_spread / 100, row.ratio,
                row.quiet_ratio, row.runs)
    end
    return ('{"kernel": %q, "cpu": %q, "lua": %q, "version": %q, "durability": "none", '
        .. '"size": %d, "rows": [\n%s\n]}\n'):format(machine.kernel, machine.cpu, machine.lua,
        atomicwriter._VERSION, SIZE, table.concat(lines, ",\n"))
end

local function main(arguments)
    local options = options_from(arguments)
    local machine = {
        kernel = host.first_line("/proc/sys/kernel/osrelease") or "unknown",
        cpu = host.cpu(),
        lua = type(jit) == "table" and jit.version or _VERSION,
    }
    local rows, wanted, missed = {}, 0, 0
    print(("atomicwriter %s from %s, durability none, files of %d bytes, keep 0"):format(
        atomicwriter._VERSION, machine.lua, SIZE))
    print(("Linux %s, %s"):format(machine.kernel, machine.cpu))
    print("microseconds, medians; +- half of the distance of the quartiles; ratio to the floor;")
    print("quiet: the ratio of what one in ten runs stays below, which others disturb least")
    for _, base in ipairs(options.dirs) do
        local made = host.output_of("mktemp -d " .. host.shell_quote(base .. "/aw-bench-XXXXXX"))
        local directory = made:match("^[^\n]+")
        local kind = host.file_system(directory)
        print(("\n%s (%s)"):format(base, kind))
        print(("  %-10s %-4s %6s %12s %4s %12s %4s %9s %7s %7s %6s  %s"):format(
            "work", "in", "files", "floor",
            "+-", "atomicwriter", "+-", "per file", "ratio", "quiet", "runs", "wanted"))
        for _, layout in ipairs(options.layout) do
            for _, mode in ipairs(options.mode) do
                for _, n in ipairs(options.n) do
                    local row = run_both(mode, tonumber(n), directory, layout,
                        options.seconds)
                    row.fs = kind
                    rows[#rows + 1] = row
                    if row.target then wanted = wanted + 1 end
                    if row.target and row.ratio > row.target then missed = missed + 1 end
                    print_row(row)
                end
            end
        end
        os.execute("rm -rf " .. host.shell_quote(directory))
    end
    if wanted > 0 then
        print(("\n%d of %d wanted ratios met"):format(wanted - missed, wanted))
    end
    if options.json then
        local file = assert(io.open(options.json, "w"))
        file:write(json_of(rows, machine))
        file:close()
    end
end

main(arg)
