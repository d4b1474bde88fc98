--- UTF-8 as Go reads it: no surrogates, no overlong forms, nothing above U+10FFFF.
-- LuaJIT has no `utf8` library, and Lua's own is laxer, so both use this one.
-- @module atomicwriter.unicode

local byte, char, find = string.byte, string.char, string.find
local floor = math.floor

-- What the first byte of a multi-byte sequence says: how many bytes there are, the range of the
-- second byte (this is what refuses overlong forms, surrogates and too large values) and what to
-- subtract to leave the payload bits.
local function lead(first)
    if first < 0xc2 then return nil end
    if first < 0xe0 then return 2, 0x80, 0xbf, 0xc0 end
    if first < 0xf0 then
        return 3, first == 0xe0 and 0xa0 or 0x80, first == 0xed and 0x9f or 0xbf, 0xe0
    end
    if first < 0xf5 then
        return 4, first == 0xf0 and 0x90 or 0x80, first == 0xf4 and 0x8f or 0xbf, 0xf0
    end
    return nil
end

local M = {}

--- Decode the character of TEXT that starts at byte POSITION.
-- @tparam string text
-- @tparam number position within the text
-- @treturn[1] number the code point
-- @treturn[1] number how many bytes it takes
-- @treturn[2] nil the byte there starts no valid sequence
function M.decode(text, position)
    local first = byte(text, position)
    if first < 0x80 then return first, 1 end
    local width, low, high, mark = lead(first)
    if not width then return nil end
    local codepoint = first - mark
    for index = position + 1, position + width - 1 do
        local continuation = byte(text, index)
        if not continuation or continuation < low or continuation > high then return nil end
        codepoint = codepoint * 64 + continuation - 0x80
        low, high = 0x80, 0xbf
    end
    return codepoint, width
end

--- Encode a code point as UTF-8.
-- @tparam number codepoint 0 to 0x10FFFF, not a surrogate
-- @treturn[1] string
-- @treturn[2] nil it is out of range
function M.encode(codepoint)
    if codepoint < 0x80 then return char(codepoint) end
    if codepoint > 0x10ffff or (codepoint >= 0xd800 and codepoint <= 0xdfff) then return nil end
    local tail = char(0x80 + codepoint % 64)
    local rest = floor(codepoint / 64)
    if codepoint < 0x800 then return char(0xc0 + rest) .. tail end
    tail = char(0x80 + rest % 64) .. tail
    rest = floor(rest / 64)
    if codepoint < 0x10000 then return char(0xe0 + rest) .. tail end
    return char(0xf0 + floor(rest / 64), 0x80 + rest % 64) .. tail
end

--- Tell whether TEXT is valid UTF-8 throughout.
-- @tparam string text
-- @treturn boolean
function M.is_valid(text)
    local position = find(text, "[\128-\255]")
    while position do
        local codepoint, width = M.decode(text, position)
        if not codepoint then return false end
        position = find(text, "[\128-\255]", position + width)
    end
    return true
end

return M
