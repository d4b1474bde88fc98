--- The table on standard output.

local M = {}

local HEAD = "  %-19s %-4s %6s %12s %4s %12s %4s %9s %7s %7s %6s  %s"
local LINE = "  %-19s %-4s %6d %12.1f %3.0f%% %12.1f %3.0f%% %9.2f %7.2f %7.2f %6d  %s"
local OTHER = "  %31s %12.1f %3.0f%% %44.3g %6d  %s"

local LEGEND = [[
microseconds, medians; +-: half of the distance of the quartiles; ratio: atomicwriter's median to
the base's (durable works, and those with a thread: how many times faster); quiet: the same of
what one in ten runs stays below, which others disturb least. Indented: others that did the same
work in turns; their ratio is to atomicwriter.]]

--- What was measured on which machine.
function M.head(about)
    print(("atomicwriter %s from %s, files of %d bytes, keep 0; durability none, but in the durable"
        .. " works"):format(about.version, about.lua, about.size))
    print(("Linux %s, %s"):format(about.kernel, about.cpu))
    print(LEGEND)
end

function M.place(place)
    print(("\n%s: %s"):format(place.name, place.kind))
    print(HEAD:format("work", "in", "files", "base", "+-", "atomicwriter", "+-", "per file",
        "ratio", "quiet", "runs", "wanted"))
end

local function verdict(found)
    if not found.wanted then return "" end
    return ("%s %.2f %s"):format(found.faster and ">=" or "<=", found.wanted,
        found.met and "met" or "MISSED")
end

--- One row, as race.lua and bench.lua found it.
function M.row(found)
    local ours, base = found.sides[1], found.sides[2]
    print(LINE:format(found.name, found.layout, found.n, base.median, base.spread, ours.median,
        ours.spread, ours.median / found.n, found.ratio, found.quiet_ratio, ours.runs,
        verdict(found)))
    for i = 3, #found.sides do
        local other = found.sides[i]
        print(OTHER:format(other.name, other.median, other.spread, other.median / ours.median,
            other.runs, ""))
    end
    io.stdout:flush()
end

--- One figure of probes.lua.
function M.figure(found)
    print(("  %-19s %8.1f %s  %s"):format(found.name, found.value, found.text, verdict(found)))
    io.stdout:flush()
end

--- How the cost of a row grows.
function M.growth(found)
    print(("  %-19s %-4s %-6s base %5.2f  atomicwriter %5.2f"):format(found.name, found.layout,
        found.place, found.base_growth, found.growth))
end

function M.skipped(name, why)
    print(("  %-19s skipped, %s"):format(name, why))
end

return M
