-- A signal that comes while a call waits: ^C must not wait for the lock.

local sandbox = require "spec.support.sandbox"

describe("A signal while a writer waits for the lock", function()
    local dir, target, holder

    before_each(function()
        dir = sandbox.tmpdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
        sandbox.write_file(target .. "/..lock", "", "0600")
        holder = sandbox.spawn { "sh", "-c",
            'exec 9>"$0/..lock"; flock 9; touch "$1"; exec sleep 120', target, dir .. "/held" }
        assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/held") end))
    end)

    after_each(function()
        holder:kill("KILL")
        sandbox.cleanup()
    end)

    local function start(call)
        local child = sandbox.spawn(sandbox.lua(dir, function(where, method, ready)
            local writer = assert(require("atomicwriter").new(where, { lock_timeout = 100 }))
            local luv = require "luv"
            local signal = luv.new_signal()
            signal:start("sigusr1", function() end) -- interrupts, and raises nothing
            io.open(ready, "w"):close()
            local result, err = writer[method](writer, method == "write" and { a = "1" } or nil)
            print(result, err)
        end, target, call, dir .. "/ready"))
        assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/ready") end))
        sandbox.sleep(0.1)
        return child
    end

    for _, call in ipairs { "write", "rollback", "collect" } do
        it("G6: ends " .. call .. " with the error that the signal's handler raises", function()
            local child = start(call)
            child:kill("INT")
            local status, stdout, stderr = child:wait(30)
            assert.equal(1, status, stdout)
            assert.matches("interrupted!", stderr)
            assert.equal("", stdout)
            assert.same({ "..lock" }, sandbox.names(target))
        end)
    end

    it("G6: lets it go on waiting when its handler raises nothing", function()
        local child = start("write")
        for _ = 1, 3 do
            child:kill("USR1")
            sandbox.sleep(0.05)
        end
        assert.is_true(child:running())
        holder:kill("KILL")
        local status, _, stderr = child:wait(30)
        assert.equal(0, status, stderr)
        assert.equal("1", sandbox.read_file(target .. "/a"))
    end)
end)
