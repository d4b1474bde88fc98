-- `atomicwriter follow`, the executable. What it does in all cases is in follow_spec.lua.

local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"

local eventually = sandbox.eventually

describe("atomicwriter follow", function()
    local dir, target, log

    before_each(function()
        dir = sandbox.memdir()
        target, log = dir .. "/app", dir .. "/log"
        sandbox.write_file(log, "")
    end)
    after_each(sandbox.cleanup)

    local function publish(text)
        sandbox.must(command.words("write", target, "--create", "--durability", "none",
            "--from-literal", "x=" .. text))
    end

    local function logged(text)
        eventually(function() return sandbox.read_file(log) == text end)
        assert.equal(text, sandbox.read_file(log))
    end

    -- A shell script that notes what it reads in LOG, and then does MORE.
    local function noting(more)
        return ("echo $(cat %s/x) >>%s; %s"):format(target, log, more or ":")
    end

    it("restarts a program at each new version, and ends with its status", function()
        publish "one"
        local child = command.spawn("follow", target, "--debounce", "20ms", "--", "sh", "-c",
            noting "trap 'exit 7' TERM; while :; do sleep 0.02; done")
        logged "one\n"
        publish "two"
        logged "one\ntwo\n"
        child:kill "TERM"
        assert.equal(7, (child:wait()))
    end)

    it("takes the words after -- as they are", function()
        publish "one"
        local status, out =
            command.run("follow", target, "--", "printf", "%s|", "-n", "--help", "a b")
        assert.equal(0, status)
        assert.equal("-n|--help|a b|", out)
    end)

    it("exits with 128 and the signal that ended the program", function()
        publish "one"
        assert.equal(137, (command.run("follow", target, "--", "sh", "-c", "kill -KILL $$")))
    end)

    it("signals the program instead with --signal", function()
        publish "one"
        local child = command.spawn("follow", target, "--debounce", "20ms", "--signal", "hup", "--",
            "sh", "-c", ("trap %s HUP; %s"):format(sandbox.quote(noting()),
                noting "while :; do sleep 0.02; done"))
        logged "one\n"
        publish "two"
        logged "one\ntwo\n"
        child:kill "TERM"
        assert.equal(143, (child:wait()))
    end)

    it("runs --reload at each new version without a program, and ends with 0", function()
        publish "one"
        local child = command.spawn("follow", target, "--debounce", "20ms", "--reload", noting())
        -- It says nothing when it is ready: publish until it has seen one.
        local n = 0
        eventually(function()
            n = n + 1
            publish("v" .. n)
            sandbox.sleep(0.1)
            return sandbox.read_file(log) ~= ""
        end)
        publish "last"
        assert.truthy(eventually(function() return sandbox.read_file(log):find "last\n$" end))
        child:kill "INT"
        assert.equal(0, (child:wait()))
    end)

    it("exits with 1 when the target is missing", function()
        local status, out, err = command.run("follow", target, "--reload", "true")
        assert.equal(1, status)
        assert.equal("", out)
        assert.truthy(err:find("no such directory", 1, true), err)
    end)

    for _, case in ipairs {
        { "nothing to do", {} },
        { "--signal without a process", { "--signal", "HUP" } },
        { "--pid-file without a signal", { "--pid-file", "/dev/null" } },
        { "--signal with --reload", { "--signal", "HUP", "--reload", "true", "--", "true" } },
        { "a signal that does not exist", { "--signal", "NOPE", "--", "true" } },
    } do
        it("exits with 2 for " .. case[1], function()
            local status, out, err = command.run("follow", target, sandbox.unpack(case[2]))
            assert.equal(2, status)
            assert.equal("", out)
            assert.truthy(err:find("atomicwriter follow --help", 1, true), err)
        end)
    end
end)
