--- JSON in a fixed order of keys, so that two runs can be compared line by line.

local M = {}

local encode

local function encode_list(list, indent)
    local parts = {}
    for i, value in ipairs(list) do parts[i] = encode(value, indent) end
    return "[" .. table.concat(parts, ",") .. "]"
end

local function encode_map(map, indent)
    local names, parts = {}, {}
    for name in pairs(map) do names[#names + 1] = name end
    table.sort(names)
    for i, name in ipairs(names) do
        parts[i] = ('%q: %s'):format(name, encode(map[name], indent))
    end
    return (indent == "" and "" or "\n") .. indent .. "{" .. table.concat(parts, ", ") .. "}"
end

--- VALUE as JSON: a list, or a map of strings, of the same, of strings without control bytes,
-- numbers and booleans.
function encode(value, indent)
    indent = indent or ""
    if type(value) == "table" then
        local form = (#value > 0 or next(value) == nil) and encode_list or encode_map
        return form(value, indent .. " ")
    elseif type(value) == "string" then
        return '"' .. value:gsub('[\\"]', "\\%0"):gsub("%c", " ") .. '"'
    elseif type(value) == "number" then
        return value == math.floor(value) and ("%d"):format(value) or ("%.4g"):format(value)
    end
    return tostring(value)
end

M.encode = encode

return M
