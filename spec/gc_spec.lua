-- The garbage collector and errors in each other's way: objects dropped unclosed, arguments
-- refused half-way, checks that raise, finalizers that call back, memory that runs out. It
-- is for AddressSanitizer and valgrind to watch (`make check-asan`); by itself it shows
-- that no descriptor is lost, no lease and lock is left, and that results are right.

local lfs = require "lfs"
local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"

local lua54 = _VERSION == "Lua 5.4"
local ROUNDS = tonumber(os.getenv "GC_ROUNDS") or 60

-- Two rounds: the first runs finalizers, the second frees what they held.
local function collect()
    collectgarbage()
    collectgarbage()
end

-- Open descriptors of this process.
local function descriptors()
    collect()
    local count = 0
    for _ in lfs.dir("/proc/self/fd") do count = count + 1 end
    return count
end

describe("garbage collection", function()
    local dir, writer, before

    before_each(function()
        dir = sandbox.tmpdir()
        writer = assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
        assert(writer:write { a = "0", ["d/b"] = "0" })
        before = descriptors()
    end)
    after_each(function()
        writer:close()
        collectgarbage("restart")
        sandbox.cleanup()
    end)

    it("closes writers, snapshots and watchers that were dropped", function()
        for _ = 1, ROUNDS do
            assert(atomicwriter.new(dir))
            assert(atomicwriter.open(dir))
            assert(atomicwriter.watch(dir))
        end
        assert.equal(before, descriptors())
    end)

    it("ends the lease of a snapshot that was dropped", function()
        local snapshot = assert(atomicwriter.open(dir))
        assert(writer:write { a = "1" })
        assert.equal("0", snapshot:read "a")
        assert.equal(2, #assert(writer:versions()))
        snapshot = nil -- luacheck: ignore
        collect()
        assert(writer:write { a = "2" })
        assert.equal(1, #assert(writer:versions()))
    end)

    it("does not mind objects that were closed, or closed by hand through __gc", function()
        for _ = 1, ROUNDS do
            for _, make in ipairs { atomicwriter.new, atomicwriter.open, atomicwriter.watch } do
                local object = assert(make(dir))
                getmetatable(object).__gc(object)
                object:close()
                getmetatable(object).__gc(object)
            end
        end
        assert.equal(before, descriptors())
    end)

    it("finds nothing lost when new, open and watch fail", function()
        sandbox.symlink("..", dir .. "/foreign")
        for _ = 1, ROUNDS do
            for _, make in ipairs { atomicwriter.new, atomicwriter.open, atomicwriter.watch } do
                assert.is_nil(make(dir .. "/missing"))
                assert.is_false(pcall(make, dir .. "\0"))
                assert.is_false(pcall(make))
            end
            assert.is_false(pcall(atomicwriter.new, dir, { unknown = true }))
        end
        assert.equal(before, descriptors())
    end)

    it("finds nothing lost when a payload is refused after much of it was gathered", function()
        local listing = sandbox.listing(dir)
        local payload = {}
        for i = 1, 500 do payload["d/" .. i] = { data = ("x"):rep(i), mode = "0600" } end
        local wrong = { { data = 1 }, {}, { data = "", mode = 644 }, 5, { data = "", [{}] = 1 },
            { source = dir .. "/missing" }, { data = "", uid = -1 } }
        for i = 1, ROUNDS do
            payload["e/" .. i] = wrong[i % #wrong + 1]
            payload[i] = i % 3 == 0 and "no path" or nil
            for _, method in ipairs { writer.write, writer.plan } do
                local result, err = method(writer, payload)
                assert.is_nil(result)
                assert.is_string(err.code)
            end
            payload["e/" .. i], payload[i] = nil, nil
        end
        assert.equal(listing, sandbox.listing(dir))
        assert.equal(before, descriptors())
    end)

    it("finds nothing lost when checks refuse, raise, yield and collect", function()
        local listing = sandbox.listing(dir)
        local boom = setmetatable({}, { __tostring = function() error "boom" end })
        local checks = {
            function() return false end,
            function() collect() return nil, ("r"):rep(2000) end,
            function() error("boom") end,
            function() error(boom) end,
            function() return nil, boom end,
            function() coroutine.yield() end,
            function() local function f() return 1 + f() end return f() end,
            function(stage) return nil, assert(atomicwriter.open(dir)):read(stage) end,
            function() atomicwriter.new() end,
            function() writer:close() end,
        }
        for i = 1, ROUNDS do
            local check = checks[i % #checks + 1]
            local thread = coroutine.wrap(function()
                return writer:write({ a = tostring(i) }, { check = check })
            end)
            local result, err = thread()
            assert.is_nil(result)
            assert.equal("check_failed", err.code)
        end
        assert.equal(listing, sandbox.listing(dir))
        assert.equal(before, descriptors())
    end)

    it("may take the payload while a check runs: the core does not read it any more", function()
        for i = 1, ROUNDS do
            local payload = {}
            for n = 1, 50 do payload["f" .. n] = { data = ("%d %d "):format(i, n):rep(20) } end
            assert(writer:write(payload, {
                check = function()
                    for path, entry in pairs(payload) do
                        entry.data = nil
                        payload[path] = nil
                    end
                    collect()
                    local churn = {}
                    for n = 1, 500 do churn[n] = ("%d"):format(n):rep(40) end
                    return #churn == 500
                end,
            }))
            assert.equal((i .. " 50 "):rep(20), sandbox.read_file(dir .. "/f50"))
        end
        assert.equal(before, descriptors())
    end)

    -- What one coroutine does, yielding between its calls: each of its snapshots says what it
    -- said when it was opened, whatever the others have written since.
    local function take_turns(own, number, round)
        local data = number .. "." .. round
        local result = assert(own:write { a = data, ["d/b"] = data })
        local snapshot, watcher = assert(atomicwriter.open(dir)), assert(atomicwriter.watch(dir))
        assert(result.changed and snapshot.version == result.version)
        coroutine.yield()
        assert.equal(data, snapshot:read "a")
        coroutine.yield(assert(own:plan { a = "planned" }))
        assert.equal(data, snapshot:read "d/b")
        local told, why = watcher:wait(0)
        assert(why == "timeout" or told > snapshot.version, told)
        coroutine.yield()
        assert.same({ "a", "d/b" }, snapshot:paths())
        snapshot:close()
        watcher:close()
    end

    it("finds coroutines that take turns right, and nothing lost of dropped ones", function()
        local shared, turns, dropped = writer, 0, 0
        for round = 1, ROUNDS do
            local threads = {}
            for i = 1, 4 do
                local own = i % 2 == 0 and shared or
                    assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
                threads[i] = coroutine.create(function() take_turns(own, i, round) end)
            end
            for turn = 1, 4 do
                for i, thread in pairs(threads) do
                    local ok, raised = coroutine.resume(thread)
                    assert.is_true(ok, raised)
                    turns = turns + 1
                    if (round + i) % 4 == turn then -- with a lease, a watch, and maybe a writer
                        threads[i], dropped = nil, dropped + 1
                    end
                end
                collectgarbage "step"
            end
            for _, thread in pairs(threads) do assert.equal("dead", coroutine.status(thread)) end
            if round % 8 == 0 then collect() end -- a user has 128 inotify queues in all
        end
        assert.is_true(turns > 8 * ROUNDS and dropped >= 2 * ROUNDS)
        assert.equal(before, descriptors())
        assert(writer:write { a = "end" })
        assert.equal(1, #assert(writer:versions()))
    end)

    it("refuses a writer to a coroutine that its own check or progress function resumes", function()
        local other = assert(atomicwriter.new(dir, { durability = "none", lock_timeout = 0 }))
        for i = 1, ROUNDS do
            local refused = 0
            local thread = coroutine.wrap(function()
                while true do
                    for _, method in ipairs { "write", "plan", "rollback", "collect", "close" } do
                        local ok, raised = pcall(writer[method], writer, { a = "within" })
                        refused = refused + 1
                        assert(not ok and raised:find("writer is busy", 1, true), raised)
                    end
                    local result, err = other:write { a = "other" }
                    assert(not result and err.code == "locked", err)
                    coroutine.yield(true)
                end
            end)
            local _, err = writer:write({ a = "w" .. i }, {
                check = function()
                    collect()
                    return thread()
                end,
                progress = function(step) return step.phase ~= "write" or thread() end,
            })
            assert.is_nil(err)
            assert.is_true(refused >= 10)
            assert.equal("w" .. i, sandbox.read_file(dir .. "/a"))
        end
        other:close()
        assert.equal(before, descriptors())
    end)

    -- Call FINALIZER when the collector next finds garbage.
    local function litter(finalizer)
        if lua54 then
            setmetatable({}, { __gc = finalizer })
        else
            getmetatable(rawget(_G, "newproxy")(true)).__gc = finalizer
        end
    end

    it("may close an object in the middle of any of its methods, through a finalizer", function()
        local new, open, watch = atomicwriter.new, atomicwriter.open, atomicwriter.watch
        local calls = {
            { new, "write", { a = "1" }, { check = function() end } }, { new, "plan", { a = "1" } },
            { new, "rollback" }, { new, "versions" }, { new, "collect" },
            { open, "read", "a" }, { open, "paths" }, { open, "stat", "a" },
            { open, "is_current" }, { watch, "wait", 0 }, { watch, "fd" },
        }
        local interrupted, round = 0, 0
        collectgarbage("setpause", 0)
        collectgarbage("setstepmul", 10000)
        while interrupted < 8 and round < 5000 do -- about one in ten closes it within
            round = round + 1
            local call = calls[round % #calls + 1]
            local make, method, first, second = call[1], call[2], call[3], call[4]
            local object = assert(make(dir))
            local closed = false
            litter(function()
                pcall(object.close, object)
                closed = true
            end)
            local tries, ok, raised = 0, true, nil
            while ok and not closed and tries < 500 do
                ok, raised = pcall(object[method], object, first, second)
                tries = tries + 1
            end
            assert.is_true(ok or raised:find("is closed", 1, true) ~= nil, raised)
            if not ok then interrupted = interrupted + 1 end
        end
        assert.equal(8, interrupted)
        collectgarbage("setpause", 200)
        collectgarbage("setstepmul", 200)
        assert.equal(before, descriptors())
    end)

    it("may close a writer, and mend its payload, while a wrong entry of that is put in words",
        function()
            local words = {}
            for i = 1, 30 * ROUNDS do
                local target = assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
                local payload = { a = "0", ["d/b"] = "0" }
                assert(target:write(payload))
                payload["d/b"] = 42
                collectgarbage()
                if lua54 then collectgarbage("incremental", 100, 10 + i % 900, 1 + i % 12) end
                if lua54 then
                    setmetatable({}, { __gc = function()
                        payload["d/b"] = "0"
                        target:close()
                    end })
                end
                for _ = 1, i % 60 do local _ = {} end
                local _, result, err = pcall(target.write, target, payload)
                words[tostring(err or result)] = true
                target:close()
            end
            for text in pairs(words) do
                assert.truthy(text:find("is closed", 1, true)
                    or text:find("must be a string or a table, not a number", 1, true), text)
            end
        end)

    it("runs finalizers that use the module, also inside a write of the same writer", function()
        local ran, refused = 0, 0
        local function finalizer()
            ran = ran + 1
            local snapshot = assert(atomicwriter.open(dir))
            assert(snapshot:read "a")
            if ran % 2 == 0 then snapshot:close() end
            local ok, raised = pcall(writer.write, writer, { a = "from a finalizer" })
            if not ok and raised:find("busy", 1, true) then refused = refused + 1 end
        end
        for i = 1, ROUNDS do
            litter(finalizer)
            assert(writer:write({ a = "w" .. i }, {
                check = function()
                    litter(finalizer)
                    collect()
                    return true
                end,
            }))
            local snapshot = assert(atomicwriter.open(dir))
            litter(finalizer)
            assert(snapshot:paths())
            assert(snapshot:stat "a")
        end
        collect()
        assert.equal(3 * ROUNDS, ran)
        assert.is_true(refused >= ROUNDS)
        assert.equal(before, descriptors())
    end)

    it("at every step changes nothing about what is returned", function()
        if lua54 then
            collectgarbage("generational")
            collectgarbage("incremental", 50, 1000)
        end
        collectgarbage("setpause", 0)
        collectgarbage("setstepmul", 1000)
        for i = 1, ROUNDS do
            local payload = {}
            for n = 1, 20 do payload[("d%d/%d-%d"):format(n % 3, i, n)] = "data" .. n end
            local plan = assert(writer:plan(payload))
            local result = assert(writer:write(payload))
            assert.equal(20, #result.added)
            assert.same(plan.added, result.added)
            assert.same(plan.removed, result.removed)
            local snapshot = assert(atomicwriter.open(dir))
            assert.same(result.added, snapshot:paths())
            for path, data in pairs(payload) do assert.equal(data, snapshot:read(path)) end
            local _, err = snapshot:read "missing"
            assert.equal("missing", err.path)
            _, err = writer:write { ["../x"] = "" }
            assert.equal("../x", err.path)
            assert.equal(result.version, assert(writer:versions())[1].name)
        end
        collectgarbage("setpause", 200)
        collectgarbage("setstepmul", 200)
        assert.equal(before, descriptors())
    end)

    it("closes a writer in a state that ends in the middle of its check", function()
        local words = sandbox.lua(dir, function(target)
            local w = assert(require "atomicwriter".new(target))
            local s = assert(require "atomicwriter".open(target))
            w:write({ a = "never", [target:sub(2)] = s.version }, {
                check = function() os.exit(7, true) end,
            })
        end, dir)
        assert.equal(7, (sandbox.run(sandbox.sh(words))))
        assert.equal("0", sandbox.read_file(dir .. "/a"))
        assert(writer:write { a = "1" })
        assert.equal(1, #assert(writer:versions()))
    end)

    it("survives an interpreter that ends with everything open", function()
        local words = sandbox.lua(dir, function(target)
            local aw = require "atomicwriter"
            _G.kept = { assert(aw.new(target)), assert(aw.open(target)), assert(aw.watch(target)) }
            for _ = 1, 20 do
                _G.kept[#_G.kept + 1] = assert(aw.open(target))
                _G.kept[1]:write({ a = "x" }, { check = function() error "no" end })
            end
        end, dir)
        assert.same({ 0, "", "" }, { sandbox.run(sandbox.sh(words)) })
    end)

    it("finds nothing lost when a hook raises at any point, as a time-out does", function()
        local raised = 0
        for count = 1, ROUNDS do
            local ok = pcall(function()
                debug.sethook(function()
                    debug.sethook()
                    error("out of time", 0)
                end, "", count)
                local w = atomicwriter.new(dir)
                local s = atomicwriter.open(dir)
                w:write({ a = "t" .. count, b = { data = "x" } }, {
                    check = function(stage) return #stage > 0 end,
                })
                s:read "a"
                s:paths()
                w:versions()
                w:close()
                debug.sethook()
            end)
            debug.sethook()
            if not ok then raised = raised + 1 end
        end
        assert.is_true(raised > 5)
        collect()
        assert(writer:write { a = "end" })
        assert.equal(before, descriptors())
    end)

    -- Run BODY in a child that may have no more address space than that.
    local function within_110_mb(body)
        if (os.getenv "LD_PRELOAD" or ""):find("asan", 1, true) then
            pending "AddressSanitizer needs the address space"
        end
        return { sandbox.run("ulimit -v 110000; " .. sandbox.sh(sandbox.lua(dir, body, dir))) }
    end

    it("frees what the core has read when Lua has no memory left to take it", function()
        assert(writer:write { big = ("x"):rep(64 * 1024 * 1024) })
        collect()
        assert.same({ 0, "", "" }, within_110_mb(function(target)
            local s = assert(require "atomicwriter".open(target))
            for _ = 1, 10 do -- the second would not get as far if the first had lost 64 MiB
                local ok, raised = pcall(s.read, s, "big")
                assert(not ok and tostring(raised):find("not enough memory", 1, true), raised)
                collectgarbage()
            end
        end))
    end)

    it("frees a payload that was refused at its end", function()
        assert.same({ 0, "", "" }, within_110_mb(function(target)
            local w = assert(require "atomicwriter".new(target))
            local payload = {}
            for i = 1, 10000 do payload[("d"):rep(200) .. i] = "" end
            payload["../wrong"] = ""
            for _ = 1, 100 do -- 2 MiB each, less what came behind the wrong one
                local result, err = w:plan(payload)
                assert(not result and err.code == "invalid_payload", err)
            end
        end))
    end)
end)
