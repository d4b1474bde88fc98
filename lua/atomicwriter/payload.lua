--- Gathers a payload from files, literals, env files and labels, by the rules of
-- `kubectl create configmap`.
--
--     local files = payload.new()
--     assert(files:from_file("conf.d"))
--     assert(files:from_literal("greeting=hello"))
--     assert(files:labels { app = "web" })
--     writer:write(files:build())
--
-- Files and directories are read through `atomicwriter.input`, so observers learn of them.
--
-- Every method either adds all that it was asked for or nothing: it returns the payload itself, or
-- nil and an error. Wrong types raise. Errors name keys and files, never contents.
-- @classmod atomicwriter.payload

local failure = require "atomicwriter.failure"
local input = require "atomicwriter.input"

local find, format, gmatch, gsub, match, sub =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.sub

local KEY_MAX = 253
local COMPONENT_MAX = 255
local PATH_MAX = 4096
local DATA_LINK = "..data"

local OPTIONS = {
    mode = true, uid = true, gid = true,
    list_directory = true, open_snapshot = true, getenv = true, environ = true,
}
local ATTRIBUTES = { "mode", "uid", "gid" }

local function invalid(message, path)
    return nil, failure.new { code = "invalid_payload", message = message, path = path }
end

-- TEXT as an error shows it.
local function quote(text)
    return require("atomicwriter.labels").quote(text)
end

-- Raises at the line of whoever called the public method.
local function check_type(value, wanted, position, name)
    if type(value) ~= wanted then
        error(format("bad argument #%d to '%s' (%s expected, got %s)",
            position, name, wanted, type(value)), 3)
    end
end

-- Keys and paths ------------------------------------------------------------------------------

-- Why NAME is no ConfigMap key, or nil when it is one.
local function component_fault(name)
    if name == "" then return "a component is empty" end
    if #name > KEY_MAX then return format("a component is longer than %d bytes", KEY_MAX) end
    if find(name, "[^-._a-zA-Z0-9]") then
        return "only letters, digits, '-', '_' and '.' are allowed"
    end
    if name == "." or name == ".." then return format("a component must not be '%s'", name) end
    if sub(name, 1, 2) == ".." then return "a component must not start with '..'" end
    return nil
end

local function check_key(key)
    if key == "" then return invalid("the key is empty") end
    for component in gmatch(key .. "/", "([^/]*)/") do
        local fault = component_fault(component)
        if fault then
            return invalid(format("%s is not a valid key: %s", quote(key), fault), key)
        end
    end
    return key
end

