local input = require "atomicwriter.input"
local lfs = require "lfs"
local payload = require "atomicwriter.payload"

local function write(path, data)
    local file = assert(io.open(path, "wb"))
    file:write(data)
    file:close()
end

-- What the core's list_directory answers.
local TYPES = { file = "file", directory = "directory", link = "link" }
local function list_directory(path)
    local listing = {}
    for name in lfs.dir(path) do
        if name ~= "." and name ~= ".." then
            local mode = lfs.symlinkattributes(path .. "/" .. name, "mode")
            listing[#listing + 1] = { name = name, type = TYPES[mode] or "other" }
        end
    end
    return listing
end

local function fake_snapshot(files)
    local snapshot = { closed = false }
    function snapshot.paths()
        local paths = {}
        for path in pairs(files) do paths[#paths + 1] = path end
        table.sort(paths)
        return paths
    end
    function snapshot:read(path)
        assert(not self.closed)
        if files[path] then return files[path] end
        return nil, "cannot read " .. path
    end
    function snapshot:close() self.closed = true end
    return snapshot
end

describe("payload", function()
    local directory, files

    before_each(function()
        directory = os.tmpname()
        os.remove(directory)
        assert(lfs.mkdir(directory))
        files = payload.new { list_directory = list_directory }
    end)

    after_each(function() os.execute("rm -rf '" .. directory .. "'") end)

    local function refused(ok, err)
        assert.is_nil(ok)
        assert.equal("invalid_payload", err.code)
        return tostring(err)
    end

    describe("from_file", function()
        it("streams a file under its own name", function()
            write(directory .. "/a.conf", "x")
            assert.equal(files, assert(files:from_file(directory .. "/a.conf")))
            assert.same({ ["a.conf"] = { source = directory .. "/a.conf" } }, files:build())
        end)

        it("streams a file under a given key, which may have a directory", function()
            write(directory .. "/a b", "x")
            assert(files:from_file(directory .. "/a b", "conf.d/a"))
            assert.same({ ["conf.d/a"] = { source = directory .. "/a b" } }, files:build())
        end)

        it("follows a link that is named itself", function()
            write(directory .. "/a", "x")
            assert(lfs.link("a", directory .. "/link", true))
            assert(files:from_file(directory .. "/link"))
            assert.same({ link = { source = directory .. "/link" } }, files:build())
        end)

        it("reads a pipe, such as a shell's <(command)", function()
            local pipe = directory .. "/pipe"
            os.execute(("mkfifo '%s'; printf 'a\\0b' >'%s' &"):format(pipe, pipe))
            assert(files:from_file(pipe, "key"))
            assert.same({ key = "a\0b" }, files:build())
        end)

        it("takes the regular files of a directory and nothing else", function()
            write(directory .. "/a", "1")
            write(directory .. "/.b", "2")
            assert(lfs.mkdir(directory .. "/sub"))
            write(directory .. "/sub/c", "3")
            assert(lfs.link("a", directory .. "/link", true))
            os.execute("mkfifo '" .. directory .. "/pipe'")
            assert(files:from_file(directory))
            assert.same({
                a = { source = directory .. "/a" }, [".b"] = { source = directory .. "/.b" },
            }, files:build())
        end)

        it("accepts a directory with a trailing slash", function()
            write(directory .. "/a", "1")
            assert(files:from_file(directory .. "/"))
            assert.same({ a = { source = directory .. "/a" } }, files:build())
        end)

        it("refuses a directory with a file whose name is no key, and adds none of it", function()
            write(directory .. "/a", "1")
            write(directory .. "/b c", "2")
            assert.matches('"b c" is not a valid key', refused(files:from_file(directory)))
            assert.same({}, files:build())
        end)

        it("refuses a key for a directory", function()
            assert.matches("cannot give a key name for a directory path",
                refused(files:from_file(directory, "key")))
        end)

        it("reports a file that is not there with its errno", function()
            local ok, err = files:from_file(directory .. "/missing")
            assert.is_nil(ok)
            assert.equal("io", err.code)
            assert.equal(2, err.errno)
            assert.equal(directory .. "/missing: No such file or directory", tostring(err))
        end)

        it("passes on why a directory cannot be listed", function()
            local broken = payload.new { list_directory = function() return nil, "why" end }
            local ok, err = broken:from_file(directory)
            assert.is_nil(ok)
            assert.equal("why", err)
        end)

        it("reads a managed directory through one snapshot, and closes it", function()
            assert(lfs.link("..2026_01_01_00_00_00.1", directory .. "/..data", true))
            write(directory .. "/not a key", "a foreign file beside it")
            local snapshot = fake_snapshot { a = "1", ["sub/b"] = "2" }
            local opened
            files = payload.new {
                list_directory = list_directory,
                open_snapshot = function(path) opened = path return snapshot end,
            }
            assert(files:from_file(directory))
            assert.equal(directory, opened)
            assert.same({ a = "1", ["sub/b"] = "2" }, files:build())
            assert.is_true(snapshot.closed)
        end)

        it("closes the snapshot and adds nothing when a read fails", function()
            assert(lfs.link("..2026_01_01_00_00_00.1", directory .. "/..data", true))
            local snapshot = fake_snapshot { a = "1", b = false }
            files = payload.new {
                list_directory = list_directory, open_snapshot = function() return snapshot end,
            }
            local ok, err = files:from_file(directory)
            assert.is_nil(ok)
            assert.equal("cannot read b", err)
            assert.same({}, files:build())
            assert.is_true(snapshot.closed)
        end)

        it("does not take a directory named ..data for a managed one", function()
            assert(lfs.mkdir(directory .. "/..data"))
            write(directory .. "/a", "1")
            assert(files:from_file(directory))
            assert.same({ a = { source = directory .. "/a" } }, files:build())
        end)
    end)

    describe("from_literal", function()
        it("splits at the first = and keeps quotes", function()
            assert(files:from_literal [[a="x=y"]])
            assert(files:from_literal "b=")
            assert.same({ a = '"x=y"', b = "" }, files:build())
        end)

        it("takes key and value apart", function()
            assert(files:from_literal("a", "b=c"))
            assert.same({ a = "b=c" }, files:build())
        end)

        it("refuses what has no key or no =, without showing it", function()
            for _, literal in ipairs { "s3cret", "=s3cret", "" } do
                local message = refused(files:from_literal(literal))
                assert.equal("invalid literal, expected KEY=VALUE", message)
            end
        end)
    end)

    describe("from_env_file", function()
        it("adds each variable under its name", function()
            write(directory .. "/app.env", "A=1\r\n# no\nB\nC= x\n")
            local function getenv(name) return name == "B" and "outer" or nil end
            files = payload.new { getenv = getenv }
            assert(files:from_env_file(directory .. "/app.env"))
            assert.same({ A = "1", B = "outer", C = " x" }, files:build())
        end)

        it("names file and line of what is wrong", function()
            local path = directory .. "/app.env"
            write(path, "A=1\n2B=2\n")
            local ok, err = files:from_env_file(path)
            assert.is_nil(ok)
            assert.equal("invalid_payload", err.code)
            assert.equal(path, err.path)
            assert.equal(2, err.line)
            assert.same({}, files:build())
        end)

        it("refuses a variable that another env file has, naming both", function()
            write(directory .. "/1.env", "A=1\n")
            write(directory .. "/2.env", "B=1\nA=2\n")
            assert(files:from_env_file(directory .. "/1.env"))
            local message = refused(files:from_env_file(directory .. "/2.env"))
            assert.is_not_nil(message:find(directory .. "/1.env", 1, true))
            assert.is_not_nil(message:find(directory .. "/2.env", 1, true))
            assert.same({ A = "1" }, files:build())
        end)

        it("reports a directory and a missing file as failures of the world", function()
            for path, errno in pairs { [directory] = 21, [directory .. "/missing"] = 2 } do
                local ok, err = files:from_env_file(path)
                assert.is_nil(ok)
                assert.equal("io", err.code)
                assert.equal(errno, err.errno)
                assert.equal(path, err.path)
            end
        end)
    end)

    describe("from_env", function()
        local function environ()
            return { APP_A = "1", APP_B = "2", HOME = "/", ["APP_%"] = "3" }
        end

        it("adds the variables that match", function()
            files = payload.new { environ = environ }
            assert(files:from_env("APP_[A-Z]"))
            assert.same({ APP_A = "1", APP_B = "2" }, files:build())
        end)

        it("refuses a variable whose name is no key, and adds nothing", function()
            files = payload.new { environ = environ }
            assert.matches('"APP_%%" is not a valid key', refused(files:from_env("APP_*")))
            assert.same({}, files:build())
        end)
    end)

    describe("keys", function()
        for _, key in ipairs { "a", "-", "1a", ".a", "A_b-c.d", "a/b/c", "a..b", ("k"):rep(253) } do
            it(("accepts %q"):format(key:sub(1, 20)), function()
                assert(files:from_literal(key, "x"))
                assert.same({ [key] = "x" }, files:build())
            end)
        end

        for _, key in ipairs {
            "", ".", "..", "..a", "a b", "é", "a\0", "a\n", "a:b", "/a", "a/", "a//b", "a/./b",
            "a/../b", "a/..b", "../a", ("k"):rep(254), "a/" .. ("k"):rep(254),
        } do
            it(("refuses %q"):format(key:sub(1, 20)), function()
                refused(files:from_literal(key, "x"))
                assert.same({}, files:build())
            end)
        end

        it("refuses a duplicate, naming both origins", function()
            write(directory .. "/a", "1")
            assert(files:from_file(directory .. "/a"))
            local message = refused(files:from_literal("a=s3cret"))
            assert.is_not_nil(message:find("literal", 1, true))
            assert.is_not_nil(message:find("file " .. directory .. "/a", 1, true))
            assert.is_nil(message:find("s3cret", 1, true))
            assert.same({ a = { source = directory .. "/a" } }, files:build())
        end)

        it("refuses a key below another key, in either order", function()
            assert(files:from_literal("a/b/c=1"))
            assert.matches('"a" is the directory of "a/b/c"',
                refused(files:from_literal("a=2")))
            assert.matches('"a/b" is the directory of "a/b/c"',
                refused(files:from_literal("a/b=2")))
            assert.matches('"a/b/c/d" lies below the key "a/b/c"',
                refused(files:from_literal("a/b/c/d=2")))
            assert(files:from_literal("a/b/d=2"))
        end)
    end)

    describe("add", function()
        it("names the origin that it is given when two claim a path", function()
            assert(files:add("app@.service", "x", "template app@.service.tmpl"))
            local message = refused(files:add("app@.service", "y"))
            assert.truthy(message:find("given by template app@.service.tmpl already", 1, true))
        end)

        it("cleans the path as path.Clean does", function()
            assert(files:add("./a//b/./c/", "x"))
            assert.same({ ["a/b/c"] = "x" }, files:build())
            assert.matches("already", refused(files:add("a/b/c", "y")))
        end)

        it("accepts names that are no ConfigMap keys", function()
            assert(files:add("a b/é", "x"))
            assert(files:add("a/..b", "y"))
            assert.same({ ["a b/é"] = "x", ["a/..b"] = "y" }, files:build())
        end)

        for _, path in ipairs {
            "", ".", "./", "/a", "a/../b", "..", "../a", "..a", "./..data/x", "a\0b",
            ("k"):rep(256), ("k/"):rep(2048) .. "kk",
        } do
            it(("refuses the path %q"):format(path:sub(1, 20)), function()
                refused(files:add(path, "x"))
                assert.same({}, files:build())
            end)
        end

        it("keeps the attributes of an entry and leaves the caller's table alone", function()
            local entry = { data = "x", mode = "0600", uid = 1, gid = 2 }
            assert(files:add("a", entry))
            assert(files:attributes("a", { mode = "0400" }))
            assert.same({ a = { data = "x", mode = "0400", uid = 1, gid = 2 } }, files:build())
            assert.equal("0600", entry.mode)
        end)

        it("refuses an entry without data or source, with both, or with no string", function()
            refused(files:add("a", {}))
            refused(files:add("a", { data = "x", source = "/y" }))
            refused(files:add("a", { data = 1 }))
            refused(files:add("a", { source = true }))
        end)
    end)

    describe("tells an observer", function()
        local function observed(name, ...)
            local seen = {}
            local result, err = input.observe(function(path) seen[#seen + 1] = path end,
                files[name], files, ...)
            return seen, result, err
        end

        it("of a file that the core will stream", function()
            write(directory .. "/a", "1")
            assert.same({ directory .. "/a" }, (observed("from_file", directory .. "/a", "key")))
        end)

        it("of a file that is not there yet", function()
            local seen, result = observed("from_file", directory .. "/a")
            assert.is_nil(result)
            assert.same({ directory .. "/a" }, seen)
        end)

        it("of a directory and of each file taken from it", function()
            write(directory .. "/a", "1")
            write(directory .. "/b", "2")
            assert(lfs.mkdir(directory .. "/sub"))
            local seen = observed("from_file", directory)
            assert.equal(directory, seen[1])
            table.sort(seen)
            assert.same({ directory, directory .. "/a", directory .. "/b" }, seen)
        end)

        it("of the link to the live version of a managed directory", function()
            assert(lfs.link("..2026_01_01_00_00_00.1", directory .. "/..data", true))
            files = payload.new {
                list_directory = list_directory,
                open_snapshot = function() return fake_snapshot { a = "1" } end,
            }
            assert.same({ directory, directory .. "/..data" },
                (observed("from_file", directory)))
            assert.same({ directory .. "/", directory .. "/..data" },
                (observed("from_file", directory .. "/")))
        end)

        it("of an env file", function()
            write(directory .. "/app.env", "A=1\n")
            assert.same({ directory .. "/app.env" },
                (observed("from_env_file", directory .. "/app.env")))
        end)

        it("before it looks", function()
            local path = directory .. "/late"
            assert(input.observe(function(name) write(name, "1") end,
                files.from_file, files, path))
            assert.same({ late = { source = path } }, files:build())
        end)
    end)

    it("writes labels and annotations as downward-API files", function()
        assert(files:labels { b = "2", a = "1\n" })
        assert(files:annotations { c = "3" })
        assert(files:labels({}, "meta/labels"))
        assert.same({
            labels = 'a="1\\n"\nb="2"', annotations = 'c="3"', ["meta/labels"] = "",
        }, files:build())
    end)

    it("refuses labels that the format cannot hold", function()
        refused(files:labels { ["a=b"] = "x" })
        assert.same({}, files:build())
    end)

    it("gives default mode and owner to entries without their own", function()
        files = payload.new { mode = "0640", uid = 7 }
        assert(files:from_literal("a=1"))
        assert(files:add("b", { data = "2", mode = "0600" }))
        assert.same({
            a = { data = "1", mode = "0640", uid = 7 }, b = { data = "2", mode = "0600", uid = 7 },
        }, files:build())
    end)

    it("sets attributes only on files that were added", function()
        refused(files:attributes("a", { mode = "0600" }))
        assert(files:from_literal("a=1"))
        assert(files:attributes("./a", { mode = "0600", gid = 5 }))
        assert.same({ a = { data = "1", mode = "0600", gid = 5 } }, files:build())
    end)

    it("builds a fresh table every time", function()
        assert(files:add("a", { data = "1", mode = "0600" }))
        files:build().a.data = "changed"
        assert.same({ a = { data = "1", mode = "0600" } }, files:build())
    end)

    it("raises at the caller's line for misuse", function()
        for name, call in pairs {
            new = function() return payload.new("x"), nil end,
            option = function() return payload.new { nonsense = 1 }, nil end,
            from_file = function() return files:from_file(nil), nil end,
            key = function() return files:from_file("x", 1), nil end,
            from_literal = function() return files:from_literal(1), nil end,
            value = function() return files:from_literal("a", 1), nil end,
            from_env_file = function() return files:from_env_file {}, nil end,
            from_env = function() return files:from_env(), nil end,
            add = function() return files:add("a", 1), nil end,
            labels = function() return files:labels("a"), nil end,
            label = function() return files:labels { a = 1 }, nil end,
            annotations = function() return files:annotations { 1 }, nil end,
            attributes = function() return files:attributes("a"), nil end,
        } do
            local ok, message = pcall(call)
            assert.is_false(ok, name)
            assert.matches("payload_spec.lua:%d+: ", message)
        end
    end)
end)

describe("payload.parse_file", function()
    it("splits [KEY=]PATH", function()
        assert.same({ "a/b" }, { payload.parse_file("a/b") })
        assert.same({ "a/b", "key" }, { payload.parse_file("key=a/b") })
    end)

    for _, text in ipairs { "=a", "a=", "a=b=c", "==" } do
        it(("refuses %q as kubectl does"):format(text), function()
            local path, err = payload.parse_file(text)
            assert.is_nil(path)
            assert.equal("invalid_payload", err.code)
        end)
    end
end)
