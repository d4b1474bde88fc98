local labels = require "atomicwriter.labels"

-- Pairs that were checked against Go 1.23: value, quoted.
local GOLDEN = {
    { "plain text", "", '""' },
    { "printable ASCII", "it's $HOME #1 a=b ~", [["it's $HOME #1 a=b ~"]] },
    { "quote and backslash", [[say "hi" \o/]], [["say \"hi\" \\o/"]] },
    { "brackets", "[a]^]-\\", [["[a]^]-\\"]] },
    { "named escapes", "\a\b\f\n\r\t\v", [["\a\b\f\n\r\t\v"]] },
    { "other control bytes", "\0\1\31\127", [["\x00\x01\x1f\x7f"]] },
    { "letters beyond ASCII", "é日本", '"é日本"' },
    { "an emoji", "\240\159\152\128", '"\240\159\152\128"' },
    { "a combining mark", "e\204\129", '"e\204\129"' },
    { "a C1 control", "\194\128", [["\u0080"]] },
    { "the no-break space", "\194\160", [["\u00a0"]] },
    { "the soft hyphen", "\194\173", [["\u00ad"]] },
    { "the line separator", "\226\128\168", [["\u2028"]] },
    { "private use", "\238\128\128", [["\ue000"]] },
    { "the byte order mark", "\239\187\191", [["\ufeff"]] },
    { "a language tag", "\243\160\128\129", [["\U000e0001"]] },
    { "the last code point", "\244\143\191\191", [["\U0010ffff"]] },
    { "a valid replacement character", "\239\191\189", '"\239\191\189"' },
    { "a byte that starts nothing", "a\255b", [["a\xffb"]] },
    { "a lone continuation byte", "\128", [["\x80"]] },
    { "a truncated sequence", "\226\130", [["\xe2\x82"]] },
    { "a truncated sequence before text", "\226\130x", [["\xe2\x82x"]] },
    { "an overlong form of two bytes", "\192\175", [["\xc0\xaf"]] },
    { "an overlong form of three bytes", "\224\128\175", [["\xe0\x80\xaf"]] },
    { "an overlong form of four bytes", "\240\130\130\172", [["\xf0\x82\x82\xac"]] },
    { "a surrogate", "\237\160\128", [["\xed\xa0\x80"]] },
    { "a value above U+10FFFF", "\244\144\128\128", [["\xf4\x90\x80\x80"]] },
    { "a five-byte form", "\248\136\128\128\128", [["\xf8\x88\x80\x80\x80"]] },
}

describe("labels.quote", function()
    for _, case in ipairs(GOLDEN) do
        it("quotes " .. case[1] .. " as Go does", function()
            assert.equal(case[3], labels.quote(case[2]))
        end)
    end

    it("raises at the caller's line for anything but a string", function()
        local _, message = pcall(function() return labels.quote(1), nil end)
        assert.matches("labels_spec.lua:%d+: bad argument #1 to 'quote' %(string", message)
    end)
end)

describe("labels.format", function()
    it("writes an empty file for an empty map", function()
        assert.equal("", labels.format {})
    end)

    it("writes one line a key, in byte order, without a newline after the last", function()
        assert.equal('B="2"\na="1"\na.b="3"\nab="4"\né="5"',
            labels.format { a = "1", B = "2", ab = "4", ["a.b"] = "3", ["é"] = "5" })
    end)

    it("writes keys raw", function()
        assert.equal('app.kubernetes.io/name "x"="web"',
            labels.format { ['app.kubernetes.io/name "x"'] = "web" })
    end)

    for name, key in pairs {
        ["an empty key"] = "", ["a key with ="] = "a=b", ["a key with a newline"] = "a\nb",
        ["a key with a control byte"] = "a\1b", ["a key with a NUL byte"] = "a\0",
        ["a key with DEL"] = "\127",
    } do
        it("refuses " .. name, function()
            local text, err = labels.format { [key] = "s3cret" }
            assert.is_nil(text)
            assert.equal("labels", err.code)
            assert.is_nil(tostring(err):find("s3cret", 1, true))
        end)
    end

    it("raises for what is no map of strings", function()
        local function message(argument)
            return select(2, pcall(function() return labels.format(argument), nil end))
        end
        assert.matches("labels_spec.lua:%d+: bad argument #1 to 'format' %(table", message("x"))
        assert.matches('labels_spec.lua:%d+: the value of "a" must be a string', message { a = 1 })
        assert.matches("labels_spec.lua:%d+: keys must be strings", message { "a" })
    end)
end)

