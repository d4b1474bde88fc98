--- Power cuts on real file systems (G4): what a disk holds behind each flush, and at random
-- between two, is mounted again, looked at and written to.
--
--    make check-power                     as root; minutes long, apart from CI
--    lua5.4 spec/faults/power/power.lua [--seconds 200] [--writes 60] [FS…]
--
-- FS: ext4, xfs, btrfs; all by default. The file system lies on a loop device on the disk of
-- blocklog.c, which logs each write and flush. A writer publishes one generation after the
-- other there with `durability = "full"`, beside a neighbour that writes and syncs files of its
-- own, and marks in the log what has been promised. Then, for states of the disk in the order
-- of the log, the file system is mounted from such a state, so that it recovers, and:
--
--   torn   a version, live or retained, does not hold just what its generation has
--   lost   an older version is live than the one that was promised
--   dirty  the next write fails, or leaves something behind
--
-- None must be. To show that it would be seen, the same is done once for each file system
-- with `durability = "none"`, where it must be. A file system that this kernel does not have is
-- skipped. The last line is "N passed, N failed".

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local BLOCKLOG = (os.getenv "ATOMICWRITER_BUILD" or "build") .. "/spec/faults/power/blocklog"

local FILE_SYSTEMS = {
    ext4 = { mib = 48, make = "mkfs.ext4 -q -F -b 4096 -J size=4" },
    xfs = { mib = 300, make = "mkfs.xfs -q -f" },
    btrfs = { mib = 128, make = "mkfs.btrfs -q -f --mixed -m single" },
}

-- ---- the machine -----------------------------------------------------------

local Disk = {}
Disk.__index = Disk

--- A disk of MIB, with nothing on it, in the directory DIR.
local function new_disk(dir, mib)
    local self = setmetatable({ dir = dir .. "/disk", mount_point = dir .. "/mnt" }, Disk)
    sandbox.mkdir(self.dir)
    sandbox.mkdir(self.mount_point)
    self.server = sandbox.spawn { BLOCKLOG, self.dir, tostring(mib) }
    assert(sandbox.eventually(function()
        return lfs.attributes(self.dir .. "/control", "mode")
    end), "blocklog does not serve: is there /dev/fuse?")
    return self
end

function Disk:command(line)
    local file = assert(io.open(self.dir .. "/control", "w"))
    assert(file:write(line, "\n"))
    assert(file:close())
end

function Disk:mount()
    local status, _, stderr = sandbox.run { "mount", "-o", "loop", self.dir .. "/disk",
        self.mount_point }
    return status == 0, stderr
end

-- Who was killed may still be on his way out.
function Disk:unmount()
    local complaint
    assert(sandbox.eventually(function()
        local status, _, stderr = sandbox.run { "umount", self.mount_point }
        complaint = stderr
        return status == 0
    end), complaint)
end

