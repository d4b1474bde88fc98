--- What the reference implementation of this layout, Kubernetes' AtomicWriter, gets
-- wrong: each situation that was reproduced with it is a case here.

local atomicwriter = require "atomicwriter"
local powercut = require "spec.support.powercut"
local sandbox = require "spec.support.sandbox"
local strace = require "spec.support.strace"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

local function need_strace()
    local ok, reason = strace.available()
    if not ok then pending(reason) end
end

describe("Where Kubernetes' AtomicWriter fails, a writer", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    local function new_target(payload, options)
        local target = dir .. "/target"
        sandbox.mkdir(target)
        local writer = assert(atomicwriter.new(target, options or FAST))
        if payload then assert(writer:write(payload)) end
        return writer, target
    end

    -- Refused as CODE about PATH, and not a byte of the target touched.
    local function refuses(writer, target, payload, code, path)
        local before = sandbox.listing(target)
        local result, err = writer:write(payload)
        assert.is_nil(result)
        assert.equal(code, err.code)
        if path then assert.equal(path, err.path) end
        assert.is_false(err.committed)
        assert.equal(before, sandbox.listing(target))
    end

    ---- killed ----------------------------------------------------------------

    -- The calls at which a kill can leave something: those that change or sync.
    local DEEDS = { openat = true, mkdirat = true, write = true, pwrite64 = true, fchmod = true,
        fchown = true, linkat = true, symlinkat = true, renameat = true, renameat2 = true,
        unlinkat = true, fsync = true, syncfs = true, flock = true, close = true,
        copy_file_range = true, sync_file_range = true }

    local function trace(operation)
        local target = volume.prepare(dir, "traced" .. (operation or ""), FAST)
        local status, stdout, stderr, events =
            strace.record(dir, sandbox.lua(dir, volume.update, target, "full", operation))
        assert.equal(0, status, stderr)
        assert.equal("ok", stdout:match("^%S+"))
        return strace.marked(events)
    end

    local function swap_in(events)
        for i, event in ipairs(events) do
            if event.call:match("^renameat") and strace.name(event, 4) == "..data" then
                return i, event
            end
        end
        error("the trace has no swap")
    end

    local number = 0
    local function kill_at(event)
        number = number + 1
        local target = volume.prepare(dir, "killed" .. number, FAST)
        local status, stdout = strace.inject(sandbox.lua(dir, volume.update, target, "full"),
            event.call, "signal=SIGKILL", event.nth)
        assert.equal(137, status, "not killed at " .. event.text .. ": " .. stdout)
        return target
    end

    -- What consumers may see of a killed update: all of the old or all of the new.
    local function outcome(target)
        local live = assert(volume.live(target))
        local contents = volume.contents(target, live)
        if contents.changed == "before" then
            assert.same(volume.before, contents)
            return "before"
        end
        assert.same(volume.after, contents)
        return "after"
    end

    local function write(target, payload)
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        local result = assert(writer:write(payload))
        assert.same({}, result.warnings)
        writer:close()
        return result
    end

    it("G5: killed between making ..data_tmp and renaming it, wedges no later write", function()
        need_strace()
        local _, swap = swap_in(trace())
        local target = kill_at(swap)
        assert.equal("link", sandbox.kind(target .. "/..data_tmp"))
        assert.equal("before", outcome(target))
        assert(volume.resolves(target, volume.before))
        write(target, volume.after)
        assert(volume.shows(target, volume.after))
        write(target, volume.before)
        assert(volume.shows(target, volume.before))
    end)

    it("G5: killed anywhere, leaves nothing that the next write does not sweep", function()
        need_strace()
        local events = trace()
        local swap = swap_in(events)
        local points, seen = 0, { before = 0, after = 0 }
        for i, event in ipairs(events) do
            local deed = DEEDS[event.call] and (event.call ~= "openat"
                or event.arguments[3]:find("O_CREAT", 1, true)) -- the others change nothing
            if deed then
                points = points + 1
                local target = kill_at(event)
                local live = outcome(target)
                assert.equal(i <= swap and "before" or "after", live, event.text)
                assert(volume.resolves(target, volume[live]))
                seen[live] = seen[live] + 1
                if points % 2 == 0 then
                    local result = write(target, volume[live])
                    assert.is_false(result.changed)
                    assert(volume.shows(target, volume[live]))
                else
                    write(target, { other = "third" })
                    assert(volume.shows(target, { other = "third" }))
                end
                sandbox.rmtree(target)
            end
        end
        assert.is_true(seen.before >= 30 and seen.after >= 10,
            ("only %d and %d kill points"):format(seen.before, seen.after))
    end)

    it("G5: killed after the swap and before pruning, leaves no dangling link for ever", function()
        need_strace()
        local events = trace()
        local at = swap_in(events)
        while events[at].call ~= "unlinkat" do at = at + 1 end
        local target = kill_at(events[at])
        assert.equal("after", outcome(target))
        assert.equal("..data/removed", sandbox.readlink(target .. "/removed"))
        assert.is_false(sandbox.resolves(target .. "/removed"))
        assert.is_false(write(target, volume.after).changed)
        assert(volume.shows(target, volume.after))
    end)

    ---- errors ----------------------------------------------------------------

    it("G2: that fails to write leaves no half-written version", function()
        need_strace()
        local event = strace.find(trace(), "write(")
        for more = 0, 3 do
            local target = volume.prepare(dir, "full" .. more, FAST)
            local before = sandbox.listing(target)
            local status, stdout = strace.inject(sandbox.lua(dir, volume.update, target, "none"),
                "write", "error=ENOSPC", event.nth + more)
            assert.equal(0, status)
            assert.matches("^io%s+false%s", stdout)
            assert.equal(before, sandbox.listing(target))
        end
    end)

    -- In a rollback what was not read would be missing from what is published.
    local outcomes = { update = volume.after, again = volume.before,
        rollback = { ["oldest"] = "to be pruned", ["dir/oldest"] = "to be pruned" } }
    for operation, files in pairs(outcomes) do
        it("G2: that cannot walk a version or read a link says so: " .. operation, function()
            need_strace()
            local faults = { getdents64 = "error=EIO", readlinkat = "error=EMFILE" }
            local refused = 0
            for i, event in ipairs(trace(operation)) do
                if faults[event.call] then
                    local target = volume.prepare(dir, "fault" .. i, FAST)
                    local before = sandbox.listing(target)
                    local _, stdout = strace.inject(
                        sandbox.lua(dir, volume.update, target, "full", operation),
                        event.call, faults[event.call], event.nth)
                    local said = stdout:match("^%S+")
                    if said == "ok" then
                        assert(volume.shows(target, files))
                    elseif said == "warned" then
                        assert.same(files, volume.contents(target, volume.live(target)))
                        assert(volume.resolves(target, files))
                    else
                        assert.matches("^io%s+false%s", stdout)
                        assert.equal(before, sandbox.listing(target))
                        refused = refused + 1
                    end
                    sandbox.rmtree(target)
                end
            end
            assert.is_true(refused >= 5, "only " .. refused .. " of the faults were told")
        end)
    end

    ---- payloads --------------------------------------------------------------

    it("G7: refuses ./..data/x and ./..sneaky, whatever precedes the dots", function()
        local writer, target = new_target { a = "1" }
        for _, path in ipairs { "./..data/x", "./..sneaky", "./..data_tmp", ".//..data",
            "././..lock", "..data/x", "..data_tmp" } do
            refuses(writer, target, { a = "2", [path] = "x" }, "invalid_payload", path)
        end
        assert(writer:write { a = "2" })
        assert(volume.shows(target, { a = "2" }))
    end)

    it("G2: refuses a with a/b, the path . and a NUL byte without an orphan", function()
        local writer, target = new_target { x = "1" }
        refuses(writer, target, { a = "1", ["a/b"] = "2" }, "invalid_payload")
        refuses(writer, target, { ["a/b/c"] = "1", ["a/b"] = "2" }, "invalid_payload")
        refuses(writer, target, { ["."] = "1" }, "invalid_payload", ".")
        refuses(writer, target, { ["a\0b"] = "1" }, "invalid_payload", "a\\0b")
    end)

    it("G8: refuses two keys for one file instead of letting chance decide", function()
        local writer, target = new_target { x = "1" }
        refuses(writer, target, { ["a/b"] = "1", ["a//b"] = "2" }, "invalid_payload")
        refuses(writer, target, { ["a"] = "1", ["./a"] = "1" }, "invalid_payload")
    end)

    it("G1: changes a directory into a file and back", function()
        local writer, target = new_target { ["a/b"] = "1" }
        for _ = 1, 3 do
            assert(writer:write { a = "2" })
            assert(volume.shows(target, { a = "2" }))
            assert(writer:write { ["a/b"] = "1" })
            assert(volume.shows(target, { ["a/b"] = "1" }))
            assert(writer:write { ["a/b/c/d"] = "3", z = "" })
            assert(volume.shows(target, { ["a/b/c/d"] = "3", z = "" }))
            assert(writer:write { ["a/b"] = "1" })
            assert(volume.shows(target, { ["a/b"] = "1" }))
        end
    end)

    ---- what stands in the way ------------------------------------------------

    local foreign = {
        ["a regular file"] = function(path) sandbox.write_file(path, "foreign") end,
        ["a directory"] = function(path)
            sandbox.mkdir(path)
            sandbox.write_file(path .. "/inside", "foreign")
        end,
        ["a foreign link"] = function(path) sandbox.symlink("/etc/hostname", path) end,
        ["a link to another key"] = function(path) sandbox.symlink("..data/a", path) end,
    }
    for what, put in pairs(foreign) do
        it("G7: refuses a name where " .. what .. " is, and never removes it", function()
            local writer, target = new_target { a = "1" }
            put(target .. "/name")
            refuses(writer, target, { a = "1", name = "2" }, "foreign_entry", "name")
            refuses(writer, target, { a = "1", ["name/below"] = "2" }, "foreign_entry", "name")
            local kind, inode = sandbox.kind(target .. "/name"), sandbox.inode(target .. "/name")
            assert(writer:write { b = "2" })
            assert(writer:write {})
            assert.equal(kind, sandbox.kind(target .. "/name"))
            assert.equal(inode, sandbox.inode(target .. "/name"))
        end)
    end

    for _, text in ipairs { "../victim", ".", "..", "../target" } do
        it("G7: deletes nothing when ..data reads " .. text, function()
            local writer, target = new_target { a = "1" }
            sandbox.mkdir(dir .. "/victim")
            sandbox.write_file(dir .. "/victim/precious", "data")
            os.remove(target .. "/..data")
            sandbox.symlink(text, target .. "/..data")
            local before = sandbox.listing(dir)
            for _, payload in ipairs { { a = "2" }, {}, { precious = "x" } } do
                refuses(writer, target, payload, "foreign_entry", "..data")
            end
            assert.equal(before, sandbox.listing(dir))
        end)
    end

    ---- what counts as a change -----------------------------------------------

    it("G8: publishes a change of the mode alone", function()
        local writer, target = new_target { a = { data = "1", mode = "0644" } }
        assert.is_true(assert(writer:write { a = { data = "1", mode = "0600" } }).changed)
        assert.equal("0600", sandbox.mode(target .. "/a"))
    end)

    it("G8: publishes a change of the owner alone", function()
        if not sandbox.is_root() then pending("only root can give files away") end
        local writer, target = new_target { a = { data = "1" } }
        assert.is_true(assert(writer:write { a = { data = "1", uid = 1234, gid = 2345 } }).changed)
        assert.equal("1234:2345", sandbox.owner(target .. "/a"))
    end)

    it("G8: repairs what drifted on disk", function()
        local writer, target = new_target { a = "1", b = "2" }
        for _, drifted in ipairs { "drifted", "9", "" } do
            sandbox.write_file(target .. "/a", drifted)
            local result = assert(writer:write { a = "1", b = "2" })
            assert.is_true(result.changed)
            assert.same({ "a" }, result.updated)
            assert(volume.shows(target, { a = "1", b = "2" }))
        end
    end)

    it("G5: makes a visible link again that was deleted", function()
        local writer, target = new_target { a = "1", ["b/c"] = "2" }
        os.remove(target .. "/a")
        os.remove(target .. "/b")
        assert.is_false(assert(writer:write { a = "1", ["b/c"] = "2" }).changed)
        assert(volume.shows(target, { a = "1", ["b/c"] = "2" }))
    end)

    it("G8: lets others into sub directories under umask 077", function()
        local target = dir .. "/target"
        sandbox.mkdir(target)
        sandbox.chmod(target, "0755")
        sandbox.must("umask 077; " .. sandbox.sh(sandbox.lua(dir, function(path)
            local writer = assert(require("atomicwriter").new(path))
            assert(writer:write { ["a/b/c"] = "1" })
        end, target)))
        assert.equal("0755", sandbox.mode(target .. "/..data"))
        assert.equal("0755", sandbox.mode(target .. "/a"))
        assert.equal("0755", sandbox.mode(target .. "/a/b"))
        assert.equal("0644", sandbox.mode(target .. "/a/b/c"))
    end)

    ---- many at once, power, readers ------------------------------------------

    it("G6: that is one of eight meets no error and leaves no orphan or dangling link", function()
        local target = dir .. "/target"
        sandbox.mkdir(target)
        local children = {}
        for i = 1, 8 do
            children[i] = sandbox.spawn(sandbox.lua(dir, function(path, me)
                local writer = assert(require("atomicwriter").new(path, { durability = "none" }))
                for n = 1, 50 do
                    local payload = { writer = me, ["own-" .. me] = me }
                    for k = 1, 5 do payload["key" .. (n + k) % 7] = me .. n end
                    assert(writer:write(payload))
                end
            end, target, i))
        end
        for _, child in ipairs(children) do
            local status, _, stderr = child:wait()
            assert.equal(0, status, stderr)
        end
        assert(volume.shows(target, volume.consume(target)))
        local last = sandbox.read_file(target .. "/writer")
        assert.equal(last, sandbox.read_file(target .. "/own-" .. last))
    end)

    it("G4: loses and tears nothing in a power cut", function()
        need_strace()
        assert.same({}, powercut.dangers(trace(), dir .. "/traced", true))
    end)

    it("G9: takes no file away from a reader that holds the old version", function()
        local files = {}
        for i = 1, 20 do files["file" .. i] = "0" end
        local writer = new_target(files)
        for round = 1, 10 do
            local snapshot = assert(atomicwriter.open(writer.target))
            local expected = assert(snapshot:read("file1"))
            for i = 1, 20 do
                for path in pairs(files) do files[path] = round .. "." .. i end
                assert(writer:write(files))
                assert.equal(expected, assert(snapshot:read("file" .. i)))
            end
            snapshot:close()
        end
    end)
end)
