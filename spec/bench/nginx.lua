--- What publishing from inside nginx costs the requests that have nothing to do with it.
--
--    make bench-nginx
--    make bench-nginx ARGS='--rounds 9 --seconds 5 --connections 16 --pause 4 --dir /var/tmp'
--
-- Two workers publish in turns 500 changed files, synced, without a pause: in a worker thread, or
-- directly. wrk asks for a location that touches nothing of it, and for one that names the version
-- of two files. A client pauses up to 4 ms before it asks again: on a saturated machine the
-- scheduler's slices would be measured. wrk has a real-time priority where it may (as root), for
-- clients are elsewhere in life, and their own wait for a processor is not nginx's. The servers
-- take turns, so that what else the machine does falls upon them alike. What counts is the ratio of
-- the p99 to that without writes; writes by another process show how much of it is the disk's and
-- the processors' share, and the workers' wait how long they were ready and had no processor.

local atomicwriter = require "atomicwriter"
local host = require "spec.bench.host"
local load = require "spec.nginx.load"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local LIMIT = 3 -- p99 with writes in a thread, at most so many times that without

local options = {
    rounds = 5, seconds = 4, connections = 16, pause = 4, dir = os.getenv "TMPDIR" or "/tmp",
}

local function read_options(args)
    for i = 1, #args, 2 do
        local name = args[i]:match "^%-%-(%w+)$"
        if not name or options[name] == nil or not args[i + 1] then
            error("usage: nginx.lua [--rounds N] [--seconds N] [--connections N] "
                .. "[--pause MS] [--dir PATH]", 0)
        end
        options[name] = tonumber(args[i + 1]) or args[i + 1]
    end
end

-- Before wrk: what puts it first, if that is allowed.
local FIRST = { "chrt", "-f", "1" }
if sandbox.run { "chrt", "-f", "1", "true" } ~= 0 then FIRST = {} end

