--- A target directory as its consumers see it, judged without the code under test,
-- and one update with a bit of everything in it for specs that stop it half-way.

local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"

local M = {}

--- What a version's name looks like.
M.VERSION = "^%.%.%d%d%d%d_%d%d_%d%d_%d%d_%d%d_%d%d%.%d+$"

--- The name of the live version; nil when there is none.
function M.live(target)
    return sandbox.readlink(target .. "/..data")
end

--- Whether the version name A is older than B.
function M.older(a, b)
    local time_a, digits_a = a:match("^(.*)%.(%d+)$")
    local time_b, digits_b = b:match("^(.*)%.(%d+)$")
    if time_a ~= time_b then return time_a < time_b end
    return tonumber(digits_a) < tonumber(digits_b)
end

--- The names at the top that look like versions, oldest first.
function M.versions(target)
    local found = {}
    for _, name in ipairs(sandbox.names(target)) do
        if name:match(M.VERSION) then found[#found + 1] = name end
    end
    table.sort(found, M.older)
    return found
end

local function gather(dir, prefix, into)
    for _, name in ipairs(sandbox.names(dir)) do
        local path = dir .. "/" .. name
        local kind = lfs.attributes(path, "mode") -- follows links, as consumers do
        if prefix == "" and name:sub(1, 2) == ".." then
            kind = "reserved"
        end
        if kind == "directory" then
            gather(path, prefix .. name .. "/", into)
        elseif kind == "file" then
            into[prefix .. name] = sandbox.read_file(path)
        elseif kind ~= "reserved" then
            into[prefix .. name] = "dangling, or no file"
        end
    end
    return into
end

--- All files through the visible names: path -> contents.
function M.consume(target)
    return gather(target, "", {})
end

--- All files of one version: path -> contents.
function M.contents(target, version)
    return gather(target .. "/" .. version, "", {})
end

local function difference(have, want)
    for path, data in pairs(want) do
        if have[path] ~= data then
            return ("%q reads %q, not %q"):format(path, tostring(have[path]):sub(1, 60),
                data:sub(1, 60))
        end
    end
    for path in pairs(have) do
        if want[path] == nil then return ("%q should not be there"):format(path) end
    end
end

--- Whether TARGET shows exactly FILES (path -> contents): through the visible names,
-- in the live version, and with nothing at the top but what the layout has: at most KEEP
-- (1) versions besides the live one, visible links, `..data` and `..lock`; and `..next`, if
-- it has been PREPARED.
-- @return true; or nil and what is wrong
function M.shows(target, files, keep, prepared)
    local live = M.live(target)
    if not live then return nil, "there is no ..data" end
    if not live:match(M.VERSION) then return nil, "..data reads " .. live end
    local wrong = difference(M.consume(target), files)
    if wrong then return nil, "consumers: " .. wrong end
    wrong = difference(M.contents(target, live), files)
    if wrong then return nil, "live version: " .. wrong end
    local visible, retained = {}, 0
    for path in pairs(files) do visible[path:match("^[^/]+")] = true end
    for _, name in ipairs(sandbox.names(target)) do
        local path = target .. "/" .. name
        if visible[name] then
            if sandbox.readlink(path) ~= "..data/" .. name then
                return nil, ("%q is no link to ..data/%s"):format(name, name)
            end
        elseif name:match(M.VERSION) then
            if sandbox.kind(path) ~= "directory" then return nil, name .. " is no directory" end
            retained = retained + (name == live and 0 or 1)
            if M.older(live, name) then return nil, "litter, never live: " .. name end
        elseif name ~= "..data" and name ~= "..lock" and not (prepared and name == "..next") then
            return nil, ("litter: %q"):format(name)
        end
    end
    if retained > (keep or 1) then return nil, ("litter: %d old versions"):format(retained) end
    return true
end

--- Whether the visible names resolve that FILES needs.
function M.resolves(target, files)
    for path in pairs(files) do
        if not sandbox.resolves(target .. "/" .. path) then
            return nil, ("%q does not resolve"):format(path)
        end
    end
    return true
end

---- an update with a bit of everything ----------------------------------------

--- Before it: something to change, to keep, to remove, in directories and not.
M.before = {
    ["changed"] = "before",
    ["kept"] = "the same in both",
    ["removed"] = "before",
    ["dir/changed"] = "before",
    ["dir/kept"] = "the same in both, too",
    ["dir/sub/removed"] = "before",
    ["old/removed"] = "before",
    ["type/file"] = "before",
}

--- After it.
M.after = {
    ["added"] = "after",
    ["changed"] = "after",
    ["kept"] = M.before["kept"],
    ["dir/changed"] = "after",
    ["dir/kept"] = M.before["dir/kept"],
    ["new/sub/added"] = "after",
    ["type"] = "after",
}

--- Make DIR/NAME a target that shows `before` and retains one version, so that the
-- update prunes too. OPTIONS are the writer's.
-- @return the target's path
function M.prepare(dir, name, options)
    local target = dir .. "/" .. name
    sandbox.mkdir(target)
    local writer = assert(require("atomicwriter").new(target, options))
    assert(writer:write { ["oldest"] = "to be pruned", ["dir/oldest"] = "to be pruned" })
    assert(writer:write(M.before))
    writer:close()
    return target
end

--- The payload that has FILES copied from DIR, which is made.
function M.as_sources(dir, files)
    local payload = {}
    sandbox.mkdir(dir)
    for path, data in pairs(files) do
        local source = sandbox.fresh(dir, "source")
        sandbox.write_file(source, data)
        payload[path] = { source = source }
    end
    return payload
end

--- The body of a child that does the update, or another OPERATION: prints "ok" or
-- "code committed message". The file names "/=begin" and "/=end" mark it in a trace.
function M.update(target, durability, operation)
    local volume = require "spec.support.volume"
    local options = { durability = durability, create = operation == "first" }
    local writer = assert(require("atomicwriter").new(target, options))
    local payload = volume.after
    if operation == "again" then
        payload = volume.before
    elseif operation == "sources" then
        payload = volume.as_sources(target .. ".sources", payload)
    end
    local method = (operation == "rollback" or operation == "collect") and operation or "write"
    io.open("/=begin")
    local result, err = writer[method](writer, method == "write" and payload or nil)
    io.open("/=end")
    if operation == "collect" and result then return print("ok", result) end
    if result then
        print(#result.warnings > 0 and "warned" or "ok", table.concat(result.warnings, "; "))
    else
        print(err.code, tostring(err.committed), err.message)
    end
end

return M
