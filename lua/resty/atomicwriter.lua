--- Serve from a projected directory inside nginx or OpenResty, and publish into it.
--
-- A worker reads and decodes each version once and keeps it in memory. It looks for a new one on a
-- timer, at the cost of one `readlink`, and switches between two requests; a request sees one
-- version however long it takes. A version that does not decode, or that a check refuses, is not
-- served: the worker keeps the last good one and says so.
--
--    # nginx.conf
--    thread_pool atomicwriter threads=4;
--    http {
--        lua_shared_dict atomicwriter 1m;
--        init_worker_by_lua_block {
--            local resty_aw = require "resty.atomicwriter"
--            config = assert(resty_aw.new {
--                target = "/etc/app", shared = "atomicwriter",
--                decode = { ["routes.json"] = require("cjson.safe").decode },
--            })
--            config:start()
--        }
--        server {
--            listen 8080;
--            location / {
--                content_by_lua_block {
--                    local routes = config:get("routes.json")
--                    ngx.say(routes and routes[ngx.var.uri] or "no route")
--                }
--            }
--        }
--    }
--
-- ### Contexts
--
-- @{new} and @{Config:start} belong into `init_worker_by_lua*`. Reading works everywhere after
-- that. @{write}, @{rollback}, @{plan}, @{versions} and @{Config:wait_acknowledged} yield, so they
-- work in `rewrite_by_lua*`, `access_by_lua*`, `content_by_lua*` and timers; the first four also in
-- `init_by_lua*` and `init_worker_by_lua*`, where they block.
--
-- ### Errors
--
-- What the world does wrong is returned as `nil` and an error, a table as of the module
-- `atomicwriter` with `code`, `message` and `committed`; `tostring()` gives the message. Besides
-- the codes there: `decode_failed`, `refused`, `timeout`. Misuse raises at the caller's line.
--
-- @module resty.atomicwriter

local atomicwriter = require "atomicwriter"
local failure = require "resty.atomicwriter.failure"
local loader = require "resty.atomicwriter.view"
local registry = require "resty.atomicwriter.workers"
local system = require "resty.atomicwriter.system"
local writing = require "resty.atomicwriter.writing"

local ngx = ngx
local get_phase = ngx.get_phase
local pairs, type = pairs, type

local _M = { _VERSION = atomicwriter._VERSION }

---- following ------------------------------------------------------------------

-- While a version is loaded requests get their turn after so many bytes or files, for a worker may
-- have a thousand files to read. Not by a sleep of 0: an nginx without OpenResty's patches, such as
-- Debian's, does not look at its connections in between, and logs a warning each time.
local BREATH_BYTES, BREATH_FILES, BREATH = 131072, 16, 0.001

-- How often a version is tried that went away while it was read, before the next look.
local ATTEMPTS = 3

local function breather(self)
    local bytes, files = 0, 0
    return function(size, count)
        bytes, files = bytes + size, files + count
        if bytes < BREATH_BYTES and files < BREATH_FILES then return end
        bytes, files = 0, 0
        self.breaths = self.breaths + 1
        ngx.sleep(BREATH)
    end
end

local function hold_breath() end

-- And a stream of large versions is not read one after the other: a worker rests so long for each
-- breath, though no longer than a second, and goes on with what is live then. Not for as long as
-- it took, which on a busy machine may be anything.
local REST, LONGEST_REST = 0.005, 1

local function rest(self)
    ngx.update_time()
    local left = self.rested - ngx.now()
    if left >= 0.001 and not ngx.worker.exiting() then ngx.sleep(left) end
end

--- A directory that is followed. Made by @{new}.
--
-- Its field `target` is the directory's absolute path.
-- @type Config
local Config = {}
Config.__index = Config

local function announce(self)
    -- After HUP another worker has this one's number, and speaks for itself.
    if not self.workers or ngx.worker.exiting() then return end
    self.workers:announce(self.newest and self.newest.version, self.refused,
        self.failure and self.failure.message)
end

-- Keep what went wrong; say it in the log unless it was said before.
local function note_failure(self, err, refused)
    local known = self.failure and self.failure.message == err.message
    self.failure = { code = err.code, message = err.message, time = ngx.time(), version = refused }
    self.refused = refused
    if known then return end
    ngx.log(ngx.ERR, "atomicwriter: ", err.message,
        self.newest and "; still serving " .. self.newest.version or "; nothing to serve yet")
end

