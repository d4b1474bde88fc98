--- Who has a revision: the announcements of machines, read and judged.
-- @module atomicwriter.cli.etcd.fleet

local encoding = require "atomicwriter.cli.etcd.encoding"
local feed = require "atomicwriter.cli.etcd.feed"
local requests = require "atomicwriter.cli.etcd.requests"

local format, max = string.format, math.max

local M = {}

-- The fields of an announcement and their types; all else is passed over.
local FIELDS = {
    host = "string", target = "string", revision = "number",
    version = "string", check = "string", reload = "string", error = "string", tried = "number",
}

-- What of READS can be what a machine has read.
local function reads_of(reads)
    local fine = {}
    for prefix, summary in pairs(type(reads) == "table" and reads or {}) do
        if type(prefix) == "string" and requests.prefix(prefix) == prefix
            and type(summary) == "table" then
            fine[prefix] = { newest = summary.newest, keys = summary.keys }
        end
    end
    return fine
end

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
        machine.reads = reads_of(record.reads)
        machine.host, machine.target = machine.host or key, machine.target or ""
        machines[index] = machine
    end
    return machines
end

-- The keys below PREFIX as of REVISION, or now, in short; false where etcd has not come to
-- REVISION; or nil and an error.
local function read(client, prefix, revision, signals)
    local words = { "get", "--prefix", "--keys-only", "--", prefix }
    if revision then table.insert(words, 2, "--rev=" .. encoding.number(revision)) end
    local output, err = client:run(words, { signals = signals })
    if not output and err.kind == "compacted" then return read(client, prefix, nil, signals) end
    if not output and err.kind == "future" then return false end
    if not output then return nil, err end
    local state, parse_err = feed.parse(prefix, output)
    if not state then return nil, parse_err end
    return feed.summary(state.mods)
end

--- What is below the prefixes that machines read, in short, see
-- `atomicwriter.cli.etcd.feed.summary`.
-- @tparam table client
-- @tparam {table,...} machines
-- @tparam ?number wanted as of this revision, or the present where etcd no longer knows
-- @tparam table known what an earlier call has returned, or an empty table: it is completed
-- @tparam ?table signals
-- @treturn[1] table KNOWN: by prefix `newest` and `keys`; false where etcd has not come to WANTED
-- @treturn[2] nil
-- @treturn[2] table error
function M.prefixes(client, machines, wanted, known, signals)
    for _, machine in ipairs(machines) do
        for prefix in pairs(machine.reads) do
            if not known[prefix] then
                local found, err = read(client, prefix, wanted, signals)
                if found == nil then return nil, err end
                known[prefix] = found
            end
        end
    end
    return known
end

-- Whether MACHINE has the very keys that there are.
local function has_keys(machine, prefixes)
    for prefix, own in pairs(machine.reads) do
        local there = prefixes[prefix]
        if not there or own.newest ~= there.newest or own.keys ~= there.keys then return false end
    end
    return true
end

-- Why MACHINE does not have what it should, or nil.
local function reason(machine, state)
    local failure, revision = machine.error, machine.revision
    if failure then
        return machine.tried and format("revision %.0f: %s", machine.tried, failure) or failure
    end
    if not revision or next(machine.reads) == nil then return "it reads nothing from etcd" end
    if revision > state.revision then
        return format("it has revision %.0f, and etcd has only come to %.0f", revision,
            state.revision)
    end
    local is_later = state.wanted and revision >= state.wanted
    if not is_later and not has_keys(machine, state.prefixes) then
        return format("it has revision %.0f", revision)
    end
    if machine.reload == "failed" then return "the reload failed" end
    return nil
end

--- Judge each machine: sets `has`, and `why` where it does not have what it should.
-- @tparam {table,...} machines
-- @tparam table state of etcd: `revision` that it has come to; `prefixes`, see the function of that
--  name; `wanted`: the revision that machines should have, or nil: what there is
-- @treturn number how many have it
function M.judge(machines, state)
    local count = 0
    for _, machine in ipairs(machines) do
        machine.why = reason(machine, state)
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
