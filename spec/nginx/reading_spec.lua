-- Reading inside nginx: what a request sees of a directory while others write into it.

local atomicwriter = require "atomicwriter"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local why_not = nginx.missing()
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

-- `config` follows @TARGET@ with OPTIONS; BEFORE runs before it starts.
local function init(options, before)
    return [[
    init_worker_by_lua_block {
        local resty_aw = require "resty.atomicwriter"
        local cjson = require "cjson.safe"
        config = assert(resty_aw.new { target = "@TARGET@", ]] .. (options or "") .. [[ })
        ]] .. (before or "") .. [[

        started, start_error = config:start()
    }
]]
end

local SERVER = [[
        location / { return 200; }
        location = /file {
            content_by_lua_block {
                local value, err = config:get(ngx.var.arg_path)
                ngx.print(value ~= nil and value or "error " .. err.code .. ": " .. err)
            }
        }
        location = /route {
            content_by_lua_block { ngx.print(config:get("routes.json").to) }
        }
        location = /version { content_by_lua_block { ngx.print(config:version() or "none") } }
]]

describe("resty.atomicwriter, reading,", function()
    local target, writer

    before_each(function()
        target = sandbox.memdir() .. "/target"
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    local function write(payload)
        return assert(writer:write(payload)).version
    end

    local function start(options)
        options.target = target
        options.server = SERVER .. (options.server or "")
        options.http = options.http or init(options.config, options.before)
        return nginx.start(options)
    end

    -- Wait until the worker serves VERSION.
    local function serves(server, version)
        return sandbox.eventually(function() return server:body "/version" == version end)
    end

    -- Wait until PATTERN is in the log so often.
    local function logs(server, pattern, count)
        return sandbox.eventually(function() return server:logged(pattern) == count end)
    end

    maybe("serves what is live, decoded, from the first request on", function()
        local version = write { ["routes.json"] = '{"to":"a"}', ["dir/plain"] = "text" }
        local server = start { config = 'decode = { ["routes.json"] = cjson.decode }' }
        assert.equal("a", server:body "/route")
        assert.equal("text", server:body "/file?path=dir/plain")
        assert.equal(version, server:body "/version")
        assert.equal("error not_found: " .. target .. ": none: not in " .. version,
            server:body "/file?path=none")
        assert.equal(0, server:logged "%[error%]")
    end)

    maybe("switches to a new version within the interval", function()
        write { ["routes.json"] = '{"to":"a"}' }
        local server = start {
            config = 'interval = 0.05, decode = { ["routes.json"] = cjson.decode }',
        }
        assert.equal("a", server:body "/route")
        assert.truthy(serves(server, write { ["routes.json"] = '{"to":"b"}' }))
        assert.equal("b", server:body "/route")
    end)

    maybe("lets requests have their turn while it loads a thousand files", function()
        write { f = "one" }
        local server = start {
            config = "interval = 0.02, preload = true",
            server = [[location = /turns { content_by_lua_block {
                while not config.busy do ngx.sleep(0.001) end
                local turns = 0
                while config.busy do
                    turns = turns + 1
                    ngx.sleep(0.001)
                end
                ngx.print(turns)
            } }]],
        }
        local asked = sandbox.spawn { "curl", "-s", "-m", "30",
            ("http://127.0.0.1:%s/turns"):format(server.port) }
        sandbox.sleep(0.2)
        local payload = {}
        for i = 1, 1000 do payload["file" .. i] = "data" end
        assert.truthy(serves(server, write(payload)))
        local _, turns = asked:wait()
        assert.truthy(tonumber(turns) >= 10, turns)
        assert.equal("data", server:body "/file?path=file1000")
        assert.equal(0, server:logged "%[warn%]")
    end)

    maybe("rests after it has read much, for each piece, and else never", function()
        write { f = "small" }
        local server = start {
            config = [[interval = 0.01, notify = true, decode = { file1 = function(data)
                began = ngx.now()
                return data
            end }]],
            before = [[
                rests = {}
                config:on_change(function()
                    ngx.update_time()
                    if began and ended then -- a piece: 16 files, or the names of 128
                        rests[#rests + 1] = began - ended >= 0.08 and "." or "too short"
                    end
                    ended = config.breaths > 0 and ngx.now()
                end) ]],
            server = [[location = /rests { content_by_lua_block {
                ngx.print(config.breaths, " ", table.concat(rests)) } }]],
        }
        assert.truthy(serves(server, write { f = "smaller" }))
        assert.equal("0 ", server:body "/rests")
        local payload, version = {}
        repeat
            for i = 1, 300 do payload["file" .. i] = tostring(sandbox.now()) end
            version = write(payload)
        until #server:body "/rests" >= 6
        assert.truthy(serves(server, version))
        assert.truthy(server:body "/rests":find "^%d%d %.+$", server:body "/rests")
    end)

    maybe("decodes each version once for a worker", function()
        write { ["routes.json"] = '{"to":"a"}' }
        local server = start {
            config = [[interval = 0.05, decode = { ["routes.json"] = function(data)
                decoded = (decoded or 0) + 1
                return cjson.decode(data)
            end }]],
            server = "location = /decoded { content_by_lua_block { ngx.print(decoded) } }",
        }
        for _ = 1, 5 do server:body "/route" end
        assert.equal("1", server:body "/decoded")
        serves(server, write { ["routes.json"] = '{"to":"b"}' })
        for _ = 1, 5 do server:body "/route" end
        assert.equal("2", server:body "/decoded")
    end)

    maybe("costs one readlink for each look, and no other call on the directory", function()
        write { ["routes.json"] = '{"to":"a"}' }
        local server = start { config = "interval = 0.05" }
        local worker = server:workers()[1]
        local trace = sandbox.spawn { "strace", "-f", "-p", worker, "-o", server.dir .. "/trace",
            "-e", "trace=%file,%desc" }
        local traced = sandbox.eventually(function()
            local text = sandbox.read_file(server.dir .. "/trace") or ""
            return select(2, text:gsub("readlink", "")) >= 10
        end)
        trace:kill "INT"
        if not traced and trace:wait(5) then
            return pending "strace may not look at another process here"
        end
        local looks, others = 0, {}
        for line in sandbox.read_file(server.dir .. "/trace"):gmatch("[^\n]+") do
            local call = line:match("^%d+ +([%w_]+)%(")
            if call == "readlink" or call == "readlinkat" then
                looks = looks + 1
                assert.truthy(line:find(target .. "/..data", 1, true), line)
            elseif call and call ~= "epoll_wait" and call ~= "gettid" then
                others[#others + 1] = line
            end
        end
        assert.same({}, others)
        assert.truthy(looks >= 10)
    end)

    maybe("notices a swap through inotify long before the interval is over", function()
        write { f = "one" }
        local server = start { config = "interval = 3600, notify = true" }
        for i = 1, 5 do
            assert.truthy(serves(server, write { f = "number " .. i }))
            assert.equal("number " .. i, server:body "/file?path=f")
        end
    end)

    maybe("finds a directory that was removed and made anew, with inotify too", function()
        write { f = "one" }
        local server = start { config = "interval = 0.05, notify = true" }
        sandbox.rmtree(target)
        assert.truthy(sandbox.eventually(function() return server:logged "no such" > 0
            or server:logged "No such" > 0 end), server:log())
        assert.equal("one", server:body "/file?path=f")
        assert.truthy(serves(server, write { f = "two" }))
        assert.truthy(serves(server, write { f = "three" }))
        assert.equal("three", server:body "/file?path=f")
    end)

    maybe("G1: shows one version to a request, however long that takes", function()
        write { a = "one", b = "one" }
        local server = start {
            config = "interval = 0.01",
            server = [[
        location = /both {
            rewrite_by_lua_block { first = config:get("a") }
            content_by_lua_block {
                local seen = { first, config:version() }
                for i = 1, 400 do
                    ngx.sleep(0.005)
                    seen[3], seen[4] = config:get("b"), config:version()
                    newest = config:latest():get("b")
                    if newest ~= first then break end
                end
                ngx.print(seen[1], " ", seen[3], " ", newest, " ",
                    tostring(seen[2] == seen[4]))
            }
            header_filter_by_lua_block { ngx.header["Seen"] = config:get("a") }
            log_by_lua_block { logged = config:get("b") }
        }
        location = /logged { content_by_lua_block { ngx.print(logged) } }
]],
        }
        local slow = sandbox.spawn { "curl", "-s", "-i", "-m", "20",
            ("http://127.0.0.1:%s/both"):format(server.port) }
        sandbox.sleep(0.2)
        write { a = "two", b = "two" }
        local _, answer = slow:wait()
        assert.equal("one one two true", answer:match("([^\n]*)$"))
        assert.equal("one", answer:match("Seen: (%w+)"))
        assert.equal("one", server:body "/logged")
        assert.equal("two", server:body "/file?path=a")
    end)

    maybe("does not tie the requests of one connection to a version", function()
        write { f = "one" }
        local server = start { config = "interval = 0.01" }
        local url = ("http://127.0.0.1:%s/file?path=f"):format(server.port)
        local version
        -- curl asks twice on one connection; the write happens in between.
        local child = sandbox.spawn { "curl", "-s", "-v", "--rate", "60/m", "-w", "\n", url, url }
        sandbox.sleep(0.3)
        version = write { f = "two" }
        local _, out, err = child:wait()
        assert.equal("one\ntwo\n", out)
        assert.truthy(err:find("Re%-using existing connection"))
        assert.truthy(serves(server, version))
    end)

    describe("keeps the last good version", function()
        maybe("when a file does not decode, says so once, and goes on with the next", function()
            write { ["routes.json"] = '{"to":"a"}', other = "one" }
            local server = start {
                config = 'interval = 0.02, decode = { ["routes.json"] = cjson.decode }',
            }
            local bad = write { ["routes.json"] = '{"to":', other = "two" }
            local line = "routes.json of " .. bad .. ": "
            assert.truthy(sandbox.eventually(function()
                return server:log():find(line, 1, true)
            end))
            sandbox.sleep(0.2) -- ten more looks
            local _, count = server:log():gsub((line:gsub("%p", "%%%0")), "")
            assert.equal(1, count)
            assert.equal("a", server:body "/route")
            assert.equal("one", server:body "/file?path=other")
            assert.truthy(serves(server, write { ["routes.json"] = '{"to":"c"}' }))
            assert.equal("c", server:body "/route")
        end)

        maybe("when a decoder raises, or gives nothing", function()
            write { f = "good" }
            local server = start { config = [[interval = 0.02, decode = { f = function(data)
                if data == "raise" then error("no way") end
                if data ~= "nothing" then return data end
            end }]] }
            write { f = "raise" }
            assert.truthy(logs(server, "no way", 1))
            write { f = "nothing" }
            assert.truthy(logs(server, "it decodes to nothing", 1))
            assert.equal("good", server:body "/file?path=f")
            assert.truthy(serves(server, write { f = "better" }))
        end)

        maybe("when a check refuses it or raises", function()
            write { f = "good", g = "1" }
            local server = start { config = [[interval = 0.02, check = function(view)
                if view:get("f") == "raise" then error("check raised") end
                return view:get("f") == "good", "not good: " .. #view:paths()
            end]] }
            write { f = "bad", g = "2" }
            assert.truthy(logs(server, "the check refused .-: not good: 2", 1))
            write { f = "raise", g = "3" }
            assert.truthy(logs(server, "check raised", 1))
            assert.equal("1", server:body "/file?path=g")
            assert.truthy(serves(server, write { f = "good", g = "4" }))
            assert.equal("4", server:body "/file?path=g")
        end)

        maybe("when ..data is not what it should be, and when it is gone", function()
            local version = write { f = "good" }
            local server = start { config = "interval = 0.02" }
            sandbox.must { "ln", "-sfn", "../elsewhere", target .. "/..data" }
            assert.truthy(logs(server, "still serving", 1))
            os.remove(target .. "/..data")
            assert.truthy(logs(server, "still serving", 2))
            sandbox.sleep(0.2) -- ten more looks, which fail alike and say nothing
            assert.equal(2, server:logged "still serving")
            assert.equal("good", server:body "/file?path=f")
            assert.equal(version, server:body "/version")
        end)
    end)

    maybe("starts before there is a directory, and serves it when it comes", function()
        local server = start { config = "interval = 0.02" }
        local body = server:body "/file?path=f"
        assert.truthy(body:find("^error not_found: " .. target:gsub("%p", "%%%0")), body)
        assert.truthy(serves(server, write { f = "here" }))
        assert.equal("here", server:body "/file?path=f")
    end)

    maybe("tells listeners of each version, the first too, and survives what they raise", function()
        local first = write { f = "one" }
        local server = start {
            config = "interval = 0.02",
            before = [[
                told = {}
                config:on_change(function() error("listener raised") end)
                config:on_change(function(view, previous)
                    told[#told + 1] = view.version .. " " .. view:get("f") .. " "
                        .. tostring(previous)
                end) ]],
            server = [[location = /told {
                content_by_lua_block { ngx.print(table.concat(told, "\n")) } }]],
        }
        local second = write { f = "two" }
        assert.truthy(serves(server, second))
        assert.equal(first .. " one nil\n" .. second .. " two " .. first, server:body "/told")
        assert.equal(2, server:logged "a listener failed: [^\n]*listener raised")
    end)

    describe("without preloading", function()
        maybe("G9: reads what is asked for from a leased snapshot", function()
            local first = write { f = "one", g = "one" }
            local server = start {
                config = "interval = 0.02, preload = false",
                server = [[
        location = /slow {
            content_by_lua_block {
                local version = config:version()
                while config:latest().version == version do ngx.sleep(0.005) end
                ngx.sleep(0.1)
                ngx.print(config:get("g"))
            }
        }
]],
            }
            local slow = sandbox.spawn { "curl", "-s", "-m", "20",
                ("http://127.0.0.1:%s/slow"):format(server.port) }
            sandbox.sleep(0.2)
            for i = 1, 5 do write { f = "new " .. i, g = "new " .. i } end
            local _, answer = slow:wait()
            assert.equal("one", answer)
            assert.equal("new 5", server:body "/file?path=g")
            -- Nobody reads the first version any more: a writer may remove it before long.
            assert.truthy(sandbox.eventually(function()
                write { f = tostring(sandbox.now()) }
                return not sandbox.kind(target .. "/" .. first)
            end))
        end)

        maybe("still decodes, and reads what a list names", function()
            write { ["routes.json"] = '{"to":"a"}', f = "f", g = "g" }
            local server = start {
                config = 'preload = { "f" }, decode = { ["routes.json"] = cjson.decode }',
            }
            assert.equal("a", server:body "/route")
            assert.equal("f", server:body "/file?path=f")
            assert.equal("g", server:body "/file?path=g")
        end)
    end)

    maybe("reads a volume that a kubelet writes, which knows no leases", function()
        -- As the kubelet does it: a directory, a link beside ..data, a rename, and the old
        -- directory is gone at once.
        sandbox.mkdir(target)
        local number = 0
        local function project(files)
            number = number + 1
            local name = ("..2026_01_01_00_00_%02d.%d"):format(number, 1000000000 - number)
            sandbox.mkdir(target .. "/" .. name)
            for path, data in pairs(files) do
                sandbox.write_file(target .. "/" .. name .. "/" .. path, data)
            end
            local old = volume.live(target)
            sandbox.symlink(name, target .. "/..data_tmp")
            assert(os.rename(target .. "/..data_tmp", target .. "/..data"))
            if old then sandbox.rmtree(target .. "/" .. old) end
            return name
        end
        local first = project { a = "1", b = "1" }
        local server = start { config = "interval = 0.02" }
        assert.equal(first, server:body "/version")
        for i = 2, 20 do
            local version = project { a = tostring(i), b = tostring(i) }
            assert.truthy(serves(server, version))
            assert.equal(tostring(i), server:body "/file?path=a")
            assert.equal(tostring(i), server:body "/file?path=b")
        end
    end)

    maybe("raises misuse at the caller's line", function()
        write { f = "one" }
        local server = start {
            before = 'lazy = resty_aw.new { target = config.target, preload = false } lazy:start()',
            server = [[
        location = /misuse {
            content_by_lua_block {
                local resty_aw = require "resty.atomicwriter"
                local function try(fn, ...) ngx.say(select(2, pcall(fn, ...))) end
                try(function() resty_aw.new() end)
                try(function() resty_aw.new {} end)
                try(function() resty_aw.new { target = "x", intervall = 1 } end)
                try(function() resty_aw.new { target = "x", interval = 0 } end)
                try(function() resty_aw.new { target = "x", decode = { f = "json" } } end)
                try(function() config:on_change("f") end)
                try(function() config:acknowledged() end)
                try(function() config:get() end)
                try(function() config:view():get(1) end)
                try(function() lazy:get() end)
                local none, err = resty_aw.new { target = "x", shared = "none" }
                ngx.say(tostring(none), " ", err.code, " ", tostring(err))
                ngx.print(resty_aw._VERSION)
            }
        }
]],
        }
        local lines = {}
        for line in server:body("/misuse"):gmatch("[^\n]+") do lines[#lines + 1] = line end
        local expected = {
            "bad argument #1 to 'new' %(table expected%)$", "option 'target' is missing$",
            "unknown option 'intervall'$", "option 'interval' must be a number of seconds above 0$",
            "option 'decode' must be a table of path to function$",
            "bad argument #1 to 'on_change' %(function expected%)$",
            "acknowledged needs the option 'shared' of resty.atomicwriter.new$",
            "bad argument #1 to 'get' %(path expected, got nil%)$",
            "bad argument #1 to 'get' %(path expected, got number%)$",
            "bad argument #1 to 'get' %(path expected, got nil%)$",
        }
        for i, message in ipairs(expected) do
            assert.truthy(lines[i]:find("^content_by_lua%b():%d+: " .. message), lines[i])
        end
        assert.truthy(lines[11]:find("^nil not_found .*/x: there is no shared dictionary 'none'"),
            lines[11])
        assert.equal(atomicwriter._VERSION, lines[12])
    end)
end)
