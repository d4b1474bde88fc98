-- Let a program look at the new files before anybody can see them. Here `sh -n` checks the syntax
-- of a script; `nginx -t`, `visudo -c` or `openssl` on a certificate and its key fit the same way.
--
-- Usage: lua5.4 check_before_publish.lua [TARGET]     by default a new scratch directory
if arg[1] == "--help" then return print("usage: lua5.4 check_before_publish.lua [TARGET]") end
if arg[2] or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 check_before_publish.lua [TARGET]\n")
    os.exit(2)
end

local atomicwriter = require "atomicwriter"

local target = arg[1] or io.popen("mktemp -d"):read()
local writer = assert(atomicwriter.new(target, { create = true }))

local function shell_word(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Called once with the path of the complete new tree. True publishes it; nil and a reason, or an
-- error raised, leave everything as it was.
local function check(stage)
    local pipe = io.popen("cd " .. shell_word(stage) .. " && sh -n greet.sh 2>&1; echo $?")
    local output = pipe:read("*a")
    pipe:close()
    local complaint, status = output:match("^(.-)%s*(%d+)%s*$")
    if status == "0" then return true end
    return nil, complaint
end

local function publish(script)
    local result, err = writer:write({ ["greet.sh"] = script }, { check = check })
    if result then
        print("published", result.version)
    elseif err.code == "check_failed" then
        print("refused  ", err)
    else
        error(err, 0)
    end
end

publish 'if true; then echo "Good morning"; fi\n'
publish 'if true; then echo "Good evening"\n' -- no "fi"

local snapshot = assert(atomicwriter.open(target))
io.write("in place  ", snapshot:read("greet.sh"))
snapshot:close()
