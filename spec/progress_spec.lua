--- What a write tells while it runs, and how it is cancelled.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("progress", function()
    local dir, target, writer

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        writer = assert(atomicwriter.new(target, { create = true }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    -- All calls of one write, each as { phase=, files=, total=, bytes= }.
    local function told(payload)
        local calls = {}
        local result = assert(writer:write(payload, {
            progress = function(progress) calls[#calls + 1] = progress end,
        }))
        return calls, result
    end

    -- The phases in CALLS in their order, each once.
    local function phases(calls)
        local list = {}
        for _, call in ipairs(calls) do
            if list[#list] ~= call.phase then list[#list + 1] = call.phase end
        end
        return list
    end

    ---- what is told ----------------------------------------------------------

    it("is told when each phase begins", function()
        local calls = told(volume.before)
        assert.same({ "compare", "write", "sync" }, phases(calls))
        local seen = {}
        for _, call in ipairs(calls) do
            if not seen[call.phase] then
                assert.same({ phase = call.phase, files = 0, total = 8, bytes = 0 }, call)
            end
            seen[call.phase] = true
        end
    end)

    it("of what is not synced tells of no sync, and of no change only the comparison", function()
        writer:close()
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
        assert.same({ "compare", "write" }, phases(told(volume.before)))
        assert.same({ "compare" }, phases(told(volume.before)))
    end)

    it("is told again while a phase lasts, about ten times a second and no more", function()
        local files, lasted = 500, false
        repeat
            local payload = {}
            for i = 1, files do payload["f" .. i] = ("%d "):format(files):rep(100) end
            local start = sandbox.now()
            local calls = told(payload)
            local limit = (sandbox.now() - start) / 0.099 + 4
            assert.is_true(#calls <= limit, #calls .. " calls, not " .. limit)
            for i = 2, #calls do
                local before, call = calls[i - 1], calls[i]
                if before.phase == call.phase then
                    assert.is_true(call.files >= before.files and call.bytes >= before.bytes)
                    lasted = lasted or call.files > before.files and call.files <= call.total
                end
            end
            files = files * 2
        until lasted or files > 200000
        assert.is_true(lasted)
    end)

    ---- what it answers -------------------------------------------------------

    local function cancel_in(phase, answer)
        return function(progress)
            if progress.phase == phase then return answer() end
        end
    end

    for _, phase in ipairs { "compare", "write", "sync" } do
        it("G2: cancels with false, and the reason, in the phase " .. phase, function()
            assert(writer:write(volume.before))
            local before = sandbox.listing(target)
            local result, err = writer:write(volume.after, {
                progress = cancel_in(phase, function() return false, "not today" end),
                check = function() return true end,
            })
            assert.is_nil(result)
            assert.equal("cancelled", err.code)
            assert.equal(target .. ": cancelled: not today", err.message)
            assert.is_false(err.committed)
            assert.equal(before, sandbox.listing(target))
            assert(writer:write(volume.after))
            assert(volume.shows(target, volume.after))
        end)
    end

    it("G2: cancels by raising, too, and the error is the reason", function()
        for text, raise in pairs {
            ["spec%.lua:%d+: stop here$"] = function() error "stop here" end,
            [": cancelled: 42$"] = function()
                error(setmetatable({}, { __tostring = function() return "42" end }))
            end,
            ["cannot be shown: "] = function() error(setmetatable({}, { __tostring = error })) end,
            ["yield"] = function() coroutine.yield() end,
        } do
            local result, err = writer:write({ a = "1" }, { progress = raise })
            assert.is_nil(result)
            assert.equal("cancelled", err.code)
            assert.matches(text, err.message)
            assert.is_nil(sandbox.kind(target))
        end
    end)

    it("goes on whatever else is returned", function()
        for i, answer in ipairs { true, 0, "", "stop", {} } do
            local result = assert(writer:write({ a = tostring(i) }, {
                progress = function() return answer, "a reason" end,
            }))
            assert.is_true(result.changed)
        end
        assert(writer:write({ a = "nothing" }, { progress = function() end }))
        assert(writer:write({ a = "nil" }, { progress = function() return nil, "a reason" end }))
        assert(volume.shows(target, { a = "nil" }))
    end)

    it("is not asked once the new version is live", function()
        assert(writer:write(volume.before))
        local live, late = volume.live(target), 0
        assert(writer:write(volume.after, {
            progress = function()
                if volume.live(target) ~= live then late = late + 1 end
            end,
        }))
        assert.equal(0, late)
    end)

    it("may change the payload, which was taken as it was", function()
        local payload, expected = {}, {}
        for i = 1, 200 do
            local path, data = "f" .. i, ("data of %d "):format(i):rep(50)
            payload[path] = i % 2 == 0 and data or { data = data, mode = "0600" }
            expected[path] = ("data of %d "):format(i):rep(50)
        end
        assert(writer:write(payload, {
            progress = function()
                for path in pairs(payload) do payload[path] = nil end
                for i = 1, 20 do payload[i] = ("garbage "):rep(100 + i) end
                collectgarbage()
                collectgarbage()
            end,
        }))
        assert(volume.shows(target, expected))
    end)

    ---- waiting for the lock --------------------------------------------------

    describe("while another writer holds the lock", function()
        -- Runs BODY(second writer) while the first one is in the middle of a write.
        local function while_locked(body)
            local second = assert(atomicwriter.new(target, { create = true, lock_timeout = 100 }))
            assert(writer:write({ a = "first" }, {
                check = function()
                    body(second)
                    return true
                end,
            }))
            second:close()
        end

        it("is told as the phase lock", function()
            while_locked(function(second)
                local calls = {}
                local result, err = second:write({ a = "second" }, {
                    progress = function(progress)
                        calls[#calls + 1] = progress
                        return #calls < 3
                    end,
                })
                assert.is_nil(result)
                assert.equal("cancelled", err.code)
                assert.equal(target .. ": cancelled", err.message)
                local waiting = { phase = "lock", files = 0, total = 0, bytes = 0 }
                assert.same({ waiting, waiting, waiting }, calls)
            end)
            assert(volume.shows(target, { a = "first" }))
        end)

        it("cancels by raising, a rollback too, and the writer can be used again", function()
            while_locked(function(second)
                for _, call in ipairs { "write", "rollback" } do
                    local result, err = second[call](second, call == "write" and {} or nil, {
                        progress = function() error "enough" end,
                    })
                    assert.is_nil(result)
                    assert.equal("cancelled", err.code)
                    assert.matches("enough$", err.message)
                end
                assert.is_true(assert(second:plan({ a = "second" })).changed)
            end)
        end)
    end)

    it("loses nothing when a debug hook raises at any point, as ^C does", function()
        local function descriptors()
            collectgarbage()
            collectgarbage()
            return #sandbox.names("/proc/self/fd")
        end
        assert(writer:write { a = "0" })
        local before, raised, cancelled = descriptors(), 0, 0
        for count = 1, 150 do
            local ok, result, err = pcall(function()
                debug.sethook(function()
                    debug.sethook()
                    error("interrupted", 0)
                end, "", count)
                local options = { progress = function(progress) return #progress.phase > 0 end }
                local result, err = writer:write({ a = "1", b = { data = "x" } }, options)
                if result then result, err = writer:rollback(nil, options) end
                atomicwriter.inspect(target)
                debug.sethook()
                return result, err
            end)
            debug.sethook()
            if not ok then
                raised = raised + 1
            elseif not result then
                cancelled = cancelled + 1
                assert.equal("cancelled", err.code)
                assert.matches("interrupted", err.message)
            end
        end
        assert.is_true(raised > 5 and cancelled > 0)
        assert(writer:write { a = "end" })
        assert.equal(before, descriptors())
    end)

    ---- rollback --------------------------------------------------------------

    it("is told by a rollback, and cancels it", function()
        assert(writer:write(volume.before))
        assert(writer:write(volume.after))
        local before, calls = sandbox.listing(target), {}
        local result, err = writer:rollback(nil, {
            progress = function(progress)
                calls[#calls + 1] = progress
                return progress.phase ~= "sync"
            end,
        })
        assert.is_nil(result)
        assert.equal("cancelled", err.code)
        assert.same({ "compare", "write", "sync" }, phases(calls))
        assert.equal(before, sandbox.listing(target))
        assert(writer:rollback(nil, { progress = function() end }))
        assert(volume.shows(target, volume.before))
    end)

    it("stands beside a check, in a rollback too", function()
        assert(writer:write(volume.before))
        assert(writer:write(volume.after))
        local seen
        local options = {
            progress = function() return true end,
            check = function(stage)
                seen = sandbox.read_file(stage .. "/changed")
                return false, "no"
            end,
        }
        local result, err = writer:rollback(nil, options)
        assert.is_nil(result)
        assert.equal("check_failed", err.code)
        assert.equal("before", seen)
        assert(volume.shows(target, volume.after))
    end)
end)