local function tell(self, view, previous)
    for _, listener in ipairs(self.listeners) do
        local ran, why = pcall(listener, view, previous and previous.version)
        if not ran then
            ngx.log(ngx.ERR, "atomicwriter: ", self.target, ": a listener failed: ",
                tostring(why))
        end
    end
end

local function switch(self, view)
    local previous = self.newest
    if previous and previous.snapshot then self.retired[previous] = true end
    self.newest, self.loaded = view, ngx.time()
    announce(self)
    tell(self, view, previous)
end

local function load_live(self, breathe)
    local view, err, refused
    for _ = 1, ATTEMPTS do
        view, err, refused = loader.load(self.target, self.options, breathe)
        if view or refused then break end
    end
    return view, err, refused
end

-- Load what is live now, unless it is what this worker serves, or refused already.
local function load(self, breathe)
    if breathe ~= hold_breath then rest(self) end
    self.breaths = 0
    local view, err, refused = load_live(self, breathe)
    ngx.update_time()
    self.rested = ngx.now() + math.min(LONGEST_REST, REST * self.breaths)
    if view then
        self.seen = view.version
        self.failure, self.refused = nil, nil
        if not self.newest or self.newest.version ~= view.version then switch(self, view) end
        return true
    end
    self.seen = refused or nil -- what may have been bad luck is tried at the next look
    note_failure(self, err, refused or nil)
    announce(self)
    return nil, err
end

-- One look: a readlink, and no more when nothing is new.
local function look(self, breathe)
    local live = system.readlink(self.link)
    if live and live == self.seen then
        if self.failure and not self.refused then self.failure = nil end -- it passed
        return true
    end
    return load(self, breathe)
end

-- A version that somebody may still read lives until the collector comes, and a worker without
-- requests makes no garbage. So help it on while such versions are about: their leases keep
-- files on disk.
local function forget_retired(self)
    if next(self.retired) ~= nil then collectgarbage("step", 200) end
end

-- One at a time, for a load may last longer than the interval; who comes meanwhile makes it look
-- once more.
local function look_safely(self, breathe)
    self.wanted = true
    if self.busy then return nil end
    self.busy = true
    local ran, fine, err
    while self.wanted do
        self.wanted = false
        ran, fine, err = pcall(look, self, breathe)
    end
    self.busy = false
    if not ran then
        ngx.log(ngx.ERR, "atomicwriter: ", self.target, ": ", tostring(fine))
        return nil, failure.new { code = "io", message = self.target .. ": " .. tostring(fine) }
    end
    return fine, err
end

local function open_watcher(self)
    local watcher, err = atomicwriter.watch(self.target)
    self.watcher = watcher
    if not watcher and err.code ~= "no_target" and not self.unwatched then
        self.unwatched = true
        ngx.log(ngx.WARN, "atomicwriter: no inotify, looking every ", self.options.interval,
            " s only: ", tostring(err))
    end
end

local function on_interval(premature, self)
    if premature then
        if self.workers then self.workers:leave() end
        return
    end
    look_safely(self, breather(self))
    announce(self)
    forget_retired(self)
    if self.options.notify and not self.watcher then open_watcher(self) end
end

-- The descriptor only says that it is time to look. A target that is gone or another by now
-- gets another watch at the next interval.
local function on_notify(premature, self)
    if premature or not self.watcher or not system.readable(self.watcher:fd()) then return end
    local _, err = self.watcher:wait(0)
    look_safely(self, breather(self))
    if err and err ~= "timeout" then
        self.watcher:close()
        self.watcher = nil
    end
end

local function every(seconds, handler, self)
    local made, err = ngx.timer.every(seconds, handler, self)
    if made then return true end
    return nil, failure.new { code = "io", message = self.target .. ": no timer: " .. err }
end

--- Load the live version and follow it from now on. Belongs into `init_worker_by_lua*`, so that
-- the first request finds something; there it reads at once, afterwards in turns with requests.
-- @treturn[1] boolean true: there is a version to serve
-- @treturn[2] nil
-- @treturn[2] Error there is none yet; it is followed all the same
function Config:start()
    if self.started then return self.newest ~= nil end
    self.started = true
    if self.options.notify then open_watcher(self) end
    local fine, err = look_safely(self, hold_breath)
    announce(self)
    local timed, why = every(self.options.interval, on_interval, self)
    if timed and self.options.notify then
        timed, why = every(self.options.notify_interval, on_notify, self)
    end
    if not timed then return nil, why end
    return fine, err
end

