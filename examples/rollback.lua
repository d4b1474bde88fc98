-- Go back to a version that is known to be good.
--
-- Usage: lua5.4 rollback.lua [TARGET]       by default a new scratch directory
if arg[1] == "--help" then return print("usage: lua5.4 rollback.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 rollback.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"

local target = arg[1] or io.popen("mktemp -d"):read()
local writer = assert(atomicwriter.new(target, { create = true, keep = 3 }))

local function show(title)
    print(title)
    for _, version in ipairs(assert(writer:versions())) do
        local file = assert(io.open(target .. "/" .. version.name .. "/app.conf"))
        print("", version.name, file:read(), version.live and "<- live" or "")
        file:close()
    end
end

local good = assert(writer:write { ["app.conf"] = "workers = 4\n" }).version
assert(writer:write { ["app.conf"] = "workers = 8\n" })
assert(writer:write { ["app.conf"] = "workers = 4000\n" })
show "three versions, newest first:"

-- The same files again under a new name: names only ever increase, so every watcher notices.
assert(writer:rollback())
show "after rollback(), to the newest retained one:"

assert(writer:rollback(good))
show "after rollback(VERSION), to the first one:"
writer:close()
