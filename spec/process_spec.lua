-- Child processes, signals and waiting: atomicwriter.cli.process.

local atomicwriter = require "atomicwriter"
local placeholder = require "atomicwriter.cli.placeholder"
local process = require "atomicwriter.cli.process"
local sandbox = require "spec.support.sandbox"

describe("process", function()
    local dir

    before_each(function() dir = sandbox.tmpdir() end)
    after_each(function() sandbox.cleanup() end)

    local function output_of(command, opts)
        opts = opts or {}
        opts.capture = true
        local status = assert(process.run(command, opts))
        assert.is_true(status.ok, process.describe(status))
        return status.output
    end

    local function pid_in(path)
        return assert(sandbox.eventually(function()
            return tonumber((sandbox.read_file(path) or ""):match("^(%d+)\n"))
        end))
    end

    -- Start BODY in a child that prints lines; see sandbox.lua.
    local function in_child(body, ...)
        return sandbox.spawn(sandbox.lua(dir, body, ...))
    end

    describe("run", function()
        it("tells that a command was successful", function()
            local status = assert(process.run("exit 0"))
            assert.is_true(status.ok)
            assert.equal(0, status.code)
            assert.is_nil(status.signal)
            assert.is_false(status.timed_out)
        end)

        it("tells a command's exit status", function()
            local status = assert(process.run("exit 3"))
            assert.is_false(status.ok)
            assert.equal(3, status.code)
            assert.equal("exited with status 3", process.describe(status))
        end)

        it("tells the signal that ended a command", function()
            local status = assert(process.run("kill -USR1 $$"))
            assert.is_false(status.ok)
            assert.equal("SIGUSR1", status.signal)
            assert.equal(128 + process.signal_number("USR1"), status.code)
            assert.equal("was ended by SIGUSR1", process.describe(status))
        end)

        it("passes the words of a list on as they are", function()
            assert.equal("a b|$c|'\"|\n", output_of { "printf", "%s|", "a b", "$c", "'\"", "\n" }
                :gsub("|$", ""))
        end)

        it("names the program that cannot be started, and why", function()
            local status, err = process.run { "no-such-program-here", "x" }
            assert.is_nil(status)
            assert.equal("no-such-program-here", err.path)
            assert.matches("no such program in PATH", err.message)
            status, err = process.run { dir .. "/nothing" }
            assert.is_nil(status)
            assert.matches(dir .. "/nothing: cannot be started: there is no such program",
                tostring(err), 1, true)
            sandbox.write_file(dir .. "/plain", "text", "0644")
            status, err = process.run { dir .. "/plain" }
            assert.is_nil(status)
            assert.matches("/plain: cannot be started: permission denied", tostring(err), 1, true)
        end)

        it("names the directory that is missing", function()
            local status, err = process.run("true", { cwd = dir .. "/gone" })
            assert.is_nil(status)
            assert.equal(dir .. "/gone", err.path)
        end)

        it("runs in the directory that it is given", function()
            assert.equal(dir .. "\n", output_of("pwd -P", { cwd = dir }))
        end)

        it("adds to the environment", function()
            assert.equal(os.getenv("PATH") .. "|a'b c\n\n",
                output_of('printf "%s|%s\n\n" "$PATH" "$X"', { env = { X = "a'b c" } }))
            assert.is_string(os.getenv "LUA_PATH")
            assert.equal("gone", output_of('printf %s "${LUA_PATH-gone}"',
                { env = { LUA_PATH = false } }))
        end)

        it("captures every byte", function()
            local all = {}
            for byte = 0, 255 do all[#all + 1] = string.char(byte) end
            sandbox.write_file(dir .. "/all", table.concat(all))
            assert.equal(table.concat(all), output_of { "cat", dir .. "/all" })
        end)

        it("captures more than a pipe holds, from several processes", function()
            local output = output_of("head -c 5000000 /dev/zero; (head -c 3000000 /dev/zero | cat)")
            assert.equal(8000000, #output)
        end)

        it("captures through /dev/stdout, too", function()
            assert.equal("x\n", output_of("echo x >/dev/stdout"))
        end)

        it("refuses more output than the limit, and ends who writes it", function()
            local status, err = process.run("echo $$ >pid; exec cat /dev/zero",
                { capture = true, limit = 100000, cwd = dir })
            assert.is_nil(status)
            assert.matches("more than 100000 bytes", err.message)
            assert.is_false(sandbox.lives(pid_in(dir .. "/pid")))
            assert.equal(100000, #output_of("head -c 100000 /dev/zero", { limit = 100000 }))
        end)

        it("does not wait for what a command leaves in the background with its output", function()
            local output = output_of("sleep 1000 & echo $!")
            local pid = tonumber(output)
            assert.is_true(sandbox.lives(pid))
            process.kill(pid, "KILL")
        end)

        it("does not wait for what writes in the background for ever", function()
            local output = output_of("echo first; while :; do echo x; done & echo $! >" .. dir
                .. "/pid; sleep 0.05")
            process.kill(pid_in(dir .. "/pid"), "KILL")
            assert.matches("^first\n", output)
        end)

        it("captures all that is in the pipe when a command ends", function()
            for _ = 1, 20 do
                assert.equal(65536, #output_of("head -c 65536 /dev/zero"))
            end
        end)

        it("has standard output go to standard error unless it is captured", function()
            local status, stdout, stderr = sandbox.run(sandbox.lua(dir, function()
                assert(require("atomicwriter.cli.process").run("echo out; echo err >&2").ok)
            end))
            assert.equal(0, status, stderr)
            assert.equal("", stdout)
            assert.equal("out\nerr\n", stderr)
        end)

        it("gives a command its input, and nothing without one", function()
            local text = ("\0\1a"):rep(1000000)
            assert.equal(text, output_of("cat", { input = text }))
            assert.equal("", output_of("cat", { input = "" }))
            assert.equal("", output_of("cat"))
        end)

        it("survives a command that does not read its input", function()
            local status, stdout, stderr = sandbox.run(sandbox.lua(dir, function()
                local run = require("atomicwriter.cli.process").run
                for _ = 1, 20 do
                    assert(run("exec <&-; sleep 0.01; true", { input = ("x"):rep(1000000) }).ok)
                end
                print "survived"
            end))
            assert.equal(0, status, stderr)
            assert.equal("survived\n", stdout)
        end)

        it("ends a command whose time is over", function()
            local status = assert(process.run("exec sleep 1000", { timeout = 0.1 }))
            assert.is_false(status.ok)
            assert.is_true(status.timed_out)
            assert.equal("SIGTERM", status.signal)
            assert.equal("took longer than 0.1 s and was ended", process.describe(status))
        end)

        it("kills a command that does not heed the end of its time", function()
            local status = assert(process.run("trap '' TERM; while :; do sleep 0.05; done",
                { timeout = 0.3, grace = 0.1 }))
            assert.is_true(status.timed_out)
            assert.equal("SIGKILL", status.signal)
        end)

        it("ends what a command has started, too, when its time is over", function()
            local status = assert(process.run(
                "sh -c 'trap \"echo term >heeded; exit\" TERM; echo $$ >mild.pid;"
                .. "while :; do sleep 0.05; done' & (trap '' TERM;"
                .. "sh -c 'echo $$ >stubborn.pid; while :; do sleep 0.05; done') & wait",
                { timeout = 0.5, grace = 0.5, cwd = dir }))
            assert.is_true(status.timed_out)
            assert.equal("SIGTERM", status.signal)
            for _, name in ipairs { "mild", "stubborn" } do
                local pid = pid_in(dir .. "/" .. name .. ".pid")
                assert(sandbox.eventually(function() return not sandbox.lives(pid) end), name)
            end
            assert.equal("term\n", sandbox.read_file(dir .. "/heeded"))
        end)

        it("waits for no zombies, for which nobody may ever wait", function()
            if not sandbox.has("perl") then pending("perl is missing") end
            -- Its child leaves the group and does not wait for a child of its own in it.
            local child = assert(process.start({ "perl", "-e", [[
                if (!fork) {
                    fork or exit;
                    setpgrp;
                    open(F, ">pid.new"); print F "$$\n"; close F; rename "pid.new", "pid";
                }
                sleep 1000]] }, { cwd = dir }))
            local keeper = pid_in(dir .. "/pid")
            assert.is_true(child:has_group())
            child:signal("KILL")
            assert.is_true(process.wait(function() return child.status end, 30))
            assert(sandbox.eventually(function() return not child:has_group() end))
            assert.is_true(process.kill(-child.pid, "CONT")) -- the kernel counts it still
            process.kill(keeper, "KILL")
            child:close()
        end)

        it("is not taken for timed out when it ends in time", function()
            local status = assert(process.run("true", { timeout = 1000 }))
            assert.is_true(status.ok)
            assert.is_false(status.timed_out)
        end)

        it("runs inside a writer's check", function()
            local target = dir .. "/target"
            sandbox.mkdir(target)
            local writer = assert(atomicwriter.new(target, { durability = "none" }))
            local function check(stage)
                local status = assert(process.run(placeholder.fill("grep -q good {}/file", stage)))
                return status.ok, process.describe(status)
            end
            assert(writer:write({ file = "good" }, { check = check }))
            local result, err = writer:write({ file = "bad" }, { check = check })
            assert.is_nil(result)
            assert.equal("check_failed", err.code)
            assert.matches("exited with status 1", err.message)
            writer:close()
        end)

        it("gives a command none of our descriptors, and default signal actions", function()
            local status, stdout, stderr = sandbox.run(sandbox.lua(dir, function(target)
                local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                local aw = require "atomicwriter"
                local uv = process.uv()
                local signals = process.signals()
                local event = uv.new_fs_event()
                event:start(target, {}, function() end)
                local writer = assert(aw.new(target, { durability = "none" }))
                assert(writer:write({ a = "x" }, { check = function()
                    local snapshot = aw.open(target)
                    local watcher = aw.watch(target)
                    local command = "grep '^Sig[BI]' /proc/self/status; ls /proc/self/fd"
                    local got = assert(process.run(command, { capture = true, input = "x",
                        signals = signals }))
                    io.write(got.output)
                    watcher:close()
                    if snapshot then snapshot:close() end
                    return true
                end }))
            end, dir) --[[ luacheck: ignore 431 ]])
            assert.equal(0, status, stderr)
            local blocked = stdout:match("SigBlk:%s*(%x+)")
            local ignored = stdout:match("SigIgn:%s*(%x+)")
            assert.matches("^0+$", blocked)
            assert.matches("^[08]0000000$", ignored:sub(-8)) -- glibc's system() ignores 32 and 33
            local inherited = sandbox.must "ls /proc/self/fd" -- what this process got itself
            assert.equal(inherited, stdout:match("%x\n(%d[%d\n]*)$"))
        end)

        it("uses no memory and no descriptors up", function()
            local opts = { capture = true, timeout = 60, input = "x", env = { A = "b" } }
            local function runs(n)
                for i = 1, n do
                    assert(process.run({ "true" }, opts))
                    if i % 10 == 0 then process.run({ "no-such-program-here" }, opts) end
                end
            end
            runs(50)
            local kib, descriptors, handles = sandbox.holdings()
            runs(500)
            local kib_after, descriptors_after, handles_after = sandbox.holdings()
            assert.is_true(kib_after - kib < 64, ("%g KiB more"):format(kib_after - kib))
            assert.equal(descriptors, descriptors_after)
            assert.equal(handles, handles_after)
        end)

        it("raises on misuse at the caller's line", function()
            for _, bad in ipairs { 1, true, {}, { "a", 1 }, "a\0b", { "a\0b" } } do
                local ok, message = pcall(process.run, bad)
                assert.is_false(ok)
                assert.is_string(message)
            end
            local _, message = pcall(function() process.run(1) end)
            assert.matches("^spec/process_spec.lua:%d+:", message)
        end)
    end)

    describe("start", function()
        local function until_over(child)
            assert.is_true(process.wait(function() return child.status end, 10))
        end

        it("talks with a child, a piece at a time", function()
            local child = assert(process.start("while read x; do echo \"<$x>\"; done",
                { talk = true, capture = true }))
            for _, word in ipairs { "one", "two" } do
                child:say(word .. "\n")
                assert.is_true(process.wait(function() return child.size > 0 end, 10))
                assert.equal("<" .. word .. ">\n", child:take())
                assert.equal("", child:take())
            end
            child:destroy()
            assert.equal("SIGKILL", child.status.signal)
        end)

        it("survives a child that has ended, and ends one by not talking any more", function()
            local child = assert(process.start("exec true", { talk = true, capture = true }))
            until_over(child)
            child:say(("x"):rep(100000))
            process.wait(function() end, 0.05)
            child:close()
            local reader = assert(process.start("cat; exit 3", { talk = true, capture = true }))
            process.release { reader.to }
            until_over(reader)
            assert.equal(3, reader.status.code)
            reader:close()
        end)

        it("keeps the last of what a child says on standard error", function()
            local status = assert(process.run("yes 0123456789 | head -c 200000 >&2; echo end >&2",
                { capture = true, capture_errors = true }))
            assert.equal(65536, #status.errors)
            assert.truthy(status.errors:find("end\n$"))
            assert.equal("", status.output)
        end)

        it("leaves no zombie of a child that is destroyed", function()
            local child = assert(process.start({ "sleep", "60" }, { capture = true }))
            child:destroy()
            assert.is_nil(sandbox.kind("/proc/" .. child.pid))
        end)
    end)

    it("random numbers are from 0 to 1, and not the same in each process", function()
        local sum = 0
        for _ = 1, 1000 do
            local number = process.random()
            assert.is_true(number >= 0 and number < 1)
            sum = sum + number
        end
        assert.is_true(sum > 400 and sum < 600)
        local function one()
            return in_child(function() print(require("atomicwriter.cli.process").random()) end)
        end
        local _, first = one():wait(10)
        local _, second = one():wait(10)
        assert.is_not.equal(first, second)
    end)

    describe("signals", function()
        -- Runs COMMAND as the body says, reports how it ended, and which stop signals came.
        local function runner(command, on_stop, timeout)
            local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
            local signals = process.signals()
            local status = assert(process.run(command,
                { signals = signals, on_stop = on_stop, timeout = tonumber(timeout) }))
            print(process.describe(status), signals.stop, signals.stops, signals.hangups)
        end

        local function start_runner(command, on_stop)
            local child = in_child(runner, "echo $$ >" .. dir .. "/pid; " .. command, on_stop)
            local pid = pid_in(dir .. "/pid")
            return child, pid
        end

        it("are passed to the command that runs, when asked to", function()
            for _, name in ipairs { "INT", "TERM" } do
                os.remove(dir .. "/pid")
                local child = start_runner("exec sleep 1000", "pass")
                child:kill(name)
                local status, stdout, stderr = child:wait()
                assert.equal(0, status, stderr)
                assert.equal(("was ended by SIG%s\tSIG%s\t1\t0\n"):format(name, name), stdout)
            end
        end)

        it("let the command that runs finish, when asked to", function()
            local child = start_runner("while ! [ -e " .. dir .. "/go ]; do sleep 0.01; done",
                "finish")
            child:kill("TERM")
            sandbox.sleep(0.1)
            assert.is_true(child:running())
            sandbox.write_file(dir .. "/go", "")
            local status, stdout, stderr = child:wait()
            assert.equal(0, status, stderr)
            assert.equal("exited with status 0\tSIGTERM\t1\t0\n", stdout)
        end)

        it("kill the command and all that it started when they come twice", function()
            for _, on_stop in ipairs { "pass", "finish" } do
                for _, file in ipairs { "pid", "other" } do os.remove(dir .. "/" .. file) end
                local child = start_runner("trap '' INT TERM; sleep 1000 & echo $! >" .. dir
                    .. "/other; while :; do sleep 0.05; done", on_stop)
                local other = pid_in(dir .. "/other")
                child:kill("TERM")
                sandbox.sleep(0.1)
                assert.is_true(child:running())
                child:kill("INT")
                local status, stdout, stderr = child:wait()
                assert.equal(0, status, stderr)
                assert.equal("was ended by SIGKILL\tSIGTERM\t2\t0\n", stdout)
                assert(sandbox.eventually(function() return not sandbox.lives(other) end))
            end
        end)

        it("count for a command only when they come while it runs", function()
            local function body_twice(directory)
                local run = require "atomicwriter.cli.process"
                local signals = run.signals()
                local options = { signals = signals, on_stop = "finish" }
                local script = ("echo >%s/begun; sleep 100"):format(directory)
                io.write(run.describe(run.run(script, options)), "\n")
                io.write(run.describe(run.run("sleep 0.2", options)), "\n")
                os.exit(0)
            end
            local child = sandbox.spawn(sandbox.lua(dir, body_twice, dir))
            assert(sandbox.eventually(function() return sandbox.kind(dir .. "/begun") end))
            child:kill "INT"
            sandbox.sleep(0.1)
            child:kill "INT"
            local _, stdout, stderr = child:wait()
            assert.equal("was ended by SIGKILL\nexited with status 0\n", stdout, stderr)
        end)

        it("count hangups, which stop nothing", function()
            local child = start_runner("while ! [ -e " .. dir .. "/go ]; do sleep 0.01; done",
                "pass")
            child:kill("HUP")
            sandbox.sleep(0.1)
            sandbox.write_file(dir .. "/go", "")
            local status, stdout, stderr = child:wait()
            assert.equal(0, status, stderr)
            assert.equal("exited with status 0\tnil\t0\t1\n", stdout)
        end)

        it("are handed on, and seen without waiting", function()
            local status, stdout, stderr = sandbox.run(sandbox.lua(dir, function()
                local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                local uv = process.uv()
                local signals = process.signals()
                local seen = {}
                signals:forward(function(name) seen[#seen + 1] = name end)
                process.kill(uv.getpid(), "hup")
                signals:poll()
                process.kill(uv.getpid(), "SIGTERM")
                signals:poll()
                process.kill(uv.getpid(), "INT")
                signals:poll()
                print(table.concat(seen, " "), signals.stop, signals.stops, signals.hangups)
                signals:forward(nil)
                process.kill(uv.getpid(), "INT")
                signals:poll()
                print(#seen, signals.stops)
            end))
            assert.equal(0, status, stderr)
            assert.equal("SIGHUP SIGTERM SIGINT\tSIGTERM\t2\t1\n3\t3\n", stdout)
        end)

        it("have their default actions again once they are closed", function()
            local status = sandbox.run(sandbox.lua(dir, function()
                local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                local signals = process.signals()
                signals:close()
                signals:close()
                process.kill(process.uv().getpid(), "TERM")
                process.wait(function() return false end, 10)
            end))
            assert.equal(143, status)
        end)

        it("end this process so that others can tell", function()
            for name, expected in pairs { INT = 130, TERM = 143 } do
                local child = in_child(function()
                    local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                    local signals = process.signals()
                    io.stdout:write("ready\n")
                    io.stdout:flush()
                    process.wait(function() return signals.stop end)
                    signals:die()
                end)
                assert(sandbox.eventually(function()
                    return sandbox.read_file(child.dir .. "/out") == "ready\n"
                end))
                child:kill(name)
                assert.equal(expected, (child:wait()))
            end
        end)

        it("have names, in large and small letters, with SIG and without", function()
            for _, name in ipairs { "HUP", "SIGHUP", "hup", "sighup" } do
                assert.equal(1, process.signal_number(name))
            end
            assert.is_nil(process.signal_number("NONE"))
            local sent, err = process.kill(process.uv().getpid(), "NONE")
            assert.is_nil(sent)
            assert.matches("there is no signal NONE", err.message)
        end)

        it("cannot be sent to who is not there", function()
            local pid = tonumber(output_of("echo $$"))
            local sent, err = process.kill(pid, "TERM")
            assert.is_nil(sent)
            assert.matches(("process %d cannot be signalled"):format(pid), err.message, 1, true)
        end)
    end)

    describe("wait", function()
        it("asks before it waits", function()
            assert.is_true(process.wait(function() return true end))
        end)

        it("ends when the time is over", function()
            assert.is_false(process.wait(function() return false end, 0.01))
            assert.is_false(process.wait(function() return false end, 0))
        end)

        it("ends when nothing is left that could happen", function()
            assert.is_false(process.wait(function() return false end))
        end)

        it("sees what a timer did that was due when it began", function()
            local uv = process.uv()
            local keeps_alive = uv.new_signal()
            keeps_alive:start("sigusr2", function() end)
            local fired = false
            local timer = uv.new_timer()
            timer:start(1, 0, function() fired = true end)
            sandbox.sleep(0.02)
            local start = process.now()
            assert.is_true(process.wait(function() return fired end, 30))
            assert.is_true(process.now() - start < 15)
            timer:close()
            keeps_alive:close()
        end)

        it("leaves nothing at which the end of the program stumbles", function()
            local status, _, stderr = sandbox.run(sandbox.lua(dir, function()
                local process = require "atomicwriter.cli.process" -- luacheck: ignore 431
                process.signals()
                process.wait(function() return false end, 0.01)
            end))
            assert.equal(0, status, stderr)
        end)

        it("hands on the predicate's error", function()
            local ok, message = pcall(process.wait, function() error("oops", 0) end)
            assert.is_false(ok)
            assert.equal("oops", message)
            local calls = 0
            ok, message = pcall(process.wait, function()
                calls = calls + 1
                if calls > 1 then error("later", 0) end
            end, 1)
            assert.is_false(ok)
            assert.equal("later", message)
        end)
    end)

    it("ends well when a command leaves its input unread and somebody holds it", function()
        local status = assert(process.run("exec 3<&0; sleep 1 <&3 & exit 0",
            { input = ("x"):rep(1000000) }))
        assert.equal(0, status.code)
    end)

    it("returns an error when there are no descriptors left", function()
        local function body(limit)
            local run = require "atomicwriter.cli.process"
            run.uv()
            local kept = {}
            for i = 1, limit do kept[i] = io.open("/dev/null") end
            kept[#kept]:close()
            local status, err = run.run("true", { capture = true, input = "x" })
            assert(status == nil)
            io.write(tostring(err))
        end
        local words = sandbox.sh(sandbox.lua(dir, body, "100"))
        local _, stdout, stderr = sandbox.run("ulimit -n 60; " .. words)
        assert.equal("/bin/sh: cannot be started: too many open files", stdout, stderr)
    end)

    describe("read_pid", function()
        it("takes nothing that could mean more than one process, or another one", function()
            local file = dir .. "/pid"
            for text, expected in pairs { ["1"] = 1, [" 4194304\n"] = 4194304 } do
                sandbox.write_file(file, text)
                assert.equal(expected, process.read_pid(file))
            end
            for _, text in ipairs {
                "0", "-1", "", "x", "1 2", "1.5", "0x10", "1e3", "2147483648", "4294967295",
                "4294967297", "99999999999999999999", "18446744073709551615",
            } do
                sandbox.write_file(file, text)
                local pid, err = process.read_pid(file)
                assert.is_nil(pid, text)
                assert.truthy(tostring(err):find("no process id", 1, true))
            end
        end)
    end)

    it("names the packages to install when luv is missing", function()
        local loaded, preload = package.loaded.luv, package.preload.luv
        package.loaded.luv = nil
        package.preload.luv = function() error("module 'luv' not found") end
        local ok, err = pcall(process.run, "true")
        package.loaded.luv, package.preload.luv = loaded, preload
        assert.is_false(ok)
        assert.equal("no_library", err.code)
        assert.matches("lua-luv", tostring(err), 1, true)
        assert.matches("LuaRocks: luv", tostring(err), 1, true)
    end)
end)