--- Look for a new version now, rather than at the next interval; it is served a moment later.
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] Error
function Config:refresh()
    local made, err = ngx.timer.at(0, function(premature)
        if not premature then look_safely(self, breather(self)) end
    end)
    if made then return true end
    return nil, failure.new { code = "io", message = self.target .. ": no timer: " .. err }
end

--- Call FN when another version is served, the first one too. What it raises is logged.
-- @tparam function fn called with a @{resty.atomicwriter.view.View} and the previous
--  version's name, if any, in a timer
--  or in `init_worker_by_lua*`
function Config:on_change(fn)
    if type(fn) ~= "function" then
        error("bad argument #1 to 'on_change' (function expected)", 2)
    end
    self.listeners[#self.listeners + 1] = fn
end

---- reading --------------------------------------------------------------------

-- Where a request has an ngx.ctx of its own that ends with it. A timer's would be the same for
-- as long as it runs, and in the phases of a TLS handshake it is that of the connection.
local IN_REQUEST = {
    set = true, rewrite = true, server_rewrite = true, access = true, precontent = true,
    content = true, balancer = true, header_filter = true, body_filter = true, log = true,
}

--- The version that this request sees: the newest when it first asks, the same until it ends.
--
-- That holds for one `ngx.ctx`: a subrequest, or what follows an internal redirect, asks anew.
-- In timers and TLS handshakes it is always the newest; there, read files that belong together
-- from one view.
-- @treturn[1] View
-- @treturn[2] nil
-- @treturn[2] Error `not_found`: nothing to serve yet
function Config:view()
    if not IN_REQUEST[get_phase()] then return self:latest() end
    local ctx = ngx.ctx
    local view = ctx[self]
    if view then return view end
    local err
    view, err = self:latest()
    if not view then return nil, err end
    ctx[self] = view
    return view
end

--- The newest version that this worker serves, also for a request that began with another: for
-- one that never ends, a WebSocket's.
-- @treturn[1] View
-- @treturn[2] nil
-- @treturn[2] Error `not_found`: nothing to serve yet
function Config:latest()
    if self.newest then return self.newest end
    return nil, failure.new {
        code = "not_found", message = self.failure and self.failure.message
            or self.target .. ": not started",
    }
end

--- What a file of the request's version holds: what its decoder made of it, or else its data.
-- The value is the same for every request, and is not to be changed.
-- @tparam string path
-- @return[1] the value
-- @treturn[2] nil
-- @treturn[2] Error `not_found`, `io`
function Config:get(path)
    if type(path) ~= "string" then
        error("bad argument #1 to 'get' (path expected, got " .. type(path) .. ")", 2)
    end
    local view, err = self:view()
    if not view then return nil, err end
    return view:get(path)
end

--- The name of the request's version.
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] Error
function Config:version()
    local view, err = self:view()
    if not view then return nil, err end
    return view.version
end

---- across workers -------------------------------------------------------------

local function need_workers(self, name)
    if self.workers then return end
    error(name .. " needs the option 'shared' of resty.atomicwriter.new", 3)
end

local function check_version(self, version, name)
    if version == nil then version = self.newest and self.newest.version end
    if type(version) ~= "string" then
        error(("bad argument #1 to '%s' (name of a version expected)"):format(name), 3)
    end
    return version
end

--- How many workers serve a version already, or a later one. Needs the option `shared`.
-- @tparam[opt] string version the newest of this worker by default
-- @treturn number
-- @treturn number how many workers there are; those that died do not count
-- @treturn ?Error `refused`: a worker keeps an older one
function Config:acknowledged(version)
    need_workers(self, "acknowledged")
    return self.workers:count(check_version(self, version, "acknowledged"))
end

--- Wait until every worker serves a version, or a later one. Needs the option `shared`; yields.
-- @tparam string version
-- @tparam[opt=10] number timeout seconds
-- @treturn[1] number of workers, all of them
-- @treturn[2] nil
-- @treturn[2] Error `timeout`; `refused`, at once
function Config:wait_acknowledged(version, timeout)
    need_workers(self, "wait_acknowledged")
    version = check_version(self, version, "wait_acknowledged")
    if timeout ~= nil and (type(timeout) ~= "number" or timeout < 0) then
        error("bad argument #2 to 'wait_acknowledged' (seconds expected)", 2)
    end
    ngx.update_time()
    local deadline, nap = ngx.now() + (timeout or 10), 0.002
    if not self.newest or registry.older(self.newest.version, version) then self:refresh() end
    while true do
        local serving, total, err = self.workers:count(version)
        if err then return nil, err end
        if total > 0 and serving == total then return total end
        local left = deadline - ngx.now()
        if left <= 0 then
            return nil, failure.new {
                code = "timeout", message = ("%s: %d of %d workers serve %s"):format(
                    self.target, serving, total, version),
            }
        end
        -- At least a millisecond: less is a sleep of 0, in which the clock may stand still.
        ngx.sleep(math.max(0.001, math.min(nap, left)))
        nap = nap < 0.05 and nap * 2 or nap
    end
