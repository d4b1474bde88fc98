--- The results as Markdown: for people who read them, and for the README to take tables from.

local M = {}

local NS = { 1, 10, 100, 1000, 10000 }

-- The tables of ratios: of these rows, a line for each place and layout.
local TABLES = {
    {
        title = "Times the floor's time",
        rows = {
            { "rewrite", "all changed" }, { "onechanged", "one changed" },
            { "unchanged-fresh", "none changed, fresh writer" },
            { "unchanged-open", "none changed, open writer, beside statx alone" },
        },
    }, {
        title = "Durable: times faster than a fsync of each file in turn",
        rows = { { "durable-rewrite", "all changed" }, { "durable-onechanged", "one changed" } },
    }, {
        title = "With work done by threads: times faster than the floor",
        rows = {
            { "prepare", "one changed, prepare" },
            { "prepare-early", "one changed, prepare, early" },
        },
    }, {
        title = "The old version removed by a thread: times the floor's time",
        rows = { { "early", "all changed, early" } },
    }, {
        title = "Durable, 200 MB of somebody else's dirty: times the time without",
        rows = { { "durable-neighbour", "all changed" } },
    }, {
        title = "Ten files of 100 MiB by source: times cp --reflink=auto",
        rows = { { "copy", "copied" } },
    },
}

local LAYOUTS = { "flat", "dirs", "100M", "10M" }

local function find(results, name, place, layout, n)
    for _, found in ipairs(results) do
        if found.name == name and found.place == place and found.layout == layout
            and found.n == n then
            return found
        end
    end
end

local function line(cells)
    return "| " .. table.concat(cells, " | ") .. " |"
end

local function rule(count)
    return "|---" .. ("|---"):rep(count - 1) .. "|"
end

-- A ratio, bold where more or less was wanted.
local function cell(found)
    if not found then return "" end
    local text = ("%.3g"):format(found.ratio)
    if found.ratio < 10 then text = ("%.2f"):format(found.ratio) end
    return found.wanted and not found.met and "**" .. text .. "**" or text
end

