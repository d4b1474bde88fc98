-- What an open writer keeps of the payload that it wrote last: it may recognise it, but the
-- caller may do with his tables and strings what he likes.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

-- A new string each time, and a long one, so that no two are the same object.
local function text(name, n)
    return (name .. " " .. n .. "\n"):rep(30)
end

local function payload_of(n)
    return {
        ["app.conf"] = text("app", n),
        ["tls/key"] = { data = text("key", n), mode = "0600" },
        ["tls/cert"] = { data = text("cert", n), mode = 416 },
        ["a//./c"] = text("unclean", n),
    }
end

local function contents_of(n)
    return {
        ["app.conf"] = text("app", n),
        ["tls/key"] = text("key", n),
        ["tls/cert"] = text("cert", n),
        ["a/c"] = text("unclean", n),
    }
end

describe("an open writer", function()
    local dir, writer

    local function write(payload)
        local result = assert(writer:write(payload))
        collectgarbage()
        return result
    end

    before_each(function()
        dir = sandbox.tmpdir()
        writer = assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    it("takes the same table, and one that is made anew, for what they are", function()
        local payload = payload_of(1)
        payload["a//./c"] = nil
        payload["a/c"] = text("unclean", 1)
        assert.is_true(write(payload).changed)
        for _ = 1, 3 do
            local result = write(payload)
            assert.is_false(result.changed)
            assert.equal(4, result.unchanged)
            result = write(payload_of(1))
            assert.is_false(result.changed)
            assert.equal(4, result.unchanged)
        end
        assert(volume.shows(dir, contents_of(1), 0))
    end)

    it("holds on to the data, whatever happens to the caller's", function()
        local payload = payload_of(1)
        write(payload)
        for path in pairs(payload) do payload[path] = nil end
        payload = nil -- luacheck: ignore
        local waste = {}
        for i = 1, 2000 do waste[i] = text("waste", i) end -- in the place of what was freed
        collectgarbage()
        assert.equal(2000, #waste)
        assert.is_false(write(payload_of(1)).changed)
        assert.is_true(write(payload_of(2)).changed)
        assert.is_false(write(payload_of(2)).changed)
        assert(volume.shows(dir, contents_of(2), 0))
    end)

    for what, change in pairs {
        ["other data"] = function(payload) payload["app.conf"] = text("app", 7) end,
        ["other data in an entry"] = function(payload)
            payload["tls/key"].data = text("key", 7)
        end,
        ["another mode in an entry"] = function(payload) payload["tls/key"].mode = "0640" end,
        ["a mode that was not there"] = function(payload)
            payload["app.conf"] = { data = payload["app.conf"], mode = "0600" }
        end,
        ["a source instead of data"] = function(payload)
            payload["tls/key"].data = nil
            payload["tls/key"].source = "/proc/version"
        end,
        ["one file less"] = function(payload) payload["tls/cert"] = nil end,
        ["one file more"] = function(payload) payload["more"] = "" end,
        ["another path"] = function(payload)
            payload["app.conf"], payload["app.confx"] = nil, payload["app.conf"]
        end,
    } do
        it("sees in a table that it knows " .. what, function()
            local payload = payload_of(1)
            write(payload)
            write(payload)
            change(payload)
            local wanted = assert(atomicwriter.new(dir)):plan(payload)
            local result = write(payload)
            assert.is_true(result.changed)
            assert.same({ wanted.added, wanted.updated, wanted.removed },
                { result.added, result.updated, result.removed })
            assert.is_false(write(payload).changed)
            assert.is_false(assert(assert(atomicwriter.new(dir)):write(payload)).changed)
        end)
    end

    it("refuses what is wrong in a table that it knows, and forgets nothing by that", function()
        local payload = payload_of(1)
        write(payload)
        payload["tls/key"].mode = 644
        local result, err = writer:write(payload)
        assert.is_nil(result)
        assert.equal("invalid_payload", err.code)
        assert.matches("tls/key", tostring(err), 1, true)
        payload["tls/key"].mode = "0600"
        payload[1] = "no path"
        result, err = writer:write(payload)
        assert.is_nil(result)
        assert.equal("invalid_payload", err.code)
        payload[1] = nil
        assert.is_false(write(payload).changed)
        assert(volume.shows(dir, contents_of(1), 0))
    end)

    it("is not taken in by what others have written, or rolled back, meanwhile", function()
        local keeper = assert(atomicwriter.new(dir, { durability = "none", keep = 3 }))
        local payload = payload_of(1)
        write(payload)
        assert(keeper:write(payload_of(2)))
        assert.is_true(assert(keeper:rollback()).changed)
        assert.is_false(write(payload).changed)
        assert(keeper:write(payload_of(2)))
        assert.is_true(write(payload).changed)
        assert.is_false(write(payload).changed)
        keeper:close()
        assert(volume.shows(dir, contents_of(1), 0))
    end)

    it("sees that directories are to have another mode, as in a rollback, or group", function()
        local strict = assert(atomicwriter.new(dir, { durability = "none", keep = 3,
            dir_mode = "0700" }))
        local plain = assert(atomicwriter.new(dir, { durability = "none", keep = 3 }))
        local payload = { a = "x" }
        assert(strict:write(payload))
        assert.is_true(assert(plain:write(payload)).changed)
        for _ = 1, 2 do
            sandbox.sleep(0.05)
            assert.is_false(assert(plain:write(payload)).changed)
        end
        assert.is_true(assert(plain:rollback()).changed)
        assert.equal("0700", sandbox.mode(dir .. "/..data"))
        assert.is_true(assert(plain:write(payload)).changed)
        if sandbox.is_root() then
            sandbox.sleep(0.05)
            assert.is_false(assert(plain:write(payload)).changed)
            sandbox.must { "chgrp", "7", dir }
            sandbox.must { "chmod", "g+s", dir }
            assert.is_true(assert(plain:write(payload)).changed)
        end
        strict:close()
        plain:close()
    end)

    it("is not taken in by a target that was replaced", function()
        local payload = payload_of(1)
        write(payload)
        write(payload)
        os.execute(("cp -a '%s' '%s.copy' && rm -r '%s' && mv '%s.copy' '%s'")
            :format(dir, dir, dir, dir, dir))
        sandbox.write_file(dir .. "/" .. volume.live(dir) .. "/app.conf", text("ppa", 1))
        assert.is_true(write(payload).changed)
        assert(volume.shows(dir, contents_of(1), 0))
    end)

    it("gives the data back when it is closed", function()
        local weak = setmetatable({}, { __mode = "v" })
        local entry = { data = text("key", 1), mode = "0600" }
        local payload = { key = entry }
        weak[1] = entry
        write(payload)
        entry, payload = nil, nil -- luacheck: ignore
        collectgarbage()
        assert.is_nil(weak[1]) -- the table was the caller's alone
        writer:close()
        local before = collectgarbage("count")
        writer = assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
        local large = ("x"):rep(4 * 1024 * 1024)
        write { large = large .. "1" }
        large = nil -- luacheck: ignore
        collectgarbage()
        assert.is_true(collectgarbage("count") - before > 4000)
        writer:close()
        collectgarbage()
        collectgarbage() -- the first one may leave what a finalized object held
        assert.is_true(collectgarbage("count") - before < 1000)
    end)

    it("recognises payloads of thousands of files, and what changes in them", function()
        local payload, contents = {}, {}
        for i = 1, 3000 do
            local path = ("d%02d/f%04d"):format(i % 40, i)
            payload[path] = text(path, 1)
            contents[path] = text(path, 1)
        end
        write(payload)
        for i = 1, 20 do
            local path = ("d%02d/f%04d"):format(i * 100 % 40, i * 100)
            payload[path] = text(path, 2)
            contents[path] = text(path, 2)
            local result = write(payload)
            assert.same({ path }, result.updated)
            assert.equal(2999, result.unchanged)
            assert.is_false(write(payload).changed)
        end
        assert(volume.shows(dir, contents, 0))
    end)
end)
