--- A payload compared with what is live, as text for people.
-- @module atomicwriter.cli.difference

local failure = require "atomicwriter.failure"
local input = require "atomicwriter.input"

local find, format = string.find, string.format

local READ_BY_OTHERS = 4
local DEFAULT_MODE = "0644"

-- `git diff` and `diff` print names with such bytes in quotes.
local function label_of(prefix, path)
    local name = prefix .. path
    return find(name, "[%c\"\\]") and require("atomicwriter.labels").quote(name) or name
end

-- The label of a side of a diff. `patch` takes a name with a space when a tab follows.
local function side_label(prefix, path, side)
    if not side then return "/dev/null" end
    local label = label_of(prefix, path)
    return find(label, " ", 1, true) and label .. "\t" or label
end

local function number_of(mode)
    return type(mode) == "string" and tonumber(mode, 8) or mode
end

local function is_public(mode)
    return mode % 8 >= READ_BY_OTHERS
end

-- One side of a comparison: `{ data =, mode =, uid =, gid = }`, or false when there is no file.
local function new_side(self, path)
    local entry = self.entries[path]
    if not entry then return false end
    if type(entry) == "string" then entry = { data = entry } end
    local mode = number_of(entry.mode or self.default_mode)
    local data, why, errno = entry.data, nil, nil
    if not data then data, why, errno = input.read(entry.source) end
    if not data then return nil, input.failure(entry.source, why, errno) end
    return { data = data, mode = mode, uid = entry.uid or self.uid, gid = entry.gid or self.gid }
end

local function old_side(self, path)
    if not self.snapshot then return false end
    local about, err = self.snapshot:stat(path)
    if not about then
        if err.code == "not_found" then return false end
        return nil, err
    end
    if about.type == "directory" then return false end
    local data, read_err = self.snapshot:read(path)
    if not data then return nil, read_err end
    return { data = data, mode = about.mode, uid = about.uid, gid = about.gid }
end

-- The two sides through diff. The old one is read from the version itself, which is leased.
local function run_diff(self, path, old, new)
    local process = require "atomicwriter.cli.process"
    local before = old and self.snapshot_path .. "/" .. path or "/dev/null"
    local status, err = process.run({
        "diff", "-u", "--label", side_label("a/", path, old),
        "--label", side_label("b/", path, new), "--", before, "-",
    }, { input = new and new.data or "", capture = true, signals = self.signals, on_stop = "pass" })
    if not status then return nil, err end
    if status.code ~= 0 and status.code ~= 1 then
        return nil, failure.new { code = "exec", message = "diff " .. process.describe(status) }
    end
    return status.output
end

local function describe_attributes(path, old, new)
    local lines = {}
    if old.mode ~= new.mode then
        lines[1] = format("%s: mode %04o -> %04o\n", path, old.mode, new.mode)
    end
    for _, field in ipairs { "uid", "gid" } do
        if new[field] and old[field] ~= new[field] then
            lines[#lines + 1] = format("%s: %s %d -> %d\n", path, field, old[field], new[field])
        end
    end
    return table.concat(lines)
end

local function describe_sizes(path, old, new)
    local what
    if not old then
        what = format("new, %d bytes", #new.data)
    elseif not new then
        what = format("removed, %d bytes", #old.data)
    elseif old.data ~= new.data then
        what = format("%d bytes -> %d bytes", #old.data, #new.data)
    end
    return what and format("%s: %s, contents not shown\n", path, what) or ""
end

local function compare(self, path)
    local old, old_err = old_side(self, path)
    if old == nil then return nil, old_err end
    local new, new_err = new_side(self, path)
    if new == nil then return nil, new_err end
    local shown = label_of("", path)
    if not old and not new then
        return format("%s: mode or owner of a directory\n", shown)
    end
    local attributes = old and new and describe_attributes(shown, old, new) or ""
    local public = (not old or is_public(old.mode)) and (not new or is_public(new.mode))
    if not public and not self.show_secrets then
        return attributes .. describe_sizes(shown, old, new)
    end
    if old and new and old.data == new.data then return attributes end
    local text, err = run_diff(self, path, old, new)
    if not text then return nil, err end
    -- diff has nothing to say about an empty file that comes or goes.
    if text == "" then text = format("%s: %s, empty\n", shown, old and "removed" or "new") end
    return attributes .. text
end

local function changed_paths(result)
    local paths = {}
    for _, kind in ipairs { "added", "updated", "removed" } do
        for _, path in ipairs(result[kind]) do paths[#paths + 1] = path end
    end
    table.sort(paths)
    return paths
end

local function compare_all(self, result)
    local parts = {}
    for index, path in ipairs(changed_paths(result)) do
        local text, err = compare(self, path)
        if not text then return nil, err end
        parts[index] = text
    end
    return table.concat(parts)
end

local M = {}

--- What a write of PAYLOAD would change.
-- @tparam string target
-- @tparam table payload with clean paths
-- @tparam table options `writer`: options of a writer; `show_secrets`; `signals`
-- @treturn[1] string empty when nothing differs
-- @treturn[2] nil
-- @treturn[2] table error
function M.of(target, payload, options)
    local atomicwriter = require "atomicwriter"
    local writer, err = atomicwriter.new(target, options.writer)
    if not writer then return nil, err end
    local result, plan_err = writer:plan(payload)
    writer:close()
    if not result then return nil, plan_err end
    if not result.changed then return "" end
    local snapshot, open_err = atomicwriter.open(target)
    if not snapshot and open_err.code ~= "not_found" then return nil, open_err end
    local text, compare_err = compare_all({
        entries = payload, snapshot = snapshot or nil,
        snapshot_path = snapshot and target .. "/" .. snapshot.version,
        default_mode = options.writer.default_mode or DEFAULT_MODE,
        uid = options.writer.uid, gid = options.writer.gid,
        show_secrets = options.show_secrets, signals = options.signals,
    }, result)
    if snapshot then snapshot:close() end
    return text, compare_err
end

return M
