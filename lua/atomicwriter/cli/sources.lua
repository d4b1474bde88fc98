--- From the options of a command to a payload: everything that `--from-…`, `--template`, `--label`
-- and their like name, read anew each time it is gathered.
-- @module atomicwriter.cli.sources

local failure = require "atomicwriter.failure"
local input = require "atomicwriter.input"
local values = require "atomicwriter.cli.values"

local find, format, gsub, match, sub =
    string.find, string.format, string.gsub, string.match, string.sub

local HOSTNAME = "/proc/sys/kernel/hostname"

local function fail(code, message)
    return nil, failure.new { code = code, message = message }
end

-- Like fail, but OPTION is to blame.
local function usage(option, message)
    return fail("usage", format("%s: %s", option, message))
end

local function quote(text)
    return require("atomicwriter.labels").quote(text)
end

-- ERR with the name of the OPTION that it comes from in front, unless it names a line in a file.
local function blame(option, err)
    if err.line then return nil, err end
    -- Many messages quote their key already.
    local names_path = err.path and find(err.message, quote(err.path), 1, true)
    local text = names_path and err.message or tostring(err)
    if sub(text, 1, #option) ~= option then text = format("%s: %s", option, text) end
    local copy = { option = option }
    for name, value in pairs(err) do copy[name] = value end
    return nil, setmetatable(copy, { __tostring = function() return text end })
end

-- Arguments -----------------------------------------------------------------------------------

local function split_all(option, texts, split)
    local list = {}
    for _, text in ipairs(texts or {}) do
        local first, second = split(text)
        if not first then return usage(option, second.message) end
        list[#list + 1] = { first, second }
    end
    return list
end

-- `[KEY=]CMD`: a key, and what follows its first `=`. Without one, the program's name is the key.
local function split_exec(text)
    local key, command = match(text, "^([-._/%w]+)=(.*)$")
    if not key then
        key, command = match(text, "^%s*[^%s]*/([^%s/]+)") or match(text, "^%s*([^%s]+)"), text
    end
    if not key or not find(command, "%S") then return nil, { message = "the command is empty" } end
    return key, command
end

-- `[KEY=]PATH`; a path may have `=` when KEY stands before it.
local function split_template(text)
    local key, path = match(text, "^([^=]*)=(.*)$")
    if not key then key, path = nil, text end
    if key == "" then return nil, { message = "the key is empty" } end
    if path == "" then return nil, { message = "the path is empty" } end
    return path, key
end

-- Labels and data -----------------------------------------------------------------------------

-- The map that FILES of the downward API and PAIRS come to.
local function merge_labels(files, pairs_given, option)
    local map, origins = {}, {}
    local function add(key, value, origin)
        if origins[key] then
            return usage(origin, format("%s is given by %s already", quote(key), origins[key]))
        end
        map[key], origins[key] = value, origin
        return true
    end
    for _, path in ipairs(files or {}) do
        local text, why, errno = input.read(path)
        if not text then
            return blame(option .. "s-from", input.failure(path, why, errno))
        end
        local found, err = require("atomicwriter.labels").parse(text)
        if not found then
            err.path = path
            return nil, err
        end
        for key, value in pairs(found) do
            local added, clash = add(key, value, option .. "s-from " .. path)
            if not added then return nil, clash end
        end
    end
    for _, pair in ipairs(pairs_given or {}) do
        local added, clash = add(pair.key, pair.value, option)
        if not added then return nil, clash end
    end
    return map
end

local function load_data(args, requests, results)
    local data = require "atomicwriter.data"
    local map, set = {}, {}
    for _, pair in ipairs(args.data or {}) do
        if map[pair.key] ~= nil then
            return usage("--data", quote(pair.key) .. " is given twice")
        end
        local value, err = data.load(pair.value)
        if value == nil then return blame("--data", err) end
        map[pair.key] = value
    end
    if #requests > 0 then
        local added, err =
            require("atomicwriter.cli.etcd.requests").add_data(map, requests, results)
        if not added then return nil, err end
    end
    for _, pair in ipairs(args.set or {}) do
        if set[pair.key] or map[pair.key] ~= nil then
            return usage("--set", quote(pair.key) .. " is given twice")
        end
        set[pair.key] = true
        local done, why = data.set(map, pair.key, pair.value)
        if not done then return usage("--set", why) end
    end
    return map
end

-- Templates -----------------------------------------------------------------------------------

-- Not through `input`: nobody can watch a file of /proc.
local function hostname()
    local file = io.open(HOSTNAME, "r")
    local name = file and file:read("*l")
    if file then file:close() end
    return name
end

local Sources = {}
Sources.__index = Sources

local function add_templates(self, builder, context)
    for _, given in ipairs(self._templates) do
        local list, err = require("atomicwriter.cli.template_files").find(given[1], given[2],
            self._snapshots)
        if not list then return blame("--template", err) end
        for _, item in ipairs(list) do
            local text, render_err = require("atomicwriter.template").render_file(item[2],
                context, { delimiters = self._args.delimiters, cache = self._cache })
            if not text then return blame("--template", render_err) end
            local added, add_err = builder:add(item[1], text, "template " .. item[2])
            if not added then return blame("--template", add_err) end
        end
    end
    return true
end

-- Everything else -----------------------------------------------------------------------------

local function add_files(self, builder)
    for _, file in ipairs(self._files) do
        local added, err = builder:from_file(file[1], file[2])
        if not added then return blame("--from-file", err) end
    end
    for _, literal in ipairs(self._literals) do
        local added, err = builder:from_data(literal[1], literal[2], "--from-literal")
        if not added then return blame("--from-literal", err) end
    end
    for _, path in ipairs(self._args.from_env_file or {}) do
        local added, err = builder:from_env_file(path)
        if not added then return blame("--from-env-file", err) end
    end
    for _, pattern in ipairs(self._args.from_env or {}) do
        local added, err = builder:from_env(pattern)
        if not added then return blame("--from-env", err) end
    end
    return true
end

local function add_output(self, builder)
    for _, exec in ipairs(self._execs) do
        local key, command = exec[1], exec[2]
        local process = require "atomicwriter.cli.process"
        local status, err = process.run(command, {
            capture = true, timeout = self._timeout, on_stop = "pass",
            signals = self._services and self._services:catch_signals(),
        })
        if not status then return blame("--from-exec", err) end
        if not status.ok then
            local what = process.describe(status)
            return fail("exec", format("--from-exec: the command for %s %s", quote(key), what))
        end
        local added, add_err = builder:from_data(key, status.output, "--from-exec")
        if not added then return blame("--from-exec", add_err) end
    end
    return true
end

local function add_maps(self, builder, context)
    local args = self._args
    for _, kind in ipairs { "labels", "annotations" } do
        local given = args[kind .. "_key"]
        local key = given or kind
        if next(context[kind]) and key ~= "" then
            local added, err = builder[kind](builder, context[kind], key)
            local option = given and kind .. "-key" or gsub(kind, "s$", "")
            if not added then return blame("--" .. option, err) end
        end
    end
    return true
end

local function set_attributes(self, builder)
    for _, item in ipairs(self._args.file_mode or {}) do
        local set, err = builder:attributes(item.key, { mode = item.value })
        if not set then return usage("--file-mode", err.message) end
    end
    for _, item in ipairs(self._args.file_owner or {}) do
        local set, err = builder:attributes(item.key, { uid = item.uid, gid = item.gid })
        if not set then return usage("--file-owner", err.message) end
    end
    return true
end

local function gather(self, target)
    local context, err = self:context(target)
    if not context then return nil, err end
    local builder = require("atomicwriter.payload").new()
    local etcd_added, etcd_err = self:add_etcd(builder)
    if not etcd_added then return nil, etcd_err end
    for _, add in ipairs { add_files, add_output, add_templates, add_maps, set_attributes } do
        local added, add_err = add(self, builder, context)
        if not added then return nil, add_err end
    end
    return builder:build()
end

-- What was read, for announcements: the revision, and the keys of each prefix in short.
local function origin_of(requests, results)
    local reads = {}
    for index, request in ipairs(requests) do
        reads[request.prefix] =
            require("atomicwriter.cli.etcd.feed").summary(results[index].mods)
    end
    return { revision = results[1].revision, reads = reads }
end

-- Read what is wanted of etcd, all at once, so that it is of one revision.
local function read_etcd(self, more)
    local requests, results = {}, {}
    for _, list in ipairs { self._etcd, more or {} } do
        for _, request in ipairs(list) do requests[#requests + 1] = request end
    end
    self.origin = nil
    if #requests > 0 then
        local err
        results, err = self._services:etcd():read(requests)
        if not results then
            self.origin = { revision = err.revision }
            return nil, err
        end
        self.origin = origin_of(requests, results)
    end
    self._requests, self._results = requests, results
    return true
end

--- Add the files that come from etcd, as the last call of `context` has read them.
-- @tparam table builder of `atomicwriter.payload`
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] table error
function Sources:add_etcd(builder)
    for index, request in ipairs(self._requests) do
        if not request.name then
            local added, err = require("atomicwriter.cli.etcd.requests").add_files(builder, request,
                self._results[index])
            if not added then return nil, err end
        end
    end
    return true
end

--- What templates see: `env`, `labels`, `annotations`, `data`, `target`, `hostname`. With it etcd
-- is read; then the field `origin` has the `revision`, and `reads`: `newest` and `keys` by prefix.
-- @tparam string target
-- @tparam[opt] table more requests of etcd, see `atomicwriter.cli.etcd.requests`
-- @treturn[1] table
-- @treturn[2] nil
-- @treturn[2] table error
function Sources:context(target, more)
    local args = self._args
    local was_read, etcd_err = read_etcd(self, more)
    if not was_read then return nil, etcd_err end
    local labels, label_err = merge_labels(args.labels_from, args.label, "--label")
    if not labels then return nil, label_err end
    local annotations, annotation_err =
        merge_labels(args.annotations_from, args.annotation, "--annotation")
    if not annotations then return nil, annotation_err end
    local context = { labels = labels, annotations = annotations, target = target }
    if self._needs_context then
        local data, data_err = load_data(args, self._requests, self._results)
        if not data then return nil, data_err end
        local environ, env_err = require("atomicwriter.env").environ()
        if not environ then return nil, env_err end
        context.data, context.env = data, environ
        context.hostname = hostname()
    end
    return context
end

--- Read everything and make the payload.
-- @tparam string target what templates see as `target`
-- @treturn[1] table payload as a writer takes it
-- @treturn[2] nil
-- @treturn[2] table error; code `usage` when an option is to blame
function Sources:gather(target)
    self._snapshots = {}
    -- What was compiled the last time, of which only that stays which is used this time.
    self._cache = setmetatable({}, { __index = self._cache })
    local payload, err = gather(self, target)
    setmetatable(self._cache, nil)
    for _, snapshot in ipairs(self._snapshots) do snapshot:close() end
    return payload, err
end

-- The files that options name: pairs of option and path.
local function each_file(self)
    local args, list = self._args, {}
    local function add(option, path) list[#list + 1] = { option, path } end
    for _, file in ipairs(self._files) do add("--from-file", file[1]) end
    for _, template in ipairs(self._templates) do add("--template", template[1]) end
    for _, path in ipairs(args.from_env_file or {}) do add("--from-env-file", path) end
    for _, path in ipairs(args.labels_from or {}) do add("--labels-from", path) end
    for _, path in ipairs(args.annotations_from or {}) do add("--annotations-from", path) end
    for _, pair in ipairs(args.data or {}) do add("--data", pair.value) end
    return list
end

-- What is empty when it is read again must not be watched.
local function refuse_pipes(self)
    local uv = require("atomicwriter.cli.process").uv()
    for _, item in ipairs(each_file(self)) do
        local about = uv.fs_stat(item[2])
        if about and about.type ~= "file" and about.type ~= "directory" then
            return usage(item[1], format("%s can be read only once: --watch needs a file", item[2]))
        end
    end
    return self
end

local M = {}

--- Take the arguments of a command apart. Reads nothing yet.
-- @tparam table args as `atomicwriter.cli.options` names them
-- @tparam[opt] table options `services`: to catch signals while commands run, and to read from
--  etcd; `needs_context`: somebody else renders, too; `again`: it will be gathered more than once
-- @treturn[1] table sources
-- @treturn[2] nil
-- @treturn[2] table error, code `usage`
function M.new(args, options)
    options = options or {}
    local payload = require "atomicwriter.payload"
    local files, file_err = split_all("--from-file", args.from_file, payload.parse_file)
    if not files then return nil, file_err end
    local literals, literal_err =
        split_all("--from-literal", args.from_literal, payload.parse_literal)
    if not literals then return nil, literal_err end
    local execs, exec_err = split_all("--from-exec", args.from_exec, split_exec)
    if not execs then return nil, exec_err end
    local templates, template_err = split_all("--template", args.template, split_template)
    if not templates then return nil, template_err end
    local etcd, etcd_err = require("atomicwriter.cli.etcd.requests").of_args(args)
    if not etcd then return nil, etcd_err end
    local self = setmetatable({
        _args = args, _files = files, _literals = literals, _execs = execs, _templates = templates,
        _etcd = etcd,
        _services = options.services, _timeout = values.command_timeout(args.command_timeout),
        _needs_context = options.needs_context or #templates > 0
            or #(args.data or {}) + #(args.set or {}) + #(args.data_from_etcd or {}) > 0,
        _snapshots = {},
    }, Sources)
    if options.again then return refuse_pipes(self) end
    return self
end

local NAMES = {
    "from_file", "from_literal", "from_env_file", "from_env", "from_exec", "from_etcd", "template",
    "label", "annotation", "labels_from", "annotations_from",
}

--- What is wrong with the arguments as a whole: they name no source.
-- @tparam table args
-- @treturn ?string
function M.fault(args)
    for _, name in ipairs(NAMES) do
        if args[name] and #args[name] > 0 then return nil end
    end
    return "no source given: add one, such as --template PATH or --from-file PATH"
end

--- Whoever has just removed the sources must not empty a target that is in use.
-- @tparam string target
-- @tparam table payload
-- @tparam ?boolean allowed whether a payload without any file is wanted
-- @treturn ?table an error, or nil
function M.refuse_empty(target, payload, allowed)
    if allowed or next(payload) ~= nil then return nil end
    return failure.new {
        code = "invalid_payload", message = target .. ": the sources hold no file at all; "
            .. "--allow-empty, or allow_empty = true, publishes that",
    }
end

return M
