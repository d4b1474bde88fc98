--- What options and projects want of etcd, and what it becomes: files, or data for templates.
-- @module atomicwriter.cli.etcd.requests

local failure = require "atomicwriter.failure"

local find, format, gmatch, match, sub =
    string.find, string.format, string.gmatch, string.match, string.sub

local M = {}

-- The options of the connection and the setting of each.
local SETTINGS = {
    etcd_endpoints = "endpoints", etcd_cacert = "cacert", etcd_cert = "cert", etcd_key = "key",
    etcd_user = "user", etcd_password_file = "password",
}

local function quote(text)
    return require("atomicwriter.labels").quote(text)
end

local function usage(option, message)
    return nil, failure.new { code = "usage", message = format("%s: %s", option, message) }
end

--- A prefix as etcd has it: it is a directory, with or without a slash at its end.
-- @tparam string text
-- @treturn[1] string which ends with a slash
-- @treturn[2] nil
-- @treturn[2] string why it can be none
function M.prefix(text)
    if text == "" then return nil, "the prefix is empty" end
    if find(text, "\0", 1, true) then return nil, "the prefix has a NUL byte" end
    if find(text, "^%-") then -- `watch` would take it for an option
        return nil, format("%s: a prefix cannot begin with '-'", quote(text))
    end
    return find(text, "/$") and text or text .. "/"
end

local function read_password(path)
    local text, why, errno = require("atomicwriter.input").read(path)
    if not text then
        return nil, require("atomicwriter.input").failure(path, why, errno)
    end
    local password = match(text, "^[^\r\n]*")
    if password == "" then return usage("--etcd-password-file", path .. ": it is empty") end
    return password
end

--- The client that the options of the connection ask for.
-- @tparam table args
-- @treturn[1] table of `atomicwriter.cli.etcd.client`
-- @treturn[2] nil
-- @treturn[2] table error
function M.client(args)
    local settings = {}
    for option, name in pairs(SETTINGS) do settings[name] = args[option] end
    if settings.password then
        local password, err = read_password(settings.password)
        if not password then return nil, err end
        settings.password = password
    end
    local client, why = require("atomicwriter.cli.etcd.client").new(settings)
    if not client then return usage("etcd", why) end
    return client
end

