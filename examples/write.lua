-- Project two files into a directory: readers see both or neither.
--
-- Usage: lua5.4 write.lua [TARGET]       by default into a new scratch directory
if arg[1] == "--help" then return print("usage: lua5.4 write.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 write.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"

local target = arg[1] or io.popen("mktemp -d"):read()
local writer = assert(atomicwriter.new(target, { create = true }))
local result = assert(writer:write {
    ["app.conf"] = "listen = 8080\n",
    ["tls/key.pem"] = { data = "only an example\n", mode = "0600" },
})
print(result.changed and "published" or "nothing to change", target, result.version)