describe("labels.parse", function()
    it("reads an empty file as an empty map", function()
        assert.same({}, labels.parse "")
    end)

    it("accepts any order and one trailing newline", function()
        assert.same({ a = "1", b = "2" }, labels.parse 'b="2"\na="1"\n')
    end)

    it("splits at the first =", function()
        assert.same({ a = 'b="c"' }, labels.parse [[a="b=\"c\""]])
    end)

    for _, case in ipairs(GOLDEN) do
        it("reads back " .. case[1], function()
            assert.same({ key = case[2] }, labels.parse("key=" .. case[3]))
        end)
    end

    it("understands Go's other escapes", function()
        assert.same({ k = "A\255é\244\143\191\191\0A" },
            labels.parse [[k="\x41\377\u00E9\U0010FFFF\000\101"]])
    end)

    for _, case in ipairs {
        { 'a="1"\nb', 2, "no '='" },
        { 'a="1"\n\nb="2"', 2, "no '='" },
        { 'a="1"\nb="2"\n\n', 3, "no '='" },
        { "a=1", 1, "double quotes" }, { 'a="1', 1, "double quotes" },
        { 'a="', 1, "double quotes" },
        { 'a="1" ', 1, "double quotes" }, { 'a="1"\r', 1, "double quotes" },
        { 'a="1"2"', 1, "not escaped" },
        { [[a="1\"]], 1, "unknown escape" },
        { [[a="\q"]], 1, "unknown escape" }, { [[a="\'"]], 1, "unknown escape" },
        { [[a="\18"]], 1, "unknown escape" },
        { [[a="\x4"]], 1, "2 hexadecimal digits" }, { [[a="\u00g0"]], 1, "4 hexadecimal digits" },
        { [[a="\U0010fff"]], 1, "8 hexadecimal digits" },
        { [[a="\ud800"]], 1, "names no character" },
        { [[a="\U00110000"]], 1, "names no character" },
        { [[a="\400"]], 1, "at most" },
        { '="1"', 1, "key is empty" }, { 'a\tb="1"', 1, "control byte" },
        { 'a="1"\nb="2"\na="3"', 3, "line 1 already" },
    } do
        it(("refuses %q and names line %d"):format(case[1], case[2]), function()
            local map, err = labels.parse(case[1])
            assert.is_nil(map)
            assert.equal("labels", err.code)
            assert.equal(case[2], err.line)
            assert.matches(case[3], err.message, 1, true)
            assert.matches("^line " .. case[2] .. ": ", tostring(err))
        end)
    end

    it("reads back whatever format wrote, for arbitrary bytes", function()
        math.randomseed(20221213)
        local interesting = {
            "\192", "\194", "\224", "\237", "\239", "\240", "\244", "\245", "\128", "\143", "\144",
            "\159", "\160", "\191", "\255", '"', "\\", "\n", "=", "x", "\0",
        }
        for _ = 1, 300 do
            local map = {}
            for index = 1, math.random(0, 5) do
                local parts = {}
                for position = 1, math.random(0, 40) do
                    parts[position] = math.random(2) == 1 and string.char(math.random(0, 255))
                        or interesting[math.random(#interesting)]
                end
                map["key" .. index] = table.concat(parts)
            end
            local text = labels.format(map)
            assert.is_nil(text:find("[^\n\32-\126\128-\255]"))
            assert.same(map, labels.parse(text))
        end
    end)
end)
