--- How long atomicwriter takes from Lua, beside a plain C program that makes only the necessary
-- system calls for the same work (floor/floor.c), and beside what others do instead.
--
--    make bench                  (ARGS='--quick', ARGS='--only rewrite --place tmpfs' …)
--    spec/bench/run.sh lua5.4 spec/bench/bench.lua [OPTION…]
--
-- All work in one directory, in turns, so that what else the machine does falls upon all alike.
-- What counts is the ratio of the medians; absolute times do not travel. Clock: CLOCK_MONOTONIC
-- on all sides (lua-luv's hrtime).

local atomicwriter = require "atomicwriter"
local host = require "spec.bench.host"
local json = require "spec.bench.speed.json"
local options_from = require "spec.bench.speed.options"
local ours = require "spec.bench.speed.ours"
local partner = require "spec.bench.speed.partner"
local payloads = require "spec.bench.speed.payloads"
local places = require "spec.bench.speed.places"
local race = require "spec.bench.speed.race"
local report = require "spec.bench.speed.report"
local rows = require "spec.bench.speed.rows"

local FLOOR = (os.getenv("ATOMICWRITER_BUILD") or "build") .. "/spec/bench/floor"

-- ---- one row ---------------------------------------------------------------

local function start_floor(name, n, layout, directory)
    return { name = name, side = partner.start(FLOOR, { name, tostring(n), directory, layout }) }
end

local function judge(found, row, place)
    local mine, base = found.sides[1], found.sides[2]
    found.faster = row.times ~= nil
    found.ratio, found.quiet_ratio = mine.median / base.median, mine.quiet / base.quiet
    if found.faster then
        found.ratio, found.quiet_ratio = 1 / found.ratio, 1 / found.quiet_ratio
    end
    found.wanted = (row.times or row.limit)(found.n, place.name)
    if found.wanted then
        found.met = found.faster == (found.ratio >= found.wanted)
    end
end

local function measure_row(row, n, layout, place, seconds)
    local sides = {
        { name = "atomicwriter", side = ours.start(row.work, n, layout, place.directory) },
        start_floor(row.base, n, layout, place.directory),
    }
    for _, other in ipairs(row.others or {}) do
        sides[#sides + 1] = start_floor(other, n, layout, place.directory)
    end
    local found = { name = row.name, n = n, layout = layout, place = place.name, base = row.base,
        durability = row.work.durability or "none" }
    found.sides = race.run(sides, n, seconds)
    judge(found, row, place)
    return found
end

-- ---- all of them -----------------------------------------------------------

local function each_combination(row, options, visit)
    for _, layout in ipairs(row.layouts) do
        for _, n in ipairs(row.n) do
            if options.layouts[layout] and options.n[n] then visit(layout, n) end
        end
    end
end

local function measure_place(place, options, results)
    report.place(place)
    for _, row in ipairs(rows.rows) do
        if options.wants(row.name) and (row.places[place.name] or not places.is_known(place.name))
        then
            each_combination(row, options, function(layout, n)
                local found = measure_row(row, n, layout, place, options.seconds)
                results[#results + 1] = found
                report.row(found)
            end)
        end
    end
end

local function machine()
    return {
        kernel = host.first_line("/proc/sys/kernel/osrelease") or "unknown",
        cpu = host.cpu(),
        lua = type(jit) == "table" and jit.version or _VERSION,
        version = atomicwriter._VERSION,
        date = os.date("!%Y-%m-%d"),
        size = payloads.SIZE,
    }
end

local function count(results)
    local wanted, met = 0, 0
    for _, found in ipairs(results) do
        if found.wanted then wanted = wanted + 1 end
        if found.met then met = met + 1 end
    end
    return wanted, met
end

local function write_file(path, text)
    local file = assert(io.open(path, "w"))
    assert(file:write(text))
    assert(file:close())
end

local function main(arguments)
    local options = options_from(arguments)
    local about, results = machine(), {}
    print(("atomicwriter %s from %s, files of %d bytes, keep 0; durability none, but in the durable"
        .. " works"):format(about.version, about.lua, about.size))
    print(("Linux %s, %s"):format(about.kernel, about.cpu))
    print(report.LEGEND)
    for _, name in ipairs(options.places) do
        local place, why = places.open(name)
        if place then
            measure_place(place, options, results)
            places.close(place)
        else
            print(("\n%s: skipped, %s"):format(name, why))
        end
    end
    local wanted, met = count(results)
    if wanted > 0 then print(("\n%d of %d wanted ratios met"):format(met, wanted)) end
    if options.json then
        write_file(options.json, json.encode { machine = about, rows = results })
    end
end

main(arg)
