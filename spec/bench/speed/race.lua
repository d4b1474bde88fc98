--- Two sides or more do the same work in one directory, in turns, so that what else the machine
-- does falls upon all alike.

local measure = require "spec.bench.measure"

local M = {}

local ROUNDS_MIN, ROUNDS_WANTED, OVERTIME = 3, 15, 8
local SLOW_ROUNDS = 5 -- of a side that takes much longer than ours

-- How often in a row a side does a work on N files.
local function batch(n)
    return n <= 10 and 20 or n <= 100 and 8 or n <= 1000 and 3 or 1
end

--- Let SIDES, a list of { name =, side =, slow =, batch = }, work on N files for SECONDS, in at
-- least three rounds, and fifteen unless that takes too long. Each begins in turn. A slow side
-- works once a round, and in five rounds at most; the others BATCH times, or as often as suits N.
-- Returns for each its name and a summary of its times.
function M.run(sides, n, seconds)
    local samples = {}
    for i = 1, #sides do samples[i] = {} end
    local start = measure.now()
    local deadline, enough = start + seconds * 1e9, start + OVERTIME * seconds * 1e9
    local rounds = 0
    while rounds < ROUNDS_MIN or measure.now() < deadline
        or (rounds < ROUNDS_WANTED and measure.now() < enough) do
        for turn = 0, #sides - 1 do
            local i = (rounds + turn) % #sides + 1
            local slow = sides[i].slow
            if not slow or rounds < SLOW_ROUNDS then
                sides[i].side:run(slow and 1 or sides[i].batch or batch(n), samples[i])
            end
        end
        rounds = rounds + 1
    end
    local found = {}
    for i, entry in ipairs(sides) do
        entry.side:close()
        local median, spread, quiet = measure.summary(samples[i])
        found[i] = { name = entry.name, median = median, spread = spread, quiet = quiet,
            runs = #samples[i] }
    end
    return found
end

return M
