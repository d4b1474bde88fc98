--- The processes of race_spec.lua: each is one role, run until its time is over, and
-- counts what it did and what went wrong. Required by children, so by name:
--
--     require("spec.faults.crowd").run(ROLE, TARGET, NUMBER, UNTIL)
--
-- UNTIL is a time of the monotonic clock, which all processes share. What a child prints
-- is "done errors torn", and the first complaint.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local system = require "system"
local volume = require "spec.support.volume"

local M = {}

---- payloads that say whose they are --------------------------------------------

-- The paths of a payload of COUNT files.
local function paths_of(count)
    local paths = {}
    for i = 1, count do paths[i] = (i % 3 == 0 and "dir/f" or "f") .. i end
    return paths
end

--- Each file names writer and generation, how many files belong together, and itself;
-- it is long or short.
function M.payload(writer, generation)
    local count = 3 + (writer + generation) % 6
    local payload = {}
    for i, path in ipairs(paths_of(count)) do
        local head = ("%d.%d %d %s\n"):format(writer, generation, count, path)
        payload[path] = head:rep(i == 2 and 200 or 1)
    end
    return payload
end

-- What the files of one version come to, read one after the other.
local Reading = {}
Reading.__index = Reading

local function begin_reading()
    return setmetatable({ seen = 0 }, Reading)
end

-- What is wrong with a file in the company of those before; nil if nothing is.
function Reading:add(path, data)
    local mark, count, itself = data:match("^(%d+%.%d+) (%d+) (%S+)\n")
    self.mark, self.count = self.mark or mark, self.count or tonumber(count)
    self.seen = self.seen + 1
    if not mark then return "torn: " .. path .. " has no head" end
    if mark ~= self.mark or tonumber(count) ~= self.count or itself ~= path then
        return ("torn: %s of %s among files of %s"):format(itself, mark, self.mark)
    end
    local head = data:match("^[^\n]*\n")
    if data ~= head:rep(path == "f2" and 200 or 1) then return "torn: " .. path .. " is cut" end
end

function Reading:finish()
    if self.seen ~= self.count then
        return ("torn: %d files of %s"):format(self.seen, tostring(self.count))
    end
end

---- what a process counts ---------------------------------------------------------

local Tally = {}
Tally.__index = Tally

function Tally:blame(complaint)
    local torn = tostring(complaint):find("^torn") ~= nil
    self.errors, self.torn = self.errors + (torn and 0 or 1), self.torn + (torn and 1 or 0)
    self.first = self.first or tostring(complaint)
end

-- Versions that one reader meets never go back.
function Tally:meet(version)
    if self.last and volume.older(version, self.last) then
        self:blame(("%s after %s"):format(version, self.last))
    end
    self.last = version
end

---- writers -----------------------------------------------------------------------

local FOREVER = 300 -- seconds for a lock: nobody's turn comes too late

local roles = {}

local function open_writer(target)
    return assert(atomicwriter.new(target,
        { durability = "none", keep = 1, lock_timeout = FOREVER }))
end

function roles.writer(tally, target, number)
    local writer, generation = open_writer(target), 0
    return function()
        generation = generation + 1
        local result, err = writer:write(M.payload(number, generation))
        if not result then return err end
        if #result.warnings > 0 then return result.warnings[1] end
        if not result.changed then return "a new generation, and no change" end
        tally:meet(result.version)
    end
end

-- There may be nothing to go back to.
function roles.roller(tally, target)
    local writer = open_writer(target)
    return function()
        local result, err = writer:rollback()
        if result then
            tally:meet(result.version)
            return result.warnings[1]
        end
        return err.code ~= "not_found" and err or nil
    end
end

function roles.collector(_, target)
    local writer = open_writer(target)
    return function()
        local removed, err = writer:collect()
        if not removed or err then return err end
        local plan, why = writer:plan { f1 = "another" }
        if not plan then return why end
        local versions, reason = writer:versions()
        return not versions and reason or nil
    end
end

---- readers -----------------------------------------------------------------------

-- What is wrong with the files PATHS of a snapshot; PAUSE is called after the first.
local function read_snapshot(snapshot, pause)
    local reading = begin_reading()
    local paths, err = snapshot:paths()
    if not paths then return err end
    for i, path in ipairs(paths) do
        local data, why = snapshot:read(path)
        local wrong = not data and why or data and reading:add(path, data)
        if wrong then return wrong end
        if i == 1 and pause then pause() end
    end
    return reading:finish()
end

function roles.snapshot(tally, target)
    return function()
        local snapshot, err = atomicwriter.open(target)
        if not snapshot then return err end
        tally:meet(snapshot.version)
        local wrong = read_snapshot(snapshot)
        snapshot:close()
        return wrong
    end
end

-- Holds its lease while at least three other versions go live.
function roles.slow(tally, target, _, ends)
    local watcher = assert(atomicwriter.watch(target))
    return function()
        local snapshot, err = atomicwriter.open(target)
        if not snapshot then return err end
        tally:meet(snapshot.version)
        local wrong = read_snapshot(snapshot, function()
            local others = 0
            while others < 3 and system.monotime() < ends do
                others = others + (watcher:wait(0.1) and 1 or 0)
            end
        end)
        snapshot:close()
        return wrong
    end
end

-- Told of a version, it opens that one or a later one.
function roles.watcher(tally, target)
    local watcher = assert(atomicwriter.watch(target))
    return function()
        local version, err = watcher:wait(0.1)
        if not version then return err ~= "timeout" and err or nil end
        tally:meet(version)
        local snapshot, why = atomicwriter.open(target)
        if not snapshot then return why end
        tally:meet(snapshot.version)
        local wrong = read_snapshot(snapshot)
        snapshot:close()
        tally.last = version -- the watcher may have to tell of what lies between
        return wrong
    end
end

-- The version's name of the working directory, and whether it still is a version. Before
-- one is removed, it is renamed: then files may be missing, and not before.
local function entered()
    local name = (lfs.currentdir() or ""):match("[^/]+$") or ""
    return name:match("^(%.%.[%d_]+%.%d+)"), name:match(volume.VERSION) ~= nil
end

-- Knows of no lease: enters ..data once, and reads from there. Between reading the link
-- and looking up what it says, that version may go; the link never does.
function roles.plain(tally, target)
    return function()
        if not lfs.chdir(target .. "/..data") then
            return not volume.live(target) and "torn: there is no ..data" or nil
        end
        local version = entered()
        if version then tally:meet(version) end
        local reading, path = begin_reading(), "f1"
        repeat
            local file = io.open(path, "rb")
            if not file then
                local _, whole = entered()
                return whole and "torn: " .. path .. " is missing" or nil
            end
            local data = file:read("*a")
            file:close()
            local wrong = reading:add(path, data)
            if wrong then return wrong end
            path = paths_of(reading.count)[reading.seen + 1]
        until not path
    end
end

--- Run ROLE; see above.
function M.run(role, target, number, ends)
    local tally = setmetatable({ errors = 0, torn = 0 }, Tally)
    local done, once = 0, roles[role](tally, target, tonumber(number), tonumber(ends))
    repeat
        local wrong = once()
        if wrong then tally:blame(wrong) else done = done + 1 end
    until system.monotime() >= tonumber(ends)
    print(done, tally.errors, tally.torn, tally.first or "")
end

return M
