-- Across workers: who serves which version, waiting until all do, and what a thousand swaps leave.

local atomicwriter = require "atomicwriter"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local why_not = nginx.missing()
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

local function http(options)
    return [[
    lua_shared_dict atomicwriter 1m;
    init_worker_by_lua_block {
        resty_aw = require "resty.atomicwriter"
        config = assert(resty_aw.new {
            target = "@TARGET@", shared = "atomicwriter", ]] .. options .. [[ })
        config:start()
        function show(...)
            local list = { ... }
            for i = 1, select("#", ...) do
                list[i] = type(list[i]) == "table" and list[i].code or tostring(list[i])
            end
            ngx.print(table.concat(list, " "))
        end
    }
]]
end

local SERVER = [[
        location / { return 200; }
        location = /write { content_by_lua_block {
            local result, err = config:write { f = ngx.var.arg_f }
            ngx.print(result and result.version or err) } }
        location = /publish { content_by_lua_block {
            local result = assert(config:write { f = ngx.var.arg_f })
            show(config:wait_acknowledged(result.version, tonumber(ngx.var.arg_timeout))) } }
        location = /acknowledged { content_by_lua_block {
            show(config:acknowledged(ngx.var.arg_version)) } }
        location = /wait { content_by_lua_block {
            show(config:wait_acknowledged(ngx.var.arg_version, tonumber(ngx.var.arg_timeout))) } }
        location = /who { content_by_lua_block {
            ngx.print(ngx.worker.pid(), " ", config:get("f")) } }
]]

