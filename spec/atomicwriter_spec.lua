-- The public module: what its functions take, give and fail with. What the files
-- on disk go through is for other specs.

local lfs = require "lfs"
local atomicwriter = require "atomicwriter"
local core = require "atomicwriter.core"
local sandbox = require "spec.support.sandbox"

local lua54 = _VERSION == "Lua 5.4"
local VERSION_NAME = "^%.%.%d%d%d%d_%d%d_%d%d_%d%d_%d%d_%d%d%.%d+$"

local function keys(map)
    local list = {}
    for key in pairs(map) do list[#list + 1] = key end
    table.sort(list)
    return list
end

-- On Lua 5.4 an integer, not a float that happens to be whole.
local function is_integer(value)
    return type(value) == "number" and value % 1 == 0
        and (not lua54 or math.type(value) == "integer")
end

local dir

before_each(function() dir = sandbox.tmpdir() end)
after_each(sandbox.cleanup)

local function writer_with(options)
    return assert(atomicwriter.new(dir, options))
end

-- What failed: the error, after a check that it is a whole one.
local function failure(object, err)
    assert.is_nil(object)
    assert.is_table(err)
    local known = { invalid_payload = 1, no_target = 1, foreign_entry = 1, locked = 1,
        check_failed = 1, not_found = 1, io = 1 }
    assert.truthy(known[err.code], "unknown code " .. tostring(err.code))
    assert.is_string(err.message)
    assert.is_boolean(err.committed)
    for key, value in pairs { path = "string", op = "string", errno = "number" } do
        if err[key] ~= nil then assert.equal(value, type(err[key])) end
    end
    assert.not_equal("", err.path)
    assert.equal(err.message, tostring(err))
    return err
end

describe("the module", function()
    it("has the version number of the header and four public names", function()
        local header = sandbox.read_file("csrc/atomicwriter.h")
        assert.equal(header:match('AW_VERSION_STRING "([^"]+)"'), atomicwriter._VERSION)
        assert.same({ "_VERSION", "inspect", "new", "open", "watch" }, keys(atomicwriter))
    end)
end)

describe("new", function()
    it("makes a writer and touches nothing", function()
        local before = sandbox.listing(dir)
        local writer = writer_with()
        assert.equal("atomicwriter.writer (" .. dir .. ")", tostring(writer))
        assert.equal(dir, writer.target)
        writer:close()
        assert.equal("atomicwriter.writer (" .. dir .. ", closed)", tostring(writer))
        assert.equal(dir, writer.target)
        assert.equal(before, sandbox.listing(dir))
    end)

    it("fails with no_target where there is no directory", function()
        sandbox.write_file(dir .. "/file", "")
        local missing = dir .. "/missing"
        for _, target in ipairs { missing, missing .. "/deeper", dir .. "/file", "" } do
            local err = failure(atomicwriter.new(target))
            assert.equal("no_target", err.code)
            assert.is_false(err.committed)
            assert.equal(target, err.message:sub(1, #target))
        end
    end)

    it("resolves a relative target at once, whatever the program's directory is later", function()
        local home = assert(lfs.currentdir())
        sandbox.mkdir(dir .. "/target")
        assert(lfs.chdir(dir))
        local ok, writer = pcall(atomicwriter.new, "target")
        assert(lfs.chdir(home))
        assert.is_true(ok)
        assert(writer:write { a = "1" })
        assert.equal("1", sandbox.read_file(dir .. "/target/a"))
        assert.equal("target", writer.target)
    end)

    it("takes every option with its default written out", function()
        local writer = writer_with {
            default_mode = "0644", dir_mode = "0755", keep = 1, durability = "full",
            lock_timeout = 10, reuse = true, create = false,
        }
        assert(writer:write { ["d/a"] = "1" })
        local again = writer_with()
        assert.is_false(assert(again:write { ["d/a"] = "1" }).changed)
    end)

    it("takes no metamethod of its options for an answer", function()
        local options = setmetatable({}, { __index = function() error "asked" end })
        assert.is_truthy(writer_with(options))
    end)
end)

describe("the option", function()
    it("default_mode is what a file without a mode gets, as octal string or number", function()
        for given, mode in pairs { ["0640"] = "0640", ["600"] = "0600", ["0"] = "0000",
            ["0777"] = "0777", [0] = "0000", [tonumber("444", 8)] = "0444", [511] = "0777" } do
            assert(writer_with({ default_mode = given }):write {
                a = "1", b = { data = "2", mode = "0604" },
            })
            assert.equal(mode, sandbox.mode(dir .. "/a"))
            assert.equal("0604", sandbox.mode(dir .. "/b"))
        end
    end)

    it("dir_mode is what directories get, the version's own too", function()
        assert(writer_with({ dir_mode = "0750" }):write { ["d/e/a"] = "1" })
        for _, path in ipairs { "/..data", "/d", "/d/e" } do
            assert.equal("0750", sandbox.mode(dir .. path))
        end
    end)

    it("uid and gid are what files and directories get", function()
        if not sandbox.is_root() then pending "needs root" return end
        assert(writer_with({ uid = 12, gid = 34 }):write {
            ["d/a"] = "1", b = { data = "2", uid = 56, gid = 0 },
        })
        assert.equal("12:34", sandbox.owner(dir .. "/d/a"))
        assert.equal("12:34", sandbox.owner(dir .. "/d"))
        assert.equal("56:0", sandbox.owner(dir .. "/b"))
    end)

    it("keep is how many previous versions stay", function()
        for keep = 0, 3 do
            local writer = writer_with { keep = keep }
            for i = 1, 5 do assert(writer:write { a = keep .. " " .. i }) end
            assert.equal(1 + keep, #assert(writer:versions()))
        end
    end)

    it("lock_timeout is how long to wait for another writer, also in fractions", function()
        for _, seconds in ipairs { 0, 0.15 } do
            local other = writer_with { lock_timeout = seconds }
            local waited, err
            assert(writer_with():write({ a = "held " .. seconds }, {
                check = function()
                    local start = sandbox.now()
                    local result
                    result, err = other:write { a = "x" }
                    waited = sandbox.now() - start
                    return result == nil
                end,
            }))
            assert.equal("locked", failure(nil, err).code)
            assert.is_true(waited >= seconds and waited < seconds + 5, "waited " .. waited)
        end
    end)

    it("lock_timeout may be for ever", function()
        assert(writer_with({ lock_timeout = math.huge }):write { a = "1" })
    end)

    it("reuse links what is unchanged, or does not", function()
        local writer = writer_with()
        assert(writer:write { a = "1", b = "1" })
        assert.equal(1, assert(writer:write { a = "1", b = "2" }).linked)
        assert.equal(0, assert(writer_with({ reuse = false }):write { a = "1", b = "3" }).linked)
    end)

    it("create lets the first write make the target", function()
        local target = dir .. "/new"
        local writer = assert(atomicwriter.new(target, { create = true, dir_mode = "0700" }))
        assert.is_nil(sandbox.kind(target))
        assert(writer:write { a = "1" })
        assert.equal("0700", sandbox.mode(target))
        assert.equal("1", sandbox.read_file(target .. "/a"))
    end)

    it("durability none writes the same files", function()
        assert(writer_with({ durability = "none" }):write { ["d/a"] = "1" })
        assert.is_false(assert(writer_with():write { ["d/a"] = "1" }).changed)
    end)
end)

describe("a payload's entry", function()
    it("is a string of any bytes", function()
        local all = {}
        for byte = 0, 255 do all[#all + 1] = string.char(byte) end
        local data = table.concat(all)
        local payload = { all = data, empty = "", zero = "\0", big = data:rep(4096) }
        local result = assert(writer_with():write(payload))
        assert.equal(#payload.all + #payload.zero + #payload.big, result.bytes)
        for path, expected in pairs(payload) do
            assert.is_true(expected == sandbox.read_file(dir .. "/" .. path), path)
        end
    end)

    it("is a table of data or source, with mode and owner", function()
        local uid, gid = sandbox.owner(dir):match("(%d+):(%d+)")
        sandbox.write_file(dir .. "/..source", "from a file", "0600")
        assert(writer_with():write {
            a = { data = "1", mode = "0640" },
            b = { source = dir .. "/..source", mode = tonumber("604", 8) },
            c = { data = "", uid = tonumber(uid), gid = tonumber(gid) },
        })
        assert.equal("0640", sandbox.mode(dir .. "/a"))
        assert.equal("0604", sandbox.mode(dir .. "/b"))
        assert.equal("from a file", sandbox.read_file(dir .. "/b"))
        assert.equal(uid .. ":" .. gid, sandbox.owner(dir .. "/c"))
    end)

    it("is taken as it is stored, whatever its metatable", function()
        local meta = { __index = { mode = "0600" }, __pairs = error, __tostring = error }
        local payload = { a = setmetatable({ data = "1" }, meta) }
        assert(writer_with():write(setmetatable(payload, meta)))
        assert.equal("0644", sandbox.mode(dir .. "/a"))
    end)

    it("may be shared by several paths and used again", function()
        local entry = { data = "same" }
        local payload = { a = entry, b = entry }
        local writer = writer_with()
        assert(writer:write(payload))
        assert.is_false(assert(writer:write(payload)).changed)
        assert.same({ a = { data = "same" }, b = { data = "same" } }, payload)
    end)

    it("comes in thousands", function()
        local payload = {}
        for i = 1, 3000 do payload[("d%d/f%d"):format(i % 7, i)] = { data = ("x"):rep(i % 50) } end
        local writer = writer_with { durability = "none" }
        local result = assert(writer:write(payload))
        assert.equal(3000, #result.added)
        assert.equal(3000, assert(writer:write(payload)).unchanged)
    end)

    describe("that is wrong is invalid_payload with its path:", function()
        local function refuses(payload, path, detail)
            local before = sandbox.listing(dir)
            for _, method in ipairs { "write", "plan" } do
                local writer = writer_with()
                local err = failure(writer[method](writer, payload))
                assert.equal("invalid_payload", err.code)
                assert.equal(path, err.path)
                assert.is_false(err.committed)
                assert.is_nil(err.errno)
                assert.is_nil(err.op)
                assert.equal(dir .. ": " .. path .. ": ", err.message:sub(1, #dir + #path + 4))
                if detail then assert.truthy(err.message:find(detail, 1, true), err.message) end
            end
            assert.equal(before, sandbox.listing(dir))
        end

        it("neither a string nor a table", function()
            refuses({ a = 5 }, "a", "must be a string or a table, not a number")
            refuses({ a = true }, "a", "must be a string or a table, not a boolean")
            refuses({ ["d/a"] = print }, "d/a", "must be a string or a table, not a function")
        end)

        it("a key that is no string", function()
            refuses({ "data" }, "1", "a path must be a string, not a number")
            refuses({ [1.5] = "data" }, "1.5", "a path must be a string, not a number")
            refuses({ [true] = "data" }, "true", "a path must be a string, not a boolean")
            local key = setmetatable({}, { __tostring = function() return "my key" end })
            refuses({ [key] = "data" }, "my key", "a path must be a string, not a table")
        end)

        it("neither data nor source, or both", function()
            refuses({ a = {} }, "a", "needs data or a source")
            refuses({ a = { mode = "0644" } }, "a", "needs data or a source")
            refuses({ a = { data = "", source = "/etc/passwd" } }, "a",
                "has both data and a source")
        end)

        it("data or source that is no string: a number is none", function()
            refuses({ a = { data = 5 } }, "a", "field 'data' must be a string")
            refuses({ a = { data = { "x" } } }, "a", "field 'data' must be a string")
            refuses({ a = { source = 5 } }, "a", "field 'source' must be the path of a file")
            refuses({ a = { source = "/etc/passwd\0" } }, "a", "field 'source' must be the path")
            refuses({ a = { source = "" } }, "a")
        end)

        it("a field that does not exist", function()
            refuses({ a = { data = "", owner = "root" } }, "a", "unknown field 'owner'")
            refuses({ a = { "data" } }, "a", "unknown field '1'")
            refuses({ a = { data = "", ["mode\0"] = 1 } }, "a", "unknown field 'mode")
            refuses({ a = { data = "", [("x"):rep(9000)] = 1 } }, "a", "unknown field 'xxx")
        end)

        it("a mode out of range, with the octal string to write instead", function()
            refuses({ a = { data = "", mode = 644 } }, "a",
                [[field 'mode' is 644, not within 0 to 511: write "0644" for octal]])
            refuses({ a = { data = "", mode = "0999" } }, "a", "field 'mode' must be octal digits")
            refuses({ a = { data = "", mode = "01000" } }, "a", "field 'mode' must be octal digits")
            refuses({ a = { data = "", mode = -1 } }, "a", "field 'mode' must be octal digits")
            refuses({ a = { data = "", mode = 0.5 } }, "a", "field 'mode' must be octal digits")
            refuses({ a = { data = "", mode = true } }, "a", "field 'mode' must be octal digits")
        end)

        it("an owner that is no user's or group's number", function()
            for _, id in ipairs { -1, 0.5, 2 ^ 32 - 1, "0", "root", 0 / 0, 2 ^ 63, true } do
                refuses({ a = { data = "", uid = id } }, "a", "field 'uid' must be a whole number")
                refuses({ a = { data = "", gid = id } }, "a", "field 'gid' must be a whole number")
            end
        end)

        it("a path that the rules forbid, a NUL byte in it written as \\0", function()
            refuses({ ["../a"] = "" }, "../a")
            refuses({ ["/a"] = "" }, "/a")
            refuses({ ["a\0b"] = "" }, "a\\0b")
            refuses({ a = "", ["a/b"] = "" }, "a")
        end)
    end)
end)

describe("a result", function()
    local lists = { "added", "removed", "updated", "warnings" }
    local counts = { "bytes", "linked", "unchanged" }

    local function is_result(result, with_version)
        for _, key in ipairs(lists) do
            assert.is_table(result[key])
            for i = 2, #result[key] do assert.is_true(result[key][i - 1] < result[key][i]) end
        end
        for _, key in ipairs(counts) do assert.is_true(is_integer(result[key]), key) end
        assert.is_boolean(result.changed)
        if with_version then assert.truthy(result.version:find(VERSION_NAME)) end
        return result
    end

    it("has the fields of the contract and no other", function()
        local writer = writer_with()
        local first = is_result(assert(writer:write { b = "1", ["a/c"] = "22", d = "" }), true)
        assert.same({ "added", "bytes", "changed", "linked", "removed", "unchanged", "updated",
            "version", "warnings" }, keys(first))
        assert.same({ "a/c", "b", "d" }, first.added)
        assert.same({ true, 3, 0, 0 },
            { first.changed, first.bytes, first.linked, first.unchanged })

        local second = is_result(assert(writer:write { b = "2", ["a/c"] = "22", e = "5" }), true)
        assert.same({ "added", "bytes", "changed", "linked", "previous", "removed", "unchanged",
            "updated", "version", "warnings" }, keys(second))
        assert.same({ { "e" }, { "b" }, { "d" }, {} },
            { second.added, second.updated, second.removed, second.warnings })
        assert.same({ true, 2, 1, 1, first.version },
            { second.changed, second.bytes, second.linked, second.unchanged, second.previous })
        assert.is_true(first.version < second.version)
    end)

    it("of a write that changes nothing says so", function()
        local writer = writer_with()
        local first = assert(writer:write { a = "1", b = "2" })
        local second = is_result(assert(writer:write { a = "1", b = "2" }), true)
        assert.is_false(second.changed)
        assert.equal(first.version, second.version)
        assert.is_nil(second.previous)
        assert.same({ {}, {}, {}, 2, 0 },
            { second.added, second.updated, second.removed, second.unchanged, second.bytes })
    end)

    it("of a plan says what the write would, and touches nothing", function()
        local writer = writer_with()
        local first = assert(writer:write { a = "1", b = "1", c = "1" })
        local before = sandbox.listing(dir)
        local payload = { a = "1", b = "22", d = "4" }
        local plan = is_result(assert(writer:plan(payload)))
        assert.equal(before, sandbox.listing(dir))
        assert.is_nil(plan.version)
        assert.equal(first.version, plan.previous)
        local result = assert(writer:write(payload))
        result.version = nil
        assert.same(result, plan)

        local nothing = is_result(assert(writer:plan(payload)), true)
        assert.is_false(nothing.changed)
    end)
end)

describe("check", function()
    local writer

    before_each(function()
        writer = writer_with()
        assert(writer:write { a = "old" })
    end)

    -- The check REFUSES: nothing changes, and the error's message has DETAIL.
    local function refuses(detail, check)
        local before = sandbox.listing(dir)
        local err = failure(writer:write({ a = "new" }, { check = check }))
        assert.equal("check_failed", err.code)
        assert.is_false(err.committed)
        assert.equal(dir .. ": ", err.message:sub(1, #dir + 2))
        assert.truthy(err.message:find(detail, 1, true), err.message)
        assert.equal(before, sandbox.listing(dir))
        assert.is_true(assert(writer:write { a = "then" }).changed)
        assert(writer:write { a = "old" })
    end

    it("gets the absolute path of the complete tree before anybody else sees it", function()
        local calls = 0
        assert(writer:write({ a = "new", ["d/b"] = { data = "2", mode = "0600" } }, {
            check = function(stage, ...)
                calls = calls + 1
                assert.equal(0, select("#", ...))
                assert.equal(dir .. "/..", stage:sub(1, #dir + 3))
                assert.equal("new", sandbox.read_file(stage .. "/a"))
                assert.equal("2", sandbox.read_file(stage .. "/d/b"))
                assert.equal("0600", sandbox.mode(stage .. "/d/b"))
                assert.equal("old", sandbox.read_file(dir .. "/a"))
                assert.is_nil(sandbox.kind(dir .. "/d"))
                return true
            end,
        }))
        assert.equal(1, calls)
        assert.equal("new", sandbox.read_file(dir .. "/a"))
    end)

    it("is not asked when nothing differs, nor by a plan", function()
        local asked = { check = function() error "asked" end }
        assert(writer:write({ a = "old" }, asked))
        assert(writer:plan { a = "new" })
    end)

    it("may be left out in every way", function()
        assert(writer:write({ a = "1" }, nil))
        assert(writer:write({ a = "2" }, {}))
        assert(writer:write({ a = "3" }, { check = nil }))
    end)

    it("that returns nil or false publishes nothing", function()
        refuses("gave no reason", function() end)
        refuses("gave no reason", function() return nil end)
        refuses("gave no reason", function() return false end)
    end)

    it("that returns a reason has it in the message", function()
        refuses("port 0 is not allowed", function() return nil, "port 0 is not allowed" end)
        refuses("port 0 is not allowed", function() return false, "port 0 is not allowed" end)
        refuses("42", function() return false, 42 end)
        refuses("as text", function()
            return nil, setmetatable({}, { __tostring = function() return "as text" end })
        end)
        refuses(("x"):rep(300), function() return nil, ("x"):rep(100000) end)
        refuses("two\\x0alines", function() return nil, "two\nlines" end)
    end)

    it("that raises has the error in the message", function()
        refuses("atomicwriter_spec.lua:", function() error "boom" end)
        refuses("boom", function() error "boom" end)
        refuses("as text", function()
            error(setmetatable({}, { __tostring = function() return "as text" end }))
        end)
        refuses("table: ", function() error {} end)
        refuses("nil", function() error() end)
        refuses("cannot be shown", function()
            error(setmetatable({}, { __tostring = function() error "again" end }))
        end)
        refuses("cannot be shown", function()
            return nil, setmetatable({}, { __tostring = function() return {} end })
        end)
        refuses("stack overflow", function() local function f() return 1 + f() end f() end)
    end)

    it("that returns anything but true publishes nothing, such as 256 of an os.execute", function()
        refuses("returned a number, neither true nor false", function() return 256 end)
        refuses("returned a number, neither true nor false", function() return 0 end)
        refuses("returned a string, neither true nor false", function() return "ok" end)
        refuses("returned a table, neither true nor false", function() return {} end)
    end)

    it("that yields publishes nothing, in a coroutine or not", function()
        refuses("yield", function() coroutine.yield() end)
        local err
        coroutine.wrap(function()
            local _
            _, err = writer:write({ a = "new" }, { check = coroutine.yield })
        end)()
        assert.truthy(err.message:find("yield", 1, true))
        assert.equal("old", sandbox.read_file(dir .. "/a"))
    end)

    it("may run coroutines, other writers and the garbage collector", function()
        local other = sandbox.tmpdir()
        assert(writer:write({ a = "new" }, {
            check = function()
                local thread = coroutine.wrap(function()
                    coroutine.yield(assert(assert(atomicwriter.new(other)):write { b = "1" }))
                end)
                thread()
                collectgarbage()
                return true
            end,
        }))
        assert.equal("1", sandbox.read_file(other .. "/b"))
    end)

    it("may change or empty the payload: it is not read any more", function()
        local payload = {}
        for i = 1, 200 do payload["f" .. i] = { data = "data " .. i } end
        local result = assert(writer:write(payload, {
            check = function()
                for path in pairs(payload) do payload[path] = nil end
                collectgarbage()
                collectgarbage()
                return true
            end,
        }))
        assert.equal(200, #result.added)
        assert.equal("data 77", sandbox.read_file(dir .. "/f77"))
    end)

    it("runs in the coroutine that writes", function()
        local inside
        local thread = coroutine.create(function()
            writer:write({ a = "new" }, {
                check = function()
                    inside = coroutine.running()
                    return true
                end,
            })
        end)
        assert(coroutine.resume(thread))
        assert.equal(thread, inside)
    end)
end)

describe("versions, rollback and collect:", function()
    local writer

    before_each(function() writer = writer_with { keep = 3 } end)

    it("versions is empty before the first write", function()
        assert.same({}, assert(writer:versions()))
    end)

    it("versions are listed newest first, with the time of their name, one live", function()
        local names = {}
        local start = os.time()
        for i = 1, 3 do table.insert(names, 1, assert(writer:write { a = tostring(i) }).version) end
        local list = assert(writer:versions())
        assert.equal(3, #list)
        for i, version in ipairs(list) do
            assert.same({ "live", "name", "time" }, keys(version))
            assert.equal(names[i], version.name)
            assert.equal(i == 1, version.live)
            assert.is_true(is_integer(version.time))
            assert.is_true(version.time >= start - 1 and version.time <= os.time() + 1)
        end
    end)

    it("rollback publishes the newest retained version, or the one that is named", function()
        local first = assert(writer:write { a = "1" })
        assert(writer:write { a = "2" })
        local third = assert(writer:write { a = "3" })
        local back = assert(writer:rollback())
        assert.equal("2", sandbox.read_file(dir .. "/a"))
        assert.same({ true, third.version, { "a" } }, { back.changed, back.previous, back.updated })
        assert.is_true(back.version > third.version)
        assert(writer:rollback(first.version))
        assert.equal("1", sandbox.read_file(dir .. "/a"))
    end)

    it("rollback to what is not there is not_found with its name", function()
        assert.equal("not_found", failure(writer:rollback()).code)
        local live = assert(writer:write { a = "1" })
        assert.equal("not_found", failure(writer:rollback()).code)
        for _, name in ipairs { "..2001_01_01_00_00_00.1", "nonsense", "", "..", "/etc",
            live.version .. "0" } do
            local err = failure(writer:rollback(name))
            assert.equal("not_found", err.code)
            if name ~= "" then assert.equal(name, err.path) end
        end
        assert.equal("x\\0y", failure(writer:rollback("x\0y")).path)
        assert.equal("not_found", failure(writer:rollback(live.version .. "\0")).code)
    end)

    it("collect removes the retained versions and tells how many", function()
        for i = 1, 4 do assert(writer:write { a = tostring(i) }) end
        local removed = assert(writer:collect())
        assert.equal(3, removed)
        assert.is_true(is_integer(removed))
        assert.equal(1, #assert(writer:versions()))
        assert.equal(0, assert(writer:collect()))
        assert.equal("4", sandbox.read_file(dir .. "/a"))
    end)
end)

describe("an error", function()
    it("is a table whose tostring is its message, which begins with the target", function()
        sandbox.write_file(dir .. "/a", "not ours")
        local err = failure(writer_with():write { a = "1" })
        assert.equal("foreign_entry", err.code)
        assert.equal("a", err.path)
        assert.equal(dir .. ": a: ", err.message:sub(1, #dir + 5))
        assert.equal("atomicwriter.error", getmetatable(err).__name)
    end)

    it("can be joined to text on both sides", function()
        local err = failure(atomicwriter.new(dir .. "/missing"))
        assert.equal("cannot start: " .. err.message .. "!", "cannot start: " .. err .. "!")
        assert.equal(err.message .. err.message, err .. err)
    end)

    it("raised by assert shows its message", function()
        local words = sandbox.lua(dir, function(target)
            assert(require "atomicwriter".new(target))
        end, dir .. "/missing")
        local status, _, stderr = sandbox.run(sandbox.sh(words))
        assert.not_equal(0, status)
        assert.truthy(stderr:find(dir .. "/missing: no such directory", 1, true), stderr)
    end)

    it("can be changed by its owner without harm", function()
        local err = failure(atomicwriter.new(dir .. "/missing"))
        err.message = "mine"
        assert.equal("mine", tostring(err))
        err.message = nil
        assert.equal("atomicwriter.error", tostring(err))
        err.message = {}
        assert.equal("atomicwriter.error", tostring(err))
    end)

    it("of the system has errno and op", function()
        if sandbox.is_root() then
            sandbox.symlink(dir .. "/loop", dir .. "/loop")
        else
            sandbox.mkdir(dir .. "/loop")
            sandbox.chmod(dir .. "/loop", "0000")
        end
        local err = failure(atomicwriter.new(dir .. "/loop"))
        assert.equal("io", err.code)
        assert.equal("openat", err.op)
        assert.is_true(is_integer(err.errno) and err.errno > 0)
        assert.is_false(err.committed)
    end)
end)

describe("open", function()
    local writer

    before_each(function() writer = writer_with() end)

    it("gives a view of the live version", function()
        local live = assert(writer:write {
            b = "2", ["d/a"] = { data = "\0\1", mode = "0640" }, ["d/e/c"] = "",
        })
        local snapshot = assert(atomicwriter.open(dir))
        assert.equal(live.version, snapshot.version)
        assert.equal(dir, snapshot.target)
        assert.equal("atomicwriter.snapshot (" .. dir .. ")", tostring(snapshot))
        assert.same({ "b", "d/a", "d/e/c" }, assert(snapshot:paths()))
        assert.equal("\0\1", assert(snapshot:read "d/a"))
        assert.equal("", assert(snapshot:read "d/e/c"))
        assert.is_true(snapshot:is_current())

        local now = os.time()
        local about = assert(snapshot:stat "d/a")
        assert.same({ "gid", "mode", "mtime", "size", "type", "uid" }, keys(about))
        for _, key in ipairs { "gid", "mode", "mtime", "size", "uid" } do
            assert.is_true(is_integer(about[key]), key)
        end
        assert.same({ "file", tonumber("640", 8), 2, sandbox.owner(dir .. "/d/a") },
            { about.type, about.mode, about.size, about.uid .. ":" .. about.gid })
        assert.is_true(math.abs(about.mtime - now) <= 5)
        for _, path in ipairs { "d", "d/e", "." } do
            about = assert(snapshot:stat(path))
            assert.same({ "directory", tonumber("755", 8) }, { about.type, about.mode })
        end

        assert(writer:write { b = "3" })
        assert.is_false(snapshot:is_current())
        assert.equal("2", snapshot:read "b")
        snapshot:close()
        assert.equal(live.version, snapshot.version)
    end)

    it("fails with no_target, not_found or foreign_entry", function()
        assert.equal("no_target", failure(atomicwriter.open(dir .. "/missing")).code)
        assert.equal("not_found", failure(atomicwriter.open(dir)).code)
        sandbox.symlink("..", dir .. "/..data")
        assert.equal("foreign_entry", failure(atomicwriter.open(dir)).code)
    end)

    it("gives not_found with the path for what the version has not", function()
        assert(writer:write { a = "1", ["d/b"] = "2" })
        local snapshot = assert(atomicwriter.open(dir))
        for _, path in ipairs { "x", "a/b", "d/x", "", "/a", "../a", "..data/a", "d" } do
            local err = failure(snapshot:read(path))
            assert.equal("not_found", err.code)
            if path ~= "" then assert.equal(path, err.path) end
        end
        assert.equal("not_found", failure(snapshot:read ".").code)
        assert.equal("a\\0", failure(snapshot:read "a\0").path)
        assert.equal("not_found", failure(snapshot:stat "a\0").code)
        assert.equal("not_found", failure(snapshot:stat "x").code)
        assert.equal(dir .. ": x: ", failure(snapshot:stat "x").message:sub(1, #dir + 5))
    end)

    it("reads a large file whole", function()
        local data = ("0123456789abcdef"):rep(300000)
        assert(writer_with({ durability = "none" }):write { big = data })
        assert.is_true(data == assert(atomicwriter.open(dir)):read "big")
    end)
end)

describe("watch", function()
    local writer, watcher

    before_each(function()
        writer = writer_with()
        assert(writer:write { a = "0" })
        watcher = assert(atomicwriter.watch(dir))
    end)
    after_each(function() watcher:close() end)

    it("tells of each new version once, and of the last of many", function()
        assert.same({ nil, "timeout" }, { watcher:wait(0) })
        local first = assert(writer:write { a = "1" })
        assert.equal(first.version, assert(watcher:wait(10)))
        assert.same({ nil, "timeout" }, { watcher:wait(0) })
        assert(writer:write { a = "2" })
        local last = assert(writer:write { a = "3" })
        assert.equal(last.version, watcher:wait())
        assert.same({ nil, "timeout" }, { watcher:wait(0) })
        assert.equal("atomicwriter.watcher (" .. dir .. ")", tostring(watcher))
        assert.equal(dir, watcher.target)
        assert.is_nil(watcher.version)
    end)

    it("waits as long as it was told, in fractions of a second too", function()
        for _, seconds in ipairs { 0.15, 0.0009, 1e-9 } do
            local start = sandbox.now()
            assert.same({ nil, "timeout" }, { watcher:wait(seconds) })
            local waited = sandbox.now() - start
            assert.is_true(waited >= seconds and waited < 5, "waited " .. waited)
        end
    end)

    it("takes a huge timeout for a long time", function()
        local version = assert(writer:write { a = "1" }).version
        assert.equal(version, watcher:wait(math.huge))
        version = assert(writer:write { a = "2" }).version
        assert.equal(version, watcher:wait(1e300))
    end)

    it("has a descriptor for event loops", function()
        assert.is_true(is_integer(watcher:fd()))
        assert.truthy(lfs.symlinkattributes("/proc/self/fd/" .. watcher:fd(), "target")
            :find("inotify", 1, true))
    end)

    it("fails with no_target where there is none, and when the target goes", function()
        assert.equal("no_target", failure(atomicwriter.watch(dir .. "/missing")).code)
        sandbox.rmtree(dir)
        assert.equal("no_target", failure(watcher:wait(10)).code)
        assert.equal("no_target", failure(watcher:wait(10)).code)
    end)

    -- Start a watcher in a child and wait until it is about to wait.
    local function spawn(body)
        local child = sandbox.spawn(sandbox.sh(sandbox.lua(dir, body, dir)))
        assert.is_true(sandbox.eventually(function()
            return sandbox.read_file(child.dir .. "/out") == "ready\n"
        end))
        sandbox.sleep(0.1)
        return child
    end

    it("goes on with the time that is left after a signal", function()
        local child = spawn(function(target)
            local signal = require "luv".new_signal() -- a handler that leaves Lua alone
            signal:start("sigusr1", function() end)
            local watch = assert(require "atomicwriter".watch(target))
            io.write("ready\n")
            io.flush()
            local now = require "system".monotime
            local start = now()
            local version, why = watch:wait(1)
            local waited = now() - start
            print(version, why, waited >= 1 and waited < 1.8 or waited)
        end)
        for _ = 1, 9 do
            child:kill "USR1"
            sandbox.sleep(0.1)
        end
        assert.same({ 0, "ready\nnil\ttimeout\ttrue\n", "" }, { child:wait() })
    end)

    it("lets ^C interrupt a wait without an end", function()
        local child = spawn(function(target)
            local watch = assert(require "atomicwriter".watch(target))
            io.write("ready\n")
            io.flush()
            watch:wait()
        end)
        child:kill "INT"
        local status, _, stderr = child:wait(10)
        assert.truthy(status and status ~= 0, "it still waits")
        assert.truthy(stderr:find("interrupted!", 1, true), stderr)
    end)
end)

describe("for the builders, core", function()
    it("environ gives the environment as a table", function()
        local words = sandbox.lua(dir, function()
            local environ = require "atomicwriter.core".environ()
            print(environ.AW_A, environ.AW_EMPTY, environ.AW_EQUALS, environ.AW_UNSET)
            for name, value in pairs(environ) do assert(os.getenv(name) == value, name) end
        end)
        for i, word in ipairs { "env", "AW_A=1", "AW_EMPTY=", "AW_EQUALS=a=b=\nc" } do
            table.insert(words, i, word)
        end
        local out = sandbox.must(words)
        assert.equal("1\t\ta=b=\nc\tnil\n", out)
    end)

    it("list_directory gives names and types, sorted, without following links", function()
        sandbox.write_file(dir .. "/b", "")
        sandbox.mkdir(dir .. "/a dir")
        sandbox.symlink("b", dir .. "/..link")
        sandbox.must { "mkfifo", dir .. "/pipe" }
        assert.same({
            { name = "..link", type = "link" },
            { name = "a dir", type = "directory" },
            { name = "b", type = "file" },
            { name = "pipe", type = "other" },
        }, assert(core.list_directory(dir)))
        assert.same({}, assert(core.list_directory(dir .. "/a dir")))
    end)

    it("list_directory fails with an error of the usual kind", function()
        local err = failure(core.list_directory(dir .. "/missing"))
        assert.equal("io", err.code)
        assert.equal(dir .. "/missing", err.path)
        assert.is_true(is_integer(err.errno))
        assert.is_false(pcall(core.list_directory))
    end)
end)
