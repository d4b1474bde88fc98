local data = require "atomicwriter.data"
local input = require "atomicwriter.input"
local template = require "atomicwriter.template"

-- What a template shows of VALUE.
local function show(source, value)
    local page = assert(template.compile(source))
    return assert(page:render { x = value })
end

describe("data", function()
    local base, made

    before_each(function()
        base = os.tmpname()
        made = { base }
    end)
    after_each(function()
        for _, path in ipairs(made) do os.remove(path) end
    end)

    local function file(suffix, text)
        local path = base .. suffix
        local handle = assert(io.open(path, "wb"))
        handle:write(text)
        handle:close()
        made[#made + 1] = path
        return path
    end

    local function load(suffix, text)
        return data.load(file(suffix, text))
    end

    -- The error of a file, which must say nothing of the secret in it.
    local function failure(suffix, text)
        local value, err = load(suffix, text)
        assert.is_nil(value)
        assert.equal(base .. suffix, err.path)
        assert.is_nil(tostring(err):find("s3cret", 1, true), tostring(err))
        return err
    end

    -- The error without the name of the file in front.
    local function message(suffix, text)
        return tostring(failure(suffix, text)):sub(#base + #suffix + 2)
    end

    describe("of JSON", function()
        it("is tables, strings, numbers and booleans", function()
            assert.same({ a = { 1, 2.5, "x", true, false }, b = { c = {} } },
                load(".json", '{"a": [1, 2.5, "x", true, false], "b": {"c": {}}}'))
            assert.equal("x", load(".json", ' "x"\n'))
            assert.is_false(load(".JSON", "false"))
        end)

        it("takes a byte order mark in front", function()
            assert.same({ 1 }, load(".json", "\239\187\191[1]"))
        end)

        it("has null for templates to find undefined", function()
            local value = load(".json", '{"a": null, "b": 1}')
            assert.equal("d false true",
                show("{{ x.a | default('d') }} {{ defined('x.a') }} {{ defined('x.b') }}", value))
            assert.equal('{"a":null,"b":1}', show("{{ x | json }}", value))
        end)

        it("has whole numbers that are part of a string as they stand in the file", function()
            local value = load(".json", '{"port": 8080, "list": [1, -2, 1e3], "f": 1.5}')
            assert.equal("8080 1 -2 1000 1.5", value.port .. " " .. table.concat(value.list, " ")
                .. " " .. value.f)
        end)

        it("keeps empty lists apart from empty objects", function()
            local value = load(".json", '{"a": [], "b": {}, "c": [[ ], {}], "d": "[]", "e": [\n]}')
            assert.equal('{"a":[],"b":{},"c":[[],{}],"d":"[]","e":[]}',
                show("{{ x | json }}", value))
            assert.equal("0", show("{% for _ in ipairs(x.a) do %}no{% end %}{{ #x.a }}", value))
        end)

        it("keeps each digit of a whole number, however long", function()
            local value = load(".json", [[{"id": 12345678901234567890, "list": [9007199254740993,
                -9007199254740993, 9007199254740991], "s": "\"\\12345678901234567890", "f": 1.5e3,
                "u": 0.12345678901234567890}]])
            assert.equal("12345678901234567890 9007199254740993 -9007199254740993 9007199254740991",
                show("{{ x.id }} {{ x.list | join(' ') }}", value))
            assert.equal('"\\12345678901234567890', value.s)
            assert.equal(1500, value.f)
            assert.equal(0.12345678901234567890, value.u)
        end)

        for text, expected in pairs {
            ['{"a": s3cret}'] = "1: column 7: expected value but found invalid token",
            ['{\n  "a": "s3cret"\n  "b": 1}'] =
                "3: column 3: expected comma or object end but found a string",
            ['{"é": "é" 1}'] = "1: column 11: expected comma or object end but found a number",
            ['["s3cret'] = "1: column 9: expected value but found unexpected end of string",
            ['["\\qs3cret"]'] = "1: column 3: expected value but found invalid escape code",
            ["[1,]"] = "1: column 4: expected value but found ']'",
            [""] = "1: column 1: expected value but found the end of the file",
            ["\n\n  "] = "3: column 3: expected value but found the end of the file",
            ['["\0"]'] = "1: column 3: a NUL byte is not allowed",
            ["[1]\n\0 s3cret, 7-8"] = "2: column 1: a NUL byte is not allowed",
            ["[1] s3cret"] = "1: column 5: expected the end but found invalid token",
            ["[01]"] = "1: column 2: expected value but found invalid number",
            ["[0x10]"] = "1: column 2: expected value but found invalid number",
            ["[NaN]"] = "1: column 2: expected value but found invalid token",
            ['["1e999",\n -1e999]'] = "2: column 2: a number is too large",
            ['["s3cret",\n"s3cret\255"]'] = "2: invalid UTF-8",
        } do
            it(("names line and column, and shows nothing, of %q"):format(text), function()
                assert.equal(expected, message(".json", text))
            end)
        end

        it("may be nested deeply, and not endlessly", function()
            assert.is_table(load(".json", ("["):rep(1000) .. ("]"):rep(1000)))
            assert.matches("1: column 1001: Found too many nested data structures",
                message(".json", ("["):rep(100000) .. ("]"):rep(100000)))
        end)
    end)

    describe("of YAML", function()
        it("is tables, strings, numbers and booleans", function()
            for _, suffix in ipairs { ".yaml", ".yml" } do
                assert.same({ a = { 1, -2.5, "x", true, "y z" }, b = { c = "d\n", e = {} } },
                    load(suffix, "a:\n- 1\n- -2.5\n- x\n- true\n- 'y z'\nb:\n  c: |\n    d\n"
                        .. "  e: {}\n"))
            end
            assert.equal("x", load(".yaml", "--- x\n...\n"))
            assert.is_false(load(".yaml", "false"))
        end)

        it("keeps empty lists apart from empty mappings", function()
            local value = load(".yaml", "a: []\nb: {}\n")
            assert.equal('{"a":[],"b":{}}', show("{{ x | json }}", value))
            assert.equal("a: []\nb: {}", show("{{ x | yaml }}", value))
        end)

        it("takes a byte order mark in front", function()
            assert.same({ a = 1 }, load(".yaml", "\239\187\191a: 1\n"))
        end)

        it("is an empty table when the file says nothing", function()
            assert.same({}, load(".yaml", ""))
            assert.same({}, load(".yaml", "# only a comment\n"))
        end)

        it("has null for templates to find undefined", function()
            for _, null in ipairs { "~", "null", "Null", "NULL", "", "!!null x" } do
                local value = load(".yaml", "a: " .. null .. "\nb: 1\n")
                assert.equal("d false {\"a\":null,\"b\":1}",
                    show("{{ x.a | default('d') }} {{ defined('x.a') }} {{ x | json }}", value))
            end
        end)

        it("reads plain scalars as YAML 1.1 does, but for sexagesimals", function()
            for text, expected in pairs {
                ["0"] = 0, ["-0"] = 0, ["+12"] = 12, ["1_000"] = 1000, ["0644"] = 420,
                ["0o644"] = 420, ["0x1F"] = 31, ["-0x1f"] = -31, ["0b101"] = 5, ["08"] = 8,
                ["1.5"] = 1.5, ["-.5"] = -0.5, ["1."] = 1, ["1e3"] = 1000, ["1.5E-3"] = 0.0015,
                [".inf"] = math.huge, ["-.Inf"] = -math.huge,
                yes = true, On = true, TRUE = true, no = false, Off = false, FALSE = false,
                ["12:30"] = "12:30", ["2026-11-22"] = "2026-11-22", ["1.2.3"] = "1.2.3", y = "y",
                yEs = "yEs", ["1e"] = "1e", ["0x"] = "0x", ["0xg"] = "0xg", ["."] = ".",
                ["1 2"] = "1 2", ["1-2"] = "1-2", ["'1'"] = "1", ['"true"'] = "true", ["''"] = "",
                ["!!str 1"] = "1", ["!!int '1'"] = 1, ["!!bool 'yes'"] = true, ["!own x"] = "x",
                ["! 1"] = "1", ["12345678901234567890"] = "12345678901234567890",
                ["9007199254740993"] = "9007199254740993", ["-9007199254740993"] =
                "-9007199254740993", ["0xffffffffffffffff"] = "0xffffffffffffffff",
                ["é"] = "é", ["!!int 0x10"] = 16,
            } do
                assert.same({ a = expected }, load(".yaml", "a: " .. text .. "\n"), text)
            end
            local nan = load(".yaml", ".nan")
            assert.is_true(nan ~= nan)
        end)

        it("leaves words as keys alone", function()
            assert.same({ on = 1, yes = 2, ["true"] = 3, [8080] = 4, ["80"] = 5 },
                load(".yaml", "on: 1\nyes: 2\ntrue: 3\n8080: 4\n'80': 5\n"))
        end)

        it("knows anchors, aliases and merges; what a mapping says itself wins", function()
            assert.same({ a = { x = 1, y = 2 }, b = { x = 3, y = 2 }, c = { x = 1, y = 2, z = 5 },
                d = { "s", "s" } }, load(".yaml", "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n"
                .. "c: {<<: [*a, {y: 4, z: 5}]}\nd: [&s s, *s]\n"))
            assert.same({ ["<<"] = 1 }, load(".yaml", "'<<': 1"))
        end)

        it("shares what has an alias, so that a few lines do not fill the memory", function()
            local lines = { "a0: &a0 [x]" }
            for i = 1, 60 do
                lines[#lines + 1] = ("a%d: &a%d [*a%d, *a%d]"):format(i, i, i - 1, i - 1)
            end
            local value = load(".yaml", table.concat(lines, "\n"))
            assert.equal(value.a60[1], value.a60[2])
        end)

        for text, expected in pairs {
            ["a: 1\nb: s3cret: s3cret"] =
                "2: column 10: mapping values are not allowed in this context",
            ["a: 1\n\tb: s3cret"] = "2: column 1: found a tab character that violates indentation",
            ["a: [s3cret\nb: 1\n"] = "2: column 2: did not find expected ',' or ']'",
            ["a: 's3cret\n"] = "2: column 1: found unexpected end of stream",
            ['a: 1\nb: "\\qs3cret"'] = "2: column 5: found unknown escape character",
            ["a: 1\nb: *s3cret"] = "2: column 4: the alias has no anchor",
            ["a: &a [1, *a]"] = "1: column 11: the alias stands within what it is an alias of",
            ["a: &a {b: {c: *a}}"] =
                "1: column 15: the alias stands within what it is an alias of",
            ["a: 1\n<<: s3cret"] = "2: column 5: '<<' needs a mapping, or a list of such",
            ["a: 1\n<<: [s3cret]"] = "2: column 5: '<<' needs a mapping, or a list of such",
            ["a: 1\n<<: ~"] = "2: column 5: '<<' needs a mapping, or a list of such",
            ["a: !!int s3cret"] = "1: column 4: the value does not fit its tag",
            ["a: 1\nb: !s3cret!x y"] = "2: column 4: found undefined tag handle",
            ["a: 1\nb: s3cret\na: 2\n"] = "3: column 1: the key stands in this mapping already",
            ["[s3cret]: 1"] = "1: column 1: a key must be a string, a number or a boolean",
            ["~: s3cret"] = "1: column 1: a key must be a string, a number or a boolean",
            ["a: 1\n---\nb: s3cret\n"] = "2: column 1: there is more than one document",
            ["a: 1\nb: s3cret\1\n"] = "2: control characters are not allowed",
            ["a: 1\n\nb: s3cret\239\191\191"] = "3: control characters are not allowed",
            ["a: 1\nb: s3cret\194\128\n"] = "2: control characters are not allowed",
            ["a: 1\nb: \239\187\191s3cret\n\1"] = "2: control characters are not allowed",
            ["a: 1\n\nb: s3cret\255\n"] = "3: invalid UTF-8",
        } do
            it(("names line and column, and shows nothing, of %q"):format(text), function()
                assert.equal(expected, message(".yaml", text))
            end)
        end

        it("may be nested deeply, and not endlessly", function()
            assert.is_table(load(".yaml", ("["):rep(900) .. ("]"):rep(900)))
            assert.equal("1: column 1001: it is nested too deeply",
                message(".yaml", ("["):rep(100000) .. ("]"):rep(100000)))
        end)
    end)

    describe("of an env file", function()
        it("is what env.parse makes of it", function()
            assert.same({ A = "1", B = " x" }, (load(".env", "# c\nA=1\r\nB= x\n")))
        end)

        it("names the line of what is wrong", function()
            assert.equal("2: not a valid name (it must match [-._a-zA-Z][-._a-zA-Z0-9]*)",
                message(".env", "A=1\ns3cret s3cret\n"))
        end)
    end)

    describe("of Lua", function()
        it("is the table that the script returns", function()
            assert.same({ ports = { 8080, 8081 }, name = "APP" }, load(".lua", [[
                local ports = {}
                for i = 0, 1 do table.insert(ports, 8080 + i) end
                return { ports = ports, name = string.upper("app") }
            ]]))
        end)

        it("may start with #! and a byte order mark", function()
            assert.same({ 1 }, load(".lua", "#!/usr/bin/lua\nreturn { 1 }"))
            assert.same({ 1 }, load(".lua", "\239\187\191return { 1 }"))
            assert.equal(2, failure(".lua", "#!/usr/bin/lua\nreturn nope").line)
        end)

        it("has pure functions and no others", function()
            for _, name in ipairs { "io", "os", "require", "load", "print", "_G", "debug",
                "string.dump", "math.random", "setmetatable", "getmetatable" } do
                assert.is_nil((load(".lua", "return { " .. name .. " or error('nil') }")), name)
            end
        end)

        it("cannot change the libraries of the process", function()
            load(".lua", "string.format = nil table.concat = nil x = 1 return {}")
            assert.is_function(string.format)
            assert.is_function(table.concat)
            assert.is_nil(rawget(_G, "x"))
        end)

        for text, expected in pairs {
            ["\nlocal x = = 's3cret'"] = "2: unexpected symbol",
            ["local x = 's3cret"] = "1: unfinished string",
            ["\nreturn { a = 1 s3cret }"] = "2: '}' expected",
            ["return ('s3cret')()"] = "1: attempt to call a string value",
            ["\n\nreturn { a = NOPE }"] = "3: undefined: NOPE",
            ["\nreturn { 's3cret' + 1 }"] = "2: attempt to .+",
            ["\nreturn { {} .. 's3cret', #nil }"] = "2: attempt to .+",
            ["local t\nreturn { t.x }"] = "2: attempt to index .*local 't'",
            ["\nerror('set NAME first')"] = "2: set NAME first",
            ["error({})"] = " the error is a table",
            ["return 's3cret'"] = " the script must return a table, not a string",
            ["x = 1"] = " the script must return a table, not a nil",
            ["\27Lua"] = " a data file must be Lua source, this is bytecode",
        } do
            it(("names the line, and shows nothing, of %q"):format(text), function()
                assert.matches("^" .. expected, message(".lua", text))
            end)
        end

        it("names file and line however long the path is", function()
            local path = base .. ("x"):rep(100) .. ".lua"
            local handle = assert(io.open(path, "w"))
            handle:write("\nreturn nope")
            handle:close()
            made[#made + 1] = path
            assert.equal(path .. ":2: undefined: nope", tostring(select(2, data.load(path))))
        end)
    end)

    it("that cannot be read is a failure of the world", function()
        local value, err = data.load(base .. ".nope.json")
        assert.is_nil(value)
        assert.equal("io", err.code)
        assert.equal(2, err.errno)
        assert.equal(base .. ".nope.json: No such file or directory", tostring(err))
    end)

    it("with another suffix is refused, naming those that there are", function()
        for _, path in ipairs { "/etc/passwd", "a.toml", "json", "a.json/b", "" } do
            local value, err = data.load(path)
            assert.is_nil(value)
            assert.matches("a data file must end in .json, .yaml, .yml, .env or .lua",
                tostring(err))
        end
    end)

    it("is read where an observer sees it", function()
        for suffix, text in pairs { [".json"] = "1", [".yaml"] = "1", [".env"] = "A=1",
            [".lua"] = "return {}" } do
            local seen = {}
            local path = file(suffix, text)
            input.observe(function(name) seen[#seen + 1] = name end, data.load, path)
            assert.same({ path }, seen)
        end
    end)

    for suffix, module in pairs { [".json"] = "cjson", [".yaml"] = "yaml" } do
        it("names the package when " .. module .. " is missing", function()
            local saved = package.loaded[module]
            package.loaded[module] = nil
            package.preload[module] = function() error("not installed") end
            local text = message(suffix, "{}")
            package.loaded[module], package.preload[module] = saved, nil
            assert.matches("install lua%-%w+ %(Debian%) or [%w-]+ %(LuaRocks%)", text)
        end)
    end

    it("raises at the caller's line for misuse", function()
        for _, call in ipairs {
            function() return data.load(nil), nil end,
            function() return data.set(1, "a", 1), nil end,
            function() return data.set({}, 1, 1), nil end,
        } do
            local ok, text = pcall(call)
            assert.is_false(ok)
            assert.matches("data_spec.lua:%d+: bad argument #%d", text)
        end
    end)
end)

describe("data.set", function()
    it("sets a name, and makes tables on the way", function()
        local map = { a = { x = 1 } }
        assert.is_true(data.set(map, "b", "1"))
        assert.is_true(data.set(map, "a.b.c", "2"))
        assert.is_true(data.set(map, "a.x", "3"))
        assert.same({ a = { x = "3", b = { c = "2" } }, b = "1" }, map)
    end)

    it("finds the items of a list by their number", function()
        local map = { list = { "a", { b = 1 } } }
        assert.is_true(data.set(map, "list.1", "x"))
        assert.is_true(data.set(map, "list.2.b", "y"))
        assert.is_true(data.set(map, "list.3", "z"))
        assert.same({ list = { "x", { b = "y" }, ["3"] = "z" } }, map)
    end)

    it("puts a table where null was", function()
        local map = { a = require("cjson").null }
        assert.is_true(data.set(map, "a.b", 1))
        assert.same({ a = { b = 1 } }, map)
    end)

    it("refuses an empty component, and changes nothing", function()
        for _, name in ipairs { "", ".", "a.", ".a", "a..b", "a.b..", "..a" } do
            local map = {}
            local ok, reason = data.set(map, name, 1)
            assert.is_nil(ok)
            assert.equal(("the name '%s' has an empty component"):format(name), reason)
            assert.same({}, map)
        end
    end)

    it("refuses to go through what is no table, says where, and changes nothing", function()
        local map = { a = { b = "s3cret" }, n = 1 }
        assert.same({ nil, "a.b is a string, not a table" }, { data.set(map, "a.b.c", 1) })
        assert.same({ nil, "a.b is a string, not a table" }, { data.set(map, "a.b.c.d", 1) })
        assert.same({ nil, "n is a number, not a table" }, { data.set(map, "n.x", 1) })
        assert.same({ a = { b = "s3cret" }, n = 1 }, map)
    end)
end)
