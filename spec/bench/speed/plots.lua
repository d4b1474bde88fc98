--- SVG plots by gnuplot: microseconds a file against the number of files.

local command = require "spec.bench.speed.command"

-- How each side is drawn: its name, its label, colour, dashes, width.
local STYLES = {
    { name = "atomicwriter", colour = "#0b5fa5", width = 3.5 },
    { name = "atomicwriter, fresh", colour = "#0b5fa5", width = 3.5, dash = "(8,4)" },
    { name = "floor", colour = "#222222", width = 1.8, dash = "(2,3)" },
    { name = "floor: open, read, compare", colour = "#222222", width = 1.8, dash = "(8,4)" },
    { name = "floor: statx", colour = "#222222", width = 1.8, dash = "(2,3)" },
    { name = "file by file, C", colour = "#c0392b", width = 1.8 },
    { name = "that file alone, C", colour = "#c0392b", width = 1.8 },
    { name = "Python's os.replace", colour = "#e08e0b", width = 1.8 },
    { name = "cp -a, mv -T", colour = "#2e8b57", width = 1.8 },
    { name = "rsync --link-dest, mv -T", colour = "#8e44ad", width = 1.8 },
    { name = "fsync of each in turn, C", colour = "#222222", width = 1.8, dash = "(2,3)" },
    { name = "file by file, C, fsync each", colour = "#c0392b", width = 1.8 },
    { name = "C, flush, then fsync each", colour = "#e08e0b", width = 1.8 },
    { name = "C, syncfs", colour = "#2e8b57", width = 1.8 },
}

-- What is drawn: of the first of ROWS that was measured, or of ALL of them, with these names for
-- our side and the base.
local PLOTS = {
    { file = "rewrite", title = "All of N files change", rows = { "rivals-rewrite", "rewrite" },
        names = { "atomicwriter", "floor" } },
    { file = "onechanged", title = "One of N files changes",
        rows = { "rivals-onechanged", "onechanged" }, names = { "atomicwriter", "floor" } },
    { file = "unchanged", title = "None of N files changes", all = true,
        rows = { "unchanged-open", "unchanged-fresh" },
        names = { "atomicwriter", "floor: statx" },
        other_names = { "atomicwriter, fresh", "floor: open, read, compare" } },
    { file = "durable", title = "All of N files change, durably", durability = "full",
        rows = { "durable-rewrite" },
        names = { "atomicwriter", "fsync of each in turn, C" } },
}

-- name of a side -> list of { n, median, spread } of the ROW at PLACE; nil if there is none.
local function add_series(series, results, place, row, names)
    local some = false
    for _, found in ipairs(results) do
        if found.place == place and found.name == row and found.layout == "flat" then
            for i, side in ipairs(found.sides) do
                local name = names[i] or side.name
                series[name] = series[name] or {}
                table.insert(series[name], { found.n, side.median / found.n, side.spread })
            end
            some = true
        end
    end
    return some
end

local function series_of(plot, results, place)
    local series = {}
    for i, row in ipairs(plot.rows) do
        local some = add_series(series, results, place, row,
            plot.all and i > 1 and plot.other_names or plot.names)
        if some and not plot.all then break end
    end
    return next(series) and series
end

local HEAD = [[
set terminal svg size 760,470 dynamic font "DejaVu Sans,Verdana,sans-serif,13" background "white"
set output "%s"
set title "{/=16:Bold %s}\n{/=11 on %s; durability %s}"
set label "%s" at screen 0.012,0.022 font ",9" textcolor "#666666" noenhanced
set logscale xy
set xlabel "files (N)"
set ylabel "microseconds a file (less is better)"
set xrange [0.8:12500]
set xtics ("1" 1, "10" 10, "100" 100, "1,000" 1000, "10,000" 10000)
set format y "%%.10g"
set grid xtics ytics linecolor "#dddddd" linetype 1 linewidth 0.6
set border 3 linecolor "#888888"
set tics nomirror
set tics textcolor "#333333"
set errorbars 0.6
set lmargin at screen 0.125
set rmargin at screen %s
set bmargin 5
set key at screen %s, screen 0.78 left top vertical Left reverse samplen 2.5 spacing 1.3 noenhanced
plot ]]

local RIGHT, KEY = "0.68", "0.69" -- of the width: where the curves end, and their names begin

local function script_of(series, path, plot, place, about)
    local curves, data = {}, {}
    for _, style in ipairs(STYLES) do
        local points = series[style.name]
        if points then
            table.sort(points, function(a, b) return a[1] < b[1] end)
            curves[#curves + 1] = ("'-' using 1:2:3:4 with yerrorlines title %q linecolor rgb %q"
                .. " linewidth %.1f dashtype %s pointtype 7 pointsize 0.45"):format(style.name,
                    style.colour, style.width, style.dash or "solid")
            for _, point in ipairs(points) do
                local off = point[2] * point[3] / 100
                data[#data + 1] = ("%d %g %g %g"):format(point[1], point[2],
                    math.max(point[2] - off, point[2] / 10), point[2] + off)
            end
            data[#data + 1] = "e"
        end
    end
    return HEAD:format(path, plot.title, place, plot.durability or "none", about, RIGHT, KEY)
        .. table.concat(curves, ", \\\n  ") .. "\n" .. table.concat(data, "\n") .. "\n"
end

--- Draw what RESULTS have into DIRECTORY, which exists. PLACES maps names to what they are, ABOUT
-- is a line about the machine. Returns the list of files { file =, title =, place = }, or nil and
-- why there are none.
return function(results, places, about, directory)
    local gnuplot = command.find("gnuplot")
    if not gnuplot then return nil, "gnuplot is missing: apt-get install gnuplot-nox" end
    local drawn = {}
    for _, plot in ipairs(PLOTS) do
        for _, place in ipairs(places) do
            local series = series_of(plot, results, place.name)
            if series then
                local file = ("%s-%s.svg"):format(plot.file, place.name)
                local pipe = assert(io.popen(gnuplot, "w"))
                pipe:write(script_of(series, directory .. "/" .. file, plot, place.kind, about))
                pipe:close()
                drawn[#drawn + 1] = { file = file, title = plot.title, place = place.name }
            end
        end
    end
    return drawn
end
