--- What the specs need of the system around them: scratch directories, byte-exact
-- listings, commands and child processes. Whatever a test starts or makes through
-- this module is gone after `cleanup()`, which belongs into every `after_each`.
--
-- Paths may hold any byte but NUL. The working directory is the checkout's root.

local lfs = require "lfs"
local system = require "system"

local M = {}

M.unpack = table.unpack or unpack -- luacheck: ignore 113

local made = {}     -- scratch directories, removed by cleanup()
local children = {} -- what spawn() started

---- strings and commands ------------------------------------------------------

--- One word for the shell, whatever bytes it has.
function M.quote(text)
    assert(not text:find("%z"), "a shell word cannot hold a NUL byte")
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

--- A command line from its words: sh{"rm", "-rf", "--", path}.
function M.sh(words)
    local quoted = {}
    for i, word in ipairs(words) do quoted[i] = M.quote(tostring(word)) end
    return table.concat(quoted, " ")
end

--- TEXT with each key of REPLACEMENTS replaced by its value, in one pass and as plain text.
function M.substitute(text, replacements)
    local parts, position = {}, 1
    while true do
        local first, last, new
        for old, replacement in pairs(replacements) do
            local start, stop = text:find(old, position, true)
            if start and start < (first or math.huge) then
                first, last, new = start, stop, replacement
            end
        end
        parts[#parts + 1] = text:sub(position, (first or 0) - 1)
        if not first then return table.concat(parts) end
        parts[#parts + 1], position = new, last + 1
    end
end

local function command_line(cmd)
    return type(cmd) == "table" and M.sh(cmd) or cmd
end

local function slurp(path)
    local file, err = io.open(path, "rb")
    if not file then return nil, err end
    local data, why = file:read("*a")
    file:close()
    return data, why
end

--- Run CMD, a shell command line or a list of words, and wait for it.
-- @return its exit status (128 + N when signal N ended it), stdout, stderr
function M.run(cmd)
    local base = os.tmpname()
    local out, err, rc = base .. ".out", base .. ".err", base .. ".rc"
    os.execute("{ ( " .. command_line(cmd) .. "\n) >" .. M.quote(out) .. " 2>" .. M.quote(err)
        .. " </dev/null; echo $? >" .. M.quote(rc) .. "; } 2>/dev/null")
    local status = tonumber(slurp(rc))
    local stdout, stderr = slurp(out), slurp(err)
    for _, path in ipairs { base, out, err, rc } do os.remove(path) end
    return status, stdout, stderr
end

--- Run CMD, which has to succeed, and return what it printed.
function M.must(cmd)
    local status, stdout, stderr = M.run(cmd)
    if status ~= 0 then
        error(("%s: exit status %s: %s"):format(command_line(cmd), status, stderr), 2)
    end
    return stdout
end

--- Whether the program NAME can be found.
function M.has(name)
    return (M.run("command -v " .. M.quote(name)) == 0)
end

--- Whether this runs under AddressSanitizer, which then is in all programs that are started too;
-- not all bear it.
function M.is_sanitized()
    return (os.getenv("LD_PRELOAD") or ""):find("asan", 1, true) ~= nil
end

local uid
--- The effective user id.
function M.uid()
    uid = uid or tonumber(M.must "id -u")
    return uid
end

function M.is_root()
    return M.uid() == 0
end

--- Seconds on a clock that never steps back.
M.now = system.monotime

--- Do nothing for SECONDS, a fraction too.
M.sleep = system.sleep

---- what is left --------------------------------------------------------------

-- Waits for the end of process $1, and does what that cannot do when it is interrupted or killed:
-- for the directories listed in $2 it ends what spawn() has started there, and removes them.
local GUARD = [[
while kill -0 "$1" 2>/dev/null; do sleep 1; done
while read -r dir; do
    test ! -e "$dir/pid" || test -e "$dir/rc" || kill -s KILL -- "-$(cat "$dir/pid")"
    rm -rf --one-file-system "$dir"
done <"$2"
rm -f "$2"
]]

local guarded -- the list

-- Have the directory PATH looked after.
local function guard(path)
    if not guarded then
        guarded = os.tmpname()
        local stat = assert(io.open "/proc/self/stat")
        local pid = stat:read "*n"
        stat:close()
        os.execute("setsid " .. M.sh { "sh", "-c", GUARD, "guard", ("%d"):format(pid), guarded }
            .. " </dev/null >/dev/null 2>&1 &")
    end
    local list = assert(io.open(guarded, "a"))
    list:write(path, "\n")
    list:close()
end

---- files ---------------------------------------------------------------------

--- A new empty directory, 0700, removed by cleanup(). Its path is absolute, free
-- of symbolic links, and has nothing in it that would need quoting.
function M.tmpdir()
    local path = M.must 'cd "$(mktemp -d)" && pwd -P':gsub("\n$", "")
    made[#made + 1] = path
    guard(path)
    return path
end

--- As tmpdir, in memory where there is such a place: for what syncs a lot and does
-- not depend on the file system.
function M.memdir()
    local status, path = M.run "cd /dev/shm && mktemp -d /dev/shm/tmp.XXXXXXXXXX"
    if status ~= 0 then return M.tmpdir() end
    path = path:gsub("\n$", "")
    made[#made + 1] = path
    guard(path)
    return path
end

--- Remove PATH and all below it, also what has lost its permissions.
function M.rmtree(path)
    assert(path:match("^/.+/."), "rmtree wants an absolute path below a top-level directory")
    if not lfs.symlinkattributes(path, "mode") then return end
    if M.run { "rm", "-rf", "--", path } ~= 0 then
        M.run { "find", path, "-type", "d", "-exec", "chmod", "u+rwx", "{}", ";" }
        M.must { "rm", "-rf", "--", path }
    end
end

--- All bytes of a file, or nil and why not.
M.read_file = slurp

--- Make or overwrite a file; MODE ("0640") is optional.
function M.write_file(path, data, mode)
    local file = assert(io.open(path, "wb"))
    assert(file:write(data))
    assert(file:close())
    if mode then M.chmod(path, mode) end
end

function M.chmod(path, mode)
    M.must { "chmod", "--", mode, path }
end

function M.mkdir(path)
    assert(lfs.mkdir(path))
end

--- A symbolic link PATH that reads TEXT.
function M.symlink(text, path)
    M.must { "ln", "-s", "-T", "--", text, path }
end

--- What the symbolic link PATH reads; nil when it is none.
function M.readlink(path)
    if lfs.symlinkattributes(path, "mode") ~= "link" then return nil end
    return lfs.symlinkattributes(path, "target")
end

--- "file", "directory", "link", …, or nil when there is nothing; follows no link.
function M.kind(path)
    return (lfs.symlinkattributes(path, "mode"))
end

--- Whether PATH leads to something; follows links.
function M.resolves(path)
    return lfs.attributes(path, "mode") ~= nil
end

local function stat_field(path, format)
    return (M.must { "stat", "-L", "-c", format, "--", path }:gsub("\n$", ""))
end

--- Permission bits as text, "0644"; follows links.
function M.mode(path)
    return ("%04o"):format(tonumber(stat_field(path, "%a"), 8))
end

--- "UID:GID"; follows links.
function M.owner(path)
    return stat_field(path, "%u:%g")
end

--- The inode number; follows no link.
function M.inode(path)
    return lfs.symlinkattributes(path, "ino")
end

--- The names in a directory, sorted by byte, without `.` and `..`.
function M.names(dir)
    local names = {}
    for name in lfs.dir(dir) do
        if name ~= "." and name ~= ".." then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

--- Everything at and below DIR as one text, for comparison byte by byte: name, type,
-- mode, owner, inode, link count, link text, contents, and the modification time of all
-- but directories. Follows no link. Equal texts: nobody has touched anything, or
-- has put it back exactly as it was.
function M.listing(dir)
    local pipe = assert(io.popen("LC_ALL=C find " .. M.quote(dir)
        .. [[ -printf '%P\0%y\0%04m\0%U:%G\0%i\0%n\0%T@\0%l\0' 2>/dev/null]], "r"))
    local text = pipe:read("*a")
    pipe:close()
    local lines = {}
    local field = "(%Z*)%z"
    for name, kind, mode, owner, inode, links, mtime, target in text:gmatch(field:rep(8)) do
        local line = { ("%q"):format(name), kind, mode, owner, "inode=" .. inode }
        if kind == "d" then
            line[#line + 1] = "" -- its link count and time tell of what came and went again
        else
            line[#line + 1] = "links=" .. links .. " mtime=" .. mtime
        end
        if kind == "l" then
            line[#line + 1] = "-> " .. ("%q"):format(target)
        elseif kind == "f" then
            line[#line + 1] = ("%q"):format(slurp(dir .. "/" .. name) or "unreadable")
        end
        lines[#lines + 1] = table.concat(line, " ")
    end
    assert(#lines > 0, "listing: no such directory: " .. dir)
    table.sort(lines)
    return table.concat(lines, "\n") .. "\n"
end

---- child processes -----------------------------------------------------------

--- The interpreter that runs this, for children: "lua5.4" or "luajit", with its path
-- when it was started by one.
function M.interpreter()
    local args = rawget(_G, "arg") or {}
    for i = 0, -10, -1 do -- busted restarts itself; the interpreter comes first
        local word = args[i]
        if word and word:match("[^/]*$"):match("^lua") then return word end
    end
    return rawget(_G, "jit") and "luajit" or "lua5.4"
end

--- The words that run BODY in a child with the module paths of this process. BODY is
-- a function that uses globals, its arguments (strings) and locals of its own, but no
-- local of the code around it. SCRATCH is a directory for its compiled form.
function M.lua(scratch, body, ...)
    for i = 1, 255 do
        local name = debug.getupvalue(body, i)
        if not name then break end
        if name ~= "_ENV" then
            error("the body of a child uses the local '" .. name .. "' from outside", 2)
        end
    end
    local path = M.fresh(scratch, "child")
    M.write_file(path, string.dump(body))
    return { "env", "LUA_PATH=" .. package.path, "LUA_CPATH=" .. package.cpath,
        "LUA_PATH_5_4=" .. package.path, "LUA_CPATH_5_4=" .. package.cpath,
        M.interpreter(), path, ... }
end

--- The words that run WORDS where SETUP, a shell script, may mount what it likes: in a
-- mount namespace of its own, which ends with them, and as the root of a user
-- namespace when this is not root. $1 in SETUP is PATH. Exit status 77: not allowed.
function M.with_mounts(setup, path, words)
    local namespace = M.is_root() and "-m" or "-rm"
    return { "sh", "-c", "unshare " .. namespace .. " true || exit 77; exec unshare " .. namespace
        .. ' sh -c "$@"', "sh", "{ " .. setup .. [[
; } || exit 77; shift; exec "$@"]], "sh", path, M.unpack(words) }
end

local counter = 0
--- A path in DIR that does not exist yet.
function M.fresh(dir, stem)
    repeat
        counter = counter + 1
        local path = ("%s/%s.%d"):format(dir, stem, counter)
        if not M.kind(path) then return path end
    until false
end

local Child = {}
Child.__index = Child

--- Start CMD, one program with its arguments, in the background.
-- @return an object with :wait([seconds]), :kill([signal]), :running()
function M.spawn(cmd)
    local dir = M.tmpdir()
    local child = setmetatable({ dir = dir }, Child)
    local words = M.sh { "sh", "-c", 'echo $$ >"$0/pid.new" && mv "$0/pid.new" "$0/pid"; '
        .. "exec setsid " .. command_line(cmd), dir } -- a process group of its own
    local q = M.quote(dir)
    os.execute(("( %s >%s/out 2>%s/err </dev/null; echo $? >%s/rc.new; mv %s/rc.new %s/rc ) "
        .. ">/dev/null 2>&1 &"):format(words, q, q, q, q, q))
    while not child.pid do
        child.pid = tonumber(slurp(dir .. "/pid") or nil)
        if not child.pid then M.sleep(0.002) end
    end
    children[#children + 1] = child
    return child
end

function Child:running()
    return M.kind(self.dir .. "/rc") == nil
end

--- Wait for the end, at most SECONDS (60).
-- @return exit status, stdout, stderr; or nil, "timeout"
function Child:wait(seconds)
    local deadline = M.now() + (seconds or 60)
    while self:running() do
        if M.now() > deadline then return nil, "timeout" end
        M.sleep(0.005)
    end
    return tonumber(slurp(self.dir .. "/rc")), slurp(self.dir .. "/out"), slurp(self.dir .. "/err")
end

--- Send a signal ("KILL") to the child that still runs, and to nothing that it started.
function Child:kill(signal)
    if self:running() then
        M.run { "kill", "-" .. (signal or "KILL"), self.pid }
    end
end

--- End the child and all of its group at once.
function Child:kill_all()
    M.run { "kill", "-s", "KILL", "--", "-" .. self.pid }
end

--- Whether the process PID is there, and is more than a zombie.
function M.lives(pid)
    local stat = slurp("/proc/" .. pid .. "/stat")
    return stat ~= nil and stat:match("%) (%a)") ~= "Z"
end

--- What this process holds: KiB of Lua's memory, descriptors, handles of luv.
function M.holdings()
    collectgarbage()
    collectgarbage()
    local handles = 0
    require("luv").walk(function() handles = handles + 1 end)
    return collectgarbage("count"), #M.names("/proc/self/fd"), handles
end

local FREE_PORTS = [[
local luv, sockets = require "luv", {}
for i = 1, arg[1] do
    sockets[i] = luv.new_tcp()
    assert(sockets[i]:bind("127.0.0.1", 0))
    print(sockets[i]:getsockname().port)
end
]]

--- COUNT TCP ports of the loopback interface that nobody listens on, as strings. Asked for in a
-- child: busted has each file load luv anew, and two luvs in one process disturb each other.
function M.free_ports(count)
    local script, ports = os.tmpname(), {}
    M.write_file(script, FREE_PORTS)
    local printed = M.must { "env", "-u", "LUA_PATH", "-u", "LUA_CPATH", "lua5.4", script, count }
    os.remove(script)
    for port in printed:gmatch "%d+" do ports[#ports + 1] = port end
    return ports
end

--- Wait until READY() is true, at most SECONDS (30), and return what it returned.
function M.eventually(ready, seconds)
    local deadline = M.now() + (seconds or 30)
    while true do
        local result = ready()
        if result or M.now() > deadline then return result end
        M.sleep(0.005)
    end
end

--- End what was started and remove what was made since the last call.
function M.cleanup()
    for _, child in ipairs(children) do
        child:kill_all()
        child:wait(10)
    end
    children = {}
    for _, path in ipairs(made) do M.rmtree(path) end
    made = {}
end

return M
