-- Under load: no request fails and none sees two versions while 500 files are published without a
-- pause, from inside the same nginx.

local atomicwriter = require "atomicwriter"
local load = require "spec.nginx.load"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local why_not = nginx.missing() or not sandbox.has "wrk" and "there is no wrk"
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

local REQUESTS = 100000
local VERSIONS = 20
local ROUNDS = 20 -- of two seconds: enough for a machine that is busy with something else

describe("nginx under load", function()
    after_each(sandbox.cleanup)

    maybe("G1: sees one version in each of 100,000 requests, and none fails", function()
        local target = sandbox.tmpdir() .. "/target"
        local writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
        local payload = {}
        for i = 1, load.FILES do payload["file" .. i] = "0\n" end
        assert(writer:write(payload))
        writer:close()
        local server = load.start(target, false, "notify = true,")
        local sum, rounds, published = { answers = 0, failed = 0, mixed = 0 }, 0
        repeat
            load.publish(server, true)
            local saw = load.ask(server, "/two", 2, 64)
            for name in pairs(sum) do sum[name] = sum[name] + saw[name] end
            rounds, published = rounds + 1, load.publish(server, false)
        until sum.answers >= REQUESTS and published >= VERSIONS or rounds == ROUNDS
        print(("# nginx: %d requests while %d versions of %d files went live: %d failed, %d mixed")
            :format(sum.answers, published, load.FILES, sum.failed, sum.mixed))
        assert.equal(0, sum.failed)
        assert.equal(0, sum.mixed)
        assert.truthy(sum.answers >= REQUESTS)
        assert.truthy(published >= VERSIONS)
        assert.equal(0, server:logged "%[error%]" + server:logged "%[warn%]")
        assert.equal(0, server:stop())
    end)
end)
