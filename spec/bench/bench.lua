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
local host = require "spec.bench.host"
local json = require "spec.bench.speed.json"
local options_from = require "spec.bench.speed.options"
local ours = require "spec.bench.speed.ours"
local payloads = require "spec.bench.speed.payloads"
local places = require "spec.bench.speed.places"
local report = require "spec.bench.speed.report"
local rows = require "spec.bench.speed.rows"

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
        if options.wants(row.name) and ours.has(row.work.options)
            and (row.places[place.name] or not places.is_known(place.name)) then
            each_combination(row, options, function(layout, n)
                local found = compare(row, n, layout, place, options.seconds)
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
