-- What a writer does after the call has returned, from Lua: `early`, `prepare` and `settle`. What
-- others see of it, and what becomes of it when anything fails, is for spec/c/after_test.c.

local lfs = require "lfs"
local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FILES = 400

-- FILES files, one of which says NUMBER.
local function set(number)
    local payload = { changes = tostring(number) }
    for i = 1, FILES do payload[("d%d/f%d"):format(i % 10, i)] = "stays " .. i end
    return payload
end

local function descriptors()
    local count = 0
    for _ in lfs.dir("/proc/self/fd") do count = count + 1 end
    return count
end

-- The names in DIR that are neither visible ones nor ..data and ..lock.
local function inner_names(dir)
    local found = {}
    for name in lfs.dir(dir) do
        if name:find "^%.%.." and name ~= "..data" and name ~= "..lock" then
            found[#found + 1] = name
        end
    end
    table.sort(found)
    return found
end

describe("after the call,", function()
    local dir, writer

    before_each(function() dir = sandbox.memdir() end)
    after_each(function()
        if writer then writer:close() end
        writer = nil
        sandbox.cleanup()
    end)

    local function open(more)
        local options = { durability = "none", keep = 0 }
        for name, value in pairs(more) do options[name] = value end
        writer = assert(atomicwriter.new(dir, options))
        return writer
    end

    it("early: the old version is removed when settle returns", function()
        open { early = true }
        for number = 1, 5 do
            local result = assert(writer:write(set(number)))
            assert.is_true(result.changed)
            assert.equal(tostring(number), sandbox.read_file(dir .. "/changes"))
            writer:settle()
            assert.same({ result.version }, inner_names(dir))
        end
    end)

    it("prepare: what is ahead is ..next, which a closed writer takes with it", function()
        open { prepare = true }
        for number = 1, 3 do assert(writer:write(set(number))) end
        writer:settle()
        local names = inner_names(dir)
        -- Before Linux 6.13 nothing can be prepared.
        assert.is_true(#names == 1 or (#names == 2 and names[2] == "..next"), names[2])
        assert(volume.shows(dir, set(3), nil, true))
        writer:close()
        assert.equal(1, #inner_names(dir))
    end)

    it("the next call of this writer, and of another, waits for the thread", function()
        open { early = true, prepare = true }
        local other = assert(atomicwriter.new(dir, { durability = "none", keep = 0 }))
        for number = 1, 20, 2 do
            assert(writer:write(set(number)))
            assert(other:write(set(number + 1)))
        end
        assert(writer:write(set(20)))
        writer:settle()
        writer:close()
        other:close()
        assert(volume.shows(dir, set(20)))
    end)

    it("settle does nothing where there is no thread, and asks for an open writer", function()
        open {}
        writer:settle()
        assert(writer:write(set(1)))
        writer:settle()
        writer:close()
        assert.error(function() writer:settle() end)
    end)

    it("writers dropped while their threads work lose no descriptor and no lock", function()
        local before = descriptors()
        for number = 1, 20 do
            local dropped = assert(atomicwriter.new(dir,
                { durability = "none", keep = 0, early = true, prepare = true }))
            assert(dropped:write(set(number)))
            dropped = nil -- luacheck: ignore
            collectgarbage()
            collectgarbage()
        end
        assert.equal(before, descriptors())
        open { lock_timeout = 0 }
        assert(writer:write(set(20)))
        assert.equal(1, #inner_names(dir))
        assert(volume.shows(dir, set(20)))
    end)

    describe("a process that ends while its thread works leaves a whole version, by", function()
        local function body(target, ending, files)
            local function payload(number)
                local made = { changes = tostring(number) }
                for i = 1, tonumber(files) do
                    made[("d%d/f%d"):format(i % 10, i)] = "stays " .. i
                end
                return made
            end
            local own = assert(require "atomicwriter".new(target,
                { durability = "none", keep = 0, early = true, prepare = true }))
            for number = 1, 3 do assert(own:write(payload(number))) end
            if ending == "error" then error "on purpose" end
            if ending == "exit" then os.exit(0) end
            if ending == "exit, closing" then os.exit(0, true) end
        end

        for ending, wanted in pairs {
            ["exit"] = 0, ["exit, closing"] = 0, ["the end"] = 0, ["error"] = 1,
        } do
            it(ending, function()
                for _ = 1, 5 do
                    local status, _, err = sandbox.run(sandbox.lua(sandbox.tmpdir(), body, dir,
                        ending, tostring(FILES)))
                    assert.equal(wanted, status, err)
                    assert.equal("3", sandbox.read_file(dir .. "/changes"))
                    if ending ~= "exit" then assert.equal(1, #inner_names(dir), err) end
                    open { lock_timeout = 0 }
                    assert(writer:write(set(4)))
                    assert.equal(1, #inner_names(dir))
                    assert(volume.shows(dir, set(4)))
                    writer:close()
                end
            end)
        end
    end)
end)
