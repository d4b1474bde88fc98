--- nginx under load: a server that publishes without a pause, and clients that ask meanwhile. What
-- the load spec and the benchmark share.

local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local M = {}

--- How many files each write replaces, all of them changed and all synced.
M.FILES = 500

-- Both workers publish from a timer, in turns, for they exclude each other; both follow. The
-- location "/" touches nothing of this, "/two" names the versions of two files with a pause between
-- reading them.
local HTTP = [[
    lua_shared_dict load 1m;
    init_worker_by_lua_block {
        local resty_aw = require "resty.atomicwriter"
        config = assert(resty_aw.new {
            target = "@TARGET@", shared = "load", FOLLOW
            write = { thread_pool = POOL, lock_timeout = 60 },
        })
        config:start()
        local shared, pad = ngx.shared.load, ("x"):rep(1000)
        ngx.timer.at(0, function()
            while not ngx.worker.exiting() do
                if shared:get "publish" then
                    local payload, number = {}, shared:incr("number", 1, 0)
                    for i = 1, FILES do payload["file" .. i] = number .. "\n" .. pad end
                    local result, err = config:write(payload)
                    if result then shared:incr("published", 1, 0)
                    else ngx.log(ngx.ERR, "load: ", tostring(err)) end
                    ngx.sleep(0.001)
                else
                    ngx.sleep(0.01)
                end
            end
        end)
    }
]]

local SERVER = [[
        location = / { return 200 "plain"; }
        location = /two { content_by_lua_block {
            local first = config:get("file1"):match "^%d+"
            ngx.sleep(0.001)
            ngx.print(first, " ", config:get("fileFILES"):match "^%d+")
        } }
        location = /version { content_by_lua_block { ngx.print(config:version()) } }
        location = /publish { content_by_lua_block {
            ngx.shared.load:set("publish", ngx.var.arg_on == "1")
            ngx.print(ngx.shared.load:get "published" or 0)
        } }
]]

--- Start it; nothing is published before `publish`.
-- @tparam string target which has a version already
-- @tparam boolean direct whether writes block the worker
-- @tparam[opt] string follow more options for following
function M.start(target, direct, follow)
    local values = { POOL = direct and "false" or '"atomicwriter"', FILES = tostring(M.FILES),
        FOLLOW = follow or "" }
    local function fill(text) return (text:gsub("%f[%u]%u+%f[%U]", values)) end
    return nginx.start {
        target = target, workers = 2, main = "thread_pool atomicwriter threads=4;",
        http = fill(HTTP),
        server = (SERVER:gsub("FILES", values.FILES)),
    }
end

--- Let the server publish, or stop it: how many versions it has published.
function M.publish(server, on)
    return tonumber(server:body("/publish?on=" .. (on and 1 or 0)))
end

--- Let clients ask for PATH over so many CONNECTIONS, as fast as they can, or with a pause of up to
-- PAUSE milliseconds in between, so that they do not take what processors there are.
-- FIRST words go before the command, such as those of chrt.
-- @return a table: answers, failed, mixed, p50, p99, max, the last three in microseconds
function M.ask(server, path, seconds, connections, pause, first)
    local words = { sandbox.unpack(first or {}) }
    for _, word in ipairs { "wrk", "-t1", "-c" .. connections, "-d" .. seconds .. "s", "-s",
        "spec/nginx/clients.lua", "http://127.0.0.1:" .. server.port .. path, "--", pause } do
        words[#words + 1] = word
    end
    local report = sandbox.must(words)
    local saw = {}
    for name, number in report:gmatch "(%w+)=(%d+)" do saw[name] = tonumber(number) end
    assert(saw.answers, report)
    return saw
end

return M
