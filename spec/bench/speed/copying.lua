--- Large files by `source`, beside cp and a plain loop in C.
--
-- Each time the files are copied into a new directory, which is removed when the time has been
-- taken. The sources have been synced before.

local atomicwriter = require "atomicwriter"
local command = require "spec.bench.speed.command"
local host = require "spec.bench.host"
local measure = require "spec.bench.measure"
local race = require "spec.bench.speed.race"

local luv, quote = measure.luv, host.shell_quote

local FILES = 10
local MEBIBYTE = 1024 * 1024
local COPY = (os.getenv("ATOMICWRITER_BUILD") or "build") .. "/spec/bench/copy"

local M = {}

M.FILES = FILES

--- Make a directory at PATH with FILES files of so many MEBIBYTES.
function M.make_sources(path, mebibytes)
    assert(luv.fs_mkdir(path, 493))
    for i = 1, FILES do
        local fd = assert(luv.fs_open(("%s/file%d"):format(path, i), "w", 420))
        local block = (("%d of %d "):format(i, FILES)):rep(MEBIBYTE / 8):sub(1, MEBIBYTE)
        for _ = 1, mebibytes do assert(luv.fs_write(fd, block)) end
        assert(luv.fs_fsync(fd))
        assert(luv.fs_close(fd))
    end
end

local function remove(path)
    os.execute("rm -rf " .. quote(path))
end

local function by_us(sources, target)
    local payload = {}
    for i = 1, FILES do
        local name = "file" .. i
        payload[name] = { source = sources .. "/" .. name }
    end
    local options = { durability = "none", keep = 0, create = true }
    return function()
        local start = measure.now()
        local writer = assert(atomicwriter.new(target, options))
        assert(writer:write(payload))
        writer:close()
        return (measure.now() - start) / 1000
    end
end

local function by_command(words, sources, target)
    local text = ("mkdir %s; %s"):format(quote(target),
        words:gsub("FROM", quote(sources)):gsub("TO", quote(target)))
    return function() return command.time(text) end
end

local function side(once, target)
    return {
        run = function(_, repetitions, samples)
            for _ = 1, repetitions do
                samples[#samples + 1] = once()
                remove(target)
            end
        end,
        close = function() end,
    }
end

--- Copy files of so many MEBIBYTES at PLACE. Returns a row as compare.lua does.
function M.measure(place, mebibytes, seconds, limit)
    local sources, target = place.directory .. "/sources", place.directory .. "/copies"
    M.make_sources(sources, mebibytes)
    local sides = {
        { name = "atomicwriter", side = side(by_us(sources, target), target) },
        { name = "cp --reflink=auto",
            side = side(by_command("cp --reflink=auto FROM/* TO", sources, target), target) },
        { name = "cp --reflink=never",
            side = side(by_command("cp --reflink=never FROM/* TO", sources, target), target) },
        { name = "read and write, C",
            side = side(by_command(quote(COPY) .. " FROM TO", sources, target), target) },
    }
    for _, entry in ipairs(sides) do entry.batch = 1 end
    local row = { name = "copy", n = FILES, layout = mebibytes .. "M", place = place.name,
        durability = "none", wanted = limit }
    row.sides = race.run(sides, FILES, seconds)
    row.ratio = row.sides[1].median / row.sides[2].median
    row.quiet_ratio = row.sides[1].quiet / row.sides[2].quiet
    row.met = row.ratio <= limit
    remove(sources)
    return row
end

return M
