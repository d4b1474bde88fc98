-- A reloader: sleeps until a new version is live, loads it, and keeps the last good configuration
-- when the new one makes no sense.
--
-- Usage: lua5.4 watch.lua [TARGET]
--
-- Follows app.conf in TARGET until it is stopped. Without a TARGET there is nobody to wait for: it
-- makes a scratch directory, publishes three versions itself and ends.
if arg[1] == "--help" then return print("usage: lua5.4 watch.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 watch.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"

local function read_config(target)
    local snapshot, err = atomicwriter.open(target)
    if not snapshot then return nil, err end
    local text, read_err = snapshot:read("app.conf")
    snapshot:close()
    if not text then return nil, read_err end
    local port = tonumber(text:match("^listen = (%d+)\n"))
    if not port then return nil, "app.conf: listen is no number" end
    return { port = port }
end

local config

local function reload(target)
    local new, err = read_config(target)
    if new then
        config = new
        print(("listening on port %d"):format(config.port))
    else
        local still = config and ("; still on port %d"):format(config.port) or ""
        io.stderr:write("watch.lua: ", tostring(err), still, "\n")
    end
end

-- Publishes one text after the other into TARGET; says whether there was one left.
local function publisher(target, texts)
    local writer = assert(atomicwriter.new(target))
    return function()
        local text = table.remove(texts, 1)
        return text and assert(writer:write { ["app.conf"] = text })
    end
end

io.stdout:setvbuf("line") -- whoever reads this through a pipe wants to see it at once

local target = arg[1] or io.popen("mktemp -d"):read()
local publish = not arg[1]
    and publisher(target, { "listen = 8080\n", "listen = eighty\n", "listen = 8081\n" })

local watcher = assert(atomicwriter.watch(target)) -- before the first look, so that none is missed
if not publish then reload(target) end
while not publish or publish() do
    assert(watcher:wait()) -- an error means that the target is gone
    reload(target)
end
watcher:close()
