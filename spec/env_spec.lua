local env = require "atomicwriter.env"

-- Text and what kubectl 1.32 makes of it.
local GOLDEN = {
    { "an empty text", "", {} },
    { "a plain line", "A=1\n", { A = "1" } },
    { "a last line without newline", "A=1", { A = "1" } },
    { "one CR before LF", "A=1\r\nB=2\r\r\nC=3\r", { A = "1", B = "2\r", C = "3" } },
    { "a CR within a line", "A=1\rB=2", { A = "1\rB=2" } },
    { "space before the name and after the =", "  \t A= x \n", { A = " x " } },
    { "wide space before the name", "\194\160A=1\n\194\133\227\128\128B=2\n\226\128\138C=3",
        { A = "1", B = "2", C = "3" } },
    { "wide space in a value", "A=\227\128\128", { A = "\227\128\128" } },
    { "a BOM on the first line", "\239\187\191 A=1", { A = "1" } },
    { "comments and empty lines", "#A=1\n\n  # B=2\n \n\r\nC=3#4 # 5", { C = "3#4 # 5" } },
    { "a comment after the BOM", "\239\187\191#A=1\nB=2", { B = "2" } },
    { "quotes", "A=\"x\nB=y\"\nC='z'", { A = '"x', B = 'y"', C = "'z'" } },
    { "escapes and expansions", "A=\\n$HOME${B}`c`", { A = "\\n$HOME${B}`c`" } },
    { "several =", "A==b=", { A = "=b=" } },
    { "an empty value", "A=", { A = "" } },
    { "a NUL byte in a value", "A=\0", { A = "\0" } },
    { "names with dots and dashes", "-A=1\n.a=2\na..b=3\n_=4\na-1.b=5",
        { ["-A"] = "1", [".a"] = "2", ["a..b"] = "3", _ = "4", ["a-1.b"] = "5" } },
}

local REFUSED = {
    { "export A=1", "not a valid name" }, { "1A=1", "not a valid name" },
    { "A =1", "not a valid name" }, { "A B", "not a valid name" },
    { "%=1", "not a valid name" }, { "a/b=1", "not a valid name" },
    { "A\0=1", "not a valid name" }, { "é=1", "not a valid name" },
    { "\239\187\191A=1", "not a valid name" }, { "\226\128\139A=1", "not a valid name" },
    { "=1", "empty" }, { ".=1", "must not be '.'" }, { "..=1", "'..'" }, { "..A=1", "'..'" },
    { "\255", "UTF-8" }, { "#\255", "UTF-8" }, { "A=\237\160\128", "UTF-8" },
    { "FIRST=again", "line 1 already" }, { "FIRST", "line 1 already" },
}

describe("env.parse", function()
    for _, case in ipairs(GOLDEN) do
        it("reads " .. case[1] .. " as kubectl does", function()
            assert.same(case[3], (env.parse(case[2])))
        end)
    end

    for _, case in ipairs(REFUSED) do
        it(("refuses %q as kubectl does, with line and reason"):format(case[1]), function()
            local map, err = env.parse("FIRST=1\n\n" .. case[1] .. "\nLAST=1\n")
            assert.is_nil(map)
            assert.equal("env", err.code)
            assert.equal(3, err.line)
            assert.is_nil(err.path)
            assert.is_not_nil(err.message:find(case[2], 1, true), err.message)
        end)
    end

    it("takes the value of a name without = from the process environment", function()
        local getenv = function(name) return name == "SET" and "from outside" or nil end
        assert.same({ SET = "from outside", UNSET = "" },
            (env.parse("SET\n  UNSET", { getenv = getenv })))
        assert.same({ PATH = os.getenv("PATH") }, (env.parse("PATH")))
    end)

    it("does not ask the environment for a name with an empty value", function()
        local getenv = function() return "x" end
        assert.same({ SET = "" }, (env.parse("SET=", { getenv = getenv })))
    end)

    it("returns the names in the order of the file", function()
        local _, order = env.parse("b=1\na=2\nC=3")
        assert.same({ "b", "a", "C" }, order)
    end)

    it("reads lines of any length", function()
        local long = ("x"):rep(3 * 1024 * 1024)
        assert.equal(long, env.parse("A=" .. long .. "\nB=1").A)
    end)

    it("names the file in errors", function()
        local _, err = env.parse("A=1\n?", { name = "app.env" })
        assert.equal("app.env", err.path)
        assert.matches("^app%.env:2: ", tostring(err))
    end)

    it("refuses a name that another text has, naming both places", function()
        local seen = {}
        assert(env.parse("A=1\nB=1", { name = "one.env", seen = seen }))
        assert(env.parse("C=1", { name = "two.env", seen = seen }))
        local map, err = env.parse("\nB=1", { name = "three.env", seen = seen })
        assert.is_nil(map)
        assert.equal("three.env:2: B is set in one.env:2 already", tostring(err))
    end)

    it("never shows the line in an error", function()
        for _, line in ipairs { "my s3cret", "s3cret/x=1", "A=1\nA=s3cret", "A=s3cret\255" } do
            local _, err = env.parse(line)
            assert.is_nil(tostring(err):find("s3cret", 1, true))
        end
    end)

    it("raises at the caller's line for wrong types", function()
        local function message(...)
            local arguments = { ... }
            return select(2, pcall(function()
                return env.parse(arguments[1], arguments[2]), nil
            end))
        end
        assert.matches("env_spec.lua:%d+: .*string expected, got nil", message(nil))
        assert.matches("env_spec.lua:%d+: .*table expected, got string", message("", "x"))
    end)
end)

