--- What is counted rather than timed, each in a process of its own: memory and system calls.
--
-- A probe returns a list of figures: { name =, place =, text =, value =, wanted =, met = }, or nil
-- and why it could not be done.

local command = require "spec.bench.speed.command"
local copying = require "spec.bench.speed.copying"
local host = require "spec.bench.host"

local quote = host.shell_quote

local M = {}

-- Of a figure a tenth is shown, and counts.
local function figure(name, place, text, value, wanted)
    return { name = name, place = place.name, text = text, value = value, wanted = wanted,
        met = wanted and value < wanted + 0.05 }
end

--- What a writer that stays open keeps of each file beyond the payload's own strings.
function M.memory(place)
    local n, most = 10000, 200
    local malloc, pss = host.output_of(command.child("memory", place.directory, n))
        :match("(%-?%d+) (%-?%d+)")
    if not malloc then return nil, "its child failed" end
    return { figure("memory", place,
        ("bytes a file that an open writer keeps of %d, by malloc's count (%.0f with its holes, "
            .. "by Pss)"):format(n, pss / n), malloc / n, most) }
end

--- How much more memory it takes to copy files of 100 MiB than files of one.
function M.peak(place)
    local peaks = {}
    for _, mebibytes in ipairs { 1, 100 } do
        local sources = place.directory .. "/sources"
        copying.make_sources(sources, mebibytes)
        local text = host.output_of(command.child("copying", place.directory .. "/peak", sources))
        os.execute(("rm -rf %s %s"):format(quote(sources), quote(place.directory .. "/peak")))
        peaks[mebibytes] = tonumber(text)
        if not peaks[mebibytes] then return nil, "its child failed" end
    end
    return { figure("copy-memory", place,
        ("KiB of peak memory (VmHWM) more for %d files of 100 MiB than of 1 MiB (%d KiB)"):format(
            copying.FILES, peaks[1]), peaks[100] - peaks[1], 1024) }
end

-- ---- system calls ----------------------------------------------------------

-- What strace -c counts for so many TIMES: the sum, and by name.
local function count_calls(place, work, n, times)
    local counts = place.directory .. "/counts"
    os.execute(("strace -f -c -o %s %s; rm -rf %s"):format(quote(counts),
        command.child("calls", place.directory, work.differ, work.layout, n, times),
        quote(place.directory .. "/calls")))
    local by_name = {}
    for line in io.lines(counts) do
        local number, rest = line:match("^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s*(.*)$")
        local name = rest and rest:match("(%S+)$")
        if name then by_name[name] = tonumber(number) end
    end
    return by_name
end

-- Of one write: what more of them need, so that starting and ending do not count.
local function calls_of_one(place, work, n)
    local few, more, extra = 2, 12, {}
    local base = count_calls(place, work, n, few)
    for name, number in pairs(count_calls(place, work, n, more)) do
        extra[name] = (number - (base[name] or 0)) / (more - few)
    end
    return extra
end

-- Of one file: what a thousand of them need more than a hundred, so that what a write needs once
-- does not count either.
local function calls_per_file(place, work)
    local low, high, parts, names = 100, 1000, {}, {}
    local few, many = calls_of_one(place, work, low), calls_of_one(place, work, high)
    local function slope(name) return (many[name] - (few[name] or 0)) / (high - low) end
    for name in pairs(many) do
        if name ~= "total" and slope(name) >= 0.05 then names[#names + 1] = name end
    end
    table.sort(names)
    for i, name in ipairs(names) do parts[i] = ("%s %.1f"):format(name, slope(name)) end
    return slope("total"), table.concat(parts, ", "), few.total - low * slope("total")
end

--- System calls for a file that has not changed.
function M.calls(place)
    if not command.find("strace") then return nil, "strace is missing: apt-get install strace" end
    local figures = {}
    for i, work in ipairs {
        { differ = "none", layout = "flat", most = 1 },
        { differ = "one", layout = "flat", most = 3 },
        { differ = "one", layout = "dirs" }, -- its directories are counted for the files as well
    } do
        local value, names, once = calls_per_file(place, work)
        figures[i] = figure(("calls-%s-%s"):format(work.differ, work.layout), place,
            ("system calls for each unchanged file when %s changes (%s), and %.0f for the write")
                :format(work.differ, names, once), value, work.most)
    end
    return figures
end

return M
