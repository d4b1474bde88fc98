--- Random histories of one target, each step compared with a model: plain tables of what each
-- version holds.
--
-- Steps are writes of random payloads (nested, with files that become directories and back, modes,
-- sizes from none to 100 KiB), the same payload again, rollbacks, collections, plans, checks that
-- say no, payloads that clash; by a writer that stays open or by a fresh one with other options. In
-- between, files of the live version and names of the target are changed as others do, and left as
-- killed writers leave them. After each step consumers see the model's contents and modes, the
-- result and the plan say what the model says, versions() lists what it retains, and nothing else
-- lies there.
--
-- PROPERTY_STEPS is the number of steps, PROPERTY_SEED another history. What fails, fails again
-- with the seed that it prints.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local STEPS = tonumber(os.getenv "PROPERTY_STEPS") or 300
local SEED = tonumber(os.getenv "PROPERTY_SEED") or 20261122

local random = math.random

local function one_of(list) return list[random(#list)] end

local function chance(percent) return random(100) <= percent end

---- payloads --------------------------------------------------------------------

local NAMES = { "a", "b", "c", "a-b", "x y", "é", ".hidden", "..."}
local MODES = { "0644", "0600", "0640", "0755", "0444" }
local DEFAULT_MODE = "0644"

local function random_path()
    local parts = { NAMES[random(#NAMES - 1)] } -- "..." is reserved at the top
    while #parts < 4 and chance(40) do parts[#parts + 1] = one_of(NAMES) end
    return table.concat(parts, "/")
end

local function random_data()
    if chance(10) then return "" end
    local text = ("%d "):format(random(1000000))
    if chance(5) then return text:rep(math.floor(100 * 1024 / #text)) end
    return text:rep(random(20)) .. string.char(0, random(0, 255))
end

local function random_file()
    return { data = random_data(), mode = chance(60) and DEFAULT_MODE or one_of(MODES) }
end

-- Whether one of the two paths is the other, or a directory of it.
local function clash(a, b)
    return a == b or a:sub(1, #b + 1) == b .. "/" or b:sub(1, #a + 1) == a .. "/"
end

-- Put FILE at PATH, and take away whatever is in its way.
local function put(files, path, file)
    for other in pairs(files) do
        if clash(path, other) then files[other] = nil end
    end
    files[path] = file
end

local function sorted_paths(files)
    local paths = {}
    for path in pairs(files) do paths[#paths + 1] = path end
    table.sort(paths)
    return paths
end

-- Files are never changed in place, so that versions can share them.
local function random_files(from)
    local files = {}
    if chance(80) then
        for path, file in pairs(from) do files[path] = file end
    end
    for _, path in ipairs(sorted_paths(files)) do
        if chance(15) then files[path] = nil end
        if chance(15) then files[path] = random_file() end
        if chance(10) and files[path] then
            files[path] = { data = files[path].data, mode = one_of(MODES) }
        end
    end
    for _ = 1, random(0, 3) do put(files, random_path(), random_file()) end
    if chance(4) then return {} end
    return files
end

local function payload_of(files)
    local payload = {}
    for path, file in pairs(files) do
        local key = chance(10) and "./" .. path:gsub("/", "//") or path
        if file.mode == DEFAULT_MODE and chance(50) then
            payload[key] = file.data
        else
            payload[key] = { data = file.data, mode = file.mode }
        end
    end
    return payload
end

---- the model ---------------------------------------------------------------------

-- What a write of WANTED would say where LIVE is.
local function difference(live, wanted, reuse)
    local diff = { added = {}, updated = {}, removed = {}, unchanged = 0, bytes = 0 }
    for _, path in ipairs(sorted_paths(wanted)) do
        local old, new = live[path], wanted[path]
        local same = old and old.data == new.data and old.mode == new.mode
        if same then
            diff.unchanged = diff.unchanged + 1
        else
            table.insert(old and diff.updated or diff.added, path)
        end
        if not (same and reuse) then diff.bytes = diff.bytes + #new.data end
    end
    for _, path in ipairs(sorted_paths(live)) do
        if not wanted[path] then table.insert(diff.removed, path) end
    end
    diff.changed = #diff.added + #diff.updated + #diff.removed > 0
    if not diff.changed then diff.bytes = 0 end
    return diff
end

local History = {}
History.__index = History

local function new_history(target)
    return setmetatable({
        target = target,
        files = {},    -- of the live version, as they are on disk
        wanted = {},   -- of the live version, as they were published
        live = nil,    -- its name
        retained = {}, -- newest first: { name =, files = }
        log = {},
    }, History)
end

function History:open()
    if self.writer then self.writer:close() end
    self.options = { durability = "none", create = true, keep = random(0, 3), reuse = chance(80),
                     early = chance(50), prepare = chance(50) }
    self.writer = assert(atomicwriter.new(self.target, self.options))
end

-- VERSION with FILES is live now, or the one that was live still is.
function History:publish(version, files)
    self.wanted = files
    if version ~= self.live then
        if self.live then
            table.insert(self.retained, 1, { name = self.live, files = self.files })
        end
        self.live, self.files = version, files
    end
    while #self.retained > self.options.keep do table.remove(self.retained) end
end

local function check_lists(result, wanted, what)
    for _, field in ipairs { "changed", "added", "updated", "removed", "unchanged", "bytes" } do
        assert.same(wanted[field], result[field], what .. "." .. field)
    end
    assert.same({}, result.warnings, what .. ".warnings")
end

local function mode_of(path)
    local bits = 0
    local letters = lfs.attributes(path, "permissions")
    for i = 1, 9 do
        bits = bits * 2 + (letters:sub(i, i) == "-" and 0 or 1)
    end
    return ("%04o"):format(bits)
end

function History:check()
    if not self.live then
        assert.is_nil(volume.live(self.target))
        return
    end
    local contents = {}
    for path, file in pairs(self.files) do contents[path] = file.data end
    self.writer:settle()
    assert(volume.shows(self.target, contents, self.options.keep, self.options.prepare))
    for path, file in pairs(self.files) do
        assert.equal(file.mode, mode_of(self.target .. "/" .. path), path)
    end
    local names = { self.live }
    for _, version in ipairs(self.retained) do names[#names + 1] = version.name end
    local listed = assert(self.writer:versions())
    for i, version in ipairs(listed) do
        assert.equal(names[i], version.name)
        assert.equal(i == 1, version.live)
    end
    assert.equal(#names, #listed)
    for _, version in ipairs(self.retained) do
        local kept = {}
        for path, file in pairs(version.files) do kept[path] = file.data end
        assert.same(kept, volume.contents(self.target, version.name))
    end
end

---- steps -------------------------------------------------------------------------

local steps = {}

function History:write(files)
    local payload = payload_of(files)
    local wanted = difference(self.files, files, self.options.reuse)
    if not self.live then wanted.changed = true end -- a version without files, too
    local was_live = self.live
    if chance(50) and was_live then
        local plan = assert(self.writer:plan(payload))
        check_lists(plan, wanted, "plan")
        assert.equal(was_live, volume.live(self.target))
    end
    local result = assert(self.writer:write(payload))
    check_lists(result, wanted, "result")
    assert.equal(wanted.changed, result.version ~= was_live)
    assert.equal(wanted.changed and was_live or nil, result.previous)
    local linked = wanted.changed and self.options.reuse and wanted.unchanged or 0
    assert.equal(linked, result.linked, "linked")
    self:publish(result.version, files)
end

steps[1] = { 40, "write", function(self) self:write(random_files(self.wanted)) end }

steps[2] = { 10, "the same again", function(self) self:write(self.wanted) end }

steps[3] = { 12, "rollback", function(self)
    local source = #self.retained > 0 and self.retained[chance(60) and 1 or random(#self.retained)]
    if not source then
        local result, err = self.writer:rollback()
        assert.is_nil(result)
        assert.equal(self.live and "not_found" or err.code, err.code)
        return
    end
    local wanted = difference(self.files, source.files, self.options.reuse)
    local was_live = self.live
    local result = assert(self.writer:rollback(source.name))
    for _, field in ipairs { "added", "updated", "removed", "unchanged" } do
        assert.same(wanted[field], result[field], "rollback." .. field)
    end
    assert.equal(wanted.changed, result.changed)
    assert.equal(wanted.changed and was_live or nil, result.previous)
    assert.equal(wanted.changed, volume.older(was_live, result.version))
    self:publish(result.version, source.files)
end }

steps[4] = { 4, "collect", function(self)
    if not self.live then return end
    assert.equal(#self.retained, assert(self.writer:collect()))
    self.retained = {}
end }

steps[5] = { 12, "another writer", function(self)
    self:open()
    self:write(chance(50) and self.wanted or random_files(self.wanted)) -- retains as it is told
end }

steps[6] = { 4, "a check that says no", function(self)
    local files = random_files(self.wanted)
    if self.live and not difference(self.files, files, true).changed then return end
    local result, err = self.writer:write(payload_of(files),
        { check = function() return false, "no" end })
    assert.is_nil(result)
    assert.equal("check_failed", err.code)
    assert.is_false(err.committed)
end }

steps[7] = { 4, "a payload that clashes", function(self)
    local files = random_files(self.wanted)
    local path = next(files)
    if not path then return end
    local payload = payload_of(files)
    payload[path .. "/below"], payload[path] = "x", "x"
    local result, err = self.writer:write(payload)
    assert.is_nil(result)
    assert.equal("invalid_payload", err.code)
end }

-- From then on writers may rely on a note that all was in order, and so miss what is not.
steps[8] = { 4, "the same again after a tick of the clock that stamps files", function(self)
    self:write(self.wanted)
    sandbox.sleep(0.03)
    self:write(self.wanted)
end }

---- what others do to the target ----------------------------------------------------

-- Make PATH in the live version anew, so that it shares no inode with others; nil: take it away,
-- with the directories that are then empty.
function History:replace(path, file)
    local full = self.target .. "/" .. self.live .. "/" .. path
    local files = {}
    for other, kept in pairs(self.files) do files[other] = kept end
    os.remove(full)
    if file then
        sandbox.write_file(full, file.data, file.mode)
    else
        local parent = path:match("^(.*)/[^/]*$")
        while parent and os.remove(self.target .. "/" .. self.live .. "/" .. parent) do
            parent = parent:match("^(.*)/[^/]*$")
        end
    end
    files[path] = file
    self.files = files
end

local drifts = {
    { "a file is edited", function(self, path)
        -- to what nobody wants: a writer that wants other data than it knows of does not look
        self:replace(path, { data = "edited " .. random_data(), mode = self.files[path].mode })
    end },
    { "a file has another mode", function(self, path)
        self:replace(path, { data = self.files[path].data, mode = "0604" })
    end },
    { "a file is gone", function(self, path) self:replace(path, nil) end },
    { "a file is extra", function(self, path)
        local extra = path:gsub("[^/]*$", "extra")
        self:replace(extra, { data = "extra", mode = "0644" })
    end },
    { "a visible link is gone", function(self, path)
        os.remove(self.target .. "/" .. path:match("^[^/]+"))
    end },
    { "a visible link leads nowhere", function(self)
        lfs.link("..data/stale", self.target .. "/stale", true)
    end },
    { "..data_tmp was left", function(self)
        lfs.link("..2098_01_01_00_00_00.1", self.target .. "/..data_tmp", true)
    end },
    { "an unfinished version was left", function(self)
        -- newer than the live one; the next name is newer still
        local path = self.target .. "/" .. self.live:gsub("%d+$", function(digits)
            return ("%.0f"):format(tonumber(digits) + 1000)
        end)
        if not lfs.mkdir(path) then return end
        sandbox.write_file(path .. "/half", "half")
    end },
    { "a half-removed version was left", function(self)
        local path = self.target .. "/..2020_01_01_00_00_00.1_tmp"
        if not lfs.mkdir(path) then return end
        sandbox.write_file(path .. "/half", "half")
    end },
    { "..lock is gone", function(self) os.remove(self.target .. "/..lock") end },
}

function History:drift()
    for _ = 1, random(2) do
        if not next(self.files) then return end
        local path = one_of(sorted_paths(self.files))
        local drift = one_of(drifts)
        self:note(drift[1] .. " (" .. path .. ")")
        drift[2](self, path)
    end
end

---- the test ------------------------------------------------------------------------

function History:note(what)
    self.log[#self.log + 1] = what
    if #self.log > 12 then table.remove(self.log, 1) end
end

function History:step()
    local ways, total = steps, 0
    for _, way in ipairs(steps) do total = total + way[1] end
    if self.live and next(self.files) and chance(25) then
        self:drift()
        ways = { steps[1], steps[2], steps[3], steps[5] } -- those that mend
        total = steps[1][1] + steps[2][1] + steps[3][1] + steps[5][1]
        if #self.retained == 0 then ways, total = { steps[1] }, steps[1][1] end
    end
    local number = random(total)
    for _, way in ipairs(ways) do
        number = number - way[1]
        if number <= 0 then
            self:note(way[2])
            way[3](self)
            break
        end
    end
    self:check()
end

describe("A target with a random history", function()
    after_each(function() sandbox.cleanup() end)

    it("is after each step as a plain table says (G1, G2, G5, G8)", function()
        math.randomseed(SEED)
        local history = new_history(sandbox.memdir() .. "/target")
        history:open()
        for number = 1, STEPS do
            local ok, err = pcall(history.step, history)
            if not ok then
                local message = type(err) == "table" and err.message or err
                error(("PROPERTY_SEED=%d: step %d: %s\nafter: %s"):format(SEED, number,
                    tostring(message), table.concat(history.log, "; ")), 0)
            end
        end
        history.writer:close()
        print(("# property: %d steps, seed %d, 0 violations"):format(STEPS, SEED))
    end)
end)
