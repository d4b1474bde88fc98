--- Somebody else has the right to make names in the target, and uses it while writers run.
--
-- `attacker.c` swaps whatever a writer touches for links into a victim's tree, and the
-- target itself for a link to a decoy, for ATTACK_SECONDS (10) in all. Meanwhile two
-- writers, kept open, do all that there is to do. What is proved: nothing outside the
-- target changed (inodes, modes, owners, contents, times, names), every call returned
-- (a watchdog ends what does not), nothing crashed or raised; and once the target is put
-- right, the same writers and a fresh one write, and leave it clean.
-- What the single attacks come to is in confinement_spec and in c/confined_test.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local SECONDS = tonumber(os.getenv "ATTACK_SECONDS") or 10
local SEED = tonumber(os.getenv "ATTACK_SEED") or 1
local ATTACKER = (os.getenv "ATOMICWRITER_BUILD" or "build") .. "/spec/faults/attacker"
local FAST = { durability = "none" }
local NOBODY = "65534"

describe("G7: under attack a writer", function()
    local dir, scratch, target, victim, decoy

    before_each(function()
        dir, scratch = sandbox.memdir(), sandbox.memdir()
        sandbox.chmod(dir, "0777") -- so that another user may swap the target
        target, victim, decoy = dir .. "/target", scratch .. "/victim", scratch .. "/decoy"
        sandbox.chmod(scratch, "0755")
        sandbox.mkdir(target)
        sandbox.chmod(target, "0777")
    end)
    after_each(function() sandbox.cleanup() end)

    ---- what must not change --------------------------------------------------

    -- Names that a writer makes and removes are there too, with what it would write.
    local function make_victim()
        for _, path in ipairs { "", "/dir", "/dir/sub", "/version", "/version/dir",
            "/version/dir/sub", "/..2001_01_01_00_00_00.1" } do
            sandbox.mkdir(victim .. path)
            for name, data in pairs { precious = "data", a = "1", x = "same", deep = "same" } do
                sandbox.write_file(victim .. path .. "/" .. name, data, "0640")
            end
        end
        sandbox.write_file(victim .. "/lock", "somebody's, and no lock", "0600")
        sandbox.symlink("..2001_01_01_00_00_00.1", victim .. "/..data")
        sandbox.symlink("..data/a", victim .. "/visible")
    end

    -- All but the link count and ctime of the files that the attacker links to.
    local function state(path)
        local text = sandbox.must("cd " .. sandbox.quote(path)
            .. " && { find . -printf '%P %y %m %U:%G %i %s %T@ %l\\n'"
            .. " && find . ! -path ./precious ! -path ./lock -printf '%P %n %C@\\n'"
            .. " && find . -type f -exec cksum {} +; } | LC_ALL=C sort")
        assert(#text > 100)
        return text
    end

    -- A directory that the path of the target leads to at times. It is a target then, by
    -- contract, but somebody's own files are at the names that are needed.
    local function make_decoy()
        sandbox.mkdir(decoy)
        for _, name in ipairs { "a", "b", "dir", "changing" } do
            sandbox.write_file(decoy .. "/" .. name, "mine")
        end
        local _, err = assert(atomicwriter.new(decoy, FAST)):write { a = "1" } -- makes ..lock
        assert.equal("foreign_entry", err.code)
        return decoy
    end

    -- The same where writers have no business at all: a version of another target.
    local function make_version_decoy()
        assert(assert(atomicwriter.new(decoy, { create = true })):write { a = "other", b = "x" })
        return decoy .. "/" .. volume.live(decoy)
    end

    ---- who writes ------------------------------------------------------------

    -- Does everything again and again until SCRATCH/stop is there; then waits for
    -- SCRATCH/right and writes once more. Prints what came of it.
    local function writer(path, where, me)
        local aw = require "atomicwriter"
        local system_ = require "system"
        local attributes = require "lfs".attributes
        local w = assert(aw.new(path, { durability = tonumber(me) == 1 and "full" or "none",
            lock_timeout = 0.1 }))
        local kept = { a = "1", b = "2", ["dir/x"] = "same", ["dir/sub/deep"] = "same" }
        local n, done, failed, codes = 0, 0, 0, {}
        local known = { invalid_payload = true, no_target = true, foreign_entry = true,
            locked = true, check_failed = true, not_found = true, io = true }

        local function payload(all)
            n = n + 1
            local files = { changing = me .. "." .. n }
            for name, data in pairs(kept) do files[name] = all and data .. n or data end
            return files
        end
        local works = {
            function() return w:write(payload(true)) end,
            function() return w:write(payload()) end,
            function() return w:write(kept) end,
            function() return w:write(payload(), { check = function() return true end }) end,
            function() return w:write { a = { source = where .. "/source" }, ["dir/x"] = "s" } end,
            function() return w:rollback() end,
            function() return w:collect() end,
        }
        local looks = {
            function() return w:plan(payload()) end,
            function() return w:versions() end,
            function() return aw.inspect(path) end,
            function()
                local snapshot, err = aw.open(path)
                if not snapshot then return nil, err end
                local paths, why = snapshot:paths()
                for _, name in ipairs(paths or {}) do
                    local data, reason = snapshot:read(name)
                    why = why or not data and reason
                end
                snapshot:stat(".")
                snapshot:close()
                return paths and not why or nil, why
            end,
        }
        local function attempt(list, i)
            local result, err = list[i % #list + 1]()
            if result then return true end
            assert(known[err.code], tostring(err.code))
            assert(#err.message > 0 and type(err.committed) == "boolean")
            codes[err.code] = (codes[err.code] or 0) + 1
        end

        local round, slowest = 0, 0
        while not attributes(where .. "/stop", "ino") do
            round = round + 1
            local start = system_.monotime()
            if attempt(works, round) then done = done + 1 else failed = failed + 1 end
            attempt(looks, round)
            slowest = math.max(slowest, system_.monotime() - start)
        end
        while not attributes(where .. "/right", "ino") do system_.sleep(0.005) end
        local result, err
        repeat -- with all that it remembers of what it wrote under attack
            result, err = w:write { a = "right", ["dir/sub/deep"] = "right" }
        until result or err.code ~= "locked"
        assert(result, tostring(err))
        print("done", done)
        print("failed", failed)
        for code, count in pairs(codes) do print("code." .. code, count) end
        io.stderr:write(("slowest round %.3f s\n"):format(slowest))
    end

    ---- afterwards ------------------------------------------------------------

    -- What an owner would do: remove what no writer has made. Versions stay as they are,
    -- with all that was put into them.
    local function put_right()
        assert.equal("directory", sandbox.kind(target))
        for _, name in ipairs(sandbox.names(target)) do
            local path = target .. "/" .. name
            local kind, link = sandbox.kind(path), sandbox.readlink(path)
            local version = name:match(volume.VERSION) or name:match "^%.%.2.*_tmp$"
            local ours = version and kind == "directory"
                or name == "..data" and link and link:match(volume.VERSION)
                    and sandbox.kind(target .. "/" .. link) ~= "link"
                or name == "..lock" and kind == "file"
                    and lfs.symlinkattributes(path, "nlink") == 1
                or link == "..data/" .. name
            if not ours then sandbox.rmtree(path) end
        end
    end

    local function add_counts(text, into)
        for name, count in text:gmatch "([^\n]-)%s(%d+)\n" do
            into[name] = (into[name] or 0) + tonumber(count)
        end
    end

    local function attack(prefix, decoy_path, seconds, seed)
        make_victim()
        sandbox.write_file(scratch .. "/source", ("s"):rep(20000))
        assert(assert(atomicwriter.new(target, FAST)):write { a = "1", ["dir/x"] = "same" })
        local before, decoy_before = state(victim), state(decoy)
        local words = { sandbox.unpack(prefix) }
        for _, word in ipairs { ATTACKER, target, victim, decoy_path, seconds, seed } do
            words[#words + 1] = word
        end
        local writers, counts = {}, {}
        for i = 1, 2 do
            writers[i] = sandbox.spawn(sandbox.lua(scratch, writer, target, scratch, i))
        end
        local status, stdout, stderr = sandbox.spawn(words):wait(seconds + 60)
        assert.equal(0, status, "the attacker: " .. stderr)
        add_counts(stdout, counts)
        sandbox.write_file(scratch .. "/stop", "")
        put_right()
        -- One may still be in its last call, and see what was put right.
        sandbox.write_file(scratch .. "/right", "")
        for i = 1, 2 do
            status, stdout, stderr = writers[i]:wait(60)
            assert.equal(0, status, ("writer %d: %s"):format(i, stderr))
            add_counts(stdout, counts)
        end
        assert.equal(before, state(victim))
        assert.equal(decoy_before, state(decoy))
        local final = { a = "right", ["dir/sub/deep"] = "right" }
        assert(volume.shows(target, final))
        local fresh = assert(atomicwriter.new(target, FAST))
        assert.is_false(assert(fresh:write(final)).changed)
        assert(fresh:write { b = "last" })
        assert(volume.shows(target, { b = "last" }))
        return counts
    end

    ---- the cases -------------------------------------------------------------

    local function report(who, counts)
        local attacks, kinds = 0, {}
        for name, count in pairs(counts) do
            local kind = name:match "^attack (.*)"
            if kind then attacks = attacks + count end
            kinds[#kinds + 1] = ("%s %d"):format(name, count)
        end
        table.sort(kinds)
        print(("# hostile: %s: %d attacks, %d writes done, %d refused, 0 violations (%s)")
            :format(who, attacks, counts.done, counts.failed, table.concat(kinds, ", ")))
    end

    -- That the attacks happened: one that never succeeds proves nothing.
    local function assert_attacked(counts, names)
        for _, name in ipairs(names) do
            assert.is_true((counts[name] or 0) > 0, "never succeeded: " .. name)
        end
        assert.is_true(counts.done > 0, "no write succeeded")
    end

    local SAME_USER = { "attack version", "attack entry", "attack next-name", "attack reserved",
        "attack visible", "attack planted", "attack order", "attack locks", "attack target",
        "attack path", "lure link", "lure link-to-file", "lure hard-link", "lure fifo",
        "lure socket", "lure file", "lure directory" }
    -- who may not write in versions
    local OTHER_USER = { "attack version", "attack reserved", "attack visible", "attack planted",
        "attack order", "attack locks", "attack target", "attack path", "lure link",
        "lure link-to-file", "lure fifo", "lure directory" }

    local phases = {
        { who = "the same user, elsewhere a directory", decoy = make_decoy, names = SAME_USER },
        { who = "the same user, elsewhere a version", decoy = make_version_decoy,
            names = SAME_USER },
        { who = "another user, elsewhere a directory", decoy = make_decoy, names = OTHER_USER,
            other = true },
        { who = "another user, elsewhere a version", decoy = make_version_decoy,
            names = OTHER_USER, other = true },
    }
    for i, phase in ipairs(phases) do
        it("changes nothing outside, nor hangs: " .. phase.who, function()
            assert(sandbox.kind(ATTACKER), "not built: " .. ATTACKER)
            local prefix = {}
            if phase.other then
                if not sandbox.is_root() then pending "only root can be attacked by another" end
                if not sandbox.has "setpriv" then pending "there is no setpriv here" end
                prefix = { "setpriv", "--reuid=" .. NOBODY, "--regid=" .. NOBODY,
                    "--clear-groups" }
                local enter = sandbox.sh(prefix) .. " test -x " .. sandbox.quote(ATTACKER)
                if sandbox.run(enter) ~= 0 then
                    pending "another user may not enter this checkout"
                end
            end
            local counts = attack(prefix, phase.decoy(),
                SECONDS / (sandbox.is_root() and 4 or 2), SEED + i)
            assert_attacked(counts, phase.names)
            report(phase.who, counts)
        end)
    end
end)
