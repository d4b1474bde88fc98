--- How values look, the same on every Lua.
-- @module atomicwriter.template.value

local find, format = string.find, string.format

local M = {}

--- Tell whether VALUE is nil or a null that some decoder put in its place (cjson.null, lyaml.null).
-- @param value anything
-- @treturn boolean
function M.is_null(value)
    if value == nil then return true end
    if type(value) == "userdata" then
        local text = tostring(value)
        return text == "userdata: NULL" or text == "userdata: (nil)" or text == "userdata: 0x0"
    end
    if type(value) == "table" then
        local metatable = getmetatable(value)
        return type(metatable) == "table" and metatable._type == "LYAML null"
    end
    return false
end

--- Write a number so that it reads back as the same number: `8080`, never `8080.0`.
-- @tparam number number
-- @treturn string
function M.number_text(number)
    local kind = math.type and math.type(number) -- luacheck: ignore 143
    if kind == "integer" then return tostring(number) end
    if number ~= number then return "nan" end
    if number == math.huge then return "inf" end
    if number == -math.huge then return "-inf" end
    if number == 0 then return "0" end -- and not "-0"
    if number % 1 == 0 and number > -2 ^ 53 and number < 2 ^ 53 then return format("%d", number) end
    for digits = 14, 17 do
        local text = format("%." .. digits .. "g", number)
        if tonumber(text) == number then return text end
    end
    return tostring(number)
end

--- Read a number without loss.
-- @tparam string text a decimal number, perhaps with a sign, a fraction and an exponent
-- @treturn[1] number
-- @treturn[2] string TEXT, since it is a whole number of 2^53 or more, which a double may not hold
function M.exact_number(text)
    local number = tonumber(text)
    if (number >= 2 ^ 53 or number <= -2 ^ 53) and not find(text, "[.eE]") then return text end
    return number
end

--- The text of a value that has one.
-- @param value
-- @treturn[1] string
-- @treturn[2] nil it is no string, number or boolean
function M.text(value)
    local kind = type(value)
    if kind == "string" then return value end
    if kind == "number" then return M.number_text(value) end
    if kind == "boolean" then return tostring(value) end
    return nil
end

local RANK = { number = 1, string = 2, boolean = 3 }

--- Order values of mixed types: numbers, strings by bytes, the rest.
-- @param a
-- @param b
-- @treturn boolean whether A comes first
function M.less(a, b)
    local kind_a, kind_b = type(a), type(b)
    if kind_a ~= kind_b then return (RANK[kind_a] or 4) < (RANK[kind_b] or 4) end
    if RANK[kind_a] == 3 then return b and not a end
    if RANK[kind_a] then return a < b end
    return false
end

--- The keys of a table in order.
-- @tparam table map
-- @treturn table list
function M.sorted_keys(map)
    local keys = {}
    for key in next, map do keys[#keys + 1] = key end
    table.sort(keys, M.less)
    return keys
end

-- The metatable of lists that are known to be such, since an empty table tells nothing.
local LIST = {}

--- Mark a table as a list, also when it is empty.
-- @tparam table items
-- @treturn table the same
function M.mark_list(items)
    return setmetatable(items, LIST)
end

--- Tell whether a table is a list: it is marked as one, or its keys are 1 to n and n is not 0.
-- @tparam table map
-- @treturn boolean
function M.is_list(map)
    if getmetatable(map) == LIST then return true end
    local count = 0
    for key in next, map do
        if type(key) ~= "number" then return false end
        count = count + 1
    end
    return count > 0 and count == #map
end

return M
