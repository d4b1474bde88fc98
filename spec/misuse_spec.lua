-- A programmer's mistake raises, at the line that made it. What the world does
-- wrong is returned instead; atomicwriter_spec.lua has that.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"

local new, open, watch = atomicwriter.new, atomicwriter.open, atomicwriter.watch
local file = debug.getinfo(1, "S").short_src
local lua54 = _VERSION == "Lua 5.4"

-- MISTAKE, a function on one line, raises "FILE:LINE: MESSAGE", its own line.
local function raises(message, mistake)
    local line = debug.getinfo(mistake, "S").linedefined
    local ok, raised = pcall(mistake)
    assert.is_false(ok, "nothing was raised; expected: " .. message)
    assert.equal(file .. ":" .. line .. ": " .. message, raised)
end

describe("misuse raises at the caller's line:", function()
    local dir, writer, snapshot, watcher

    before_each(function()
        dir = sandbox.tmpdir()
        writer = assert(new(dir))
        assert(writer:write { a = "1" })
        snapshot = assert(open(dir))
        watcher = assert(watch(dir))
    end)
    after_each(function()
        writer:close()
        snapshot:close()
        watcher:close()
        sandbox.cleanup()
    end)

    describe("a target", function()
        it("that is not a string, in each of new, open and watch", function()
            raises("bad argument #1 to 'new' (string expected, got no value)", function() new() end)
            raises("bad argument #1 to 'new' (string expected, got number)", function() new(5) end)
            raises("bad argument #1 to 'open' (string expected, got table)", function() open {} end)
            raises("bad argument #1 to 'watch' (string expected, got nil)",
                function() watch(nil) end)
        end)

        it("with a NUL byte", function()
            raises("bad argument #1 to 'new' (the target holds a NUL byte)",
                function() new "/a\0b" end)
            raises("bad argument #1 to 'open' (the target holds a NUL byte)",
                function() open "\0" end)
        end)
    end)

    describe("options of new", function()
        local function refuses(options, reason)
            raises("bad argument #2 to 'new' (" .. reason .. ")", function() new(dir, options) end)
        end

        it("that are no table", function()
            raises("bad argument #2 to 'new' (table expected, got string)",
                function() new(dir, "x") end)
            raises("bad argument #2 to 'new' (table expected, got boolean)",
                function() new(dir, false) end)
        end)

        it("that do not exist", function()
            refuses({ colour = "red" }, "unknown option 'colour'")
            refuses({ "create" }, "unknown option '1'")
            refuses({ [true] = 1 }, "unknown option 'true'")
            refuses({ ["keep\0"] = 1 }, "unknown option 'keep'")
        end)

        it("a mode that is no octal string and no number within 0 to 511", function()
            local text = [[must be octal digits up to "0777", such as "0644"]]
            local number = [[must be octal digits such as "0644", or a number within 0 to 511]]
            for _, name in ipairs { "default_mode", "dir_mode" } do
                for _, mode in ipairs { "", "0888", "1000", "01777", "0644 ", "rw", "0644\0", "-1",
                    "0x1ff", "77777777777777777777" } do
                    refuses({ [name] = mode }, "option '" .. name .. "' " .. text)
                end
                for _, mode in ipairs { -1, 1.5, 1000, 2 ^ 40, 0 / 0, 1 / 0, {}, true } do
                    refuses({ [name] = mode }, "option '" .. name .. "' " .. number)
                end
            end
        end)

        it("a mode written in decimal, with the octal string to write instead", function()
            refuses({ default_mode = 644 },
                [[option 'default_mode' is 644, not within 0 to 511: write "0644" for octal]])
            for _, mode in ipairs { "0311", "0000", "0677", 0 } do
                refuses({ dir_mode = mode },
                    [[option 'dir_mode' must let the owner read and enter, as "0700" or "0755" do]])
            end
            refuses({ dir_mode = 755 },
                [[option 'dir_mode' is 755, not within 0 to 511: write "0755" for octal]])
        end)

        it("an owner that is no user's or group's number", function()
            for _, name in ipairs { "uid", "gid" } do
                for _, id in ipairs { -1, 0.5, 2 ^ 32 - 1, 2 ^ 32, 0 / 0, "0", "root", true } do
                    refuses({ [name] = id },
                        "option '" .. name .. "' must be a whole number from 0 to 4294967294")
                end
            end
        end)

        it("a keep that is no count", function()
            for _, keep in ipairs { -1, 1.5, 1e6 + 1, 1 / 0, "1", true } do
                refuses({ keep = keep }, "option 'keep' must be a whole number from 0 to 1000000")
            end
        end)

        it("a lock_timeout that is no time", function()
            for _, timeout in ipairs { -0.1, 0 / 0, -1 / 0, "10", true } do
                refuses({ lock_timeout = timeout },
                    "option 'lock_timeout' must be a number of seconds, 0 or more")
            end
        end)

        it("a durability that is neither full nor none", function()
            for _, word in ipairs { "half", "", "fullest", "full\0", true, 1 } do
                refuses({ durability = word }, [[option 'durability' must be "full" or "none"]])
            end
        end)

        it("a switch that is no boolean", function()
            for _, name in ipairs { "reuse", "create" } do
                for _, value in ipairs { 0, 1, "true", "" } do
                    refuses({ [name] = value }, "option '" .. name .. "' must be true or false")
                end
            end
        end)
    end)

    describe("of a writer:", function()
        it("a payload that is no table", function()
            raises("bad argument #1 to 'write' (table expected, got no value)",
                function() writer:write() end)
            raises("bad argument #1 to 'write' (table expected, got string)",
                function() writer:write "a=1" end)
            raises("bad argument #1 to 'plan' (table expected, got nil)",
                function() writer:plan(nil) end)
        end)

        it("options of write that are wrong or do not exist", function()
            raises("bad argument #2 to 'write' (table expected, got function)",
                function() writer:write({}, print) end)
            raises("bad argument #2 to 'write' (unknown option 'chekc')",
                function() writer:write({}, { chekc = print }) end)
            raises("bad argument #2 to 'write' (unknown option '1')",
                function() writer:write({}, { print }) end)
            raises("bad argument #2 to 'write' (option 'check' must be a function)",
                function() writer:write({}, { check = "nginx -t" }) end)
            raises("bad argument #2 to 'write' (option 'progress' must be a function)",
                function() writer:write({}, { progress = true }) end)
        end)

        it("options of rollback that are wrong or do not exist", function()
            raises("bad argument #2 to 'rollback' (table expected, got function)",
                function() writer:rollback(nil, print) end)
            raises("bad argument #2 to 'rollback' (unknown option 'progres')",
                function() writer:rollback(nil, { progres = print }) end)
            raises("bad argument #2 to 'rollback' (option 'progress' must be a function)",
                function() writer:rollback(nil, { progress = 1 }) end)
            for _, expect in ipairs { 1, true, "..2026\0" } do
                raises("bad argument #2 to 'rollback' (option 'expect' must be the name of a "
                    .. "version)", function() writer:rollback(nil, { expect = expect }) end)
            end
        end)

        it("a version that is no string", function()
            raises("bad argument #1 to 'rollback' (string expected, got number)",
                function() writer:rollback(1) end)
        end)

        it("a raise leaves the target and the writer as they were", function()
            local before = sandbox.listing(dir)
            assert.is_false(pcall(writer.write, writer, { a = "2" }, { chekc = print }))
            assert.equal(before, sandbox.listing(dir))
            assert.is_true(assert(writer:write { a = "2" }).changed)
        end)
    end)

    it("of a snapshot: a path that is no string", function()
        raises("bad argument #1 to 'read' (string expected, got no value)",
            function() snapshot:read() end)
        raises("bad argument #1 to 'stat' (string expected, got number)",
            function() snapshot:stat(1) end)
    end)

    it("of a watcher: a timeout that is no time", function()
        local message = "bad argument #1 to 'wait' (must be a number of seconds, 0 or more)"
        raises(message, function() watcher:wait(-1) end)
        raises(message, function() watcher:wait(0 / 0) end)
        raises(message, function() watcher:wait("1") end)
        raises(message, function() watcher:wait(false) end)
    end)

    describe("a closed", function()
        it("writer, in each of its methods", function()
            writer:close()
            raises("writer is closed", function() writer:write {} end)
            raises("writer is closed", function() writer:plan {} end)
            raises("writer is closed", function() writer:rollback() end)
            raises("writer is closed", function() writer:versions() end)
            raises("writer is closed", function() writer:collect() end)
        end)

        it("snapshot, in each of its methods", function()
            snapshot:close()
            raises("snapshot is closed", function() snapshot:read "a" end)
            raises("snapshot is closed", function() snapshot:paths() end)
            raises("snapshot is closed", function() snapshot:stat "a" end)
            raises("snapshot is closed", function() snapshot:is_current() end)
        end)

        it("watcher, in each of its methods", function()
            watcher:close()
            raises("watcher is closed", function() watcher:wait(0) end)
            raises("watcher is closed", function() watcher:fd() end)
        end)

        it("object, but close itself may be called again", function()
            for _, object in ipairs { writer, snapshot, watcher } do
                object:close()
                object:close()
                assert.truthy(tostring(object):find("closed", 1, true))
            end
        end)

        it("object of a failed new, open or watch there is none: it is nil and an error", function()
            for _, make in ipairs { new, open, watch } do
                local object, err = make(dir .. "/missing")
                assert.is_nil(object)
                assert.equal("no_target", err.code)
            end
        end)

        it("object whose <close> has run", function()
            if not lua54 then pending "needs Lua 5.4" return end
            local kept = load([[
                local object = ...
                do local scoped <close> = object end
                return object
            ]])
            kept(writer)
            kept(snapshot)
            kept(watcher)
            raises("writer is closed", function() writer:write {} end)
            raises("snapshot is closed", function() snapshot:paths() end)
            raises("watcher is closed", function() watcher:wait(0) end)
        end)
    end)

    describe("a method on the wrong object", function()
        it("that is of another kind", function()
            raises("bad argument #1 to 'write' (atomicwriter.writer expected, got "
                .. (lua54 and "atomicwriter.snapshot)" or "userdata)"),
                function() writer.write(snapshot, {}) end)
            raises("bad argument #1 to 'read' (atomicwriter.snapshot expected, got "
                .. (lua54 and "atomicwriter.watcher)" or "userdata)"),
                function() snapshot.read(watcher, "a") end)
            raises("bad argument #1 to 'close' (atomicwriter.watcher expected, got "
                .. (lua54 and "atomicwriter.writer)" or "userdata)"),
                function() watcher.close(writer) end)
        end)

        it("that is no object, also when the colon was forgotten", function()
            raises("bad argument #1 to 'write' (atomicwriter.writer expected, got table)",
                function() writer.write {} end)
            raises("bad argument #1 to 'write' (atomicwriter.writer expected, got "
                .. (lua54 and "FILE*)" or "userdata)"),
                function() writer.write(io.stdout, {}) end)
        end)

        it("that has been reached through the metatable", function()
            for _, object in ipairs { writer, snapshot, watcher } do
                for _, name in ipairs { "__gc", "__close", "__tostring", "__index" } do
                    local method = getmetatable(object)[name]
                    for _, wrong in ipairs { {}, io.stdout, 1, "x" } do
                        assert.is_false(pcall(method, wrong, "close"))
                    end
                    assert.is_false(pcall(method))
                end
            end
        end)
    end)

    describe("a writer inside its own check or progress function", function()
        local busy = "writer is busy: called from its own check or progress function"

        local function in_hook(name, body)
            local ran = false
            local result = assert(writer:write({ a = "2" }, {
                [name] = function()
                    if not ran then body() end
                    ran = true
                    return true
                end,
            }))
            assert.is_true(ran)
            return result
        end

        local function in_check(body) return in_hook("check", body) end

        for _, hook in ipairs { "check", "progress" } do
            it("in each of its methods, close too, and the write goes on: " .. hook, function()
                local result = in_hook(hook, function()
                    raises(busy, function() writer:write {} end)
                    raises(busy, function() writer:plan {} end)
                    raises(busy, function() writer:rollback() end)
                    raises(busy, function() writer:versions() end)
                    raises(busy, function() writer:collect() end)
                    raises(busy, function() writer:close() end)
                end)
                assert.is_true(result.changed)
            end)
        end

        it("with its __gc called by hand, which does nothing then", function()
            in_check(function() getmetatable(writer).__gc(writer) end)
            assert.is_true(assert(writer:write { a = "3" }).changed)
        end)

        it("but it can be asked for its name, and others can be used", function()
            in_check(function()
                assert.equal("atomicwriter.writer (" .. dir .. ")", tostring(writer))
                assert.equal(dir, writer.target)
                assert.equal("1", snapshot:read "a")
                assert.equal(1, #assert(assert(new(dir)):versions()))
            end)
        end)

        it("and no longer when the check is over, however it ended", function()
            local checks = {
                function() return true end,
                function() return false end,
                function() error "no" end,
                function() error() end,
                function() coroutine.yield() end,
                function() writer:close() end,
                function() return nil, setmetatable({}, { __tostring = error }) end,
            }
            for i, check in ipairs(checks) do
                writer:write({ a = "check " .. i }, { check = check })
                assert.is_true(assert(writer:write { a = "after " .. i }).changed)
            end
        end)
    end)

    -- Call FN(...) with a collector that runs a whole cycle, finalizers too, wherever it may;
    -- the AT-th time it empties OPTIONS. Returns whether it came to that, and FN's results.
    local function with_finalizers(at, options, fn, ...)
        local function arm(finalizer)
            if lua54 then
                setmetatable({}, { __gc = finalizer })
            else
                getmetatable(rawget(_G, "newproxy")(true)).__gc = finalizer
            end
        end
        local runs = 0
        local function finalize()
            runs = runs + 1
            if runs < at then return arm(finalize) end
            for name in pairs(options) do options[name] = nil end
        end
        local pause, stepmul = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000000)
        collectgarbage()
        collectgarbage("stop")
        arm(finalize)
        collectgarbage("restart")
        local result, err = fn(...)
        collectgarbage("setpause", pause)
        collectgarbage("setstepmul", stepmul)
        return runs >= at, result, err
    end

    it("but options that a finalizer takes away meanwhile count as when they were read", function()
        local rollback = writer.rollback
        local old = assert(writer:write { a = "2" }).version
        assert(writer:write { a = "3" })
        local checked, expected, at, reached = 0, 0, 0, true
        local function check()
            checked = checked + 1
            return true
        end
        while reached and at < 100 do
            at = at + 1
            local options, result, err = { check = check }
            reached, result, err = with_finalizers(at, options, rollback, writer, nil, options)
            assert(result, err)

            options = { expect = old }
            local _
            _, result, err = with_finalizers(at, options, rollback, writer, nil, options)
            if not result then
                assert.equal(old, err.path)
                expected = expected + 1
            end
        end
        -- A cycle takes the longer, the more there is in this process.
        if at == 1 then pending("the collector has not come to a finalizer") end
        assert.is_true(checked > 0 and expected > 0)
    end)

    it("but an argument too many is let go by", function()
        local core = require "atomicwriter.core"
        assert.same({ atomicwriter.inspect(dir) }, { atomicwriter.inspect(dir, "x", {}) })
        local listed = assert(core.list_directory(dir))
        local given = {}
        assert.same(listed, core.list_directory(dir, given, given, 3))
        assert.same({}, given)
        assert.same(listed, core.list_directory(dir, "x"))
        assert.same({ core.user_id "root" }, { core.user_id("root", "x") })
    end)

    it("in a coroutine too", function()
        local message
        local line = debug.getinfo(1, "l").currentline + 2
        local thread = coroutine.create(function()
            writer:write(nil)
        end)
        local _, raised = coroutine.resume(thread)
        message = "bad argument #1 to 'write' (table expected, got nil)"
        assert.equal(file .. ":" .. line .. ": " .. message, raised)
    end)
end)
