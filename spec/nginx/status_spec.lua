-- The status of a followed directory: JSON for machines, a page for people, looked at by a browser.

local atomicwriter = require "atomicwriter"
local cjson = require "cjson"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local why_not = nginx.missing()
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

local HTTP = [[
    lua_shared_dict atomicwriter 1m;
    init_worker_by_lua_block {
        config = assert(require("resty.atomicwriter").new {
            target = "@TARGET@", interval = 0.02, shared = SHARED,
            decode = { ["routes.json"] = require("cjson.safe").decode },
        })
        config:start()
    }
]]

local SERVER = [[
        location / { return 200; }
        location = /status { content_by_lua_block { config:serve_status() } }
        location = /version { content_by_lua_block { ngx.print(config:version() or "none") } }
        location = /acknowledged {
            content_by_lua_block { ngx.print((select(2, config:acknowledged "..x"))) } }
]]

-- The page may ask for nothing: what a browser loads besides it would be seen in the log.
local CHROMIUM = { "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--window-size=900,640" }

describe("resty.atomicwriter, status,", function()
    local target, writer

    before_each(function()
        target = sandbox.tmpdir() .. "/<b>&target"
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    local function write(data)
        return assert(writer:write { ["routes.json"] = data }).version
    end

    local function start(workers, shared)
        local http = HTTP:gsub("SHARED", shared == false and "nil" or '"atomicwriter"')
        return nginx.start { target = target, workers = workers, http = http, server = SERVER }
    end

    local function ready(server, version, workers)
        return sandbox.eventually(function()
            if workers and server:body "/acknowledged" ~= tostring(workers) then return false end
            local status = cjson.decode(select(2, server:get "/status"))
            return status.acknowledged == status.total and status.serving
                and status.serving.version == version
        end)
    end

    local function json(server)
        return cjson.decode(server:body "/status")
    end

    maybe("tells the live version, its age, and who serves it, as JSON", function()
        local version = write '{"to":"a"}'
        local server = start(2)
        assert.truthy(ready(server, version, 2))
        local status = json(server)
        assert.equal(target, status.target)
        assert.is_true(status.healthy)
        assert.equal(version, status.live.version)
        assert.truthy(status.live.age >= 0 and status.live.age < 60)
        assert.equal(version, status.serving.version)
        assert.equal(2, status.total)
        assert.equal(2, status.acknowledged)
        assert.is_nil(status.error)
        local pids = {}
        for i, worker in ipairs(status.workers) do
            assert.equal(i - 1, worker.id)
            assert.equal(version, worker.version)
            pids[#pids + 1] = worker.pid
        end
        table.sort(pids)
        assert.same(server:workers(), pids)
        local _, answer = server:get("/status", "-i", "-H", "Accept: */*")
        assert.truthy(answer:find "Content%-Type: application/json")
        assert.truthy(answer:find "Cache%-Control: no%-store")
    end)

    maybe("tells of a version that is refused, and what is served instead", function()
        local good = write '{"to":"a"}'
        local server = start(1)
        assert.truthy(ready(server, good))
        local bad = write '{"to":'
        assert.truthy(sandbox.eventually(function() return not json(server).healthy end))
        assert.truthy(sandbox.eventually(function() return json(server).error end))
        local status = json(server)
        assert.equal(bad, status.live.version)
        assert.equal(good, status.serving.version)
        assert.equal("decode_failed", status.error.code)
        assert.equal(bad, status.error.version)
        assert.truthy(status.error.message:find("routes.json of " .. bad, 1, true))
        assert.equal(0, status.acknowledged)
        assert.equal(bad, status.workers[1].refused)
        assert.equal(good, status.workers[1].version)
        local better = write '{"to":"c"}'
        assert.truthy(ready(server, better))
        status = json(server)
        assert.is_true(status.healthy)
        assert.is_nil(status.error)
        assert.is_nil(status.workers[1].refused)
    end)

    maybe("is 503 when there is nothing to serve", function()
        local server = start(1)
        local code, body = server:get "/status"
        assert.equal(503, code)
        local status = cjson.decode(body)
        assert.is_false(status.healthy)
        assert.is_nil(status.serving)
        assert.is_nil(status.live)
        assert.equal("no_target", status.error.code)
        code = server:get("/status", "-H", "Accept: text/html")
        assert.equal(503, code)
    end)

    maybe("does without a shared dictionary", function()
        local version = write '{"to":"a"}'
        local server = start(1, false)
        local status = json(server)
        assert.equal(version, status.serving.version)
        assert.is_nil(status.workers)
        assert.is_true(status.healthy)
        assert.truthy(server:body "/status?format=html":find "current")
    end)

    describe("as a page", function()
        local function page(server)
            return server:body("/status", "-H",
                "Accept: text/html,application/xhtml+xml,*/*;q=0.8")
        end

        maybe("names nothing from elsewhere, and escapes what it shows", function()
            write '{"to":"a"}'
            local server = start(1)
            write '<script>alert(1)</script>'
            assert.truthy(sandbox.eventually(function() return json(server).error end))
            local html = page(server)
            assert.truthy(html:find "^<!DOCTYPE html>")
            assert.falsy(html:find "https?:" or html:find "src=" or html:find "@import"
                or html:find "url%(" or html:find "<script")
            assert.falsy(html:find("<b>", 1, true))
            assert.truthy(html:find("&lt;b&gt;&amp;target", 1, true))
            local _, answer = server:get("/status?format=html", "-i")
            assert.truthy(answer:find "Content%-Type: text/html; charset=utf%-8")
            assert.truthy(answer:find "Content%-Security%-Policy: default%-src 'none'")
        end)

        maybe("says in a browser what it should", function()
            if not sandbox.has "chromium" then return pending "there is no chromium" end
            local good = write '{"to":"a"}'
            local server = start(2)
            assert.truthy(ready(server, good, 2))
            local function browse(...)
                local words = { "timeout", "-k", "5", "60", sandbox.unpack(CHROMIUM) }
                words[#words + 1] = "--user-data-dir=" .. sandbox.tmpdir()
                for _, word in ipairs { ... } do words[#words + 1] = word end
                words[#words + 1] = ("http://127.0.0.1:%s/status"):format(server.port)
                return sandbox.must(words)
            end
            local dom = browse "--dump-dom"
            assert.truthy(dom:find('<span class="state good">current</span>', 1, true), dom)
            assert.truthy(dom:find("by 2 of 2 workers", 1, true))
            assert.truthy(dom:find("<code>" .. good .. "</code>", 1, true))
            local bad = write '{"to":'
            assert.truthy(sandbox.eventually(function()
                local status = json(server)
                return status.error and #status.workers == 2 and status.workers[1].refused
                    and status.workers[2].refused
            end))
            dom = browse "--dump-dom"
            assert.truthy(dom:find('<span class="state">not current</span>', 1, true), dom)
            assert.truthy(dom:find("by 0 of 2 workers", 1, true))
            assert.truthy(dom:find("routes.json of " .. bad, 1, true))
            -- For people: kept where STATUS_SCREENSHOT says.
            local picture = os.getenv "STATUS_SCREENSHOT" or server.dir .. "/status.png"
            browse("--screenshot=" .. picture)
            assert.equal("\137PNG", sandbox.read_file(picture):sub(1, 4))
        end)
    end)
end)
