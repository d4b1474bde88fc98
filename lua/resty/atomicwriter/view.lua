--- One version as a worker holds it: what was decoded, what was read, and a snapshot for the rest.
-- @module resty.atomicwriter.view

local atomicwriter = require "atomicwriter"
local failure = require "resty.atomicwriter.failure"

local pcall, tostring, type = pcall, tostring, type

--- @type View
local View = {}
View.__index = View

local function decode(view, path, data, decoder)
    local ran, value, why = pcall(decoder, data)
    if ran and value ~= nil then return value end
    if not ran then why = value end
    return nil, failure.new {
        code = "decode_failed", path = path, message = ("%s: %s of %s: %s"):format(
            view.target, path, view.version, why and tostring(why) or "it decodes to nothing"),
    }
end

--- What a file holds: what its decoder made of it, or else its data.
-- The value is the same for every request, and is not to be changed.
-- @tparam string path
-- @return[1] the value
-- @treturn[2] nil
-- @treturn[2] Error `not_found`, `io`
function View:get(path)
    local value = self.values[path]
    if value ~= nil then return value end
    if type(path) ~= "string" then
        error("bad argument #1 to 'get' (path expected, got " .. type(path) .. ")", 2)
    end
    if not self.snapshot then
        return nil, failure.new {
            code = "not_found", path = path,
            message = ("%s: %s: not in %s"):format(self.target, tostring(path), self.version),
        }
    end
    local data, err = self.snapshot:read(path)
    if not data then return nil, err end
    self.values[path] = data
    return data
end

--- The paths of all files of this version, sorted; not to be changed.
-- @treturn[1] {string,...}
-- @treturn[2] nil
-- @treturn[2] Error `io`
function View:paths()
    if self.list then return self.list end
    local list, err = self.snapshot:paths()
    if not list then return nil, err end
    self.list = list
    return list
end

local M = {}

-- To find so many names takes as long as to read one file.
local LISTED_AS_ONE = 8

-- What of PATH is wanted before the version is served, read and decoded. Returns true, or nil, an
-- error and whether the version itself is to blame.
local function take(view, path, decoder, breathe)
    local data, err = view.snapshot:read(path)
    if not data then
        if err.code == "not_found" then return true end
        return nil, err
    end
    breathe(#data, 1)
    if not decoder then
        view.values[path] = data
        return true
    end
    local value
    value, err = decode(view, path, data, decoder)
    if value == nil then return nil, err, true end
    view.values[path] = value
    return true
end

-- The paths to read now: all, or those of a list and those with a decoder.
local function wanted(view, decoders, preload)
    if preload == true then return view:paths() end
    local list, seen = {}, {}
    local function add(path)
        if not seen[path] then list[#list + 1] = path end
        seen[path] = true
    end
    for path in pairs(decoders) do add(path) end
    for _, path in ipairs(preload or {}) do add(path) end
    table.sort(list) -- the same error first in every worker
    return list
end

local function fill(view, decoders, preload, breathe)
    local stat, err = view.snapshot:stat "."
    if not stat then return nil, err end
    view.written = stat.mtime
    local paths
    paths, err = wanted(view, decoders, preload)
    if not paths then return nil, err end
    breathe(0, #paths / LISTED_AS_ONE)
    for _, path in ipairs(paths) do
        local fine, why, refused = take(view, path, decoders[path], breathe)
        if not fine then return nil, why, refused end
    end
    return true
end

local function approve(view, check)
    local ran, fine, why = pcall(check, view)
    if ran and fine then return true end
    if not ran then why = fine end
    return nil, failure.new {
        code = "check_failed", message = ("%s: the check refused %s: %s"):format(
            view.target, view.version, why and tostring(why) or "no reason given"),
    }, true
end

--- Load the live version of TARGET.
-- @tparam string target
-- @tparam table options `decode`, `preload`, `check` as of `resty.atomicwriter.new`
-- @tparam function breathe called now and then with what has been read: bytes and files
-- @treturn[1] View
-- @treturn[2] nil
-- @treturn[2] Error
-- @treturn[2] ?string the version, if that is to blame: loading it again would fail again
function M.load(target, options, breathe)
    local snapshot, err = atomicwriter.open(target)
    if not snapshot then return nil, err end
    local view = setmetatable({
        target = target, version = snapshot.version, snapshot = snapshot, values = {},
    }, View)
    local fine, refused
    fine, err, refused = fill(view, options.decode, options.preload, breathe)
    if fine and options.check then fine, err, refused = approve(view, options.check) end
    if not fine then
        snapshot:close()
        return nil, err, refused and view.version
    end
    if options.preload == true then -- all is here, and writers may remove the version
        snapshot:close()
        view.snapshot = nil
    end
    return view
end

return M