describe("resty.atomicwriter, across workers,", function()
    local target, writer

    before_each(function()
        target = sandbox.memdir() .. "/target"
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    local function write(data)
        return assert(writer:write { f = data }).version
    end

    local function start(options, workers, server)
        return nginx.start {
            target = target, workers = workers, http = http(options),
            server = SERVER .. (server or ""), main = "thread_pool default threads=4;",
        }
    end

    -- Wait until so many workers have told of themselves.
    local function all_here(server, count)
        return sandbox.eventually(function()
            return server:body("/acknowledged"):match "^%d+ (%d+)" == tostring(count)
        end)
    end

    maybe("counts those that serve a version or a later one", function()
        local first = write "one"
        local server = start("interval = 3600", 3)
        assert.truthy(all_here(server, 3))
        assert.equal("3 3 nil", server:body("/acknowledged?version=" .. first))
        -- The worker that writes looks at once, the others not within this hour.
        local second = server:body "/write?f=two"
        assert.truthy(sandbox.eventually(function()
            return server:body("/acknowledged?version=" .. second) == "1 3 nil"
        end))
        assert.equal("3 3 nil", server:body("/acknowledged?version=" .. first))
        assert.equal("0 3 nil", server:body "/acknowledged?version=..2999_01_01_00_00_00.1")
    end)

    maybe("waits until all do, and then all do", function()
        write "one"
        local server = start("interval = 0.05", 4)
        assert.truthy(all_here(server, 4))
        for i = 1, 10 do
            assert.equal("4", server:body("/publish?f=number" .. i))
            for _ = 1, 8 do
                assert.equal("number" .. i, server:body("/who"):match " (.*)$")
            end
        end
    end)

    maybe("waits with inotify, too", function()
        write "one"
        local server = start("interval = 3600, notify = true", 4)
        assert.truthy(all_here(server, 4))
        for i = 1, 5 do
            assert.equal("4", server:body("/publish?f=number" .. i .. "&timeout=20"))
        end
    end)

    maybe("gives up when the time is over, and says how far it is", function()
        write "one"
        local server = start("interval = 3600", 2, [[
        location = /reason { content_by_lua_block {
            local _, err = config:wait_acknowledged("..2999_01_01_00_00_00.1", 0)
            ngx.print(tostring(err)) } }
]])
        assert.truthy(all_here(server, 2))
        assert.equal("nil timeout", server:body "/publish?f=two&timeout=0.1")
        assert.equal(target .. ": 0 of 2 workers serve ..2999_01_01_00_00_00.1",
            server:body "/reason")
        -- What is left at last may be less than a timer can count.
        for i = 1, 20 do
            assert.equal("nil timeout", server:body(
                ("/wait?version=..2999_01_01_00_00_00.1&timeout=%.4f"):format(0.004 + i / 10000)))
        end
        assert.equal(0, server:logged "%[warn%]")
    end)

    maybe("says at once when a worker refuses the version", function()
        write "one"
        local server = start([[interval = 0.02, check = function(view)
            return view:get("f") ~= "bad", "bad"
        end]], 2)
        assert.truthy(all_here(server, 2))
        assert.equal("nil refused", server:body "/publish?f=bad&timeout=30")
        assert.equal("2", server:body "/publish?f=good&timeout=30")
    end)

    maybe("says so at once with inotify, too, however long the interval", function()
        write "one"
        local server = start([[interval = 3600, notify = true, check = function(view)
            return view:get("f") ~= "bad", "bad"
        end]], 2)
        assert.truthy(all_here(server, 2))
        assert.equal("nil refused", server:body "/publish?f=bad&timeout=20")
    end)

    maybe("says so too when a later version is refused, for then this one never comes", function()
        write "one"
        local server = start([[interval = 3600, check = function(view)
            return view:get("f") ~= "bad", "bad"
        end]], 1)
        assert.truthy(all_here(server, 1))
        local skipped = write "two"
        write "bad"
        assert.equal("nil refused", server:body("/wait?timeout=2&version=" .. skipped))
    end)

    maybe("does not wait for a worker that was killed", function()
        write "one"
        local server = start("interval = 0.02", 3)
        for i = 1, 5 do
            assert.truthy(all_here(server, 3))
            local victim = server:workers()[i % 3 + 1]
            sandbox.must { "kill", "-KILL", tostring(victim) }
            local waited_for = server:body("/publish?f=number" .. i .. "&timeout=20")
            assert.truthy(waited_for:find "^[123]$", waited_for) -- the next one may be here yet
            assert.truthy(all_here(server, 3))
            assert.falsy(sandbox.lives(victim))
        end
    end)

    maybe("does not count a worker that is gone and that nobody has replaced", function()
        write "one"
        local server = start("interval = 3600", 2, [[
        location = /plant { content_by_lua_block {
            local other = 1 - ngx.worker.id()
            local key = "atomicwriter:@TARGET@:" .. other
            assert(ngx.shared.atomicwriter:get(key))
            assert(ngx.shared.atomicwriter:set(key, ngx.var.arg_pid .. "\n\n\n")) } }
]])
        assert.truthy(all_here(server, 2))
        local gone = sandbox.must "echo $$":match "%d+"
        server:body("/plant?pid=" .. gone)
        assert.equal("1 1 nil", server:body "/acknowledged?version=..2000_01_01_00_00_00.1")
    end)

    maybe("waits for a worker that has stopped, for it lives", function()
        write "one"
        local server = start("interval = 0.02", 2)
        assert.truthy(all_here(server, 2))
        local pids = server:workers()
        local answering = tonumber(server:body("/who"):match "^%d+")
        local other = pids[1] == answering and pids[2] or pids[1]
        sandbox.must { "kill", "-STOP", tostring(other) }
        -- Connections may wait in the stopped worker's queue: not this one, which is kept open.
        local version = write "two"
        local waiting = sandbox.spawn { "curl", "-s", "-m", "30",
            ("http://127.0.0.1:%s/wait?version=%s&timeout=20"):format(server.port, version) }
        sandbox.sleep(0.3)
        assert.truthy(waiting:running())
        sandbox.must { "kill", "-CONT", tostring(other) }
        local _, answer = waiting:wait()
        assert.equal("2", answer)
    end)

    maybe("counts the new workers after HUP, and no old ones", function()
        write "one"
        local server = start("interval = 0.02", 4)
        assert.truthy(all_here(server, 4))
        local old = server:workers()
        server:configure {
            target = target, workers = 2, http = http "interval = 0.02", server = SERVER,
            main = "thread_pool default threads=4;",
        }
        server:signal "HUP"
        for _, pid in ipairs(old) do
            assert.truthy(sandbox.eventually(function() return not sandbox.lives(pid) end))
        end
        assert.truthy(all_here(server, 2))
        assert.equal("2", server:body "/publish?f=two&timeout=20")
    end)

    maybe("does not let an old worker that ends a load after HUP speak for the new one", function()
        write "one"
        local server = start([[interval = 3600, notify = true, decode = { f = function(data)
            if data == "slow" and ngx.get_phase() == "timer" then
                slow = true
                while not ngx.worker.exiting() do ngx.sleep(0.005) end
                ngx.sleep(0.3)
            end
            return data
        end }]], 1, "location = /slow { content_by_lua_block { ngx.print(tostring(slow)) } }")
        assert.truthy(all_here(server, 1))
        local old = server:workers()[1]
        local version = write "slow"
        assert.truthy(sandbox.eventually(function() return server:body "/slow" == "true" end))
        server:signal "HUP"
        assert.truthy(sandbox.eventually(function() return not sandbox.lives(old) end))
        assert.equal("1 1 nil", server:body("/acknowledged?version=" .. version))
    end)

    maybe("raises misuse at the caller's line", function()
        write "one"
        local server = start("interval = 3600", 1, [[
        location = /misuse { content_by_lua_block {
            local function try(fn, ...) ngx.say(select(2, pcall(fn, ...))) end
            try(function() config:acknowledged(1) end)
            try(function() config:wait_acknowledged("..x", "soon") end)
            try(function() config:wait_acknowledged("..x", -1) end) } }
]])
        local expected, i = {
            "bad argument #1 to 'acknowledged' %(name of a version expected%)$",
            "bad argument #2 to 'wait_acknowledged' %(seconds expected%)$",
            "bad argument #2 to 'wait_acknowledged' %(seconds expected%)$",
        }, 0
        for line in server:body("/misuse"):gmatch "[^\n]+" do
            i = i + 1
            assert.truthy(line:find("^content_by_lua%b():%d+: " .. expected[i]), line)
        end
        assert.equal(#expected, i)
    end)

    maybe("knows which of two names is the older one", function()
        write "one"
        local server = start("interval = 3600", 1, [[
        location = /older { content_by_lua_block {
            local older = require("resty.atomicwriter.workers").older
            local names = {
                "..2026_01_01_00_00_00.000000009", "..2026_01_01_00_00_00.99",
                "..2026_01_01_00_00_00.483920175", "..2026_01_01_00_00_00.1182736450",
                "..2026_01_01_00_00_00.999999999999999998",
                "..2026_01_01_00_00_00.999999999999999999", "..2026_01_01_00_00_01.000000000",
            }
            for i, a in ipairs(names) do
                for k, b in ipairs(names) do
                    if older(a, b) ~= (i < k) then ngx.say(a, " ", b) end
                end
            end
        } }
]])
        assert.equal("", server:body "/older")
    end)

    -- Over a thousand swaps: Lua's memory after a full collection, the process's, its descriptors.
    for name, options in pairs {
        ["preloading"] = "interval = 0.003",
        ["with leases and inotify"] = "interval = 0.003, notify = true, preload = false",
    } do
        maybe("a worker stays the same over 1000 swaps, " .. name, function()
            write "one"
            local server = start(options, 1, [[
        location = /holds { content_by_lua_block {
            collectgarbage() collectgarbage()
            local file = io.open("/proc/self/statm")
            local pages = file:read("*a"):match("^%d+ (%d+)")
            file:close()
            ngx.print(collectgarbage("count"), " ", pages * 4, " ", config:version())
        } }
]])
            local worker = server:workers()[1]
            local function holds()
                local lua, rss = server:body("/holds"):match "^(%S+) (%S+)"
                return tonumber(lua), tonumber(rss), #sandbox.names("/proc/" .. worker .. "/fd")
            end
            local function swap(count)
                for i = 1, count do
                    local version = write("number " .. i)
                    assert.truthy(sandbox.eventually(function()
                        return server:body "/who":match " (.*)$" == "number " .. i
                    end), version)
                end
            end
            swap(100)
            local lua, rss, fds = holds()
            swap(1000)
            local lua_after, rss_after, fds_after = holds()
            print(("# nginx: 1000 swaps: Lua %+.1f KiB, resident %+d KiB, descriptors %+d"):format(
                lua_after - lua, rss_after - rss, fds_after - fds))
            assert.truthy(lua_after - lua < 32)
            assert.truthy(rss_after - rss < 1024)
            assert.truthy(fds_after - fds <= 2) -- connections of curl's that close late
            assert.truthy(#volume.versions(target) <= 18) -- the cap of leased versions
        end)
    end
end)
