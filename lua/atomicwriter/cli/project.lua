--- A project: a Lua script that returns one projection or a list of them.
--
--     return {
--         target = "/etc/app",
--         payload = function(context)
--             return { ["app.conf"] = { template = "app.conf.tmpl", mode = "0640", group = "app" }
--         } end,
--         check = "app --test {}/app.conf",
--         reload = "systemctl reload app",
--     }
--
-- With `etcd = { prefix = "/app" }` the keys below a prefix of etcd are files, and the payload may
-- be left out; with `name = "site"` they are `context.data.site` instead, `PREFIX/db/host` being
-- `db.host`. `endpoints`, `cacert`, `cert`, `key`, `user` and `password` say how etcd is reached,
-- where the environment of etcdctl does not. A list of such tables is read as of one revision.
--
-- The script runs in its own directory, has all of Lua and of this library, and is read anew when
-- it changes, together with the modules that it requires.
-- @module atomicwriter.cli.project

local failure = require "atomicwriter.failure"
local values = require "atomicwriter.cli.values"

local find, format, gsub, match, sub =
    string.find, string.format, string.gsub, string.match, string.sub

-- Where this library is; frames of its own have no place in a traceback of the user's script.
local OWN_SOURCE = match(debug.getinfo(1, "S").source, "^(@.*/)atomicwriter/cli/") or "@"

-- The fields of a projection and their types.
local FIELDS = {
    target = "string", payload = "table function", watch = "string table", filters = "table",
    delimiters = "table",
    check = "string function", reload = "string function", signal = "string", pid_file = "string",
    rollback = "boolean", timeout = "number", mode = "string number", dir_mode = "string number",
    owner = "string number", group = "string number", keep = "number", durability = "string",
    lock_timeout = "number", reuse = "boolean", create = "boolean",
    allow_empty = "boolean", etcd = "table",
}

