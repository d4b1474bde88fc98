--- Versions that are kept, and going back to them.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("A retained version", function()
    local dir, target, writers

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        writers = {}
    end)
    after_each(function()
        for _, writer in ipairs(writers) do writer:close() end
        sandbox.cleanup()
    end)

    local function open(keep)
        local writer = assert(atomicwriter.new(target,
            { durability = "none", create = true, keep = keep }))
        writers[#writers + 1] = writer
        return writer
    end

    -- Write { n = "1" }, { n = "2" }, …, and return the versions' names.
    local function write(writer, count, first)
        local names = {}
        for n = first or 1, (first or 1) + count - 1 do
            names[#names + 1] = assert(writer:write { n = tostring(n) }).version
        end
        return names
    end

    ---- keep ------------------------------------------------------------------

    for keep = 0, 4 do
        it("is one of " .. keep .. " when keep is " .. keep, function()
            local names = write(open(keep), 8)
            local expected = {}
            for i = 8 - keep, 8 do expected[#expected + 1] = names[i] end
            assert.same(expected, volume.versions(target))
            assert(volume.shows(target, { n = "8" }, keep))
        end)
    end

    it("is one of one when keep is not given", function()
        local writer = assert(atomicwriter.new(target, { durability = "none", create = true }))
        local names = write(writer, 5)
        assert.same({ names[4], names[5] }, volume.versions(target))
    end)

    it("goes when keep is lowered, also by a write that changes nothing", function()
        write(open(5), 6)
        assert.equal(6, #volume.versions(target))
        assert.is_false(assert(open(2):write { n = "6" }).changed)
        assert.equal(3, #volume.versions(target))
        assert(open(0):write { n = "7" })
        assert.equal(1, #volume.versions(target))
    end)

    it("is not added to by a write that changes nothing", function()
        local writer = open(3)
        write(writer, 2)
        for _ = 1, 5 do assert(writer:write { n = "2" }) end
        assert.equal(2, #volume.versions(target))
    end)

    ---- versions --------------------------------------------------------------

    it("is listed by versions: newest first, with its time, the live one marked", function()
        local writer = open(3)
        local names = write(writer, 6)
        local list = assert(writer:versions())
        assert.equal(4, #list)
        for i, version in ipairs(list) do
            assert.equal(names[7 - i], version.name)
            assert.equal(i == 1, version.live)
            assert.equal(version.name:match("^%.%.(.*)%.%d+$"),
                os.date("!%Y_%m_%d_%H_%M_%S", version.time))
        end
    end)

    it("is not listed where there is none", function()
        sandbox.mkdir(target)
        assert.same({}, assert(open():versions()))
        assert.same({}, sandbox.names(target))
    end)

    it("is not what a killed writer left unfinished", function()
        local writer = open(3)
        write(writer, 1)
        local unfinished = target .. "/..2098_01_01_00_00_00.1"
        sandbox.mkdir(unfinished)
        sandbox.write_file(unfinished .. "/n", "half")
        for _, version in ipairs(assert(writer:versions())) do
            assert.not_equal("..2098_01_01_00_00_00.1", version.name)
        end
        for _, name in ipairs { "..2098_01_01_00_00_00.1", false } do
            local result, err = writer:rollback(name or nil)
            assert.is_nil(result)
            assert.equal("not_found", err.code)
        end
        assert(volume.consume(target).n == "1")
        assert(writer:write { n = "2" })
        assert.is_nil(sandbox.kind(unfinished))
        assert(volume.shows(target, { n = "2" }, 3))
    end)

    ---- rollback --------------------------------------------------------------

    it("is published again under a new, greater name", function()
        local writer = open(1)
        local names = write(writer, 2)
        local result = assert(writer:rollback())
        assert.is_true(result.changed)
        assert.equal(names[2], result.previous)
        assert.is_true(volume.older(names[2], result.version))
        assert.same({ "n" }, result.updated)
        assert.same({}, result.warnings)
        assert(volume.shows(target, { n = "1" }, 1))
        assert.same({ names[2], result.version }, volume.versions(target))
    end)

    for _, reuse in ipairs { true, false } do
        it("is published with its data, modes and owners, reuse = " .. tostring(reuse), function()
            local writer = assert(atomicwriter.new(target,
                { durability = "none", create = true, reuse = reuse }))
            writers[#writers + 1] = writer
            local root = sandbox.is_root()
            local function look(version)
                local text = sandbox.listing(target .. "/" .. version)
                return (text:gsub("inode=%d+", ""):gsub("links=%d+", ""):gsub("mtime=[%d.]+", ""))
            end
            local odd = { data = "\0", mode = "0511" }
            if root then odd.uid, odd.gid = 1, 2 end
            local first = assert(writer:write { a = { data = "1", mode = "0600" }, ["b/c/d"] = "2",
                [".e"] = odd })
            local before = look(first.version)
            assert(writer:write { a = "else", x = "new" })
            local inode = sandbox.inode(target .. "/" .. first.version .. "/a")
            local result = assert(writer:rollback())
            assert.equal(before, look(result.version))
            assert.equal(reuse, inode == sandbox.inode(target .. "/..data/a"))
            assert(volume.shows(target, { a = "1", ["b/c/d"] = "2", [".e"] = "\0" }))
            assert.same({ ".e", "b/c/d" }, result.added)
            assert.same({ "a" }, result.updated)
            assert.same({ "x" }, result.removed)
        end)
    end

    it("is chosen by its name", function()
        local writer = open(8)
        local names = write(writer, 5)
        for _, n in ipairs { 2, 4, 1 } do
            local live = volume.live(target)
            assert.equal(live, assert(writer:rollback(names[n])).previous)
            assert(volume.shows(target, { n = tostring(n) }, 8))
        end
    end)

    it("is the newest one by default, so that twice is there and back", function()
        local writer = open(3)
        write(writer, 3)
        for _, n in ipairs { "2", "3", "2", "3" } do
            assert(writer:rollback())
            assert(volume.shows(target, { n = n }, 3))
        end
    end)

    it("keeps its own name out of use: names only ever increase", function()
        local writer = open(2)
        local names = write(writer, 2)
        for i = 1, 20 do
            names[#names + 1] = assert(writer:rollback()).version
            if i % 4 == 0 then names[#names + 1] = assert(writer:write { n = "w" .. i }).version end
        end
        for i = 2, #names do assert.is_true(volume.older(names[i - 1], names[i])) end
    end)

    it("that does not exist is not_found, and nothing changes", function()
        local writer = open(2)
        local names = write(writer, 4)
        local before = sandbox.listing(dir)
        for _, name in ipairs { names[1], "..2000_01_01_00_00_00.1", "nonsense", "", ".", "..",
            "../target", "..data", "..data/n", "..lock", names[3] .. "/", "/etc", "n",
            names[3] .. "\0", ("x"):rep(5000) } do
            local result, err = writer:rollback(name)
            assert.is_nil(result)
            assert.equal("not_found", err.code, ("%q"):format(name))
            assert.is_false(err.committed)
        end
        assert.equal(before, sandbox.listing(dir))
    end)

    it("that does not exist is not_found when nothing is kept", function()
        local writer = open(0)
        sandbox.mkdir(target)
        local _, err = writer:rollback()
        assert.equal("not_found", err.code)
        write(writer, 2)
        _, err = writer:rollback()
        assert.equal("not_found", err.code)
        assert(volume.shows(target, { n = "2" }, 0))
    end)

    it("is published only if the expected version is live, and else nothing changes", function()
        local writer = open(3)
        local names = write(writer, 3)
        local before = sandbox.listing(target)
        for _, expect in ipairs { names[2], "..2999_01_01_00_00_00.1", "", "nonsense" } do
            local result, err = writer:rollback(nil, { expect = expect })
            assert.is_nil(result)
            assert.equal("not_found", err.code)
            assert.equal(expect ~= "" and expect or nil, err.path)
            assert.truthy(err.message:find("not the live version: that is " .. names[3], 1, true))
            assert.is_false(err.committed)
        end
        assert.equal(before, sandbox.listing(target))
        assert(writer:rollback(nil, { expect = names[3] }))
        assert(volume.shows(target, { n = "2" }, 3))
        assert(writer:rollback(names[1], { expect = volume.live(target) }))
        assert(volume.shows(target, { n = "1" }, 3))
    end)

    it("is expected once the lock is held: not what another has published meanwhile", function()
        local writer = open(3)
        local names = write(writer, 2)
        local child = sandbox.spawn(sandbox.lua(dir, function(where, held, go)
            local system = require "system"
            local other = assert(require("atomicwriter").new(where, { keep = 3 }))
            assert(other:write({ n = "newer" }, {
                check = function()
                    io.open(held, "w"):close()
                    for _ = 1, 6000 do
                        if io.open(go) then return true end
                        system.sleep(0.01)
                    end
                end,
            }))
        end, target, dir .. "/held", dir .. "/go"))
        assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/held") end))
        local options
        options = {
            expect = table.concat({ names[2] }),
            progress = function(progress)
                if progress.phase == "lock" then sandbox.write_file(dir .. "/go", "") end
                options.expect = nil -- it was taken when the call began
                collectgarbage()
            end,
        }
        local _, err = writer:rollback(nil, options)
        assert.equal(0, (child:wait(60)))
        assert.equal("not_found", err.code)
        assert.equal(names[2], err.path)
        assert(volume.shows(target, { n = "newer" }, 3))
    end)

    it("is not expected of anything where nothing is live", function()
        local writer = open(3)
        local names = write(writer, 2)
        assert(os.remove(target .. "/..data"))
        local _, err = writer:rollback(nil, { expect = names[2] })
        assert.equal("not_found", err.code)
        assert.matches("none is$", err.message)
        assert.is_true(sandbox.resolves(target .. "/" .. names[1] .. "/n"))
    end)

    it("is not a link that looks like one", function()
        local writer = open(5)
        write(writer, 1)
        sandbox.mkdir(dir .. "/victim")
        sandbox.write_file(dir .. "/victim/n", "secret")
        sandbox.symlink("../victim", target .. "/..2001_01_01_00_00_00.1")
        sandbox.write_file(target .. "/..2001_01_01_00_00_00.2", "a file")
        local before = sandbox.listing(dir .. "/victim")
        for _, name in ipairs { "..2001_01_01_00_00_00.1", "..2001_01_01_00_00_00.2", false } do
            local result = writer:rollback(name or nil)
            assert.is_nil(result, "published " .. tostring(name))
        end
        assert.equal("1", volume.consume(target).n)
        assert.equal(before, sandbox.listing(dir .. "/victim"))
    end)

    it("G7: is refused when a foreign entry has taken one of its names", function()
        local writer = open(1)
        assert(writer:write { a = "1", b = "1" })
        assert(writer:write { b = "2" })
        sandbox.write_file(target .. "/a", "foreign")
        local before = sandbox.listing(target)
        local result, err = writer:rollback()
        assert.is_nil(result)
        assert.equal("foreign_entry", err.code)
        assert.equal("a", err.path)
        assert.equal(before, sandbox.listing(target))
    end)

    it("G5: is reached by a rollback that first sweeps what a killed writer left", function()
        local writer = open(1)
        write(writer, 2)
        sandbox.symlink("..2098_01_01_00_00_00.1", target .. "/..data_tmp")
        sandbox.mkdir(target .. "/..2098_01_01_00_00_00.1")
        sandbox.symlink("..data/stale", target .. "/stale")
        os.remove(target .. "/n")
        assert(writer:rollback())
        assert(volume.shows(target, { n = "1" }))
    end)

    ---- collect ---------------------------------------------------------------

    it("is removed by collect, whatever keep says, and counted", function()
        local writer = open(4)
        local names = write(writer, 5)
        assert.equal(4, assert(writer:collect()))
        assert.same({ names[5] }, volume.versions(target))
        assert(volume.shows(target, { n = "5" }, 0))
        assert.equal(0, assert(writer:collect()))
        local _, err = writer:rollback()
        assert.equal("not_found", err.code)
    end)

    it("G9: is left by collect while a snapshot leases it", function()
        local writer = open(4)
        local names = write(writer, 2)
        local snapshot = assert(atomicwriter.open(target))
        write(writer, 2, 3)
        assert.equal(2, assert(writer:collect()))
        assert.same({ names[2], assert(volume.live(target)) }, volume.versions(target))
        assert.equal("2", assert(snapshot:read("n")))
        snapshot:close()
        assert.equal(1, assert(writer:collect()))
        assert(volume.shows(target, { n = "4" }, 0))
    end)

    it("is not touched by collect on a target without any", function()
        sandbox.mkdir(target)
        assert.equal(0, assert(open():collect()))
        assert.is_nil(sandbox.kind(target .. "/..data"))
    end)

    it("is no_target for collect, rollback and versions before the first write", function()
        local writer = open()
        for _, call in ipairs { "collect", "rollback", "versions" } do
            local result, err = writer[call](writer)
            assert.is_nil(result)
            assert.equal("no_target", err.code)
            assert.is_nil(sandbox.kind(target), call .. " made the target")
        end
    end)
end)
