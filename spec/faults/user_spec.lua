--- Users who may do less than a writer must, and users who hold what a writer needs: no
-- right to write, to search, to lock; every lease there is; the lock itself, for ever.
-- What one is not allowed is an error that says so and changes nothing; what one may
-- hold delays nobody for longer than was agreed.
-- The same with rights merely dropped is in failure_spec, leases of one process are in
-- snapshot_spec, and how exactly the timeout is kept is in c/lock_test.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

describe("Among users", function()
    local dir, scratch, target

    before_each(function()
        dir, scratch = sandbox.memdir(), sandbox.memdir()
        sandbox.chmod(dir, "0755")
        sandbox.chmod(scratch, "0777")
        target = dir .. "/target"
    end)
    after_each(function() sandbox.cleanup() end)

    -- The words that run WORDS as a user who owns nothing here.
    local function as_other(words)
        if not sandbox.is_root() then pending "only root can be another user" end
        if not sandbox.has "setpriv" then pending "there is no setpriv here" end
        local prefix = { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--" }
        if sandbox.run(sandbox.sh(prefix) .. " test -r Makefile -a -r "
            .. sandbox.quote(package.searchpath("atomicwriter.core", package.cpath))) ~= 0 then
            pending "another user may not enter this checkout"
        end
        for _, word in ipairs(words) do prefix[#prefix + 1] = word end
        return prefix
    end

    -- Everything a writer and a reader can do, as another user: "NAME ok" or
    -- "NAME CODE ERRNO COMMITTED PATH", a line each.
    local function all_calls(path)
        local aw = require "atomicwriter"
        local vol = require "spec.support.volume"
        local function tell(name, result, err)
            if result then return print(name, "ok") end
            assert(#err.message > 0 and err.op, "it does not say what failed: " .. tostring(err))
            print(name, err.code, err.errno, err.committed, err.path)
        end
        local w, err = aw.new(path, { lock_timeout = 0 })
        if w then
            tell("write", w:write(vol.after))
            tell("same", w:write(vol.before))
            tell("rollback", w:rollback())
            tell("collect", w:collect())
            tell("plan", w:plan(vol.after))
            tell("versions", w:versions())
        else
            tell("new", w, err)
        end
        local snapshot, why = aw.open(path)
        tell("open", snapshot, why)
        if snapshot then
            for name, data in pairs(vol.before) do
                assert(snapshot:read(name) == data, name)
            end
        end
        tell("inspect", aw.inspect(path))
    end

    -- What ALL_CALLS told, as NAME -> line; nothing below DIR may have changed.
    local function try_all()
        local before = sandbox.listing(dir)
        local status, stdout, stderr = sandbox.run(as_other(
            sandbox.lua(scratch, all_calls, target)))
        assert.equal(0, status, stderr)
        assert.equal(before, sandbox.listing(dir))
        local told = {}
        for name, rest in stdout:gmatch "(%S+)\t([^\n]*)\n" do told[name] = rest end
        return told
    end

    local EACCES = "io\t13\tfalse\t"

    local function prepare(mode, lock_mode)
        volume.prepare(dir, "target", FAST)
        sandbox.chmod(target, mode)
        if lock_mode then sandbox.chmod(target .. "/..lock", lock_mode) end
    end

    ---- who may not -----------------------------------------------------------

    it("G2: who may only read changes nothing, is told why, and reads", function()
        prepare("0755")
        local told = try_all()
        for _, name in ipairs { "write", "same", "rollback", "collect" } do
            assert.equal(EACCES .. "..lock", told[name])
        end
        for _, name in ipairs { "plan", "versions", "open", "inspect" } do
            assert.equal("ok", told[name], name)
        end
    end)

    it("G2: who may lock, but not write, changes nothing and is told why", function()
        prepare("0755", "0666")
        local told = try_all()
        for _, name in ipairs { "write", "rollback" } do
            assert.matches("^" .. EACCES, told[name])
        end
        assert.equal("ok", told.open)
    end)

    it("G2: who may write, but not lock, changes nothing and is told why", function()
        prepare("0777")
        local told = try_all()
        for _, name in ipairs { "write", "same", "rollback", "collect" } do
            assert.equal(EACCES .. "..lock", told[name])
        end
        assert.equal("ok", told.open)
    end)

    for what, mode in pairs { ["may list, but not enter"] = "0744", ["may do nothing"] = "0700",
        ["may enter, but not list"] = "0711" } do
        it("G2: who " .. what .. " is told so by every call", function()
            prepare(mode)
            local told = try_all()
            assert.is_truthy(told.open and told.inspect)
            for name, line in pairs(told) do
                assert.matches("^io\t13\tfalse\t.", line, name)
            end
        end)
    end

    it("G2: who may not enter the target's parent is told so by every call", function()
        prepare("0755")
        sandbox.chmod(dir, "0700")
        for name, line in pairs(try_all()) do
            assert.matches("^io\t13\tfalse\t.", line, name)
        end
    end)

    it("G2: who may not make a target is told so, and nothing is made", function()
        local stdout = sandbox.must(as_other(sandbox.lua(scratch, function(path)
            local w = assert(require("atomicwriter").new(path, { create = true }))
            local _, err = w:write { a = "1" }
            print(err.code, err.errno, err.committed, err.op, err.path)
        end, target)))
        assert.equal(EACCES:gsub("\t$", "") .. "\tmkdirat\t" .. target .. "\n", stdout)
        assert.same({}, sandbox.names(dir))
    end)

    it("G7: two users write in turn, and neither needs what the other may", function()
        sandbox.mkdir(target)
        sandbox.chmod(target, "0777")
        local function other(n)
            return sandbox.must(as_other(sandbox.lua(scratch, function(path, data)
                local vol = require "spec.support.volume"
                local w = assert(require("atomicwriter").new(path))
                local files = { data = data, ["dir/kept"] = "kept" }
                assert(w:write(files))
                assert(vol.resolves(path, files))
                assert(#vol.versions(path) <= 3)
            end, target, n)))
        end
        for i = 1, 3 do
            other("other " .. i) -- the first one makes ..lock, which root may open as well
            assert.equal("other " .. i, sandbox.read_file(target .. "/data"))
            local files = { data = "root " .. i, ["dir/kept"] = "kept" }
            assert(assert(atomicwriter.new(target)):write(files))
            assert(volume.shows(target, files))
        end
    end)

    ---- who holds leases ------------------------------------------------------

    -- flock(1)s every version for as long as SCRATCH/release is not there, new ones too.
    local function hold_all(path, where, how)
        local core = require "spec.support.sandbox"
        local vol = require "spec.support.volume"
        local held = {}
        while core.kind(where .. "/release") == nil do
            for _, name in ipairs(vol.versions(path)) do
                if not held[name] then
                    held[name] = true
                    os.execute(("flock %s '%s/%s' sh -c 'touch %s/held%s; "
                        .. "while test ! -e %s/release; do sleep 0.05; done' 2>/dev/null &")
                        :format(how, path, name, where, name, where))
                end
            end
            core.sleep(0.002)
        end
    end

    for what, how in pairs { shared = "-s", exclusive = "-x" } do
        it("G9: who holds every version by " .. what .. " locks stops no writer", function()
            if not sandbox.has "flock" then pending "there is no flock here" end
            local CAP, WRITES = 16, 40
            sandbox.mkdir(target)
            sandbox.chmod(target, "0755")
            local writer = assert(atomicwriter.new(target, FAST))
            assert(writer:write { n = "0", ["d/x"] = "x" })
            sandbox.spawn(as_other(sandbox.lua(scratch, hold_all, target, scratch, how)))
            local most = 0
            for i = 1, WRITES do
                local live = volume.live(target)
                assert(sandbox.eventually(function()
                    return sandbox.kind(scratch .. "/held" .. live)
                end), "not held")
                assert(writer:write { n = tostring(i), ["d/x"] = "x" })
                assert.equal(tostring(i), sandbox.read_file(target .. "/n"))
                most = math.max(most, #volume.versions(target))
            end
            assert.equal(1 + 1 + CAP, most) -- live, kept, leased
            sandbox.write_file(scratch .. "/release", "")
            -- its children end when they look; then nothing holds a lease any more
            assert(sandbox.eventually(function()
                assert(writer:write { n = "last " .. sandbox.now() })
                return #volume.versions(target) == 2
            end))
            assert(volume.shows(target, volume.consume(target)))
            print(("# users: every version held by %s locks: %d writes, 0 violations")
                :format(what, WRITES))
        end)
    end

    ---- who holds the lock ----------------------------------------------------

    -- All that needs the lock is `locked` and changes nothing; what does not, works.
    local function assert_locked()
        local before = sandbox.listing(target)
        local writer = assert(atomicwriter.new(target,
            { durability = "none", lock_timeout = 0.02 }))
        for name, call in pairs {
            write = function() return writer:write { a = "1" } end,
            rollback = function() return writer:rollback() end,
            collect = function() return writer:collect() end,
        } do
            local result, err = call()
            assert.is_nil(result, name)
            assert.equal("locked", err.code, name)
            assert.equal("..lock", err.path)
            assert.is_false(err.committed)
        end
        assert(writer:plan { a = "1" })
        assert(writer:versions())
        local snapshot = assert(atomicwriter.open(target))
        assert.equal(volume.before.kept, snapshot:read "kept")
        snapshot:close()
        assert(atomicwriter.inspect(target))
        assert.equal(before, sandbox.listing(target))
    end

    for what, how in pairs { shared = "-s", exclusive = "-x" } do
        it("G6: who holds a " .. what .. " lock on ..lock stops only what needs it", function()
            if not sandbox.has "flock" then pending "there is no flock here" end
            volume.prepare(dir, "target", FAST)
            local child = sandbox.spawn { "flock", how, target .. "/..lock", "sh", "-c",
                'touch "$0/held"; while test ! -e "$0/release"; do sleep 0.02; done', scratch }
            assert(sandbox.eventually(function() return sandbox.kind(scratch .. "/held") end))
            assert_locked()
            sandbox.write_file(scratch .. "/release", "")
            child:wait()
            assert(assert(atomicwriter.new(target, FAST)):write(volume.after))
            assert(volume.shows(target, volume.after))
        end)
    end

    -- A child that is stopped in its check, and so has the lock and a staged tree.
    local function stopped_writer()
        volume.prepare(dir, "target", FAST)
        local child = sandbox.spawn(sandbox.lua(scratch, function(path, where)
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local w = assert(require("atomicwriter").new(path, { durability = "none" }))
            assert(w:write(vol.after, { check = function()
                box.write_file(where .. "/held", "")
                while box.kind(where .. "/release") == nil do box.sleep(0.002) end
                return true
            end }))
        end, target, scratch))
        assert(sandbox.eventually(function() return sandbox.kind(scratch .. "/held") end))
        child:kill "STOP"
        assert(sandbox.eventually(function()
            local stat = sandbox.read_file("/proc/" .. child.pid .. "/stat")
            return stat and stat:match "%) T"
        end))
        return child
    end

    it("G6: a writer that is stopped in a write is waited for no longer than agreed", function()
        local child = stopped_writer()
        assert_locked()
        sandbox.write_file(scratch .. "/release", "")
        child:kill "CONT"
        assert.equal(0, (child:wait()))
        assert(volume.shows(target, volume.after))
    end)

    it("G5: a writer that is stopped in a write and then killed blocks nobody", function()
        local child = stopped_writer()
        child:kill "KILL"
        child:wait()
        local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0 }))
        assert.is_false(assert(writer:write(volume.before)).changed)
        assert(volume.shows(target, volume.before))
    end)
end)
