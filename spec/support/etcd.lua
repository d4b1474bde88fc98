--- Real etcd for the specs: one node or a cluster, on ports of the loopback interface that nobody
-- uses and with data below a scratch directory. Each node is a child of the sandbox, stopped by its
-- pid, and gone after `sandbox.cleanup()`.

local cjson = require "cjson"
local sandbox = require "spec.support.sandbox"

local M = {}

--- Whether etcd can be started here.
function M.is_there()
    return sandbox.has "etcd" and sandbox.has "etcdctl"
end

---- nodes ---------------------------------------------------------------------

local Node = {}
Node.__index = Node

--- Start a node, again perhaps: with the data that it has.
function Node:start()
    local words = {
        "etcd", "--name", self.name, "--data-dir", self.dir,
        "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
        "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
        "--initial-cluster", self.members, "--initial-cluster-token", "atomicwriter-spec",
        "--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "error",
    }
    local tls = self.options.tls
    if tls then
        for _, word in ipairs { "--cert-file", tls.cert, "--key-file", tls.key } do
            words[#words + 1] = word
        end
    end
    for _, word in ipairs(self.options.words or {}) do words[#words + 1] = word end
    self.child = sandbox.spawn(words)
    return self
end

--- End a node at once; its data stay.
function Node:kill()
    self.child:kill "KILL"
    self.child:wait(10)
end

--- Stop the world of a node, whose sockets stay open; and let it go on.
function Node:pause() self.child:kill "STOP" end
function Node:resume() self.child:kill "CONT" end

---- clusters ------------------------------------------------------------------

local Etcd = {}
Etcd.__index = Etcd

-- What etcdctl has in its environment here: nothing of ours.
local function settings(self, more)
    local words = { "env" }
    for _, name in ipairs { "CACERT", "CERT", "KEY", "USER", "PASSWORD", "ENDPOINTS" } do
        words[#words + 1] = "-u"
        words[#words + 1] = "ETCDCTL_" .. name
    end
    words[#words + 1] = "ETCDCTL_ENDPOINTS=" .. self.endpoints
    if self.tls then words[#words + 1] = "ETCDCTL_CACERT=" .. self.tls.cert end
    if self.user then words[#words + 1] = "ETCDCTL_USER=" .. self.user end
    for _, setting in ipairs(more or {}) do words[#words + 1] = setting end
    return words
end

--- Run etcdctl: exit status, standard output, standard error.
function Etcd:try(...)
    local words = settings(self)
    words[#words + 1] = "etcdctl"
    for _, word in ipairs { ... } do words[#words + 1] = word end
    return sandbox.run(words)
end

--- Run etcdctl, which has to succeed, and return what it printed.
function Etcd:ctl(...)
    local status, stdout, stderr = self:try(...)
    if status ~= 0 then error(("etcdctl: %s %s"):format(status, stderr), 2) end
    return stdout
end

--- Put one key; returns the revision.
function Etcd:put(key, value)
    return cjson.decode(self:ctl("put", "-w", "json", "--", key, value)).header.revision
end

--- Delete one key; returns the revision.
function Etcd:delete(key)
    return cjson.decode(self:ctl("del", "-w", "json", "--", key)).header.revision
end

--- Put and delete many keys in one transaction: a map of key to value, where false deletes. Keys
-- and values are printable and have no quotes. Returns the revision.
function Etcd:transact(changes)
    local lines = { "" }
    for key, value in pairs(changes) do
        lines[#lines + 1] = value and ('put -- "%s" "%s"'):format(key, value)
            or ('del -- "%s"'):format(key)
    end
    local dir = sandbox.memdir()
    sandbox.write_file(dir .. "/txn", table.concat(lines, "\n") .. "\n\n\n")
    local status, stdout, stderr = sandbox.run("cat " .. dir .. "/txn | "
        .. sandbox.sh(settings(self)) .. " etcdctl txn -w json")
    if status ~= 0 then error(("etcdctl txn: %s %s"):format(status, stderr), 2) end
    return cjson.decode(stdout).header.revision
end

--- The revision of the whole store.
function Etcd:revision()
    return cjson.decode(self:ctl("get", "-w", "json", "--", "nothing")).header.revision
end

--- All keys below PREFIX, a map.
function Etcd:below(prefix)
    local found = {}
    for _, pair in ipairs(cjson.decode(self:ctl("get", "--prefix", "-w", "json", "--", prefix)).kvs
        or {}) do
        local decode = require("atomicwriter.template.filters").base64decode
        found[decode(pair.key)] = pair.value and decode(pair.value) or ""
    end
    return found
end

--- Wait until all nodes that run answer.
function Etcd:wait(seconds)
    local fine = sandbox.eventually(function()
        return self:try("get", "--command-timeout=1s", "nothing") == 0
    end, seconds or 30)
    if fine then return self end
    local said = {}
    for _, node in ipairs(self.nodes) do
        said[#said + 1] = sandbox.read_file(node.child.dir .. "/err")
    end
    error("etcd does not answer: " .. table.concat(said, "\n"), 2)
end

--- The node that leads, or nil.
function Etcd:leader()
    for _, node in ipairs(self.nodes) do
        local words = settings(self, { "ETCDCTL_ENDPOINTS=" .. node.url })
        words[#words + 1] = "etcdctl"
        local status, stdout = sandbox.run(sandbox.sh(words)
            .. " --command-timeout=1s endpoint status -w json")
        local about = status == 0 and cjson.decode(stdout)[1]
        if about and about.Status.leader == about.Status.header.member_id then return node end
    end
end

--- The words that run the command line with this etcd in its environment.
function Etcd:words(...)
    local words = settings(self)
    for _, word in ipairs(require("spec.support.command").words(...)) do
        words[#words + 1] = word
    end
    return words
end

--- Run the command line: exit status, standard output, standard error.
function Etcd:run(...)
    return sandbox.run(self:words(...))
end

--- Run it; it has to succeed: what it printed.
function Etcd:must(...)
    local status, stdout, stderr = self:run(...)
    if status ~= 0 then
        error(("exit status %s\nstdout: %s\nstderr: %s"):format(status, stdout, stderr), 2)
    end
    return stdout
end

--- Start it in the background.
function Etcd:spawn(...)
    return sandbox.spawn(self:words(...))
end

---- a wire that can be cut -----------------------------------------------------

local WIRE = [[
local luv = require "luv"
local from, to = tonumber(arg[1]), tonumber(arg[2])
local server = luv.new_tcp()
assert(server:bind("127.0.0.1", from))
local function pass(a, b)
    a:read_start(function(_, data)
        if data then return b:write(data) end
        if not a:is_closing() then a:close() end
        if not b:is_closing() then b:close() end
    end)
end
assert(server:listen(128, function()
    local near, far = luv.new_tcp(), luv.new_tcp()
    server:accept(near)
    far:connect("127.0.0.1", to, function(why)
        if why then return near:close() end
        pass(near, far)
        pass(far, near)
    end)
end))
luv.run()
]]

local Wire = {}
Wire.__index = Wire

--- Let connections through.
function Wire:join()
    self.child = sandbox.spawn { "env", "-u", "LUA_PATH", "-u", "LUA_CPATH", "lua5.4", self.script,
        self.port, self.far }
end

--- Cut all connections, and take no new ones.
function Wire:cut()
    self.child:kill "KILL"
    self.child:wait(10)
end

--- A port that leads to NODE, by default the first one, until it is cut; its `endpoint` is what
-- clients use.
function Etcd:wire(node)
    local port = sandbox.free_ports(1)[1]
    local wire = setmetatable({
        port = port, endpoint = "127.0.0.1:" .. port, script = self.dir .. "/wire" .. port,
        far = (node or self.nodes[1]).url:match("%d+$"),
    }, Wire)
    sandbox.write_file(wire.script, WIRE)
    wire:join()
    return wire
end

--- Start a gRPC proxy in front of all nodes; returns its endpoint.
function Etcd:proxy()
    local endpoint = "127.0.0.1:" .. sandbox.free_ports(1)[1]
    sandbox.spawn { "etcd", "grpc-proxy", "start", "--endpoints=" .. self.endpoints,
        "--listen-addr=" .. endpoint }
    sandbox.eventually(function()
        local words = settings(self, { "ETCDCTL_ENDPOINTS=" .. endpoint })
        return sandbox.run(sandbox.sh(words) .. " etcdctl get nothing") == 0
    end)
    return endpoint
end

--- Start COUNT nodes (1) and wait until they answer.
-- @tparam[opt] number count
-- @tparam[opt] table options `words`: more words for each; `tls`: the files of a certificate,
--  `cert` and `key`, that clients are spoken to with
function M.start(count, options)
    count, options = count or 1, options or {}
    local ports = sandbox.free_ports(2 * count)
    local self = setmetatable({ nodes = {}, dir = sandbox.memdir(), tls = options.tls }, Etcd)
    local members, urls = {}, {}
    for index = 1, count do
        local node = setmetatable({
            name = "n" .. index, dir = self.dir .. "/n" .. index, options = options,
            url = (options.tls and "https" or "http") .. "://127.0.0.1:" .. ports[2 * index - 1],
            peer_url = "http://127.0.0.1:" .. ports[2 * index],
        }, Node)
        self.nodes[index] = node
        members[index], urls[index] = node.name .. "=" .. node.peer_url, node.url
    end
    self.endpoints = table.concat(urls, ",")
    for _, node in ipairs(self.nodes) do
        node.members = table.concat(members, ",")
        node:start()
    end
    return self:wait()
end

return M
