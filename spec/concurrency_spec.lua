--- Writers that exclude each other, and readers that run all the while.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("Writers of one target", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
    end)
    after_each(function() sandbox.cleanup() end)

    -- A child that reads through snapshots until DIR/stop exists.
    local function snapshot_reader()
        return sandbox.spawn(sandbox.lua(dir, function(where, stop)
            local atomicwriter, lfs = require "atomicwriter", require "lfs" -- luacheck: ignore 431
            local seen, reads = {}, 0
            repeat
                local stopping = lfs.attributes(stop) ~= nil
                local snapshot, err = atomicwriter.open(where)
                if snapshot then
                    local tag = assert(snapshot:read("tag"))
                    local paths = assert(snapshot:paths())
                    assert(#paths == 12, "not complete: " .. #paths .. " files")
                    for _, path in ipairs(paths) do
                        local data = assert(snapshot:read(path))
                        assert(data == tag, "torn: " .. data .. " and " .. tag)
                    end
                    seen[tag], reads = true, reads + 1
                    snapshot:close()
                else
                    assert(err.code == "not_found" and reads == 0, tostring(err))
                end
            until stopping
            local distinct = 0
            for _ in pairs(seen) do distinct = distinct + 1 end
            print(distinct, reads)
        end, target, dir .. "/stop"))
    end

    -- A child that knows nothing of snapshots: it enters ..data and reads from there.
    -- Without a lease its version may be removed; what it has read must belong together.
    local function plain_reader()
        return sandbox.spawn(sandbox.lua(dir, function(where, stop)
            local lfs = require "lfs"
            local seen, reads = {}, 0
            repeat
                local stopping = lfs.attributes(stop) ~= nil
                local tag
                if lfs.chdir(where .. "/..data") then
                    for i = 1, 10 do
                        local file = io.open(i % 2 == 0 and "dir/key" .. i or "key" .. i, "rb")
                        if not file then -- gone; and then its version has to be gone, too
                            local name = lfs.currentdir()
                            local live = lfs.symlinkattributes(where .. "/..data", "target")
                            assert(not name or name:match("[^/]+$") ~= live,
                                "a file of the live version is missing")
                            break
                        end
                        local data = file:read("*a")
                        file:close()
                        tag = tag or data
                        assert(data == tag, "torn: " .. data .. " and " .. tag)
                    end
                    if tag then seen[tag], reads = true, reads + 1 end
                end
            until stopping
            local distinct = 0
            for _ in pairs(seen) do distinct = distinct + 1 end
            print(distinct, reads)
        end, target, dir .. "/stop"))
    end

    it("G6: are 8 processes with 100 writes each: no error, nothing torn, no litter", function()
        local readers = { snapshot_reader(), plain_reader() }
        local children = {}
        for i = 1, 8 do
            children[i] = sandbox.spawn(sandbox.lua(dir, function(where, me)
                local writer = assert(require("atomicwriter").new(where,
                    { durability = "none", lock_timeout = 300 }))
                for n = 1, 100 do
                    local tag = me .. "-" .. n
                    local payload = { tag = tag, ["only-" .. me] = tag }
                    for k = 1, 10 do payload[k % 2 == 0 and "dir/key" .. k or "key" .. k] = tag end
                    local result = assert(writer:write(payload))
                    assert(result.changed and #result.warnings == 0)
                    print(result.previous or "none", result.version, tag)
                end
            end, target, i))
        end
        local next_of, tag_of, count = {}, {}, 0
        for _, child in ipairs(children) do
            local status, stdout, stderr = child:wait(200)
            assert.equal(0, status, stderr)
            for previous, version, tag in stdout:gmatch("(%S+)\t(%S+)\t(%S+)\n") do
                assert.is_nil(next_of[previous], "two writers have replaced " .. previous)
                next_of[previous], tag_of[version] = version, tag
                count = count + 1
            end
        end
        assert.equal(800, count)
        sandbox.write_file(dir .. "/stop", "")
        for _, reader in ipairs(readers) do
            local status, stdout, stderr = reader:wait()
            assert.equal(0, status, stderr)
            assert.is_true(tonumber(stdout:match("^%d+")) > 1, "a reader saw no swap: " .. stdout)
        end
        -- each write saw exactly what the one before it has left: one line of 800
        local version, length = "none", 0
        while next_of[version] do
            local following = next_of[version]
            if version ~= "none" then assert.is_true(volume.older(version, following)) end
            version, length = following, length + 1
        end
        assert.equal(800, length)
        assert.equal(version, volume.live(target))
        local tag = tag_of[version]
        local expected = { tag = tag, ["only-" .. tag:match("^%d+")] = tag }
        for k = 1, 10 do expected[k % 2 == 0 and "dir/key" .. k or "key" .. k] = tag end
        -- what a reader leased at the end goes with the next write
        local writer = assert(atomicwriter.new(target, FAST))
        assert.is_false(assert(writer:write(expected)).changed)
        assert(volume.shows(target, expected))
    end)

    it("G6: are as many processes that write, roll back, collect, look and plan", function()
        local children = {}
        for i = 1, 6 do
            children[i] = sandbox.spawn(sandbox.lua(dir, function(where, me)
                local atomicwriter = require "atomicwriter" -- luacheck: ignore 431
                local writer = assert(atomicwriter.new(where,
                    { durability = "none", keep = 2, lock_timeout = 300 }))
                for n = 1, 60 do
                    local result, err
                    local what = (n + me) % 6
                    if what < 2 then
                        result, err = writer:write { a = me, ["b/c"] = me, ["d" .. n % 3] = me }
                    elseif what == 2 then
                        result, err = writer:rollback()
                    elseif what == 3 then
                        result, err = writer:collect()
                    elseif what == 4 then
                        result, err = writer:versions()
                    else
                        result, err = writer:plan { a = me, ["b/c"] = me }
                    end
                    assert(result or err.code == "not_found", tostring(err))
                    if type(result) == "table" and result.warnings then
                        assert(#result.warnings == 0, result.warnings[1])
                    end
                end
            end, target, i))
        end
        for _, child in ipairs(children) do
            local status, _, stderr = child:wait(200)
            assert.equal(0, status, stderr)
        end
        local files = volume.consume(target)
        assert.equal(files.a, files["b/c"])
        assert(volume.shows(target, files, 2))
    end)

    it("G6: are objects in one process, too", function()
        local first = assert(atomicwriter.new(target, FAST))
        local second = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert(first:write({ a = "1" }, { check = function()
            local result, err = second:write { a = "2" }
            assert.is_nil(result)
            assert.equal("locked", err.code)
            return true
        end }))
        assert(second:write { a = "3" })
        assert(volume.shows(target, { a = "3" }))
    end)

    ---- the lock --------------------------------------------------------------

    -- A child that holds the lock inside its check until DIR/release exists.
    local function holder()
        local child = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local lfs, system = require "lfs", require "system"
            local writer = assert(require("atomicwriter").new(where, { durability = "none" }))
            assert(writer:write({ held = "by the child" }, { check = function()
                io.open(base .. "/held", "w"):close()
                while not lfs.attributes(base .. "/release") do system.sleep(0.005) end
                return true
            end }))
        end, target, dir))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/held") end))
        return child
    end

    for _, timeout in ipairs { 0, 0.05, 0.3 } do
        it("G6: give up with locked after " .. timeout .. " s, never before", function()
            local child = holder()
            local before = sandbox.listing(target)
            local writer = assert(atomicwriter.new(target,
                { durability = "none", lock_timeout = timeout }))
            for _, call in ipairs { "write", "rollback", "collect" } do
                local start = sandbox.now()
                local result, err = writer[call](writer, call == "write" and { a = "1" } or nil)
                local waited = sandbox.now() - start
                assert.is_nil(result)
                assert.equal("locked", err.code)
                assert.is_false(err.committed)
                assert.is_true(waited >= timeout, "gave up after " .. waited)
            end
            assert.equal(before, sandbox.listing(target))
            assert(writer:plan { a = "1" })
            assert(writer:versions())
            sandbox.write_file(dir .. "/release", "")
            assert.equal(0, (child:wait()))
            assert(volume.shows(target, { held = "by the child" }))
        end)
    end

    it("G6: wait for each other when there is time", function()
        local child = holder()
        local other = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local writer = assert(require("atomicwriter").new(where, { lock_timeout = 60 }))
            io.open(base .. "/waiting", "w"):close()
            print(assert(writer:write { a = "after" }).previous)
        end, target, dir))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/waiting") end))
        sandbox.sleep(0.05)
        assert.is_true(other:running())
        sandbox.write_file(dir .. "/release", "")
        assert.equal(0, (child:wait()))
        local held = volume.live(target)
        local status, stdout, stderr = other:wait()
        assert.equal(0, status, stderr)
        assert.matches(volume.VERSION, stdout:match("%S+"))
        assert.is_true(held == stdout:match("%S+") or held == volume.live(target))
        assert(volume.shows(target, { a = "after" }))
    end)

    it("G6: are not blocked by a holder that was killed", function()
        local child = holder()
        child:kill("KILL")
        assert.equal(137, (child:wait()))
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert(writer:write { a = "1" })
        assert(volume.shows(target, { a = "1" }))
    end)

    it("G6: are not blocked by what a killed holder has started", function()
        local child = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local writer = assert(require("atomicwriter").new(where, { durability = "none" }))
            writer:write({ a = "1" }, { check = function()
                os.execute("sleep 60 & echo $! >'" .. base .. "/pid.new'; mv '" .. base
                    .. "/pid.new' '" .. base .. "/pid'")
                require("system").sleep(60)
            end })
        end, target, dir))
        local pid = assert(sandbox.eventually(function()
            return tonumber(sandbox.read_file(dir .. "/pid") or "")
        end))
        finally(function() sandbox.run { "kill", "-KILL", pid } end)
        child:kill("KILL")
        child:wait()
        assert.equal(0, (sandbox.run { "kill", "-0", pid }))
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert(writer:write { a = "2" })
        assert(volume.shows(target, { a = "2" }))
    end)

    it("G6: take the lock that flock(1) takes", function()
        if not sandbox.has "flock" then pending("there is no flock here") end
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert(writer:write { a = "1" })
        local lock = sandbox.sh { target .. "/..lock" }
        assert.equal(0, (sandbox.run("flock -n " .. lock .. " true")))
        local child = sandbox.spawn { "flock", target .. "/..lock", "sh", "-c",
            'touch "$0/held"; while test ! -e "$0/release"; do sleep 0.01; done', dir }
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/held") end))
        local _, err = writer:write { a = "2" }
        assert.equal("locked", err.code)
        sandbox.write_file(dir .. "/release", "")
        child:wait()
        assert(writer:write({ a = "3" }, { check = function()
            return sandbox.run("flock -n " .. lock .. " true") ~= 0, "it is free inside a write"
        end }))
        assert.equal(0, (sandbox.run("flock -n " .. lock .. " true")))
    end)

    it("G6: are not blocked by a reader, nor do they block one", function()
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert(writer:write { a = "1" })
        local snapshot = assert(atomicwriter.open(target))
        assert(writer:write({ a = "2" }, { check = function()
            local other = assert(atomicwriter.open(target))
            assert.equal("1", other:read("a"))
            other:close()
            return true
        end }))
        assert.equal("1", snapshot:read("a"))
        snapshot:close()
    end)

    it("G6: write to what the path leads to once they have the lock", function()
        assert(assert(atomicwriter.new(target, FAST)):write { a = "old" })
        local child = holder()
        local other = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local writer = assert(require("atomicwriter").new(where, { lock_timeout = 60 }))
            io.open(base .. "/waiting", "w"):close()
            assert(writer:write { a = "new" })
        end, target, dir))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/waiting") end))
        sandbox.sleep(0.1) -- let it come to the lock
        assert(os.rename(target, dir .. "/moved"))
        sandbox.mkdir(target)
        local moved = sandbox.listing(dir .. "/moved")
        child:kill("KILL")
        child:wait()
        local status, _, stderr = other:wait()
        assert.equal(0, status, stderr)
        assert(volume.shows(target, { a = "new" }))
        assert.equal(moved, sandbox.listing(dir .. "/moved"))
    end)

    it("G6: can run programs while they hold the lock", function()
        local writer = assert(atomicwriter.new(target, FAST))
        for i = 1, 20 do
            assert(writer:write({ a = tostring(i) }, { check = function(stage)
                return sandbox.run { "grep", "-qx", "--", tostring(i), stage .. "/a" } == 0
            end }))
        end
        assert(volume.shows(target, { a = "20" }))
    end)
end)
