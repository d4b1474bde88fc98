--- Users and groups by name, as the core asks the system for them.

local core = require "atomicwriter.core"
local sandbox = require "spec.support.sandbox"

describe("owners by name", function()
    after_each(sandbox.cleanup)

    -- Exactly one value: nil.
    local function unknown(...)
        assert.same({ n = 1 }, { n = select("#", ...), ... })
    end

    for database, functions in pairs {
        passwd = { core.user_id, core.user_name }, group = { core.group_id, core.group_name },
    } do
        local id, name = functions[1], functions[2]

        it("are what the system says, for everything in " .. database, function()
            local count, first = 0, {}
            for line in sandbox.must({ "getent", database }):gmatch("[^\n]+") do
                local named, number = line:match("^([^:]*):[^:]*:(%d+)")
                first[number] = first[number] or named
                assert.equal(tonumber(number), id(named))
                assert.equal(first[number], name(tonumber(number)))
                count = count + 1
            end
            assert.is_true(count > 0)
        end)

        it("are nil alone when unknown in " .. database, function()
            unknown(id "no such name")
            unknown(id "")
            unknown(id "root\0")
            unknown(id(("x"):rep(100000)))
            unknown(name(4294967294))
        end)

        it("raise for what is neither a name nor a number in " .. database, function()
            assert.has_error(function() id(0) end)
            assert.has_error(function() id() end)
            for _, wrong in ipairs { "0", -1, 0.5, 4294967295, true } do
                assert.has_error(function() name(wrong) end)
            end
        end)
    end

    it("know a group of thousands of members", function()
        local dir = sandbox.tmpdir()
        local members = {}
        for i = 1, 20000 do members[i] = "member" .. i end
        sandbox.write_file(dir .. "/group", "root:x:0:\ncrowd:x:4242:"
            .. table.concat(members, ",") .. "\nlast:x:4243:\n", "0644")
        local status, out, err = sandbox.run(sandbox.with_mounts('mount --bind "$1" /etc/group',
            dir .. "/group", sandbox.lua(dir, function()
                local c = require "atomicwriter.core"
                print(c.group_id "crowd", c.group_name(4242), c.group_id "last")
            end)))
        if status == 77 then pending "needs a mount namespace" end
        assert.equal(0, status, err)
        assert.equal("4242\tcrowd\t4243\n", out)
    end)

    it("are nil and an error when the system cannot say", function()
        local dir = sandbox.tmpdir()
        local status, out, err = sandbox.run("ulimit -n 30; " .. sandbox.sh(
            sandbox.lua(dir, function()
                local c = require "atomicwriter.core"
                c.user_id "root" -- what libc loads once
                local files = {}
                for i = 1, 40 do files[i] = io.open("/dev/null") end
                assert(#files < 40)
                for _, ask in ipairs { c.user_id, c.group_id } do
                    local found, problem = ask "root"
                    print(found, type(problem) == "table" and problem.code, problem)
                end
            end)))
        assert.equal(0, status, err)
        local line = "nil\tio\taccount lookup failed: Too many open files\n"
        assert.equal(line .. line, out)
    end)
end)
