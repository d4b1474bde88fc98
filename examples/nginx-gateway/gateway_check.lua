--- The check of a staged set, before anybody can see it. It runs in a worker thread, where there is
-- no `ngx`; the command can run it, too: see README.md.

local cjson = require "cjson.safe"

local function load(path)
    local file, err = io.open(path, "rb")
    if not file then return nil, err end
    local text = file:read "*a"
    file:close()
    return cjson.decode(text)
end

local function check_route(route)
    return type(route) == "table" and type(route.prefix) == "string"
        and route.prefix:sub(1, 1) == "/" and type(route.host) == "string"
        and route.host:find "^%d+%.%d+%.%d+%.%d+$" and type(route.port) == "number"
        and route.port % 1 == 0 and route.port > 0 and route.port < 65536
end

return function(stage)
    local routes, flags = load(stage .. "/routes.json"), load(stage .. "/flags.json")
    if type(routes) ~= "table" or type(routes.routes) ~= "table" then
        return nil, "routes.json has no list of routes"
    end
    if type(flags) ~= "table" or type(flags.flags) ~= "table" then
        return nil, "flags.json has no flags"
    end
    if routes.revision ~= flags.revision then
        return nil, "routes.json and flags.json are of different revisions"
    end
    for i, route in ipairs(routes.routes) do
        if not check_route(route) then
            return nil, ("route %d: prefix, host (an address) and port are wanted"):format(i)
        end
    end
    return true
end
