--- The command line of the benchmark.

local USAGE = [[
usage: bench.lua [OPTION…]
  --only NAME,…      these rows; a beginning such as "durable" takes all that begin so
  --place NAME,…     tmpfs, ext4, xfs, btrfs (images, as root), disk (TMPDIR), or a directory
  --n N,…            so many files: of 1, 10, 100, 1000, 10000
  --layout NAME,…    flat, dirs
  --seconds S        how long a row is to take
  --quick            less of everything, in about a minute
  --json FILE        write all figures there
  --markdown FILE    and here as tables
  --plots DIR        draw them into this directory, as SVG
  --command TEXT     what the Markdown says it was made by
  --from FILE,…      measure nothing, but take what --json has written, of one run or several
]]

local function split(text)
    local parts = {}
    for part in text:gmatch("[^,]+") do parts[#parts + 1] = part end
    return parts
end

local function set_of(parts, convert)
    local set = {}
    for _, part in ipairs(parts) do set[convert and convert(part) or part] = true end
    return set
end

local function usage(problem)
    io.stderr:write("bench: ", problem, "\n", USAGE)
    os.exit(2)
end

local function begins_with_one_of(beginnings)
    return function(name)
        for _, beginning in ipairs(beginnings) do
            if name:sub(1, #beginning) == beginning then return true end
        end
        return #beginnings == 0
    end
end

-- A function that picks from the list of a row what is GIVEN; else what is USUAL, if there is any
-- of that in it; else all.
local function chosen(given, usual, convert)
    local set = set_of(split(given or usual or ""), convert)
    return function(list)
        local found = {}
        for _, value in ipairs(list) do
            if set[value] then found[#found + 1] = value end
        end
        return (given or #found > 0) and found or list
    end
end

--- What the ARGUMENTS ask for: wants(name), places, n(list), layouts(list), seconds, quick, json,
-- markdown, plots, command, from.
return function(arguments)
    local given, quick = {}, false
    local known = set_of { "only", "place", "n", "layout", "seconds", "json", "markdown", "plots",
        "command", "from" }
    local i = 1
    while i <= #arguments do
        local name = arguments[i]:match("^%-%-(.+)$")
        if name == "quick" then
            quick = true
        elseif name and known[name] and arguments[i + 1] then
            given[name] = arguments[i + 1]
            i = i + 1
        else
            usage("what is " .. arguments[i] .. "?")
        end
        i = i + 1
    end
    if given.seconds and not tonumber(given.seconds) then usage("--seconds needs a number") end
    return {
        quick = quick,
        json = given.json,
        markdown = given.markdown,
        plots = given.plots,
        from = given.from and split(given.from),
        command = given.command or "make bench",
        wants = begins_with_one_of(split(given.only or "")),
        seconds = tonumber(given.seconds) or (quick and 0.2 or 1),
        n = chosen(given.n, quick and "1,100,1000", tonumber),
        layouts = chosen(given.layout, quick and "flat"),
        places = split(given.place or "tmpfs,ext4,xfs,btrfs"),
    }
end