-- The lines of cells that TEXT_OF makes of the row NAME, for each place and layout that has any.
local function add_lines(lines, results, places, name, label, text_of)
    for _, place in ipairs(places) do
        for _, layout in ipairs(LAYOUTS) do
            local cells, some = { label, place.name, layout }, false
            for _, n in ipairs(NS) do
                local found = find(results, name, place.name, layout, n)
                cells[#cells + 1] = text_of(found)
                some = some or found ~= nil
            end
            if some then lines[#lines + 1] = line(cells) end
        end
    end
end

local function table_of(results, places, title, rows, text_of)
    local lines = {}
    for _, row in ipairs(rows) do add_lines(lines, results, places, row[1], row[2], text_of) end
    if #lines == 0 then return "" end
    local head = { title, "on", "in", "N = 1", "10", "100", "1000", "10000" }
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n\n"
end

-- ---- in short, for the README ------------------------------------------------

-- Cells with a ratio for each of the PLACES that has one, "1.05, 1.08".
local function brief_cell(results, name, names, n)
    local parts = {}
    for _, place in ipairs(names) do
        local found = find(results, name, place, "flat", n)
        if found then
            parts[#parts + 1] = (found.ratio < 10 and "%.2f" or "%.0f"):format(found.ratio)
        end
    end
    return table.concat(parts, ", ")
end

local function brief_table(results, title, names, ns, rows)
    local head, lines = { title }, {}
    for _, n in ipairs(ns) do head[#head + 1] = ("N = %d"):format(n) end
    for _, row in ipairs(rows) do
        local cells, some = { row[2] }, false
        for _, n in ipairs(ns) do
            cells[#cells + 1] = brief_cell(results, row[1], names, n)
            some = some or cells[#cells] ~= ""
        end
        if some then lines[#lines + 1] = line(cells) end
    end
    if #lines == 0 then return "" end
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n\n"
end

-- How many times our time the others take, at PLACE: a line for each of them.
local function brief_others(results, place, ns)
    local columns = { { "rivals-rewrite", "all changed" }, { "rivals-onechanged", "one changed" } }
    local head, order, cells = { "times atomicwriter's time, " .. place }, {}, {}
    for _, column in ipairs(columns) do
        for _, n in ipairs(ns) do
            head[#head + 1] = ("%s, N = %d"):format(column[2], n)
            local found = find(results, column[1], place, "flat", n)
            for i = 3, found and #found.sides or 0 do
                local name = found.sides[i].name
                if not cells[name] then
                    order[#order + 1], cells[name] = name, {}
                end
                cells[name][#head] = ("%.3g"):format(found.sides[i].median / found.sides[1].median)
            end
        end
    end
    if #order == 0 then return "" end
    local lines = {}
    for i, name in ipairs(order) do
        local row = { name }
        for column = 2, #head do row[column] = cells[name][column] or "" end
        lines[i] = line(row)
    end
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n\n"
end

-- What the README says in sentences: a line for each of these that was measured.
local SENTENCES = {
    { "unchanged-open", "flat", 1, "an open writer, one file, not changed: %.0f µs",
        function(found) return found.sides[1].median end },
    { "durable-neighbour", "flat", 10, "ten files, durable, beside 200 MB of somebody else's: %.1f "
        .. "times as long as without; one syncfs then takes %.0f times as long as they do",
        function(found) return found.ratio, found.sides[3].median / found.sides[1].median end },
    { "prepare-early", "dirs", 10000, "prepare and early, one of 10,000 changed: %.1f times faster "
        .. "than the floor, %.1f times faster than without them, %.1f ms",
        function(found)
            local ours = found.sides[1].median
            return found.ratio, found.sides[3].median / ours, ours / 1000
        end },
    { "early", "dirs", 10000, "early, all of 10,000 changed: %.2f of the floor's time, %.2f of "
        .. "what it takes without, and %.2f with the thread's",
        function(found)
            local without = found.sides[4].median
            return found.ratio, found.sides[1].median / without, found.sides[3].median / without
        end },
    { "copy", "100M", 10, "ten files of 100 MiB by source: %.2f of the time of cp --reflink=auto",
        function(found) return found.ratio end },
}

local function brief_list(results, places)
    local lines = {}
    for _, each in ipairs(SENTENCES) do
        for _, place in ipairs(places) do
            local found = find(results, each[1], place.name, each[2], each[3])
            if found then
                lines[#lines + 1] = ("- %s: " .. each[4]):format(place.name, each[5](found))
            end
        end
    end
    return #lines > 0 and table.concat(lines, "\n") .. "\n\n" or ""
end

local function brief(results, places)
    return brief_table(results, "times the floor's time: tmpfs, ext4", { "tmpfs", "ext4" }, NS,
            TABLES[1].rows)
        .. brief_table(results, "durable, times faster than fsync of each: ext4, xfs, btrfs",
            { "ext4", "xfs", "btrfs" }, { 10, 100, 1000 }, TABLES[2].rows)
        .. brief_others(results, "ext4", { 100, 1000 }) .. brief_list(results, places)
end

-- ---- in full ---------------------------------------------------------------

local function others_of(results)
    local lines = {}
    for _, found in ipairs(results) do
        local ours = found.sides[1]
        for i = 3, #found.sides do
            local other = found.sides[i]
            lines[#lines + 1] = line { found.name, found.place, ("%d"):format(found.n), other.name,
                ("%.2f"):format(other.median / 1000), ("%.2f"):format(ours.median / 1000),
                ("%.3g"):format(other.median / ours.median) }
        end
    end
    if #lines == 0 then return "" end
    local head = { "others", "on", "N", "how", "its ms", "our ms", "times ours" }
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n\n"
end

local function figures_of(figures)
    local lines = {}
    for _, found in ipairs(figures) do
        lines[#lines + 1] = line { found.name, found.place, ("%.1f"):format(found.value),
            found.text, found.wanted and ("at most %d"):format(found.wanted) or "" }
    end
    if #lines == 0 then return "" end
    local head = { "counted", "on", "", "", "wanted" }
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n\n"
end

local function all_of(results)
    local head = { "work", "on", "in", "N", "base µs", "±", "atomicwriter µs", "±", "µs a file",
        "ratio", "quiet", "runs", "wanted" }
    local lines = {}
    for _, found in ipairs(results) do
        local ours, base = found.sides[1], found.sides[2]
        lines[#lines + 1] = line { found.name, found.place, found.layout, ("%d"):format(found.n),
            ("%.1f"):format(base.median), ("%.0f %%"):format(base.spread),
            ("%.1f"):format(ours.median), ("%.0f %%"):format(ours.spread),
            ("%.2f"):format(ours.median / found.n), ("%.2f"):format(found.ratio),
            ("%.2f"):format(found.quiet_ratio), ("%d"):format(ours.runs),
            found.wanted and ("%s %.2f: %s"):format(found.faster and "≥" or "≤", found.wanted,
                found.met and "met" or "missed") or "" }
    end
    return line(head) .. "\n" .. rule(#head) .. "\n" .. table.concat(lines, "\n") .. "\n"
end

local function what_of(rows, results)
    local seen, lines = {}, {}
    for _, found in ipairs(results) do seen[found.name] = true end
    for _, row in ipairs(rows) do
        if seen[row.name] then lines[#lines + 1] = ("- `%s`: %s"):format(row.name, row.what) end
    end
    return table.concat(lines, "\n") .. "\n\n"
end

--- All of RUN. ROWS are those of rows.lua, PLOTS what plots.lua has drawn.
function M.text(run, rows, plots)
    local about, places, results, figures = run.machine, run.places, run.rows, run.figures
    local parts = { "# One run of the benchmark\n\n", ([[
Made by `%s` on %s.
Linux %s, %s; %s, atomicwriter %s.

Files of %d bytes, keep 0, durability none but where it says
durable. Called from Lua, in turns with a plain C program, in the same directories and by the same
clock. Medians; ±: half of the distance of the quartiles; quiet: the ratio of what one in ten runs
stays below. In bold: more was wanted. "flat": all files at the top, "dirs": a hundred in each
directory.

]]):format(about.command, about.date, about.kernel, about.cpu, about.lua, about.version,
        about.size) }
    for _, place in ipairs(places) do
        parts[#parts + 1] = ("- `%s`: %s\n"):format(place.name, place.kind)
    end
    parts[#parts + 1] = "\n" .. what_of(rows, results)
    for _, plot in ipairs(plots) do
        parts[#parts + 1] = ("![%s, on %s](%s)\n"):format(plot.title, plot.place, plot.file)
    end
    parts[#parts + 1] = "\n## In short\n\n" .. brief(results, places)
    parts[#parts + 1] = "## Ratios\n\n"
    for _, each in ipairs(TABLES) do
        parts[#parts + 1] = table_of(results, places, each.title, each.rows, cell)
    end
    parts[#parts + 1] = "## Microseconds a file\n\n"
    parts[#parts + 1] = table_of(results, places, "atomicwriter", TABLES[1].rows, function(found)
        return found and ("%.2f"):format(found.sides[1].median / found.n) or ""
    end)
    parts[#parts + 1] = "## Others, and what was counted\n\n"
    parts[#parts + 1] = others_of(results) .. figures_of(figures)
    parts[#parts + 1] = "## All figures\n\n" .. all_of(results)
    return table.concat(parts)
end

return M
