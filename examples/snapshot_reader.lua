-- Read files that belong together: a snapshot is one version, whatever writers do meanwhile.
--
-- Usage: lua5.4 snapshot_reader.lua [TARGET]
--
-- Lists what is live in TARGET, which may also be a volume that a kubelet writes. By default it
-- makes a scratch directory, and changes it behind the reader's back.
if arg[1] == "--help" then return print("usage: lua5.4 snapshot_reader.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 snapshot_reader.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"

local target = arg[1] or io.popen("mktemp -d"):read()

-- What only the scratch directory needs: somebody who writes.
local function publish(name)
    local writer = assert(atomicwriter.new(target))
    assert(writer:write {
        ["app.conf"] = "generation = " .. name .. "\n",
        ["tls/cert.pem"] = "certificate " .. name .. "\n",
        ["tls/key.pem"] = { data = "key " .. name .. "\n", mode = "0600" },
    })
    writer:close()
end

local function show(snapshot)
    print(snapshot.version .. (snapshot:is_current() and " (live)" or " (not live any more)"))
    for _, path in ipairs(assert(snapshot:paths())) do
        local stat = assert(snapshot:stat(path))
        local first_line = "(not for everybody)"
        if stat.mode % 8 >= 4 then first_line = assert(snapshot:read(path)):match("^[^\n]*") end
        print(("  %04o %6d  %-14s %s"):format(stat.mode, stat.size, path, first_line))
    end
end

if not arg[1] then publish "one" end
local snapshot = assert(atomicwriter.open(target))
if not arg[1] then publish "two" end -- too late for this reader
show(snapshot)
snapshot:close() -- ends the lease; a later write may remove the version

if not arg[1] then
    snapshot = assert(atomicwriter.open(target))
    show(snapshot)
    snapshot:close()
end
