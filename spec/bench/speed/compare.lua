--- One row for one N: a work of ours beside its base and the others, in one directory.

local neighbour = require "spec.bench.speed.neighbour"
local ours = require "spec.bench.speed.ours"
local partner = require "spec.bench.speed.partner"
local race = require "spec.bench.speed.race"
local rivals = require "spec.bench.speed.rivals"

local FLOOR = (os.getenv("ATOMICWRITER_BUILD") or "build") .. "/spec/bench/floor"

-- How the floor's works are called where they are not the base.
local LABELS = {
    ["statchanged"] = "C, and stat of each",
    ["verified"] = "C, and fstat of each",
    ["perfile"] = "file by file, C",
    ["perfileone"] = "that file alone, C",
    ["perfile+fsync"] = "file by file, C, fsync each",
    ["rewrite+flush"] = "C, flush, then fsync each",
    ["rewrite+syncfs"] = "C, syncfs",
    ["onechanged+fsync"] = "C, links, fsync of the one",
    ["onechanged+syncfs"] = "C, links, syncfs",
}

--- Who takes part: a work of the floor's or a rival by its name, or a table { name =, work = (a
-- work of ours) or floor =, neighbour = with dirty data of somebody else's, batch = }.
local function start(who, row, n, layout, directory)
    if rivals.has(who) then return rivals.start(who, row.work.differ, n, directory) end
    if type(who) == "string" then who = { name = LABELS[who] or "floor", floor = who } end
    local side = who.work and ours.start(who.work, n, layout, directory)
        or partner.start(FLOOR, { who.floor, tostring(n), directory, layout })
    if who.neighbour then side = neighbour.of(side, directory) end
    return { name = who.name, side = side, batch = who.batch }
end

local function judge(found, row, place)
    local mine, base = found.sides[1], found.sides[2]
    found.faster = row.faster or false
    found.ratio, found.quiet_ratio = mine.median / base.median, mine.quiet / base.quiet
    if found.faster then
        found.ratio, found.quiet_ratio = 1 / found.ratio, 1 / found.quiet_ratio
    end
    local wanted = row.times or row.limit
    found.wanted = wanted and wanted(found.n, place.name)
    if found.wanted and found.faster then
        found.met = found.ratio >= found.wanted
    elseif found.wanted then
        found.met = found.ratio <= found.wanted
    end
end

--- Measure ROW, of rows.lua, for N files in LAYOUT at PLACE for SECONDS. Returns { name =, n =,
-- layout =, place =, durability =, sides = as race.lua has them, ours and the base first, ratio =,
-- quiet_ratio =, faster = the ratio says how many times faster, wanted =, met = }.
return function(row, n, layout, place, seconds)
    local mine = { name = "atomicwriter", work = row.work, neighbour = row.neighbour,
        batch = row.batch }
    local sides = {}
    local all = { mine, row.base }
    for _, other in ipairs(row.others or {}) do all[#all + 1] = other end
    for _, who in ipairs(all) do
        sides[#sides + 1] = start(who, row, n, layout, place.directory)
    end
    local found = { name = row.name, n = n, layout = layout, place = place.name,
        durability = row.work.durability or "none" }
    found.sides = race.run(sides, n, seconds)
    judge(found, row, place)
    return found
end
