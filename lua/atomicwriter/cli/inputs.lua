--- Which inputs have changed: what paths are like, and events that say when to look again.
--
-- A set remembers what each path was like before it was read, and can tell whether one is different
-- now. A watcher says when to ask. Its events never say *what* has changed: luv drops the news that
-- the kernel's event queue was full and events were lost. It cannot have been full without events
-- in it, so at least one came, and a look at all paths after it misses nothing.
--
-- Directories are watched, never files: an editor puts a new file in the place of the old one,
-- and a watch on the old one is then dead.
-- @module atomicwriter.cli.inputs

local process = require "atomicwriter.cli.process"

local M = {}

local LINKS_MAX = 40 -- symbolic links on the way to one path, as for the kernel
local PASSES_MAX = 10

-- Time stamps of files move in ticks of up to 10 ms, or where they have no fraction, of 2 s.
local TICK, COARSE_TICK = 0.01, 2

---- what paths are like -----------------------------------------------------------

local function seconds(time)
    return time.sec + time.nsec / 1e9
end

-- All that tells one state of a path from another, as a string, and its stat when it exists.
local function fingerprint(uv, path)
    local stat, _, name = uv.fs_stat(path)
    if not stat then
        return (name == "ENOTDIR" or name == "ENOENT") and "missing" or name
    end
    return ("%s %.0f %.0f %.0f %.0f.%.0f %.0f.%.0f"):format(stat.type, stat.dev, stat.ino,
        stat.size, stat.mtime.sec, stat.mtime.nsec, stat.ctime.sec, stat.ctime.nsec), stat
end

local function is_fresh(uv, stat)
    local now, micro = uv.gettimeofday()
    local age = now + micro / 1e6 - seconds(stat.ctime)
    return age >= 0 and age < (stat.ctime.nsec == 0 and COARSE_TICK or TICK)
end

local Set = {}
Set.__index = Set

--- A set of inputs, empty.
-- @treturn Set
function M.new()
    local self = setmetatable({ paths = {}, prints = {}, feeds = {}, fresh = false }, Set)
    self.sets = { self }
    return self
end

