--- Nothing outside the target is created, followed or deleted, and nothing in it that
-- is somebody else's.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("G7: a target", function()
    local dir, target, victim

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        victim = dir .. "/victim"
        sandbox.mkdir(victim)
        sandbox.write_file(victim .. "/precious", "data", "0640")
        sandbox.mkdir(victim .. "/dir")
        sandbox.write_file(victim .. "/dir/precious", "data")
    end)
    after_each(function() sandbox.cleanup() end)

    local function new_writer(payload, options)
        if not sandbox.kind(target) then sandbox.mkdir(target) end
        local writer = assert(atomicwriter.new(target, options or FAST))
        if payload then assert(writer:write(payload)) end
        return writer
    end

    -- Every operation is refused as foreign_entry about PATH; nothing under DIR changes.
    local function refused(operations, path)
        local before = sandbox.listing(dir)
        for name, operation in pairs(operations) do
            local result, err = operation()
            assert.is_nil(result, name .. " was not refused")
            assert.equal("foreign_entry", err.code, name .. ": " .. err.message)
            assert.equal(path, err.path, name)
            assert.is_false(err.committed)
        end
        assert.equal(before, sandbox.listing(dir))
    end

    ---- ..data ----------------------------------------------------------------

    local function every_operation()
        local writer = assert(atomicwriter.new(target, FAST))
        return {
            write = function() return writer:write { a = "2" } end,
            empty = function() return writer:write {} end,
            same = function() return writer:write { a = "1" } end,
            plan = function() return writer:plan { a = "2" } end,
            rollback = function() return writer:rollback() end,
            versions = function() return writer:versions() end,
            collect = function() return writer:collect() end,
            open = function() return atomicwriter.open(target) end,
            watch = function() return atomicwriter.watch(target) end,
        }
    end

    it("is refused whose ..data is a link to anything but one version", function()
        new_writer { a = "1" }
        assert(new_writer():write { a = "1", b = "2" })
        local live = volume.live(target)
        sandbox.mkdir(dir .. "/" .. live)
        sandbox.symlink(victim, target .. "/to-victim")
        for _, text in ipairs { "../victim", "..", ".", "/", victim, "victim", "to-victim",
            "../target", "../" .. live, "./" .. live, live .. "/", live .. "/.", live .. "/..",
            "/" .. live, target .. "/" .. live, live .. "/../../victim", "..data", "..lock",
            "..data_tmp", "a", "...", "..2026", "..2026_11_22_15_04_05", "..2026_11_22_15_04_05.",
            "..2026_11_22_15_04_05.x", "..2026_11_22_15_04_05.1 ", "..2026_11_22_15_04_05.1\n",
            "..2026_11_22_15_04_0x.1", "2026_11_22_15_04_05.1", ".2026_11_22_15_04_05.1",
            "..2026_11_22_15_04_05.-1", "..2026_11_22_15_04_05.1.2", "..2026-11-22_15_04_05.1",
            ("x"):rep(255), ("x/"):rep(2000) .. "x" } do
            os.remove(target .. "/..data")
            sandbox.symlink(text, target .. "/..data")
            refused(every_operation(), "..data")
        end
    end)

    local kinds = {
        ["a regular file"] = function(path) sandbox.write_file(path, "..2026_11_22_15_04_05.1") end,
        ["a directory"] = function(path)
            sandbox.mkdir(path)
            sandbox.write_file(path .. "/a", "mine")
        end,
        ["an empty directory"] = sandbox.mkdir,
        ["a fifo"] = function(path) sandbox.must { "mkfifo", "--", path } end,
    }
    for what, put in pairs(kinds) do
        it("is refused whose ..data is " .. what, function()
            new_writer { a = "1" }
            os.remove(target .. "/..data")
            put(target .. "/..data")
            refused(every_operation(), "..data")
        end)
    end

    it("whose ..data has a version's name that leads nowhere has no live version", function()
        local writer = new_writer { a = "1" }
        for _, name in ipairs { "..2001_01_01_00_00_00.1", "..2090_01_01_00_00_00.1" } do
            os.remove(target .. "/..data")
            sandbox.symlink(name, target .. "/..data")
            local snapshot, err = atomicwriter.open(target)
            assert.is_nil(snapshot)
            assert.equal("not_found", err.code)
            local result = assert(writer:write { b = "2" })
            assert.is_true(result.changed)
            assert.is_nil(result.previous)
            assert.is_true(volume.older(name, result.version))
            assert(volume.shows(target, { b = "2" }))
        end
    end)

    it("whose live version is a link elsewhere harms nothing there", function()
        local writer = new_writer { a = "1" }
        local name = "..2026_11_22_15_04_05.1"
        os.remove(target .. "/..data")
        sandbox.symlink("../victim", target .. "/" .. name)
        sandbox.symlink(name, target .. "/..data")
        local before = sandbox.listing(victim)
        assert.is_nil((atomicwriter.open(target)))
        for _, payload in ipairs { { precious = "new" }, {}, { a = "2" } } do
            local result, err = writer:write(payload)
            if not result then
                assert.is_true(err.code == "foreign_entry" or err.code == "io", err.code)
            end
            writer:rollback()
            writer:collect()
            assert.equal(before, sandbox.listing(victim))
        end
    end)

    it("whose old versions are links elsewhere harms nothing there", function()
        local writer = new_writer({ a = "1" }, { durability = "none", keep = 0 })
        for i = 1, 3 do
            sandbox.symlink("../victim", target .. "/..2001_01_01_00_00_00." .. i)
            sandbox.symlink(victim, target .. "/..2095_01_01_00_00_00." .. i)
        end
        local before = sandbox.listing(victim)
        for i = 2, 5 do assert(writer:write { a = tostring(i) }) end
        assert(writer:collect())
        assert.equal("5", volume.consume(target).a)
        assert.equal(before, sandbox.listing(victim))
    end)

    ---- inside versions -------------------------------------------------------

    it("has links in its live version replaced, never followed", function()
        local writer = new_writer({ a = "1", ["dir/precious"] = "data", ["d/e/f"] = "x" },
            { durability = "none", keep = 0 })
        local live = target .. "/" .. volume.live(target)
        sandbox.rmtree(live .. "/dir")
        sandbox.symlink("../../victim/dir", live .. "/dir")
        os.remove(live .. "/a")
        sandbox.symlink("../../victim/precious", live .. "/a")
        sandbox.rmtree(live .. "/d/e")
        sandbox.symlink(victim, live .. "/d/e")
        local before = sandbox.listing(victim)
        local payload = { a = "data", ["dir/precious"] = "data", ["d/e/f"] = "x" }
        local result = assert(writer:write(payload))
        assert.is_true(result.changed)
        assert.equal(0, result.linked)
        assert.same({}, result.warnings)
        assert(volume.shows(target, payload, 0))
        assert.equal("directory", sandbox.kind(target .. "/..data/dir"))
        assert.equal(before, sandbox.listing(victim))
    end)

    it("has links in old versions removed, never followed", function()
        local writer = new_writer({ a = "1", ["dir/x"] = "y" }, { durability = "none", keep = 1 })
        local old = target .. "/" .. volume.live(target)
        assert(writer:write { a = "2" })
        sandbox.symlink(victim, old .. "/dir/linked")
        sandbox.symlink("../../..", old .. "/up")
        sandbox.symlink("/", old .. "/root")
        local before = sandbox.listing(victim)
        local result = assert(writer:write { a = "3" })
        assert.same({}, result.warnings)
        assert(volume.shows(target, { a = "3" }))
        assert.equal(before, sandbox.listing(victim))
    end)

    it("has old versions removed, never what is mounted in them", function()
        local writer = new_writer { a = "1", ["d/x"] = "y" }
        assert(writer:write { a = "2" })
        local before = sandbox.listing(victim)
        local old = target .. "/" .. volume.versions(target)[1] .. "/d"
        local status, _, stderr = sandbox.run(sandbox.with_mounts(
            "mount --bind " .. sandbox.quote(victim) .. ' "$1"', old,
            sandbox.lua(dir, function(path)
                local vol = require "spec.support.volume"
                local atomicwriter = require "atomicwriter" -- luacheck: ignore 431
                local w = assert(atomicwriter.new(path, { durability = "none" }))
                local result = assert(w:write { a = "3" })
                assert(#result.warnings > 0, "nothing was said of it")
                assert(vol.consume(path).a == "3")
                w:collect() -- which may well say that it could not
            end, target)))
        if status == 77 then
            pending("mounting is not allowed here: " .. (stderr:match("[^\n]+") or ""))
        end
        assert.equal(0, status, stderr)
        assert.equal(before, sandbox.listing(victim))
        assert(writer:write { a = "4" })
        assert(volume.shows(target, { a = "4" })) -- no mount here: now it goes
    end)

    it("has unfinished versions swept, and links in them not followed", function()
        local writer = new_writer { a = "1" }
        local unfinished = target .. "/..2090_01_01_00_00_00.1"
        sandbox.mkdir(unfinished)
        sandbox.mkdir(unfinished .. "/dir")
        sandbox.symlink(victim, unfinished .. "/dir/linked")
        local before = sandbox.listing(victim)
        assert.is_false(assert(writer:write { a = "1" }).changed)
        assert.is_nil(sandbox.kind(unfinished))
        assert.equal(before, sandbox.listing(victim))
    end)

    it("refuses a link in a retained version that is rolled back to", function()
        local writer = new_writer { a = "1", b = "1" }
        local old = target .. "/" .. volume.live(target)
        assert(writer:write { a = "2" })
        os.remove(old .. "/b")
        sandbox.symlink("../../victim/precious", old .. "/b")
        local before = sandbox.listing(victim)
        local result = writer:rollback()
        if result then
            assert.not_equal("link", sandbox.kind(target .. "/..data/b"))
            assert.not_equal("data", sandbox.read_file(target .. "/b"))
        else
            assert.same({ a = "2" }, volume.consume(target))
        end
        assert.equal(before, sandbox.listing(victim))
    end)

    ---- the writer's own names ------------------------------------------------

    it("has a ..data_tmp swept that links anywhere", function()
        local writer = new_writer { a = "1" }
        local before = sandbox.listing(victim)
        for i, text in ipairs { "../victim", "..2090_01_01_00_00_00.1", "..", victim } do
            sandbox.symlink(text, target .. "/..data_tmp")
            assert(writer:write { a = tostring(i + 1) })
            assert(volume.shows(target, { a = tostring(i + 1) }))
            sandbox.symlink(text, target .. "/..data_tmp")
            assert.is_false(assert(writer:write { a = tostring(i + 1) }).changed)
            assert(volume.shows(target, { a = tostring(i + 1) }))
        end
        assert.equal(before, sandbox.listing(victim))
    end)

    it("is refused whose ..data_tmp is a directory", function()
        local writer = new_writer { a = "1" }
        sandbox.mkdir(target .. "/..data_tmp")
        sandbox.write_file(target .. "/..data_tmp/mine", "x")
        refused({ write = function() return writer:write { a = "2" } end }, "..data_tmp")
    end)

    it("is refused whose ..lock is a link, and what it leads to is not made or opened", function()
        local writer = new_writer { a = "1" }
        for _, text in ipairs { "../victim/precious", "../victim/new", victim, "a" } do
            os.remove(target .. "/..lock")
            sandbox.symlink(text, target .. "/..lock")
            refused({
                write = function() return writer:write { a = "2" } end,
                rollback = function() return writer:rollback() end,
                collect = function() return writer:collect() end,
            }, "..lock")
        end
    end)

    for what, put in pairs { ["a directory"] = sandbox.mkdir,
        ["a fifo"] = function(path) sandbox.must { "mkfifo", "--", path } end } do
        it("is refused whose ..lock is " .. what, function()
            local writer = new_writer { a = "1" }
            os.remove(target .. "/..lock")
            put(target .. "/..lock")
            refused({ write = function() return writer:write { a = "2" } end }, "..lock")
        end)
    end

    ---- foreign entries -------------------------------------------------------

    local foreign = {
        ["a file"] = function(path) sandbox.write_file(path, "foreign") end,
        ["an empty file"] = function(path) sandbox.write_file(path, "") end,
        ["a directory"] = function(path)
            sandbox.mkdir(path)
            sandbox.write_file(path .. "/inside", "foreign")
        end,
        ["an empty directory"] = sandbox.mkdir,
        ["a fifo"] = function(path) sandbox.must { "mkfifo", "--", path } end,
        ["a link elsewhere"] = function(path) sandbox.symlink("../victim/precious", path) end,
        ["a link that dangles"] = function(path) sandbox.symlink("nowhere", path) end,
        ["a link to another name in ..data"] = function(path) sandbox.symlink("..data/b", path) end,
        ["an absolute link to the right place"] = function(path)
            sandbox.symlink(target .. "/..data/name", path)
        end,
        ["a link that almost reads right"] = function(path)
            sandbox.symlink("./..data/name", path)
        end,
        ["a link into a version"] = function(path)
            sandbox.symlink(volume.live(target) .. "/name", path)
        end,
    }
    for what, put in pairs(foreign) do
        it("is refused where " .. what .. " is at a name that the payload needs", function()
            local writer = new_writer { a = "1", b = "2" }
            put(target .. "/name")
            refused({
                file = function() return writer:write { a = "2", name = "x" } end,
                directory = function() return writer:write { ["name/x/y"] = "x" } end,
                plan = function() return writer:plan { name = "x" } end,
                check = function()
                    return writer:write({ name = "x" }, { check = function()
                        error("the check was asked")
                    end })
                end,
            }, "name")
        end)

        it("leaves " .. what .. " alone at a name that no payload needs", function()
            local writer = new_writer { a = "1", b = "2" }
            put(target .. "/name")
            put(target .. "/..foreign")
            local function look(name)
                local path = target .. "/" .. name
                return sandbox.listing(path)
            end
            local visible, reserved = look "name", look "..foreign"
            for _, payload in ipairs { { a = "2" }, { a = "2" }, {}, { c = "3", ["d/e"] = "4" } } do
                local result = assert(writer:write(payload))
                assert.same({}, result.warnings)
            end
            assert(writer:rollback())
            assert(writer:collect())
            assert.equal(visible, look "name")
            assert.equal(reserved, look "..foreign")
        end)
    end

    it("is refused before it has a lock's litter: a fresh one gets nothing but ..lock", function()
        local writer = new_writer()
        sandbox.write_file(target .. "/name", "foreign")
        local result, err = writer:write { name = "x", other = "y" }
        assert.is_nil(result)
        assert.equal("foreign_entry", err.code)
        for _, name in ipairs(sandbox.names(target)) do
            assert.is_true(name == "name" or name == "..lock", name)
        end
    end)

    it("is written to again once the foreign entry is gone", function()
        local writer = new_writer { a = "1" }
        sandbox.write_file(target .. "/b", "foreign")
        assert.is_nil((writer:write { a = "2", b = "2" }))
        os.remove(target .. "/b")
        assert(writer:write { a = "2", b = "2" })
        assert(volume.shows(target, { a = "2", b = "2" }))
    end)

    it("takes a link that reads exactly ..data/NAME for its own", function()
        local writer = new_writer { a = "1" }
        sandbox.symlink("..data/early", target .. "/early")
        sandbox.symlink("..data/stale", target .. "/stale")
        assert(writer:write { a = "1", early = "2" })
        assert(volume.shows(target, { a = "1", early = "2" }))
    end)

    ---- the path to the target ------------------------------------------------

    it("may be reached through links", function()
        sandbox.mkdir(target)
        sandbox.symlink("target", dir .. "/link")
        sandbox.mkdir(dir .. "/far")
        sandbox.symlink("../link", dir .. "/far/link")
        for i, path in ipairs { dir .. "/link", dir .. "/far/link", dir .. "/link/",
            dir .. "/far/../link/." } do
            local writer = assert(atomicwriter.new(path, FAST))
            assert(writer:write { a = tostring(i) })
            assert(volume.shows(target, { a = tostring(i) }))
            local snapshot = assert(atomicwriter.open(path))
            assert.equal(tostring(i), snapshot:read("a"))
            snapshot:close()
            local watcher = assert(atomicwriter.watch(path))
            local version = assert(writer:write { a = i .. "+" }).version
            assert.equal(version, (watcher:wait(10)))
            watcher:close()
        end
        assert.equal("link", sandbox.kind(dir .. "/link"))
    end)

    it("is refused that is or lies in a version of another one, made or not", function()
        local outer = new_writer { a = "3", ["sub/deep/x"] = "1" }
        local live = volume.live(target)
        local before = sandbox.listing(dir)
        for path, relation in pairs {
            ["..data"] = "is", [live] = "is", ["sub"] = "lies inside", ["sub/deep"] = "lies inside",
            ["..data/new"] = "lies inside", ["sub/new"] = "lies inside",
        } do
            local inner = assert(atomicwriter.new(target .. "/" .. path,
                { create = true, durability = "none" }))
            for _, call in ipairs { "write", "plan", "rollback", "collect" } do
                local payload = (call == "write" or call == "plan") and { b = "2" } or nil
                local result, err = inner[call](inner, payload)
                assert.is_nil(result, call .. " of " .. path)
                if not path:find "new" or payload then
                    assert.equal("foreign_entry", err.code)
                    assert.equal(("%s/%s: it %s the version %s of %s"):format(target, path,
                        relation, live, target), err.message)
                end
            end
            assert.equal(before, sandbox.listing(dir))
        end
        assert.is_false(assert(outer:write { a = "3", ["sub/deep/x"] = "1" }).changed)
    end)

    it("follows a link that is turned elsewhere between two writes", function()
        sandbox.mkdir(dir .. "/one")
        sandbox.mkdir(dir .. "/two")
        sandbox.symlink("one", target)
        local writer = assert(atomicwriter.new(target, FAST))
        assert(writer:write { a = "1" })
        os.remove(target)
        sandbox.symlink("two", target)
        local one = sandbox.listing(dir .. "/one")
        assert(writer:write { a = "2" })
        assert(volume.shows(dir .. "/two", { a = "2" }))
        assert.equal(one, sandbox.listing(dir .. "/one"))
    end)

    it("may have odd names: spaces, newlines, leading dashes, two dots, UTF-8", function()
        for _, name in ipairs { " a b ", "new\nline", "-rf", "..data", "größe", "*", "'\"\\" } do
            local path = dir .. "/" .. name
            local writer = assert(atomicwriter.new(path, { durability = "none", create = true }))
            assert(writer:write { a = "1", ["b/c"] = "2" })
            assert(volume.shows(path, { a = "1", ["b/c"] = "2" }))
        end
    end)

    it("stays the one that a relative path meant, whatever the directory is later", function()
        local lfs = require "lfs"
        sandbox.mkdir(target)
        local here = lfs.currentdir()
        finally(function() lfs.chdir(here) end)
        lfs.chdir(dir)
        local writer = assert(atomicwriter.new("target", FAST))
        lfs.chdir(victim)
        local result, err = writer:write { a = "1" }
        lfs.chdir(here)
        assert(result, err)
        assert(volume.shows(target, { a = "1" }))
        assert.is_nil(sandbox.kind(victim .. "/target"))
    end)

    it("is no_target when it is missing or a file", function()
        sandbox.write_file(dir .. "/file", "")
        sandbox.symlink("nowhere", dir .. "/dangling")
        sandbox.symlink("loop", dir .. "/loop")
        for path, code in pairs { [target] = "no_target", [dir .. "/file"] = "no_target",
            [dir .. "/file/below"] = "no_target", [target .. "/deeper"] = "no_target",
            [dir .. "/dangling"] = "no_target", [dir .. "/loop"] = "io" } do
            local before = sandbox.listing(dir)
            local writer, err = atomicwriter.new(path)
            assert.is_nil(writer, path)
            assert.equal(code, err.code)
            assert.is_false(err.committed)
            assert.is_true(err.message:find(path, 1, true) ~= nil, err.message)
            assert.equal(before, sandbox.listing(dir))
        end
    end)

    it("is no_target when it goes between two writes, and is not made again unasked", function()
        local writer = new_writer { a = "1" }
        sandbox.rmtree(target)
        for _, call in ipairs { "write", "plan", "rollback", "collect", "versions" } do
            local payload = (call == "write" or call == "plan") and {} or nil
            local result, err = writer[call](writer, payload)
            assert.is_nil(result)
            assert.equal("no_target", err.code)
        end
        assert.is_nil(sandbox.kind(target))
        sandbox.write_file(target, "now a file")
        local result, err = writer:write { a = "1" }
        assert.is_nil(result)
        assert.equal("no_target", err.code)
        assert.equal("now a file", sandbox.read_file(target))
    end)

    it("is made with create, by the first write, if its parent is there", function()
        local writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
        assert.is_nil(sandbox.kind(target))
        assert(writer:plan { a = "1" })
        assert.is_nil(sandbox.kind(target))
        assert(writer:write { a = "1" })
        assert(volume.shows(target, { a = "1" }))
        assert.equal("0755", sandbox.mode(target))
        local deep, err = atomicwriter.new(dir .. "/missing/deep", { create = true })
        if deep then err = select(2, deep:write { a = "1" }) end
        assert.equal("no_target", err.code)
        assert.is_nil(sandbox.kind(dir .. "/missing"))
    end)

    it("is not mixed up with another while a link is turned to and fro", function()
        for _, name in ipairs { "one", "two" } do
            sandbox.mkdir(dir .. "/" .. name)
            local writer = assert(atomicwriter.new(dir .. "/" .. name, FAST))
            assert(writer:write { n = "0", ["d/n"] = "0" })
        end
        sandbox.symlink("one", target)
        local before = sandbox.listing(victim)
        local turner = sandbox.spawn(sandbox.lua(dir, function(base)
            local lfs = require "lfs"
            while not lfs.attributes(base .. "/stop") do
                for _, name in ipairs { "two", "one" } do
                    assert(lfs.link(name, base .. "/turn", true))
                    assert(os.rename(base .. "/turn", base .. "/target"))
                end
            end
        end, dir))
        local writer = assert(atomicwriter.new(target, FAST))
        for i = 1, 500 do
            local result, err = writer:write { n = tostring(i), ["d/n"] = tostring(i) }
            assert(result, err and err.message)
        end
        sandbox.write_file(dir .. "/stop", "")
        assert.equal(0, (turner:wait()))
        for _, name in ipairs { "one", "two" } do
            local n = sandbox.read_file(dir .. "/" .. name .. "/n")
            assert(volume.shows(dir .. "/" .. name, { n = n, ["d/n"] = n }))
        end
        assert.equal(before, sandbox.listing(victim))
    end)
end)
