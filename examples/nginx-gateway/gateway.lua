--- A gateway that takes its routes and feature flags from a projected directory.
--
--    routes.json: { "revision": 1,
--                   "routes": [ { "prefix": "/", "host": "127.0.0.1", "port": 8081 } ] }
--    flags.json:  { "revision": 1, "flags": { "maintenance": false } }
--
-- Both files belong together, and every request sees both of one version.

local balancer = require "ngx.balancer"
local cjson = require "cjson.safe"
local resty_aw = require "resty.atomicwriter"

local M = {}

local config

--- Follow the directory TARGET; belongs into init_worker_by_lua.
function M.follow(target, shared)
    config = assert(resty_aw.new {
        target = target,
        shared = shared,
        notify = true,
        decode = { ["routes.json"] = cjson.decode, ["flags.json"] = cjson.decode },
        write = { check = "gateway_check", keep = 5, create = true },
    })
    config:start()
end

---- requests -------------------------------------------------------------------

-- The longest prefix wins.
local function find_route(uri)
    local found
    for _, route in ipairs(config:get("routes.json").routes) do
        local prefix = route.prefix
        if uri:sub(1, #prefix) == prefix and (not found or #prefix > #found.prefix) then
            found = route
        end
    end
    return found
end

--- rewrite_by_lua: decide where the request goes.
function M.route()
    local flags, err = config:get "flags.json"
    if not flags then
        ngx.log(ngx.ERR, "nothing to serve: ", err)
        return ngx.exit(503)
    end
    if flags.flags.maintenance then
        ngx.header["Retry-After"] = "60"
        return ngx.exit(503)
    end
    local route = find_route(ngx.var.uri)
    if not route then return ngx.exit(404) end
    ngx.ctx.route = route
end

--- balancer_by_lua: go there.
function M.connect()
    local route = ngx.ctx.route
    local fine, err = balancer.set_current_peer(route.host, route.port)
    if not fine then
        ngx.log(ngx.ERR, "no such peer: ", err)
        return ngx.exit(502)
    end
end

--- header_filter_by_lua: say which revision of either file the request has seen, and when: the
-- routes were read before it went to the application, the flags are read now.
function M.label()
    local routes, flags = config:get "routes.json", config:get "flags.json"
    if not routes then return end
    ngx.header["X-Routes"] = routes.revision
    ngx.header["X-Flags"] = flags.revision
end

--- content_by_lua: for probes and people.
function M.status()
    config:serve_status()
end

---- configuration --------------------------------------------------------------

local function answer(status, body)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(cjson.encode(body), "\n")
    return ngx.exit(status)
end

-- Digests are compared, so that the time it takes tells nothing about the token.
local function may_publish()
    local token = os.getenv "GATEWAY_TOKEN"
    local given = (ngx.var.http_authorization or ""):match "^Bearer (.+)$"
    return token and token ~= "" and given and ngx.sha1_bin(token) == ngx.sha1_bin(given)
end

local STATUS_OF = { check_failed = 422, invalid_payload = 422, locked = 503 }

local function publish(set)
    local result, err = config:write {
        ["routes.json"] = cjson.encode(set.routes),
        ["flags.json"] = cjson.encode(set.flags),
    }
    if not result then
        return answer(STATUS_OF[err.code] or 500, { error = err.code, message = tostring(err) })
    end
    local workers, why = config:wait_acknowledged(result.version, 5)
    if not workers then -- published all the same
        return answer(202, { version = result.version, message = tostring(why) })
    end
    return answer(200, { version = result.version, changed = result.changed, workers = workers })
end

--- content_by_lua: GET answers with the configuration, PUT publishes a new one.
-- A PUT answers when every worker serves what it has published.
function M.configure()
    local method = ngx.req.get_method()
    if method == "GET" then
        return answer(200, { routes = config:get "routes.json", flags = config:get "flags.json" })
    end
    if method ~= "PUT" then
        ngx.header["Allow"] = "GET, PUT"
        return answer(405, { error = "method" })
    end
    if not may_publish() then
        ngx.header["WWW-Authenticate"] = "Bearer"
        return answer(401, { error = "token" })
    end
    ngx.req.read_body()
    local set = cjson.decode(ngx.req.get_body_data() or "")
    if type(set) ~= "table" or type(set.routes) ~= "table" or type(set.flags) ~= "table" then
        return answer(400, { error = "body", message = "JSON with routes and flags expected" })
    end
    return publish(set)
end

return M