--- Several sets, as one that a watcher can follow. Nothing can be added to it.
-- @tparam {Set,...} sets which may be added to, but then have to be united again
-- @treturn Set
function M.union(sets)
    local self = setmetatable({ paths = {}, feeds = {}, sets = sets, fresh = false }, Set)
    for _, set in ipairs(sets) do
        for feed in pairs(set.feeds) do self.feeds[feed] = true end
        for _, path in ipairs(set.paths) do self.paths[#self.paths + 1] = path end
        self.fresh = self.fresh or set.fresh
    end
    return self
end

--- Remember what a path is like now; call it before reading the path.
--
-- A file, a directory (the names in it), and nothing at all are remembered alike. What was added
-- before stays as it was then.
-- @param path a string; or a feed of `atomicwriter.cli.etcd.feed`, whose field `generation` tells
function Set:add(path)
    if self.prints[path] then return end
    if type(path) == "table" then
        self.prints[path], self.feeds[path] = path.generation, true
        return
    end
    local uv = process.uv()
    local print, stat = fingerprint(uv, path)
    self.prints[path] = print
    self.paths[#self.paths + 1] = path
    if stat and is_fresh(uv, stat) then self.fresh = true end
end

local function find_changed(self, uv)
    for _, set in ipairs(self.sets) do
        for _, path in ipairs(set.paths) do
            if fingerprint(uv, path) ~= set.prints[path] then return path end
        end
        for feed in pairs(set.feeds) do
            if feed.generation ~= set.prints[feed] then return feed.prefix end
        end
    end
end

--- Look at all paths again. A watcher that follows the set first turns to where they lead now.
-- @treturn ?string one that is different from when it was added, of a feed its prefix; nil when
-- none is
function Set:changed()
    if self.watcher then self.watcher:turn() end
    return find_changed(self, process.uv())
end

--- Whether one was changed so shortly before it was added that another change in the same tick of
-- the clock would not show. Then read all of them again a little later.
-- @treturn boolean
function Set:unsettled()
    return self.fresh
end

---- which directories tell of a change ------------------------------------------------

-- What there is at PATH itself: { kind, identity, link text }; false when there is nothing.
-- SEEN remembers it for one look at all paths.
local function look(uv, path, seen)
    if seen[path] == nil then
        local stat = uv.fs_lstat(path)
        seen[path] = stat and {
            kind = stat.type,
            identity = ("%.0f:%.0f"):format(stat.dev, stat.ino),
            text = stat.type == "link" and uv.fs_readlink(path) or nil,
        } or false
    end
    return seen[path]
end

local function join(dir, name)
    return dir == "/" and "/" .. name or dir .. "/" .. name
end

-- The names of PATH in front of those in TODO, which is a stack: the next one is last.
local function push_names(todo, path)
    local names = {}
    for name in path:gmatch("[^/]+") do names[#names + 1] = name end
    for i = #names, 1, -1 do todo[#todo + 1] = names[i] end
end

-- Add to DIRS the directories that tell when PATH changes or leads elsewhere: the one that holds
-- it, or PATH itself when it is a directory, which tells of its own end, too; those that hold a
-- symbolic link on the way; and when there is nothing, the nearest one that exists.
local function add_directories(uv, path, dirs, seen)
    local dir, todo, links = "/", {}, 0
    push_names(todo, path)
    if path:sub(1, 1) ~= "/" then push_names(todo, uv.cwd() or "/") end
    while #todo > 0 do
        local name = table.remove(todo)
        local here = join(dir, name)
        local entry = look(uv, here, seen)
        if name == ".." then
            dir = dir:match("^(.+)/[^/]+$") or "/"
        elseif name == "." then -- luacheck: ignore 542
            -- stays
        elseif entry and entry.text then
            dirs[dir] = true
            links = links + 1
            if links > LINKS_MAX then return end
            if entry.text:sub(1, 1) == "/" then dir = "/" end
            push_names(todo, entry.text)
        elseif entry and entry.kind == "directory" then
            dir = here
        else
            dirs[dir] = true
            return
        end
    end
    dirs[dir] = true
end

---- watching -------------------------------------------------------------------------

local Watcher = {}
Watcher.__index = Watcher

--- Watch for changes.
--
-- Its fields: `dirty`, true once anything has happened, set to false by whoever heeds it, before
-- asking the set; `reason`, nil or why not all directories can be watched, which are then looked
-- at every second. Both change while the loop runs.
-- @tparam[opt] table opts
-- @tparam[opt=10] number opts.interval seconds between looks at all paths, for what makes no
--  events: other hosts on a network file system, and directories above that are renamed
-- @tparam[opt=1] number opts.fallback the same where directories cannot be watched
-- @treturn Watcher
function M.watch(opts)
    opts = opts or {}
    return setmetatable({
        dirty = false,
        watches = {}, -- directory -> { handle, identity, gone }
        interval = opts.interval or 10,
        fallback = opts.fallback or 1,
        timer = process.uv().new_timer(),
    }, Watcher)
end

local function start_watch(self, uv, dir, identity)
    local watch = { handle = uv.new_fs_event(), identity = identity, gone = false }
    local own_name = dir:match("[^/]*$")
    local started, text, name = watch.handle:start(dir, {}, function(_, filename)
        self.dirty = true
        -- What happens to the directory itself comes under its own name. Its watch may be dead.
        if filename == own_name then watch.gone = true end
    end)
    if started then return watch end
    process.release { watch.handle }
    if name ~= "ENOENT" and name ~= "ENOTDIR" then
        self.trouble = ("cannot watch %s: %s"):format(dir, (text:gsub("^%u+: ", "")))
    end
end

-- Watch where the paths of the set lead now, and nothing else. Returns whether any watch is new.
local function turn_once(self, uv)
    local wanted, seen, left, any_new = {}, {}, {}, false
    for _, path in ipairs(self.set.paths) do add_directories(uv, path, wanted, seen) end
    self.trouble = nil
    for dir in pairs(wanted) do
        local entry, old = look(uv, dir, seen), self.watches[dir]
        local identity = entry and entry.identity
        if not old or old.gone or old.identity ~= identity then
            self.watches[dir] = start_watch(self, uv, dir, identity)
            any_new = any_new or self.watches[dir] ~= nil
            left[#left + 1] = old and old.handle
        end
    end
    for dir, watch in pairs(self.watches) do
        if not wanted[dir] then
            left[#left + 1] = watch.handle
            self.watches[dir] = nil
        end
    end
    process.release(left)
    return any_new
end

local function set_timer(self, uv)
    local interval = self.reason and self.fallback or self.interval
    if interval == self.timer_interval then return end
    self.timer_interval = interval
    local ms = math.ceil(interval * 1000)
    uv.update_time()
    self.timer:start(ms, ms, function()
        if not self.dirty and find_changed(self.set, uv) then self.dirty = true end
    end)
end

--- Watch where the paths of the set lead now. @{Set:changed} does it.
function Watcher:turn()
    local uv = process.uv()
    -- A path may have led elsewhere before a new watch began: look again until none is new.
    for _ = 1, PASSES_MAX do
        if not turn_once(self, uv) then break end
    end
    self.reason = self.trouble
    set_timer(self, uv)
end

--- Watch whatever can tell of a change in a set, instead of what was watched before.
--
-- A change since the paths were added makes the watcher dirty, too.
-- @tparam Set set
function Watcher:follow(set)
    if self.set then self.set.watcher = nil end
    self.set, set.watcher = set, self
    if set:changed() then self.dirty = true end
end

--- Stop watching.
function Watcher:close()
    if not self.timer then return end
    local handles = { self.timer }
    for _, watch in pairs(self.watches) do handles[#handles + 1] = watch.handle end
    process.release(handles)
    if self.set then self.set.watcher = nil end
    self.watches, self.timer = {}, nil
end

return M