function Disk:log()
    local entries = {}
    for line in io.lines(self.dir .. "/control") do entries[#entries + 1] = line end
    return entries
end

function Disk:close()
    sandbox.run { "umount", "-l", self.mount_point }
    self.server:kill "TERM"
    self.server:wait()
    sandbox.run { "umount", "-l", self.dir }
end

-- ---- the generations -------------------------------------------------------

local function text(path, generation, size)
    local line = ("%s of generation %d\n"):format(path, generation)
    return line:rep(math.ceil((size or 200) / #line))
end

--- What generation G has: path -> { data, mode }. Files change every time, at times and never;
-- they come, go, turn into directories and change their mode alone.
local function generation(g)
    local files = {
        generation = { tostring(g), "0644" },
        ["always.conf"] = { text("always", g), "0644" },
        ["dir/sub/at times"] = { text("at times", g // 4), "0600" },
        ["dir/sub/always"] = { text("always", g, 9000), "0644" },
        large = { text("large", g // 3, 300000), "0644" },
        ["type" .. (g % 2 == 0 and "" or "/file")] = { text("type", g), "0644" },
        mode = { text("mode", 0), g % 3 == 0 and "0600" or "0640" },
        empty = { "", "0644" },
        ["new/" .. g] = { text("new", g), "0644" },
    }
    for i = 1, 6 do files["stable/" .. i] = { text("stable" .. i, 0), "0644" } end
    return files
end

local function payload(g)
    local entries = {}
    for path, file in pairs(generation(g)) do
        entries[path] = { data = file[1], mode = file[2] }
    end
    return entries
end

--- Permission bits as lfs shows them: "rw-r--r--".
local function shown_mode(mode)
    return (mode:sub(2):gsub("%d", {
        ["0"] = "---", ["4"] = "r--", ["6"] = "rw-",
    }))
end

--- What version NAME of TARGET holds: its generation; or nil and what is wrong.
local function whole(target, name)
    local files = volume.contents(target, name)
    local g = tonumber(files.generation)
    if not g then return nil, name .. " has no generation" end
    local wanted = generation(g)
    for path, file in pairs(wanted) do
        local full = ("%s/%s/%s"):format(target, name, path)
        if files[path] ~= file[1] then
            return nil, ("%s, generation %d: %q has %d bytes of %d, or others"):format(name, g,
                path, files[path] and #files[path] or -1, #file[1])
        end
        local mode = lfs.attributes(full, "permissions")
        if mode ~= shown_mode(file[2]) then
            return nil, ("%s, generation %d: %q has mode %s"):format(name, g, path, mode)
        end
    end
    for path in pairs(files) do
        if not wanted[path] then
            return nil, ("%s, generation %d: %q is there"):format(name, g, path)
        end
    end
    return g
end

-- ---- writing ---------------------------------------------------------------

-- Dirties and syncs, so that the file system does so in the middle of writes as well.
local NEIGHBOUR = [[
cd "$0" || exit
i=0
while :; do
    i=$((i + 1))
    dd if=/dev/urandom of="n$((i % 5))" bs=16k count=$((i % 8 + 1)) conv=fsync 2>/dev/null
    mv "n$((i % 5))" "m$((i % 3))"
    test $((i % 7)) != 0 || sync -f .
done]]

--- Publish COUNT generations into TARGET, and mark in the log which version is promised.
-- Half of them by one writer that stays open.
local function publish(disk, target, count, durability)
    local open = assert(atomicwriter.new(target, { durability = durability, keep = 1,
        create = true }))
    for g = 1, count do
        local writer, result = open, nil
        if g % 2 == 0 then
            writer = assert(atomicwriter.new(target, { durability = durability, keep = g % 3 }))
        end
        if g % 10 == 9 then
            result = writer:rollback()
        elseif g % 10 == 5 and durability == "full" then -- what is not durable becomes so
            local loose = assert(atomicwriter.new(target, { durability = "none" }))
            disk:command "mark loose"
            assert(loose:write(payload(g)))
            loose:close()
        end
        result = result or assert(writer:write(payload(g)))
        disk:command("mark done " .. result.version)
        if writer ~= open then writer:close() end
    end
    open:close()
end

local function fill(disk, file_system, count, durability)
    sandbox.must(file_system.make .. " " .. disk.dir .. "/disk")
    disk:command "record"
    assert(disk:mount())
    local neighbour = sandbox.spawn { "sh", "-c", NEIGHBOUR, disk.mount_point }
    publish(disk, disk.mount_point .. "/target", count, durability)
    neighbour:kill_all()
    neighbour:wait()
    disk:unmount()
    disk:command "replay"
end

-- ---- looking ---------------------------------------------------------------

--- What is wrong in TARGET when PROMISED was: kind, what; or nil.
local function wrong_in(target, promised)
    local live = volume.live(target)
    if not live then
        if promised then return "lost", "nothing is live, promised was " .. promised end
        return nil
    end
    if promised and live ~= promised and volume.older(live, promised) then
        return "lost", ("%s is live, promised was %s"):format(live, promised)
    end
    for _, name in ipairs(volume.versions(target)) do
        if name == live or volume.older(name, live) then
            local g, what = whole(target, name)
            if not g then return "torn", what end
            if name == live then
                local files = {}
                for path in pairs(generation(g)) do files[path] = true end
                local shown, missing = volume.resolves(target, files)
                if not shown then return "torn", missing end
            end
        end
    end
end

--- Write once more; nil, or what is wrong then.
local function dirt_in(target)
    local writer, result, err
    writer, err = atomicwriter.new(target, { durability = "none", keep = 1, create = true })
    if writer then
        result, err = writer:write(payload(100000))
        writer:close()
    end
    if not result then return tostring(err) end
    if #result.warnings > 0 then return result.warnings[1] end
    local files = {}
    for path, file in pairs(generation(100000)) do files[path] = file[1] end
    local clean, what = volume.shows(target, files)
    return not clean and what or nil
end

--- Which states of a log of ENTRIES to look at, in order: { cut, choice, promised, loose }. As
-- many as possible come first: behind every flush, then at random before it.
local function states_of(entries)
    local states, promised, loose, since = {}, nil, false, 0
    for n, line in ipairs(entries) do
        if line == "M loose" then
            loose = true
        elseif line:sub(1, 7) == "M done " then
            promised, loose = line:sub(8), false
        end
        states[#states + 1] = { n, 0, promised, loose, rank = line == "F " and 1 or 3 }
        since = line == "F " and 0 or since + 1
        if since > 1 then
            states[#states + 1] = { n, n * 2, promised, loose, rank = 2 }
            states[#states + 1] = { n, n * 2 + 1, promised, loose, rank = 2 }
        end
    end
    return states
end

--- Leave out every so-manieth of the lesser ranks, until there are at most MAX.
local function thinned(states, max)
    local ranks = { {}, {}, {} }
    for _, state in ipairs(states) do table.insert(ranks[state.rank], state) end
    local kept = {}
    for _, rank in ipairs(ranks) do
        local room = math.max(0, max - #kept)
        local step = math.max(1, #rank / math.max(1, room))
        for i = 1, room > 0 and #rank or 0, 1 do
            if math.floor(i / step) ~= math.floor((i - 1) / step) then kept[#kept + 1] = rank[i] end
        end
    end
    table.sort(kept, function(a, b)
        if a[1] ~= b[1] then return a[1] < b[1] end
        return a[2] < b[2]
    end)
    return kept
end

--- Go through the states of DISK for SECONDS at most.
-- @treturn table counts, and `first` of what was wrong
local function replay(disk, seconds)
    local entries = disk:log()
    local states = states_of(entries)
    local count = { entries = #entries, states = 0, torn = 0, lost = 0, dirty = 0,
        unmountable = 0, possible = #states }
    local started = sandbox.now()
    local function look(state)
        disk:command(("state %d %d"):format(state[1], state[2]))
        local mounted, why = disk:mount()
        count.states = count.states + 1
        if not mounted then
            count.unmountable = count.unmountable + 1
            if state[2] == 0 then count.first = count.first or ("cannot be mounted: " .. why) end
            return
        end
        local target = disk.mount_point .. "/target"
        local kind, what
        if not state[4] then kind, what = wrong_in(target, state[3]) end
        if not kind then
            what = dirt_in(target)
            kind = what and "dirty"
        end
        if kind then
            count[kind] = count[kind] + 1
            count.first = count.first or ("%s behind entry %d, choice %d: %s"):format(kind,
                state[1], state[2], what)
        end
        disk:unmount()
    end
    -- They must come in order: the first ones tell how many there is time for.
    for i = 1, math.min(20, #states) do look(states[i]) end
    local each = (sandbox.now() - started) / count.states
    local rest = { sandbox.unpack(states, count.states + 1) }
    for _, state in ipairs(thinned(rest, seconds / each - count.states)) do
        if sandbox.now() - started > 1.5 * seconds then break end
        look(state)
    end
    return count
end

-- ---- the run ---------------------------------------------------------------

local passed, failed, skipped = 0, 0, 0

local function verdict(good, what, ...)
    if good then passed = passed + 1 else failed = failed + 1 end
    print((good and "ok - " or "not ok - ") .. what:format(...))
    io.stdout:flush()
end

local function try(name, writes, seconds, durability)
    local file_system = FILE_SYSTEMS[name]
    local dir = sandbox.memdir()
    local disk = new_disk(dir, file_system.mib)
    local good, count = xpcall(function()
        fill(disk, file_system, writes, durability)
        return replay(disk, seconds)
    end, debug.traceback)
    disk:close()
    if not good then return verdict(false, "%s: %s", name, count) end
    local figures = ("%s, durability %s: %d writes, %d log entries, %d of %d states: "
        .. "%d torn, %d lost, %d dirty, %d unmountable"):format(name, durability, writes,
        count.entries, count.states, count.possible, count.torn, count.lost, count.dirty,
        count.unmountable)
    if durability == "none" then
        verdict(count.torn + count.lost > 0, "control, must be seen: %s", figures)
    else
        verdict(not count.first, "%s%s", figures, count.first and " (" .. count.first .. ")" or "")
    end
end

local function main(...)
    local seconds, writes, names = 200, 60, {}
    local i = 1
    local words = { ... }
    while words[i] do
        if words[i] == "--seconds" then
            seconds, i = tonumber(words[i + 1]), i + 1
        elseif words[i] == "--writes" then
            writes, i = tonumber(words[i + 1]), i + 1
        else
            assert(FILE_SYSTEMS[words[i]], "no such file system: " .. words[i])
            names[#names + 1] = words[i]
        end
        i = i + 1
    end
    if #names == 0 then names = { "ext4", "xfs", "btrfs" } end
    print((sandbox.must "uname -sr":gsub("\n", "")))
    for _, name in ipairs(names) do
        if not (sandbox.read_file "/proc/filesystems"):find("\t" .. name .. "\n", 1, true)
            and sandbox.run { "modprobe", name } ~= 0 then
            skipped = skipped + 1
            print(("ok - %s # skipped: this kernel does not have it"):format(name))
        else
            try(name, writes, seconds, "full")
            try(name, math.min(writes, 20), seconds / 8, "none")
        end
    end
    sandbox.cleanup()
    print(("%d passed, %d failed"):format(passed, failed)
        .. (skipped > 0 and (", %d skipped"):format(skipped) or ""))
    os.exit(failed == 0 and passed > 0)
end

main(...)
