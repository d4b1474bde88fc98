-- Writing from inside nginx: write, plan and rollback from where requests and timers may wait.

local atomicwriter = require "atomicwriter"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local why_not = nginx.missing()
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

local POOL = "thread_pool default threads=4;"

-- `show(result, err)` prints both as one line of words.
local HTTP = [[
    init_by_lua_block {
        resty_aw = require "resty.atomicwriter"
        TARGET = "@TARGET@"
        function describe(result, err)
            if not result then
                return table.concat({ "nil", err.code, tostring(err.committed),
                    tostring(err.op), tostring(err.errno), tostring(err.path), tostring(err),
                    "text: " .. err }, "|")
            end
            return table.concat({ "ok", tostring(result.changed), tostring(result.version),
                tostring(result.previous), table.concat(result.added or {}, ","),
                table.concat(result.updated or {}, ","), table.concat(result.removed or {}, ","),
                tostring(result.unchanged), tostring(result.bytes),
                tostring(result.warnings and #result.warnings) }, "|")
        end
    }
]]

local SERVER = [[
        location / { return 200; }
        location = /write {
            content_by_lua_block {
                ngx.print(describe(resty_aw.write(TARGET, { f = ngx.var.arg_f, ["d/g"] = "g" },
                    { create = true })))
            }
        }
]]

describe("resty.atomicwriter, writing,", function()
    local target

    before_each(function() target = sandbox.tmpdir() .. "/target" end)
    after_each(sandbox.cleanup)

    local function start(options)
        options.target = target
        options.http = HTTP .. (options.http or "")
        options.server = SERVER .. (options.server or "")
        options.main = options.main or POOL
        return nginx.start(options)
    end

    local function words(line)
        local list = {}
        for word in (line .. "|"):gmatch("([^|]*)|") do list[#list + 1] = word end
        return list
    end

    maybe("brings the whole result from the thread", function()
        local server = start {}
        local first = words(server:body "/write?f=one")
        assert.same({ "ok", "true", volume.live(target), "nil", "d/g,f", "", "", "0", "4", "0" },
            first)
        assert.truthy(volume.shows(target, { f = "one", ["d/g"] = "g" }))
        local second = words(server:body "/write?f=two")
        assert.same({ "ok", "true", volume.live(target), first[3], "", "f", "", "1", "3", "0" },
            second)
        local third = words(server:body "/write?f=two")
        assert.same({ "ok", "false", second[3], "nil", "", "", "", "2", "0", "0" }, third)
        assert.equal(0, server:logged "block this worker")
    end)

    maybe("writes in another thread than the one that serves", function()
        local server = start {}
        local worker = server:workers()[1]
        local trace = sandbox.spawn { "strace", "-f", "-p", worker, "-o", server.dir .. "/trace",
            "-e", "trace=renameat,renameat2,rename,fsync,syncfs" }
        local attached = sandbox.eventually(function()
            local status = sandbox.read_file("/proc/" .. worker .. "/status") or ""
            return (tonumber(status:match("TracerPid:%s*(%d+)")) or 0) > 0 or not trace:running()
        end)
        if not attached or not trace:running() then
            return pending "strace may not look at another process here"
        end
        server:body "/write?f=one"
        trace:kill "INT"
        trace:wait(5)
        local text = sandbox.read_file(server.dir .. "/trace")
        assert.truthy(text:find('rename[^\n]*"..data"', 1, false), text)
        for line in text:gmatch("[^\n]+") do
            if line:find("rename") or line:find("sync") then
                assert.is_not.equal(tostring(worker), line:match("^%d+"), line)
            end
        end
    end)

    maybe("works in rewrite, access, content and timers, and before serving", function()
        local server = start {
            http = [[
    init_worker_by_lua_block {
        config = resty_aw.new { target = TARGET, write = { create = true }, interval = 3600 }
        in_init = describe(config:write { f = "init_worker" })
        config:start()
    }
]],
            server = [[
        location = /init { content_by_lua_block { ngx.print(in_init) } }
        location = /rewrite { rewrite_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = "rewrite" }))) ngx.exit(200) } }
        location = /access { access_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = "access" }))) ngx.exit(200) } }
        location = /timer { content_by_lua_block {
            ngx.timer.at(0, function()
                answer = describe(resty_aw.write(TARGET, { f = "timer" }))
            end)
            while not answer do ngx.sleep(0.002) end
            ngx.print(answer)
        } }
        location = /filter {
            return 200;
            header_filter_by_lua_block {
                ngx.header.Answer = select(2, pcall(function()
                    resty_aw.write(TARGET, { f = "filter" })
                end))
            }
        }
        location = /file { content_by_lua_block { ngx.print(config:get "f") } }
]],
        }
        assert.truthy(server:body("/init"):find("^ok|true|"))
        assert.equal("init_worker", server:body "/file")
        for _, phase in ipairs { "rewrite", "access", "timer" } do
            assert.truthy(server:body("/" .. phase):find("^ok|true|"), phase)
            assert.truthy(volume.shows(target, { f = phase }))
        end
        local _, answer = server:get("/filter", "-i")
        assert.truthy(answer:find("write cannot be called in the header_filter phase", 1, true),
            answer)
        assert.truthy(volume.shows(target, { f = "timer" }))
    end)

    maybe("brings errors over whole", function()
        local server = start {
            server = [[
        location = /invalid { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { ["../f"] = "x" }, { create = true }))) } }
        location = /function { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = print }, { create = true }))) } }
        location = /circle { content_by_lua_block {
            local payload = { f = {} }
            payload.f.data = payload
            ngx.print(describe(resty_aw.write(TARGET, payload, { create = true }))) } }
        location = /source { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = { source = "/nonexistent" } },
                { create = true }))) } }
        location = /missing { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = "x" }))) } }
        location = /rollback { content_by_lua_block {
            ngx.print(describe(resty_aw.rollback(TARGET, "..2000_01_01_00_00_00.1"))) } }
]],
        }
        local missing = words(server:body "/missing")
        assert.same({ "nil", "no_target", "false" },
            { missing[1], missing[2], missing[3] })
        assert.truthy(missing[7]:find(target, 1, true) == 1)
        assert.equal("text: " .. missing[7], missing[8])
        local invalid = words(server:body "/invalid")
        assert.same({ "nil", "invalid_payload", "../f" }, { invalid[1], invalid[2], invalid[6] })
        assert.equal("invalid_payload", words(server:body "/function")[2])
        local circle = words(server:body "/circle")
        assert.same({ "nil", "invalid_payload" }, { circle[1], circle[2] })
        local source = words(server:body "/source")
        assert.same({ "io", "false", "2", "/nonexistent" },
            { source[2], source[3], source[5], source[6] })
        assert.truthy(source[4]:find "open")
        server:body "/write?f=one"
        assert.equal("not_found", words(server:body "/rollback")[2])
    end)

    maybe("says locked when another writer does not end in time", function()
        local server = start {
            server = [[
        location = /impatient { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = "x" }, { lock_timeout = 0.05 }))) } }
]],
        }
        server:body "/write?f=one"
        local holder = sandbox.spawn { "flock", target .. "/..lock", "sh", "-c",
            "touch " .. target .. "-held; sleep 60" }
        sandbox.eventually(function() return sandbox.kind(target .. "-held") end)
        assert.equal("locked", words(server:body "/impatient")[2])
        holder:kill_all()
    end)

    describe("a check, by the name of a function in a module,", function()
        local CHECKS = [[
            local function slurp(path)
                local file = assert(io.open(path, "rb"))
                local data = file:read("*a")
                file:close()
                return data
            end
            return {
                routes = function(stage)
                    local data = slurp(stage .. "/f")
                    if data == "raise" then error("the check raised") end
                    return data ~= "bad", "it is bad"
                end,
            }
]]
        local function with_check(main)
            return start {
                main = main,
                files = {
                    ["checks.lua"] = CHECKS, ["plain.lua"] = "return function() return true end",
                },
                server = [[
        location = /checked { content_by_lua_block {
            ngx.print(describe(resty_aw.write(TARGET, { f = ngx.var.arg_f },
                { create = true, check = ngx.var.arg_check }))) } }
        location = /misuse { content_by_lua_block {
            local function try(fn, ...) ngx.say(select(2, pcall(fn, ...))) end
            try(function() resty_aw.write(TARGET, { f = "x" }, { check = "checks:nothing" }) end)
            try(function() resty_aw.write(TARGET, { f = "x" }, { check = "no.such.module" }) end)
            try(function() resty_aw.write(TARGET, { f = "x" }, { check = function() end }) end)
            try(function() resty_aw.write(TARGET, { f = "x" }, { expect = "x" }) end)
            try(function() resty_aw.write(TARGET, { f = "x" }, { durability = "maybe" }) end)
            try(function() resty_aw.write(TARGET, "f") end)
            try(function() resty_aw.write(nil, {}) end)
            try(function() resty_aw.rollback(TARGET, 1) end)
            try(function() resty_aw.plan(TARGET, {}, { thread_pool = 4 }) end)
            try(function() resty_aw.plan(TARGET, {}, { give_way = "no" }) end)
            try(function() resty_aw.write(TARGET, print) end)
            try(function() resty_aw.plan(TARGET) end)
            try(function() resty_aw.write(TARGET, {}, { create = print }) end)
            try(function() resty_aw.write(TARGET, {}, { [{}] = true }) end)
            try(function() resty_aw.versions(TARGET, { keeep = 2 }) end)
        } }
]],
            }
        end

        for name, main in pairs { ["in a thread"] = POOL, ["without threads"] = "#" } do
            maybe("runs before publication, " .. name, function()
                local server = with_check(main)
                assert.truthy(server:body("/checked?f=good&check=checks:routes"):find "^ok|true|")
                local refused = words(server:body "/checked?f=bad&check=checks:routes")
                assert.equal("check_failed", refused[2])
                assert.truthy(refused[7]:find("it is bad", 1, true))
                refused = words(server:body "/checked?f=raise&check=checks:routes")
                assert.equal("check_failed", refused[2])
                assert.truthy(refused[7]:find("the check raised", 1, true))
                assert.truthy(volume.shows(target, { f = "good" }))
                assert.truthy(server:body("/checked?f=more&check=plain"):find "^ok|true|")
            end)

            maybe("raises misuse at the caller's line, " .. name, function()
                local server = with_check(main)
                server:body "/checked?f=good&check=plain"
                local expected = {
                    "option 'check': checks:nothing is no function of a module$",
                    "module 'no.such.module' not found",
                    "option 'check' must be a string",
                    "unknown option 'expect'", "option 'durability' must be",
                    "payload must be a table, not a string",
                    "bad argument #1 to 'write' %(path of a directory",
                    "string expected",
                    "option 'thread_pool' must be a name or false$",
                    "option 'give_way' must be true or false$",
                    "bad argument to 'write' %(payload must be a table, not a function%)$",
                    "bad argument to 'plan' %(payload must be a table, not a nil%)$",
                    "option 'create' must not be a function$",
                    "option names must be strings$",
                    "bad argument to 'versions' %(unknown option 'keeep'%)$",
                }
                local i = 0
                for line in server:body("/misuse"):gmatch("[^\n]+") do
                    if line:find "^content_by_lua" then
                        i = i + 1
                        assert.truthy(line:find("^content_by_lua%b():%d+: .*" .. expected[i]), line)
                    end
                end
                assert.equal(#expected, i)
                assert.truthy(volume.shows(target, { f = "good" }))
            end)
        end
    end)

    maybe("plans, rolls back and lists", function()
        local server = start {
            server = [[
        location = /plan { content_by_lua_block {
            ngx.print(describe(resty_aw.plan(TARGET, { f = "three", h = "h" }))) } }
        location = /checked { content_by_lua_block {
            local config = assert(resty_aw.new { target = TARGET, write = { check = "none" } })
            ngx.print(describe(config:plan { f = "three" })) } }
        location = /rollback { content_by_lua_block {
            ngx.print(describe(resty_aw.rollback(TARGET, nil, { expect = ngx.var.arg_expect }))) } }
        location = /versions { content_by_lua_block {
            for _, version in ipairs(resty_aw.versions(TARGET)) do
                ngx.say(version.name, " ", tostring(version.live))
            end } }
]],
        }
        server:body "/write?f=one"
        server:body "/write?f=two"
        local live = volume.live(target)
        assert.same({ "ok", "true", "nil", live, "h", "f", "d/g", "0" },
            { sandbox.unpack(words(server:body "/plan"), 1, 8) })
        assert.truthy(server:body("/checked"):find "^ok|true|", "a plan asks no check")
        assert.truthy(volume.shows(target, { f = "two", ["d/g"] = "g" }))
        assert.equal("not_found", words(server:body "/rollback?expect=..2000_01_01_00_00_00.1")[2])
        assert.truthy(server:body("/rollback?expect=" .. live):find "^ok|true|")
        assert.truthy(volume.shows(target, { f = "one", ["d/g"] = "g" }))
        assert.equal(volume.live(target) .. " true\n" .. live .. " false\n",
            server:body "/versions")
    end)

    -- How the thread is scheduled, as a check in it sees that: nanoseconds of a slice, nice value.
    local function scheduled(main)
        local server = start {
            main = main,
            files = { ["sched.lua"] = [[
                local turns = require "resty.atomicwriter.turns"
                return function()
                    local slice, nice = turns.now()
                    return nil, ("slice=%.0f nice=%d."):format(slice, nice)
                end ]] },
            server = [[
        location = /sched { content_by_lua_block {
            local _, err = resty_aw.write(TARGET, { f = "x" },
                { create = true, check = "sched", give_way = ngx.var.arg_give ~= "no" })
            ngx.print(tostring(err)) } }
        location = /here { content_by_lua_block {
            local turns = require "resty.atomicwriter.turns"
            ngx.print(("%.0f %d"):format(turns.now())) } }
]],
        }
        local function ask(query)
            local slice, nice = server:body("/sched" .. query):match "slice=(%d+) nice=(%-?%d+)%."
            return tonumber(slice), tonumber(nice)
        end
        local own, own_nice = server:body "/here":match "^(%d+) (%-?%d+)$"
        return ask, tonumber(own), tonumber(own_nice)
    end

    maybe("lets the worker go first, in a pool of its own with a lower priority too", function()
        local ask, own, own_nice = scheduled "thread_pool atomicwriter threads=1;"
        local lowered = math.max(own_nice, 10)
        assert.same({ own > 0 and 100e6 or 0, lowered }, { ask "" }) -- 0: before Linux 6.12
        assert.same({ own, lowered }, { ask "?give=no" })
    end)

    maybe("lets the worker go first in a pool that others use, and leaves no trace", function()
        local ask, own, own_nice = scheduled "thread_pool default threads=1;"
        assert.same({ own, own_nice }, { ask "?give=no" })
        assert.same({ own > 0 and 100e6 or 0, own_nice }, { ask "" })
        assert.same({ own, own_nice }, { ask "?give=no" })
    end)

    maybe("never changes how the worker itself is scheduled", function()
        local ask, own, own_nice = scheduled ""
        assert.same({ own, own_nice }, { ask "" })
    end)

    maybe("writes directly where there is no thread pool, and says so once", function()
        local server = start { main = "" }
        for i = 1, 3 do
            assert.truthy(server:body("/write?f=" .. i):find "^ok|true|")
            assert.truthy(volume.shows(target, { f = tostring(i), ["d/g"] = "g" }))
        end
        assert.equal(1, server:logged "writes block this worker")
        assert.equal(1, server:logged "put \"thread_pool atomicwriter threads=4;\"")
    end)

    maybe("keeps other requests going while a write waits for the lock", function()
        local server = start {}
        server:body "/write?f=one"
        local holder = sandbox.spawn { "flock", target .. "/..lock", "sh", "-c",
            "touch " .. target .. "-held; sleep 60" }
        sandbox.eventually(function() return sandbox.kind(target .. "-held") end)
        local waiting = sandbox.spawn { "curl", "-s", "-m", "30",
            ("http://127.0.0.1:%s/write?f=two"):format(server.port) }
        for _ = 1, 20 do assert.equal(200, (server:get "/")) end
        assert.truthy(waiting:running())
        holder:kill_all()
        local _, answer = waiting:wait()
        assert.truthy(answer:find "^ok|true|", answer)
    end)

    -- Signals in the middle of a write: one that a lock holds up, so that it is in the middle.
    local function interrupted(signal, check)
        local server = start {}
        server:body "/write?f=one"
        local worker = server:workers()[1]
        local holder = sandbox.spawn { "flock", target .. "/..lock", "sh", "-c",
            "touch " .. target .. "-held; sleep 60" }
        sandbox.eventually(function() return sandbox.kind(target .. "-held") end)
        local waiting = sandbox.spawn { "curl", "-s", "-m", "30",
            ("http://127.0.0.1:%s/write?f=two"):format(server.port) }
        sandbox.sleep(0.2)
        server:signal(signal)
        sandbox.eventually(function() return server:logged "gracefully shutting down" > 0 end)
        holder:kill_all()
        local _, answer = waiting:wait()
        check(server, worker, answer)
        assert.truthy(volume.shows(target, { f = "two", ["d/g"] = "g" }))
    end

    maybe("G1: QUIT in the middle of a write: it ends, and its reply arrives", function()
        interrupted("QUIT", function(server, _, answer)
            assert.truthy(answer:find "^ok|true|", answer)
            assert.equal(0, (server.child:wait(30)))
        end)
    end)

    maybe("G1: HUP in the middle of a write: the old worker ends it and replies", function()
        interrupted("HUP", function(server, worker, answer)
            assert.truthy(answer:find "^ok|true|", answer)
            assert.truthy(sandbox.eventually(function() return not sandbox.lives(worker) end))
            assert.equal(1, #server:workers())
            assert.truthy(server:body("/write?f=two"):find "^ok|false|")
        end)
    end)

    maybe("G1: TERM or QUIT at any moment of a stream of writes leaves nothing torn", function()
        local points = 0
        for i = 1, 12 do
            local server = start {
                server = [[
        location = /stream { content_by_lua_block {
            local payload, previous = {}, nil
            for i = 1, 1e6 do
                for n = 1, 40 do payload["dir/" .. n] = tostring(i) end
                local result, err = resty_aw.write(TARGET, payload, { create = true })
                if not result then ngx.log(ngx.ERR, "stream: ", err) ngx.exit(500) end
                written = i
                if ngx.worker.exiting() then ngx.exit(200) end
            end } }
        location = /written { content_by_lua_block { ngx.print(written or 0) } }
]],
            }
            local stream = sandbox.spawn { "curl", "-s", "-m", "30",
                ("http://127.0.0.1:%s/stream"):format(server.port) }
            assert.truthy(sandbox.eventually(function()
                return tonumber(server:body "/written") >= 2
            end))
            sandbox.sleep(0.002 * i)
            server:signal(i % 2 == 0 and "TERM" or "QUIT")
            assert.truthy(server.child:wait(30))
            stream:wait()
            local live = volume.contents(target, volume.live(target))
            local files = {}
            for n = 1, 40 do files["dir/" .. n] = live["dir/1"] end
            assert.same(files, live)
            -- What is left over, if anything, the next write sweeps.
            local writer = assert(atomicwriter.new(target))
            files.extra = "x"
            assert(writer:write(files))
            writer:close()
            assert(volume.shows(target, files))
            assert.equal(0, server:logged "stream: ")
            points = points + 1
            sandbox.rmtree(target)
        end
        print(("# nginx: %d points of signals in a stream of writes, 0 torn"):format(points))
    end)
end)
