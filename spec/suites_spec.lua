-- How the suites are counted (spec/support/run_suites.sh): a lane that is killed is a failure.

local sandbox = require "spec.support.sandbox"

describe("counting suites:", function()
    local dir

    before_each(function()
        dir = sandbox.memdir()
        -- In make's place: a suite that passes 10, one whose lane is killed, one that prints
        -- nothing, one that fails, one that waits.
        sandbox.write_file(dir .. "/make", ([[#!/bin/sh
            case $1 in
            kill) kill -KILL $PPID ;;
            silent) ;;
            failing) echo "3 2 1" >>"$SUITE_RESULTS"; exit 2 ;;
            waiting) echo $$ >%s/waiting; exec sleep 60 ;;
            *) echo "10 0 0" >>"$SUITE_RESULTS" ;;
            esac
        ]]):format(dir), "0755")
    end)
    after_each(sandbox.cleanup)

    local function words(...)
        return { "env", "-u", "MAKEFLAGS", "-u", "V", "-u", "SUITE_RESULTS",
            "MAKE=" .. dir .. "/make", "spec/support/run_suites.sh", "total", ... }
    end

    for name, case in pairs {
        ["adds up both lanes"] = { { "a", "b", "--", "c" }, 0, "30 passed, 0 failed" },
        ["a suite that fails"] = { { "a", "--", "failing" }, 1, "13 passed, 2 failed, 1 skipped" },
        ["one without a count"] = { { "silent", "a", "--", "b" }, 1, "20 passed, 1 failed" },
        ["a lane that is killed"] = { { "a", "kill", "b", "--", "c" }, 1, "20 passed, 1 failed" },
        ["the other lane"] = { { "a", "--", "b", "kill", "c" }, 1, "20 passed, 1 failed" },
        ["the only lane"] = { { "a", "kill", "b" }, 1, "10 passed, 1 failed" },
    } do
        it(name, function()
            local status, out, err = sandbox.run(words(sandbox.unpack(case[1])))
            assert.equal(case[3], out:match "([^\n]*)\n$", err)
            assert.equal(case[2], status)
        end)
    end

    for _, signal in ipairs { "TERM", "HUP" } do
        it("SIG" .. signal .. " ends both lanes", function()
            local run = sandbox.spawn(words("a", "--", "waiting"))
            local pid
            assert(sandbox.eventually(function()
                pid = (sandbox.read_file(dir .. "/waiting") or ""):match "%d+"
                return pid
            end, 10))
            run:kill(signal)
            assert.is_true(run:wait(10) > 128)
            assert(sandbox.eventually(function() return not sandbox.lives(pid) end, 10))
        end)
    end
end)
