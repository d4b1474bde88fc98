--- Snapshots: a consistent, leased view of one version.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }
local ESTALE, LEASED_MAX = 116, 16

describe("A snapshot", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
    end)
    after_each(function()
        collectgarbage()
        collectgarbage()
        sandbox.cleanup()
    end)

    local function new_writer(payload, options)
        sandbox.mkdir(target)
        local writer = assert(atomicwriter.new(target, options or FAST))
        if payload then assert(writer:write(payload)) end
        return writer
    end

    -- A volume as a kubelet makes it.
    local function kubelet(generation)
        local version = "..2024_02_29_12_00_0" .. generation .. ".34567890" .. generation
        if not sandbox.kind(target) then sandbox.mkdir(target) end
        local into = target .. "/" .. version
        sandbox.mkdir(into)
        sandbox.mkdir(into .. "/nested")
        sandbox.chmod(into, "0755")
        sandbox.write_file(into .. "/key", "value " .. generation, "0644")
        sandbox.write_file(into .. "/nested/key", "nested " .. generation, "0400")
        sandbox.symlink(version, target .. "/..data_tmp")
        assert(os.rename(target .. "/..data_tmp", target .. "/..data"))
        for _, name in ipairs { "key", "nested" } do
            if not sandbox.kind(target .. "/" .. name) then
                sandbox.symlink("..data/" .. name, target .. "/" .. name)
            end
        end
        return version
    end

    ---- reading ---------------------------------------------------------------

    it("G9: reads data, paths and stat of the version that was live", function()
        local payload = { a = "1", ["b/c"] = "\0\255", ["b/e/f"] = "", [".g"] = ("g"):rep(100000) }
        local writer = new_writer()
        local mode = { ["b/c"] = "0640" }
        local entries = {}
        for path, data in pairs(payload) do entries[path] = { data = data, mode = mode[path] } end
        local result = assert(writer:write(entries))
        local snapshot = assert(atomicwriter.open(target))
        assert.equal(result.version, snapshot.version)
        assert.same({ ".g", "a", "b/c", "b/e/f" }, assert(snapshot:paths()))
        for path, data in pairs(payload) do
            assert.equal(data, assert(snapshot:read(path)))
            local stat = assert(snapshot:stat(path))
            assert.equal("file", stat.type)
            assert.equal(#data, stat.size)
            assert.equal(tonumber(mode[path] or "0644", 8), stat.mode)
            assert.equal(sandbox.owner(target .. "/" .. path), stat.uid .. ":" .. stat.gid)
            assert.equal(lfs.attributes(target .. "/" .. path, "modification"), stat.mtime)
        end
        for _, path in ipairs { ".", "b", "b/e" } do
            assert.equal("directory", assert(snapshot:stat(path)).type)
            assert.equal(493, assert(snapshot:stat(path)).mode)
        end
        snapshot:close()
    end)

    it("G9: says not_found for what is no regular file in it", function()
        new_writer { a = "1", ["b/c"] = "2" }
        local snapshot = assert(atomicwriter.open(target))
        for _, path in ipairs { "x", "b/x", "a/x", "b", ".", "", "..", "../..lock", "..data/a",
            "b/../a", "/etc/hostname", "../../target/a", "a\0", ("x"):rep(5000) } do
            local data, err = snapshot:read(path)
            assert.is_nil(data, ("read %q"):format(path))
            assert.equal("not_found", err.code, ("%q"):format(path))
        end
        local stat, err = snapshot:stat("x")
        assert.is_nil(stat)
        assert.equal("not_found", err.code)
        snapshot:close()
    end)

    it("G7: follows no link that stands in a version", function()
        new_writer { a = "1", ["b/c"] = "2" }
        sandbox.mkdir(dir .. "/outside")
        sandbox.write_file(dir .. "/outside/secret", "secret")
        local live = target .. "/" .. volume.live(target)
        sandbox.symlink("../../outside/secret", live .. "/link")
        sandbox.symlink("../../outside", live .. "/linked")
        sandbox.must { "mkfifo", live .. "/fifo" }
        local snapshot = assert(atomicwriter.open(target))
        for _, path in ipairs { "link", "linked/secret", "fifo", "linked" } do
            local data, err = snapshot:read(path)
            assert.is_nil(data, "read " .. path)
            assert.equal("not_found", err.code)
        end
        assert.same({ "a", "b/c" }, assert(snapshot:paths()))
        snapshot:close()
    end)

    it("G9: knows whether it is still current", function()
        local writer = new_writer { a = "1" }
        local snapshot = assert(atomicwriter.open(target))
        assert.is_true(snapshot:is_current())
        assert(writer:write { a = "1" })
        assert.is_true(snapshot:is_current())
        assert(writer:write { a = "2" })
        assert.is_false(snapshot:is_current())
        assert(writer:rollback()) -- the same data, another version
        assert.is_false(snapshot:is_current())
        os.remove(target .. "/..data")
        assert.is_false(snapshot:is_current())
        sandbox.mkdir(target .. "/..data")
        local current, err = snapshot:is_current()
        assert.is_nil(current)
        assert.equal("foreign_entry", err.code)
        snapshot:close()
    end)

    it("G9: is refused with a clear error where there is nothing to read", function()
        local function code(path)
            local snapshot, err = atomicwriter.open(path)
            assert.is_nil(snapshot)
            assert.is_false(err.committed)
            return err.code
        end
        assert.equal("no_target", code(target))
        sandbox.mkdir(target)
        assert.equal("not_found", code(target))
        sandbox.symlink("..2024_02_29_12_00_01.1", target .. "/..data")
        assert.equal("not_found", code(target))
        sandbox.write_file(dir .. "/file", "")
        assert.equal("no_target", code(dir .. "/file"))
        assert.same({ "..data" }, sandbox.names(target))
    end)

    it("G7: is refused when ..data is anything but a link to one version", function()
        new_writer { a = "1" }
        sandbox.mkdir(dir .. "/..2024_02_29_12_00_01.1")
        local live = volume.live(target)
        for _, text in ipairs { "../..2024_02_29_12_00_01.1", ".", "..", target .. "/" .. live,
            "./" .. live, live .. "/", live .. "/.", "a", "..2024", "/" } do
            os.remove(target .. "/..data")
            sandbox.symlink(text, target .. "/..data")
            local snapshot, err = atomicwriter.open(target)
            assert.is_nil(snapshot, "opened " .. text)
            assert.equal("foreign_entry", err.code, text)
            assert.equal("..data", err.path)
        end
    end)

    ---- the lease -------------------------------------------------------------

    it("G9: held over 50 swaps reads its own version to the end", function()
        local files = {}
        for i = 1, 50 do files[(i % 2 == 0 and "d/" or "") .. "f" .. i] = "own" end
        local writer = new_writer(files)
        local snapshot = assert(atomicwriter.open(target))
        local paths = assert(snapshot:paths())
        for i = 1, 50 do
            assert(writer:write { ["f" .. i] = "swap " .. i })
            assert.equal("own", assert(snapshot:read(paths[i])))
        end
        assert.same(paths, assert(snapshot:paths()))
        for _, path in ipairs(paths) do assert.equal("own", assert(snapshot:read(path))) end
        assert.equal("directory", sandbox.kind(target .. "/" .. snapshot.version))
        assert.equal(3, #volume.versions(target)) -- live, kept, leased
        local version = snapshot.version
        snapshot:close()
        assert.equal("directory", sandbox.kind(target .. "/" .. version))
        assert(writer:write { f50 = "one more" })
        assert.is_nil(sandbox.kind(target .. "/" .. version))
        assert(volume.shows(target, { f50 = "one more" }))
    end)

    it("G9: is gone after close and a write that changes nothing, too", function()
        local writer = new_writer { a = "0" }
        local snapshot = assert(atomicwriter.open(target))
        for i = 1, 3 do assert(writer:write { a = tostring(i) }) end
        local version = snapshot.version
        snapshot:close()
        assert.is_false(assert(writer:write { a = "3" }).changed)
        assert.is_nil(sandbox.kind(target .. "/" .. version))
    end)

    it("G9: is gone when its process was killed", function()
        local writer = new_writer { a = "0" }
        local version = volume.live(target)
        local child = sandbox.spawn(sandbox.lua(dir, function(where, base)
            local snapshot = assert(require("atomicwriter").open(where))
            io.open(base .. "/open", "w"):close()
            require("system").sleep(60)
            print(snapshot.version)
        end, target, dir))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/open") end))
        for i = 1, 5 do assert(writer:write { a = tostring(i) }) end
        assert.equal("directory", sandbox.kind(target .. "/" .. version))
        child:kill("KILL")
        child:wait()
        assert(writer:write { a = "6" })
        assert.is_nil(sandbox.kind(target .. "/" .. version))
    end)

    it("G9: shares its version with others, which live until the last is closed", function()
        local writer = new_writer({ a = "0" }, { durability = "none", keep = 0 })
        local first, second = assert(atomicwriter.open(target)), assert(atomicwriter.open(target))
        assert(writer:write { a = "1" })
        first:close()
        assert(writer:write { a = "2" })
        assert.equal("0", assert(second:read("a")))
        second:close()
        assert(writer:write { a = "3" })
        assert(volume.shows(target, { a = "3" }, 0))
    end)

    it("G9: does not fill the disk when it is never closed: 16 leased versions at most", function()
        local writer = new_writer { n = "0" }
        local snapshots = {}
        for i = 1, 40 do
            assert(writer:write { n = tostring(i) })
            snapshots[i] = assert(atomicwriter.open(target))
            assert.is_true(#volume.versions(target) <= 1 + 1 + LEASED_MAX)
        end
        assert(writer:write { n = "41" })
        -- live, one kept, and the newest 16 of those that are read
        assert.equal(1 + 1 + LEASED_MAX, #volume.versions(target))
        for i = 1, 40 do
            local data, err = snapshots[i]:read("n")
            if i > 40 - LEASED_MAX - 1 then
                assert.equal(tostring(i), data)
            else
                assert.is_nil(data)
                assert.equal("io", err.code)
                assert.equal(ESTALE, err.errno)
                local paths, why = snapshots[i]:paths()
                assert.is_nil(paths)
                assert.equal(ESTALE, why.errno)
            end
        end
        for i = 1, 40 do snapshots[i]:close() end
        assert(writer:write { n = "42" })
        assert(volume.shows(target, { n = "42" }))
    end)

    it("G9: lets 16 leased versions be, whatever keep is", function()
        local writer = new_writer({ n = "0" }, { durability = "none", keep = 0 })
        local snapshots = {}
        for i = 1, LEASED_MAX do
            snapshots[i] = assert(atomicwriter.open(target))
            assert(writer:write { n = tostring(i) })
        end
        for i = 1, LEASED_MAX do
            assert.equal(tostring(i - 1), assert(snapshots[i]:read("n")))
            snapshots[i]:close()
        end
    end)

    it("G9: never fails to open, nor ever loses a file, while versions fly by", function()
        local writer = new_writer({ n = "0", ["d/n"] = "0" }, { durability = "none", keep = 0 })
        local child = sandbox.spawn(sandbox.lua(dir, function(where, stop)
            local w = assert(require("atomicwriter").new(where, { durability = "none", keep = 0 }))
            local i = 0
            while not require("lfs").attributes(stop) do
                i = i + 1
                assert(w:write { n = tostring(i), ["d/n"] = tostring(i) })
            end
            print(i)
        end, target, dir .. "/stop"))
        assert(sandbox.eventually(function() return sandbox.read_file(target .. "/n") ~= "0" end))
        for _ = 1, 3000 do
            local snapshot = assert(atomicwriter.open(target))
            local top = assert(snapshot:read("n"))
            assert.equal(top, assert(snapshot:read("d/n")))
            snapshot:close()
        end
        sandbox.write_file(dir .. "/stop", "")
        local status, stdout, stderr = child:wait()
        assert.equal(0, status, stderr)
        assert.is_true(tonumber(stdout) > 1)
        writer:close()
    end)

    it("G9: leaves no descriptor open after close", function()
        new_writer { a = "1" }
        local function count()
            local n = 0
            for _ in lfs.dir("/proc/self/fd") do n = n + 1 end
            return n
        end
        local before = count()
        for _ = 1, 50 do
            local snapshot = assert(atomicwriter.open(target))
            snapshot:read("a")
            snapshot:paths()
            snapshot:stat("a")
            snapshot:read("missing")
            snapshot:close()
        end
        assert.equal(before, count())
    end)

    ---- volumes of others -----------------------------------------------------

    it("G9: reads a volume in kubelet's layout and leaves nothing in it", function()
        local version = kubelet(1)
        local before = sandbox.listing(target)
        local snapshot = assert(atomicwriter.open(target))
        assert.equal(version, snapshot.version)
        assert.same({ "key", "nested/key" }, assert(snapshot:paths()))
        assert.equal("value 1", assert(snapshot:read("key")))
        assert.equal("nested 1", assert(snapshot:read("nested/key")))
        assert.equal(256, assert(snapshot:stat("nested/key")).mode)
        assert.is_true(snapshot:is_current())
        assert.equal(before, sandbox.listing(target))
        local second = kubelet(2)
        assert.is_false(snapshot:is_current())
        assert.equal("value 1", assert(snapshot:read("key")))
        sandbox.rmtree(target .. "/" .. version) -- a kubelet asks for no lease
        local data, err = snapshot:read("key")
        assert.is_nil(data)
        assert.equal(ESTALE, err.errno)
        snapshot:close()
        snapshot = assert(atomicwriter.open(target))
        assert.equal(second, snapshot.version)
        assert.equal("value 2", assert(snapshot:read("key")))
        snapshot:close()
    end)

    it("G10: a writer takes over a volume that a kubelet has written", function()
        kubelet(1)
        local second = kubelet(2)
        local writer = assert(atomicwriter.new(target, FAST))
        local result = assert(writer:write { key = "value 3", ["nested/key"] = "nested 2" })
        assert.equal(second, result.previous)
        assert.is_true(volume.older(second, result.version))
        assert(volume.shows(target, { key = "value 3", ["nested/key"] = "nested 2" }))
        assert(writer:rollback())
        assert(volume.shows(target, { key = "value 2", ["nested/key"] = "nested 2" }))
    end)

    it("G9: reads a read-only mount", function()
        new_writer { a = "1", ["b/c"] = "2" }
        local mount = dir .. "/mount"
        sandbox.mkdir(mount)
        local bind = "mount --bind " .. sandbox.quote(target)
            .. ' "$1" && mount -o remount,bind,ro "$1"'
        local status, stdout, stderr = sandbox.run(sandbox.with_mounts(bind, mount,
            sandbox.lua(dir, function(where)
                assert(not io.open(where .. "/new", "w"), "it can be written to")
                local atomicwriter = require "atomicwriter" -- luacheck: ignore 431
                local snapshot = assert(atomicwriter.open(where))
                assert(snapshot:read("a") == "1" and snapshot:read("b/c") == "2")
                assert(table.concat(assert(snapshot:paths()), " ") == "a b/c")
                assert(snapshot:is_current() == true)
                assert(snapshot:stat("b").type == "directory")
                local watcher = assert(atomicwriter.watch(where))
                assert(select(2, watcher:wait(0)) == "timeout")
                local writer = assert(atomicwriter.new(where))
                assert(#assert(writer:versions()) == 1)
                assert(assert(writer:plan { a = "2" }).changed)
                local result, err = writer:write { a = "2" }
                assert(result == nil and err.code == "io" and err.errno == 30, tostring(err))
                print(snapshot.version)
                snapshot:close()
            end, mount)))
        if status == 77 then
            pending("mounting is not allowed here: " .. (stderr:match("[^\n]+") or ""))
        end
        assert.equal(0, status, stderr)
        assert.equal(volume.live(target) .. "\n", stdout)
    end)

    it("G9: needs no more than the right to read, and leases all the same", function()
        if not (sandbox.is_root() and sandbox.has "setpriv") then
            pending("only root can become somebody else")
        end
        local writer = new_writer({ a = "1", secret = { data = "2", mode = "0600" } },
            { durability = "none", keep = 0 })
        sandbox.chmod(dir, "0755")
        -- Where the modules are may be closed to others.
        local modules = dir .. "/modules"
        sandbox.mkdir(modules)
        sandbox.mkdir(modules .. "/atomicwriter")
        for _, name in ipairs { "atomicwriter", "atomicwriter.core", "lfs", "system.core" } do
            local path = package.searchpath(name, package.path)
                or assert(package.searchpath(name, package.cpath))
            local as = name:gsub("%.", "/") .. path:match("%.[^./]+$")
            sandbox.must { "install", "-D", "-m", "0755", path, modules .. "/" .. as }
        end
        local words = sandbox.lua(dir, function(where, base)
            local snapshot = assert(require("atomicwriter").open(where))
            assert(snapshot:read("a") == "1")
            local data, err = snapshot:read("secret")
            assert(data == nil and err.code == "io" and err.errno == 13, tostring(err))
            io.open(base .. "/open", "w"):close()
            while not require("lfs").attributes(base .. "/close") do
                require("system.core").sleep(0.01)
            end
            assert(snapshot:read("a") == "1")
            snapshot:close()
        end, target, dir .. "/shared")
        for i, word in ipairs(words) do
            words[i] = word:gsub("^(LUA_PATH[^=]*=).*", "%1" .. modules .. "/?.lua")
                :gsub("^(LUA_CPATH[^=]*=).*", "%1" .. modules .. "/?.so")
        end
        sandbox.mkdir(dir .. "/shared")
        sandbox.chmod(dir .. "/shared", "0777")
        sandbox.must { "chmod", "-R", "a+rX", dir }
        sandbox.chmod(target .. "/secret", "0600")
        local child = sandbox.spawn { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
            sandbox.unpack(words) }
        local opened = sandbox.eventually(function()
            return sandbox.kind(dir .. "/shared/open") or not child:running()
        end)
        local version = volume.live(target)
        assert(writer:write { a = "2" })
        if opened == "file" then
            assert.equal("directory", sandbox.kind(target .. "/" .. version))
        end
        sandbox.write_file(dir .. "/shared/close", "")
        local status, _, stderr = child:wait()
        assert.equal(0, status, stderr)
    end)
end)
