-- Which inputs have changed, and being told so: atomicwriter.cli.inputs.

local atomicwriter = require "atomicwriter"
local inputs = require "atomicwriter.cli.inputs"
local process = require "atomicwriter.cli.process"
local sandbox = require "spec.support.sandbox"

-- No events of its own: what a watcher without them is good for is tested apart.
local RARELY = { interval = 10000, fallback = 10000 }

describe("inputs:", function()
    local dir, set, watcher

    before_each(function()
        dir = sandbox.tmpdir()
        set = inputs.new()
        watcher = inputs.watch(RARELY)
    end)
    after_each(function()
        watcher:close()
        sandbox.cleanup()
    end)

    local function write(name, data)
        sandbox.write_file(dir .. "/" .. name, data)
    end

    -- Put a new file or link in the place of NAME, in one step.
    local function replace(name, data)
        write(name .. ".new", data)
        assert(os.rename(dir .. "/" .. name .. ".new", dir .. "/" .. name))
    end

    local function relink(name, text)
        sandbox.symlink(text, dir .. "/" .. name .. ".new")
        assert(os.rename(dir .. "/" .. name .. ".new", dir .. "/" .. name))
    end

    -- Let in the events that are there already, and forget them.
    local function settle()
        for _ = 1, 3 do process.uv().run("nowait") end
        watcher.dirty = false
    end

    local function follow(...)
        set = inputs.new()
        for _, name in ipairs { ... } do
            set:add(name:sub(1, 1) == "/" and name or dir .. "/" .. name)
        end
        watcher:follow(set)
        settle()
    end

    -- Until the watcher tells of something and the set sees a change: the path.
    local function told()
        local changed
        repeat
            watcher.dirty = false
            changed = set:changed()
            local came = not changed and process.wait(function() return watcher.dirty end, 30)
        until changed or not came
        return changed
    end

    -- That CHANGE alone makes the watcher tell, and the set see, that NAME is different.
    local function tells(name, change)
        settle()
        assert.is_nil(set:changed())
        change()
        assert(process.wait(function() return watcher.dirty end, 30), "no event")
        assert.equal(dir .. "/" .. name, told())
    end

    describe("a set", function()
        it("sees nothing when nothing has changed", function()
            write("file", "x")
            for _, path in ipairs { dir .. "/file", dir, dir .. "/missing", dir .. "/file/x" } do
                set:add(path)
            end
            assert.is_nil(set:changed())
            sandbox.read_file(dir .. "/file")
            sandbox.names(dir)
            assert.is_nil(set:changed())
        end)

        it("sees an edit in place, of the same size, too", function()
            write("file", "one")
            sandbox.sleep(0.02)
            set:add(dir .. "/file")
            assert.is_false(set:unsettled())
            write("file", "two")
            assert.equal(dir .. "/file", set:changed())
        end)

        it("sees a file replaced by an older one", function()
            write("file", "one")
            write("other", "two")
            sandbox.must { "touch", "-d", "2001-01-01", dir .. "/file", dir .. "/other" }
            set:add(dir .. "/file")
            os.rename(dir .. "/other", dir .. "/file")
            assert.equal(dir .. "/file", set:changed())
        end)

        it("sees what is deleted, and what comes to be", function()
            write("file", "x")
            set:add(dir .. "/file")
            set:add(dir .. "/none/of/it")
            os.remove(dir .. "/file")
            assert.equal(dir .. "/file", set:changed())
            set = inputs.new()
            set:add(dir .. "/none/of/it")
            sandbox.must { "mkdir", "-p", dir .. "/none/of/it" }
            assert.equal(dir .. "/none/of/it", set:changed())
        end)

        it("sees a name come into a directory, and go", function()
            write("a", "")
            sandbox.sleep(0.02)
            set:add(dir)
            write("b", "")
            assert.equal(dir, set:changed())
            set = inputs.new()
            sandbox.sleep(0.02)
            set:add(dir)
            os.remove(dir .. "/b")
            assert.equal(dir, set:changed())
        end)

        it("keeps what a path was like when it was added first", function()
            write("file", "one")
            sandbox.sleep(0.02)
            set:add(dir .. "/file")
            write("file", "two, longer")
            set:add(dir .. "/file")
            assert.equal(dir .. "/file", set:changed())
        end)

        it("is one of several that are united", function()
            write("file", "x")
            local others = { inputs.new(), inputs.new() }
            others[1]:add(dir .. "/file")
            others[2]:add(dir .. "/missing")
            local all = inputs.union(others)
            assert.equal(others[1]:unsettled(), all:unsettled())
            assert.is_nil(all:changed())
            write("missing", "")
            assert.equal(dir .. "/missing", all:changed())
            assert.is_nil(others[1]:changed())
            watcher:follow(inputs.union { others[1] })
            settle()
            write("file", "longer")
            assert(process.wait(function() return watcher.dirty end, 30))
        end)

        it("tells when another edit could hide in the same tick of the clock", function()
            local seen = false
            for i = 1, 50 do -- the first tries may be interrupted for longer than a tick
                set = inputs.new()
                write("file", "x" .. i)
                set:add(dir .. "/file")
                seen = seen or set:unsettled()
            end
            assert.is_true(seen)
            sandbox.sleep(0.02)
            set = inputs.new()
            set:add(dir .. "/file")
            set:add(dir .. "/missing")
            assert.is_false(set:unsettled())
        end)
    end)

    describe("a watcher", function()
        it("tells of an edit in place", function()
            write("file", "one")
            follow("file")
            tells("file", function() write("file", "another") end)
        end)

        it("tells of an edit of the same size", function()
            write("file", "one")
            sandbox.sleep(0.02)
            follow("file")
            tells("file", function() write("file", "two") end)
        end)

        it("tells of a file that an editor replaces, again and again", function()
            write("file", "0")
            for i = 1, 5 do
                follow("file")
                tells("file", function() replace("file", "text " .. i) end)
            end
        end)

        it("tells of a file that an editor moves away and writes anew", function()
            write("file", "one")
            follow("file")
            tells("file", function()
                os.rename(dir .. "/file", dir .. "/file~")
                write("file", "two")
                os.remove(dir .. "/file~")
            end)
        end)

        it("tells of a file that is deleted and made again", function()
            write("file", "one")
            follow("file")
            tells("file", function() os.remove(dir .. "/file") end)
            follow("file")
            tells("file", function() write("file", "one") end)
        end)

        it("tells of a mode that changes", function()
            write("file", "one")
            follow("file")
            tells("file", function() sandbox.chmod(dir .. "/file", "0600") end)
        end)

        it("tells of a file in directories that do not exist yet", function()
            follow("a/b/c/file")
            sandbox.mkdir(dir .. "/a")
            assert(process.wait(function() return watcher.dirty end, 30))
            watcher.dirty = false
            assert.is_nil(set:changed())
            sandbox.mkdir(dir .. "/a/b")
            assert(process.wait(function() return watcher.dirty end, 30))
            watcher.dirty = false
            assert.is_nil(set:changed())
            sandbox.mkdir(dir .. "/a/b/c")
            write("a/b/c/file", "x")
            assert.equal(dir .. "/a/b/c/file", told())
        end)

        it("tells of a name that comes into a directory", function()
            sandbox.mkdir(dir .. "/d")
            follow("d")
            tells("d", function() write("d/new", "") end)
            follow("d")
            tells("d", function() os.remove(dir .. "/d/new") end)
        end)

        it("tells of a directory that another one replaces", function()
            sandbox.must { "mkdir", dir .. "/d", dir .. "/e" }
            follow("d")
            tells("d", function() assert(os.rename(dir .. "/e", dir .. "/d")) end)
            follow("d")
            tells("d", function()
                os.rename(dir .. "/d", dir .. "/e")
                sandbox.mkdir(dir .. "/d")
            end)
            follow("d")
            tells("d", function() write("d/new", "") end)
        end)

        it("tells of a directory that is removed and made again", function()
            sandbox.mkdir(dir .. "/d")
            write("d/file", "one")
            for i = 1, 5 do
                follow("d/file")
                tells("d/file", function()
                    sandbox.rmtree(dir .. "/d")
                    sandbox.mkdir(dir .. "/d")
                    write("d/file", "two" .. i)
                end)
                follow("d/file")
                tells("d/file", function() write("d/file", "three " .. i) end)
            end
        end)

        it("still tells when a directory went and came with nothing changed", function()
            sandbox.mkdir(dir .. "/d")
            write("d/file", "one")
            follow("d/file")
            os.rename(dir .. "/d", dir .. "/e")
            sandbox.mkdir(dir .. "/d")
            os.rename(dir .. "/e/file", dir .. "/d/file") -- the same inode, and ctime on some disks
            told()
            follow("d/file")
            tells("d/file", function() write("d/file", "two, longer") end)
        end)

        it("tells of a symbolic link that is turned elsewhere", function()
            write("one", "1")
            write("two", "2")
            sandbox.symlink("one", dir .. "/link")
            follow("link")
            tells("link", function() relink("link", "two") end)
            follow("link")
            tells("link", function() write("two", "edited") end)
        end)

        it("tells of a symbolic link in the middle that is turned elsewhere", function()
            sandbox.must { "mkdir", "-p", dir .. "/releases/1/etc", dir .. "/releases/2/etc",
                dir .. "/srv" }
            write("releases/1/etc/file", "1")
            write("releases/2/etc/file", "2")
            sandbox.symlink("../releases/1", dir .. "/srv/current")
            sandbox.symlink(dir .. "/srv/current/etc", dir .. "/etc")
            follow("etc/file")
            tells("etc/file", function() relink("srv/current", "../releases/2") end)
            follow("etc/file")
            tells("etc/file", function() write("releases/2/etc/file", "edited") end)
            follow("etc/file")
            tells("etc/file", function() relink("etc", "releases/1/etc") end)
        end)

        it("follows a link that was turned to the very same file", function()
            sandbox.must { "mkdir", "-p", dir .. "/1", dir .. "/2" }
            write("1/file", "x")
            sandbox.must { "ln", dir .. "/1/file", dir .. "/2/file" }
            sandbox.symlink("1", dir .. "/current")
            follow("current/file")
            relink("current", "2")
            assert(process.wait(function() return watcher.dirty end, 30))
            settle()
            assert.is_nil(set:changed())
            tells("current/file", function() replace("2/file", "y") end)
        end)

        it("ends at links that lead in a circle", function()
            sandbox.symlink("b", dir .. "/a")
            sandbox.symlink("a", dir .. "/b")
            follow("a/file")
            tells("a/file", function() os.remove(dir .. "/b") end)
        end)

        it("resolves .. and . as the kernel does", function()
            sandbox.must { "mkdir", "-p", dir .. "/real/sub", dir .. "/else" }
            write("real/file", "one")
            sandbox.symlink("../real/sub", dir .. "/else/link")
            follow("./else/./link/../file")
            tells("./else/./link/../file", function() write("real/file", "two, longer") end)
        end)

        it("takes relative paths from the working directory", function()
            local uv = process.uv()
            local before = uv.cwd()
            assert(uv.chdir(dir))
            sandbox.mkdir(dir .. "/sub")
            set:add("sub/../sub/file")
            watcher:follow(set)
            settle()
            write("sub/file", "x")
            local came = process.wait(function() return watcher.dirty end, 30)
            local changed = set:changed()
            assert(uv.chdir(before))
            assert.is_true(came)
            assert.equal("sub/../sub/file", changed)
        end)

        it("tells of each version of a volume that is an input", function()
            local target = dir .. "/volume"
            sandbox.mkdir(target)
            local writer = assert(atomicwriter.new(target, { durability = "none" }))
            assert(writer:write { file = "0", other = "same", ["sub/file"] = "0" })
            for i = 1, 5 do
                follow("volume/file", "volume/sub/file")
                tells("volume/file", function()
                    assert(writer:write { file = "text " .. i, other = "same",
                        ["sub/file"] = "text " .. i })
                end)
            end
            follow("volume/new")
            tells("volume/new", function() assert(writer:write { new = "x" }) end)
            writer:close()
        end)

        it("tells of what changed after it was read and before it was watched", function()
            write("file", "one")
            set:add(dir .. "/file")
            write("file", "two, longer")
            watcher:follow(set)
            assert.is_true(watcher.dirty)
        end)

        it("no longer heeds what it followed before", function()
            sandbox.must { "mkdir", dir .. "/a", dir .. "/b" }
            write("a/file", "1")
            write("b/file", "1")
            follow("a/file")
            follow("b/file")
            write("a/file", "2, longer")
            assert.is_false(process.wait(function() return watcher.dirty end, 0.2))
            tells("b/file", function() write("b/file", "2, longer") end)
        end)

        it("tells of a directory above that is renamed, when the time comes to look", function()
            sandbox.must { "mkdir", "-p", dir .. "/a/b/c", dir .. "/z/b/c" }
            write("a/b/c/file", "1")
            write("z/b/c/file", "2")
            watcher:close()
            watcher = inputs.watch { interval = 0.1 }
            follow("a/b/c/file")
            assert.is_false(process.wait(function() return watcher.dirty end, 0.5))
            os.rename(dir .. "/a", dir .. "/old")
            os.rename(dir .. "/z", dir .. "/a")
            assert(process.wait(function() return watcher.dirty end, 30))
            assert.equal(dir .. "/a/b/c/file", set:changed())
        end)

        it("follows a directory above that was renamed, without an event", function()
            sandbox.must { "mkdir", "-p", dir .. "/a/b/c", dir .. "/z/b/c" }
            write("a/b/c/file", "1")
            write("z/b/c/file", "2")
            follow("a/b/c/file")
            os.rename(dir .. "/a", dir .. "/old")
            os.rename(dir .. "/z", dir .. "/a")
            assert.is_false(process.wait(function() return watcher.dirty end, 0.2))
            follow("a/b/c/file")
            tells("a/b/c/file", function() write("a/b/c/file", "3, longer") end)
        end)

        it("misses nothing when the kernel's event queue overflows", function()
            write("file", "one")
            local child = sandbox.spawn(sandbox.lua(dir, function(path)
                local inputs = require "atomicwriter.cli.inputs" -- luacheck: ignore 431
                local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                local known, events = inputs.new(), inputs.watch { interval = 10000 }
                known:add(path)
                events:follow(known)
                print "ready"
                io.stdout:flush()
                local changed
                repeat
                    process.wait(function() return events.dirty end, 60)
                    events.dirty = false
                    changed = known:changed()
                until changed
                print(changed)
            end, dir .. "/file"))
            assert(sandbox.eventually(function()
                return sandbox.read_file(child.dir .. "/out") == "ready\n"
            end))
            child:kill("STOP")
            local most = tonumber(sandbox.read_file("/proc/sys/fs/inotify/max_queued_events"))
            local file, other = io.open(dir .. "/x", "w"), io.open(dir .. "/y", "w")
            file:setvbuf("no")
            other:setvbuf("no")
            for _ = 1, math.ceil(most / 2) + 10 do -- in turns: equal events in a row become one
                file:write("x")
                other:write("x")
            end
            file:close()
            other:close()
            write("file", "two, longer")
            child:kill("CONT")
            local status, stdout, stderr = child:wait()
            assert.equal(0, status, stderr)
            assert.equal("ready\n" .. dir .. "/file\n", stdout)
        end)

        describe("that cannot watch", function()
            local uv, real

            before_each(function()
                uv = process.uv()
                real = uv.new_fs_event
            end)
            after_each(function() uv.new_fs_event = real end)

            -- Watching fails with CODE from now on.
            local function refuse(code)
                uv.new_fs_event = function()
                    local handle = real()
                    return {
                        start = function() return nil, code .. ": no more of them", code end,
                        is_closing = function() return handle:is_closing() end,
                        close = function(_, done) handle:close(done) end,
                    }
                end
            end

            it("looks at all paths from time to time, and says why", function()
                watcher:close()
                watcher = inputs.watch { interval = 10000, fallback = 0.05 }
                write("file", "one")
                refuse("ENOSPC")
                follow("file")
                assert.equal("cannot watch " .. dir .. ": no more of them", watcher.reason)
                write("file", "two, longer")
                assert(process.wait(function() return watcher.dirty end, 30))
                assert.equal(dir .. "/file", set:changed())
            end)

            it("watches as soon as it can", function()
                write("file", "one")
                refuse("EMFILE")
                follow("file")
                assert.is_string(watcher.reason)
                uv.new_fs_event = real
                follow("file")
                assert.is_nil(watcher.reason)
                tells("file", function() write("file", "two, longer") end)
            end)

            it("is not troubled by a directory that is gone already", function()
                write("file", "one")
                refuse("ENOENT")
                follow("file")
                assert.is_nil(watcher.reason)
            end)
        end)

        it("watches each directory once, whatever number of paths is in it", function()
            local uv, count = process.uv(), 0
            local real = uv.new_fs_event
            uv.new_fs_event = function()
                count = count + 1
                return real()
            end
            for i = 1, 100 do write("file" .. i, "") end
            for _ = 1, 3 do
                set = inputs.new()
                for i = 1, 100 do set:add(dir .. "/file" .. i) end
                watcher:follow(set)
            end
            uv.new_fs_event = real
            assert.equal(1, count)
        end)

        it("uses no memory and no descriptors up", function()
            sandbox.must { "mkdir", dir .. "/a", dir .. "/b" }
            local function turn(n)
                for i = 1, n do
                    local letter = i % 2 == 0 and "a" or "b"
                    write("a/file", i)
                    follow(letter, letter .. "/file", "b/missing" .. i)
                    if i % 100 == 0 then
                        watcher:close()
                        watcher = inputs.watch(RARELY)
                    end
                end
            end
            turn(200)
            local kib, descriptors, handles = sandbox.holdings()
            turn(4000)
            local kib_after, descriptors_after, handles_after = sandbox.holdings()
            assert.is_true(kib_after - kib < 200, ("%g KiB more"):format(kib_after - kib))
            assert.equal(descriptors, descriptors_after)
            assert.equal(handles, handles_after)
        end)
    end)
end)
