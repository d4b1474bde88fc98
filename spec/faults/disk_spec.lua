--- Disks that end, turn read-only, refuse locks or have seen ten thousand versions, and
-- targets that go while a write runs. After each fault: the old set whole through a
-- snapshot and through the visible names, an error that says what and where, no litter,
-- and once the fault is lifted a write that leaves the target clean.
-- Full disks for one update are in failure_spec, single calls that fail in c/fault_test;
-- here is every operation at every page and every inode that may be missing.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local strace = require "spec.support.strace"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("G2: on a disk", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    -- Run BODY(DIR/mount, …) in a mount namespace of its own, once SETUP, a shell script
    -- with DIR as $1, is done. What BODY prints is printed.
    local function with_mount(setup, body, ...)
        sandbox.mkdir(dir .. "/mount")
        local status, stdout, stderr = sandbox.run(sandbox.with_mounts(setup, dir,
            sandbox.lua(dir, body, dir .. "/mount", ...)))
        if status == 77 then
            pending("not to be had here: " .. (stderr:match("[^\n]+") or setup))
        end
        assert.equal(0, status, stderr)
        io.write(stdout)
    end

    local function on_tmpfs(options, body, ...)
        with_mount('mount -t tmpfs -o mode=755,' .. options .. ' none "$1/mount"', body, ...)
    end

    -- ext4 on a loop device, which is given back with the namespace.
    local function on_ext4(body, ...)
        if not sandbox.is_root() then pending "loop devices are root's" end
        if not sandbox.has "mkfs.ext4" then pending "there is no mkfs.ext4 here" end
        sandbox.must("truncate -s 16M " .. dir .. "/image && mkfs.ext4 -q " .. dir .. "/image")
        with_mount('mount -o loop "$1/image" "$1/mount"', body, ...)
    end

    ---- that is full ----------------------------------------------------------

    local function starve(mount, what)
        local aw = require "atomicwriter"
        local box = require "spec.support.sandbox"
        local vol = require "spec.support.volume"
        local ENOSPC = 28
        box.write_file(mount .. "/source", ("s"):rep(9000))

        local many = {}
        for i = 1, 60 do many[("dir%d/file%d"):format(i % 4, i)] = ("m"):rep(10 * i) end
        local streamed = { a = { source = mount .. "/source" }, ["d/b"] = ("b"):rep(9000) }
        local streamed_data = { a = ("s"):rep(9000), ["d/b"] = ("b"):rep(9000) }

        local scenarios = {
            { "first", fresh = true, payload = vol.after },
            { "first, many", fresh = true, payload = many },
            { "update", payload = vol.after },
            { "update without durability", durability = "none", payload = vol.after },
            { "many (syncfs)", payload = many },
            { "source", payload = streamed, after = streamed_data },
            { "empty", payload = {}, no_data = true },
            { "rollback", no_data = true,
                after = { ["oldest"] = "to be pruned", ["dir/oldest"] = "to be pruned" },
                act = function(w) return w:rollback() end },
        }

        local fillers = 0
        local function fill()
            while true do
                local file = io.open(mount .. "/fill" .. fillers, "wb")
                if not file then return end
                file:setvbuf "no"
                local ok = what == "inodes" or file:write(("f"):rep(4096))
                file:close()
                fillers = fillers + 1
                if not ok then return end
            end
        end
        local function free_one()
            fillers = fillers - 1
            assert(fillers >= 0, "there is room for all, and it still fails")
            assert(os.remove(mount .. "/fill" .. fillers))
        end

        local function check_old(target, fresh)
            if fresh then return assert(box.kind(target) == nil, "it left a target") end
            local snapshot = assert(aw.open(target))
            for path, data in pairs(vol.before) do assert(snapshot:read(path) == data, path) end
            assert(#snapshot:paths() == 8)
            snapshot:close()
            assert(vol.resolves(target, vol.before))
        end

        local points = 0
        for i, scenario in ipairs(scenarios) do
            local place = mount .. "/place" .. i
            box.mkdir(place)
            local target = place .. "/target"
            if not scenario.fresh then
                vol.prepare(place, "target")
            end
            local before = box.listing(place)
            fill()
            local act = scenario.act or function(w) return w:write(scenario.payload) end
            local here = 0
            while true do
                local w = assert(aw.new(target, { create = true, keep = 1,
                    durability = scenario.durability }))
                local result, err = act(w)
                w:close()
                if result then break end
                local at = ("%s at %d: %s"):format(scenario[1], here, tostring(err))
                assert(err.code == "io" and err.errno == ENOSPC and err.op, at)
                assert(err.committed == false and err.message:find("No space left", 1, true), at)
                assert(box.listing(place) == before, "changed: " .. at)
                check_old(target, scenario.fresh)
                here = here + 1
                free_one()
            end
            assert(here > 0 or what == "pages" and scenario.no_data, -- only data needs pages
                scenario[1] .. " never failed")
            assert(vol.shows(target, scenario.after or scenario.payload))
            points = points + here
            box.rmtree(place)
        end
        print(("# disk: no %s: %d points in %d scenarios, 0 violations"):format(what, points,
            #scenarios))
        assert(points >= 100, "only " .. points .. " points")
    end

    it("that ends at every page, every operation leaves the old set and nothing else", function()
        on_tmpfs("size=600k", starve, "pages")
    end)

    it("that ends at every inode, every operation leaves the old set and nothing else", function()
        on_tmpfs("nr_inodes=200", starve, "inodes")
    end)

    ---- that is an overlay ----------------------------------------------------

    it("that is an overlay, versions of the lower layer are updated, kept and removed", function()
        local lower = dir .. "/lower"
        sandbox.mkdir(lower)
        local target = volume.prepare(lower, "target")
        -- what a killed writer has left there, too
        sandbox.mkdir(target .. "/..2099_01_01_00_00_00.1")
        sandbox.write_file(target .. "/..2099_01_01_00_00_00.1/half", "made")
        sandbox.mkdir(target .. "/..2001_01_01_00_00_00.1_tmp")
        sandbox.symlink("..2099_01_01_00_00_00.1", target .. "/..data_tmp")
        sandbox.symlink("..data/gone", target .. "/gone")
        for _, name in ipairs { "upper", "work" } do sandbox.mkdir(dir .. "/" .. name) end
        local before = sandbox.listing(lower)
        local marks = sandbox.is_root() and "" or "userxattr," -- where the overlay keeps its own
        with_mount("mount -t overlay -o " .. marks
            .. '"lowerdir=$1/lower,upperdir=$1/upper,workdir=$1/work" none "$1/mount"',
        function(mount)
            local aw = require "atomicwriter"
            local vol = require "spec.support.volume"
            local path = mount .. "/target"
            local snapshot = assert(aw.open(path))
            local w = assert(aw.new(path))
            local function clean(files) assert(vol.shows(path, files)) end
            local function done(result, err)
                assert(result, tostring(err))
                assert(#result.warnings == 0, result.warnings[1])
                return result
            end
            assert(aw.inspect(path).live == snapshot.version)
            assert(done(w:write(vol.before)).changed == false)
            clean(vol.before)
            done(w:write(vol.after))
            clean(vol.after)
            assert(done(w:write(vol.after)).changed == false)
            done(w:rollback())
            assert(vol.shows(path, vol.before, 2)) -- one retained, one leased
            done(w:write { one = "1" })
            done(w:write { one = "2" })
            for file, data in pairs(vol.before) do assert(snapshot:read(file) == data, file) end
            snapshot:close()
            done(w:write { one = "3" })
            clean { one = "3" }
            assert(w:collect() == 1)
            assert(vol.shows(path, { one = "3" }, 0))
            assert(#aw.inspect(path).residue == 0)
        end)
        assert.equal(before, sandbox.listing(lower))
    end)

    ---- that turns read-only --------------------------------------------------

    it("that is read-only between two calls, nothing changes, and then all goes on", function()
        on_tmpfs("size=4m", function(mount)
            local aw = require "atomicwriter"
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local EROFS = 30
            local target = vol.prepare(mount, "target")
            local w = assert(aw.new(target))
            local before = box.listing(target)
            box.must { "mount", "-o", "remount,bind,ro", mount }
            for name, call in pairs {
                write = function() return w:write(vol.after) end,
                same = function() return w:write(vol.before) end,
                rollback = function() return w:rollback() end,
                collect = function() return w:collect() end,
            } do
                local result, err = call()
                assert(result == nil, name .. " succeeded")
                assert(err.code == "io" and err.errno == EROFS and not err.committed, name)
                assert(err.message:find("Read-only file system", 1, true), err.message)
                assert(err.op and #err.path > 0)
            end
            assert(w:plan(vol.after).changed and #w:versions() == 2)
            assert(assert(aw.open(target)):read("kept") == vol.before.kept)
            assert(aw.inspect(target).live == vol.live(target))
            assert(box.listing(target) == before)
            collectgarbage()
            box.must { "mount", "-o", "remount,bind,rw", mount }
            assert(w:write(vol.after))
            assert(vol.shows(target, vol.after))
        end)
    end)

    -- ext4 does that to itself when it finds an error, whatever is open.
    it("that turns read-only within a write, readers keep the old set", function()
        on_ext4(function(mount)
            local aw = require "atomicwriter"
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local target = vol.prepare(mount, "target")
            local w = assert(aw.new(target))
            local result, err = w:write(vol.after, { check = function(stage)
                assert(box.read_file(stage .. "/changed") == "after")
                local status = box.run { "mount", "-o", "remount,abort", mount }
                assert(status == 0 or box.run { "touch", mount .. "/x" } ~= 0, "still writable")
                return true
            end })
            assert(result == nil, "it succeeded")
            assert(err.code == "io" and not err.committed and err.op, tostring(err))
            assert(err.errno == 30 or err.errno == 5, tostring(err))
            local snapshot = assert(aw.open(target))
            for path, data in pairs(vol.before) do assert(snapshot:read(path) == data, path) end
            snapshot:close()
            assert(vol.resolves(target, vol.before))
            result, err = w:write(vol.after)
            assert(result == nil and err.code == "io" and not err.committed, tostring(err))
            assert(assert(aw.open(target)):read("kept") == vol.before.kept)
        end)
        -- mended and mounted again, which is what its owner does
        local status = sandbox.run("e2fsck -fy " .. dir .. "/image")
        assert.is_true(status <= 1)
        sandbox.must { "rmdir", dir .. "/mount" }
        with_mount('mount -o loop "$1/image" "$1/mount"', function(mount)
            local vol = require "spec.support.volume"
            local target = mount .. "/target"
            assert(vol.resolves(target, vol.before))
            assert(assert(require("atomicwriter").new(target)):write(vol.after))
            assert(vol.shows(target, vol.after))
        end)
    end)

    ---- with immutable files --------------------------------------------------

    it("where something is immutable or append-only, the error says so", function()
        if not sandbox.is_root() then pending "only root can make files immutable" end
        if not sandbox.has "chattr" then pending "there is no chattr here" end
        on_ext4(function(mount)
            local aw = require "atomicwriter"
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local EPERM = 1
            local cases = 0

            local function chattr(flag, path)
                box.must { "chattr", flag, path }
            end
            -- PATH in a fresh target gets FLAG; BODY(writer, target); then it is lifted,
            -- and the next write has to leave everything clean.
            local function case(flag, path, body)
                cases = cases + 1
                local target = vol.prepare(mount, "target" .. cases)
                local w = assert(aw.new(target))
                local whole = target .. path:gsub("^/LIVE", "/" .. vol.live(target))
                chattr("+" .. flag, whole)
                body(w, target, function() -- but for the note, which a no-op may write
                    return (box.listing(target):gsub("[^\n]*%.%.lock[^\n]*\n", ""))
                end, whole)
                local snapshot = assert(aw.open(target))
                assert(snapshot:read("kept") == vol.before.kept)
                snapshot:close()
                box.run { "find", target, "-name", whole:match "[^/]*$" .. "*", "-exec",
                    "chattr", "-" .. flag, "{}", "+" }
                assert(w:write { last = "1" })
                assert(w:write { last = "2" })
                assert(vol.shows(target, { last = "2" }))
            end
            local function denied(result, err)
                assert(result == nil, "it succeeded")
                assert(err.code == "io" and err.errno == EPERM and not err.committed, tostring(err))
                assert(err.op and #err.path > 0)
            end

            case("i", "", function(w, _, list)
                local before = list()
                denied(w:write(vol.after))
                denied(w:rollback())
                assert(w:write(vol.before).changed == false)
                assert(list() == before)
            end)
            for _, flag in ipairs { "i", "a" } do
                case(flag, "/..lock", function(w, _, list)
                    local before = list()
                    denied(w:write(vol.after))
                    denied(w:rollback())
                    denied(w:collect())
                    assert(list() == before)
                end)
            end
            -- Nothing can be taken away again, so litter stays. It must not become more.
            case("a", "", function(w, target, list)
                denied(w:write(vol.after))
                assert(vol.resolves(target, vol.before))
                local once = list()
                for _ = 1, 3 do denied(w:write(vol.after)) end
                assert(list() == once)
                assert(vol.resolves(target, vol.before))
            end)
            -- What is kept is not linked then, but written; and it goes when it can.
            for _, path in ipairs { "/LIVE/kept", "/LIVE/dir/kept", "/LIVE/dir", "/LIVE" } do
                for _, flag in ipairs { "i", "a" } do
                    case(flag, path, function(w, target)
                        assert(#assert(w:write(vol.after)).warnings == 0) -- it is retained
                        local told = 0
                        for i = 1, 3 do
                            local result = assert(w:write { kept = vol.before.kept, n = "" .. i })
                            told = told + (#result.warnings > 0 and 1 or 0)
                            assert(vol.resolves(target, { kept = 1, n = 1 }))
                        end
                        assert(told > 0, "it was not told that " .. path .. " stays")
                        assert(#vol.versions(target) <= 3)
                    end)
                end
            end
            -- In the staged tree, by a check that then says no: the next write sweeps it.
            case("i", "/LIVE/changed", function(w, target)
                local stuck
                local result, err = w:write(vol.after, { check = function(stage)
                    stuck = stage .. "/added"
                    chattr("+i", stuck)
                    return false, "no"
                end })
                assert(result == nil and err.code == "check_failed")
                assert(vol.resolves(target, vol.before))
                chattr("-i", stuck)
                assert(w:write(vol.before).changed == false)
                assert(vol.shows(target, vol.before))
            end)
            print(("# disk: immutable and append-only: %d points, 0 violations"):format(cases))
        end)
    end)

    ---- without locks ---------------------------------------------------------

    it("that has no locks (ENOLCK), nothing is touched, and readers read", function()
        local ok, reason = strace.available()
        if not ok then pending(reason) end
        local ENOLCK = 37
        local target = volume.prepare(dir, "target", FAST)
        local before = sandbox.listing(dir .. "/target")
        local words = sandbox.lua(dir, function(path, fresh)
            local aw = require "atomicwriter"
            local vol = require "spec.support.volume"
            local w = assert(aw.new(path))
            local made = assert(aw.new(fresh, { create = true }))
            for _, call in ipairs {
                function() return w:write(vol.after) end,
                function() return w:write(vol.before) end,
                function() return w:rollback() end,
                function() return w:collect() end,
                function() return made:write(vol.after) end,
            } do
                local _, err = call()
                print(err.code, err.op, err.errno, err.path, err.committed)
                assert(err.message:find("No locks available", 1, true), err.message)
            end
            assert(w:plan(vol.after).changed and #w:versions() == 2)
            local snapshot = assert(aw.open(path))
            for name, data in pairs(vol.before) do assert(snapshot:read(name) == data, name) end
            assert(aw.inspect(path).live == snapshot.version)
        end, target, dir .. "/fresh")
        local status, stdout, stderr = strace.inject(words, "flock", "error=ENOLCK", "1+")
        assert.equal(0, status, stderr)
        assert.equal(("io\tflock\t" .. ENOLCK .. "\t..lock\tfalse\n"):rep(5), stdout)
        assert.equal(before, sandbox.listing(target))
        -- A lock file that it cannot lock may be another's: it stays, and the new target.
        assert.same({ "..lock" }, sandbox.names(dir .. "/fresh"))
        assert(assert(atomicwriter.new(target, FAST)):write(volume.after))
        assert(volume.shows(target, volume.after))
    end)

    ---- with many versions ----------------------------------------------------

    -- A target with COUNT retained versions that a writer would make, quicker.
    local function with_versions(name, count)
        local target = dir .. "/" .. name
        sandbox.mkdir(target)
        local live = assert(assert(atomicwriter.new(target, FAST)):write { a = "live", b = "b" })
            .version
        for i = 1, count do
            local version = ("%s/..2001_01_01_%02d_%02d_%02d.%d"):format(target,
                math.floor(i / 3600), math.floor(i / 60) % 60, i % 60, i)
            assert(lfs.mkdir(version))
            local file = assert(io.open(version .. "/a", "w"))
            file:write("old ", i)
            file:close()
            assert(lfs.link(target .. "/" .. live .. "/b", version .. "/b"))
        end
        return target
    end

    it("with 10,000 retained versions, all are listed, reached and removed", function()
        local COUNT = 10000
        local target = with_versions("target", COUNT)
        local start = sandbox.now()
        local writer = assert(atomicwriter.new(target, { durability = "none", keep = 20000 }))
        assert.same({}, assert(writer:write { a = "second", b = "b" }).warnings)
        local listed = assert(writer:versions())
        assert.equal(COUNT + 2, #listed)
        for i = 2, #listed do
            assert.is_true(volume.older(listed[i].name, listed[i - 1].name))
        end
        assert.equal(COUNT + 2, #assert(atomicwriter.inspect(target)).versions)
        assert(writer:rollback(listed[5000].name))
        assert.equal("old " .. (COUNT + 3 - 5000), sandbox.read_file(target .. "/a"))
        local kept = sandbox.now()
        local held = assert(atomicwriter.open(target))
        local few = assert(atomicwriter.new(target, { durability = "none", keep = 1 }))
        assert.same({}, assert(few:write { a = "last" }).warnings)
        held:close()
        assert(volume.shows(target, { a = "last" }))
        print(("# disk: %d versions: kept in %.2f s, removed in %.2f s, 0 violations")
            :format(COUNT, kept - start, sandbox.now() - kept))
    end)

    it("with many retained versions, the work is proportional to their number", function()
        local ok, reason = strace.available()
        if not ok then pending(reason) end
        -- System calls of a child that prunes COUNT versions.
        local function calls(count)
            local target = with_versions("many" .. count, count)
            local log = sandbox.fresh(dir, "counts")
            local words = sandbox.lua(dir, function(path)
                local w = assert(require("atomicwriter").new(path, { durability = "none" }))
                assert(#assert(w:write { a = "last" }).warnings == 0)
            end, target)
            sandbox.must { "strace", "-f", "-c", "-o", log, sandbox.unpack(words) }
            assert(volume.shows(target, { a = "last" }))
            return tonumber(sandbox.read_file(log):match "\n100%.00%s+%S+%s+%d*%s+(%d+)")
        end
        local none, once, twice = calls(2), calls(400), calls(800)
        local each = (once - none) / 398
        assert.is_true(each >= 3 and each <= 16, each .. " calls for a version")
        assert.is_true(math.abs((twice - once) / 400 - each) < 0.5,
            ("%d, %d and %d calls"):format(none, once, twice))
        print(("# disk: %.2f calls to remove a version of two files"):format(each))
    end)

    ---- that is taken away ----------------------------------------------------

    describe("a target that goes while a write holds its lock,", function()
        local target, moved

        before_each(function()
            target, moved = volume.prepare(dir, "target", FAST), dir .. "/moved"
        end)

        -- The write while whose check GO() was done: what the target was is whole, one or
        -- the other; and says so.
        local function write_while(go, where)
            local writer = assert(atomicwriter.new(target, FAST))
            local result, err = writer:write(volume.after, { check = function()
                go()
                return true
            end })
            if not result then assert.is_false(err.committed) end
            if where then
                assert(volume.shows(where, result and volume.after or volume.before))
            end
            return writer, result, err
        end

        it("renamed, is written to where it is now, and missed at the next write", function()
            local writer = write_while(function() assert(os.rename(target, moved)) end, moved)
            assert.is_nil(sandbox.kind(target))
            local _, err = writer:write(volume.before)
            assert.equal("no_target", err.code)
            assert.is_nil(sandbox.kind(target))
        end)

        it("replaced, leaves its replacement alone, to which the next write goes", function()
            local foreign
            local writer = write_while(function()
                assert(os.rename(target, moved))
                sandbox.mkdir(target)
                sandbox.write_file(target .. "/somebody's", "mine")
                foreign = sandbox.listing(target)
            end, moved)
            assert.equal(foreign, sandbox.listing(target))
            local before = sandbox.listing(moved)
            assert(writer:write { a = "1" })
            assert.equal("1", sandbox.read_file(target .. "/a"))
            assert.equal("mine", sandbox.read_file(target .. "/somebody's"))
            assert.equal(before, sandbox.listing(moved))
        end)

        it("replaced by a link, changes nothing where that leads", function()
            local foreign
            sandbox.mkdir(dir .. "/victim")
            sandbox.write_file(dir .. "/victim/changed", "mine")
            write_while(function()
                assert(os.rename(target, moved))
                sandbox.symlink("victim", target)
                foreign = sandbox.listing(dir .. "/victim")
            end, moved)
            assert.equal(foreign, sandbox.listing(dir .. "/victim"))
        end)

        it("removed, is an error, and stays removed", function()
            local writer, result, err = write_while(function() sandbox.rmtree(target) end)
            assert.is_nil(result)
            assert.equal("check_failed", err.code)
            assert.is_nil(sandbox.kind(target))
            result, err = writer:write(volume.before)
            assert.is_nil(result)
            assert.equal("no_target", err.code)
            sandbox.mkdir(target)
            assert(writer:write(volume.before))
            assert(volume.shows(target, volume.before))
        end)

        it("removed and made again by another writer, keeps what that one wrote", function()
            local writer, result = write_while(function()
                sandbox.rmtree(target)
                sandbox.mkdir(target)
                assert(assert(atomicwriter.new(target, FAST)):write { other = "1" })
            end)
            assert.is_nil(result)
            assert(volume.shows(target, { other = "1" }))
            assert(writer:write(volume.after))
            assert(volume.shows(target, volume.after))
        end)

        it("moved with its parent, is whole there", function()
            sandbox.mkdir(dir .. "/parent")
            target = volume.prepare(dir .. "/parent", "target", FAST)
            write_while(function()
                assert(os.rename(dir .. "/parent", dir .. "/elsewhere"))
            end, dir .. "/elsewhere/target")
            assert.is_nil(sandbox.kind(dir .. "/parent"))
        end)
    end)
end)
