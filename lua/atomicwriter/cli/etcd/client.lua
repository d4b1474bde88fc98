--- etcdctl, which talks to etcd for us: it brings TLS, authentication and failover.
--
-- Settings go to it by its environment: a password would show among arguments, and an option that
-- is also in the environment ends etcdctl 3.4 with an error. What is not given is left to the
-- `ETCDCTL_*` variables that there are. Only `ETCDCTL_COMMAND_TIMEOUT`, which etcdctl 3.4 reads too
-- late, becomes an option.
-- @module atomicwriter.cli.etcd.client

local failure = require "atomicwriter.failure"
local process = require "atomicwriter.cli.process"

local find, format, gmatch, gsub, match =
    string.find, string.format, string.gmatch, string.gsub, string.match

local PROGRAM = "etcdctl"
-- Its exit status for what it has not sent at all: bad arguments, bad input.
local NOT_SENT = { [128] = true, [3] = true }
local TIMEOUT = 120 -- seconds, should etcdctl not heed its own
local DEFAULT_ENDPOINT = "127.0.0.1:2379" -- as etcdctl has it

-- Nobody waits for an announcement. After a publication those of all machines come at once, and
-- whoever gives up too soon only comes again.
local PATIENT, PATIENCE = { put = true, lease = true }, "30s"

-- A setting and the variable of etcdctl for it.
local VARIABLES = {
    endpoints = "ETCDCTL_ENDPOINTS", cacert = "ETCDCTL_CACERT", cert = "ETCDCTL_CERT",
    key = "ETCDCTL_KEY", user = "ETCDCTL_USER", password = "ETCDCTL_PASSWORD",
}

-- What etcd's errors mean for us.
local KINDS = {
    { "required revision has been compacted", "compacted" },
    { "required revision is a future revision", "future" },
    { "too many operations", "too_many" },
    { "request is too large", "too_large" }, { "message larger than max", "too_large" },
    { "requested lease not found", "no_lease" },
    { "permission denied", "refused" }, { "authentication failed", "refused" },
    { "user name is empty", "refused" }, { "invalid auth token", "refused" },
    { "deadline exceeded", "silent" }, { "timed out", "silent" }, { "leader changed", "silent" },
    { "no leader", "silent" }, { "code = Unavailable", "silent" }, { "code = Canceled", "silent" },
    { "transport is closing", "silent" }, { "connection reset", "silent" }, { "EOF", "silent" },
}

local Client = {}
Client.__index = Client

-- Errors ----------------------------------------------------------------------------------------

local function is_log(line)
    return find(line, "^{") ~= nil
end

-- The last line that is an error, and the last error in what etcdctl logs: gRPC's own words.
local function last_words(text)
    local said, logged
    for line in gmatch(text, "[^\n]+") do
        if is_log(line) then
            local record = require("atomicwriter.cli.etcd.encoding").decode_json(line)
            logged = record and type(record.error) == "string" and record.error or logged
        else
            said = gsub(gsub(line, "^%d[%d/-]* [%d:.]+ %u | ", ""), "^Error: ", "")
        end
    end
    return said, logged
end

-- What etcd and gRPC say begins so. Anything else may repeat what etcdctl was given.
local function is_theirs(text)
    return text ~= nil and (find(text, "^etcdserver: ") or find(text, "^rpc error: ")
        or find(text, "^context deadline exceeded") or find(text, "^context canceled")) ~= nil
end

local function kind_of(text)
    for _, kind in ipairs(KINDS) do
        if find(text, kind[1], 1, true) then return kind[2] end
    end
    return nil
end

local function error_of(self, kind, reason)
    return failure.new {
        code = "etcd", kind = kind, message = format("etcd at %s: %s", self.endpoints, reason),
    }
end

