--- Writing from inside nginx: each call goes to a worker thread, because it waits for locks and
-- for the disk, and the worker has requests to serve.
-- @module resty.atomicwriter.writing

local failure = require "resty.atomicwriter.failure"
local thread = require "resty.atomicwriter.thread"

local ngx = ngx
local type = type

local M = {}

-- Where a worker is about to serve requests but does not yet: what blocks here harms nobody.
local BEFORE_SERVING = { init = true, init_worker = true }

-- Where a request or a timer can wait for a thread.
local CAN_WAIT = {
    rewrite = true, server_rewrite = true, access = true, precontent = true, content = true,
    timer = true,
}

-- What belongs to the call in its options; the rest is the writer's, which refuses what it does
-- not know.
local OF_CALL = {
    write = { check = true, thread_pool = true, give_way = true },
    plan = { thread_pool = true, give_way = true },
    rollback = { check = true, expect = true, thread_pool = true, give_way = true },
    versions = { thread_pool = true, give_way = true },
}

-- The pools to look for when none is named: one for nothing but this, and the one that all share.
local OURS, SHARED = "atomicwriter", "default"

local function sleep_long()
    ngx.sleep(86400)
end

local warned = false

local function warn_once(pool, why)
    if warned then return end
    warned = true
    ngx.log(ngx.WARN, "atomicwriter: writes block this worker, for it has no threads: ", why,
        "; put \"thread_pool ", pool, " threads=4;\" at the top of nginx.conf")
end

-- What `ngx.run_worker_thread` says when it has not run anything.
local function refusal(target, why)
    local code = "io"
    if why:find("circular references", 1, true) then
        code = "invalid_payload"
    elseif why:find("unsupported Lua type", 1, true)
        or why:find("unsupported argument", 1, true) then
        code, why = "invalid_payload", "the payload holds what is neither text nor a table: " .. why
    elseif why:find("no available Lua vm", 1, true) then
        code, why = "locked", "as many writes wait as lua_worker_thread_vm_pool_size allows"
    end
    return failure.new {
        code = code, message = target .. ": " .. why, op = "ngx.run_worker_thread",
    }
end

-- A worker that was told to QUIT ends once it has no timer left, and a request that waits for a
-- thread has none: its client would get no answer. So it sleeps in a light thread meanwhile.
local function stay_for(fn, ...)
    local guard = ngx.thread.spawn(sleep_long)
    local ran, kind, value = fn(...)
    ngx.thread.kill(guard)
    return ran, kind, value
end

local function is_missing(why)
    return why:find("^thread[_ ]pool.* not found") ~= nil
end

local missing = {} -- pools that nginx does not have, which stays so while a worker lives

-- As thread.run, in a thread if there is one. Nil and an error when nothing was run.
local function run(pools, give_way, target, ...)
    if not pools[1] or BEFORE_SERVING[ngx.get_phase()] then return thread.run(target, ...) end
    local run_worker_thread = ngx.run_worker_thread -- since lua-nginx-module 0.10.22
    if not run_worker_thread then
        warn_once(pools[1], "nginx is built without --with-threads")
        return thread.run(target, ...)
    end
    for _, pool in ipairs(pools) do
        if not missing[pool] then
            local ours
            if give_way then ours = pool == OURS end
            local ran, kind, value = stay_for(run_worker_thread, pool,
                "resty.atomicwriter.thread", "run_beside", ours, target, ...)
            if ran then return kind, value end
            if not is_missing(kind) then return nil, refusal(target, kind) end
            missing[pool] = kind
        end
    end
    warn_once(pools[1], missing[pools[#pools]])
    return thread.run(target, ...)
end

-- Raise at the line of who called the public function; LEVEL is as for error() there.
local function raise(level, message)
    error((message:gsub("^[^:\n]+:%d+: ", "")), level + 1)
end

-- What the writer says of its own arguments, whose numbers are not those of ours.
local function reworded(action, message)
    return (message:gsub("bad argument #%d+ to '[^']+'", "bad argument to '" .. action .. "'"))
end

local COPIED = { boolean = true, number = true, string = true }
local NEEDS_PAYLOAD = { write = true, plan = true }

local function check_call(action, target, options, call, level)
    if type(target) ~= "string" or target == "" then
        raise(level + 1, "bad argument #1 to '" .. action .. "' (path of a directory expected)")
    end
    if type(options) ~= "table" then
        raise(level + 1, "bad argument to '" .. action .. "' (table of options expected)")
    end
    if NEEDS_PAYLOAD[action] and type(call.payload) ~= "table" then
        raise(level + 1, ("bad argument to '%s' (payload must be a table, not a %s)"):format(action,
            type(call.payload)))
    end
    local pool, give_way = options.thread_pool, options.give_way
    if pool ~= nil and pool ~= false and (type(pool) ~= "string" or pool == "") then
        raise(level + 1, "option 'thread_pool' must be a name or false")
    end
    if give_way ~= nil and type(give_way) ~= "boolean" then
        raise(level + 1, "option 'give_way' must be true or false")
    end
    if options.check ~= nil and type(options.check) ~= "string" then
        raise(level + 1, "option 'check' must be a string, \"MODULE\" or \"MODULE:FUNCTION\": "
            .. "it runs in another thread, where no function of this one can go")
    end
    for name, value in pairs(options) do
        if type(name) ~= "string" then raise(level + 1, "option names must be strings") end
        if not COPIED[type(value)] then
            raise(level + 1, ("option '%s' must not be a %s"):format(name, type(value)))
        end
    end
    local phase = ngx.get_phase()
    if not CAN_WAIT[phase] and not BEFORE_SERVING[phase] then
        raise(level + 1, action .. " cannot be called in the " .. phase .. " phase")
    end
end

--- The path that TARGET names: a relative one is below nginx's prefix, as nginx has it.
function M.resolve(target)
    if target:sub(1, 1) == "/" then return target end
    return ngx.config.prefix() .. target
end

--- Do ACTION on TARGET; see `resty.atomicwriter.thread`.
-- @tparam string action
-- @tparam string target
-- @tparam ?table options
-- @tparam table call further arguments of the action
-- @tparam number level as for `error`: where to raise misuse
function M.call(action, target, options, call, level)
    options = options or {}
    check_call(action, target, options, call, level + 1)
    local pools, of_writer = { OURS, SHARED }, {}
    for key, value in pairs(options) do
        if not OF_CALL[action][key] then of_writer[key] = value end
    end
    if options.thread_pool ~= nil then pools = { options.thread_pool or nil } end
    call.check, call.expect = options.check, options.expect
    target = M.resolve(target)
    local kind, value = run(pools, options.give_way ~= false, target, of_writer, action, call)
    if kind == "done" then return value end
    if kind == "failed" then return nil, failure.new(value) end
    if kind == "misuse" then raise(level + 1, reworded(action, value)) end
    return nil, value
end

return M
