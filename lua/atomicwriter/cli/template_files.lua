--- Which files `--template` names: one, or all below a directory.
-- @module atomicwriter.cli.template_files

local input = require "atomicwriter.input"

local find, gsub, match = string.find, string.gsub, string.match

local DATA_LINK = "..data"
local TEMPLATE_SUFFIX = "%.tmpl$"

local function key_of(path)
    return (gsub(match(gsub(path, "/+$", ""), "[^/]*$"), TEMPLATE_SUFFIX, ""))
end

local function is_left_out(name)
    return find(name, "^[._]") or find(name, "~$")
end

-- The templates below DIRECTORY, into LIST, each `{ key, path }`.
local function list_templates(directory, prefix, list)
    input.note(directory)
    local names, err = require("atomicwriter.core").list_directory(directory)
    if not names then return nil, err end
    for _, item in ipairs(names) do
        local path = directory .. "/" .. item.name
        if not is_left_out(item.name) then
            if item.type == "directory" then
                local listed, list_err = list_templates(path, prefix .. item.name .. "/", list)
                if not listed then return nil, list_err end
            elseif item.type == "file" or item.type == "link" and not input.is_directory(path) then
                list[#list + 1] = { gsub(prefix .. item.name, TEMPLATE_SUFFIX, ""), path }
            end
        end
    end
    return list
end

-- A directory that is managed is read through the version that is live now, which a snapshot keeps
-- until everything is rendered.
local function resolve_directory(path, snapshots)
    local managed = path .. "/" .. DATA_LINK
    if not input.is_directory(managed) then return path end
    input.note(managed)
    local snapshot, err = require("atomicwriter").open(path)
    if not snapshot then return nil, err end
    snapshots[#snapshots + 1] = snapshot
    return path .. "/" .. snapshot.version
end

local M = {}

--- The templates that `--template [KEY=]PATH` names.
-- @tparam string path of a file or a directory
-- @tparam ?string key
-- @tparam table snapshots to which those are added that are held while the files are read
-- @treturn[1] {table,...} each a key and the path of a file
-- @treturn[2] nil
-- @treturn[2] table error
function M.find(path, key, snapshots)
    if key then
        local valid, key_err = require("atomicwriter.payload").check_key((gsub(key, "/+$", "")))
        if not valid then return nil, key_err end
    end
    local directory, why, errno = input.is_directory(path)
    if directory == nil then return nil, input.failure(path, why, errno) end
    if not directory then return { { key or key_of(path), path } } end
    local resolved, snapshot_err = resolve_directory(gsub(path, "(.)/+$", "%1"), snapshots)
    if not resolved then return nil, snapshot_err end
    return list_templates(resolved, key and gsub(key, "/+$", "") .. "/" or "", {})
end

return M
