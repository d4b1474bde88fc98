--- A process ends at any of its file-system calls: by SIGKILL, which nothing can be done
-- about, or by a signal that asks it to.
--
-- `killer.c` runs the real interpreter with a script that writes, and the real command, and lets
-- the signal come at the first call, then in another run at the second, and so on, before
-- the call is made and after it, until a run comes to its end. What is proved of each point:
-- SIGKILL: consumers see all of the old or all of the new; every stable name resolves; no
-- version is live or retained that is not whole; and the next writes, of the same and
-- of something else, find nothing in their way and leave nothing behind.
-- SIGTERM, SIGINT: the same without any next write, and the exit status tells what happened;
-- `--watch` finishes what it has in hand, its reload too, and exits with 0.
-- Kills at the calls of the core alone, and many more operations, are in c/fault_test.

local atomicwriter = require "atomicwriter"
local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local KILLER = (os.getenv "ATOMICWRITER_BUILD" or "build") .. "/spec/faults/killer"
local UNABLE = 77 -- its exit status where nothing may be traced
local SWAP = "^rename%S+ %.%.data_tmp %.%.data$" -- the call that publishes
local NOTHING = {} -- the files of a target that was never written
local OLDEST = { ["oldest"] = "to be pruned", ["dir/oldest"] = "to be pruned" }

