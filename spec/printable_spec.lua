local printable = require "atomicwriter.printable"
local generator = dofile("spec/support/generate_printable.lua")

local function read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

-- Of the package: its files name it in their first lines, UnicodeData.txt alone does not.
local function unicode_version()
    local age = read(generator.DATA:match("^.*/") .. "DerivedAge.txt")
    return age and age:match("^# DerivedAge%-([%d.]+)%.txt")
end

describe("printable", function()
    it("is made of Unicode 15.0", function()
        assert.equal("15.0.0", printable.UNICODE_VERSION)
    end)

    it("is what the generator writes from UnicodeData.txt", function()
        if not read(generator.DATA) then pending("the package unicode-data is not installed") end
        if unicode_version() ~= printable.UNICODE_VERSION then
            pending("the package unicode-data is not of Unicode " .. printable.UNICODE_VERSION)
        end
        local generated = generator.generate(io.lines(generator.DATA))
        assert.equal(generated, read("lua/atomicwriter/printable.lua"))
    end)

    it("has as many printable characters as Go's strconv.IsPrint", function()
        local count, last = 0, nil
        for codepoint = 0, 0x10ffff do
            if printable.contains(codepoint) then
                count, last = count + 1, codepoint
            end
        end
        assert.equal(148998, count)
        assert.equal(0xe01ef, last)
    end)

    for _, case in ipairs {
        { 0x1f, false, "a control character" }, { 0x20, true, "the ASCII space" },
        { 0x7e, true, "the tilde" }, { 0x7f, false, "delete" },
        { 0xa0, false, "the no-break space" }, { 0xa1, true, "punctuation" },
        { 0xad, false, "the soft hyphen" }, { 0xe9, true, "a letter" },
        { 0x301, true, "a combining mark" }, { 0x378, false, "an unassigned code point" },
        { 0x2028, false, "the line separator" }, { 0x3000, false, "the ideographic space" },
        { 0x4e00, true, "the first of a block" }, { 0x6c34, true, "the middle of a block" },
        { 0x9fff, true, "the last of a block" }, { 0xd800, false, "a surrogate" },
        { 0xe000, false, "private use" }, { 0xfeff, false, "the byte order mark" },
        { 0xfffd, true, "the replacement character" }, { 0x1f600, true, "an emoji" },
        { 0xe0001, false, "a language tag" }, { 0x10ffff, false, "the last code point" },
    } do
        local verdict = case[2] and "printable" or "not printable"
        it(("calls %s (U+%04X) %s"):format(case[3], case[1], verdict), function()
            assert.equal(case[2], printable.contains(case[1]))
        end)
    end
end)
