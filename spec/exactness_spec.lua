--- Data, mode, owner and group are all compared, and all set before publication.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("G8: a version", function()
    local dir, target

    before_each(function()
        dir = sandbox.tmpdir() -- a real disk: owners and set-group-id as usual
        target = dir .. "/target"
        sandbox.mkdir(target)
        sandbox.chmod(target, "0755")
    end)
    after_each(function() sandbox.cleanup() end)

    local function new_writer(options)
        options = options or {}
        options.durability = "none"
        return assert(atomicwriter.new(target, options))
    end

    local function need_root()
        if not sandbox.is_root() then pending("only root can give files away") end
    end

    local function mode(path) return sandbox.mode(target .. "/" .. path) end
    local function owner(path) return sandbox.owner(target .. "/" .. path) end

    -- WRITER has to find that PAYLOAD differs in UPDATED alone, and then nothing.
    local function repairs(writer, payload, updated)
        local result = assert(writer:write(payload))
        assert.is_true(result.changed)
        assert.same({ {}, updated, {} }, { result.added, result.updated, result.removed })
        local again = assert(writer:write(payload))
        assert.is_false(again.changed, "differs again: " .. table.concat(again.updated, " "))
        return result
    end

    ---- modes -----------------------------------------------------------------

    it("has every mode that was asked for, from 0000 to 0777", function()
        local payload = {}
        for bits = 0, 511 do
            payload[("m%04o"):format(bits)] = { data = "x", mode = bits }
            payload[("s%04o"):format(bits)] = { data = "x", mode = ("%04o"):format(bits) }
        end
        assert(new_writer():write(payload))
        local found = sandbox.must("cd " .. sandbox.quote(target)
            .. "/..data/ && find . -type f -printf '%f %m\\n'")
        local count = 0
        for name, bits in found:gmatch("(%S+) (%d+)\n") do
            assert.equal(tonumber(name:sub(2), 8), tonumber(bits, 8))
            count = count + 1
        end
        assert.equal(1024, count)
        if sandbox.is_root() then -- others cannot read what they may not, to compare it
            assert.is_false(assert(new_writer():write(payload)).changed)
        end
    end)

    it("has default_mode and dir_mode where no mode is given", function()
        local payload = { a = "1", ["b/c/d"] = { data = "2" }, e = { data = "3", mode = "0444" } }
        assert(new_writer { default_mode = "0640", dir_mode = "0750" }:write(payload))
        assert.same({ "0640", "0640", "0444" }, { mode "a", mode "b/c/d", mode "e" })
        assert.same({ "0750", "0750", "0750" }, { mode "..data", mode "b", mode "b/c" })
        assert.equal("0755", mode "") -- a target that was there is not ours to change
        local same = new_writer { default_mode = 416, dir_mode = 488 }
        assert.is_false(assert(same:write(payload)).changed)
    end)

    it("has dir_mode for a target that is made", function()
        local made = dir .. "/made"
        local writer = assert(atomicwriter.new(made, { create = true, dir_mode = "0710" }))
        assert(writer:write { ["a/b"] = "1" })
        for _, path in ipairs { "", "/..data", "/a" } do
            assert.equal("0710", sandbox.mode(made .. path))
        end
    end)

    it("changes with the mode alone of a file", function()
        local writer = new_writer()
        assert(writer:write { a = "1", b = "2" })
        local inode = sandbox.inode(target .. "/..data/b")
        local old = target .. "/" .. volume.live(target)
        local result = repairs(writer, { a = { data = "1", mode = "0600" }, b = "2" }, { "a" })
        assert.equal("0600", mode "a")
        assert.equal("0644", sandbox.mode(old .. "/a")) -- the old version is as it was
        assert.equal(inode, sandbox.inode(target .. "/..data/b"))
        assert.equal(1, result.linked)
        repairs(writer, { a = "1", b = "2" }, { "a" })
        assert.equal("0644", mode "a")
    end)

    it("changes with default_mode and with dir_mode", function()
        local payload = { a = "1", ["b/c"] = "2" }
        assert(new_writer():write(payload))
        repairs(new_writer { default_mode = "0600" }, payload, { "a", "b/c" })
        assert.same({ "0600", "0600" }, { mode "a", mode "b/c" })
        repairs(new_writer { default_mode = "0600", dir_mode = "0700" }, payload, { ".", "b" })
        assert.same({ "0700", "0700" }, { mode "..data", mode "b" })
    end)

    it("has its modes before anybody sees it", function()
        local writer = new_writer { default_mode = "0604", dir_mode = "0751" }
        assert(writer:write({ a = "1", ["b/c"] = { data = "2", mode = "0400" } }, {
            check = function(stage)
                return sandbox.mode(stage) == "0751" and sandbox.mode(stage .. "/b") == "0751"
                    and sandbox.mode(stage .. "/a") == "0604"
                    and sandbox.mode(stage .. "/b/c") == "0400"
            end,
        }))
    end)

    ---- owners ----------------------------------------------------------------

    it("has the owner and group that its entries ask for", function()
        need_root()
        local payload = { a = { data = "1", uid = 1234 }, b = { data = "2", gid = 2345 },
            ["c/d"] = { data = "3", uid = 1, gid = 2 }, e = "4",
            big = { data = "5", uid = 4294967294, gid = 4294967294 } }
        assert(new_writer():write(payload))
        assert.same({ "1234:0", "0:2345", "1:2", "0:0", "4294967294:4294967294" },
            { owner "a", owner "b", owner "c/d", owner "e", owner "big" })
        assert.same({ "0:0", "0:0" }, { owner "..data", owner "c" })
        assert.is_false(assert(new_writer():write(payload)).changed)
    end)

    it("has the options' uid and gid, for its directories too", function()
        need_root()
        local payload = { a = "1", ["b/c/d"] = "2", e = { data = "3", uid = 7 } }
        local writer = new_writer { uid = 1234, gid = 2345 }
        assert(writer:write(payload))
        assert.same({ "1234:2345", "1234:2345", "7:2345" }, { owner "a", owner "b/c/d", owner "e" })
        assert.same({ "1234:2345", "1234:2345", "1234:2345" },
            { owner "..data", owner "b", owner "b/c" })
        assert.equal("0:0", owner "")
        assert.is_false(assert(writer:write(payload)).changed)
    end)

    it("changes with the owner alone, and with the group alone", function()
        need_root()
        local writer = new_writer()
        assert(writer:write { a = "1", b = "2" })
        repairs(writer, { a = { data = "1", uid = 1 }, b = "2" }, { "a" })
        assert.same({ "1:0", "0:0" }, { owner "a", owner "b" })
        repairs(writer, { a = { data = "1", uid = 1 }, b = { data = "2", gid = 3 } }, { "b" })
        assert.same({ "1:0", "0:3" }, { owner "a", owner "b" })
        repairs(writer, { a = "1", b = "2" }, { "a", "b" })
        assert.same({ "0:0", "0:0" }, { owner "a", owner "b" })
    end)

    it("changes with the options' owner, also of its directories alone", function()
        need_root()
        local payload = { a = { data = "1", uid = 5, gid = 5 } }
        payload["b/c"] = { data = "2", uid = 5, gid = 5 }
        assert(new_writer():write(payload))
        repairs(new_writer { uid = 5, gid = 6 }, payload, { ".", "b" })
        assert.same({ "5:6", "5:6", "5:5" }, { owner "..data", owner "b", owner "b/c" })
    end)

    it("has its owner and its mode before anybody sees it", function()
        need_root()
        assert(new_writer():write({ a = { data = "1", uid = 3, gid = 4, mode = "0640" } }, {
            check = function(stage)
                return sandbox.owner(stage .. "/a") == "3:4"
                    and sandbox.mode(stage .. "/a") == "0640"
            end,
        }))
    end)

    it("cannot be written for another owner by who is not root, and then nothing is", function()
        local body = function(path)
            local writer = assert(require("atomicwriter").new(path, { durability = "none" }))
            local result, err = writer:write { a = { data = "2", uid = 4321 } }
            assert(result == nil and err.code == "io" and err.errno == 1 and not err.committed,
                tostring(err))
        end
        assert(new_writer():write { a = "1" })
        local before = sandbox.listing(target)
        local words = sandbox.lua(dir, body, target)
        if sandbox.is_root() then
            if not sandbox.has "setpriv" then pending("there is no setpriv here") end
            words = { "setpriv", "--bounding-set=-chown", "--", sandbox.unpack(words) }
        end
        sandbox.must(words)
        assert.equal(before, sandbox.listing(target))
    end)

    ---- set-group-id ----------------------------------------------------------

    it("in a set-group-id target has the target's group, and that is no change", function()
        need_root()
        sandbox.must { "chgrp", "4242", target }
        sandbox.chmod(target, "2755")
        local payload = { a = "1", ["b/c/d"] = "2" }
        local writer = new_writer()
        assert(writer:write(payload))
        assert.same({ "0:4242", "0:4242", "0:4242", "0:4242", "0:4242" },
            { owner "a", owner "b/c/d", owner "b", owner "b/c", owner "..data" })
        assert.equal("2755", mode "")
        local again = assert(writer:write(payload))
        assert.is_false(again.changed, table.concat(again.updated, " "))
        payload.a = "changed"
        assert.same({ "a" }, assert(writer:write(payload)).updated)
        assert.equal("0:4242", owner "a")
        assert.equal("0:4242", owner "b/c/d")
        assert(writer:rollback())
        assert.equal("0:4242", owner "a")
        assert.is_false(assert(writer:write { a = "1", ["b/c/d"] = "2" }).changed)
    end)

    it("in a set-group-id target still has the group that was asked for", function()
        need_root()
        sandbox.must { "chgrp", "4242", target }
        sandbox.chmod(target, "2755")
        local payload = { a = "1", ["b/c"] = { data = "2", gid = 9 } }
        assert(new_writer { gid = 0 }:write(payload))
        assert.same({ "0:0", "0:9", "0:0", "0:0" },
            { owner "a", owner "b/c", owner "b", owner "..data" })
        assert.is_false(assert(new_writer({ gid = 0 }):write(payload)).changed)
    end)

    ---- drift -----------------------------------------------------------------

    local drifts = {
        ["other data"] = { { "a" }, function(live)
            sandbox.write_file(live .. "/a", "drifted")
        end },
        ["data of the same length"] = { { "a" }, function(live)
            sandbox.write_file(live .. "/a", "drifted!")
        end },
        ["data of the same length and time"] = { { "a" }, function(live)
            local time = lfs.attributes(live .. "/a", "modification")
            sandbox.write_file(live .. "/a", "drifted!")
            assert(lfs.touch(live .. "/a", time, time))
        end },
        ["longer data"] = { { "a" }, function(live)
            sandbox.write_file(live .. "/a", "original and more")
        end },
        ["truncated data"] = { { "d/e/f" }, function(live)
            sandbox.write_file(live .. "/d/e/f", "")
        end },
        ["another mode"] = { { "a" }, function(live) sandbox.chmod(live .. "/a", "0666") end },
        ["set-user-id"] = { { "a" }, function(live) sandbox.chmod(live .. "/a", "4644") end },
        ["another mode of a directory"] = { { "d/e" }, function(live)
            sandbox.chmod(live .. "/d/e", "0777")
        end },
        ["another mode of its own"] = { { "." }, function(live) sandbox.chmod(live, "0700") end },
        ["the sticky bit"] = { { "d" }, function(live) sandbox.chmod(live .. "/d", "1755") end },
        ["a link in place of a file"] = { { "a" }, function(live)
            sandbox.write_file(dir .. "/same", "original")
            os.remove(live .. "/a")
            sandbox.symlink(dir .. "/same", live .. "/a")
        end },
    }
    for what, drift in pairs(drifts) do
        it("that has drifted to " .. what .. " is replaced", function()
            local payload = { a = "original", b = "other", ["d/e/f"] = "deep" }
            local writer = new_writer()
            assert(writer:write(payload))
            drift[2](target .. "/" .. volume.live(target))
            local plan = assert(writer:plan(payload))
            local result = repairs(writer, payload, drift[1])
            assert.same(plan.updated, result.updated)
            assert(volume.shows(target, payload))
            assert.same({ "0644", "0644", "0755", "0755", "0755" },
                { mode "a", mode "d/e/f", mode "d", mode "d/e", mode "..data" })
        end)
    end

    it("that has drifted to another owner is replaced", function()
        need_root()
        local payload = { a = "1", ["d/f"] = "2" }
        local writer = new_writer()
        for path, updated in pairs { a = "a", d = "d", ["d/f"] = "d/f", ["."] = "." } do
            for _, who in ipairs { "77:0", "0:77" } do
                assert(writer:write(payload))
                sandbox.must { "chown", who, target .. "/..data/" .. path }
                repairs(writer, payload, { updated })
                assert.equal("0:0", owner("..data/" .. path))
            end
        end
    end)

    it("that has lost a file or a directory gets it again", function()
        local payload = { a = "1", ["d/e/f"] = "2" }
        local writer = new_writer()
        for _, lost in ipairs { "a", "d", "d/e", "d/e/f" } do
            assert(writer:write(payload))
            sandbox.rmtree(target .. "/" .. volume.live(target) .. "/" .. lost)
            assert.is_true(assert(writer:plan(payload)).changed)
            local result = assert(writer:write(payload))
            assert.is_true(result.changed)
            assert.same({ lost == "a" and "a" or "d/e/f" }, result.added)
            assert(volume.shows(target, payload))
        end
    end)

    local extras = {
        ["a file"] = { { "x" }, function(live) sandbox.write_file(live .. "/x", "") end },
        ["a file below"] = { { "d/x" }, function(live) sandbox.write_file(live .. "/d/x", "") end },
        ["an empty directory"] = { { "x" }, function(live) sandbox.mkdir(live .. "/x") end },
        ["an empty directory below"] = { { "d/x" }, function(live)
            sandbox.mkdir(live .. "/d/x")
        end },
        ["a link"] = { { "x" }, function(live) sandbox.symlink("a", live .. "/x") end },
        ["a fifo"] = { { "x" }, function(live) sandbox.must { "mkfifo", "--", live .. "/x" } end },
    }
    for what, extra in pairs(extras) do
        it("that holds " .. what .. " too many is replaced", function()
            local payload = { a = "1", ["d/f"] = "2" }
            local writer = new_writer()
            assert(writer:write(payload))
            extra[2](target .. "/" .. volume.live(target))
            assert.is_true(assert(writer:plan(payload)).changed)
            local result = assert(writer:write(payload))
            assert.is_true(result.changed)
            assert.same(extra[1], result.removed)
            assert.is_false(assert(writer:write(payload)).changed)
            assert(volume.shows(target, payload))
            assert.same({ "a", "d" }, sandbox.names(target .. "/" .. volume.live(target)))
            assert.same({ "f" }, sandbox.names(target .. "/d"))
        end)
    end

    it("that has a directory where a file should be, or the reverse, is replaced", function()
        local payload = { a = "1", ["d/f"] = "2" }
        local writer = new_writer()
        assert(writer:write(payload))
        local live = target .. "/" .. volume.live(target)
        os.remove(live .. "/a")
        sandbox.mkdir(live .. "/a")
        sandbox.rmtree(live .. "/d")
        sandbox.write_file(live .. "/d", "a file")
        assert.is_true(assert(writer:write(payload)).changed)
        assert(volume.shows(target, payload))
        assert.is_false(assert(writer:write(payload)).changed)
    end)

    it("is not replaced because of its times or of a longer link count", function()
        local payload = { a = "1", ["d/f"] = "2" }
        local writer = new_writer()
        assert(writer:write(payload))
        assert(lfs.touch(target .. "/a", 1, 1))
        sandbox.must { "ln", "--", target .. "/..data/a", dir .. "/another-name" }
        local result = assert(writer:write(payload))
        assert.is_false(result.changed)
    end)

    it("tells files apart that differ in the last byte, or in length by one", function()
        local writer = new_writer()
        local big = ("0123456789abcdef"):rep(65536)
        assert(writer:write { a = big, b = big, c = big, d = "" })
        local last, longer = big:sub(1, -2) .. "X", big .. "0"
        local result = assert(writer:write { a = big, b = last, c = longer, d = "" })
        assert.same({ "b", "c" }, result.updated)
        assert.equal(2, result.linked)
        assert.equal(longer, sandbox.read_file(target .. "/c"))
        result = assert(writer:write { a = big, b = big, c = big:sub(1, -2), d = "\0" })
        assert.same({ "b", "c", "d" }, result.updated)
    end)
end)
