-- atomicwriter.cli.etcd.feed: what a check finds that no event has told, and what etcdctl is fed.

local client = require "atomicwriter.cli.etcd.client"
local encoding = require "atomicwriter.cli.etcd.encoding"
local etcd = require "spec.support.etcd"
local feed = require "atomicwriter.cli.etcd.feed"
local process = require "atomicwriter.cli.process"
local sandbox = require "spec.support.sandbox"

describe("a feed of etcd", function()
    local store, it_feeds, told

    before_each(function()
        store, told = etcd.start(), {}
        local function note(_, text) told[#told + 1] = text end
        it_feeds = feed.new(assert(client.new { endpoints = store.endpoints }), "/app/", {
            console = { warn = note, info = note, debug = function() end }, follows = true,
            check = 0.2, grace = 0.2, retry = 0.1,
        })
    end)
    after_each(function()
        it_feeds:close()
        sandbox.cleanup()
    end)

    -- Let it go on until HOLDS(), at most 20 seconds.
    local function goes_on_until(holds)
        it_feeds.task:run_until(holds, process.now() + 20)
        assert.is_true(holds() and true or false)
    end

    local function has(value)
        goes_on_until(function() return it_feeds.files.a == value end)
    end

    it("finds what a watch that hangs has not told", function()
        store:put("/app/a", "1")
        has "1"
        goes_on_until(function() return it_feeds._watch end)
        process.kill(it_feeds._watch.pid, "STOP")
        store:put("/app/a", "2")
        has "2"
        store:put("/app/a", "3")
        has "3"
    end)

    it("finds a deletion that was not told, which leaves no newer key", function()
        store:put("/app/a", "1")
        store:put("/app/b", "1")
        has "1"
        goes_on_until(function() return it_feeds._watch end)
        process.kill(it_feeds._watch.pid, "STOP")
        store:delete("/app/a")
        has(nil)
        assert.equal("1", it_feeds.files.b)
    end)

    it("finds that etcd was made anew, with fewer revisions", function()
        for i = 1, 10 do store:put("/app/a", tostring(i)) end
        has "10"
        goes_on_until(function() return it_feeds._watch end)
        store.nodes[1]:kill()
        sandbox.rmtree(store.nodes[1].dir)
        store.nodes[1]:start()
        store:wait()
        store:put("/app/a", "new")
        has "new"
        assert.is_true(it_feeds.revision < 10)
    end)

    -- A feed as it is outside of specs, but that no check comes in time.
    local function start_unhurried()
        it_feeds:close()
        it_feeds = feed.new(assert(client.new { endpoints = store.endpoints }), "/app/",
            { console = it_feeds._console, follows = true, check = 1000 })
        store:put("/app/a", "1")
        has "1"
        goes_on_until(function() return it_feeds._pulses end)
    end

    it("tells within seconds that the connection is lost, and that it is back", function()
        start_unhurried()
        store.nodes[1]:kill()
        local killed = process.now()
        goes_on_until(function() return #told > 0 end)
        assert.is_true(process.now() - killed < 8)
        assert.truthy(told[1]:find("nothing answers; what was read last stays", 1, true), told[1])
        store.nodes[1]:start()
        store:wait()
        local back = process.now()
        goes_on_until(function() return #told > 1 end)
        assert.is_true(process.now() - back < 8)
        assert.truthy(told[2]:find("answers again", 1, true), told[2])
        store:put("/app/a", "2")
        has "2"
        assert.equal(2, #told)
    end)

    it("reads all again as soon as it is back at an etcd that has gone back", function()
        start_unhurried()
        for i = 1, 10 do store:put("/app/a", tostring(i)) end
        has "10"
        local revision = it_feeds.revision
        store.nodes[1]:kill()
        sandbox.rmtree(store.nodes[1].dir)
        store.nodes[1]:start()
        store:wait()
        store:put("/app/a", "new")
        local begun = process.now()
        has "new"
        assert.is_true(process.now() - begun < 8)
        assert.truthy(table.concat(told, "\n"):find(("etcd has gone back from revision %d to 2")
            :format(revision), 1, true), table.concat(told, "\n"))
        store:put("/app/a", "newer")
        has "newer"
    end)

    it("asks no more of a proxy, which does not answer, than it did before", function()
        it_feeds:close()
        it_feeds = feed.new(assert(client.new { endpoints = store:proxy() }), "/app/",
            { console = it_feeds._console, follows = true, check = 1000 })
        store:put("/app/a", "1")
        has "1"
        goes_on_until(function() return it_feeds._watch end)
        it_feeds.task:run_until(function() return it_feeds._check.child end, process.now() + 6)
        assert.is_nil(it_feeds._check.child)
        assert.same({}, told)
        store:put("/app/a", "2")
        has "2"
    end)

    it("does not read again, nor count a change, while nothing is missed", function()
        store:put("/app/a", "1")
        has "1"
        local generation, attempts = it_feeds.generation, it_feeds.attempts
        local deadline = process.now() + 1.5
        it_feeds.task:run_until(function() end, deadline)
        assert.equal(generation, it_feeds.generation)
        assert.equal(attempts, it_feeds.attempts)
    end)

    it("tells once that nothing answers, and that it does again", function()
        store:put("/app/a", "1")
        has "1"
        goes_on_until(function() return it_feeds._watch end)
        store.nodes[1]:kill()
        goes_on_until(function() return #told > 0 end)
        assert.truthy(told[1]:find("nothing answers; what was read last stays", 1, true), told[1])
        store.nodes[1]:start()
        goes_on_until(function() return #told > 1 end)
        assert.truthy(told[2]:find("answers again", 1, true), told[2])
        store:put("/app/a", "2")
        has "2"
        assert.equal(2, #told)
    end)

    it("pauses between attempts, also after it was asked to read again", function()
        local wrong = assert(client.new { endpoints = store.endpoints, cacert = "/nonexistent" })
        it_feeds:close()
        it_feeds = feed.new(wrong, "/app/", { console = {}, follows = true, retry = 0.5 })
        it_feeds.task:run_until(function() return it_feeds.attempts > 0 end)
        it_feeds:refresh()
        it_feeds.task:run_until(function() end, process.now() + 1.5)
        assert.is_true(it_feeds.attempts >= 2)
        assert.is_true(it_feeds.attempts <= 6, it_feeds.attempts .. " attempts")
    end)

    it("holds no more after many connections than after one", function()
        store:put("/app/a", "0")
        it_feeds._retry_min = 0.01
        local function new_connection(number)
            goes_on_until(function() return it_feeds._watch end)
            process.kill(it_feeds._watch.pid, "KILL")
            goes_on_until(function() return not it_feeds._watch end)
            it_feeds._delay = nil
            store:put("/app/a", number)
            has(number)
            goes_on_until(function() return it_feeds._watch and not it_feeds._check.child end)
        end
        has "0"
        for i = 1, 3 do new_connection(tostring(i)) end
        local memory, files, handles = sandbox.holdings()
        for i = 4, 13 do new_connection(tostring(i)) end
        local memory_now, files_now, handles_now = sandbox.holdings()
        assert.same({ files, handles }, { files_now, handles_now })
        assert.is_true(memory_now < memory + 100, memory_now - memory .. " KiB more")
    end)

    it("takes values whose line comes in many pieces", function()
        store:put("/app/a", "1")
        has "1"
        goes_on_until(function() return it_feeds._watch end)
        local large = ("0123456789abcdef"):rep(65536)
        sandbox.write_file(store.dir .. "/large", large)
        sandbox.must("ETCDCTL_ENDPOINTS=" .. store.endpoints .. " etcdctl put /app/a <"
            .. store.dir .. "/large")
        has(large)
    end)

    it("watches a prefix of any bytes", function()
        it_feeds:close()
        local prefix = "/ä b\"'\\\n\t\255%/"
        it_feeds = feed.new(assert(client.new { endpoints = store.endpoints }), prefix,
            { console = {}, follows = true })
        goes_on_until(function() return it_feeds._watch end)
        store:put(prefix .. "a", "1")
        has "1"
    end)
end)

describe("what etcdctl reads", function()
    after_each(sandbox.cleanup)

    it("is printable ASCII, whatever the bytes", function()
        for code = 0, 255 do
            assert.truthy(encoding.quote("x" .. string.char(code)):find('^"[ -~]+"$'))
        end
    end)
end)