end

---- writing --------------------------------------------------------------------

local function merged(defaults, options)
    if options ~= nil and type(options) ~= "table" then return options end
    local all = {}
    for key, value in pairs(defaults) do all[key] = value end
    for key, value in pairs(options or {}) do all[key] = value end
    return all
end

-- After a write of ours this worker need not wait for its interval.
local function noticed(self, result, err)
    if self.started and (result and result.changed or err and err.committed) then
        self:refresh()
    end
    return result, err
end

--- As @{write}, into this directory, with the options given to @{new} as `write`. This worker
-- serves what it has written a moment later.
-- @tparam table payload
-- @tparam[opt] table options
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error
function Config:write(payload, options)
    return noticed(self, writing.call("write", self.target, merged(self.options.write, options),
        { payload = payload }, 2))
end

--- As @{plan}.
-- @tparam table payload
-- @tparam[opt] table options
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error
function Config:plan(payload, options)
    local all = merged(self.options.write, options)
    if type(all) == "table" then all.check = nil end -- nothing is staged that it could look at
    local result, err = writing.call("plan", self.target, all, { payload = payload }, 2)
    return result, err
end

--- As @{rollback}.
-- @tparam[opt] string version
-- @tparam[opt] table options
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error
function Config:rollback(version, options)
    return noticed(self, writing.call("rollback", self.target,
        merged(self.options.write, options), { version = version }, 2))
end

---- status ---------------------------------------------------------------------

--- What this worker and the others serve.
-- @treturn table see `resty.atomicwriter.status`
function Config:status()
    return require("resty.atomicwriter.status").gather(self)
end

--- A content handler: answers with the status, as JSON, or as a page if the client prefers HTML.
-- 200, or 503 when this worker has nothing to serve.
-- @usage location = /status { content_by_lua_block { config:serve_status() } }
function Config:serve_status()
    return require("resty.atomicwriter.status").serve(self)
end

--- @section end

---- the module -----------------------------------------------------------------

local function is_list_of_paths(value)
    if type(value) ~= "table" then return false end
    for _, path in ipairs(value) do
        if type(path) ~= "string" then return false end
    end
    return true
end

local function is_seconds(value)
    return type(value) == "number" and value > 0
end

local function is_map_of_functions(value)
    if type(value) ~= "table" then return false end
    for path, decoder in pairs(value) do
        if type(path) ~= "string" or type(decoder) ~= "function" then return false end
    end
    return true
end

local function is(kind)
    return function(value) return type(value) == kind end
end

-- Per option: whether a value will do, what it must be, and the default.
local OPTIONS = {
    target = { function(value) return type(value) == "string" and value ~= "" end,
        "the path of a directory" },
    interval = { is_seconds, "a number of seconds above 0", 1 },
    notify = { is "boolean", "true or false", false },
    notify_interval = { is_seconds, "a number of seconds above 0", 0.02 },
    decode = { is_map_of_functions, "a table of path to function", {} },
    preload = { function(value) return type(value) == "boolean" or is_list_of_paths(value) end,
        "true, false or a list of paths", true },
    check = { is "function", "a function" },
    shared = { is "string", "the name of a lua_shared_dict" },
    write = { is "table", "a table of options", {} },
}

local function read_options(given)
    local options = {}
    for name, value in pairs(given) do
        local option = OPTIONS[name]
        if not option then error(("unknown option '%s'"):format(tostring(name)), 3) end
        if not option[1](value) then
            error(("option '%s' must be %s"):format(name, option[2]), 3)
        end
    end
    for name, option in pairs(OPTIONS) do
        local value = given[name]
        if value == nil then value = option[3] end
        options[name] = value
    end
    return options
end

