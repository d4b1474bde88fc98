-- demo.lua [SECONDS]: start the gateway in a scratch directory, put load on it, change its routes
-- all the while, and print what the clients saw. `make demo-nginx` runs it.
--
-- Ends with status 1 if a request failed or saw a mixture.

local cjson = require "cjson"
local luv = require "luv"

local SECONDS = tonumber(arg[1]) or 5
local HERE = arg[0]:match "^(.*)/" or "."
local TOKEN = "demo-" .. luv.hrtime()

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function output_of(command)
    local pipe = assert(io.popen(command, "r"))
    local text = pipe:read "*a"
    return text, pipe:close()
end

local function must(command)
    local text, fine = output_of(command)
    if not fine then error("failed: " .. command, 0) end
    return text
end

local function read_file(path)
    local file = assert(io.open(path, "rb"))
    local data = file:read "*a"
    file:close()
    return data
end

local function write_file(path, data)
    local file = assert(io.open(path, "wb"))
    assert(file:write(data))
    assert(file:close())
end

local function free_ports(count)
    local sockets, ports = {}, {}
    for i = 1, count do
        sockets[i] = luv.new_tcp()
        assert(sockets[i]:bind("127.0.0.1", 0))
        ports[i] = sockets[i]:getsockname().port
    end
    for _, socket in ipairs(sockets) do socket:close() end
    luv.run()
    return ports
end

local prefix = must "mktemp -d /tmp/atomicwriter-gateway.XXXXXX":gsub("\n", "")
local ports = free_ports(3)
local url = "http://127.0.0.1:" .. ports[1]

---- the gateway ----------------------------------------------------------------

-- Odd revisions go to green, even ones to blue.
local function set_of(revision)
    local port = revision % 2 == 1 and ports[3] or ports[2]
    return {
        routes = { revision = revision,
            routes = { { prefix = "/", host = "127.0.0.1", port = port } } },
        flags = { revision = revision, flags = { maintenance = false } },
    }
end

local function start()
    local conf = read_file(HERE .. "/nginx.conf"):gsub("127%.0%.0%.1:808(%d)", function(digit)
        return "127.0.0.1:" .. ports[tonumber(digit) + 1]
    end)
    if must "id -u" == "0\n" then conf = "user root;\n" .. conf end
    write_file(prefix .. "/nginx.conf", conf)
    local set = set_of(1)
    write_file(prefix .. "/routes.json", cjson.encode(set.routes))
    write_file(prefix .. "/flags.json", cjson.encode(set.flags))
    must(("atomicwriter write %s/config --create --from-file %s/routes.json "
        .. "--from-file %s/flags.json"):format(prefix, prefix, prefix))
    must(("GATEWAY_TOKEN=%s nginx -p %s/ -c nginx.conf -e error.log"):format(TOKEN, prefix))
end

local function stop()
    local file = io.open(prefix .. "/nginx.pid")
    if file then
        local pid = file:read "n"
        file:close()
        os.execute("kill -QUIT " .. pid)
        for _ = 1, 500 do
            if not os.execute("kill -0 " .. pid .. " 2>/dev/null") then break end
            luv.sleep(10)
        end
    end
    os.execute("rm -rf " .. quote(prefix))
end

-- The status and the decoded body of what PUT answers.
local function put(body, token)
    local text = must(("curl -s -m 20 -X PUT -H 'Authorization: Bearer %s' --data-binary %s "
        .. "-w '\\n%%{http_code}' %s/config"):format(token or TOKEN, quote(body), url))
    local answer, status = text:match "^(.*)\n(%d+)$"
    return tonumber(status), cjson.decode(answer)
end

---- the demonstration ----------------------------------------------------------

local function show_refusals()
    local status, answer = put(cjson.encode(set_of(2)), "wrong")
    print(("PUT with a wrong token      %d %s"):format(status, answer.error))
    local set = set_of(2)
    set.routes.routes[1].port = "http"
    status, answer = put(cjson.encode(set))
    print(("PUT of a broken route       %d %s"):format(status, answer.message:match "refused.*"
        or answer.message))
    set = set_of(2)
    set.flags.revision = 7
    status, answer = put(cjson.encode(set))
    print(("PUT of halves of two sets   %d %s"):format(status, answer.message:match "refused.*"
        or answer.message))
end

-- Publish one revision after the other for as long as wrk runs.
local function change_under_load()
    local report = prefix .. "/report"
    must(("{ wrk -t2 -c16 -d%ds -s %s/clients.lua %s/ >%s.new 2>&1; mv %s.new %s; } "
        .. ">/dev/null 2>&1 &"):format(SECONDS, quote(HERE), url, report, report, report))
    local revision, workers = 1, 0
    while not luv.fs_stat(report) do
        revision = revision + 1
        local status, answer = put(cjson.encode(set_of(revision)))
        if status ~= 200 then error("PUT: " .. status .. " " .. (answer.message or ""), 0) end
        workers = answer.workers
    end
    return revision - 1, workers, read_file(report)
end

local function run()
    start()
    print("gateway at " .. url .. ", configuration in " .. prefix .. "/config")
    show_refusals()
    local changes, workers, report = change_under_load()
    local saw = {}
    for name, number in report:gmatch "(%w+)=(%d+)" do saw[name] = tonumber(number) end
    if not saw.requests then error("wrk: " .. report, 0) end
    print(("under load for %d s         %d sets published, each served by all %d workers when "
        .. "its PUT was answered"):format(SECONDS, changes, workers))
    print(("clients saw                 %d answers: %d from blue, %d from green, "
        .. "%d failed, %d mixed"):format(saw.requests, saw.blue, saw.green, saw.failed, saw.mixed))
    local status = cjson.decode(must("curl -s -m 20 " .. url .. "/status"))
    print(("status                      %s, acknowledged by %d of %d workers"):format(
        status.live.version, status.acknowledged, status.total))
    return saw.failed == 0 and saw.mixed == 0 and saw.blue > 0 and saw.green > 0
end

local fine, result = pcall(run)
if not fine then io.stderr:write("demo: ", tostring(result), "\n") end
stop()
os.exit(fine and result and 0 or 1)
