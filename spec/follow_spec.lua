-- The reloader behind `atomicwriter follow`: atomicwriter.cli.follow.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"

-- A service that writes what happens to it into $LOG: its start with the version, and each signal.
-- It ends with status 7 after TERM, INT or QUIT.
local SERVICE = [[
trap 'echo term >>"$LOG"; exit 7' TERM
trap 'echo int >>"$LOG"; exit 7' INT
trap 'echo quit >>"$LOG"; exit 7' QUIT
for name in HUP USR1 USR2 WINCH; do trap "echo $name >>\"\$LOG\"" $name; done
echo $$ >"$LOG.pid.new"; mv "$LOG.pid.new" "$LOG.pid"
echo "start $ATOMICWRITER_VERSION" >>"$LOG"
while :; do sleep 0.02; done
]]

-- The same, deaf to TERM.
local STUBBORN = [[
trap '' TERM
echo "start $ATOMICWRITER_VERSION" >>"$LOG"
while :; do sleep 0.02; done
]]

-- Runs follow with the options "name=value"; "command=…" may come several times.
local function body(target, ...)
    local options = { target = target }
    for _, argument in ipairs { ... } do
        local name, value = argument:match("^(%w[%w_]*)=(.*)$")
        if name == "command" then
            options.command = options.command or {}
            table.insert(options.command, value)
        else
            options[name] = tonumber(value) or value
        end
    end
    local console = {}
    for _, level in ipairs { "error", "warn", "info", "debug" } do
        console[level] = function(_, message)
            io.stderr:write(level, ": ", message, "\n")
            io.stderr:flush()
        end
    end
    local signals = require("atomicwriter.cli.process").signals()
    local code = require("atomicwriter.cli.follow").run(options, console, signals)
    signals:close()
    os.exit(code, true)
end

