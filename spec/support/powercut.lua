--- What a power cut may do to a write, told from its system calls.
--
-- The model is a weak file system: everything that was not synced may be lost or
-- kept, each file's data and each directory's entries on their own. Real ones do
-- more than they must, so pulling the plug on them proves less.

local strace = require "spec.support.strace"

local M = {}

--- Calls that make something durable, or start to.
M.SYNCS = { fsync = true, fdatasync = true, syncfs = true, sync = true,
    sync_file_range = true, msync = true }

local CHANGES = { write = 1, pwrite64 = 1, writev = 1, pwritev = 1, ftruncate = 1, fallocate = 1,
    copy_file_range = 3, ioctl = 1, fchmod = 1, fchown = 1 }

local function parent(path)
    return path:match("^(.+)/[^/]+$") or "/"
end

local function below(path, directory)
    return path:sub(1, #directory + 1) == directory .. "/"
end

--- Follow the marked EVENTS of one successful write to TARGET.
-- @tparam {table,...} events of strace.marked
-- @tparam string target its absolute path, without links
-- @tparam[opt] boolean undurable what is linked from may not have been synced before
-- @return the list of what could go wrong, in words
function M.dangers(events, target, undurable)
    local dangers = {}
    local dirty = {}     -- path -> what was done to it since it was synced
    local twin = {}      -- path -> another name of the same file
    local swapped, swap_durable = false, false
    local live           -- the version that was live before

    local function danger(...)
        dangers[#dangers + 1] = string.format(...)
    end
    local function touch(path, what)
        if path and path ~= target .. "/..lock" then dirty[path] = what end
    end
    local function sync(path)
        dirty[path] = nil
        if twin[path] then dirty[twin[path]] = nil end
        if path == target and swapped then swap_durable = true end
    end

    for _, event in ipairs(events) do
        local call = event.call
        if event.failed then -- luacheck: ignore 542
            -- nothing happened
        elseif call == "readlinkat" and strace.name(event, 2) == "..data" and not live then
            live = target .. "/" .. strace.name(event, 3)
        elseif call == "openat" and event.arguments[3]:find("O_CREAT", 1, true) then
            local path = strace.at(event, 1)
            touch(path, "created")
            if path ~= target .. "/..lock" then touch(parent(path), path .. " made in it") end
        elseif CHANGES[call] then
            touch(strace.path(event, CHANGES[call]), call)
        elseif call == "mkdirat" then
            local path = strace.at(event, 1)
            touch(path, "made")
            touch(parent(path), path .. " made in it")
        elseif call == "mkdir" then
            local path = strace.name(event, 1)
            touch(path, "made")
            touch(parent(path), path .. " made in it")
        elseif call == "symlinkat" then
            local path = strace.at(event, 2)
            touch(parent(path), path .. " made in it")
        elseif call == "linkat" then
            local from, to = strace.at(event, 1), strace.at(event, 3)
            twin[from], twin[to] = to, from
            if undurable then touch(to, "linked from a file that was never synced") end
            touch(parent(to), to .. " linked into it")
        elseif call == "fsync" then
            sync(strace.path(event, 1))
        elseif call == "fdatasync" then
            if dirty[strace.path(event, 1)] ~= "fchmod" then sync(strace.path(event, 1)) end
        elseif call == "syncfs" or call == "sync" then
            dirty = {}
            if swapped then swap_durable = true end
        elseif call:match("^renameat") or call == "unlinkat" then
            local path = strace.at(event, 1)
            if call ~= "unlinkat" and strace.at(event, 3) == target .. "/..data" then
                for name, what in pairs(dirty) do
                    if name == target or below(name, target) then
                        danger("swapped before %s was synced (%s)", name, what)
                    end
                end
                swapped = true
            elseif swapped and not swap_durable then
                danger("%s went before the swap was durable", path)
            elseif not swapped and live and (path == live or below(path, live)) then
                danger("%s of the live version went before the swap", path)
            end
            dirty[path] = nil
        end
    end

    if swapped and not swap_durable then danger("the swap was never synced") end
    for name, what in pairs(dirty) do
        if not swapped or not below(name, target) then
            if name ~= target or not swapped then danger("%s was never synced (%s)", name, what) end
        end
    end
    table.sort(dangers)
    return dangers
end

--- The calls among EVENTS that sync something.
function M.syncs(events)
    local found = {}
    for _, event in ipairs(events) do
        local flags = event.call == "openat" and event.arguments[3] or ""
        if M.SYNCS[event.call] or flags:find("O_D?SYNC") then found[#found + 1] = event end
    end
    return found
end

return M
