--- Who has a revision: the announcements of machines, read and judged.
-- @module atomicwriter.cli.etcd.fleet

local encoding = require "atomicwriter.cli.etcd.encoding"
local feed = require "atomicwriter.cli.etcd.feed"

local format, max = string.format, math.max

local M = {}

-- The fields of an announcement and their types; all else is passed over.
local FIELDS = {
    host = "string", target = "string", prefix = "string", revision = "number",
    version = "string", check = "string", reload = "string", error = "string", tried = "number",
}

--- The announcements among FILES, in the order of their keys.
-- @tparam table files of a feed
-- @treturn {table,...}
function M.parse(files)
    local keys, machines = {}, {}
    for key in pairs(files) do keys[#keys + 1] = key end
    table.sort(keys)
    for index, key in ipairs(keys) do
        local record, machine = encoding.decode_json(files[key]) or {}, { key = key }
        for name, kind in pairs(FIELDS) do
            if type(record[name]) == kind then machine[name] = record[name] end
        end
        machine.host, machine.target = machine.host or key, machine.target or ""
        machines[index] = machine
    end
    return machines
end

--- The newest revision of each prefix that machines announce to have something of.
-- @tparam table client
-- @tparam {table,...} machines
-- @tparam ?table signals
-- @treturn[1] table prefix to revision
-- @treturn[2] nil
-- @treturn[2] table error
function M.newest(client, machines, signals)
    local newest = {}
    for _, machine in ipairs(machines) do
        local prefix = machine.prefix
        if prefix and not newest[prefix] then
            local output, err = client:run({ "get", "--prefix", "--keys-only", "--", prefix },
                { signals = signals })
            if not output then return nil, err end
            local state, parse_err = feed.parse(prefix, output)
            if not state then return nil, parse_err end
            newest[prefix] = 0
            for _, mod in pairs(state.mods) do newest[prefix] = max(newest[prefix], mod) end
        end
    end
    return newest
end

-- Why MACHINE does not have WANTED as it should, or nil.
local function reason(machine, wanted)
    local failure = machine.error
    if failure and machine.tried then
        failure = format("revision %.0f: %s", machine.tried, failure)
    end
    if not wanted then return "it reads nothing from etcd" end
    if not machine.revision then return failure or "it has none yet" end
    if machine.revision < wanted then
        return failure or format("it has revision %.0f", machine.revision)
    end
    -- A failure after that is about another revision, but what cannot be reloaded is not in use.
    if machine.reload == "failed" then return failure or "the reload failed" end
    return nil
end

--- Judge each machine: sets `has`, and `why` where it has not what is wanted.
-- @tparam {table,...} machines
-- @tparam function wanted_of called with a machine: the revision that it should have, or nil
-- @treturn number how many have it
function M.judge(machines, wanted_of)
    local count = 0
    for _, machine in ipairs(machines) do
        machine.why = reason(machine, wanted_of(machine))
        machine.has = machine.why == nil
        if machine.has then count = count + 1 end
    end
    return count
end

local function pad(cells, widths)
    local out = {}
    for index, cell in ipairs(cells) do
        out[index] = index == #cells and cell or cell .. (" "):rep(widths[index] - #cell)
    end
    return table.concat(out, "  ")
end

--- The machines as a table in text.
-- @tparam {table,...} machines judged
-- @treturn {string,...} lines
function M.lines(machines)
    local rows = { { "HOST", "TARGET", "REVISION", "VERSION", "STATE" } }
    for _, machine in ipairs(machines) do
        rows[#rows + 1] = {
            machine.host, machine.target,
            machine.revision and encoding.number(machine.revision) or "-",
            machine.version or "-",
            machine.has and "has it" or "does not have it: " .. machine.why,
        }
    end
    local widths, lines = {}, {}
    for _, row in ipairs(rows) do
        for index, cell in ipairs(row) do
            row[index] = require("atomicwriter.cli.console").clean(cell)
            widths[index] = max(widths[index] or 0, #row[index])
        end
    end
    for index, row in ipairs(rows) do lines[index] = pad(row, widths) end
    return lines
end

return M
