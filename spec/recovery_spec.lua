--- Every write first repairs what a killed writer, or somebody else, has left.
--
-- Each residue is put into a target that was written a moment ago, and into one that
-- has been found in order several times before: whatever a writer remembers of it
-- must not blind it.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FILES = { a = "1", ["d/e"] = "2", keep = "3" }

describe("G5: a write", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
    end)
    after_each(function() sandbox.cleanup() end)

    local function new_writer(options)
        options = options or {}
        options.durability, options.create = options.durability or "none", true
        return assert(atomicwriter.new(target, options))
    end

    local function prepare(settled)
        local writer = new_writer()
        assert(writer:write { old = "0" })
        assert(writer:write(FILES))
        for _ = 1, settled and 2 or 0 do
            sandbox.sleep(0.03) -- more than a tick of the clock that stamps files
            assert.is_false(assert(writer:write(FILES)).changed)
        end
        return writer
    end

    local function live(path)
        return target .. "/" .. volume.live(target) .. (path and "/" .. path or "")
    end

    local UNFINISHED = "..2098_01_01_00_00_00.1"

    local residues = {
        ["a ..data_tmp"] = function() sandbox.symlink(UNFINISHED, target .. "/..data_tmp") end,
        ["a ..data_tmp to the live version"] = function()
            sandbox.symlink(volume.live(target), target .. "/..data_tmp")
        end,
        ["an unfinished version"] = function()
            sandbox.mkdir(target .. "/" .. UNFINISHED)
            sandbox.mkdir(target .. "/" .. UNFINISHED .. "/d")
            sandbox.write_file(target .. "/" .. UNFINISHED .. "/d/e", "half")
        end,
        ["unfinished versions that a strict umask has left without rights"] = function()
            sandbox.mkdir(target .. "/" .. UNFINISHED)
            sandbox.mkdir(target .. "/" .. UNFINISHED .. "/d")
            sandbox.chmod(target .. "/" .. UNFINISHED .. "/d", "0000")
            sandbox.mkdir(target .. "/" .. UNFINISHED .. "2")
            sandbox.chmod(target .. "/" .. UNFINISHED .. "2", "0000")
        end,
        ["several unfinished versions"] = function()
            for i = 1, 5 do sandbox.mkdir(target .. "/..2098_01_01_00_00_00." .. i) end
        end,
        ["a visible link that leads nowhere"] = function()
            sandbox.symlink("..data/stale", target .. "/stale")
        end,
        ["many visible links that lead nowhere"] = function()
            for i = 1, 50 do sandbox.symlink("..data/stale" .. i, target .. "/stale" .. i) end
        end,
        ["no visible link for a file"] = function() os.remove(target .. "/a") end,
        ["no visible link for a directory"] = function() os.remove(target .. "/d") end,
        ["no visible links"] = function()
            for name in pairs { a = 1, d = 1, keep = 1 } do os.remove(target .. "/" .. name) end
        end,
        ["two old versions too many"] = function()
            for i = 1, 3 do
                sandbox.must { "cp", "-a", "--", live(), target .. "/..2020_01_01_00_00_00." .. i }
            end
        end,
        ["no ..lock"] = function() os.remove(target .. "/..lock") end,
    }
    for what, put in pairs(residues) do
        for _, settled in ipairs { false, true } do
            local where = settled and " that was in order for a while" or ""
            it("that changes nothing repairs a target with " .. what .. where, function()
                local writer = prepare(settled)
                local version = volume.live(target)
                put()
                local result = assert(writer:write(FILES))
                assert.is_false(result.changed)
                assert.equal(version, result.version)
                assert.same({}, result.warnings)
                assert(volume.shows(target, FILES))
                assert.equal("0600", sandbox.mode(target .. "/..lock"))
            end)
        end

        it("that changes something repairs a target with " .. what, function()
            local writer = prepare(true)
            put()
            local files = { a = "changed", new = "4" }
            local result = assert(writer:write(files))
            assert.is_true(result.changed)
            assert.same({}, result.warnings)
            assert(volume.shows(target, files))
            sandbox.sleep(0.03)
            put()
            assert(writer:write(files))
            assert(volume.shows(target, files))
        end)

        it("of another writer, and a rollback, repair a target with " .. what, function()
            prepare(true)
            put()
            assert(new_writer():write(FILES))
            assert(volume.shows(target, FILES))
            put()
            assert(new_writer():rollback())
            assert.equal(volume.consume(target).a, volume.contents(target, volume.live(target)).a)
            assert(volume.shows(target, volume.contents(target, volume.live(target))))
        end)

        it("that fails its check leaves a target with " .. what .. " no worse", function()
            local writer = prepare(true)
            put()
            local result, err = writer:write({ a = "x" }, { check = function() return false end })
            assert.is_nil(result)
            assert.equal("check_failed", err.code)
            assert.same(FILES, volume.contents(target, volume.live(target)))
            assert(writer:write(FILES))
            assert(volume.shows(target, FILES))
        end)
    end

    it("finds drift in a target that was in order for a while", function()
        local writer = prepare(true)
        for path, repair in pairs {
            a = function() sandbox.write_file(live "a", "drifted") end,
            ["d/e"] = function() sandbox.chmod(live "d/e", "0600") end,
            keep = function() os.remove(live "keep") end,
        } do
            repair()
            local result = assert(writer:write(FILES))
            assert.is_true(result.changed, path)
            assert(volume.shows(target, FILES))
            for _ = 1, 3 do
                sandbox.sleep(0.03)
                assert.is_false(assert(writer:write(FILES)).changed)
            end
        end
    end)

    it("finds a foreign entry in a target that was in order for a while", function()
        local writer = prepare(true)
        os.remove(target .. "/a")
        sandbox.write_file(target .. "/a", "foreign")
        for _ = 1, 3 do
            local result, err = writer:write(FILES)
            assert.is_nil(result)
            assert.equal("foreign_entry", err.code)
            assert.equal("a", err.path)
            sandbox.sleep(0.03)
        end
    end)

    it("drops old versions when keep is lowered, though all was in order for a while", function()
        local writer = new_writer { keep = 3 }
        for i = 1, 4 do assert(writer:write { n = tostring(i) }) end
        for _ = 1, 3 do
            sandbox.sleep(0.03)
            assert(writer:write { n = "4" })
        end
        assert.is_false(assert(new_writer({ keep = 1 }):write { n = "4" }).changed)
        assert.equal(2, #volume.versions(target))
    end)

    it("drops a version whose reader has gone, though all was in order for a while", function()
        local writer = new_writer { keep = 0 }
        assert(writer:write { n = "1" })
        local snapshot = assert(atomicwriter.open(target))
        assert(writer:write { n = "2" })
        for _ = 1, 3 do
            sandbox.sleep(0.03)
            assert(writer:write { n = "2" })
        end
        assert.equal("1", snapshot:read("n"))
        snapshot:close()
        assert.is_false(assert(writer:write { n = "2" }).changed)
        assert(volume.shows(target, { n = "2" }, 0))
    end)

    it("follows ..data when another has turned it, though all was in order for a while", function()
        local writer = prepare(true)
        local versions = volume.versions(target)
        sandbox.symlink(versions[1], target .. "/turned")
        assert(os.rename(target .. "/turned", target .. "/..data"))
        local result = assert(writer:write(FILES))
        assert.is_true(result.changed)
        assert(volume.shows(target, FILES))
    end)

    it("repairs a target that was copied with all that is in it", function()
        prepare(true)
        local copy = dir .. "/copy"
        sandbox.must { "cp", "-a", "--", target, copy }
        os.remove(copy .. "/a")
        sandbox.symlink("..data/stale", copy .. "/stale")
        assert(assert(atomicwriter.new(copy, { durability = "none" })):write(FILES))
        assert(volume.shows(copy, FILES))
    end)
end)
