-- `--watch` with `--from-etcd`: each revision becomes a version, whatever becomes of etcd.

local etcd = require "spec.support.etcd"
local sandbox = require "spec.support.sandbox"

local eventually = sandbox.eventually

describe("watching etcd:", function()
    local store, dir, target, log, child

    before_each(function()
        store = etcd.start()
        dir = sandbox.memdir()
        target, log = dir .. "/app", dir .. "/log"
    end)
    after_each(sandbox.cleanup)

    local function live(name) return sandbox.read_file(target .. "/" .. name) end

    local function live_becomes(name, text)
        eventually(function() return live(name) == text end)
        assert.equal(text, live(name))
    end

    local function stderr() return sandbox.read_file(child.dir .. "/err") or "" end

    local function says(text)
        eventually(function() return stderr():find(text, 1, true) end)
        assert.truthy(stderr():find(text, 1, true), stderr())
    end

    local function watch(...)
        child = store:spawn("write", target, "--create", "--durability", "none", "--watch",
            "--debounce", "20ms", "--from-etcd", "/app", ...)
        says "watching for changes"
        return child
    end

    -- Until the watch of etcd is there, a change would be found by the read before it.
    local function watches(of)
        assert.truthy(eventually(function()
            return sandbox.run { "pgrep", "-P", tostring((of or child).pid), "-f",
                "etcdctl watch" } == 0
        end))
    end

    local function stop()
        child:kill "TERM"
        local status, _, err = child:wait(30)
        assert.equal(0, status, err)
        return err
    end

    it("puts, changes and deletions become versions, each transaction one", function()
        store:transact { ["/app/a"] = "1", ["/app/b"] = "1" }
        watch("--reload", ("cat %s/* >>%s; echo >>%s"):format(target, log, log))
        store:transact { ["/app/a"] = "2", ["/app/b"] = "2" }
        live_becomes("b", "2")
        store:transact { ["/app/a"] = "3", ["/app/b"] = false, ["/app/sub/c"] = "3" }
        live_becomes("sub/c", "3")
        live_becomes("b", nil)
        store:delete("/app/sub/c")
        live_becomes("sub/c", nil)
        assert.equal("3", live "a")
        eventually(function() return select(2, (sandbox.read_file(log)):gsub("\n", "")) == 4 end)
        assert.equal("", (sandbox.read_file(log):gsub("^11\n22\n3\n3\n$", "")))
        stop()
    end)

    it("what happens outside the prefix makes no version", function()
        store:put("/app/a", "1")
        watch()
        watches()
        local before = sandbox.readlink(target .. "/..data")
        for i = 1, 5 do store:put("/apple" .. i, "x") end
        store:put("/app/a", "1") -- the same again
        store:put("/app/b", "1")
        live_becomes("b", "1")
        stop()
        assert.is_not.equal(before, sandbox.readlink(target .. "/..data"))
        assert.same({ before, sandbox.readlink(target .. "/..data"), "..data", "..lock", "a", "b" },
            sandbox.names(target))
    end)

    it("a burst becomes one version, the last", function()
        store:put("/app/a", "0")
        child = store:spawn("write", target, "--create", "--durability", "none", "--watch",
            "--debounce", "500ms", "--from-etcd", "/app", "--reload",
            ("cat %s/a >>%s; echo >>%s"):format(target, log, log))
        says "watching for changes"
        watches()
        for i = 1, 10 do store:put("/app/a", tostring(i)) end
        live_becomes("a", "10")
        eventually(function() return sandbox.read_file(log) == "0\n10\n" end)
        assert.equal("0\n10\n", sandbox.read_file(log))
        stop()
    end)

    it("goes on after etcd was killed and started again", function()
        store:put("/app/a", "1")
        watch()
        live_becomes("a", "1")
        for i = 2, 3 do
            store.nodes[1]:kill()
            sandbox.sleep(0.5)
            assert.equal(tostring(i - 1), live "a")
            store.nodes[1]:start()
            store:wait()
            store:put("/app/a", tostring(i))
            live_becomes("a", tostring(i))
        end
        stop()
    end)

    it("starts while etcd is away: what is live stays, and follows when etcd is back", function()
        store:put("/app/a", "1")
        watch()
        live_becomes("a", "1")
        stop()
        local before = sandbox.listing(target)
        store:put("/app/a", "2")
        store.nodes[1]:kill()
        watch()
        assert.truthy(stderr():find("nothing answers", 1, true), stderr())
        assert.equal(before, sandbox.listing(target))
        store.nodes[1]:start()
        live_becomes("a", "2")
        says "recovered"
        store:put("/app/a", "3")
        live_becomes("a", "3")
        assert.equal(1, select(2, stop():gsub("nothing answers", "")))
    end)

    it("reads all again when it comes back after a compaction, and misses nothing", function()
        store:transact { ["/app/a"] = "1", ["/app/gone"] = "1" }
        local wire = store:wire()
        watch("--etcd-endpoints", wire.endpoint, "--log-level", "debug")
        live_becomes("a", "1")
        watches()
        sandbox.sleep(0.3)
        wire:cut()
        store:transact { ["/app/a"] = "2", ["/app/gone"] = false }
        for i = 3, 20 do store:put("/app/a", tostring(i)) end
        store:ctl("compact", ("%d"):format(store:revision()))
        assert.equal("1", live "a")
        wire:join()
        live_becomes("a", "20")
        live_becomes("gone", nil)
        says "has been compacted"
        store:put("/app/a", "21")
        live_becomes("a", "21")
        stop()
    end)

    it("a connection that hangs is given up, and nothing is missed", function()
        store:put("/app/a", "1")
        local wire = store:wire()
        watch("--etcd-endpoints", wire.endpoint .. "," .. store.endpoints)
        live_becomes("a", "1")
        wire.child:kill "STOP"
        store:put("/app/a", "2")
        live_becomes("a", "2")
        stop()
    end)

    it("keeps the last good version when a revision is refused, says so once, recovers", function()
        store:put("/app/a", "1")
        watch()
        live_becomes("a", "1")
        local before = sandbox.readlink(target .. "/..data")
        local revision = store:transact { ["/app/a"] = "2", ["/app/..x"] = "2" }
        says(("revision %d of /app/ is refused"):format(revision))
        says "/app/..x"
        child:kill "HUP"
        sandbox.sleep(0.5)
        assert.equal(before, sandbox.readlink(target .. "/..data"))
        store:delete("/app/..x")
        live_becomes("a", "2")
        assert.equal(1, select(2, stop():gsub("is refused", "")))
    end)

    it("keeps the last good version when all keys are deleted", function()
        store:put("/app/a", "1")
        watch()
        live_becomes("a", "1")
        store:delete("/app/a")
        says "has no key below /app/"
        assert.equal("1", live "a")
        store:put("/app/a", "2")
        live_becomes("a", "2")
        stop()
    end)

    it("two prefixes change together", function()
        store:transact { ["/app/a"] = "1", ["/more/b"] = "1" }
        watch("--from-etcd", "/more", "--check",
            "test $(cat {}/a) = $(cat {}/b)") -- never a mixture
        for i = 2, 10 do
            store:transact { ["/app/a"] = tostring(i), ["/more/b"] = tostring(i) }
        end
        live_becomes("a", "10")
        live_becomes("b", "10")
        assert.falsy(stop():find("refused", 1, true))
    end)

    it("templates are rendered again when their data change", function()
        store:put("/data/port", "1")
        store:put("/app/a", "1")
        sandbox.write_file(dir .. "/x.tmpl", "{{ data.d.port }}")
        watch("--template", dir .. "/x.tmpl", "--data-from-etcd", "d=/data")
        live_becomes("x", "1")
        store:put("/data/port", "2")
        live_becomes("x", "2")
        sandbox.write_file(dir .. "/x.tmpl", "{{ data.d.port }}!")
        live_becomes("x", "2!")
        stop()
    end)

    it("a project that no longer wants etcd lets go of it", function()
        store:put("/app/a", "1")
        local project = [[return { target = "app", create = true, durability = "none", %s }]]
        sandbox.write_file(dir .. "/p.lua", project:format("etcd = { prefix = '/app' }"))
        child = store:spawn("run", dir .. "/p.lua", "--watch", "--debounce", "20ms")
        live_becomes("a", "1")
        watches()
        store:put("/app/a", "2")
        live_becomes("a", "2")
        sandbox.write_file(dir .. "/p.lua", project:format("payload = { a = 'own' }"))
        live_becomes("a", "own")
        assert.truthy(eventually(function()
            return sandbox.run { "pgrep", "-P", tostring(child.pid) } == 1
        end))
        stop()
    end)

    it("no etcdctl is left when it is killed, nor when it ends", function()
        store:put("/app/a", "1")
        for _, signal in ipairs { "KILL", "TERM" } do
            watch()
            watches()
            local pid = sandbox.must { "pgrep", "-P", tostring(child.pid) }:match "%d+"
            child:kill(signal)
            child:wait(30)
            assert.truthy(eventually(function() return not sandbox.lives(pid) end))
        end
    end)

    it("--splay spreads a fleet", function()
        store:put("/app/a", "1")
        local names = {}
        for i = 1, 6 do
            names[i] = dir .. "/t" .. i
            child = store:spawn("write", names[i], "--create", "--durability", "none", "--watch",
                "--debounce", "0", "--splay", "3s", "--from-etcd", "/app")
            says "watching for changes"
            watches()
        end
        sandbox.sleep(0.3)
        local begun = sandbox.now()
        store:put("/app/a", "2")
        local took, seen = {}, {}
        eventually(function()
            for _, name in ipairs(names) do
                if not seen[name] and sandbox.read_file(name .. "/a") == "2" then
                    took[#took + 1], seen[name] = sandbox.now() - begun, true
                end
            end
            return #took == #names
        end)
        assert.equal(#names, #took)
        table.sort(took)
        assert.is_true(took[#took] - took[1] > 0.2, table.concat(took, " "))
        assert.is_true(took[#took] < 3.9, table.concat(took, " "))
    end)
end)
