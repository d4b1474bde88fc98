--- What the benchmarks share: a clock, the libraries they need, and their statistics.

local M = {}

--- The library NAME; without it the benchmark says which PACKAGE of Debian has it, and ends.
function M.need(name, package)
    local loaded, library = pcall(require, name)
    if loaded then return library end
    io.stderr:write(("bench: needs %s: apt-get install %s\n"):format(name, package))
    os.exit(1)
end

M.luv = M.need("luv", "lua-luv")

--- Nanoseconds on a clock that never steps back.
M.now = M.luv.hrtime

--- The quantile Q of a list that is sorted.
local function quantile(sorted, q)
    local at = 1 + (#sorted - 1) * q
    local low = math.floor(at)
    local high = math.min(low + 1, #sorted)
    return sorted[low] + (sorted[high] - sorted[low]) * (at - low)
end

M.quantile = quantile

--- Median; half of the distance between the quartiles in percent of it; and the
-- time that one in ten runs stays below, which other programs disturb least.
function M.summary(samples)
    table.sort(samples)
    local median = quantile(samples, 0.5)
    local spread = (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2
    return median, 100 * spread / median, quantile(samples, 0.1)
end

return M