-- What `killer` has reported: the list of calls up to the signal, and how the command ended.
local function parse(text)
    local report = { calls = {} }
    for line in text:gmatch "[^\n]+" do
        local call = line:match "^call (.*)$"
        if call then
            report.calls[#report.calls + 1] = call
        else
            report.ended = line
        end
    end
    return report
end

-- Run WORDS; the signal comes as OPTIONS, killer's, say.
local function run(dir, options, words)
    local path = dir .. "/report"
    local list = { KILLER, "-o", path }
    for _, part in ipairs { options, { "--" }, words } do
        for _, word in ipairs(part) do list[#list + 1] = word end
    end
    local status, stdout, stderr = sandbox.run(list)
    if status == UNABLE then return nil, "nothing may be traced here: " .. stderr end
    assert(status == 0, stderr)
    local report = parse(sandbox.read_file(path))
    report.stdout, report.stderr = stdout, stderr
    return report
end

local function is_same(files, others)
    for path, data in pairs(files) do
        if others[path] ~= data then return false end
    end
    for path in pairs(others) do
        if files[path] == nil then return false end
    end
    return true
end

-- Which of the STATES, name -> files, the live version is; every consumer must see just that.
local function which(target, states)
    local live = volume.live(target)
    local files = live and volume.contents(target, live) or NOTHING
    for name, wanted in pairs(states) do
        if is_same(files, wanted) then
            assert(volume.resolves(target, wanted))
            for path, data in pairs(wanted) do
                assert(sandbox.read_file(target .. "/" .. path) == data, path .. " is another's")
            end
            return name, wanted
        end
    end
    error("torn: what is live is neither the old nor the new")
end

-- Every version that is or was live is one of KNOWN, a list of files.
local function check_versions(target, known)
    local live = volume.live(target)
    for _, version in ipairs(live and volume.versions(target) or {}) do
        if not volume.older(live, version) then
            local whole = false
            for _, files in ipairs(known) do
                whole = whole or is_same(volume.contents(target, version), files)
            end
            assert(whole, version .. " is not whole")
        end
    end
end

local function write(target, files)
    local writer = assert(atomicwriter.new(target, { durability = "none", lock_timeout = 0,
        create = true }))
    local result = assert(writer:write(files))
    assert.same({}, result.warnings)
    writer:close()
    assert(volume.shows(target, files))
    return result
end

-- A target and who works on it. One of these is:
--  words(target)  the words of the process
--  prepare(target)  makes the target; unless given, it is that of `volume.prepare`
--  before, after  the files that may be live when it was killed
--  from, to  between which marks of `killer` the calls count: a list; one
--  swaps  whether it does, and `before` is not `after`
--  varies  whether the number of its calls may differ from run to run
local function scenario(fields)
    fields.before = fields.before or volume.before
    fields.after = fields.after or volume.after
    fields.known = { OLDEST, volume.before, volume.after, fields.before, fields.after }
    return fields
end

describe("At any file-system call", function()
    local dir, scratch, number

    before_each(function()
        dir, scratch, number = sandbox.memdir(), sandbox.memdir(), 0
    end)
    after_each(function() sandbox.cleanup() end)

    local function fresh(case)
        number = number + 1
        local name = "t" .. number
        if not case.prepare then
            return volume.prepare(dir, name, { durability = "none" })
        end
        case.prepare(dir .. "/" .. name)
        return dir .. "/" .. name
    end

    local function options_of(case, target, options)
        for _, mark in ipairs(case.from or { target }) do
            options[#options + 1], options[#options + 2] = "-b", mark
        end
        if case.to then
            options[#options + 1], options[#options + 2] = "-e", case.to
        end
        return options
    end

    -- One run with SIGNAL at call N; pending where nothing can be traced.
    local function strike(case, signal, n, when)
        local target = fresh(case)
        local report, reason = run(scratch, options_of(case, target,
            { "-s", signal, "-n", n, "-w", when or "before", "-q", case.farewell or 0 }),
            case.words(target))
        if not report then pending(reason) end
        assert.not_equal("hang", report.ended)
        report.target, report.hit = target, #report.calls == n
        return report
    end

    local function undisturbed(case)
        local report = strike(case, 9, 0)
        assert.equal("exit 0", report.ended, report.stderr)
        assert.equal("after", (which(report.target, { after = case.after })))
        return report
    end

    ---- SIGKILL ---------------------------------------------------------------

    local function judge_killed(case, report)
        local target = report.target
        local name, files = which(target, { before = case.before, after = case.after })
        check_versions(target, case.known)
        if volume.live(target) then assert.is_false(write(target, files).changed) end
        local other = name == "before" and case.after or case.before
        write(target, other == NOTHING and OLDEST or other)
        check_versions(target, case.known)
        return name
    end

    local function kill_everywhere(case)
        local calls = #undisturbed(case).calls
        local points, seen, n = 0, { before = 0, after = 0 }, 0
        local report
        repeat
            n = n + 1
            for _, when in ipairs { "before", "after" } do
                report = strike(case, 9, n, when)
                if report.hit then
                    local call = ("%s call %d: %s"):format(when, n, report.calls[n])
                    assert.equal("signal 9", report.ended, call)
                    local ok, name = pcall(judge_killed, case, report)
                    assert(ok, ("killed %s: %s"):format(call, tostring(name)))
                    points, seen[name] = points + 1, seen[name] + 1
                    if case.swaps and report.calls[n]:find(SWAP) then
                        assert.equal(when, name, "the swap is not what decides")
                    end
                end
            end
        until not report.hit
        if not case.varies then assert.equal(calls, n - 1) end
        assert.is_true(n > 20 and seen.before + seen.after == points)
        if case.swaps then assert.is_true(seen.before > 0 and seen.after > 0) end
        print(("# kill: %s: %d points, 0 violations (%d before, %d after)"):format(
            case.name, points, seen.before, seen.after))
    end

    -- The script of a process that does what `volume.update` calls OPERATION.
    local function lua(operation, fields)
        fields.name = "lua5.4, " .. fields.name
        fields.from, fields.to = { "/=begin" }, "/=end"
        function fields.words(target)
            return sandbox.lua(scratch, volume.update, target, "full", operation)
        end
        return scenario(fields)
    end

    local function litter(target)
        local dead = target .. "/..2098_01_01_00_00_00.1"
        sandbox.mkdir(dead)
        sandbox.mkdir(dead .. "/dir")
        sandbox.write_file(dead .. "/dir/half", "half")
        sandbox.mkdir(target .. "/..2001_01_01_00_00_00.1_tmp")
        sandbox.write_file(target .. "/..2001_01_01_00_00_00.1_tmp/rest", "of a removal")
        sandbox.symlink("..2098_01_01_00_00_00.1", target .. "/..data_tmp")
        sandbox.symlink("..data/nowhere", target .. "/nowhere")
    end

    local function prepare(target)
        volume.prepare(target:match "^(.*)/", target:match "[^/]*$", { durability = "none" })
    end

    local scripts = {
        lua("update", { name = "update", swaps = true }),
        lua("first", { name = "first write", swaps = true, before = NOTHING,
            prepare = function() end }),
        lua("sources", { name = "files copied", swaps = true }),
        lua("rollback", { name = "rollback", swaps = true, after = OLDEST }),
        lua("again", { name = "nothing to change", after = volume.before, varies = true }),
        lua("collect", { name = "collect", after = volume.before }),
        lua("update", { name = "update of a target with litter", swaps = true,
            prepare = function(target)
                prepare(target)
                litter(target)
            end }),
    }
    for _, case in ipairs(scripts) do
        it("SIGKILL ends " .. case.name .. ", and nothing is torn or left", function()
            kill_everywhere(case)
        end)
    end

    ---- the command -----------------------------------------------------------

    local function literals(files)
        local words = {}
        for path, data in pairs(files) do
            words[#words + 1], words[#words + 2] = "--from-literal", path .. "=" .. data
        end
        return words
    end

    -- What a reload has noted for TARGET: a line each.
    local function reloads(target)
        return sandbox.read_file(target .. ".reloads") or ""
    end

    local function noting(target)
        return ("cat %s/changed >>%s.reloads; echo >>%s.reloads"):format(target, target, target)
    end

    local plain = scenario {
        name = "atomicwriter write", swaps = true,
        words = function(target)
            return command.words("write", target, sandbox.unpack(literals(volume.after)))
        end,
    }
    local with_commands = scenario {
        name = "atomicwriter write --check --reload", swaps = true, varies = true, reloads = true,
        words = function(target)
            return command.words("write", target, "--check", "test -f {}/changed", "--reload",
                noting(target), sandbox.unpack(literals(volume.after)))
        end,
    }
    -- From its start on, when the libraries that it needs are loaded one after the other.
    local loading = scenario {
        name = "atomicwriter write that loads its libraries", swaps = true,
        from = { "/argparse.lua" }, after = { x = "12" },
        words = function(target)
            sandbox.write_file(target .. ".tmpl", "{{ data.json.a }}{{ data.yaml.b }}")
            sandbox.write_file(target .. ".json", '{"a": 1}')
            sandbox.write_file(target .. ".yaml", "b: 2")
            return command.words("write", target, "--template", "x=" .. target .. ".tmpl",
                "--data", "json=" .. target .. ".json", "--data", "yaml=" .. target .. ".yaml",
                "--from-env", "NOTHING_*")
        end,
    }
    local back = scenario {
        name = "atomicwriter rollback", swaps = true, after = OLDEST,
        words = function(target) return command.words("rollback", target) end,
    }

    -- The reload of its first write changes all inputs at once: that makes the second.
    local watch = scenario {
        name = "atomicwriter write --watch, second write", swaps = true, varies = true,
        reloads = true, farewell = 15, from = { ">1", ".env" }, to = ">1",
        before = { changed = "before", kept = "k", removed = "r", ["dir/kept"] = "k" },
        after = { changed = "after", kept = "k", added = "a", ["dir/kept"] = "k" },
        words = function(target)
            sandbox.write_file(target .. ".env", "changed=before\nkept=k\nremoved=r\n")
            sandbox.write_file(target .. ".next", "changed=after\nkept=k\nadded=a\n")
            return command.words("write", target, "--watch", "--debounce", "1ms", "--durability",
                "full", "--from-env-file", target .. ".env", "--from-literal", "dir/kept=k",
                "--reload", ("if test -e %s.next; then mv %s.next %s.env; else %s; fi"):format(
                    target, target, target, noting(target)))
        end,
    }

    for _, case in ipairs { plain, back, watch } do
        it("SIGKILL ends " .. case.name .. ", and nothing is torn or left", function()
            kill_everywhere(case)
        end)
    end

    ---- SIGTERM, SIGINT -------------------------------------------------------

    -- Whether one of the first N calls matches PATTERN.
    local function has_made(calls, n, pattern)
        for i = 1, n do
            if calls[i]:find(pattern) then return true end
        end
        return false
    end

    -- What a process that does not stay may come to. With luv it ends by the signal itself;
    -- before that is loaded, and after it has let go, the interpreter makes a SIGINT 130.
    local function judge_ended(case, report, n, signal)
        local name, files = which(report.target, { before = case.before, after = case.after })
        local told = has_made(report.calls, n - 1, "^write >1$")
        local reloaded = case.reloads and name == "after" and files.changed .. "\n" or ""
        assert(volume.shows(report.target, files))
        assert.equal(reloaded, reloads(report.target))
        if report.ended == "exit 0" then
            assert.equal("after", name)
        else
            assert(report.ended == "signal " .. signal
                or signal == 2 and report.ended == "exit 130", report.ended .. report.stderr)
            assert.equal(told and "after" or "before", name)
        end
        if name == "before" then
            assert.is_false(has_made(report.calls, n - 1, SWAP))
            assert(report.stderr == "" or report.stderr:find("interrupted", 1, true), report.stderr)
        end
        return name
    end

    -- `--watch`: what it has begun to write is written and reloaded, once.
    local function judge_watch(case, report, n)
        local name, files = which(report.target, { before = case.before, after = case.after })
        assert.equal("exit 0", report.ended)
        assert(volume.shows(report.target, files))
        assert.equal(name == "after" and "after\n" or "", reloads(report.target))
        if has_made(report.calls, n, "^mkdirat %.%.") then assert.equal("after", name) end
        return name
    end

    local signals = { SIGTERM = 15, SIGINT = 2 }
    for case, values in pairs {
        [plain] = signals, [with_commands] = signals, [watch] = signals,
        [loading] = { SIGINT = 2 }, -- of SIGTERM the interpreter knows nothing
    } do
        for signal, value in pairs(values) do
            it(signal .. " ends " .. case.name .. " in order", function()
                local seen, n = { before = 0, after = 0 }, 0
                local report
                undisturbed(case)
                repeat
                    n = n + 1
                    report = strike(case, value, n)
                    if report.hit then
                        local judge = case == watch and judge_watch or judge_ended
                        local ok, name = pcall(judge, case, report, n, value)
                        assert(ok, ("%s at call %d, %s: %s"):format(signal, n, report.calls[n],
                            tostring(name)))
                        seen[name] = seen[name] + 1
                    end
                until not report.hit
                assert.is_true(seen.before > 0 and seen.after > 0)
                print(("# kill: %s, %s: %d points, 0 violations (%d before, %d after)"):format(
                    signal, case.name, n - 1, seen.before, seen.after))
            end)
        end
    end
end)
