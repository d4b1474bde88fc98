-- What the specs themselves leave on a machine: nothing, also when somebody interrupts them.

local sandbox = require "spec.support.sandbox"

describe("specs that are killed", function()
    after_each(sandbox.cleanup)

    local function body(out)
        local own = require "spec.support.sandbox"
        local child, scratch = own.spawn { "sleep", "1000" }, own.memdir()
        own.write_file(out .. ".new", child.pid .. " " .. child.dir .. " " .. scratch)
        os.rename(out .. ".new", out)
        own.sleep(1000)
    end

    it("leave no process and no directory", function()
        local dir = sandbox.tmpdir()
        local run = sandbox.spawn(sandbox.lua(dir, body, dir .. "/out"))
        assert(sandbox.eventually(function() return sandbox.kind(dir .. "/out") end, 10))
        local pid, its_dir, scratch = sandbox.read_file(dir .. "/out"):match "^(%d+) (%S+) (%S+)$"
        assert.is_true(sandbox.lives(pid))
        run:kill "KILL"
        assert(sandbox.eventually(function()
            return not sandbox.lives(pid) and not sandbox.kind(its_dir)
                and not sandbox.kind(scratch)
        end, 10))
    end)
end)