describe("follow", function()
    local dir, target, writer, log, count

    before_each(function()
        dir = sandbox.tmpdir()
        target, log, count = dir .. "/target", dir .. "/log", 0
        sandbox.mkdir(target)
        writer = assert(atomicwriter.new(target, { durability = "none" }))
    end)
    after_each(function()
        writer:close()
        for pid in (sandbox.read_file(dir .. "/pids") or ""):gmatch("%d+") do
            sandbox.run { "kill", "-KILL", pid }
        end
        sandbox.cleanup()
    end)

    -- Make a new version and return its name.
    local function publish()
        count = count + 1
        return assert(writer:write { n = tostring(count) }).version
    end

    local function words(...)
        return sandbox.lua(dir, body, target, ...)
    end

    local function follow(...)
        local with_log = { "env", "LOG=" .. log }
        for _, word in ipairs(words("debounce=0.05", ...)) do with_log[#with_log + 1] = word end
        return sandbox.spawn(with_log)
    end

    local function follow_service(script, ...)
        return follow("command=sh", "command=-c",
            "command=echo $$ >>" .. dir .. "/pids\n" .. (script or SERVICE), ...)
    end

    local function lines()
        local list = {}
        for line in (sandbox.read_file(log) or ""):gmatch("[^\n]+") do list[#list + 1] = line end
        return list
    end

    local function logged(n)
        return sandbox.eventually(function() return #lines() >= n end)
    end

    -- That the log has exactly these lines once it has as many, and no more a little later.
    local function has_logged(expected)
        assert(logged(#expected), "only: " .. table.concat(lines(), ", "))
        sandbox.sleep(0.15)
        assert.same(expected, lines())
    end

    local function messages(child)
        return sandbox.read_file(child.dir .. "/err") or ""
    end

    local function says(child, text)
        assert(sandbox.eventually(function() return messages(child):find(text, 1, true) end),
            ("it does not say %q but %q"):format(text, messages(child)))
    end

    local function service_pid()
        return (sandbox.read_file(log .. ".pid"):gsub("%s", ""))
    end

    -- That it uses next to no processor time for a second; one that spins uses most of it.
    local function idles(child)
        local function ticks()
            local stat = sandbox.read_file("/proc/" .. child.pid .. "/stat")
            local user, system = stat:match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
            return user + system
        end
        local before = ticks()
        sandbox.sleep(1)
        assert.is_true(ticks() - before < 20, "it spins")
    end

    local function ends(child, expected)
        local status, _, stderr = child:wait()
        assert.equal(expected, status, stderr)
    end

    describe("with a child alone", function()
        it("starts it at once, and restarts it at each new version", function()
            local first = publish()
            local child = follow_service()
            has_logged { "start " .. first }
            local second = publish()
            has_logged { "start " .. first, "term", "start " .. second }
            local third = publish()
            has_logged { "start " .. first, "term", "start " .. second, "term", "start " .. third }
            child:kill("TERM")
            ends(child, 7)
        end)

        it("starts it on a target that has no version yet", function()
            local child = follow_service()
            has_logged { "start " }
            local first = publish()
            has_logged { "start ", "term", "start " .. first }
            child:kill("TERM")
            ends(child, 7)
        end)

        it("gives it our standard streams, our environment and the target", function()
            publish()
            local script = "cat; echo err >&2; echo $ATOMICWRITER_TARGET $LOG; pwd"
            local command = sandbox.sh(words("command=sh", "command=-c", "command=" .. script))
            local status, stdout, stderr = sandbox.run("echo in | LOG=mine " .. command)
            assert.equal(0, status, stderr)
            assert.equal("in\n" .. target .. " mine\n" .. sandbox.must "pwd", stdout)
            assert.matches("err\n", stderr, 1, true)
        end)

        it("names the target absolutely", function()
            publish()
            local relative = target:gsub("^/", "../../../../../../")
            local child = sandbox.spawn(sandbox.lua(dir, body, relative, "command=sh",
                "command=-c", "command=cd /; cat $ATOMICWRITER_TARGET/n"))
            local status, stdout = child:wait()
            assert.equal(0, status)
            assert.equal("1", stdout)
        end)

        it("kills one that does not end within the grace, with all that it started", function()
            publish()
            local child = follow_service("sh -c 'trap \"\" TERM; echo $$ >>" .. dir
                .. "/pids; echo $$ >" .. dir .. "/other; while :; do sleep 0.02; done' &\n"
                .. STUBBORN, "grace=0.2")
            assert(logged(1))
            local other = assert(sandbox.eventually(function()
                return (sandbox.read_file(dir .. "/other") or ""):match("^(%d+)\n")
            end))
            publish()
            assert(logged(2))
            says(child, "warn: sh did not end within 0.2 s and is killed")
            assert.is_false(sandbox.lives(other))
        end)

        it("ends what it leaves behind before it starts anew", function()
            publish()
            local child = follow_service("sleep 1000 & echo $! >" .. dir .. "/other\n" .. SERVICE)
            assert(logged(1))
            local other = assert(sandbox.read_file(dir .. "/other"):match("%d+"))
            assert.is_true(sandbox.lives(other))
            publish()
            assert(logged(3))
            assert.is_false(sandbox.lives(other))
            other = assert(sandbox.read_file(dir .. "/other"):match("%d+"))
            child:kill("TERM")
            ends(child, 7)
            assert.is_false(sandbox.lives(other))
        end)

        it("does nothing when a write changes nothing, or a version is pruned", function()
            local first = publish()
            follow_service()
            assert(logged(1))
            assert(writer:write { n = "1" })
            assert(writer:collect())
            has_logged { "start " .. first }
        end)

        it("says what cannot be started, and exits with 1", function()
            publish()
            local child = follow("command=no-such-program-here")
            ends(child, 1)
            assert.matches("error: no-such-program-here: cannot be started", messages(child), 1,
                true)
        end)

        it("says that it cannot be started anew, and exits with 1", function()
            publish()
            sandbox.write_file(dir .. "/service", "#!/bin/sh\n" .. SERVICE, "0755")
            local child = follow("command=" .. dir .. "/service")
            assert(logged(1))
            os.remove(dir .. "/service")
            publish()
            ends(child, 1)
            assert.matches("/service: cannot be started: there is no such program", messages(child),
                1, true)
        end)

        it("ends with its status when it ends by itself", function()
            publish()
            local child = follow("command=sh", "command=-c", "command=exit 23")
            ends(child, 23)
            child = follow("command=sh", "command=-c", "command=kill -KILL $$")
            ends(child, 128 + 9)
            assert.matches("was ended by SIGKILL", messages(child), 1, true)
        end)
    end)

    describe("hands signals on to the child:", function()
        it("those that stop us, and then ends with its status", function()
            publish()
            for name, line in pairs { TERM = "term", INT = "int" } do
                os.remove(log)
                local child = follow_service()
                assert(logged(1))
                child:kill(name)
                ends(child, 7)
                assert.equal(line, lines()[2])
                assert.equal(2, #lines())
            end
        end)

        it("tells its shell which signal ended the child", function()
            publish()
            local child = follow("command=sh", "command=-c",
                "command=echo start >>$LOG; exec sleep 1000")
            assert(logged(1))
            child:kill("TERM")
            ends(child, 143)
        end)

        it("waits for it as long as it takes", function()
            publish()
            local child = follow_service("trap 'while ! [ -e " .. dir
                .. "/go ]; do sleep 0.02; done; exit 5' TERM\necho start >>$LOG\n"
                .. "while :; do sleep 0.02; done", "grace=0.1")
            assert(logged(1))
            child:kill("TERM")
            sandbox.sleep(0.4)
            assert.is_true(child:running())
            sandbox.write_file(dir .. "/go", "")
            ends(child, 5)
        end)

        it("HUP, USR1, USR2, WINCH and QUIT", function()
            local first = publish()
            local child = follow_service()
            assert(logged(1))
            local expected = { "start " .. first }
            for _, name in ipairs { "HUP", "USR1", "USR2", "WINCH" } do
                child:kill(name)
                expected[#expected + 1] = name
                assert(logged(#expected))
            end
            assert.same(expected, lines())
            assert.is_true(child:running())
            child:kill("QUIT")
            ends(child, 7)
            assert.equal("quit", lines()[6])
        end)

        it("to the new one after a restart", function()
            publish()
            local child = follow_service()
            assert(logged(1))
            publish()
            assert(logged(3))
            child:kill("HUP")
            assert(logged(4))
            assert.equal("HUP", lines()[4])
        end)

        it("starts none when it is stopped while it restarts", function()
            local first = publish()
            local child = follow_service("trap 'echo term >>$LOG; sleep 0.5; exit 9' TERM\n"
                .. "echo start $ATOMICWRITER_VERSION >>$LOG\nwhile :; do sleep 0.02; done")
            assert(logged(1))
            publish()
            assert(logged(2))
            child:kill("TERM")
            ends(child, 9)
            assert.equal("start " .. first, lines()[1])
            for i = 2, #lines() do assert.equal("term", lines()[i]) end
        end)

        it("a terminal's ^C once", function()
            if not sandbox.has("script") then pending("the program script is missing") end
            publish()
            local script = SERVICE:gsub("exit 7' INT", "' INT")
            local command = sandbox.sh(words("command=sh", "command=-c", "command=" .. script))
            sandbox.write_file(dir .. "/run.sh", "export LOG=" .. log .. "\n" .. command .. "\n")
            local terminal = sandbox.spawn { "sh", "-c",
                "(while ! [ -e " .. dir .. "/press ]; do sleep 0.02; done; printf '\\003';"
                .. "while ! [ -e " .. dir .. "/end ]; do sleep 0.02; done)"
                .. "| script -qec 'sh " .. dir .. "/run.sh' /dev/null" }
            assert(logged(1))
            sandbox.write_file(dir .. "/press", "")
            assert(logged(2))
            sandbox.sleep(0.2)
            assert.equal(2, #lines())
            assert.equal("int", lines()[2])
            sandbox.run { "kill", "-KILL", service_pid() }
            sandbox.write_file(dir .. "/end", "")
            terminal:wait()
        end)
    end)

    describe("with a signal", function()
        it("signals the child at each new version, and restarts nothing", function()
            local first = publish()
            local child = follow_service(nil, "signal=HUP")
            has_logged { "start " .. first }
            publish()
            has_logged { "start " .. first, "HUP" }
            publish()
            has_logged { "start " .. first, "HUP", "HUP" }
            child:kill("TERM")
            ends(child, 7)
        end)

        it("signals the process in a pid file", function()
            local service = sandbox.spawn { "env", "LOG=" .. log, "sh", "-c", SERVICE }
            assert(logged(1))
            publish()
            local child = follow("signal=USR1", "pid_file=" .. log .. ".pid")
            sandbox.sleep(0.2)
            assert.equal(1, #lines())
            publish()
            assert(logged(2))
            assert.equal("USR1", lines()[2])
            child:kill("TERM")
            ends(child, 0)
            assert.is_true(service:running())
        end)

        it("says what is wrong with the pid file, and goes on", function()
            publish()
            local path = dir .. "/pid"
            local child = follow("signal=USR1", "pid_file=" .. path)
            sandbox.sleep(0.3)
            publish()
            says(child, path .. ": the pid file cannot be read: No such file or directory")
            for text, message in pairs {
                ["x\n"] = "there is no process id in it",
                ["0\n"] = "there is no process id in it",
                ["-1\n"] = "there is no process id in it",
                ["4194999\n"] = "process 4194999 cannot be signalled: no such process",
            } do
                sandbox.write_file(path, text)
                local version = publish()
                says(child, "error: " .. version)
                local line = messages(child):match("error: " .. version:gsub("%p", "%%%0")
                    .. ":([^\n]+)")
                assert.matches(message, line, 1, true)
            end
            child:kill("INT")
            ends(child, 0)
        end)
    end)

    describe("with a reload command", function()
        local RELOAD = "reload=echo reload $ATOMICWRITER_VERSION $ATOMICWRITER_TARGET >>$LOG"

        it("runs it at each new version, and not for the one that it finds", function()
            publish()
            local child = follow(RELOAD)
            sandbox.sleep(0.3)
            assert.same({}, lines())
            local second = publish()
            has_logged { "reload " .. second .. " " .. target }
            local third = publish()
            has_logged { "reload " .. second .. " " .. target, "reload " .. third .. " " .. target }
            child:kill("TERM")
            ends(child, 0)
        end)

        it("leaves the child alone", function()
            local first = publish()
            local child = follow_service(nil, RELOAD)
            has_logged { "start " .. first }
            local second = publish()
            has_logged { "start " .. first, "reload " .. second .. " " .. target }
            sandbox.run { "kill", "-USR2", service_pid() }
            assert(logged(3))
            child:kill("TERM")
            ends(child, 7)
        end)

        it("says that it failed, and tries again with the next version", function()
            publish()
            local child = follow("reload=echo try >>$LOG; [ -e " .. dir .. "/fine ] || exit 4")
            sandbox.sleep(0.3)
            local second = publish()
            says(child, ("error: %s: the reload exited with status 4"):format(second))
            has_logged { "try" }
            sandbox.write_file(dir .. "/fine", "")
            local third = publish()
            has_logged { "try", "try" }
            assert.is_nil(messages(child):find("error: " .. third, 1, true))
            child:kill("TERM")
            ends(child, 0)
        end)

        it("ends it when it takes too long", function()
            publish()
            local child = follow("reload=echo try >>$LOG; sleep 1000", "timeout=0.2")
            sandbox.sleep(0.3)
            publish()
            says(child, "the reload took longer than 0.2 s and was ended")
            publish()
            assert(logged(2))
            child:kill("TERM")
            ends(child, 0)
        end)

        it("lets it finish when it is stopped", function()
            publish()
            local child = follow("reload=echo begin >>$LOG; sleep 0.4; echo end >>$LOG")
            sandbox.sleep(0.3)
            publish()
            assert(logged(1))
            child:kill("TERM")
            ends(child, 0)
            assert.same({ "begin", "end" }, lines())
        end)

        it("acts once upon a burst, and upon its last version", function()
            publish()
            local child = follow(RELOAD, "debounce=0.3")
            sandbox.sleep(0.3)
            local last
            for _ = 1, 200 do last = publish() end
            has_logged { "reload " .. last .. " " .. target }
            child:kill("TERM")
            ends(child, 0)
        end)

        it("acts from time to time while versions never cease", function()
            publish()
            local child = follow(RELOAD, "debounce=0.05")
            sandbox.sleep(0.3)
            assert(sandbox.eventually(function()
                publish()
                return #lines() >= 2
            end))
            child:kill("TERM")
            ends(child, 0)
        end)

        it("acts upon a version that comes meanwhile afterwards, never two at a time", function()
            publish()
            local child = follow("reload=mkdir " .. dir .. "/alone || echo overlap >>$LOG;"
                .. "echo $ATOMICWRITER_VERSION >>$LOG; sleep 0.3; rmdir " .. dir .. "/alone")
            sandbox.sleep(0.3)
            local second = publish()
            assert(logged(1))
            publish()
            local last = publish()
            has_logged { second, last }
            child:kill("TERM")
            ends(child, 0)
        end)

        it("takes no processor time meanwhile, though a version waits", function()
            publish()
            local child = follow("reload=echo x >>$LOG; sleep 1.5")
            sandbox.sleep(0.3)
            publish()
            assert(logged(1))
            publish()
            idles(child)
            child:kill("TERM")
            ends(child, 0)
        end)
    end)

    it("exits with 1 when the target is missing at the start", function()
        sandbox.rmtree(target)
        local child = follow("reload=true")
        ends(child, 1)
        assert.matches("error: " .. target, messages(child), 1, true)
        child = follow_service()
        ends(child, 1)
        assert.same({}, lines())
    end)

    it("keeps the child when the target disappears, and acts when it is back", function()
        local first = publish()
        local child = follow_service()
        has_logged { "start " .. first }
        os.rename(target, target .. ".away")
        says(child, "waiting for it")
        idles(child)
        sandbox.sleep(1.5)
        local _, times = messages(child):gsub("waiting for it", "")
        assert.equal(1, times)
        assert.same({ "start " .. first }, lines())
        os.rename(target .. ".away", target)
        says(child, "it is back")
        has_logged { "start " .. first }
        os.rename(target, target .. ".away")
        assert(sandbox.eventually(function()
            local _, again = messages(child):gsub("waiting for it", "")
            return again == 2
        end))
        sandbox.mkdir(target)
        writer:close()
        writer = assert(atomicwriter.new(target, { durability = "none" }))
        local other = publish()
        has_logged { "start " .. first, "term", "start " .. other }
        child:kill("TERM")
        ends(child, 7)
    end)

    it("waits for a target that is gone as soon as it has a new version", function()
        local first = publish()
        local child = follow_service(nil, "debounce=0.5")
        has_logged { "start " .. first }
        publish()
        sandbox.sleep(0.2)
        os.rename(target, target .. ".away")
        says(child, "waiting for it")
        idles(child)
        assert.same({ "start " .. first }, lines())
        os.rename(target .. ".away", target)
        says(child, "it is back")
        assert(logged(3))
        child:kill("TERM")
        ends(child, 7)
    end)

    it("notices that the target is gone though somebody holds it open", function()
        publish()
        local snapshot = assert(atomicwriter.open(target))
        local child = follow("reload=true")
        sandbox.sleep(0.3)
        sandbox.rmtree(target)
        says(child, "waiting for it")
        snapshot:close()
        child:kill("TERM")
        ends(child, 0)
    end)

    it("ends at once with 0 without a child", function()
        publish()
        for _, name in ipairs { "TERM", "INT" } do
            local child = follow("reload=true")
            sandbox.sleep(0.3)
            child:kill(name)
            ends(child, 0)
        end
    end)

    it("G10: works on a volume that Kubernetes writes", function()
        local volume = dir .. "/volume"
        sandbox.mkdir(volume)
        local function swap(version)
            sandbox.mkdir(volume .. "/" .. version)
            sandbox.write_file(volume .. "/" .. version .. "/file", version)
            local old = sandbox.readlink(volume .. "/..data")
            sandbox.symlink(version, volume .. "/..data_tmp")
            assert(os.rename(volume .. "/..data_tmp", volume .. "/..data"))
            if old then
                sandbox.rmtree(volume .. "/" .. old)
            else
                sandbox.symlink("..data/file", volume .. "/file")
            end
        end
        swap "..2024_02_29_12_00_00.123456789"
        local child = sandbox.spawn(sandbox.lua(dir, body, volume, "debounce=0.05", "reload=printf "
            .. "'%s\\n' \"$(cat $ATOMICWRITER_TARGET/file)\" >>" .. log))
        sandbox.sleep(0.3)
        local expected = {}
        for _, version in ipairs { "..2024_02_29_12_00_01.345678901", "..2024_02_29_12_00_01.1",
            "..2024_02_29_12_00_02.5" } do
            swap(version)
            expected[#expected + 1] = version
            has_logged(expected)
        end
        child:kill("TERM")
        ends(child, 0)
    end)
end)