describe("env.match", function()
    local function names(pattern, list)
        local environment = {}
        for _, name in ipairs(list) do environment[name] = "v" end
        local found = {}
        for name in pairs(env.match(pattern, { environ = function() return environment end })) do
            found[#found + 1] = name
        end
        table.sort(found)
        return found
    end

    it("returns the values of the variables that match", function()
        local environ = function() return { APP_A = "1", APP_B = "2", XAPP_C = "3", APP = "4" } end
        assert.same({ APP_A = "1", APP_B = "2" }, env.match("APP_*", { environ = environ }))
        assert.same({}, env.match("NONE_*", { environ = environ }))
    end)

    for _, case in ipairs {
        { "A", { "A", "AB", "BA" }, { "A" } },
        { "*", { "", "A", "B.C" }, { "", "A", "B.C" } },
        { "A**B", { "AB", "AxB", "A" }, { "AB", "AxB" } },
        { "A?", { "A", "AB", "ABC" }, { "AB" } },
        { "A.B", { "A.B", "AxB" }, { "A.B" } },
        { "A%a", { "A%a", "Ab" }, { "A%a" } },
        { "^A$", { "A", "^A$" }, { "^A$" } },
        { "A[12]", { "A1", "A2", "A3", "A[12]" }, { "A1", "A2" } },
        { "A[1-3]", { "A0", "A1", "A3", "A-" }, { "A1", "A3" } },
        { "A[!1-3]", { "A1", "A4", "A" }, { "A4" } },
        { "A[^1]", { "A1", "A^" }, { "A^" } },
        { "A[]x]", { "A]", "Ax", "Ay" }, { "A]", "Ax" } },
        { "A[!]]", { "A]", "Ax" }, { "Ax" } },
        { "A[-1]", { "A-", "A1", "A0" }, { "A-", "A1" } },
        { "A[1-]", { "A-", "A1", "A0" }, { "A-", "A1" } },
        { "A[%a]", { "A%", "Aa", "Ab" }, { "A%", "Aa" } },
        { "A[+-/]", { "A+", "A,", "A-", "A/", "A0", "A*" }, { "A+", "A,", "A-", "A/" } },
        { "A[3-1]", { "A1", "A2", "A3", "A-" }, {} },
        { "A[x", { "A[x", "Ax" }, { "A[x" } },
        { "A[]", { "A[]", "A", "Ax" }, { "A[]" } },
        { "A[!]", { "A[!]", "A!", "Ax" }, { "A[!]" } },
        { "A[]*[x]", { "A]", "Ax", "A*" , "A[" }, { "A*", "A[", "A]", "Ax" } },
        { [[A\*]], { "A*", "AB" }, { "A*" } },
        { "", { "", "A" }, { "" } },
    } do
        it(("reads the pattern %q as a shell does"):format(case[1]), function()
            assert.same(case[3], names(case[1], case[2]))
        end)
    end

    it("looks into the process environment", function()
        assert.same({ PATH = os.getenv("PATH") }, env.match("PATH"))
    end)

    it("passes on why the environment cannot be listed", function()
        local map, err = env.match("*", { environ = function() return nil, "why" end })
        assert.is_nil(map)
        assert.equal("why", err)
    end)
end)

describe("env.environ", function()
    local saved
    before_each(function() saved = package.loaded["atomicwriter.core"] end)
    after_each(function() package.loaded["atomicwriter.core"] = saved end)

    it("asks the core when it is there", function()
        package.loaded["atomicwriter.core"] = { environ = function() return { FROM = "core" } end }
        assert.same({ FROM = "core" }, env.environ())
    end)

    it("does without the core", function()
        package.loaded["atomicwriter.core"] = { }
        assert.equal(os.getenv("PATH"), env.environ().PATH)
    end)
end)