--- The error for what etcdctl wrote to its standard error.
-- @tparam string text
-- @tparam[opt] table opts `discreet`: what it read was secret, and only errors of etcd itself,
--  which do not repeat that, are shown
-- @treturn table code `etcd`; `kind`: `"compacted"`, `"future"`, `"too_many"`, `"too_large"`,
--  `"no_lease"`, `"refused"`, `"invalid"` (etcdctl has not sent it), `"silent"` (nothing answered,
--  or not in time, or etcdctl was ended: it may have been done) or nil
function Client:failure(text, opts)
    local said, logged = last_words(text)
    local is_secret = opts and opts.discreet
    if is_secret then
        said, logged = is_theirs(said) and said or nil, is_theirs(logged) and logged or nil
    end
    local kind = kind_of(said or "") or kind_of(logged or "")
    local reason = gsub(said or logged or "it gave no reason", "^rpc error: code = %w+ desc = ", "")
    reason = gsub(reason, "^etcdserver: ", "")
    if is_secret and not said and not logged then
        reason = "etcdctl failed, and may have shown what it was given"
    elseif kind == "silent" and find(reason, "deadline exceeded", 1, true) then
        reason = "nothing answers"
    end
    return error_of(self, kind, reason)
end

-- The error for a child that has not succeeded.
local function ended(self, status, errors, opts)
    if status.timed_out then
        return error_of(self, "silent", "nothing answers")
    elseif status.signal then
        return error_of(self, "silent", "etcdctl was ended by " .. status.signal)
    elseif NOT_SENT[status.code] and opts and opts.discreet then
        return error_of(self, "invalid", "etcdctl did not take the request")
    end
    return self:failure(errors, opts)
end

local function cannot_start(err)
    err.kind = "invalid"
    if find(err.message, "no such program", 1, true) then
        err.message = "there is no such program in PATH: install etcd-client (Debian)"
            .. " or what else has etcdctl 3.4 or later"
    end
    return nil, err
end

-- Running ---------------------------------------------------------------------------------------

local function command(self, words)
    local list = { PROGRAM }
    for index, word in ipairs(words) do list[index + 1] = word end
    local timeout = PATIENT[words[1]] and PATIENCE or self.timeout
    if timeout and words[1] ~= "watch" then
        table.insert(list, 2, "--command-timeout=" .. timeout)
    end
    return list
end

-- How it prints is a setting, too. The id of a lease is larger than what a number of JSON can be
-- here.
local function environment(self, words)
    local env = {
        ETCDCTL_WRITE_OUT = words[1] == "lease" and "simple" or "json",
        ETCDCTL_HEX = "false", ETCDCTL_DEBUG = "false", ETCDCTL_COMMAND_TIMEOUT = false,
    }
    for name, value in pairs(self.env) do env[name] = value end
    return env
end

local function started(self, words, opts)
    local child, err = process.start(command(self, words), {
        env = environment(self, words), input = opts.input, talk = opts.talk, capture = true,
        capture_errors = true, limit = opts.limit,
    })
    if not child then return cannot_start(err) end
    return child
end

--- Start etcdctl and do not wait for it.
-- @tparam {string,...} words
-- @tparam[opt] table opts `input`, `talk`, `limit` as for `process.start`
-- @treturn[1] table child, which captures its output and its errors
-- @treturn[2] nil
-- @treturn[2] table error
function Client:start(words, opts)
    return started(self, words, opts or {})
end

--- What came of a child that has ended; closes it.
-- @tparam table child of @{Client:start}
-- @tparam[opt] table opts `discreet` as for @{Client:failure}
-- @treturn[1] string output
-- @treturn[2] nil
-- @treturn[2] table error
function Client:finish(child, opts)
    local output = child:drain()
    local status, errors = child.status, child.errors
    child:close()
    if status.ok then return output end
    return nil, ended(self, status, errors, opts)
end

--- Run etcdctl and wait for it within a task.
-- @tparam table task of `atomicwriter.cli.task`
-- @tparam {string,...} words
-- @tparam[opt] table opts `input`; `discreet`
-- @treturn[1] string output
-- @treturn[2] nil
-- @treturn[2] table error
function Client:await(task, words, opts)
    local child, err = self:start(words, opts)
    if not child then return nil, err end
    self.running[child] = true
    if not task:wait(function() return child.status end, TIMEOUT) then
        child:signal_group("SIGKILL")
        task:wait(function() return child.status end)
    end
    self.running[child] = nil
    return self:finish(child, opts)
