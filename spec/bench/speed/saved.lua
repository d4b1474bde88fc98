--- Runs that have been written as JSON.

local measure = require "spec.bench.measure"

local M = {}

local function decode(path)
    local file = assert(io.open(path, "r"))
    local run = measure.need("cjson", "lua-cjson").decode(file:read("*a"))
    file:close()
    return run
end

--- One run of what the files at PATHS have, in this order. Places that two have are named once.
function M.read(paths)
    local run
    for _, path in ipairs(paths) do
        local part = decode(path)
        if not run then run = { machine = part.machine, places = {}, rows = {}, figures = {} } end
        for _, place in ipairs(part.places) do
            if not run.places[place.name] then
                run.places[place.name] = true
                table.insert(run.places, place)
            end
        end
        for _, name in ipairs { "rows", "figures" } do
            for _, found in ipairs(part[name]) do table.insert(run[name], found) end
        end
    end
    for _, place in ipairs(run.places) do run.places[place.name] = nil end
    return run
end

return M
