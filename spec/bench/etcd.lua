--- How long it takes from `publish` until a whole fleet has it, and what that costs etcd.
--
--    make bench-etcd
--    make bench-etcd ARGS='--watchers 200 --publications 20 --files 10 --bytes 1000 --nodes 1
--        --proxies 0 --announce 1 --splay 0s --debounce 100ms --idle 20'
--
-- As many `atomicwriter write --watch --from-etcd` as are asked for run on this machine, each with
-- a target of its own in memory, and with its etcdctl as on any other machine. What a machine of a
-- fleet does in parallel they do in turns on these processors, so the times are those of this
-- machine; what etcd has to do is the same as for a fleet. When a version went live is taken from
-- the time stamps of the link `..data`, which does not disturb.

local cjson = require "cjson"
local etcd = require "spec.support.etcd"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"
local sandbox = require "spec.support.sandbox"

local uv = measure.luv

local options = {
    watchers = 200, publications = 20, files = 10, bytes = 1000, nodes = 1, proxies = 0,
    announce = 1, splay = "0s", debounce = "100ms", idle = 20,
}

local function read_options(args)
    for i = 1, #args, 2 do
        local name = args[i]:match "^%-%-(%w+)$"
        if not name or options[name] == nil or not args[i + 1] then
            error("usage: etcd.lua [--watchers N] [--publications N] [--files N] [--bytes N] "
                .. "[--nodes N] [--proxies N] [--announce 0|1] [--splay TIME] [--debounce TIME] "
                .. "[--idle SECONDS]", 0)
        end
        options[name] = tonumber(args[i + 1]) or args[i + 1]
    end
end

-- The clock of time stamps, in seconds.
local function clock()
    local seconds, micro = uv.gettimeofday()
    return seconds + micro / 1e6
end

---- the fleet -----------------------------------------------------------------

local store, dir, watchers

