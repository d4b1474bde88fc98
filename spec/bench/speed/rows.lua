--- What is measured, and what is wanted of it.
--
-- A row is a work of ours beside a BASE that works in the same directory, for each N and LAYOUT
-- in each of its PLACES. Wanted is a ratio: LIMIT, at most so many times the base's time; or
-- TIMES, at least so many times faster than it. FASTER rows say how many times, either way.

local M = {}

local ALL = { 1, 10, 100, 1000, 10000 }
local CACHED = { tmpfs = true, ext4 = true }                 -- it takes no disk
local JOURNALED = { ext4 = true, xfs = true, btrfs = true }  -- a sync means something there

local function always(ratio)
    return function() return ratio end
end

-- Of the durable works on ext4 alone: that is where the goals were set.
local function on_ext4(ratios)
    return function(n, place) return place == "ext4" and ratios[n] or nil end
end

-- By a writer with OPTIONS that let a thread go on after a call. The next call begins when that
-- has ended.
local function changed(differ, options, waits, durability)
    return { differ = differ, options = options, rests = true, waits = waits,
        durability = durability }
end

-- Works on files as N of compare.lua has them.
M.rows = {
    {
        name = "rewrite", what = "all files changed",
        work = { differ = "all" }, base = "rewrite",
        limit = function(n) return n <= 10 and 1.25 or 1.10 end,
        n = ALL, layouts = { "flat", "dirs" }, places = CACHED,
    }, {
        name = "onechanged", what = "one file changed, the others are hard-linked",
        work = { differ = "one" }, base = "onechanged", limit = always(1.15),
        others = { "statchanged" },
        n = ALL, layouts = { "flat", "dirs" }, places = CACHED,
    }, {
        name = "unchanged-fresh",
        what = "none changed, by a fresh writer; base: open, read, compare, close",
        work = { differ = "none", fresh = true }, base = "unchanged", limit = always(1.15),
        others = { "verified" },
        n = ALL, layouts = { "flat", "dirs" }, places = CACHED,
    }, {
        name = "unchanged-open",
        what = "none changed, by a writer that stays open; base: one statx a file",
        work = { differ = "none" }, base = "stat", limit = always(1.5),
        n = ALL, layouts = { "flat", "dirs" }, places = CACHED,
    }, {
        name = "rivals-rewrite", what = "all files changed, beside what others do",
        work = { differ = "all" }, base = "rewrite",
        others = { "perfile", "python", "cp", "rsync" },
        n = ALL, layouts = { "flat" }, places = CACHED,
    }, {
        name = "rivals-onechanged", what = "one file changed, beside what others do",
        work = { differ = "one" }, base = "onechanged",
        others = { "perfileone", "cp", "rsync" },
        n = ALL, layouts = { "flat" }, places = CACHED,
    }, {
        name = "durable-rewrite", what = "all files changed, durable; base: fsync of each in turn",
        work = { differ = "all", durability = "full" }, base = "rewrite+fsync",
        faster = true, times = on_ext4 { [100] = 4, [1000] = 8 },
        others = { "rewrite+flush", "rewrite+syncfs", "perfile+fsync" },
        n = { 1, 10, 100, 1000 }, layouts = { "flat" }, places = JOURNALED,
    }, {
        name = "durable-onechanged", what = "one file changed, durable; base: fsync of all in turn",
        work = { differ = "one", durability = "full" }, base = "rewrite+fsync",
        faster = true, times = on_ext4 { [100] = 20 },
        others = {
            "onechanged+fsync", "onechanged+syncfs",
            { name = "atomicwriter, early",
                work = changed("one", { early = true }, false, "full") },
        },
        n = { 10, 100, 1000 }, layouts = { "flat" }, places = JOURNALED,
    },
    {
        name = "durable-neighbour",
        what = "all files changed, durable, while somebody else has 200 MB dirty; base: without",
        work = { differ = "all", durability = "full" }, neighbour = true, batch = 3,
        base = { name = "without", work = { differ = "all", durability = "full" }, batch = 3 },
        others = { { name = "C, syncfs", floor = "rewrite+syncfs", neighbour = true, batch = 3 } },
        n = { 10 }, layouts = { "flat" }, places = JOURNALED,
    }, {
        name = "prepare",
        what = "one file changed; the next version is linked by a thread before",
        work = changed("one", { prepare = true }), base = "onechanged", faster = true,
        n = { 10000 }, layouts = { "dirs" }, places = CACHED,
    }, {
        name = "prepare-early",
        what = "one file changed; and the old version is removed by a thread after",
        work = changed("one", { prepare = true, early = true }), base = "onechanged",
        faster = true, times = function(n) return n == 10000 and 5 or nil end,
        others = { { name = "atomicwriter without", work = { differ = "one" } } },
        n = { 100, 1000, 10000 }, layouts = { "dirs" }, places = CACHED,
    }, {
        name = "early", what = "all files changed; the old version is removed by a thread after",
        work = changed("all", { early = true }), base = "rewrite",
        others = {
            { name = "with the thread's time", work = changed("all", { early = true }, true) },
            { name = "atomicwriter without", work = { differ = "all" } },
        },
        n = { 100, 1000, 10000 }, layouts = { "dirs" }, places = CACHED,
    },
}

-- What copying.lua measures.
M.copy = { name = "copy", what = "ten files of 100 MiB by source; base: cp --reflink=auto",
    limit = 1.15, mebibytes = 100,
    places = { tmpfs = true, ext4 = true, xfs = true, btrfs = true } }

-- Figures of probes.lua, by its names.
M.probes = {
    { name = "memory", probe = "memory", places = { tmpfs = true } },
    { name = "copy-memory", probe = "peak", places = { tmpfs = true } },
    { name = "calls", probe = "calls", places = { tmpfs = true } },
}

--- All that gives rows.
function M.all()
    local all = {}
    for i, row in ipairs(M.rows) do all[i] = row end
    all[#all + 1] = M.copy
    return all
end

return M