-- PATH as path.Clean has it, or nil and an error when no payload can have it.
local function clean_path(path)
    local function refuse(why)
        return invalid(format("%s is not a valid path: %s", quote(path), why), path)
    end
    if path == "" then return refuse("it is empty") end
    if sub(path, 1, 1) == "/" then return refuse("it is absolute") end
    if find(path, "\0", 1, true) then return refuse("it contains a NUL byte") end
    local components = {}
    for component in gmatch(path, "[^/]+") do
        if component == ".." then return refuse("it contains '..'") end
        if #component > COMPONENT_MAX then
            return refuse(format("a component is longer than %d bytes", COMPONENT_MAX))
        end
        if component ~= "." then components[#components + 1] = component end
    end
    if #components == 0 then return refuse("it names no file") end
    if sub(components[1], 1, 2) == ".." then
        return refuse("names that start with '..' are reserved")
    end
    local cleaned = table.concat(components, "/")
    if #cleaned > PATH_MAX then return refuse(format("it is longer than %d bytes", PATH_MAX)) end
    return cleaned
end

local function check_entry(path, entry)
    if type(entry) == "string" then return { data = entry } end
    if (entry.data == nil) == (entry.source == nil) then
        return invalid("an entry needs either data or source", path)
    end
    for _, field in ipairs { "data", "source" } do
        if entry[field] ~= nil and type(entry[field]) ~= "string" then
            return invalid(format("%s must be a string, got a %s", field, type(entry[field])), path)
        end
    end
    local copy = {}
    for field, value in pairs(entry) do copy[field] = value end
    return copy
end

-- Files and directories -----------------------------------------------------------------------

local function basename(path)
    local trimmed = gsub(path, "/+$", "")
    return match(trimmed, "[^/]*$")
end

local function list_with_core(path)
    local loaded, core = require("atomicwriter.optional").load("atomicwriter.core")
    if not loaded or type(core) ~= "table" or not core.list_directory then
        return nil, failure.new {
            code = "io", op = "opendir", path = path,
            message = "reading a directory needs the module atomicwriter.core",
        }
    end
    return core.list_directory(path)
end

local function open_with_core(path)
    return require("atomicwriter").open(path)
end

local function read_snapshot(snapshot, directory)
    local paths, err = snapshot:paths()
    if not paths then return nil, err end
    local pending = {}
    for _, path in ipairs(paths) do
        local data, read_err = snapshot:read(path)
        if not data then return nil, read_err end
        pending[#pending + 1] =
            { key = path, entry = { data = data }, origin = "file " .. directory .. "/" .. path }
    end
    return pending
end

local Payload = {}
Payload.__index = Payload

-- A directory that this tool or a kubelet manages has nothing but links on top, and reading them
-- one by one could mix two versions.
local function read_managed(self, path)
    local snapshot, err = (self._open_snapshot or open_with_core)(path)
    if not snapshot then return nil, err end
    local pending, read_err = read_snapshot(snapshot, path)
    snapshot:close()
    return pending, read_err
end

local function read_directory(self, path)
    local listing, err = (self._list_directory or list_with_core)(path)
    if not listing then return nil, err end
    local prefix = sub(path, -1) == "/" and path or path .. "/"
    for _, item in ipairs(listing) do
        if item.name == DATA_LINK and item.type == "link" then
            input.note(prefix .. DATA_LINK)
            return read_managed(self, path)
        end
    end
    local pending = {}
    for _, item in ipairs(listing) do
        if item.type == "file" then
            local key, key_err = check_key(item.name)
            if not key then return nil, key_err end
            local source = prefix .. item.name
            input.note(source)
            pending[#pending + 1] =
                { key = key, entry = { source = source }, origin = "file " .. source }
        end
    end
    return pending
end

-- Admission -----------------------------------------------------------------------------------

-- Whoever else claims KEY, or one of its directories, or something below it.
local function find_conflict(self, key)
    if self._origins[key] then
        return format("the key %s is given by %s already", quote(key), self._origins[key])
    end
    local below = self._directories[key]
    if below then
        return format("the key %s is the directory of %s, given by %s",
            quote(key), quote(below), self._origins[below])
    end
    for stop in gmatch(key, "()/") do
        local parent = sub(key, 1, stop - 1)
        if self._origins[parent] then
            return format("the key %s lies below the key %s, given by %s",
                quote(key), quote(parent), self._origins[parent])
        end
    end
    return nil
end

-- Add all of PENDING, or nothing.
local function admit(self, pending)
    for _, item in ipairs(pending) do
        local conflict = find_conflict(self, item.key)
        if conflict then return invalid(format("%s: %s", item.origin, conflict), item.key) end
    end
    for _, item in ipairs(pending) do
        self._entries[item.key] = item.entry
        self._origins[item.key] = item.origin
        for stop in gmatch(item.key, "()/") do
            self._directories[sub(item.key, 1, stop - 1)] = item.key
        end
    end
    return self
end

local function admit_data(self, key, data, origin)
    local checked, err = check_key(key)
    if not checked then return nil, err end
    return admit(self, { { key = key, entry = { data = data }, origin = origin } })
end

local function admit_map(self, map, origin)
    local pending = {}
    for key, value in pairs(map) do
        local checked, err = check_key(key)
        if not checked then return nil, err end
        pending[#pending + 1] = { key = key, entry = { data = value }, origin = origin }
    end
    return admit(self, pending)
end

--- Add a file, or the regular files directly in a directory.
-- A file is streamed by the core when the payload is written; a pipe is read now. Links, sub
-- directories and special files in a directory are passed over, as kubectl does; a regular file
-- whose name is no valid key is an error. A directory that has a `..data` link is read, with its
-- sub directories, through one consistent snapshot.
-- @tparam string path
-- @tparam[opt] string key default: the file's name; not for a directory
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload` or `io`
function Payload:from_file(path, key)
    check_type(path, "string", 1, "from_file")
    if key ~= nil then check_type(key, "string", 2, "from_file") end
    if path == "" then return invalid("the file's path is empty") end
    input.note(path)
    local directory, message, errno = input.is_directory(path)
    if directory == nil then return nil, input.failure(path, message, errno) end
    if not directory then
        local checked, key_err = check_key(key or basename(path))
        if not checked then return nil, key_err end
        local data = input.read_pipe(path)
        local entry = data and { data = data } or { source = path }
        return admit(self, { { key = checked, entry = entry, origin = "file " .. path } })
    end
    if key then return invalid("cannot give a key name for a directory path", path) end
    local pending, read_err = read_directory(self, path)
    if not pending then return nil, read_err end
    return admit(self, pending)
end

--- Add a literal value.
-- @tparam string key or, when it is the only argument, `KEY=VALUE`; nothing is unquoted
-- @tparam[opt] string value
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload:from_literal(key, value)
    check_type(key, "string", 1, "from_literal")
    if value == nil then
        key, value = Payload.parse_literal(key)
        if not key then return nil, value end
    end
    check_type(value, "string", 2, "from_literal")
    return admit_data(self, key, value, "literal")
end

--- Add data that was made by other means.
-- @tparam string key
-- @tparam string data
-- @tparam string origin where it came from, for the errors of whoever claims the same key
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload:from_data(key, data, origin)
    check_type(key, "string", 1, "from_data")
    check_type(data, "string", 2, "from_data")
    check_type(origin, "string", 3, "from_data")
    return admit_data(self, key, data, origin)
end

--- Add each variable of an env file as a file of its own.
-- @tparam string path
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload` with the `line`, or `io`
function Payload:from_env_file(path)
    check_type(path, "string", 1, "from_env_file")
    local text, message, errno = input.read(path)
    if not text then return nil, input.failure(path, message, errno) end
    local env = require "atomicwriter.env"
    local map, parse_err = env.parse(text, { name = path, getenv = self._getenv })
    if not map then
        parse_err.code = "invalid_payload"
        return nil, parse_err
    end
    return admit_map(self, map, "env file " .. path)
end

--- Add each variable of the process environment whose name matches a pattern.
-- @tparam string pattern as `atomicwriter.env.match` takes it
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload` or `env`
function Payload:from_env(pattern)
    check_type(pattern, "string", 1, "from_env")
    local map, err = require("atomicwriter.env").match(pattern, { environ = self._environ })
    if not map then return nil, err end
    return admit_map(self, map, "environment " .. pattern)
end

--- Add anything under any path that a writer accepts.
-- @tparam string path cleaned as `path.Clean` would
-- @tparam string|table entry data, or `{ data= | source=, mode=, uid=, gid= }`
-- @tparam[opt="add"] string origin where it came from, for the errors of whoever claims the same
--  path
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload:add(path, entry, origin)
    check_type(path, "string", 1, "add")
    if origin ~= nil then check_type(origin, "string", 3, "add") end
    if type(entry) ~= "string" then check_type(entry, "table", 2, "add") end
    local key, err = clean_path(path)
    if not key then return nil, err end
    local checked, entry_err = check_entry(key, entry)
    if not checked then return nil, entry_err end
    return admit(self, { { key = key, entry = checked, origin = origin or "add" } })
end

local function add_labels(self, map, key, origin)
    local text, err = require("atomicwriter.labels").format(map)
    if not text then
        err.code = "invalid_payload"
        return nil, err
    end
    return admit_data(self, key, text, origin)
end

-- Raise at the line of the public method's caller what labels.format would raise at ours.
local function check_map(map, name)
    if type(map) ~= "table" then
        error(format("bad argument #1 to '%s' (table expected, got %s)", name, type(map)), 3)
    end
    for key, value in pairs(map) do
        if type(key) ~= "string" or type(value) ~= "string" then
            error(format("bad argument #1 to '%s' (keys and values must be strings)", name), 3)
        end
    end
end

--- Add labels as one file in the downward-API format.
-- @tparam table map key to value, both strings
-- @tparam[opt="labels"] string key
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload:labels(map, key)
    check_map(map, "labels")
    if key ~= nil then check_type(key, "string", 2, "labels") end
    return add_labels(self, map, key or "labels", "labels")
end

--- Add annotations as one file in the downward-API format.
-- @tparam table map key to value, both strings
-- @tparam[opt="annotations"] string key
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload:annotations(map, key)
    check_map(map, "annotations")
    if key ~= nil then check_type(key, "string", 2, "annotations") end
    return add_labels(self, map, key or "annotations", "annotations")
end

--- Set mode and owner of a file that was added.
-- @tparam string path
-- @tparam table attributes any of `mode`, `uid`, `gid`
-- @treturn[1] payload
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`: no such file was added
function Payload:attributes(path, attributes)
    check_type(path, "string", 1, "attributes")
    check_type(attributes, "table", 2, "attributes")
    local key, err = clean_path(path)
    if not key then return nil, err end
    local entry = self._entries[key]
    if not entry then return invalid("no such file in the payload: " .. quote(key), key) end
    for _, name in ipairs(ATTRIBUTES) do
        if attributes[name] ~= nil then entry[name] = attributes[name] end
    end
    return self
end

--- The payload as `writer:write` takes it.
-- @treturn table path to data or entry; a fresh table, which the caller may change
function Payload:build()
    local built = {}
    for key, entry in pairs(self._entries) do
        local copy, plain = {}, true
        for field, value in pairs(entry) do copy[field] = value end
        for _, name in ipairs(ATTRIBUTES) do
            if copy[name] == nil then copy[name] = self._defaults[name] end
            if copy[name] ~= nil then plain = false end
        end
        built[key] = plain and copy.data or copy
    end
    return built
end

--- Start an empty payload.
-- @tparam[opt] table options `mode`, `uid`, `gid`: defaults for entries that have none; and to
-- control the outside world, `list_directory`, `open_snapshot`, `getenv` and `environ`: functions
-- in place of the core's, of `os.getenv` and of `env.environ`
-- @treturn payload
function Payload.new(options)
    if options ~= nil then check_type(options, "table", 1, "new") end
    options = options or {}
    for name in pairs(options) do
        if not OPTIONS[name] then error(format("unknown option '%s'", tostring(name)), 2) end
    end
    return setmetatable({
        _defaults = { mode = options.mode, uid = options.uid, gid = options.gid },
        _list_directory = options.list_directory,
        _open_snapshot = options.open_snapshot,
        _getenv = options.getenv,
        _environ = options.environ,
        _entries = {},     -- key -> entry, always a table
        _origins = {},     -- key -> where it came from, for errors
        _directories = {}, -- directory of a key -> one of the keys below it
    }, Payload)
end

--- Tell whether a key may be given on the command line: the rule of ConfigMap keys holds for each
-- component between slashes.
-- @function payload.check_key
-- @tparam string key
-- @treturn[1] string the key
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
Payload.check_key = check_key

--- Split `[KEY=]PATH` as `--from-file` takes it.
-- @tparam string text
-- @treturn[1] string path
-- @treturn[1] ?string key, nil when none was given
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`
function Payload.parse_file(text)
    check_type(text, "string", 1, "parse_file")
    if not find(text, "=", 1, true) then return text end
    local key, path = match(text, "^([^=]*)=([^=]*)$")
    if not key then return invalid("key names or file paths cannot contain '='") end
    if key == "" then return invalid(format("key name for file path %s missing", path)) end
    if path == "" then return invalid(format("file path for key name %s missing", key)) end
    return path, key
end

--- Split `KEY=VALUE` as `--from-literal` takes it, at the first `=`. Quotes stay.
-- @tparam string text
-- @treturn[1] string key
-- @treturn[1] string value
-- @treturn[2] nil
-- @treturn[2] table error, code `invalid_payload`; it does not show TEXT, which may be a secret
function Payload.parse_literal(text)
    check_type(text, "string", 1, "parse_literal")
    local key, value = match(text, "^([^=]+)=(.*)$")
    if not key then return invalid("invalid literal, expected KEY=VALUE") end
    return key, value
end

return Payload