--- Follow a directory. Reads nothing yet.
--
-- The directory may be one that a kubelet manages, and it need not exist yet.
-- @tparam table options
-- @tparam string options.target the directory; a relative path is below nginx's prefix
-- @tparam[opt=1] number options.interval seconds between two looks, each a `readlink`
-- @tparam[opt=false] boolean options.notify also hold an inotify descriptor and look when it has
--  something to say
-- @tparam[opt=0.02] number options.notify_interval seconds between two polls of that
-- @tparam[opt] table options.decode path to function: gets the data, returns the value to serve, or
--  nil and a reason, or raises; once for each version and worker
-- @tparam[opt=true] boolean|table options.preload read all files of a version before it is
--  served; `false`, or a list of paths: read others when a request asks for them, from a
--  snapshot that keeps the version while anyone uses it (a kubelet does not: preload its volumes)
-- @tparam[opt] function options.check gets the @{resty.atomicwriter.view.View} of a new version;
--  returns true to serve it, or nil and a reason, or raises
-- @tparam[opt] string options.shared name of a `lua_shared_dict`, through which workers
--  tell each other what they serve
-- @tparam[opt] table options.write options for @{Config:write}
-- @treturn[1] Config
-- @treturn[2] nil
-- @treturn[2] Error `not_found`: no such shared dictionary
function _M.new(options)
    if type(options) ~= "table" then error("bad argument #1 to 'new' (table expected)", 2) end
    if options.target == nil then error("option 'target' is missing", 2) end
    options = read_options(options)
    local target = writing.resolve(options.target)
    local workers
    if options.shared then
        local why
        workers, why = registry.new(options.shared, target)
        if not workers then
            return nil, failure.new { code = "not_found", message = target .. ": " .. why }
        end
    end
    return setmetatable({
        target = target,
        link = target .. "/..data",
        options = options,
        workers = workers,
        listeners = {},
        newest = nil,    -- the view that new requests get
        loaded = nil,    -- since when
        seen = nil,      -- what ..data read when the last version was loaded or refused
        refused = nil,   -- the version that is live but not served
        failure = nil,   -- what went wrong last, and still does
        breaths = 0,     -- taken while the last version was read
        rested = 0,      -- when the next one may be
        busy = false,    -- a look is under way
        wanted = false,  -- and another is to follow
        retired = setmetatable({}, { __mode = "k" }), -- earlier views with a lease, while in use
    }, Config)
end

--- Publish a payload, as `Writer:write` of the module `atomicwriter` does, in a worker thread.
--
-- The payload is copied to the thread, which takes this worker some time when there are
-- thousands of files or megabytes of data; entries with `source` cost nothing. The thread lets
-- workers go first, best in a pool of its own, `thread_pool atomicwriter threads=4;`, where it
-- also takes a lower priority (nice 10); else it is one of the pool `default`. Where nginx has
-- neither the write blocks this worker, and the log says so once.
-- @tparam string target a relative path is below nginx's prefix
-- @tparam table payload path to data or entry
-- @tparam[opt] table options those of `atomicwriter.new`, and
-- @tparam[opt] string options.check `"MODULE"` or `"MODULE:FUNCTION"`: a function that gets the
--  path of the staged tree and returns true, or nil and a reason. It runs in the thread, without
--  `ngx`.
-- @tparam[opt] string|boolean options.thread_pool name of another `thread_pool` of nginx;
--  `false` writes directly and blocks this worker
-- @tparam[opt=true] boolean options.give_way `false`: do not touch how the thread is scheduled, for
--  nginx may not call `sched_setattr` (a seccomp filter that kills)
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error; look at `committed`
function _M.write(target, payload, options)
    -- Here and below no tail call: misuse is raised so many levels up.
    local result, err = writing.call("write", target, options, { payload = payload }, 2)
    return result, err
end

--- What @{write} would do. Touches nothing.
-- @tparam string target
-- @tparam table payload
-- @tparam[opt] table options as of @{write}, but `check`
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error
function _M.plan(target, payload, options)
    local result, err = writing.call("plan", target, options, { payload = payload }, 2)
    return result, err
end

--- Publish a retained version again, under a new name.
-- @tparam string target
-- @tparam[opt] string version the newest retained one by default
-- @tparam[opt] table options as of @{write}, and
-- @tparam[opt] string options.expect roll back only if this version is the live one
-- @treturn[1] table the result
-- @treturn[2] nil
-- @treturn[2] Error
function _M.rollback(target, version, options)
    local result, err = writing.call("rollback", target, options, { version = version }, 2)
    return result, err
end

--- The live version and the retained ones, newest first.
-- @tparam string target
-- @tparam[opt] table options as of @{write}, but `check`
-- @treturn[1] table list of `{ name=, time=, live= }`
-- @treturn[2] nil
-- @treturn[2] Error
function _M.versions(target, options)
    local result, err = writing.call("versions", target, options, {}, 2)
    return result, err
end

return _M
