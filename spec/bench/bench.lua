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
local compare = require "spec.bench.speed.compare"
local copying = require "spec.bench.speed.copying"
local host = require "spec.bench.host"
local json = require "spec.bench.speed.json"
local options_from = require "spec.bench.speed.options"
local ours = require "spec.bench.speed.ours"
local payloads = require "spec.bench.speed.payloads"
local places = require "spec.bench.speed.places"
local probes = require "spec.bench.speed.probes"
local report = require "spec.bench.speed.report"
local rows = require "spec.bench.speed.rows"

local function each_combination(row, options, visit)
    for _, layout in ipairs(row.layouts) do
        for _, n in ipairs(row.n) do
            if options.layouts[layout] and options.n[n] then visit(layout, n) end
        end
    end
end

-- In a place that is none of ours all is measured.
local function wanted(row, place, options)
    return options.wants(row.name) and (row.places[place.name] or not places.is_known(place.name))
end

local function measure_place(place, options, results)
    local function add(found)
        results[#results + 1] = found
        report.row(found)
    end
    report.place(place)
    for _, row in ipairs(rows.rows) do
        if wanted(row, place, options) and ours.has(row.work.options) then
            each_combination(row, options, function(layout, n)
                add(compare(row, n, layout, place, options.seconds))
            end)
        end
    end
    if wanted(rows.copy, place, options) then
        add(copying.measure(place, options.quick and 10 or rows.copy.mebibytes, options.seconds,
            rows.copy.limit))
    end
end

local function probe_place(place, options, figures)
    for _, row in ipairs(rows.probes) do
        if wanted(row, place, options) then
            local found, why = probes[row.probe](place)
            if not found then report.skipped(row.name, why) end
            for _, figure in ipairs(found or {}) do
                figures[#figures + 1] = figure
                report.figure(figure)
            end
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

local function print_score(results, figures)
    local wanted_count, met = 0, 0
    for _, list in ipairs { results, figures } do
        for _, found in ipairs(list) do
            if found.wanted then wanted_count = wanted_count + 1 end
            if found.met then met = met + 1 end
        end
    end
    print(("\n%d of %d wanted met"):format(met, wanted_count))
end

local function write_file(path, text)
    local file = assert(io.open(path, "w"))
    assert(file:write(text))
    assert(file:close())
end

local function main(arguments)
    local options = options_from(arguments)
    local about, results, figures = machine(), {}, {}
    print(("atomicwriter %s from %s, files of %d bytes, keep 0; durability none, but in the durable"
        .. " works"):format(about.version, about.lua, about.size))
    print(("Linux %s, %s"):format(about.kernel, about.cpu))
    print(report.LEGEND)
    for _, name in ipairs(options.places) do
        local place, why = places.open(name)
        if place then
            measure_place(place, options, results)
            probe_place(place, options, figures)
            places.close(place)
        else
            print(("\n%s: skipped, %s"):format(name, why))
        end
    end
    print_score(results, figures)
    if options.json then
        write_file(options.json, json.encode { machine = about, rows = results, figures = figures })
    end
end

main(arg)
