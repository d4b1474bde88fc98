--- What a payload may be. What it may not be is refused before the disk is touched.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("A payload", function()
    local dir, target, writer, fresh

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
        writer = assert(atomicwriter.new(target, FAST))
        assert(writer:write { old = "1" })
        fresh = assert(atomicwriter.new(dir .. "/fresh", { create = true }))
    end)
    after_each(function() sandbox.cleanup() end)

    -- Refused about PATH by write and plan, on a target with data and on one that is
    -- not there yet, and not a byte touched.
    local function refuses(payload, path, pattern)
        local before = sandbox.listing(dir)
        for _, object in ipairs { writer, fresh } do
            for _, call in ipairs { "write", "plan" } do
                local result, err = object[call](object, payload)
                assert.is_nil(result, ("%s took %q"):format(call, tostring(path)))
                assert.equal("invalid_payload", err.code)
                if path then assert.equal(path, err.path) end
                assert.is_false(err.committed)
                assert.is_nil(err.errno)
                if pattern then assert.matches(pattern, err.message) end
            end
        end
        assert.equal(before, sandbox.listing(dir))
    end

    ---- paths -----------------------------------------------------------------

    it("with an empty path is refused", function()
        refuses({ a = "1", [""] = "2" }) -- there is no path to tell
    end)

    it("with the path . is refused, however it is written", function()
        for _, path in ipairs { ".", "./", "./.", ".//./" } do refuses({ [path] = "1" }, path) end
    end)

    it("with an absolute path is refused", function()
        for _, path in ipairs { "/", "/a", "//a", "/../a", "/etc/passwd" } do
            refuses({ a = "1", [path] = "2" }, path)
        end
    end)

    it("with a .. component anywhere is refused, even where it would come to nothing", function()
        for _, path in ipairs { "..", "../a", "a/..", "a/../b", "a/b/../../c", "./../a", "a/./../b",
            "../", "a//../b", "../target/a" } do
            refuses({ a1 = "1", [path] = "2" }, path)
        end
    end)

    it("with a NUL byte is refused, and the error shows it as \\0", function()
        refuses({ ["a\0b"] = "1" }, "a\\0b")
        refuses({ ["\0"] = "1" }, "\\0")
        refuses({ ["a\0/../b"] = "1" }, "a\\0/../b")
    end)

    it("with a component of more than 255 bytes is refused", function()
        local long = ("x"):rep(256)
        refuses({ [long] = "1" }, long)
        refuses({ ["a/" .. long .. "/b"] = "1" }, "a/" .. long .. "/b")
        assert(writer:write { [long:sub(2)] = "1" })
    end)

    it("with a path of more than 4096 bytes is refused", function()
        for _, length in ipairs { 4097, 5000, 100000 } do
            local path = (("x"):rep(99) .. "/"):rep(1001):sub(1, length - 1) .. "y"
            local before = sandbox.listing(dir)
            local result, err = writer:write { [path] = "1" }
            assert.is_nil(result)
            assert.equal("invalid_payload", err.code)
            assert.equal(path:sub(1, 4000), err.path:sub(1, 4000)) -- may be cut
            assert.equal(before, sandbox.listing(dir))
        end
    end)

    it("with a path too long to be opened below this target is refused", function()
        local path = (("x"):rep(99) .. "/"):rep(50):sub(1, 4095) .. "y"
        assert.equal(4096, #path)
        refuses({ a = "1", [path] = "2" }, path)
    end)

    it("with a first component that begins with .. is refused after cleaning", function()
        for _, path in ipairs { "..a", "..data", "..data/x", "./..data/x", "./..sneaky", ".//..a/b",
            "..data_tmp", "..lock", "././..2026_11_22_15_04_05.1", "...", "..../a", ".. " } do
            refuses({ a = "1", [path] = "2" }, path)
        end
        assert(writer:write { [".a"] = "1", ["a/..b"] = "2", ["b/..."] = "3", ["c/..data"] = "4" })
    end)

    it("with two keys for one file is refused", function()
        for _, pair in ipairs { { "a", "./a" }, { "a/b", "a//b" }, { "a", "a/" },
            { "a/b", "./a/./b/" }, { "./a", "a/." } } do
            local before = sandbox.listing(dir)
            local result, err = writer:write { [pair[1]] = "1", [pair[2]] = "1", other = "2" }
            assert.is_nil(result)
            assert.equal("invalid_payload", err.code)
            assert.is_true(err.path == pair[1] or err.path == pair[2] or err.path == "a"
                or err.path == "a/b", err.path)
            assert.equal(before, sandbox.listing(dir))
        end
    end)

    it("with a key that is the directory of another is refused", function()
        for _, pair in ipairs { { "a", "a/b" }, { "a/b", "a/b/c/d" }, { "x/", "x/y" },
            { "./p", "p//q/r" } } do
            local before = sandbox.listing(dir)
            -- neighbours in byte order, so that only a comparison of all finds it
            local result, err = writer:write { [pair[1]] = "1", [pair[2]] = "2", ["a-b"] = "3",
                ["a b"] = "4", ["a.b"] = "5", ["a!"] = "6", ["a0"] = "7" }
            assert.is_nil(result)
            assert.equal("invalid_payload", err.code)
            assert.is_true(#err.path > 0)
            assert.equal(before, sandbox.listing(dir))
        end
        assert(writer:write { a = "1", ["a-b/c"] = "2", ["a b/c"] = "3", ["ab/c"] = "4" })
    end)

    it("with a key that is no string is refused", function()
        for _, payload in ipairs { { "data" }, { a = "1", [1.5] = "x" }, { [true] = "x" },
            { [{}] = "x" } } do
            refuses(payload)
        end
    end)

    ---- entries ---------------------------------------------------------------

    it("with data that is no string is refused", function()
        for _, data in ipairs { 1, 1.5, true, false, print, io.stdout } do
            refuses({ b = "1", a = data }, "a")
            refuses({ b = "1", ["d/a"] = { data = data } }, "d/a")
        end
        refuses({ a = { data = {} } }, "a")
    end)

    it("with an entry of neither data nor source, or of both, is refused", function()
        refuses({ a = {} }, "a")
        refuses({ a = { mode = "0644" } }, "a")
        sandbox.write_file(dir .. "/source", "x")
        refuses({ a = { data = "1", source = dir .. "/source" } }, "a")
        refuses({ a = { source = 7 } }, "a")
        refuses({ a = { source = "" } }, "a")
    end)

    it("with an entry's field that nobody knows is refused", function()
        refuses({ a = { data = "1", modus = "0644" } }, "a", "modus")
        refuses({ a = { data = "1", "0644" } }, "a")
    end)

    it("with a mode out of range is refused", function()
        for _, mode in ipairs { -1, 512, 1000, 4096, 2 ^ 31, 2 ^ 53, 0.5, "1000", "01777", "4755",
            "0888", "rw-r--r--", "", " 644", "-1", "0x1ff", "0o644", true, {} } do
            refuses({ b = "1", a = { data = "1", mode = mode } }, "a")
        end
        for _, mode in ipairs { 0 / 0, 1 / 0 } do
            refuses({ a = { data = "1", mode = mode } }, "a")
        end
    end)

    it("with the mode 644 is refused with a hint to write \"0644\"", function()
        refuses({ a = { data = "1", mode = 644 } }, "a", '"0644"')
        refuses({ a = { data = "1", mode = 755 } }, "a", '"0755"')
        refuses({ a = { data = "1", mode = 600 } }, "a", '"0600"')
    end)

    it("may say a mode as octal text or as a number", function()
        assert(writer:write { a = { data = "", mode = "0640" }, b = { data = "", mode = 416 },
            c = { data = "", mode = "0000" }, d = { data = "", mode = 511 } })
        for name, mode in pairs { a = "0640", b = "0640", c = "0000", d = "0777" } do
            assert.equal(mode, sandbox.mode(target .. "/" .. name))
        end
    end)

    it("with an owner or a group out of range is refused", function()
        for _, id in ipairs { -1, -2, 4294967295, 4294967296, 2 ^ 53, 2 ^ 70, 0.5, "1", "root",
            true } do
            refuses({ b = "1", a = { data = "1", uid = id } }, "a")
            refuses({ b = "1", a = { data = "1", gid = id } }, "a")
        end
    end)

    it("is checked as a whole: one bad entry of a thousand is enough", function()
        local payload = {}
        for i = 1, 1000 do payload["file" .. i] = "data" end
        payload["file500"] = 500
        refuses(payload, "file500")
        payload["file500"] = nil
        payload["./..data/x"] = "1"
        refuses(payload, "./..data/x")
    end)

    it("can be written again, and after it was refused and mended", function()
        local payload = { a = "1", b = false }
        refuses(payload, "b")
        payload.b = "2"
        assert(writer:write(payload))
        assert.is_false(assert(writer:write(payload)).changed)
        assert(volume.shows(target, { a = "1", b = "2" }))
    end)

    it("never shows its data in an error", function()
        local secret = "correct horse battery staple"
        for _, payload in ipairs { { a = secret, ["a/b"] = secret }, { [".."] = secret },
            { a = { data = secret, mode = 644 } }, { a = { data = secret, uid = -1 } },
            { a = { data = secret, source = secret } } } do
            local _, err = writer:write(payload)
            assert.is_nil(err.message:find(secret, 1, true))
        end
    end)

    ---- sources ---------------------------------------------------------------

    it("copies what a source holds, with the entry's own mode", function()
        sandbox.write_file(dir .. "/source", ("line\n\0"):rep(50000), "0755")
        assert(writer:write { a = { source = dir .. "/source" },
            ["b/c"] = { source = dir .. "/source", mode = "0600" }, d = "plain" })
        local data = ("line\n\0"):rep(50000)
        assert(volume.shows(target, { a = data, ["b/c"] = data, d = "plain" }))
        assert.same({ "0644", "0600" },
            { sandbox.mode(target .. "/a"), sandbox.mode(target .. "/b/c") })
        -- a copy, not the file itself
        assert.not_equal(sandbox.inode(dir .. "/source"), sandbox.inode(target .. "/..data/a"))
        sandbox.write_file(dir .. "/source", "changed")
        assert(volume.shows(target, { a = data, ["b/c"] = data, d = "plain" }))
    end)

    it("compares what a source holds", function()
        local source = dir .. "/source"
        sandbox.write_file(source, "same")
        local payload = { a = { source = source } }
        local first = assert(writer:write(payload))
        assert.same({ 4, true }, { first.bytes, first.changed })
        assert.is_false(assert(writer:write(payload)).changed)
        assert.is_false(assert(writer:write { a = "same" }).changed)
        sandbox.write_file(source, "diff")
        assert.same({ "a" }, assert(writer:plan(payload)).updated)
        assert.same({ "a" }, assert(writer:write(payload)).updated)
        sandbox.write_file(source, "different")
        assert.same({ "a" }, assert(writer:write(payload)).updated)
        sandbox.write_file(source, "")
        assert.same({ "a" }, assert(writer:write(payload)).updated)
        assert(volume.shows(target, { a = "" }))
        assert.is_false(assert(writer:write(payload)).changed)
    end)

    it("follows a link to a source, and takes one relative to the working directory", function()
        sandbox.write_file(dir .. "/source", "data")
        sandbox.symlink("source", dir .. "/link")
        local lfs = require "lfs"
        local here = lfs.currentdir()
        finally(function() lfs.chdir(here) end)
        lfs.chdir(dir)
        local result, err = writer:write { a = { source = "link" }, b = { source = "./source" } }
        lfs.chdir(here)
        assert(result, err)
        assert(volume.shows(target, { a = "data", b = "data" }))
    end)

    it("whose source cannot be copied changes nothing", function()
        sandbox.mkdir(dir .. "/directory")
        sandbox.must { "mkfifo", dir .. "/fifo" }
        sandbox.symlink("nowhere", dir .. "/dangling")
        local before = sandbox.listing(target)
        for _, source in ipairs { dir .. "/missing", dir .. "/directory", dir .. "/fifo",
            dir .. "/dangling", "/dev/zero", dir .. "/missing/deeper" } do
            local result, err = writer:write { aa = "first", b = { source = source }, z = "last" }
            assert.is_nil(result, source)
            assert.is_false(err.committed)
            assert.is_true(err.message:find(source, 1, true) ~= nil or err.path == "b", err.message)
            assert.equal(before, sandbox.listing(target))
        end
    end)

    it("may take a source from the target itself", function()
        assert(writer:write { a = "one" })
        assert(writer:write { b = { source = target .. "/a" } })
        assert(volume.shows(target, { b = "one" }))
    end)

    it("streams a source of 1 GiB with less than 32 MiB of memory", function()
        if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then
            pending("the address sanitizer has a memory of its own")
        end
        local disk = sandbox.tmpdir()
        local free = tonumber(sandbox.must("df -Pk -- " .. sandbox.quote(disk)):match(
            "\n%S+ +%d+ +%d+ +(%d+)"))
        if free < 3 * 1024 * 1024 then pending("less than 3 GiB of disk are free") end
        sandbox.must { "truncate", "-s", "1G", disk .. "/source" }
        local file = assert(io.open(disk .. "/source", "r+b"))
        assert(file:seek("set", 700000000))
        assert(file:write("not only zeros"))
        assert(file:close())
        local status, stdout, stderr = sandbox.run(sandbox.lua(disk, function(base)
            local w = assert(require("atomicwriter").new(base .. "/target",
                { create = true, durability = "none" }))
            local payload = { ["d/big"] = { source = base .. "/source" } }
            local result = assert(w:write(payload))
            assert(result.changed and result.bytes == 2 ^ 30, "bytes: " .. result.bytes)
            assert(not assert(w:write(payload)).changed)
            local text = io.open("/proc/self/status"):read("*a")
            print(text:match("VmHWM:%s*(%d+) kB"))
        end, disk))
        assert.equal(0, status, stderr)
        assert.is_true(tonumber(stdout) < 32 * 1024, stdout .. " KiB")
        assert.equal(0, (sandbox.run { "cmp", disk .. "/source", disk .. "/target/d/big" }))
    end)
end)
