--- A real nginx for a spec: Debian's, on loopback, with a prefix of its own in a scratch directory.
-- It is a child of `sandbox.spawn`, so `sandbox.cleanup()` ends it and all its workers.

local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"

local M = {}

local MODULES = "/usr/lib/nginx/modules"

--- Why there is no such nginx here; nil when there is.
function M.missing()
    if not sandbox.has "nginx" then return "there is no nginx" end
    if not sandbox.kind(MODULES .. "/ngx_http_lua_module.so") then
        return "nginx has no Lua module (libnginx-mod-http-lua)"
    end
    if not sandbox.kind(M.core()) then return "the core is not built for LuaJIT" end
end

local function build()
    return os.getenv("ATOMICWRITER_BUILD") or lfs.currentdir() .. "/build"
end

--- The path of the core for LuaJIT.
function M.core()
    return build() .. "/luajit/atomicwriter/core.so"
end

--- Settings that find the modules of this checkout; `SETTINGS` as the shell has them.
function M.lua_path()
    local root = lfs.currentdir()
    return root .. "/lua/?.lua;/usr/share/lua/5.1/?.lua;;", build() .. "/luajit/?.so;;"
end

local CONF = [[
load_module MODULES/ndk_http_module.so;
load_module MODULES/ngx_http_lua_module.so;
USER
daemon off;
worker_processes WORKERS;
pid nginx.pid;
error_log error.log notice;
MAIN
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    lua_package_path "LUAPATH";
    lua_package_cpath "LUACPATH";
    HTTP
    server {
        listen 127.0.0.1:PORT;
        SERVER
    }
}
]]

local Server = {}
Server.__index = Server

local function configure(self, options)
    local path, cpath = M.lua_path()
    local values = {
        MODULES = MODULES, USER = sandbox.is_root() and "user root;" or "",
        WORKERS = tostring(options.workers or 1), PORT = self.port,
        MAIN = options.main or "", HTTP = options.http or "", SERVER = options.server or "",
        LUAPATH = self.dir .. "/?.lua;" .. path, LUACPATH = cpath,
    }
    local text = CONF:gsub("%u+", values)
    for name, value in pairs { TARGET = options.target, DIR = self.dir } do
        text = text:gsub("@" .. name .. "@", (value:gsub("%%", "%%%%")))
    end
    sandbox.write_file(self.dir .. "/nginx.conf", text)
end

local function answers(self)
    return sandbox.run { "curl", "-s", "-o", "/dev/null", "-m", "5",
        "http://127.0.0.1:" .. self.port .. "/" } == 0
end

--- Start nginx and wait until it answers.
-- @tparam table options `main`, `http`, `server`: text for these blocks of nginx.conf, in which
--  `@TARGET@` is `options.target` and `@DIR@` the prefix; `workers`, 1 by default; `files`: a table
--  of name to text, files below the prefix
function M.start(options)
    local self = setmetatable({ dir = sandbox.tmpdir(), port = sandbox.free_ports(1)[1] }, Server)
    for name, text in pairs(options.files or {}) do
        sandbox.write_file(self.dir .. "/" .. name, text)
    end
    configure(self, options)
    self.child = sandbox.spawn { "nginx", "-p", self.dir .. "/", "-c", "nginx.conf",
        "-e", "error.log" }
    sandbox.eventually(function() return not self.child:running() or answers(self) end)
    if not self.child:running() then error("nginx does not start:\n" .. self:log(), 2) end
    return self
end

--- Change the configuration; it holds after `signal "HUP"`.
Server.configure = configure

--- What is in the error log.
function Server:log()
    return sandbox.read_file(self.dir .. "/error.log") or ""
end

--- How often PATTERN is in the error log.
function Server:logged(pattern)
    local _, count = self:log():gsub(pattern, "")
    return count
end

--- Ask for PATH, with more words for curl.
-- @return the status as a number, and the body
function Server:get(path, ...)
    local words = { "curl", "-s", "-m", "60", "-w", "\n%{http_code}", ... }
    words[#words + 1] = "http://127.0.0.1:" .. self.port .. path
    local _, stdout, stderr = sandbox.run(words)
    local body, status = stdout:match("^(.*)\n(%d+)$")
    if not status then error("curl: " .. stdout .. stderr, 2) end
    return tonumber(status), body
end

--- As get, but only the body of a request that has to succeed.
function Server:body(path, ...)
    local status, body = self:get(path, ...)
    if status ~= 200 then
        error(("%s: %d %s\n%s"):format(path, status, body, self:log():sub(-2000)), 2)
    end
    return body
end

--- Send a signal to the master process.
function Server:signal(name)
    self.child:kill(name)
end

--- The processes of the workers that live.
function Server:workers()
    local list = {}
    local found = sandbox.run { "pgrep", "-P", tostring(self.child.pid) }
    if found ~= 0 then return list end
    for pid in sandbox.must { "pgrep", "-P", tostring(self.child.pid) }:gmatch("%d+") do
        if sandbox.lives(pid) then list[#list + 1] = tonumber(pid) end
    end
    return list
end

--- Stop it, with QUIT, and wait for the end.
-- @return the exit status
function Server:stop()
    self:signal "QUIT"
    return (self.child:wait(30))
end

return M