-- Hundredths of a second that the processors have spent, and how many of them a hypervisor took.
local function spent()
    local sum, fields = 0, {}
    for number in host.first_line("/proc/stat"):gmatch "%d+" do
        fields[#fields + 1] = tonumber(number)
        sum = sum + fields[#fields]
    end
    return sum, fields[8]
end

-- The ways, each with a server of its own.
local WAYS = {
    { name = "no writes" },
    { name = "by another process", outside = true },
    { name = "in a worker thread", publish = true },
    { name = "directly", publish = true, direct = true },
}

local function start(way, dir)
    local target = dir .. "/" .. way.name:gsub(" ", "-")
    local writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
    local payload = {}
    for i = 1, load.FILES do payload["file" .. i] = "0\n" end
    assert(writer:write(payload))
    writer:close()
    way.target, way.server = target, load.start(target, way.direct)
    way.plain, way.two, way.published = {}, { answers = 0, failed = 0, mixed = 0 }, 0
end

-- Publishes until it is killed, and leaves the number of versions in a file.
local function publisher(target, files, counter)
    local writer = assert(require("atomicwriter").new(target, { lock_timeout = 60 }))
    local pad, number = ("x"):rep(1000), 0
    while true do
        number = number + 1
        local payload = {}
        for i = 1, tonumber(files) do payload["file" .. i] = number .. "\n" .. pad end
        assert(writer:write(payload))
        local file = assert(io.open(counter .. ".new", "w"))
        file:write(number)
        file:close()
        os.rename(counter .. ".new", counter)
    end
end

-- Milliseconds that the workers of WAY have been ready and waited for a processor.
local function waited(way)
    local sum = 0
    for _, pid in ipairs(way.server:workers()) do
        local line = host.first_line(("/proc/%d/task/%d/schedstat"):format(pid, pid))
        sum = sum + tonumber(line and line:match "^%d+ (%d+)" or 0) / 1e6
    end
    return sum
end

local function ask_both(way)
    way.plain[#way.plain + 1] =
        load.ask(way.server, "/", options.seconds, options.connections, options.pause, FIRST)
    return load.ask(way.server, "/two", options.seconds, options.connections, options.pause, FIRST)
end

-- As ask_both, while another process publishes.
local function ask_beside(way)
    local scratch = sandbox.tmpdir()
    local child = sandbox.spawn(sandbox.lua(scratch, publisher, way.target,
        tostring(load.FILES), scratch .. "/count"))
    local two = ask_both(way)
    child:kill_all()
    child:wait(10)
    way.published = way.published + (tonumber(sandbox.read_file(scratch .. "/count") or nil) or 0)
    return two
end

local function measure(way)
    local before = way.publish and load.publish(way.server, true) or 0
    local waited_before = waited(way)
    local two = way.outside and ask_beside(way) or ask_both(way)
    way.waited = (way.waited or 0) + waited(way) - waited_before
    if way.publish then
        way.published = way.published + load.publish(way.server, false) - before
    end
    local plain = way.plain[#way.plain]
    for name in pairs(way.two) do
        way.two[name] = way.two[name] + two[name] + plain[name]
    end
    way.two.mixed = way.two.mixed - plain.mixed -- "/" names nothing
    way.asked = (way.asked or 0) + two.answers
end

local function median(way, field)
    local list = {}
    for i, saw in ipairs(way.plain) do list[i] = saw[field] end
    table.sort(list)
    local middle = (#list + 1) / 2
    return (list[math.floor(middle)] + list[math.ceil(middle)]) / 2
end

-- NUMBER as FORMAT has it; a dash where nobody got an answer in most rounds.
local function cell(way, format, number)
    return median(way, "max") == 0 and "-" or format:format(number)
end

local function print_table()
    local base = median(WAYS[1], "p99")
    print("\n| writes | versions/s | p50 ms | p99 ms | p99 ratio | max ms | "
        .. "workers' wait, ms/s | requests | failed | asked for two files | mixed |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for _, way in ipairs(WAYS) do
        print(("| %s | %.1f | %s | %s | %s | %s | %.0f | %d | %d | %d | %d |"):format(way.name,
            way.published / (2 * options.seconds * options.rounds),
            cell(way, "%.2f", median(way, "p50") / 1000),
            cell(way, "%.2f", median(way, "p99") / 1000),
            cell(way, "%.2f", median(way, "p99") / base),
            cell(way, "%.1f", median(way, "max") / 1000),
            way.waited / (2 * options.seconds * options.rounds),
            way.two.answers, way.two.failed, way.asked, way.two.mixed))
    end
    return median(WAYS[3], "p99") / base
end

local function run()
    read_options(arg)
    local missing = nginx.missing()
    if missing then error(missing, 0) end
    local dir = host.output_of("mktemp -d " .. host.shell_quote(options.dir .. "/aw-bench-XXXXXX"))
        :gsub("\n", "")
    print(("%s, Linux %s, %s; %d files a write, durability full; wrk -t1 -c%d%s, "
        .. "pauses up to %d ms, %d rounds of %d s")
        :format(host.cpu(), host.first_line "/proc/sys/kernel/osrelease", host.file_system(dir),
            load.FILES, options.connections, FIRST[1] and " in real time" or "",
            options.pause, options.rounds, options.seconds))
    local sum, stolen = spent()
    local fine, result = pcall(function()
        for _, way in ipairs(WAYS) do start(way, dir) end
        for _ = 1, options.rounds do
            for _, way in ipairs(WAYS) do measure(way) end
        end
        local sum_after, stolen_after = spent()
        print(("the hypervisor took %.1f %% of the processors"):format(
            100 * (stolen_after - stolen) / (sum_after - sum)))
        return print_table()
    end)
    for _, way in ipairs(WAYS) do
        if way.server then way.server:stop() end
    end
    sandbox.cleanup()
    sandbox.rmtree(dir)
    if not fine then error(result, 0) end
    local failed, mixed = 0, 0
    for _, way in ipairs(WAYS) do
        mixed = mixed + way.two.mixed
        if not way.direct then failed = failed + way.two.failed end -- there, time-outs
    end
    print(("\np99 with writes in a thread: %.2f times that without (wanted: below %d); "
        .. "%d failed, %d mixed"):format(result, LIMIT, failed, mixed))
    return result <= LIMIT and failed == 0 and mixed == 0
end

os.exit(run() and 0 or 1)
