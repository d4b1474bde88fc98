--- Watchers tell of new versions.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("A watcher", function()
    local dir, target, writer, watcher

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
        writer = assert(atomicwriter.new(target, FAST))
    end)
    after_each(function()
        if watcher then watcher:close() end
        watcher = nil
        writer:close()
        sandbox.cleanup()
    end)

    local function timed_out(seconds)
        local start = sandbox.now()
        local version, why = watcher:wait(seconds)
        local waited = sandbox.now() - start
        assert.is_nil(version)
        assert.equal("timeout", why)
        assert.is_true(waited >= seconds, "waited only " .. waited)
    end

    it("G10: tells of each of 1000 spaced swaps", function()
        watcher = assert(atomicwriter.watch(target))
        for i = 1, 1000 do
            local result = assert(writer:write { n = tostring(i) })
            assert.equal(result.version, (watcher:wait(10)))
        end
        timed_out(0)
    end)

    it("G10: tells of the last of 1000 fast swaps, and of no other after it", function()
        watcher = assert(atomicwriter.watch(target))
        local last
        for i = 1, 1000 do last = assert(writer:write { n = tostring(i) }).version end
        assert.equal(last, (watcher:wait(10)))
        timed_out(0)
        timed_out(0.01)
    end)

    it("G10: tells a waiting process of the last of 1000 fast swaps", function()
        local child = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local watched = assert(require("atomicwriter").watch(where))
            io.open(base .. "/ready", "w"):close()
            local told, last = 0, nil
            repeat
                local version = assert(watched:wait(30))
                assert(version ~= last, "told twice of " .. version)
                local file = io.open(where .. "/" .. version .. "/n", "rb")
                local data = file and file:read("*a")
                if file then file:close() end
                told, last = told + 1, version
            until data == "1000"
            print(told, last)
        end, target, dir))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/ready") end))
        for i = 1, 1000 do assert(writer:write { n = tostring(i) }) end
        local status, stdout, stderr = child:wait()
        assert.equal(0, status, stderr)
        assert.equal(volume.live(target), stdout:match("\t(%S+)\n"))
    end)

    it("G10: counts the version that is live when it starts as seen", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        timed_out(0)
        timed_out(0.05)
        local version = assert(writer:write { n = "2" }).version
        assert.equal(version, (watcher:wait(10)))
    end)

    it("G10: tells of the first version of an empty target", function()
        watcher = assert(atomicwriter.watch(target))
        timed_out(0)
        local version = assert(writer:write {}).version
        assert.equal(version, (watcher:wait(10)))
    end)

    it("G10: tells of a rollback as of any version", function()
        assert(writer:write { n = "1" })
        assert(writer:write { n = "2" })
        watcher = assert(atomicwriter.watch(target))
        local version = assert(writer:rollback()).version
        assert.equal(version, (watcher:wait(10)))
    end)

    it("G10: is not woken by what is no new version", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        assert.is_false(assert(writer:write { n = "1" }).changed)
        assert.is_nil((writer:write({ n = "2" }, { check = function() return false end })))
        assert(writer:collect())
        sandbox.write_file(target .. "/foreign", "x")
        os.remove(target .. "/foreign")
        timed_out(0)
        timed_out(0.1)
    end)

    it("G10: waits as long as it was asked to, never less", function()
        watcher = assert(atomicwriter.watch(target))
        for _, seconds in ipairs { 0, 0.001, 0.05, 0.2 } do timed_out(seconds) end
    end)

    it("G10: waits that long although other things happen in the target", function()
        watcher = assert(atomicwriter.watch(target))
        local child = sandbox.spawn { "sh", "-c",
            'while :; do : >"$0/noise"; mv "$0/noise" "$0/noise2"; rm "$0/noise2"; done', target }
        timed_out(0.2)
        child:kill("KILL")
    end)

    it("G10: tells of a swap that comes while it waits", function()
        watcher = assert(atomicwriter.watch(target))
        local child = sandbox.spawn(sandbox.lua(dir, function(where)
            require("system").sleep(0.1)
            local w = assert(require("atomicwriter").new(where, { durability = "none" }))
            print(assert(w:write { n = "1" }).version)
        end, target))
        local version = watcher:wait() -- for ever
        local status, stdout, stderr = child:wait()
        assert.equal(0, status, stderr)
        assert.equal(stdout, tostring(version) .. "\n")
    end)

    it("G10: loses nothing when the queue of events overflows", function()
        local queue = tonumber(sandbox.read_file("/proc/sys/fs/inotify/max_queued_events") or "")
        if not queue or queue > 100000 then pending("the queue is too long to fill it") end
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        local a, b = target .. "/noise-a", target .. "/noise-b"
        sandbox.write_file(a, "")
        for _ = 1, math.ceil(queue / 4) + 100 do -- two renames, four events
            assert(os.rename(a, b))
            assert(os.rename(b, a))
        end
        local version = assert(writer:write { n = "2" }).version
        assert.equal(version, (watcher:wait(10)))
        timed_out(0)
        version = assert(writer:write { n = "3" }).version
        assert.equal(version, (watcher:wait(10)))
    end)

    it("G10: is one of many for the same target", function()
        local others = {}
        for i = 1, 10 do others[i] = assert(atomicwriter.watch(target)) end
        watcher = assert(atomicwriter.watch(target))
        local version = assert(writer:write { n = "1" }).version
        for i = 1, 10 do
            assert.equal(version, (others[i]:wait(10)))
            others[i]:close()
        end
        assert.equal(version, (watcher:wait(10)))
    end)

    it("G10: has a descriptor that says when there is something to read", function()
        watcher = assert(atomicwriter.watch(target))
        local fd = watcher:fd()
        assert.equal("number", type(fd))
        assert.equal("anon_inode:inotify", sandbox.readlink("/proc/self/fd/" .. math.floor(fd)))
        watcher:close()
        assert.is_nil(sandbox.kind("/proc/self/fd/" .. math.floor(fd)))
    end)

    it("G9: works on a volume that a kubelet writes", function()
        local function swap(version)
            sandbox.mkdir(target .. "/" .. version)
            sandbox.symlink(version, target .. "/..data_tmp")
            assert(os.rename(target .. "/..data_tmp", target .. "/..data"))
        end
        swap "..2024_02_29_12_00_01.345678901"
        watcher = assert(atomicwriter.watch(target))
        for i = 2, 9 do
            local version = "..2024_02_29_12_00_0" .. i .. ".98765432" .. i
            swap(version)
            assert.equal(version, (watcher:wait(10)))
        end
        -- a kubelet's names need not increase
        swap "..2024_02_29_12_00_01.1"
        assert.equal("..2024_02_29_12_00_01.1", (watcher:wait(10)))
    end)

    ---- the end of the target -------------------------------------------------

    local function gone()
        for _ = 1, 3 do
            local version, err = watcher:wait(10)
            assert.is_nil(version)
            assert.equal("table", type(err), tostring(err))
            assert.equal("no_target", err.code)
        end
    end

    it("G10: gives a clear error when the target is removed, and from then on", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        sandbox.rmtree(target)
        gone()
    end)

    it("G10: gives a clear error when the target is renamed away", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        assert(os.rename(target, dir .. "/elsewhere"))
        gone()
    end)

    it("G10: gives a clear error when the target is replaced", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        assert(os.rename(target, dir .. "/elsewhere"))
        sandbox.mkdir(target)
        assert(writer:write { n = "2" })
        gone()
    end)

    it("G10: gives a clear error when the target is removed that a reader still holds", function()
        assert(writer:write { n = "1" })
        local snapshot = assert(atomicwriter.open(target))
        watcher = assert(atomicwriter.watch(target))
        sandbox.rmtree(target)
        gone()
        snapshot:close()
    end)

    it("G10: gives a clear error when the target is removed and made again", function()
        assert(writer:write { n = "1" })
        local snapshot = assert(atomicwriter.open(target)) -- without it the inode may be reused
        watcher = assert(atomicwriter.watch(target))
        sandbox.rmtree(target)
        sandbox.mkdir(target)
        assert(writer:write { n = "2" })
        gone()
        snapshot:close()
    end)

    it("G10: is woken with a clear error when the target goes while it waits", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        local child = sandbox.spawn { "sh", "-c", 'sleep 0.1; rm -rf -- "$0"', target }
        gone()
        child:wait()
    end)

    it("G10: says no_target where there is none to begin with", function()
        for _, path in ipairs { dir .. "/missing", dir .. "/missing/deeper" } do
            local watched, err = atomicwriter.watch(path)
            assert.is_nil(watched)
            assert.equal("no_target", err.code)
        end
        sandbox.write_file(dir .. "/file", "")
        local watched, err = atomicwriter.watch(dir .. "/file")
        assert.is_nil(watched)
        assert.equal("no_target", err.code)
    end)

    it("G7: says foreign_entry when ..data becomes something else", function()
        assert(writer:write { n = "1" })
        watcher = assert(atomicwriter.watch(target))
        os.remove(target .. "/..data")
        sandbox.symlink("../elsewhere", target .. "/..data")
        local version, err = watcher:wait(10)
        assert.is_nil(version)
        assert.equal("foreign_entry", err.code)
    end)
end)
