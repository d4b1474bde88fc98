--- What is synced, when, and before what: told from the system calls of a child.

local sandbox = require "spec.support.sandbox"
local strace = require "spec.support.strace"
local powercut = require "spec.support.powercut"
local volume = require "spec.support.volume"

local FAST, FULL = { durability = "none" }, { durability = "full" }

local function need_strace()
    local ok, reason = strace.available()
    if not ok then pending(reason) end
end

describe("A write with durability full", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    local function trace(body, ...)
        need_strace()
        local status, stdout, stderr, events = strace.record(dir,
            sandbox.lua(dir, body, ...))
        assert.equal(0, status, stderr)
        return strace.marked(events), stdout
    end

    local function update(target, durability, operation)
        local events, stdout = trace(volume.update, target, durability, operation or "update")
        assert.matches("^ok", stdout)
        return events
    end

    -- The paths that EVENTS sync, each by a call of its own.
    -- What was synced, by path; all there is, where one call has done it.
    local function synced(events)
        local paths = {}
        for _, event in ipairs(events) do
            if event.call == "fsync" then paths[strace.path(event, 1)] = true end
            if event.call == "syncfs" then
                setmetatable(paths, { __index = function() return true end })
            end
        end
        return paths
    end

    local function position(events, call, text)
        for i, event in ipairs(events) do
            if event.call:find(call) and (not text or event.text:find(text, 1, true)) then
                return i
            end
        end
        error(("no %s with %s"):format(call, tostring(text)))
    end

    local function swap_in(events)
        for i, event in ipairs(events) do
            if event.call:match("^rename") and strace.name(event, 4) == "..data" then return i end
        end
        error("no swap")
    end

    it("G4: syncs what it needs in the order that no power cut can break", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(target, "full")
        assert.same({}, powercut.dangers(events, target))
        assert(volume.shows(target, volume.after))
    end)

    it("G4: syncs every file and directory of the new version before the swap", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(target, "full")
        local version = target .. "/" .. volume.live(target)
        local swap = swap_in(events)
        local before = {}
        for i = 1, swap - 1 do before[i] = events[i] end
        local paths = synced(before)
        for _, path in ipairs { "", "/added", "/changed", "/dir", "/dir/changed", "/new",
            "/new/sub", "/new/sub/added", "/type" } do
            assert.is_true(paths[version .. path], "not synced: " .. path)
        end
        assert.is_true(paths[target], "the target itself")
    end)

    it("G4: syncs a directory after what is in it", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(target, "full")
        local version = target .. "/" .. volume.live(target)
        local at = {}
        for i, event in ipairs(events) do
            if event.call == "fsync" then
                at[strace.path(event, 1)] = at[strace.path(event, 1)] or i
            end
        end
        assert.is_true(at[version .. "/new/sub/added"] < at[version .. "/new/sub"])
        assert.is_true(at[version .. "/new/sub"] < at[version .. "/new"])
        assert.is_true(at[version .. "/new"] < at[version])
        assert.is_true(at[version] < at[target])
    end)

    it("G4: syncs the target between the visible links and the swap, and after it", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(target, "full")
        local swap, pruned = swap_in(events), nil
        local links, before, after = 0, nil, nil
        for i, event in ipairs(events) do
            if event.call == "symlinkat" then links = i end
            if event.call == "fsync" and strace.path(event, 1) == target then
                if i < swap then before = i elseif not after then after = i end
            end
            local prunes = event.call == "unlinkat" or event.call:match("^rename")
            if prunes and i > swap and not pruned then pruned = i end
        end
        assert.is_true(links > 0 and links < before and before < swap)
        assert.is_true(after ~= nil and pruned ~= nil and swap < after and after < pruned)
    end)

    it("G4: sets a file's mode and owner before it is synced", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(target, "full")
        local file = "/added>"
        local sync = position(events, "^fsync", file)
        for i, event in ipairs(events) do
            local sets = event.call == "fchmod" or event.call == "fchown" or event.call == "write"
            if sets and event.text:find(file, 1, true) then
                assert.is_true(i < sync, event.text)
            end
        end
    end)

    it("G4: holds for many files, too, however they are synced", function()
        local target = dir .. "/target"
        local function body(path)
            local writer = assert(require("atomicwriter").new(path, { create = true }))
            local payload = {}
            for i = 1, 300 do payload["d" .. i % 7 .. "/e" .. i % 3 .. "/f" .. i] = "1" end
            io.open("/=begin")
            assert(writer:write(payload))
            io.open("/=end")
        end
        assert.same({}, powercut.dangers(trace(body, target), target))
        local function change(path)
            local writer = assert(require("atomicwriter").new(path))
            local payload = {}
            for i = 1, 300 do payload["d" .. i % 7 .. "/e" .. i % 3 .. "/f" .. i] = "2" end
            payload["d1/e1/f1"] = "1"
            io.open("/=begin")
            assert(assert(writer:write(payload)).linked == 1)
            io.open("/=end")
        end
        assert.same({}, powercut.dangers(trace(change, target), target))
    end)

    it("G4: holds for a target that it makes: its name in its parent is synced", function()
        local target = dir .. "/target"
        local events = trace(function(path)
            local writer = assert(require("atomicwriter").new(path, { create = true }))
            io.open("/=begin")
            assert(writer:write { a = "1", ["b/c"] = "2" })
            io.open("/=end")
        end, target)
        assert.same({}, powercut.dangers(events, target))
        assert.is_true(synced(events)[dir])
    end)

    it("G4: holds for a source that is copied", function()
        local target = dir .. "/target"
        sandbox.write_file(dir .. "/source", ("s"):rep(300000))
        local events = trace(function(path, source)
            local writer = assert(require("atomicwriter").new(path, { create = true }))
            io.open("/=begin")
            assert(writer:write { a = { source = source }, ["b/c"] = { source = source } })
            io.open("/=end")
        end, target, dir .. "/source")
        assert.same({}, powercut.dangers(events, target))
        assert.is_true(synced(events)[target .. "/" .. volume.live(target) .. "/b/c"])
    end)

    it("G4: holds for a rollback", function()
        local target = volume.prepare(dir, "target", FULL)
        assert.same({}, powercut.dangers(update(target, "full", "rollback"), target))
        assert.equal("to be pruned", sandbox.read_file(target .. "/oldest"))
    end)

    it("G4: holds for a rollback to a version that was never synced", function()
        local target = volume.prepare(dir, "target", FAST)
        local events = update(target, "full", "rollback")
        assert.same({}, powercut.dangers(events, target, true))
    end)

    it("G4: syncs a file that it links from a version without durability", function()
        local target = volume.prepare(dir, "target", FAST)
        local old = target .. "/" .. volume.live(target)
        local inode = sandbox.inode(target .. "/..data/kept")
        local events = update(target, "full")
        assert.equal(inode, sandbox.inode(target .. "/..data/kept")) -- it is linked
        assert.same({}, powercut.dangers(events, target, true))
        local version, paths = target .. "/" .. volume.live(target), synced(events)
        for _, path in ipairs { "/kept", "/dir/kept" } do
            assert.is_true(paths[version .. path] or paths[old .. path], "not synced: " .. path)
        end
    end)

    it("G4: syncs a file that it links, also when versions with durability are older", function()
        local target = volume.prepare(dir, "target", FULL)
        update(target, "none")
        local events = update(target, "full", "again")
        assert.same({}, powercut.dangers(events, target, true))
    end)

    it("G4: syncs an unchanged live version that was written without durability", function()
        local target = volume.prepare(dir, "target", FAST)
        local version = target .. "/" .. volume.live(target)
        local events = update(target, "full", "again") -- it writes what is there
        assert.equal(version, target .. "/" .. volume.live(target))
        local paths = synced(events)
        for path in pairs(volume.before) do
            assert.is_true(paths[version .. "/" .. path], "not synced: " .. path)
        end
        for _, path in ipairs { "", "/dir", "/dir/sub", "/old", "/type" } do
            assert.is_true(paths[version .. path], "not synced: " .. path)
        end
        assert.is_true(paths[target], "the target itself")
        -- and the target's own name
        assert.is_true(paths[dir], "the target's parent")
    end)

    it("G4: syncs an unchanged live version that a kubelet has written", function()
        local target = dir .. "/target"
        local version = "..2024_02_29_12_00_01.345678901"
        sandbox.mkdir(target)
        sandbox.mkdir(target .. "/" .. version)
        sandbox.chmod(target .. "/" .. version, "0755")
        sandbox.write_file(target .. "/" .. version .. "/key", "value", "0644")
        sandbox.symlink(version, target .. "/..data")
        sandbox.symlink("..data/key", target .. "/key")
        local events, stdout = trace(function(path)
            local writer = assert(require("atomicwriter").new(path))
            io.open("/=begin")
            print(assert(writer:write { key = "value" }).changed)
            io.open("/=end")
        end, target)
        assert.equal("false\n", stdout)
        local paths = synced(events)
        for _, path in ipairs { "", "/" .. version, "/" .. version .. "/key" } do
            assert.is_true(paths[target .. path], "not synced: " .. path)
        end
    end)

    it("G4: syncs an unchanged live version whose sync failed before", function()
        local target = volume.prepare(dir, "target", FULL)
        local events = update(volume.prepare(dir, "traced", FULL), "full")
        local last
        for i = swap_in(events), #events do
            if events[i].call == "fsync" and not last then last = events[i] end
        end
        local _, stdout = strace.inject(sandbox.lua(dir, volume.update, target, "full"),
            "fsync", "error=EIO", last.nth)
        assert.matches("^io%s+true", stdout) -- committed, but perhaps not durable
        events = update(target, "full")      -- nothing differs
        assert.is_true(synced(events)[target], "the swap is still not synced")
    end)

    it("G4: syncs an unchanged live version in a copy of a target that was synced", function()
        local target, copy = volume.prepare(dir, "target", FULL), dir .. "/copy"
        sandbox.must { "cp", "-a", "--", target, copy } -- as a backup brings it back
        local paths = synced(update(copy, "full", "again"))
        for path in pairs(volume.before) do
            assert.is_true(paths[copy .. "/" .. volume.live(copy) .. "/" .. path],
                "not synced: " .. path)
        end
        assert.is_true(paths[copy], "the target itself")
    end)

    it("G4: syncs what it links in a copy of a target that was synced", function()
        local target, copy = volume.prepare(dir, "target", FULL), dir .. "/copy"
        sandbox.must { "cp", "-a", "--", target, copy }
        assert.same({}, powercut.dangers(update(copy, "full"), copy, true))
    end)

    it("G4: syncs what was found unchanged again and again without durability", function()
        local target = volume.prepare(dir, "target", FAST)
        for _ = 1, 3 do
            sandbox.sleep(0.03)
            update(target, "none", "again")
        end
        local paths = synced(update(target, "full", "again"))
        for path in pairs(volume.before) do
            assert.is_true(paths[target .. "/" .. volume.live(target) .. "/" .. path],
                "not synced: " .. path)
        end
        assert.is_true(paths[target], "the target itself")
    end)

    it("G4: syncs the target when it makes a visible link again", function()
        local target = volume.prepare(dir, "target", FULL)
        os.remove(target .. "/kept")
        local events = update(target, "full", "again")
        assert.equal("..data/kept", sandbox.readlink(target .. "/kept"))
        local made = position(events, "^symlinkat", '"kept"')
        local sync
        for i = made, #events do
            if events[i].call == "fsync" and strace.path(events[i], 1) == target then sync = i end
        end
        assert.is_true(sync ~= nil, "the new link was not synced")
    end)
end)

describe("A write with durability none", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    it("calls no sync at all, whatever it does", function()
        need_strace()
        for _, operation in ipairs { "update", "again", "rollback" } do
            for _, before in ipairs { FAST, FULL } do
                local target = volume.prepare(dir, operation .. before.durability, before)
                local _, stdout, _, events = strace.record(dir,
                    sandbox.lua(dir, volume.update, target, "none", operation))
                assert.matches("^ok", stdout)
                assert.same({}, powercut.syncs(strace.marked(events)))
            end
        end
    end)

    it("calls no sync for many files", function()
        need_strace()
        local _, _, stderr, events = strace.record(dir, sandbox.lua(dir, function(path)
            local writer = assert(require("atomicwriter").new(path,
                { create = true, durability = "none" }))
            local payload = {}
            for i = 1, 300 do payload["d" .. i % 7 .. "/f" .. i] = "1" end
            io.open("/=begin")
            assert(writer:write(payload))
            assert(writer:collect())
            io.open("/=end")
        end, dir .. "/target"))
        assert.equal("", stderr)
        assert.same({}, powercut.syncs(strace.marked(events)))
    end)
end)