end

--- Run etcdctl and wait for it.
-- @tparam {string,...} words
-- @tparam[opt] table opts `input`; `discreet`; `signals` that end it
-- @treturn[1] string output
-- @treturn[2] nil
-- @treturn[2] table error
function Client:run(words, opts)
    opts = opts or {}
    local status, err = process.run(command(self, words), {
        env = environment(self, words), input = opts.input, capture = true, capture_errors = true,
        timeout = opts.timeout or TIMEOUT, signals = opts.signals, on_stop = "pass",
    })
    if not status then return cannot_start(err) end
    if status.ok then return status.output end
    return nil, ended(self, status, status.errors, opts)
end

--- Another client with the same settings, which can be closed by itself.
-- @treturn Client
function Client:copy()
    local copy = {}
    for name, value in pairs(self) do copy[name] = value end
    copy.running = {}
    return setmetatable(copy, Client)
end

--- End what is still being awaited.
function Client:close()
    for child in pairs(self.running) do child:destroy() end
    self.running = {}
end

-- Settings --------------------------------------------------------------------------------------

local M = {}

local function set(value)
    return value ~= "" and value or nil
end

local function joined(endpoints)
    return type(endpoints) == "table" and table.concat(endpoints, ",") or endpoints
end

-- What is wrong with settings that cannot be right whatever etcd says, or nil.
local function fault_of(settings)
    for name, value in pairs(settings) do
        if not VARIABLES[name] then return format("unknown field '%s'", tostring(name)) end
        if type(value) == "table" and name == "endpoints" then
            for _, item in ipairs(value) do
                if type(item) ~= "string" then return "endpoints must be strings" end
            end
            value = joined(value)
        end
        if type(value) ~= "string" then
            return format("%s must be a string, got a %s", name, type(value))
        end
        if value == "" then return name .. " is empty" end
        if find(value, "\0", 1, true) then return name .. " has a NUL byte" end
    end
    if (settings.cert == nil) ~= (settings.key == nil) then
        return "cert and key need each other"
    end
    if settings.password and not settings.user then return "password needs user" end
    return nil
end

--- Take settings. Nothing is started yet.
-- @tparam table settings any of `endpoints` (a string, or a list), `cacert`, `cert`, `key`, `user`
--  (`NAME` or `NAME:PASSWORD`), `password`
-- @tparam[opt=os.getenv] function getenv
-- @treturn[1] Client with the fields `endpoints`, a string, and `identity`, which is equal for
-- equal settings
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function M.new(settings, getenv)
    local fault = fault_of(settings)
    if fault then return nil, fault end
    getenv = getenv or os.getenv
    local env = { ETCDCTL_API = "3" }
    for name, variable in pairs(VARIABLES) do env[variable] = joined(settings[name]) end
    local password = env.ETCDCTL_PASSWORD or getenv "ETCDCTL_PASSWORD"
    local user = env.ETCDCTL_USER or getenv "ETCDCTL_USER"
    if user and not password and find(user, ":", 1, true) then
        user, password = match(user, "^([^:]*):(.*)$")
        env.ETCDCTL_USER, env.ETCDCTL_PASSWORD = user, password
    end
    -- etcdctl would ask for it, and wait.
    if user and user ~= "" and not password then
        return nil, format("no password for the user '%s': set ETCDCTL_PASSWORD", user)
    end
    local endpoints = env.ETCDCTL_ENDPOINTS or getenv "ETCDCTL_ENDPOINTS" or DEFAULT_ENDPOINT
    if find(endpoints, "@", 1, true) then -- messages name them
        return nil, "the endpoints hold a user: give that apart, and the password in "
            .. "ETCDCTL_PASSWORD"
    end
    local parts = {}
    for _, variable in pairs(VARIABLES) do
        parts[#parts + 1] = format("%s=%q", variable, env[variable] or "")
    end
    table.sort(parts)
    return setmetatable({
        env = env, running = {}, identity = table.concat(parts, " "),
        timeout = set(getenv "ETCDCTL_COMMAND_TIMEOUT"),
        endpoints = endpoints,
    }, Client)
end

return M
