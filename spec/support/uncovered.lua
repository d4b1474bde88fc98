-- uncovered.lua LINES.json PERCENT: judge what gcovr counted.
--
-- Prints every line of the C core that no test reached, with the reason from
-- spec/c/uncovered.lua, and how many were. Fails where a line has no reason, a
-- reason's lines are not in the source any more (or twice), or fewer than PERCENT
-- of all lines were reached.

local json = require "cjson"

local counted, least = assert(arg[1]), assert(tonumber(arg[2]))
local problems = 0

local function problem(...)
    problems = problems + 1
    print("  PROBLEM " .. string.format(...))
end

local function trim(text)
    return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

-- The lines of TEXT without the white space around them, or those of a file.
local function lines_of(text)
    local lines = {}
    for line in text:gmatch "[^\n]*" do lines[#lines + 1] = trim(line) end
    return lines
end

local function read(path)
    local file = assert(io.open(path))
    local text = file:read "a"
    file:close()
    return text
end

local function is_at(source, first, block)
    for i, line in ipairs(block) do
        if source[first + i - 1] ~= line then return false end
    end
    return true
end

-- Where the lines of BLOCK stand in SOURCE, and how often.
local function find(source, block)
    local found, count = nil, 0
    for first = 1, #source do
        if is_at(source, first, block) then found, count = first, count + 1 end
    end
    return found, count
end

-- For each file of the core: the number of a line -> why it is not reached.
local function read_reasons(path)
    local reasons = {}
    for _, entry in ipairs(dofile(path)) do
        local file, block = entry.file, lines_of(trim(entry.lines))
        local first, count = find(lines_of(read(file)), block)
        reasons[file] = reasons[file] or {}
        if count == 1 then
            for i = 0, #block - 1 do reasons[file][first + i] = entry.why end
        else
            problem("%s: %d times in the source: %s", file, count, block[#block])
        end
    end
    return reasons
end

local reasons = read_reasons "spec/c/uncovered.lua"
local total, reached = 0, 0

for _, file in ipairs(json.decode(read(counted)).files) do
    local source = lines_of(read(file.file))
    for _, line in ipairs(file.lines) do
        if not line["gcovr/noncode"] then
            total = total + 1
            if line.count > 0 then
                reached = reached + 1
            else
                local number = line.line_number
                local why = (reasons[file.file] or {})[number]
                if not why then
                    problem("%s:%d: no reason: %s", file.file, number, source[number])
                else
                    print(("  %s:%d: %s\n      %s"):format(file.file, number, source[number], why))
                end
            end
        end
    end
end

local percent = total > 0 and 100 * reached / total or 0
if percent < least then problem("fewer than %g %% of the lines were reached", least) end
print(("# coverage: %d of %d lines, %.1f %%, %d without a reason or wrong"):format(
    reached, total, percent, problems))
os.exit(problems == 0)
