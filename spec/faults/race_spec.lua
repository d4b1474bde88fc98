--- Many processes on one target, for RACE_SECONDS (20): eight write, one rolls back, one
-- collects and plans, eight read, in every way that there is (see crowd.lua).
--
-- What is proved: no call fails that has no reason to; whatever a reader meets, by a
-- snapshot or through `..data` opened once, is all of one generation of one writer; a
-- lease holds while others publish; no reader and no writer meets a version older than
-- the last it met; and one more write leaves the target clean. The verdict depends on
-- no timing; how often they met is printed.

local atomicwriter = require "atomicwriter"
local crowd = require "spec.faults.crowd"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local SECONDS = tonumber(os.getenv "RACE_SECONDS") or 20
local WRITING = { writer = 8 }
local UNDOING = { roller = 1, collector = 1 }
local READING = { snapshot = 3, plain = 3, slow = 1, watcher = 1 }

describe("G1 G6 G9: a crowd on one target", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
    end)
    after_each(function() sandbox.cleanup() end)

    -- Start as many children as ROLES says.
    local function start(roles, ends)
        local children = {}
        for role, count in pairs(roles) do
            for number = 1, count do
                local child = sandbox.spawn(sandbox.lua(dir, function(...)
                    require("spec.faults.crowd").run(...)
                end, role, target, number, ends))
                child.role = role
                children[#children + 1] = child
            end
        end
        return children
    end

    -- How often the CHILDREN did their work; adds to errors and torn of SUM.
    local function finish(children, sum)
        local total = 0
        for _, child in ipairs(children) do
            local status, stdout, stderr = child:wait(SECONDS + 300)
            assert.equal(0, status, child.role .. ": " .. tostring(stderr))
            local done, errors, torn, first = stdout:match("^(%d+)\t(%d+)\t(%d+)\t(.*)\n$")
            total = total + tonumber(done)
            sum.errors, sum.torn = sum.errors + tonumber(errors), sum.torn + tonumber(torn)
            if first ~= "" then sum.first = sum.first or child.role .. ": " .. first end
        end
        return total
    end

    it("meets no error and nothing torn, and leaves nothing behind", function()
        local last = assert(atomicwriter.new(target, { durability = "none", keep = 1 }))
        assert(last:write(crowd.payload(0, 1)))
        local ends = sandbox.now() + SECONDS
        local writers, undoers = start(WRITING, ends), start(UNDOING, ends)
        local readers = start(READING, ends)
        local sum = { errors = 0, torn = 0 }
        local writes, undone = finish(writers, sum), finish(undoers, sum)
        local reads = finish(readers, sum)
        print(("# race: %d writes, %d rollbacks and collections, %d reads, %d errors, %d torn"
            .. " (%d s)"):format(writes, undone, reads, sum.errors, sum.torn, SECONDS))
        assert.same({ errors = 0, torn = 0 }, sum)
        assert.is_true(writes >= 8 and undone >= 2 and reads >= 8)
        local files = crowd.payload(0, 2)
        assert(last:write(files))
        assert(volume.shows(target, files))
    end)
end)