local function start_fleet()
    local words = store:words("write", "TARGET", "--create", "--durability", "none", "--watch",
        "--from-etcd", "/app", "--splay", options.splay, "--debounce", options.debounce)
    if options.announce == 1 then
        words[#words + 1] = "--announce"
        words[#words + 1] = "/fleet"
    end
    local place
    for index, word in ipairs(words) do place = word == "TARGET" and index or place end
    local proxies = {}
    for i = 1, options.proxies do proxies[i] = store:proxy() end
    local near = #words + 2
    for i = 1, options.watchers do
        words[place] = dir .. "/t" .. i
        if #proxies > 0 then
            words[near - 1], words[near] = "--etcd-endpoints", proxies[i % #proxies + 1]
        end
        watchers[i] = sandbox.spawn(words)
        if i % 10 == 0 then sandbox.sleep(0.3) end -- not all at once
    end
end

-- What watcher I has live: its number, and when it went live.
local function live(i)
    local number = tonumber((sandbox.read_file(dir .. "/t" .. i .. "/number")))
    local about = uv.fs_lstat(dir .. "/t" .. i .. "/..data")
    return number, about and about.ctime.sec + about.ctime.nsec / 1e9
end

local function wait_for(number, seconds)
    local at = {}
    for i = 1, options.watchers do
        local found = sandbox.eventually(function()
            local has, time = live(i)
            at[i] = time
            return has == number
        end, seconds)
        assert(found, ("watcher %d has not come to %d"):format(i, number))
    end
    return at
end

local function publish(number)
    local words = { "publish", "/app", "-q", "--timeout", "60s", "--from-literal",
        "number=" .. number }
    for i = 1, options.files do
        sandbox.write_file(dir .. "/file" .. i, number .. (" "):rep(options.bytes - #number))
        words[#words + 1] = "--from-file"
        words[#words + 1] = dir .. "/file" .. i
    end
    local begun = clock()
    store:must(sandbox.unpack(words))
    return begun
end

---- costs ---------------------------------------------------------------------

-- Processor seconds and resident MiB of all nodes, and bytes that they have sent to clients.
local function load_of_etcd()
    local sum = { seconds = 0, mib = 0, sent = 0, puts = 0, ranges = 0 }
    local ticks = tonumber(sandbox.must "getconf CLK_TCK")
    for _, node in ipairs(store.nodes) do
        local pid = node.child.pid
        local user, system = sandbox.read_file("/proc/" .. pid .. "/stat")
            :match("^.*%) %a" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
        sum.seconds = sum.seconds + (user + system) / ticks
        sum.mib = sum.mib + sandbox.read_file("/proc/" .. pid .. "/status")
            :match("VmRSS:%s*(%d+)") / 1024
        local metrics = sandbox.must { "curl", "-s", node.url .. "/metrics" }
        local function metric(name)
            return tonumber(metrics:match("\n" .. name .. " (%S+)") or 0)
        end
        sum.sent = sum.sent + metric "etcd_network_client_grpc_sent_bytes_total"
        sum.puts = sum.puts + metric "etcd_mvcc_put_total"
        sum.ranges = sum.ranges + metric "etcd_mvcc_range_total"
    end
    return sum
end

local function pss(pid)
    local text = sandbox.read_file("/proc/" .. pid .. "/smaps_rollup") or ""
    return tonumber(text:match("\nPss:%s*(%d+)") or 0) / 1024
end

-- MiB of PSS in the mean: ours, and that of the children of each.
local function memory()
    local own, children, count, is_watcher = 0, 0, 0, {}
    for _, watcher in ipairs(watchers) do
        own = own + pss(watcher.pid)
        is_watcher[watcher.pid] = true
    end
    for pid, parent in sandbox.must "ps -eo pid=,ppid=":gmatch "(%d+) +(%d+)" do
        if is_watcher[tonumber(parent)] then children, count = children + pss(pid), count + 1 end
    end
    local number = #watchers
    return own / number, children / number, count / number
end

local function say(...) print((...):format(select(2, ...))) end

---- the run -------------------------------------------------------------------

local function measure_publications(first)
    local each, all, commands = {}, {}, {}
    local before = load_of_etcd()
    for number = first, first + options.publications - 1 do
        local begun = publish(tostring(number))
        commands[#commands + 1] = clock() - begun
        local last = 0
        for _, time in ipairs(wait_for(number, 120)) do
            each[#each + 1] = time - begun
            last = math.max(last, time - begun)
        end
        all[#all + 1] = last
        sandbox.sleep(0.5) -- the announcements come after that
    end
    local after = load_of_etcd()
    for _, list in ipairs { each, all, commands } do table.sort(list) end
    say("publish itself, median            %8.0f ms", 1000 * measure.quantile(commands, 0.5))
    say("publish to live on one, median    %8.0f ms", 1000 * measure.quantile(each, 0.5))
    say("publish to live on one, p99       %8.0f ms", 1000 * measure.quantile(each, 0.99))
    say("publish to live on all, median    %8.0f ms", 1000 * measure.quantile(all, 0.5))
    say("publish to live on all, worst     %8.0f ms", 1000 * all[#all])
    local per = options.publications * options.watchers
    say("etcd, for one watcher and publication: %.3f ms of a processor, %.1f KiB sent, %.2f puts",
        1000 * (after.seconds - before.seconds) / per, (after.sent - before.sent) / per / 1024,
        (after.puts - before.puts) / per)
end

-- Milliseconds of a processor and reads, a second, while nothing is published.
local function rest()
    local before = load_of_etcd()
    sandbox.sleep(options.idle)
    local after = load_of_etcd()
    return 1000 * (after.seconds - before.seconds) / options.idle,
        (after.ranges - before.ranges) / options.idle
end

local function main(args)
    read_options(args)
    watchers = {}
    store, dir = etcd.start(options.nodes), sandbox.memdir()
    say("%s, Linux %s, %s; %s; one machine for all", host.cpu(),
        host.first_line "/proc/sys/kernel/osrelease", host.file_system(dir),
        sandbox.must "etcd --version":match "[^\n]+")
    say("%d watchers, %d nodes of etcd, %d proxies, %d files of %d bytes, announce %d, splay %s, "
        .. "debounce %s", options.watchers, options.nodes, options.proxies, options.files,
        options.bytes, options.announce, options.splay, options.debounce)
    publish "1"
    local alone = rest()
    start_fleet()
    wait_for(1, 120)
    if options.announce == 1 then
        store:must("fleet", "/fleet", "--wait", "1", "--machines", tostring(options.watchers),
            "--timeout", "120s", "-q")
    end
    measure_publications(2)
    local own, children, count = memory()
    say("memory of one (PSS): %.1f MiB, and %.1f MiB of %.1f etcdctl", own, children, count)
    local busy, reads = rest()
    say("etcd at rest: %.1f ms of a processor a second alone; for one watcher %.4f, and %.3f reads",
        alone, (busy - alone) / options.watchers, reads / options.watchers)
    say("etcd itself: %.0f MiB", load_of_etcd().mib / options.nodes)
    if options.announce == 1 then
        local status, text = store:run("fleet", "/fleet", "--output", "json")
        say("fleet: exit %d, %d have it", status, cjson.decode(text).have)
    end
end

local fine, err = xpcall(main, debug.traceback, arg)
sandbox.cleanup()
if not fine then
    io.stderr:write("bench: ", tostring(err), "\n")
    os.exit(1)
end