local function is_own_source(source)
    return sub(source, 1, #OWN_SOURCE) == OWN_SOURCE
        and find(source, "^atomicwriter[./]", #OWN_SOURCE + 1) ~= nil
end

local function is_own(info)
    return info.what == "C" or is_own_source(info.source)
end

local function frame_text(info)
    local what = info.what == "main" and "main chunk"
        or info.name and format("function '%s'", info.name)
        or format("function <%s:%d>", info.short_src, info.linedefined)
    return format("%s:%d: in %s", info.short_src, info.currentline, what)
end

-- For xpcall: the message, and the stack from where it is the user's to where it is ours again.
local function describe_raised(err)
    local lines = {}
    local level = 2
    while true do
        local info = debug.getinfo(level, "Sln")
        if not info then break end
        local own = is_own(info)
        if own and #lines > 0 and info.what ~= "C" then break end
        if not own then lines[#lines + 1] = frame_text(info) end
        level = level + 1
    end
    return { message = tostring(err), traceback = table.concat(lines, "\n") }
end

local function raised(description)
    return failure.new {
        code = "project", message = description.message, traceback = description.traceback,
    }
end

-- Call FN of the user's. What it returns, or nil and an error.
local function call(fn, ...)
    local ok, first, second = xpcall(fn, describe_raised, ...)
    if not ok then return nil, raised(first) end
    return first, second
end

-- Validation ----------------------------------------------------------------------------------

local function field_fault(name, value)
    local kinds = FIELDS[name]
    if not kinds then return format("unknown field '%s'", tostring(name)) end
    if not find(kinds, type(value), 1, true) then
        return format("%s must be a %s, got a %s", name, kinds:gsub(" ", " or a "), type(value))
    end
    return nil
end

local function fault_of(projection)
    if type(projection) ~= "table" then
        return format("it must be a table, got a %s", type(projection))
    end
    for name, value in pairs(projection) do
        local fault = field_fault(name, value)
        if fault then return fault end
    end
    if not projection.target then return "it has no target" end
    if not projection.payload and not projection.etcd then return "it has no payload" end
    if (projection.signal == nil) ~= (projection.pid_file == nil) then
        return "signal and pid_file need each other"
    end
    local reloads = projection.reload or projection.signal
    if reloads and projection.keep == 0 and projection.rollback ~= false then
        return "keep = 0 leaves nothing to roll back to: add rollback = false"
    end
    return nil
end

local function id_of(name, lookup)
    if type(name) ~= "string" then return name end
    return lookup(name)
end

-- Payloads ------------------------------------------------------------------------------------

local function entry_failure(self, path, reason)
    if path then reason = path .. ": " .. reason end
    return nil, failure.new {
        code = "invalid_payload",
        message = format("%s: the payload of %s: %s", self.name, self.fields.target, reason),
    }
end

-- ENTRY as a writer takes it: templates rendered, names of owners looked up.
local function finish_entry(self, path, entry, context)
    if type(entry) ~= "table" or not (entry.template or entry.owner or entry.group) then
        return entry
    end
    local copy = {}
    for name, value in pairs(entry) do copy[name] = value end
    copy.template, copy.owner, copy.group = nil, nil, nil
    for field, lookup in pairs { owner = values.user, group = values.group } do
        local id, why = id_of(entry[field], lookup)
        if why then return entry_failure(self, path, why) end
        copy[field == "owner" and "uid" or "gid"] = id or copy[field == "owner" and "uid" or "gid"]
    end
    if entry.template == nil then return copy end
    if type(entry.template) ~= "string" then
        return entry_failure(self, path, "template must be a path, got a " .. type(entry.template))
    end
    if entry.data ~= nil or entry.source ~= nil then
        return entry_failure(self, path, "a template excludes data and source")
    end
    local text, err = require("atomicwriter.template").render_file(entry.template, context,
        { filters = self.fields.filters, delimiters = self.fields.delimiters, cache = self.cache })
    if not text then return nil, err end
    copy.data = text
    return copy
end

-- What the payload gives and what comes from etcd, together.
local function add_etcd(self, finished)
    local builder = require("atomicwriter.payload").new()
    local added, err = self.sources:add_etcd(builder)
    if not added then return nil, err end
    for path, data in pairs(builder:build()) do
        if finished[path] ~= nil then
            return entry_failure(self, path, "it comes from etcd, too")
        end
        finished[path] = data
    end
    return finished
end

local function gather(self, projection)
    local context, err = self.sources:context(self.fields.target, self.etcd)
    projection.origin = self.sources.origin
    if not context then return nil, err end
    local payload = self.fields.payload or {}
    if type(payload) == "function" then
        local why
        payload, why = call(payload, context)
        if payload == nil and why ~= nil then
            if type(why) == "table" then return nil, why end
            return entry_failure(self, nil, tostring(why))
        end
    end
    if type(payload) == "table" and type(payload.build) == "function" then
        payload = payload:build()
    end
    if type(payload) ~= "table" then
        return entry_failure(self, nil, "it must be a table, got a " .. type(payload))
    end
    local finished = {}
    for path, entry in pairs(payload) do
        if type(path) ~= "string" then
            return entry_failure(self, nil, "a path must be a string, got a " .. type(path))
        end
        local done, entry_err = finish_entry(self, path, entry, context)
        if done == nil then return nil, entry_err end
        finished[path] = done
        if type(done) == "table" and type(done.source) == "string" then
            require("atomicwriter.input").note(done.source)
        end
    end
    return add_etcd(self, finished)
end

-- The script ----------------------------------------------------------------------------------

local Project = {}
Project.__index = Project

local function fail(self, message)
    return nil, failure.new { code = "project", message = format("%s: %s", self.name, message) }
end

-- What is wrong with the filters or delimiters of FIELDS.
local function template_fault(fields)
    if not (fields.filters or fields.delimiters) then return nil end
    local compile = require("atomicwriter.template").compile
    local options = { filters = fields.filters, delimiters = fields.delimiters }
    local ok, why = pcall(compile, "", options)
    return not ok and why or nil
end

local function watch_fault(watch)
    for _, path in ipairs(type(watch) == "table" and watch or {}) do
        if type(path) ~= "string" then
            return format("watch must have paths, got a %s", type(path))
        end
    end
    return nil
end

-- The options of a writer that FIELDS come to, or nil and what is wrong with them.
local function writer_options(fields)
    local uid, user_fault = id_of(fields.owner, values.user)
    local gid, group_fault = id_of(fields.group, values.group)
    if user_fault or group_fault then return nil, user_fault or group_fault end
    local options = {
        default_mode = fields.mode, dir_mode = fields.dir_mode, uid = uid, gid = gid,
        keep = fields.keep, durability = fields.durability, lock_timeout = fields.lock_timeout,
        reuse = fields.reuse, create = fields.create,
    }
    -- A writer opens nothing for writing yet, and raises what it does not like.
    local ok, writer = pcall(require("atomicwriter").new, fields.target, options)
    if not ok then return nil, (gsub(match(writer, "%((.*)%)$") or writer, "'default_", "'")) end
    if writer then writer:close() end
    return options
end

-- FIELDS, checked: the options of its writer and the name of its signal, or nil and what is wrong.
local function settle(fields)
    local fault = fault_of(fields)
    fault = fault or template_fault(fields) or watch_fault(fields.watch)
    if fault then return nil, fault end
    local signal
    if fields.signal then
        signal, fault = values.signal(fields.signal)
        if not signal then return nil, fault end
    end
    local options, options_fault = writer_options(fields)
    if not options then return nil, options_fault end
    return options, signal
end

local function new_projection(self, fields, index)
    local options, signal = settle(fields)
    if not options then return fail(self, format("projection %d: %s", index, signal)) end
    local etcd, etcd_fault = {}, nil
    if fields.etcd then
        etcd, etcd_fault = require("atomicwriter.cli.etcd.requests").of_field(fields.etcd)
    end
    if not etcd then return fail(self, format("projection %d: %s", index, etcd_fault)) end
    for _, request in ipairs(etcd) do
        local clash = require("atomicwriter.cli.etcd.requests").clash(self._announce,
            request.prefix)
        if clash then
            return nil, failure.new {
                code = "usage", message = format("%s: projection %d: %s", self.name, index, clash),
            }
        end
    end
    local maker = {
        name = self.name, fields = fields, sources = self._sources, cache = {}, etcd = etcd,
    }
    return require("atomicwriter.cli.projection").new({
        target = fields.target, options = options,
        gather = function(made) return gather(maker, made) end,
        check = fields.check, reload = fields.reload, signal = signal,
        pid_file = fields.pid_file, rollback = fields.rollback, timeout = fields.timeout,
        allow_empty = fields.allow_empty,
        watch = type(fields.watch) == "string" and { fields.watch } or fields.watch,
        on_raise = describe_raised,
    }, self._services)
end

-- A list of projections has no field `target`, whatever else it has.
local function as_list(returned)
    if type(returned) ~= "table" then return nil end
    local is_list = returned.target == nil and (returned[1] ~= nil or next(returned) == nil)
    return is_list and returned or { returned }
end

local function print_to_stderr(...)
    local words = {}
    for index = 1, select("#", ...) do words[index] = tostring((select(index, ...))) end
    io.stderr:write(table.concat(words, "\t"), "\n")
end

-- Run the script with globals of its own, on top of Lua's.
local function run_script(self)
    local globals = { print = print_to_stderr } -- standard output has the results
    local chunk, why = loadfile(self.path, "t", setmetatable(globals, { __index = _G }))
    if not chunk then
        return nil, failure.new { code = "project", message = why }
    end
    local returned, err = call(chunk)
    if returned == nil and type(err) == "string" then err = raised { message = err } end
    return returned, err
end

local searchers = package.searchers or package.loaders -- luacheck: ignore 143

-- Run the script, and note the modules that it requires before they are read, so that they are
-- watched, whether or not they can be loaded, and read anew the next time.
local function run_noting_modules(self)
    for name in pairs(self._modules) do package.loaded[name] = nil end
    self._modules = {}
    local function note(name)
        local path = package.searchpath(name, package.path)
        if path and not is_own_source("@" .. path) then
            self._modules[name] = true
            if self.inputs then self.inputs:add(path) end
        end
    end
    table.insert(searchers, 1, note)
    local returned, err = run_script(self)
    for index, searcher in ipairs(searchers) do
        if searcher == note then
            table.remove(searchers, index)
            break
        end
    end
    return returned, err
end

--- Run the script.
-- @treturn[1] {table,...} projections
-- @treturn[2] nil
-- @treturn[2] table error, with the `traceback` when the script raised it
function Project:load()
    if self._services.new_inputs then
        self.inputs = self._services.new_inputs()
        self.inputs:add(self.path)
    end
    local moved, why = require("atomicwriter.cli.process").uv().chdir(self._directory)
    if not moved then return fail(self, why) end
    local returned, err = run_noting_modules(self)
    if returned == nil and err then return nil, err end
    local list = as_list(returned)
    if not list then
        return fail(self, "it must return a projection or a list of them, got a " .. type(returned))
    end
    local projections, targets = {}, {}
    for index, fields in ipairs(list) do
        local made, fault = new_projection(self, fields, index)
        if not made then return nil, fault end
        if targets[made.target] then
            return fail(self, format("projections %d and %d have the same target, %s",
                targets[made.target], index, made.target))
        end
        projections[index], targets[made.target] = made, index
    end
    if #projections == 0 then
        self._services.console:warn(self.name .. ": it returns no projection")
    end
    return projections
end

local M = {}

--- Take a script. Reads nothing yet.
-- @tparam string name what the user calls it
-- @tparam string path absolute
-- @tparam table sources made by `atomicwriter.cli.sources`: what the context is made of
-- @tparam table services as projections need them
-- @tparam ?string announce the prefix below which targets are announced
-- @treturn table project, with the field `inputs` when somebody watches
function M.new(name, path, sources, services, announce)
    return setmetatable({
        name = name, path = path, _directory = match(path, "^(.*/)"), _modules = {},
        _sources = sources, _services = services, _announce = announce,
    }, Project)
end

return M
