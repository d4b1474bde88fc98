--- What others do for the same purpose.
--
-- Programs are started for each change, as their users do, and timed from the start to the end
-- of the whole command, from which nothing is subtracted. The floor's "perfile" and Python's loop
-- are running already when they are told to change the files.

local command = require "spec.bench.speed.command"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"
local partner = require "spec.bench.speed.partner"
local payloads = require "spec.bench.speed.payloads"

local uv, quote = measure.luv, host.shell_quote

local M = {}

-- ---- commands --------------------------------------------------------------

local Command = {}
Command.__index = Command

function Command:run(repetitions, samples)
    for _ = 1, repetitions do
        self.turn = 1 - self.turn
        samples[#samples + 1] = command.time(self.commands[self.turn])
    end
end

function Command:close()
    os.execute("rm -rf " .. quote(self.directory))
end

local function write_files(directory, payload)
    assert(uv.fs_mkdir(directory, 493))
    for path, data in pairs(payload) do
        local fd = assert(uv.fs_open(directory .. "/" .. path, "w", 420))
        assert(uv.fs_write(fd, data, 0))
        assert(uv.fs_close(fd))
        assert(uv.fs_utime(directory .. "/" .. path, 1e9, 1e9))
    end
end

-- Sources in "0" and "1", which differ; what differs has another mtime, or rsync would not see it.
local function write_sources(directory, differ, n)
    local first, second = payloads.pair(differ, n, "flat")
    write_files(directory .. "/0", first)
    write_files(directory .. "/1", second)
    for path, data in pairs(second) do
        if data ~= first[path] then
            assert(uv.fs_utime(directory .. "/1/" .. path, 1e9 + 60, 1e9 + 60))
        end
    end
end

-- FILL makes the new version $new, of the source $source and with the old version $old.
local SWAP = [[
cd %s
source=%d old=v%d new=v%d file=%s
%s
ln -s $new ..data_tmp
mv -T ..data_tmp ..data
rm -rf $old
]]

local function start_command(name, fill, differ, n, directory)
    local self = setmetatable({ turn = 0 }, Command)
    self.directory = ("%s/%s-%d"):format(directory, name, uv.os_getpid())
    assert(uv.fs_mkdir(self.directory, 493))
    write_sources(self.directory, differ, n)
    os.execute(("cd %s && cp -a 0 v0 && ln -s v0 ..data"):format(quote(self.directory)))
    local file = payloads.path(math.floor(n / 2), "flat")
    self.commands = {}
    for turn = 0, 1 do
        self.commands[turn] = SWAP:format(quote(self.directory), turn, 1 - turn, turn, file, fill)
    end
    self:run(1, {})
    return self
end

local FILL = {
    rsync = {
        all = "rsync -a --delete --link-dest=../$old $source/ $new/",
        one = "rsync -a --delete --link-dest=../$old $source/ $new/",
    },
    cp = {
        all = "cp -a $source $new",
        one = "cp -a $old $new; cp -p $source/$file $new/$file",
    },
}

-- ---- all of them -----------------------------------------------------------

local PROGRAMS = {
    rsync = { program = "rsync", package = "rsync", label = "rsync --link-dest, mv -T",
        slow = true },
    cp = { program = "cp", package = "coreutils", label = "cp -a, mv -T", slow = true },
    python = { program = "python3", package = "python3-minimal", label = "Python's os.replace" },
}

local found = {} -- where each program is

local function find(program)
    if found[program] == nil then
        found[program] = command.find(program) or false
        if not found[program] then
            print(("  (%s is missing and left out: apt-get install %s)"):format(program,
                PROGRAMS[program].package))
        end
    end
    return found[program]
end

--- The rival NAME, ready to change "all" or "one" of N files in DIRECTORY, as race.lua wants it;
-- nil when its program is missing.
function M.start(name, differ, n, directory)
    local about = PROGRAMS[name]
    local program = find(about.program)
    if not program then return nil end
    local side
    if name == "python" then
        side = partner.start(program,
            { "spec/bench/rivals/replace.py", differ, tostring(n), directory })
    else
        side = start_command(name, FILL[name][differ], differ, n, directory)
    end
    return { name = about.label, side = side, slow = about.slow }
end

--- Whether NAME is a rival, and no work of the floor's.
function M.has(name)
    return PROGRAMS[name] ~= nil
end

return M
