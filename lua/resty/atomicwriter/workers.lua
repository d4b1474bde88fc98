--- Which worker serves which version, told through a shared dictionary.
--
-- Each worker has one key, by its number, and tells there its process, the version that it serves
-- and the one that it refused. A worker that died without a word is known by its process being
-- gone; the one that takes its place takes its key.
-- @module resty.atomicwriter.workers

local failure = require "resty.atomicwriter.failure"
local system = require "resty.atomicwriter.system"

local ngx = ngx
local tonumber = tonumber

--- @type Workers
local Workers = {}
Workers.__index = Workers

local M = {}

--- Whether the version named A is older than B. Names only ever increase: first the time, then
-- the digits, as a number however long they are.
-- @tparam string a
-- @tparam string b
-- @treturn boolean
function M.older(a, b)
    local time_a, digits_a = a:match("^(.*)%.0*(%d*)$")
    local time_b, digits_b = b:match("^(.*)%.0*(%d*)$")
    if not time_a or not time_b then return a < b end
    if time_a ~= time_b then return time_a < time_b end
    if #digits_a ~= #digits_b then return #digits_a < #digits_b end
    return digits_a < digits_b
end

local function key_of(self, id)
    return self.prefix .. id
end

--- Tell what this worker serves. Also repeated when nothing has changed, because a dictionary
-- that is full forgets.
-- @tparam ?string version
-- @tparam ?string refused
-- @tparam ?string message why it was refused, or what else went wrong
function Workers:announce(version, refused, message)
    local id = ngx.worker.id()
    if not id then return end -- not a worker that serves requests
    local told, why = self.dict:set(key_of(self, id), ("%d\n%s\n%s\n%s"):format(ngx.worker.pid(),
        version or "", refused or "", message and message:gsub("%s+", " ") or ""))
    if not told and not self.complained then
        self.complained = true
        ngx.log(ngx.ERR, "atomicwriter: the shared dictionary takes nothing: ", why)
    end
end

--- Tell that this worker goes, unless its successor has its key already.
function Workers:leave()
    local id = ngx.worker.id()
    local told = id and self.dict:get(key_of(self, id))
    if told and tonumber(told:match("^%d+")) == ngx.worker.pid() then
        self.dict:delete(key_of(self, id))
    end
end

local function not_empty(text)
    return text ~= "" and text or nil
end

--- The workers that live, in order.
-- @treturn {table,...} with `id`, `pid`, and perhaps `version`, `refused`, `error`
function Workers:list()
    local list = {}
    for id = 0, ngx.worker.count() - 1 do
        local told = self.dict:get(key_of(self, id))
        if told then
            local pid, version, refused, message = told:match("^(%d+)\n(.-)\n(.-)\n(.*)$")
            if system.lives(tonumber(pid)) then
                list[#list + 1] = {
                    id = id, pid = tonumber(pid), version = not_empty(version),
                    refused = not_empty(refused), error = not_empty(message),
                }
            end
        end
    end
    return list
end

--- How many workers serve VERSION or a later one, how many there are, and an error if one of
-- them has refused it, or a later one: what is live by now it will not serve, nor go back.
-- @tparam string version
-- @treturn number
-- @treturn number
-- @treturn ?Error `refused`
function Workers:count(version)
    local list, serving, err = self:list(), 0, nil
    for _, worker in ipairs(list) do
        if worker.version and not M.older(worker.version, version) then
            serving = serving + 1
        elseif worker.refused and not M.older(worker.refused, version) then
            err = err or failure.new {
                code = "refused", message = ("worker %d refused %s: %s"):format(
                    worker.id, worker.refused, worker.error or "no reason given"),
            }
        end
    end
    return serving, #list, err
end

--- The workers of TARGET as they tell of themselves in the dictionary NAME.
-- @tparam string name of a `lua_shared_dict`
-- @tparam string target
-- @treturn[1] Workers
-- @treturn[2] nil
-- @treturn[2] string
function M.new(name, target)
    local dict = ngx.shared[name]
    if not dict then
        return nil, ("there is no shared dictionary '%s': put \"lua_shared_dict %s 1m;\" into "
            .. "the http block"):format(name, name)
    end
    return setmetatable({ dict = dict, prefix = "atomicwriter:" .. target .. ":" }, Workers)
end

return M
