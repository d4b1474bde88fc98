-- A cluster of three under a publisher that never rests: the leader is killed and started again,
-- ETCD_KILLS times (3), a node is stopped, all are away, each for ETCD_AWAY seconds (3), and a
-- watcher that is cut off finds its revision compacted when it comes back.
--
-- Each value carries the number of its publication. Before a version goes live, its check refuses
-- a mixture of two; its reload notes the number. So it is known of every version that was ever
-- live that it was one publication, and that none came after a later one; at the end all have the
-- last. How long each trouble has kept them from what is new is printed.

local etcd = require "spec.support.etcd"
local sandbox = require "spec.support.sandbox"

local KILLS = tonumber(os.getenv "ETCD_KILLS") or 3
local AWAY = tonumber(os.getenv "ETCD_AWAY") or 3
local WATCHERS, KEYS = 4, 5
local PATIENCE = 120 -- seconds

describe("a cluster in trouble:", function()
    local store, dir, wires, watchers, publisher

    before_each(function()
        store = etcd.start(3)
        dir = sandbox.memdir()
        wires = {}
        for i, node in ipairs(store.nodes) do wires[i] = store:wire(node) end
    end)
    after_each(sandbox.cleanup)

    local function read(name) return (sandbox.read_file(dir .. "/" .. name)) end

    local function acknowledged() return tonumber(read "acknowledged") or 0 end

    local function sources(number)
        local words = {}
        for i = 1, KEYS do
            words[#words + 1] = "--from-literal"
            words[#words + 1] = ("sub%d/k%d=%s"):format(i % 2, i, number)
        end
        return words
    end

    local function start_publisher()
        sandbox.write_file(dir .. "/publish.sh", ('i=0\nwhile [ ! -e %s/stop ]; do\n  i=$((i+1))\n'
            .. '  %s %s --timeout 120s -q || { echo $i >>%s/failed; exit 1; }\n'
            .. '  echo $i >%s/new && mv %s/new %s/acknowledged\ndone\n'):format(dir,
            sandbox.sh(store:words("publish", "/app")), table.concat(sources "$i", " "), dir, dir,
            dir, dir))
        publisher = sandbox.spawn { "sh", dir .. "/publish.sh" }
        sandbox.eventually(function() return acknowledged() > 0 end)
    end

    -- The last one can be cut off from all of etcd.
    local function start_watchers()
        watchers = {}
        local endpoints = {}
        for i, wire in ipairs(wires) do endpoints[i] = wire.endpoint end
        for i = 1, WATCHERS do
            local target = dir .. "/t" .. i
            watchers[i] = store:spawn("write", target, "--create", "--durability", "none",
                "--watch", "--debounce", "5ms", "--from-etcd", "/app", "--log-level", "debug",
                "--announce", "/fleet", "--announce-ttl", "5s", "--etcd-endpoints",
                i == WATCHERS and table.concat(endpoints, ",") or store.endpoints,
                "--check", 'test "$(cat {}/sub*/k* | wc -l)" = 0 && n=$(cat {}/sub1/k1) && '
                    .. ('test "$(cat {}/sub*/k*)" = "$n$n$n$n$n"'),
                "--reload", ("{ cat %s/sub1/k1; echo; } >>%s/log%d"):format(target, dir, i))
        end
    end

    local function live(i) return tonumber(read("t" .. i .. "/sub1/k1")) or 0 end

    -- Wait until each watcher has NUMBER, or a later one.
    local function all_have(number)
        for i = 1, WATCHERS do
            sandbox.eventually(function() return live(i) >= number end, PATIENCE)
            assert.is_true(live(i) >= number, ("watcher %d has %d, not %d: %s"):format(i, live(i),
                number, sandbox.read_file(watchers[i].dir .. "/err")))
        end
    end

    -- From now on until something that is published from now on is live everywhere.
    local function recovery()
        local begun, number = sandbox.now(), acknowledged()
        sandbox.eventually(function() return acknowledged() > number + 1 end, PATIENCE)
        assert.is_true(acknowledged() > number + 1, "publishing does not go on")
        all_have(number + 2)
        return sandbox.now() - begun
    end

    local function tell(what, seconds)
        print(("      %-44s %5.1f s until all have what is new"):format(what, seconds))
    end

    local function kill_leader()
        local node
        sandbox.eventually(function()
            node = store:leader()
            return node
        end)
        assert.truthy(node, "nobody leads")
        node:kill()
        local took = recovery()
        node:start()
        return took
    end

    -- What the reloads of watcher I have noted: only ever later publications.
    local function check_history(i, last)
        local before, count = 0, 0
        for line in read("log" .. i):gmatch("[^\n]+") do
            local number = tonumber(line)
            assert.is_true(number > before, ("watcher %d: %s after %d"):format(i, line, before))
            before, count = number, count + 1
        end
        assert.equal(last, before)
        return count
    end

    it("all end at the last publication, no version is a mixture, nothing is missed", function()
        start_publisher()
        start_watchers()
        all_have(1)

        local worst = 0
        for _ = 1, KILLS do worst = math.max(worst, kill_leader()) end
        tell(("the leader killed, %d times, at worst"):format(KILLS), worst)

        local node = store:leader() or store.nodes[1]
        node:pause()
        sandbox.sleep(AWAY)
        local paused = recovery()
        node:resume()
        tell("a node stopped, the leader; it stays stopped", paused)
        tell("and when it goes on", recovery())

        for _, each in ipairs(store.nodes) do each:kill() end
        sandbox.sleep(AWAY)
        for _, each in ipairs(store.nodes) do each:start() end
        tell(("all nodes away for %g s, when they are back"):format(AWAY), recovery())

        local had = live(WATCHERS)
        for _, wire in ipairs(wires) do wire:cut() end
        sandbox.sleep(1)
        local number = acknowledged()
        sandbox.eventually(function() return acknowledged() > number + 2 end, PATIENCE)
        store:ctl("compact", ("%d"):format(store:revision()))
        assert.is_true(live(WATCHERS) < acknowledged() and live(WATCHERS) >= had)
        for _, wire in ipairs(wires) do wire:join() end
        tell("a compaction while a watcher is cut off", recovery())
        assert.truthy(sandbox.read_file(watchers[WATCHERS].dir .. "/err")
            :find("has been compacted", 1, true))

        sandbox.write_file(dir .. "/stop", "")
        assert.equal(0, (publisher:wait(PATIENCE)))
        assert.is_nil(read "failed")
        local last = acknowledged()
        all_have(last)
        local revision = store:revision()
        local status, text = store:run("fleet", "/fleet", "--wait", "1", "--machines", WATCHERS,
            "--timeout", "60s")
        assert.equal(0, status, text)
        assert.is_true(revision > last)

        -- What is no transaction would have been seen.
        local function refused(watcher)
            return sandbox.read_file(watcher.dir .. "/err"):find("the check refused", 1, true)
        end
        for _, watcher in ipairs(watchers) do assert.falsy(refused(watcher)) end
        store:put("/app/sub0/k2", "torn")
        for _, watcher in ipairs(watchers) do
            assert.truthy(sandbox.eventually(function() return refused(watcher) end))
        end

        local versions = 0
        for i, watcher in ipairs(watchers) do
            watcher:kill "TERM"
            local code, _, err = watcher:wait(60)
            assert.equal(0, code, err)
            assert.equal(last, live(i))
            versions = versions + check_history(i, last)
        end
        print(("      %d publications, %d versions live on %d watchers, none a mixture")
            :format(last, versions, WATCHERS))
    end)
end)
