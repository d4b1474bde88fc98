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
local markdown = require "spec.bench.speed.markdown"
local options_from = require "spec.bench.speed.options"
local ours = require "spec.bench.speed.ours"
local payloads = require "spec.bench.speed.payloads"
local places = require "spec.bench.speed.places"
local draw_plots = require "spec.bench.speed.plots"
local probes = require "spec.bench.speed.probes"
local report = require "spec.bench.speed.report"
local rows = require "spec.bench.speed.rows"
local saved = require "spec.bench.speed.saved"

local function each_combination(row, options, visit)
    for _, layout in ipairs(options.layouts(row.layouts)) do
        for _, n in ipairs(options.n(row.n)) do visit(layout, n) end
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

-- Microseconds a file for ten thousand, divided by those for a thousand: 1 where cost is linear.
local function print_growth(results)
    local some = false
    for _, big in ipairs(results) do
        for _, small in ipairs(big.n == 10000 and results or {}) do
            if small.n == 1000 and small.name == big.name and small.layout == big.layout
                and small.place == big.place then
                if not some then print("\ngrowth: time a file for N = 10000 by that for 1000") end
                some = true
                big.growth = big.sides[1].median / small.sides[1].median / 10
                big.base_growth = big.sides[2].median / small.sides[2].median / 10
                report.growth(big)
            end
        end
    end
end

-- Plots, for which the directory is there; none, with a word, where there is no gnuplot.
local function draw(options, run)
    if not options.plots then return {} end
    local about = run.machine
    local line = "Linux %s, %s, %s, %s; files of %d bytes; medians, and half of the distance"
        .. " between the quartiles"
    local drawn, why = draw_plots(run.rows, run.places, line:format(about.kernel, about.cpu,
        about.lua, about.date, about.size), options.plots)
    if not drawn then report.skipped("plots", why) end
    return drawn or {}
end

local function write_files(options, run)
    local plots = draw(options, run)
    if options.json then write_file(options.json, json.encode(run) .. "\n") end
    if options.markdown then
        write_file(options.markdown, markdown.text(run, rows.all(), plots))
    end
end

-- ---- one run ---------------------------------------------------------------

local function measure_all(options)
    local run = { machine = machine(), places = {}, rows = {}, figures = {} }
    report.head(run.machine)
    for _, name in ipairs(places.possible(options.places)) do
        local place, why = places.open(name)
        if place then
            table.insert(run.places, { name = place.name, kind = place.kind })
            measure_place(place, options, run.rows)
            probe_place(place, options, run.figures)
            places.close(place)
        else
            print(("\n%s: skipped, %s"):format(name, why))
        end
    end
    return run
end

local function main(arguments)
    local options = options_from(arguments)
    local run = options.from and saved.read(options.from) or measure_all(options)
    run.machine.command = options.command
    print_growth(run.rows)
    print_score(run.rows, run.figures)
    write_files(options, run)
end

main(arg)
