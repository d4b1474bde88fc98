local input = require "atomicwriter.input"
local template = require "atomicwriter.template"

local function render(source, context, opts)
    local compiled = assert(template.compile(source, opts))
    local text = assert(compiled:render(context))
    return text
end

-- The error that compiling or rendering ends in.
local function failure(source, context, opts)
    local compiled, err = template.compile(source, opts)
    if not compiled then return err end
    local text, render_err = compiled:render(context)
    assert.is_nil(text)
    return render_err
end

-- A loader over a table of sources; names are relative to the including template's directory.
local function loader(files)
    return function(name, from)
        local path = name:find("^/") and name or (from:match("^(.*/)") or "") .. name
        if files[path] then return files[path], path end
        return nil, "No such file or directory"
    end
end

describe("template text", function()
    for name, text in pairs {
        ["an empty template"] = "",
        ["nginx variables and blocks"] = "location / { proxy_pass http://$host:${port}; } # {\n",
        ["shell expansions"] = 'echo "${a[@]}" ${#a[@]} ${a#b} ${a%%c} $(( 1 + 2 )) #}\n',
        ["systemd specifiers"] = "ExecStart=/bin/x %i %%h\n[Install]\n",
        ["closing delimiters outside of tags"] = "a }} b %} c #} d\n",
        ["JSON with nested braces"] = '{"a":{"b":{}}}\n',
        ["bytes of every kind"] = "\0\1\255\r\n\r\t",
        ["Lua's long brackets"] = "]] [[ ]=] \\n \"'",
        ["single braces"] = "{ % # } { {",
    } do
        it("passes " .. name .. " through untouched", function()
            assert.equal(text, render(text))
        end)
    end

    it("passes a raw block through, with its lines", function()
        assert.equal("a {{ x }} {% y %} {# z #} b",
            render "a {% raw %}{{ x }} {% y %} {# z #}{% endraw %} b")
        assert.equal("a\n  {{ x }}\nb\n", render "a\n{% raw %}\n  {{ x }}\n{% endraw %}\nb\n")
    end)

    it("passes whole files of other languages through untouched", function()
        for name, text in pairs {
            nginx = "# main\nmap $http_upgrade $connection {\n    '' close;\n}\n"
                .. "server {\n    if ($host ~ ^(.*)\\.x$) { return 301 https://$1$uri; }\n"
                .. "    log_format j '{\"a\":\"$host\",\"b\":{\"c\":1}}';\n}\n",
            shell = "#!/bin/sh -e\n# ${x}\nf() { echo \"$1 ${2:-x} ${#1} ${1#*/} ${1%%.*}\"; }\n"
                .. "case $x in *) :;; esac\n[[ $a == b ]] && { f '{}' | xargs -I{} echo {}; }\n",
            yaml = "# c\na: {b: [1, {c: d}], e: {}}\nf: '%{x}'\ng: |\n  #{x} $(y) %(z)s\n",
            systemd = "# unit\n[Service]\nEnvironment=A=%i B=%%h \"C=${D}\"\n"
                .. "ExecStart=/bin/x %{a} %I\n",
        } do
            assert.equal(text, render(text), name)
        end
    end)

    it("passes expressions of GitHub actions through a raw block", function()
        assert.equal("env:\n  A: ${{ secrets.A }} # {% x %}\n",
            render("env:\n{% raw %}\n  A: ${{ secrets.A }} # {% x %}\n{% endraw %}\n"))
        assert.equal("${{ a }}", render("{% raw %}${{ a }}{% endraw %}"))
    end)

    describe("of any size", function()
        local COUNT = 100000
        local distinct, numbers = {}, {}
        for i = 1, COUNT do
            distinct[i] = "{{ d.k" .. i .. " }}\n"
            numbers["k" .. i] = i
        end
        distinct = table.concat(distinct)

        for name, case in pairs {
            ["expressions of as many names"] = { distinct, "1\n2\n" },
            ["expressions of as many names in a loop"] =
                { "{% for _ = 1, 1 do %}" .. distinct .. "{% end %}", "1\n2\n" },
            ["expressions of as many names in a function with arguments"] =
                { "{% local function f(...) %}{{ select(1, ...) }}\n" .. distinct
                    .. "{% end f(7) %}", "7\n1\n2\n" },
            ["texts in a loop"] =
                { "{% for _ = 1, 1 do %}" .. ("x{# c #}"):rep(COUNT) .. "{% end %}", "xx" },
            ["filters in a block"] =
                { "{% if d then %}" .. ("{{ d.k1 | default(2) }}"):rep(COUNT)
                    .. "{% end %}", "11" },
            ["locals in a loop"] =
                { "{% local a = 1 for b = 2, 2 do %}" .. ("{{ a }}{{ b }}"):rep(COUNT / 2)
                    .. "{% end %}", "1212" },
        } do
            it("renders " .. COUNT .. " " .. name, function()
                local text = render(case[1], { d = numbers })
                assert.equal(case[2], text:sub(1, #case[2]))
                assert.is_true(#text >= COUNT)
            end)
        end

        it("names the line of what fails", function()
            local loop = "{% for _ = 1, 2 do %}\n" .. ("{{ d }}\n"):rep(COUNT)
            local err = failure(loop .. "{{ nope }}{% end %}", { d = 1 })
            assert.equal("template:" .. COUNT + 2 .. ": undefined: nope", tostring(err))
            assert.equal(COUNT + 2, failure(loop .. "{{ + }}{% end %}", { d = 1 }).line)
        end)
    end)
end)

describe("template expressions", function()
    it("print strings, numbers and booleans", function()
        assert.equal("s 1 -2.5 true false", render("{{ a }} {{ b }} {{ c }} {{ d }} {{ e }}",
            { a = "s", b = 1, c = -2.5, d = true, e = false }))
    end)

    it("print whole numbers without a fraction, wherever they come from", function()
        assert.equal("8080 8080 5 x8080 9007199254740991",
            render("{{ a }} {{ b.c }} {{ 10 / 2 }} {{ 'x' .. a }} {{ big }}",
                { a = 8080.0, b = { c = 8080.0 }, big = 2 ^ 53 - 1 }))
    end)

    it("print other numbers so that they read back as they are", function()
        for _, number in ipairs { 0.1, 1 / 3, 1e300, 2 ^ -1074, 123456.789, -0.5 } do
            assert.equal(number, tonumber(render("{{ x }}", { x = number })))
        end
        assert.equal("0.1 0", render("{{ 0.1 }} {{ -0.0 }}"))
    end)

    it("know strings, tables and calls that contain the delimiters", function()
        assert.equal("}} %} }} ' 1", render(
            [==[{{ "}}" }} {{ '%}' }} {{ [[}}]] }} ]==]
            .. [==[{{ "\"}}'" | replace('"}}', "") }} {{ #{ {a={}} } }}]==]))
        assert.equal("2", render("{{ f({ a = { b = {} }}) }}", { f = function() return 2 end }))
        assert.equal("x", render("{% local s = '%}' %}{% if s == [=[%}]=] then %}x{% end %}"))
    end)

    it("may hold Lua comments, which end with the tag", function()
        assert.equal("1 2 3 4", render(
            "{{ 1 -- one }} {{ 2 --[[ }} ]] }} {{ 3 -- it's\n }} {{ 4 -- x -}} "))
    end)

    it("may span lines, with CR too", function()
        assert.equal("3", render("{{ 1\r\n+\r\n2 }}"))
    end)

    it("give a single value", function()
        assert.equal("b", render("{{ ('a'):gsub('a', 'b') }}"))
        assert.equal("b", render("{{ ('a'):gsub('a', 'b') | trim }}"))
    end)

    it("take | in parentheses and strings for Lua's own", function()
        assert.equal("a|b", render("{{ ('a|b') }}"))
        assert.equal("A|B", render("{{ 'a|b' | upper }}"))
        if _VERSION ~= "Lua 5.1" then assert.equal("7", render("{{ (5 | 2) }}")) end
    end)

    it("never escape HTML unless asked", function()
        assert.equal("<&> &lt;&amp;&gt;", render("{{ x }} {{ x | html }}", { x = "<&>" }))
    end)

    for source, message in pairs {
        ["{{ }}"] = "the expression is empty", ["{{ | upper }}"] = "the expression is empty",
        ["{{ x"] = "the tag is not closed", ["{{ 'x }}"] = "unfinished string",
        ["{{ [[x }}"] = "unfinished long string", ["{{ x) .. (y }}"] = "unbalanced ')'",
        ["{{ x | }}"] = "name of a filter is missing",
        ["{{ x | 1 }}"] = "name of a filter is missing",
        ["{{ x | nonsense }}"] = "unknown filter 'nonsense'",
        ["{{ x | upper lower }}"] = "malformed arguments of the filter 'upper'",
        ["{{ x + }}"] = "unexpected symbol", ["{{ x y }}"] = "')' expected",
        ["{{ x = 1 }}"] = "')' expected", ["{{ return }}"] = "unexpected symbol",
    } do
        it("are refused when malformed: " .. source, function()
            local compiled, err = template.compile("\n\n" .. source, { name = "a.tmpl" })
            assert.is_nil(compiled)
            assert.equal("template", err.code)
            assert.equal("a.tmpl", err.path)
            assert.equal(3, err.line)
            assert.is_not_nil(err.message:find(message, 1, true), err.message)
        end)
    end

    it("refuse to print a table or a function", function()
        assert.equal("cannot print a table; pass it through a filter such as join or json: x",
            failure("{{ x }}", { x = { "s3cret" } }).message)
        assert.matches("cannot print a function", failure("{{ f }}", { f = print }).message)
    end)
end)

describe("template statements", function()
    it("run Lua across tags", function()
        assert.equal("1:a;2:b;", render(
            "{% for i, x in ipairs(list) do %}{{ i }}:{{ x }};{% end %}", { list = { "a", "b" } }))
        assert.equal("no", render("{% if x then %}yes{% else %}no{% end %}", { x = false }))
        assert.equal("a-b-", render(
            "{% each(list, function(x) %}{{ x }}-{% end) %}",
            { list = { "a", "b" }, each = function(list, f) f(list[1]) f(list[2]) end }))
    end)

    it("may start with a parenthesis", function()
        assert.equal("x", render("{% local s = '' %}{% (function() s = 'x' end)() %}{{ s }}"))
        assert.equal("ax", render("a{% (function() s = 'x' end)() %}{{ s }}"))
    end)

    it("set names for the rest of the template", function()
        assert.equal("1 2", render("{% x = 1 %}{{ x }} {% local y = 2 %}{{ y }}"))
    end)

    it("do not change the caller's context", function()
        local context = { list = { 1, 2 }, map = { a = { b = 1 } } }
        assert.equal("3", render(
            "{% table.insert(list, 3) map.a.b = 2 map.c = 1 new = 1 %}{{ #list }}", context))
        assert.same({ list = { 1, 2 }, map = { a = { b = 1 } } }, context)
    end)

    it("go through tables in the order of their keys", function()
        local map = { [1] = "x", [10] = "y" }
        for _, key in ipairs { "b", "a", "B", "é", "aa" } do map[key] = key end
        for _ = 1, 5 do
            assert.equal("1 10 B a aa b é ",
                render("{% for k in pairs(m) do %}{{ k }} {% end %}", { m = map }))
        end
    end)

    it("have pure functions and no others", function()
        assert.equal("X 2 1,2", render(
            "{{ string.upper('x') }} {{ math.floor(2.5) }} {{ table.concat({ 1, 2 }, ',') }}"))
        assert.equal("2", render("{{ select('#', table.unpack({ 1, 2 })) }}"))
        for _, name in ipairs {
            "io", "os", "load", "loadstring", "loadfile", "dofile", "require", "package", "debug",
            "rawset", "rawget", "setmetatable", "getmetatable", "setfenv", "getfenv", "_G",
            "collectgarbage", "print", "coroutine", "ffi", "jit", "string.dump", "math.random",
        } do
            assert.is_not_nil(failure("{{ type(" .. name .. ") }}"), name)
        end
    end)

    it("cannot change the libraries of the process", function()
        render("{% string.format = nil table.concat = 1 math.pi = 3 %}")
        assert.is_function(string.format)
        assert.is_function(table.concat)
        assert.is_true(math.pi > 3.1)
        assert.equal("x", render("{{ string.format('x') }}"))
    end)

    it("let the context shadow a function", function()
        assert.equal("web", render("{{ type }}", { type = "web" }))
    end)
end)

describe("template white space", function()
    for _, case in ipairs {
        { "a statement alone in its line", "a\n{% x = 1 %}\nb\n", "a\nb\n" },
        { "an indented statement alone in its line", "a\n \t{% x = 1 %} \t\nb\n", "a\nb\n" },
        { "a comment alone in its line", "a\n  {# c #}\nb\n", "a\nb\n" },
        { "a comment over several lines", "a\n{# c\nd\n#}\nb\n", "a\nb\n" },
        { "a statement over several lines", "a\n{% x =\n 1\n%}\nb\n", "a\nb\n" },
        { "statements in lines that follow each other",
            "{% x = 1 %}\n{% y = 1 %}\n{# c #}\nb\n", "b\n" },
        { "several tags in one line of their own",
            "a\n{% x = 1 %} {# c #}{% y = 1 %}\nb\n", "a\nb\n" },
        { "the first line", "{% x = 1 %}\nb", "b" },
        { "the last line without newline", "a\n{% x = 1 %}", "a\n" },
        { "the last line without newline, indented", "a\n  {% x = 1 %}  ", "a\n" },
        { "CR LF", "a\r\n{% x = 1 %}\r\nb\r\n", "a\r\nb\r\n" },
        { "a loop", "a\n{% for i = 1, 2 do %}\n  {{ i }}\n{% end %}\nb\n", "a\n  1\n  2\nb\n" },
        { "blank lines around", "a\n\n{% x = 1 %}\n\nb\n", "a\n\n\nb\n" },
    } do
        it("of " .. case[1] .. " leaves no blank line", function()
            assert.equal(case[3], render(case[2]))
        end)
    end

    for _, case in ipairs {
        { "text before a statement", "a {% x = 1 %}\nb\n", "a \nb\n" },
        { "text after a statement", "a\n {% x = 1 %} b\n", "a\n  b\n" },
        { "an expression before a statement", "{{ 1 }}{% x = 1 %}\nb", "1\nb" },
        { "an expression after a statement", "{% x = 1 %} {{ 1 }}\nb", " 1\nb" },
        { "an expression and a blank before a statement", "{{ 1 }} {% x = 1 %}\nb", "1 \nb" },
        { "an expression alone", "a\n {{ '' }}\nb", "a\n \nb" },
        { "text within two statements", "{% x = 1 %}a{% x = 1 %}\nb", "a\nb" },
        { "the inside of a raw block", "{% raw %}  {% endraw %}\nb", "  \nb" },
    } do
        it("stays with " .. case[1], function()
            assert.equal(case[3], render(case[2]))
        end)
    end

    for _, case in ipairs {
        { "a \n {{- 1 }} \n b", "a1 \n b" }, { "a \n {{ 1 -}} \n b", "a \n 1b" },
        { "a \n {{- 1 -}} \n b", "a1b" },
        { "a \n {%- x = 1 %} \n b", "a \n b" }, { "a \n {% x = 1 -%} \n b", "a \n b" },
        { "a \n {%- x = 1 -%} \n b", "ab" },
        { "a \n {#- c #} \n b", "a \n b" }, { "a \n {#- c -#} \n b", "ab" }, { "a {#-#} b", "a b" },
        { "{{- 'x' -}}", "x" }, { "a {{-'x'-}} b", "axb" },
        { "a {{-1}} b", "a -1 b" }, { "a {{-.5}} b", "a -0.5 b" }, { "a {{- -1 -}} b", "a-1b" },
        { "a {%- raw -%} x {%- endraw -%} b", "axb" },
    } do
        it(("is trimmed on the side of a dash: %q"):format(case[1]), function()
            assert.equal(case[2], render(case[1]))
        end)
    end
end)

describe("template undefined names", function()
    local context = { a = { b = { c = 1 } }, list = { "x" }, empty = {} }

    for _, case in ipairs {
        { "{{ nope }}", "undefined: nope" }, { "{{ nope.x }}", "undefined: nope" },
        { "{{ a.nope }}", "undefined: a.nope" }, { "{{ a.b.nope }}", "undefined: a.b.nope" },
        { "{{ a['nope'] }}", "undefined: a.nope" }, { "{{ list[2] }}", "undefined: list[2]" },
        { "{{ nope | upper }}", "undefined: nope" },
        { "{{ list[2] | upper }}", "undefined: list[2]" },
        { "{% if nope then %}{% end %}", "undefined: nope" },
        { "{% if a.nope then %}{% end %}", "undefined: a.nope" },
        { "{% nope() %}", "undefined: nope" }, { "{{ nil }}", "undefined: nil" },
        { "{{ nope | upper | default('x') | nope }}", "unknown filter 'nope'" },
    } do
        it("are errors with file and line: " .. case[1], function()
            local err = failure("line 1\n\n" .. case[1], context, { name = "dir/a.tmpl" })
            assert.equal("template", err.code)
            assert.equal("dir/a.tmpl", err.path)
            assert.equal(3, err.line)
            assert.equal(case[2], err.message)
            assert.equal("dir/a.tmpl:3: " .. case[2], tostring(err))
        end)
    end

    it("are tolerated by default", function()
        for _, expression in ipairs {
            "nope", "nope.x", "nope.x.y", "a.nope", "a.nope.x", "a.b.c.d", "list[2]", "list[2].x",
            "list[2].x.y", "a[nope]", "nope | upper", "nope | upper | lower", "f()",
        } do
            assert.equal("d", render("{{ " .. expression .. " | default('d') }}",
                { a = { b = { c = {} } }, list = {}, f = function() end }), expression)
        end
    end)

    it("do not replace what is defined by its default", function()
        assert.equal("1  false 0", render(
            "{{ a | default(2) }} {{ b | default(2) }} {{ c | default(2) }} {{ d | default(2) }}",
            { a = 1, b = "", c = false, d = 0 }))
        assert.equal("2 2 0", render(
            "{{ b | default(2, true) }} {{ c | default(2, true) }} {{ d | default(2, true) }}",
            { b = "", c = false, d = 0 }))
    end)

    it("are tolerated as the argument of a default that is not needed", function()
        assert.equal("x", render("{{ 'x' | default(env.NOPE) }}", { env = {} }))
        assert.equal("x z y", render("{{ 'x' | default(env.NOPE) | default('z') }} "
            .. "{{ no | default(env.NOPE) | default('z') }} "
            .. "{{ no | default(env.YES) | default('z') }}", { env = { YES = "y" } }))
        assert.equal("undefined: env.NOPE",
            failure("{{ no | default(env.NOPE) }}", { env = {} }).message)
        assert.equal("1", render("{% function f(...) %}{{ no | default(...) }}{% end f(1) %}"))
        assert.equal("[x] [2]", render("{{ 'x' | default(1) }} {{ no | default(2) }}", {},
            { filters = { default = function(x, y) return "[" .. (x or y) .. "]" end } }))
    end)

    it("leave other errors to be errors before default", function()
        assert.matches("arithmetic", failure("{{ (a + 1) | default(1) }}", { a = {} }).message)
        assert.matches("boom", failure("{{ f() | default(1) }}",
            { f = function() error("boom") end }).message)
        local function careless() local t = nil return t.x end
        assert.matches("index", failure("{{ f() | default(1) }}", { f = careless }).message)
    end)

    it("can be asked for", function()
        for path, expected in pairs {
            ["a"] = true, ["a.b.c"] = true, ["list.1"] = true, ["empty"] = true, ["no"] = true,
            ["nope"] = false, ["a.nope"] = false, ["a.b.c.d"] = false, ["nope.x"] = false,
            ["list.2"] = false, ["a.b.c.d.e"] = false, ["string"] = false, [""] = false,
        } do
            assert.equal(tostring(expected), render(("{{ defined(%q) }}"):format(path),
                { a = { b = { c = 1 } }, list = { "x" }, empty = {}, no = false }), path)
        end
        assert.equal("true", render("{% x = 1 %}{{ defined('x') }}"))
    end)

    it("can be asked for in a local of the template", function()
        assert.equal("true false false true,", render("{% for _, s in ipairs(list) do %}"
            .. "{{ defined(s, 'a') }} {{ defined(s, 'b') }} {{ defined(s, 'b.c') }} "
            .. "{{ defined(s, 'a.1') }},{% end %}", { list = { { a = { 1 } } } }))
        assert.equal('defined does not see the local s: write defined(s, "a.b")',
            failure("{% local s = {} %}{{ defined('s.a.b') }}").message)
        assert.equal("true", render("{% local s = {} %}{{ defined('s.a') }}", { s = { a = 1 } }))
        assert.matches("needs a name", failure("{{ defined(s, 1) }}", { s = {} }).message)
    end)

    it("are refused by required, with its message", function()
        assert.equal("template:1: set NAME: env.NAME",
            tostring(failure("{{ env.NAME | required('set NAME') }}", { env = {} })))
        assert.matches("required value", failure("{{ x | required }}", { x = "" }).message)
        assert.equal("v", render("{{ x | required('m') }}", { x = "v" }))
    end)

    it("include the nulls of decoders", function()
        local null = require("cjson").null
        assert.equal("undefined: x.y", failure("{{ x.y }}", { x = { y = null } }).message)
        assert.equal("d false", render("{{ x | default('d') }} {{ defined('x') }}", { x = null }))
        assert.equal('{"a":null}', render("{{ x | json }}", { x = { a = null } }))
    end)

    it("do not show names that come from the context", function()
        local err = failure("{{ labels[env.KEY] }}", { labels = {}, env = { KEY = "s3cret" } })
        assert.equal("undefined: labels.(computed string)", err.message)
    end)
end)

describe("template errors", function()
    it("name the line of the template, also within a tag of several lines", function()
        for source, line in pairs {
            ["\n\n{% local x = 1\nlocal y = nope %}"] = 4, ["{{\n\nnope\n}}"] = 3,
            ["{% for i = 1, 3 do %}\n{% if i == 2 then %}\n{{ nope }}\n{% end %}{% end %}"] = 3,
            ["a\n{# \n\n #}\n{{ nope }}"] = 5, ["{% raw %}\n\n{% endraw %}\n{{ nope }}"] = 4,
            ["{{ 1 |\n default(\n 2\n) \n |\n\n upper\n}}\n{{ nope }}"] = 9,
            ["{{ --[[\n\n]] 1 }}\n{{ nope }}"] = 4, ["{{ --[[\n\n]] nope }}"] = 3,
            ["{{ 1 -- c\n }}\n{{ nope }}"] = 3,
            ["\r\n{{ 'x' \r\n }}\r\n{{ nope }}"] = 4, ["{{ [[\n\n]] }}\n{{ nope }}"] = 4,
            ["{{ 1\r+\r1 }}\n{{ nope }}\n{{ 1 }}\n{{ 1 }}"] = 2,
            ["{{ 'a\\\n' }}\n{{ nope }}"] = 3, ["{% include\n\n 'p' %}\n{{ nope }}"] = 4,
        } do
            local err = failure(source, {}, { loader = function() return "" end })
            assert.equal("undefined: nope", err.message)
            assert.equal(line, err.line, source)
        end
        assert.equal(2, failure("\n{{ 1 + {} }}\n").line)
        assert.equal(2, failure("\n{{ 1 | upper | join }}\n").line)
    end)

    it("name the line of what does not compile", function()
        for source, expected in pairs {
            ["\n{% if x %} \nx{% end %}"] = { 2, "'then' expected near the end of the tag" },
            ["\n\n{% end %}\n"] = { 3, "'?<eof>'? expected near 'end'" },
            ["{% if x then %}\n\n{% for i = 1, 2 do %}\n\n{{ i }}"] =
                { 5, "'end' expected %(to close 'for' at line 3%)" },
            ["{{ 1 }}{{ 2 }}\n{% if x then %}\n{% for i = 1, 2 do %}\n\n{{ i }}"] =
                { 5, "'end' expected %(to close 'for' at line 3%)" },
            ["\n{% x = = 1 %}\n\n"] = { 2, "unexpected symbol near '='" },
            ["\n{% x = 1"] = { 2, "the tag is not closed" },
            ["\n{% x = 'a\n' %}"] = { 2, "unfinished string" },
            ["\n{# x\n\n"] = { 2, "the comment is not closed" },
            ["\n{% raw %}\n\n"] = { 2, "the raw block is not closed" },
            ["\n\n{% endraw %}"] = { 3, "endraw without raw" },
            ["\n{% include %}"] = { 2, "include needs the name" },
        } do
            local compiled, err = template.compile(source)
            assert.is_nil(compiled)
            assert.equal(expected[1], err.line, source)
            assert.matches(expected[2], err.message)
        end
    end)

    it("survive a name longer than Lua keeps", function()
        local name = ("d/"):rep(100) .. "a.tmpl"
        local function message(source) return tostring(failure(source, {}, { name = name })) end
        assert.equal(name .. ":2: undefined: x", message("\n{{ x }}"))
        assert.matches("^" .. name .. ":2: unexpected symbol", message("\n{{ + }}"))
        assert.matches("^" .. name .. ":2: attempt to call", message("\n{{ ({})() }}"))
    end)

    it("never show a value of the context", function()
        for _, source in ipairs {
            "{{ x + 1 }}", "{{ x.y.z }}", "{{ x() }}", "{{ x < 1 }}", "{{ {} .. x }}", "{{ t[x] }}",
            "{{ x | join }}", "{{ x | keys }}", "{{ x | sort }}", "{{ x | base64decode }}",
            "{{ x | indent(x) }}", "{{ x | indent('a') }}", "{{ #nil .. x }}", "{% include x %}",
            "{{ string.rep(x, {}) }}", "{{ ('%d'):format(x) }}", "{% t[x].y = 1 %}",
            "{% for i = 1, x do %}{% end %}", "{% for _ in pairs(x) do %}{% end %}",
            "{{ { [x] = 1 } }}", "{{ math.floor(x) }}", "{% string[x]() %}",
        } do
            local err = failure(source, { x = "s3cret", t = {} })
            assert.is_nil(tostring(err):find("s3cret", 1, true), tostring(err))
        end
    end)

    it("name the expression or the statement that failed", function()
        for source, message in pairs {
            ["{{ 1 }}{{ a + b }}{{ 2 }}"] = "attempt to .*: a %+ b$",
            ["{{ a < 1 | upper }}"] = "attempt to compare .*: a < 1$",
            ["{% if true then %}{% local c = a .. a %}{% end %}"] =
                "attempt to concatenate .*: local c = a .. a$",
            ["{% if a()\n  then %}{% end %}"] = "attempt to call .*: if a%(%) then$",
            ["{{ 1 }}{% include(1) %}"] = "include needs a name as a string$",
            ["{{ include(1) }}"] = "include needs a name as a string$",
            ["{{ f('" .. ("x"):rep(100) .. "') }}"] = "boom: f%('x+…$",
            ["{{ 1 }}\n{{ f(\n2,\n3) }}"] = "boom: f%( 2, 3%)$",
            ["{% error('no backend') %}"] = "^no backend$",
            ["{% assert(1) assert(false, 'no backend') %}"] = "^no backend$",
            ["{% assert(nil) %}"] = "^assertion failed$",
            ["{% error({}) %}"] = "^the error is a table: error%({}%)$",
        } do
            local err = failure(source, { a = {}, b = 1, f = function() error("boom", 0) end })
            assert.matches(message, err.message, source)
        end
    end)

    it("keep a message that looks like a place", function()
        local err = failure("{{ f() }}", { f = function() error("see db:5432: refused", 0) end })
        assert.equal("see db:5432: refused: f()", err.message)
    end)

    it("end an endless recursion", function()
        local err = failure("{% function f() return 1 + f() end %}\n{{ f() }}")
        assert.equal("template", err.code)
        assert.matches("stack overflow", err.message)
    end)
end)

describe("template includes", function()
    local function opts(files, name)
        return { name = name or "main.tmpl", loader = loader(files) }
    end

    it("are relative to the including file and see its context", function()
        assert.equal("[b:1 c:1]", render('[{% include "sub/b" %}]', { x = 1 }, opts {
            ["sub/b"] = 'b:{{ x }} {% include "deep/c" %}', ["sub/deep/c"] = "c:{{ x }}",
        }))
        assert.equal("abs",
            render('{% include "/abs" %}', {}, opts({ ["/abs"] = "abs" }, "dir/main")))
    end)

    it("take any expression for the name", function()
        assert.equal("1", render('{% include "p" .. n %}', { n = 1 }, opts { p1 = "1" }))
        assert.equal("12", render('{% for i = 1, 2 do %}{% include(names[i]) %}{% end %}',
            { names = { "a", "b" } }, opts { a = "1", b = "2" }))
    end)

    it("alone in a line take its place, whether or not they end with a newline", function()
        assert.equal("a\nx\nb\n", render('a\n  {% include "p" %}\nb\n', {}, opts { p = "x\n" }))
        assert.equal("a\nx\nb\n", render('a\n{% include "p" %}\nb\n', {}, opts { p = "x" }))
        assert.equal("a\r\nx\r\nb", render('a\r\n{% include "p" %}\r\nb', {}, opts { p = "x" }))
        assert.equal("a\nb\n", render('a\n{% include "p" %}\nb\n', {}, opts { p = "" }))
        assert.equal("a x b\n", render('a {% include "p" %} b\n', {}, opts { p = "x" }))
    end)

    it("can be expressions, to be passed through filters", function()
        assert.equal("a:\n  x\n  y\n",
            render('a:{{ include("p") | nindent(2) }}', {}, opts { p = "x\ny\n" }))
        assert.equal("[1][2]", render('{{ include("sub/p") }}{{ include("q") }}', {},
            opts { ["sub/p"] = '[{{ include("q") }}]', ["sub/q"] = "1", q = "[2]" }))
    end)

    it("see the names that were set before", function()
        assert.equal("1", render('{% x = 1 %}{% include "p" %}', {}, opts { p = "{{ x }}" }))
    end)

    it("name their own file and line in errors, and who included them", function()
        local err = failure('\n{% include "b" %}', {}, opts {
            b = '\n\n{% include "c" %}', c = "\n\n\n{{ nope }}",
        })
        assert.equal("c", err.path)
        assert.equal(4, err.line)
        assert.same({ "b:3", "main.tmpl:2" }, err.included_from)
        assert.equal("c:4: undefined: nope (included from b:3, main.tmpl:2)", tostring(err))
    end)

    it("name their own file and line when they do not compile", function()
        local err = failure('\n{% include "b" %}', {}, opts { b = "\n\n{{ + }}" })
        assert.equal("b", err.path)
        assert.equal(3, err.line)
        assert.same({ "main.tmpl:2" }, err.included_from)
    end)

    it("are errors of the including line when they are missing", function()
        local err = failure('\n{% include "nope.tmpl" %}', {}, opts {})
        assert.equal("main.tmpl:2: cannot include nope.tmpl: No such file or directory",
            tostring(err))
        assert.matches("name as a string", failure("{% include 1 %}", {}, opts {}).message)
    end)

    it("are not made up for by default when they fail inside", function()
        local err = failure('{{ include("b") | default("d") }}', {}, opts { b = "{{ nope }}" })
        assert.equal("b:1: undefined: nope (included from main.tmpl:1)", tostring(err))
    end)

    it("must not go in circles, however the circle is spelled", function()
        local err = failure('{% include "a" %}', {}, opts {
            a = '{% include "./b" %}', ["./b"] = '{% include ".//a" %}', ["././/a"] = "{{ 1 }}",
        })
        assert.equal("b", err.path:match("%w+$"))
        assert.matches("a template includes itself: a %-> %./b %-> %./%.//a", err.message)
        assert.matches("includes itself", failure('{% include "main.tmpl" %}', {},
            opts { ["main.tmpl"] = "x" }).message)
    end)

    it("must not go too deep", function()
        local count = 0
        local function endless(name)
            count = count + 1
            return '{% include "x" %}', name .. count
        end
        assert.matches("too deeply", failure('{% include "x" %}', {}, { loader = endless }).message)
    end)

    it("may be repeated one after the other", function()
        assert.equal("xx", render('{% include "p" %}{% include "p" %}', {}, opts { p = "x" }))
    end)
end)

describe("template options", function()
    it("change delimiters, for includes too", function()
        local delimiters = {
            expression = { "<<", ">>" }, statement = { "<%", "%>" }, comment = { "<#", "#>" },
        }
        assert.equal("{{ x }} 1 {% y %} 1", render(
            '{{ x }} << x >> {% y %} <# c #><% if true then %><% include "p" %><% end %>',
            { x = 1 }, { delimiters = delimiters, loader = loader { p = "<< x >>" } }))
    end)

    it("compiles a source once with a cache, and again when it has changed", function()
        local cache, files = {}, { part = "one" }
        local function text(source)
            local opts = { name = "main", loader = loader(files), cache = cache }
            return assert(assert(template.compile(source, opts)):render())
        end
        assert.equal("a one", text 'a {% include "part" %}')
        local main, part = cache.main, cache.part
        assert.is_table(main)
        assert.is_table(part)
        assert.equal("a one", text 'a {% include "part" %}')
        assert.equal(main, cache.main)
        assert.equal(part, cache.part)
        files.part = "two"
        assert.equal("a two", text 'a {% include "part" %}')
        assert.equal(main, cache.main)
        assert.not_equal(part, cache.part)
        assert.equal("b two", text 'b {% include "part" %}')
    end)

    it("take closing delimiters that are Lua's brackets", function()
        assert.equal("2 {{ x }}", render("[[ a[b[1]] ]] {{ x }}", { a = { 1, 2 }, b = { 2 } },
            { delimiters = { expression = { "[[", "]]" } } }))
    end)

    it("take the longer of two openers", function()
        local delimiters = { expression = { "<%=", "%>" }, statement = { "<%", "%>" } }
        assert.equal("1", render("<%= x %><% y = 1 %>", { x = 1 }, { delimiters = delimiters }))
    end)

    it("take ${ before a comment that opens otherwise for text", function()
        assert.equal("${}", render("${/* c */}", {}, { delimiters = { comment = { "/*", "*/" } } }))
    end)

    it("add filters and replace them", function()
        local filters = { twice = function(x, sep) return x .. sep .. x end, upper = string.lower }
        assert.equal("a-a b",
            render("{{ 'a' | twice('-') }} {{ 'B' | upper }}", {}, { filters = filters }))
        assert.equal("A", render("{{ 'a' | upper }}"))
    end)

    it("name filter, template and line when a filter of one's own fails", function()
        local filters = {
            bad = function() error("no", 0) end, worse = function(x) return x.y.z end,
            odd = function() error({}) end,
        }
        local opts = { name = "a.tmpl", filters = filters }
        opts.loader = loader { b = "\n{{ x | bad }}" }
        local function message(source) return tostring(failure(source, { x = {} }, opts)) end
        assert.equal("a.tmpl:2: filter 'bad': no: x", message("\n{{ x | bad }}"))
        assert.equal("a.tmpl:2: filter 'bad': no: x", message("\n{{ x | bad | upper }}"))
        assert.equal("b:2: filter 'bad': no: x (included from a.tmpl:1)",
            message("{% include 'b' %}"))
        assert.equal("a.tmpl:1: undefined: x.(computed string)", message("{{ x | worse }}"))
        assert.matches("^a.tmpl:1: filter 'worse': .*template_spec.lua:%d+: attempt to index",
            message("{{ 5 | worse }}"))
        assert.equal("a.tmpl:1: filter 'odd': the error is a table: x", message("{{ x | odd }}"))
    end)

    it("have filters of one's own that know nil and several arguments", function()
        local filters = { count = function(...) return select("#", ...) end }
        assert.equal("3 1", render("{{ 1 | count(nil, nil) }} {{ 1 | count }}", {},
            { filters = filters }))
    end)

    it("raise at the caller's line when they are wrong", function()
        local function raises(call, ...)
            local arguments = { ... }
            local ok, message = pcall(function()
                return call(arguments[1], arguments[2], arguments[3]), nil
            end)
            assert.is_false(ok)
            assert.matches("template_spec.lua:%d+: ", message)
        end
        raises(template.compile, 1)
        raises(template.render_file)
        raises(template.render_file, "x", 1)
        raises(template.compile("").render, template.compile(""), 1)
        for _, opts in ipairs {
            1, { nonsense = 1 }, { name = 1 }, { loader = 1 }, { filters = 1 },
            { filters = { x = 1 } }, { filters = { ["a b"] = print } },
            { delimiters = { x = { "a", "b" } } },
            { delimiters = { comment = { "a" } } }, { delimiters = { comment = { "", "b" } } },
            { delimiters = { comment = { "{{", "}}" } } },
        } do
            raises(template.compile, "", opts)
            raises(template.render_file, "x", {}, opts)
        end
    end)
end)

describe("template filters", function()
    for _, case in ipairs {
        { "'aé1' | upper", "Aé1" }, { "'AB' | lower", "ab" },
        { "5 | upper", "5" }, { "true | upper", "TRUE" },
        { "' \\n a b\\t ' | trim", "a b" },
        { "'a\\n\\nb\\n' | indent(2)", "  a\n\n  b\n" }, { "'a' | indent", "    a" },
        { "'a\\nb' | nindent(2)", "\n  a\n  b" }, { "'a' | indent(0)", "a" },
        { "{ 1, 'b', true } | join", "1,b,true" }, { "{ 1, 2 } | join(' / ')", "1 / 2" },
        { "{} | join", "" },
        { "'a.b..c' | split('.') | join('|')", "a|b||c" }, { "' a  b\\n' | split | join", "a,b" },
        { "'' | split(',') | json", '[""]' }, { "'' | split | json", "{}" },
        { "'a.b.c' | replace('.', '%1')", "a%1b%1c" }, { "'aaa' | replace('aa', '')", "a" },
        { [['a"b\\c\n' | quote]], [["a\"b\\c\n"]] },
        { [["a'b\"" | squote]], [['a''b"']] },
        { [["it's $x" | shell]], [['it'\''s $x']] }, { "'' | shell", "''" },
        { [[{ "a b", "c" } | shell]], "'a b' 'c'" },
        { "'' | base64", "" }, { "'f' | base64", "Zg==" }, { "'fo' | base64", "Zm8=" },
        { "'foobar' | base64", "Zm9vYmFy" }, { "'\\0\\255\\254' | base64", "AP/+" },
        { "'Zm9vYg==' | base64decode", "foob" }, { "'Zm9v\\r\\nYmE=\\n' | base64decode", "fooba" },
        { "'' | base64decode", "" },
        { [["<a href='x'>&\"" | html]], "&lt;a href=&#39;x&#39;&gt;&amp;&#34;" },
        { "'a b/é?~-._' | urlencode", "a%20b%2F%C3%A9%3F~-._" },
        { "'/a/b.c' | basename", "b.c" }, { "'a/' | basename", "a" }, { "'/' | basename", "/" },
        { "'a' | basename", "a" }, { "'' | basename", "" },
        { "'/a/b.c' | dirname", "/a" }, { "'a//b/' | dirname", "a" }, { "'/a' | dirname", "/" },
        { "'a' | dirname", "." }, { "'/' | dirname", "/" }, { "'' | dirname", "." },
        { "{ 'b', 10, 'B', 9, 'a' } | sort | join", "9,10,B,a,b" },
        { "{ { n = 'b' }, { n = 'a' } } | sort('n') | json", '[{"n":"a"},{"n":"b"}]' },
        { "{ b = 1, a = 1, [2] = 1 } | keys | join", "2,a,b" },
        { "'a\\r\\n\\nb' | lines | json", '["a","","b"]' }, { "'a\\n' | lines | json", '["a"]' },
        { "'' | lines | json", "{}" }, { "'a\\r\\nb' | lines | json", '["a","b"]' },
        { "'\\n\\n' | lines | json", '["",""]' }, { "'a\\rb' | lines | json", '["a\\rb"]' },
        { "'a\"\\n\\t' | shell", "'a\"\n\t'" }, { "{} | shell", "" },
        { "8080 | shell", "'8080'" },
        { "'a\\nb' | squote", "'a\nb'" }, { "'' | squote", "''" }, { "'' | quote", '""' },
        { "'a//b' | split('/') | json", '["a","","b"]' }, { "',' | split(',') | json", '["",""]' },
        { "'a b' | replace(' ', '')", "ab" }, { "'a' | replace('b', 'c')", "a" },
        { "'100%' | replace('%', '%%')", "100%%" }, { "'a.b' | split('%.') | json", '["a.b"]' },
        { "'' | indent", "" }, { "'a' | nindent(0)", "\na" },
        { "'a\\r\\nb' | indent(1)", " a\r\n b" },
        { "'//' | basename", "/" }, { "'a/b//' | basename", "b" }, { "'//a' | dirname", "/" },
        { "'//' | dirname", "/" }, { "'a/' | dirname", "." }, { "'/a/' | basename", "a" },
        { "{ true, 'a', 2, false, '1' } | sort | join", "2,1,a,false,true" },
        { "{} | sort | json", "{}" }, { "{} | keys | join", "" },
        { "{ 'a', 'b' } | keys | join", "1,2" },
        { "{ a = { d = 1, c = { 2 } }, ['0'] = 0 } | json", '{"0":0,"a":{"c":[2],"d":1}}' },
        { "{ b = { 1, 2.5 }, a = 'x' } | json", '{"a":"x","b":[1,2.5]}' },
        { "{ {}, { a = {} } } | json(2)", '[\n  {},\n  {\n    "a": {}\n  }\n]' },
        { "'\\1\\127é\\n/' | json", '"\\u0001\\u007fé\\n/"' }, { "1e3 | json", "1000" },
        { "{ [1] = 1, [3] = 3 } | json", '{"1":1,"3":3}' }, { "true | json", "true" },
    } do
        it(("give for %s: %s"):format(case[1], case[2]), function()
            assert.equal(case[2], render("{{ " .. case[1] .. " }}"))
        end)
    end

    for _, case in ipairs {
        { "{} | upper", "filter 'upper': the value must be a string, got a table" },
        { "'x' | join", "filter 'join': the value must be a list, got a string" },
        { "{ {} } | join", "filter 'join': each item must be a string, got a table" },
        { "'a' | split('')", "filter 'split': the separator is empty" },
        { "'a' | indent(-1)", "filter 'indent': the width must be a whole number" },
        { "'a' | nindent('x')", "filter 'nindent': the width must be a whole number" },
        { "'a' | replace", "filter 'replace': what to replace must be a string, got a nil" },
        { "'a\\0' | shell", "filter 'shell': the value contains a NUL byte" },
        { "'Zg=' | base64decode", "filter 'base64decode': the value is not valid base64" },
        { "'Z===' | base64decode", "filter 'base64decode': the value is not valid base64" },
        { "'Zg==Zg==' | base64decode", "filter 'base64decode': the value is not valid base64" },
        { "'Zm9v YmE' | base64decode", "filter 'base64decode': the value is not valid base64" },
        { "(0/0) | json", "filter 'json': cannot encode a number that is not finite" },
        { "type | json", "filter 'json': cannot encode a function" },
    } do
        it("refuse " .. case[1], function()
            local expression = case[1]:match("^(.-) |")
            assert.equal(case[2] .. ": " .. expression,
                failure("{{ " .. case[1] .. " }}").message)
        end)
    end

    it("refuse a table that contains itself", function()
        local loop = {}
        loop.loop = loop
        assert.equal("filter 'json': a table contains itself: x",
            failure("{{ x | json }}", { x = loop }).message)
        local twice = {}
        assert.equal('[{},{}]', render("{{ x | json }}", { x = { twice, twice } }))
    end)

    it("decode what they encode", function()
        local bytes = {}
        for code = 0, 255 do bytes[#bytes + 1] = string.char(code) end
        local all = table.concat(bytes)
        for length = 0, 256 do
            local text = all:sub(1, length)
            assert.equal(text, render("{{ x | base64 | base64decode }}", { x = text }))
        end
        assert.equal(all, require("cjson").decode(render("{{ { x } | json }}", { x = all }))[1])
    end)

    it("write YAML that reads back as it was, with keys in order", function()
        local lyaml = require "lyaml"
        local value = {
            strings = {
                "plain", "", "yes", "1", "1.5", "null", "~", "a: b", "# c", " x ", "- y", "é", "'",
                '"', "l1\nl2\n", "l1\n\n", "\n", "a\tb", "0x10", "1_000", "12:30", "!t", "&a", "*a",
                "{}", "=", "a #b", "a:b", "x: ",
            },
            numbers = { 1, -2.5, 1e300 }, flags = { true, false },
            nested = { a = { b = { c = "d" } } },
            ["a key: odd"] = "x",
        }
        local text = render("{{ x | yaml }}\n", { x = value })
        assert.same(value, lyaml.load(text))
        assert.equal('b: 1\nc:\n- "Y"\n- z: "no"',
            render("{{ x | yaml }}", { x = { c = { "Y", { z = "no" } }, b = 1 } }))
        assert.equal("a: |\n  l1\n  l2", render("{{ x | yaml }}", { x = { a = "l1\nl2\n" } }))
        for _, scalar in ipairs { "x", "", 1, true, "a\nb" } do
            assert.same(scalar, lyaml.load(render("{{ x | yaml }}\n", { x = scalar })))
        end
    end)

    it("name the package when YAML is missing", function()
        local saved = package.loaded.yaml
        package.loaded.yaml = nil
        package.preload.yaml = function() error("not installed") end
        local err = failure("{{ 1 | yaml }}")
        package.loaded.yaml, package.preload.yaml = saved, nil
        assert.matches("filter 'yaml': it needs the package lyaml", err.message)
    end)

    it("refuses invalid UTF-8 for yaml before libyaml sees it, and does not show it", function()
        for _ = 1, 50 do
            local err = failure("{{ x | yaml }}", { x = { a = { "hunter2\255" } } })
            assert.matches("filter 'yaml': a string is not valid UTF%-8", err.message)
            assert.not_matches("hunter2", err.message)
        end
    end)
end)

describe("template.render_file", function()
    local path

    before_each(function() path = os.tmpname() end)
    after_each(function() os.remove(path) os.remove(path .. ".part") end)

    local function write(name, text)
        local file = assert(io.open(name, "wb"))
        file:write(text)
        file:close()
    end

    it("renders a file, with includes relative to it", function()
        write(path, '{{ x }} {% include "' .. path:match("[^/]*$") .. '.part" %}')
        write(path .. ".part", "part {{ x }}")
        assert.equal("1 part 1", template.render_file(path, { x = 1 }))
    end)

    it("names the file in errors, unless told otherwise", function()
        write(path, "\n{{ x }}")
        local _, err = template.render_file(path, {})
        assert.equal(path .. ":2: undefined: x", tostring(err))
        _, err = template.render_file(path, {}, { name = "n" })
        assert.equal("n:2: undefined: x", tostring(err))
    end)

    it("reads it, and what it includes, where an observer sees it", function()
        local seen = {}
        local name = path:match("[^/]*$")
        write(path, '{% include "' .. name .. '.part" %}{{ include("' .. name .. '.nope") }}')
        write(path .. ".part", "part")
        local text = input.observe(function(read) seen[#seen + 1] = read end,
            template.render_file, path)
        assert.is_nil(text)
        assert.same({ path, path .. ".part", path .. ".nope" }, seen)
    end)

    it("reports a file that cannot be read", function()
        os.remove(path)
        local text, err = template.render_file(path)
        assert.is_nil(text)
        assert.equal("io", err.code)
        assert.equal(2, err.errno)
        assert.equal(path .. ": No such file or directory", tostring(err))
        assert.equal(21, select(2, template.render_file("/")).errno)
    end)
end)
