--- The health of a target.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local inspect = atomicwriter.inspect

describe("inspect", function()
    local dir, target, writer

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    -- Each list that is not empty.
    local function troubles(found)
        local lists = {}
        for _, name in ipairs { "residue", "dangling", "missing", "foreign" } do
            if #found[name] > 0 then lists[name] = found[name] end
        end
        return lists
    end

    it("tells of a sound target all that there is", function()
        local first = assert(writer:write(volume.before)).version
        local second = assert(writer:write(volume.after)).version
        local found = assert(inspect(target))
        local listed = assert(writer:versions())
        for _, version in ipairs(listed) do version.leased = false end
        assert.same({
            target = target, live = second, versions = listed, residue = {}, dangling = {},
            missing = {}, foreign = {}, others = 0, locked = false,
        }, found)
        assert.same({ second, first }, { found.versions[1].name, found.versions[2].name })
    end)

    it("makes a relative path absolute", function()
        writer:write {}
        local relative = ("../"):rep(30) .. target:sub(2)
        assert.matches("^/.*/" .. relative:gsub("%W", "%%%0") .. "$", inspect(relative).target)
    end)

    it("touches nothing", function()
        assert(writer:write(volume.before))
        sandbox.symlink("..data/gone", target .. "/gone")
        local before = sandbox.listing(target)
        assert.same({ dangling = { "gone" } }, troubles(assert(inspect(target))))
        assert.equal(before, sandbox.listing(target))
    end)

    it("tells what a killed writer left, until the next write", function()
        assert(writer:write(volume.before))
        sandbox.mkdir(target .. "/..2999_01_01_00_00_00.1")
        sandbox.mkdir(target .. "/..2001_01_01_00_00_00.1_tmp")
        sandbox.symlink("..2999_01_01_00_00_00.1", target .. "/..data_tmp")
        assert.same({ residue = { "..2001_01_01_00_00_00.1_tmp", "..2999_01_01_00_00_00.1",
            "..data_tmp" } }, troubles(assert(inspect(target))))
        assert(writer:write(volume.before))
        assert.same({}, troubles(assert(inspect(target))))
    end)

    it("tells visible names that are missing, in the way, or nobody's business", function()
        assert(writer:write(volume.before))
        assert(os.remove(target .. "/kept"))
        assert(os.remove(target .. "/changed"))
        sandbox.write_file(target .. "/changed", "a stranger's")
        sandbox.write_file(target .. "/else", "a stranger's")
        local found = assert(inspect(target))
        assert.same({ missing = { "kept" }, foreign = { "changed" } }, troubles(found))
        assert.equal(1, found.others)
    end)

    it("tells a ..lock that is no regular file as foreign, and goes on", function()
        assert(writer:write(volume.before))
        local uv = require "luv"
        local lock, socket = target .. "/..lock", uv.new_pipe(false)
        finally(function()
            socket:close()
            uv.run() -- until it is closed
        end)
        for what, make in pairs {
            ["a directory"] = sandbox.mkdir,
            ["a link"] = function() sandbox.symlink("kept", lock) end,
            ["a fifo"] = function() sandbox.must { "mkfifo", "--", lock } end,
            ["a socket"] = function() assert(socket:bind(lock)) end,
        } do
            sandbox.rmtree(lock)
            make(lock)
            local found = assert(inspect(target))
            assert.same({ foreign = { "..lock" } }, troubles(found), what)
            assert.is_false(found.locked)
        end
    end)

    describe("calls ..data", function()
        local function fault(kind, message)
            local found = assert(inspect(target))
            assert.is_nil(found.live)
            assert.equal(kind, found.fault)
            assert.matches(message, found.message)
            return found
        end

        it("missing, where nothing was written or it was deleted", function()
            sandbox.mkdir(target)
            fault("missing", "there is no %.%.data")
            assert(writer:write { a = "1" })
            assert(os.remove(target .. "/..data"))
            assert.same({ "a" }, fault("missing", "there is no %.%.data").dangling)
        end)

        it("dangling, when its version is not there", function()
            local version = assert(writer:write({ a = "1" })).version
            sandbox.rmtree(target .. "/" .. version)
            local found = fault("dangling", version:gsub("%p", "%%%0"))
            assert.same({ dangling = { "a" } }, troubles(found))
        end)

        it("G7: foreign, when it is no link to one version, and follows nothing", function()
            sandbox.mkdir(target)
            for _, text in ipairs { "../target", ".", "/etc", "a", "..data" } do
                sandbox.symlink(text, target .. "/..data")
                assert.same({}, troubles(fault("foreign", "^%.%.data: ")))
                assert(os.remove(target .. "/..data"))
            end
            sandbox.write_file(target .. "/..data", "")
            fault("foreign", "it is no symbolic link")
        end)
    end)

    it("G9: tells which versions are leased, and leaves them so", function()
        assert(writer:write { a = "1" })
        local snapshot = assert(atomicwriter.open(target))
        assert(writer:write { a = "2" })
        for _ = 1, 3 do
            local versions = assert(inspect(target)).versions
            assert.same({ false, true }, { versions[1].leased, versions[2].leased })
        end
        writer:close()
        writer = assert(atomicwriter.new(target, { durability = "none", keep = 0 }))
        assert(writer:write { a = "3" })
        assert.equal("1", snapshot:read "a")
        snapshot:close()
        assert.is_false(assert(inspect(target)).versions[2].leased)
    end)

    it("tells that a writer is at work, and takes nothing that it makes for residue", function()
        assert(writer:write(volume.before))
        local found
        assert(writer:write(volume.after, {
            check = function()
                found = assert(inspect(target))
                return true
            end,
        }))
        assert.is_true(found.locked)
        assert.same({}, troubles(found))
        assert.equal(1, #found.versions)
        assert.is_false(assert(inspect(target)).locked)
    end)

    it("needs only the right to read, and then cannot tell of the lock", function()
        if not sandbox.is_root() or not sandbox.has "setpriv" then
            pending("needs root and setpriv, to give up rights")
        end
        assert(writer:write(volume.before))
        sandbox.chmod(dir, "0755")
        local words = sandbox.lua(dir, function(where)
            local found = assert(require("atomicwriter").inspect(where))
            print(found.live ~= nil, found.locked, #found.residue, #found.missing)
        end, target)
        local status, out, err = sandbox.run { "setpriv", "--reuid=65534", "--regid=65534",
            "--clear-groups", "env", sandbox.unpack(words, 2) }
        assert.equal(0, status, err)
        assert.equal("true\tnil\t0\t0\n", out)
    end)

    it("of what is no directory is no_target", function()
        local found, err = inspect(target)
        assert.is_nil(found)
        assert.equal("no_target", err.code)
        assert.equal(target .. ": no such directory", err.message)
        sandbox.write_file(target, "")
        assert.equal("no_target", select(2, inspect(target)).code)
    end)

    it("raises for what is no path", function()
        for _, wrong in ipairs { 1, true, {}, "a\0b" } do
            assert.has_error(function() inspect(wrong) end)
        end
        assert.has_error(function() inspect() end,
            "bad argument #1 to 'inspect' (string expected, got no value)")
    end)
end)