--- That machines cannot announce themselves below ANNOUNCE while PREFIX is read, or nil: each
-- announcement would be a change of what is read, or what is read an announcement.
-- @tparam ?string announce
-- @tparam string prefix
-- @treturn ?string
function M.clash(announce, prefix)
    if not announce then return nil end
    local length = math.min(#announce, #prefix)
    if sub(announce, 1, length) ~= sub(prefix, 1, length) then return nil end
    return format("--announce %s and %s, which is read, must not be below each other",
        quote(announce), quote(prefix))
end

-- The same for all prefixes that options name.
local function clash_of(args)
    for _, prefix in ipairs(args.from_etcd or {}) do
        local fault = M.clash(args.announce, prefix)
        if fault then return fault end
    end
    for _, pair in ipairs(args.data_from_etcd or {}) do
        local fault = M.clash(args.announce, pair.value)
        if fault then return fault end
    end
    return nil
end

--- What is wrong with the options of the connection as a whole, or nil.
-- @tparam table args
-- @tparam[opt] boolean is_used etcd is used without any `--…from-etcd`
-- @treturn ?string
function M.fault(args, is_used)
    if args.etcd_password_file and not args.etcd_user then
        return "--etcd-password-file needs --etcd-user"
    end
    if (args.etcd_cert == nil) ~= (args.etcd_key == nil) then
        return "--etcd-cert and --etcd-key need each other"
    end
    local clash = clash_of(args)
    if clash then return clash end
    local count = #(args.from_etcd or {}) + #(args.data_from_etcd or {})
    if is_used or args.announce or count > 0 then return nil end
    for option in pairs(SETTINGS) do
        if args[option] then
            return format("--%s needs --from-etcd, --data-from-etcd or --announce",
                (option:gsub("_", "-")))
        end
    end
    return nil
end

--- The requests of the options, none perhaps.
-- @tparam table args
-- @treturn[1] {table,...} each `client`, `prefix`, `origin` for errors, and `name` of the data that
--  it becomes; without one it becomes files
-- @treturn[2] nil
-- @treturn[2] table error
function M.of_args(args)
    local requests = {}
    if #(args.from_etcd or {}) + #(args.data_from_etcd or {}) == 0 then return requests end
    local client, err = M.client(args)
    if not client then return nil, err end
    for _, prefix in ipairs(args.from_etcd or {}) do
        requests[#requests + 1] = { client = client, prefix = prefix, origin = "--from-etcd" }
    end
    for _, pair in ipairs(args.data_from_etcd or {}) do
        requests[#requests + 1] = {
            client = client, prefix = pair.value, name = pair.key, origin = "--data-from-etcd",
        }
    end
    return requests
end

-- One table of a project: `prefix`, `name`, and the settings of a client.
local function of_table(item)
    if type(item) ~= "table" then
        return nil, format("etcd must be a table, or a list of them, got a %s", type(item))
    end
    if type(item.prefix) ~= "string" then return nil, "etcd.prefix must be a string" end
    local prefix, why = M.prefix(item.prefix)
    if not prefix then return nil, "etcd.prefix: " .. why end
    if item.name ~= nil and (type(item.name) ~= "string" or item.name == "") then
        return nil, "etcd.name must be a string"
    end
    local settings = {}
    for name, value in pairs(item) do
        if name ~= "prefix" and name ~= "name" then settings[name] = value end
    end
    local client, fault = require("atomicwriter.cli.etcd.client").new(settings)
    if not client then return nil, "etcd: " .. fault end
    return { client = client, prefix = prefix, name = item.name, origin = "etcd" }
end

--- The requests of the field `etcd` of a project: one table, or a list.
-- @param field
-- @treturn[1] {table,...} as of `of_args`
-- @treturn[2] nil
-- @treturn[2] string what is wrong
function M.of_field(field)
    local requests = {}
    local list = type(field) == "table" and field[1] ~= nil and field or { field }
    for index, item in ipairs(list) do
        local request, why = of_table(item)
        if not request then return nil, why end
        requests[index] = request
    end
    return requests
end

-- Results ---------------------------------------------------------------------------------------

-- ERR with the revision that it refuses.
local function refuse(request, result, err)
    return nil, failure.new {
        code = "invalid_payload",
        message = format("%s: revision %.0f of %s is refused: %s", request.origin, result.revision,
            request.prefix, err.message),
    }
end

--- Add the files of a result to a payload. If any cannot be one, none is added for good: the whole
-- payload has failed.
-- @tparam table builder of `atomicwriter.payload`
-- @tparam table request
-- @tparam table result
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table error, which names the revision and the key
function M.add_files(builder, request, result)
    local paths = {}
    for path in pairs(result.files) do paths[#paths + 1] = path end
    table.sort(paths)
    for _, path in ipairs(paths) do
        local origin = "etcd key " .. quote(request.prefix .. path)
        local added, err = builder:add(path, result.files[path], origin)
        if not added then
            if not find(err.message, origin, 1, true) then -- in a clash, it is there already
                err.message = origin .. ": " .. err.message
            end
            return refuse(request, result, err)
        end
    end
    return true
end

--- The keys of a result as nested tables: `db/host` becomes `db.host`.
-- @tparam table request
-- @tparam table result
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] table error, as of `add_files`
function M.data_of(request, result)
    local builder = require("atomicwriter.payload").new()
    local added, err = M.add_files(builder, request, result)
    if not added then return nil, err end
    local data = {}
    for path, value in pairs(builder:build()) do
        local current, name = data, nil
        for component in gmatch(path, "[^/]+") do
            if name then
                current[name] = current[name] or {}
                current = current[name]
            end
            name = component
        end
        current[name] = value
    end
    return data
end

--- Add the data of RESULTS to a context's `data`.
-- @tparam table data changed in place
-- @tparam {table,...} requests
-- @tparam {table,...} results
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table error
function M.add_data(data, requests, results)
    for index, request in ipairs(requests) do
        if request.name then
            if data[request.name] ~= nil then
                return usage(request.origin, quote(request.name) .. " is given twice")
            end
            local item, err = M.data_of(request, results[index])
            if not item then return nil, err end
            data[request.name] = item
        end
    end
    return true
end

return M
