-- `atomicwriter run PROJECT.lua`: what a Lua script returns is projected.

local cjson = require "cjson"
local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("atomicwriter run", function()
    local dir, target, project

    before_each(function()
        dir = sandbox.memdir()
        sandbox.mkdir(dir .. "/project")
        target, project = dir .. "/target", dir .. "/project/project.lua"
        sandbox.mkdir(target)
    end)
    after_each(sandbox.cleanup)

    local function file(name, data)
        sandbox.write_file(dir .. "/" .. name, data)
        return dir .. "/" .. name
    end

    -- Run SCRIPT, in which TARGET is the target: exit status, stdout, stderr.
    local function run(script, ...)
        sandbox.write_file(project, (script:gsub("TARGET", '"' .. target .. '"')))
        return command.run("run", project, ...)
    end

    -- Run SCRIPT, which has to succeed without a word on standard error.
    local function works(script, ...)
        local status, stdout, stderr = run(script, ...)
        assert.equal("", stderr)
        assert.equal(0, status)
        return stdout
    end

    -- Run SCRIPT, which has to fail with exit status WANTED and touch nothing: what it says.
    local function refused(wanted, script, ...)
        local before = sandbox.listing(target)
        local status, stdout, stderr = run(script, ...)
        assert.equal(wanted, status, stderr)
        assert.equal("", stdout)
        assert.truthy(stderr:find("^atomicwriter: "), stderr)
        assert.falsy(stderr:find("this should not have happened", 1, true), stderr)
        assert.equal(before, sandbox.listing(target))
        return stderr
    end

    it("writes one projection", function()
        local printed = works 'return { target = TARGET, payload = { a = "1", ["d/b"] = "2" } }'
        assert(volume.shows(target, { a = "1", ["d/b"] = "2" }))
        assert.truthy(printed:find("^%+ a\n%+ d/b\n"))
    end)

    it("writes a list of them, in order", function()
        local second = dir .. "/second"
        local printed = works(('return { { target = TARGET, payload = { a = "1" } }, '
            .. '{ target = "%s", payload = { b = "2" }, create = true } }'):format(second),
            "--output", "json")
        assert(volume.shows(target, { a = "1" }))
        assert(volume.shows(second, { b = "2" }))
        local targets = {}
        for line in printed:gmatch("[^\n]+") do
            targets[#targets + 1] = cjson.decode(line).target
        end
        assert.same({ target, second }, targets)
        local status, _, stderr = run "return {}"
        assert.equal(0, status)
        assert.truthy(stderr:find("it returns no projection", 1, true), stderr)
    end)

    it("asks a function for the payload, with the context", function()
        local data = file("d.json", '{"x": "1"}')
        works([[return { target = TARGET, payload = function(context)
            return { a = context.data.d.x .. context.data.s .. context.labels.l
                .. context.annotations.a .. context.target .. type(context.env.PATH) }
        end }]], "--data", "d=" .. data, "--set", "s=2", "--label", "l=3", "--annotation", "a=4")
        assert(volume.shows(target, { a = "1234" .. target .. "string" }))
    end)

    it("takes a payload builder, and a function that returns one", function()
        works [[local set = require("atomicwriter.payload").new()
            assert(set:from_literal("a=1"))
            return { target = TARGET, payload = set }]]
        assert(volume.shows(target, { a = "1" }))
        works [[return { target = TARGET, payload = function()
            return assert(require("atomicwriter.payload").new():from_literal("a=2"))
        end }]]
        assert(volume.shows(target, { a = "2" }))
    end)

    it("renders entries with a template, with the project's own filters", function()
        file("project/t.tmpl", '{% include "_part" %} {{ data.x | shout }}')
        file("project/_part", "part")
        works([[return { target = TARGET,
            filters = { shout = function(text) return text:upper() .. "!" end },
            payload = { ["d/a"] = { template = "t.tmpl", mode = "0600" } } }]], "--set", "x=hey")
        assert(volume.shows(target, { ["d/a"] = "part HEY!" }))
        assert.equal("0600", sandbox.mode(target .. "/d/a"))
    end)

    it("copies sources, and sets modes and owners by name", function()
        if not sandbox.is_root() then return pending("only root may give files away") end
        file("project/src", "\0data")
        works [[return { target = TARGET, mode = "0640", owner = "daemon", payload = {
            a = { source = "src", owner = "nobody", group = 7 },
            b = { data = "b", uid = 5 },
        } }]]
        local function id(name) return (sandbox.must { "id", "-u", name }:gsub("\n", "")) end
        assert(volume.shows(target, { a = "\0data", b = "b" }))
        assert.equal(id("nobody") .. ":7", sandbox.owner(target .. "/a"))
        assert.equal("5", sandbox.owner(target .. "/b"):match("^%d+"))
        assert.equal("0640", sandbox.mode(target .. "/b"))
    end)

    it("runs in the project's directory, while its own options are relative to the caller's",
        function()
            file("d.json", '{"x": "caller"}')
            file("labels", 'l="caller"')
            file("project/d.json", '{"x": "wrong"}')
            file("project/t", "{{ data.d.x }} {{ labels.l }}")
            file("project/helper.lua", "return 'helped'")
            sandbox.write_file(project, [[package.path = "./?.lua;" .. package.path
                return { target = "../target", payload = { a = { template = "t" },
                    b = require("helper") } }]])
            local status, _, stderr = command.run_in(dir, {}, "run", "project/project.lua",
                "--data", "d=d.json", "--labels-from", "labels")
            assert.equal("", stderr)
            assert.equal(0, status)
            assert(volume.shows(target, { a = "caller caller", b = "helped" }))
        end)

    it("leaves the globals of Lua alone", function()
        works [[answer = 42
            assert(rawget(_G, "answer") == nil and answer == 42)
            return { target = TARGET, payload = { a = tostring(answer) } }]]
        assert(volume.shows(target, { a = "42" }))
    end)

    it("touches nothing with --dry-run", function()
        local before = sandbox.listing(target)
        assert.truthy(works('return { target = TARGET, payload = { a = "1" } }', "--dry-run")
            :find("would be published", 1, true))
        assert.equal(before, sandbox.listing(target))
    end)

    it("prints on standard error what the script prints", function()
        local status, stdout, stderr = run [[print("hello", 1)
            return { target = TARGET, create = true, payload = { a = "1" } }]]
        assert.equal(0, status, stderr)
        assert.equal("hello\t1\n", stderr)
        assert.falsy(stdout:find("hello", 1, true))
    end)

    it("refuses two projections of one target", function()
        local text = refused(1, [[local one = { target = TARGET, payload = {} }
            return { one, one }]])
        assert.truthy(text:find("projections 1 and 2 have the same target", 1, true), text)
    end)

    describe("check and reload", function()
        it("may be shell commands", function()
            works(('return { target = TARGET, payload = { a = "1" }, check = "test -f {}/a", '
                .. 'reload = "echo x >>%s/count" }'):format(dir))
            assert.equal("x\n", sandbox.read_file(dir .. "/count"))
            refused(3, 'return { target = TARGET, payload = { a = "2" }, check = "false" }')
        end)

        it("may be functions: of the staged tree's path, and of the result", function()
            works([[return { target = TARGET, payload = { a = "1" },
                check = function(stage) return io.open(stage .. "/a"):read("*a") == "1" end,
                reload = function(result)
                    local out = io.open("../result", "w")
                    out:write(tostring(result.changed), result.added[1], result.version)
                    return out:close()
                end }]])
            assert.equal("truea" .. volume.live(target), sandbox.read_file(dir .. "/result"))
        end)

        it("that return false say why", function()
            works 'return { target = TARGET, payload = { a = "1" } }'
            local text = refused(3, [[return { target = TARGET, payload = { a = "2" },
                check = function() return false, "no good" end }]])
            assert.truthy(text:find("no good", 1, true))
            local status, _, stderr = run [[return { target = TARGET, payload = { a = "2" },
                reload = function() return nil, "no luck" end }]]
            assert.equal(4, status)
            assert.truthy(stderr:find("no luck; rolled back", 1, true), stderr)
            assert(volume.shows(target, { a = "1" }))
        end)

        it("need to say nothing to reload, but a check has to say yes", function()
            works 'return { target = TARGET, payload = { a = "1" }, reload = function() end }'
            refused(3, [[return { target = TARGET, payload = { a = "2" },
                check = function() end }]])
            assert(volume.shows(target, { a = "1" }))
        end)

        it("that raise say where, in the user's file", function()
            for field, wanted in pairs { check = 3, reload = 4 } do
                local status, _, stderr = run(([[return { target = TARGET, payload = { %s = "" },
                    %s = function()
                        error("boom")
                    end }]]):format(field, field))
                assert.equal(wanted, status)
                assert.truthy(stderr:find("^atomicwriter: [^\n]*project.lua:3: boom[^\n]*\n"
                    .. "  [^\n]*project.lua:3: in "), stderr)
            end
        end)
    end)

    describe("refuses", function()
        before_each(function() works 'return { target = TARGET, payload = { live = "1" } }' end)

        it("a script that is missing, and says which", function()
            local text = command.fails(1, "run", dir .. "/missing.lua")
            assert.truthy(text:find(dir .. "/missing.lua", 1, true), text)
        end)

        it("what is no projection, and names the field", function()
            for fields, what in pairs {
                ['payload = { a = "1" }, nope = 1'] = "unknown field 'nope'",
                ['payload = "x"'] = "payload must be a table or a function, got a string",
                ['payload = {}, keep = "1"'] = "keep must be a number, got a string",
                ['payload = {}, keep = -1'] = "'keep'",
                ['payload = {}, mode = 644'] = "'mode' is 644",
                ['payload = {}, mode = "9"'] = "'mode'",
                ['payload = {}, dir_mode = "0000"'] = "'dir_mode'",
                ['payload = {}, durability = "some"'] = "'durability'",
                ['payload = {}, lock_timeout = -1'] = "'lock_timeout'",
                ['payload = {}, owner = "no-such-user"'] = "no user 'no-such-user'",
                ['payload = {}, group = "no-such-group"'] = "no group 'no-such-group'",
                ['payload = {}, signal = "FOO", pid_file = "x"'] = "no signal 'FOO'",
                ['payload = {}, signal = "HUP"'] = "signal and pid_file need each other",
                ['payload = {}, watch = { 1 }'] = "watch",
                ['payload = {}, filters = { x = 1 }'] = "filter 'x'",
                [""] = "it has no payload",
            } do
                local text = refused(1, ("return { { target = TARGET, payload = { live = '2' } }, "
                    .. "{ target = TARGET, %s } }"):format(fields))
                assert.truthy(text:find("project.lua: projection 2: ", 1, true), text)
                assert.truthy(text:find(what, 1, true), text)
            end
            assert.truthy(refused(1, "return { payload = {} }"):find("it has no target", 1, true))
            for _, value in ipairs { "nil", "5", '"text"' } do
                assert.truthy(refused(1, "return " .. value):find("it must return", 1, true))
            end
        end)

        it("a broken payload, and says whose", function()
            for payload, what in pairs {
                ['function() return nil, "no data" end'] = "no data",
                ["function() end"] = "it must be a table, got a nil",
                ['{ ["../x"] = "1" }'] = "../x: ",
                ["{ a = 5 }"] = "a: ",
                ['{ a = { template = "missing" } }'] = "missing: No such file",
                ['{ a = { template = 5 } }'] = "template must be a path",
                ['{ a = { template = "t", data = "x" } }'] = "excludes",
                ['{ a = { data = "x", owner = "no-such-user" } }'] = "no user 'no-such-user'",
                ['{ a = { source = "missing" } }'] = "missing",
            } do
                local text = refused(1, "return { target = TARGET, payload = " .. payload .. " }")
                assert.truthy(text:find(what, 1, true), text)
                assert.truthy(text:find("^[^\n]+\n$"), text)
            end
        end)

        it("a script that cannot be compiled, and says where", function()
            local text = refused(1, "local x = 1\nreturn { target = TARGET, }}")
            assert.truthy(text:find("project.lua:2: ", 1, true), text)
        end)

        -- The lines of the traceback in TEXT, which begins with MESSAGE.
        local function traceback(text, message)
            local first, rest = text:match("^atomicwriter: ([^\n]*)\n(.*)$")
            assert.truthy(first:find(message, 1, true), text)
            assert.falsy(rest:find("atomicwriter/", 1, true), text)
            local lines = {}
            for line in rest:gmatch("  ([^\n]*)\n") do lines[#lines + 1] = line end
            return lines
        end

        it("a script that raises, with a traceback that starts there", function()
            local lines = traceback(refused(1, [[local function inner()
                    error("boom")
                end
                local function outer() inner() return 1 end
                outer()]]), "project.lua:2: boom")
            assert.truthy(lines[1]:find("project.lua:2: in ", 1, true))
            assert.truthy(lines[2]:find("project.lua:4: in ", 1, true))
            assert.truthy(lines[3]:find("project.lua:5: in main chunk", 1, true))
            assert.equal(3, #lines)
        end)

        it("a helper or a payload that raises, likewise", function()
            file("project/helper.lua", 'return function()\n    error("boom")\nend')
            for _, body in ipairs {
                'require("helper")() return {}',
                'return { target = TARGET, payload = function() require("helper")() end }',
            } do
                local text = refused(1, 'package.path = "./?.lua;" .. package.path\n' .. body)
                local lines = traceback(text, "helper.lua:2: boom")
                assert.truthy(lines[1]:find("helper.lua:2: in ", 1, true), text)
                assert.truthy(lines[2]:find("project.lua:2: in ", 1, true), text)
            end
        end)

        it("has its traceback in JSON, too", function()
            local status, _, stderr = run('error("boom")', "--log-format", "json")
            assert.equal(1, status)
            local record = cjson.decode(stderr)
            assert.truthy(record.message:find("project.lua:1: boom", 1, true))
            assert.truthy(record.traceback:find("project.lua:1: in main chunk", 1, true))
        end)

        it("to write any when one cannot be gathered", function()
            refused(1, [[return { { target = TARGET, payload = { a = "new" } },
                { target = TARGET, payload = function() error("boom") end } }]])
        end)
    end)

    it("writes the others when one fails, and exits as the first that did", function()
        local second = dir .. "/second"
        local status, stdout, stderr = run(([[return {
            { target = TARGET, payload = { a = "1" }, check = "false" },
            { target = "%s", payload = { b = "2" }, create = true, reload = "false" } }]])
            :format(second))
        assert.equal(3, status)
        assert.truthy(stdout:find(second, 1, true))
        assert.truthy(stderr:find(target .. ": the check refused", 1, true))
        assert.truthy(stderr:find(second .. ": the reload failed", 1, true))
        assert(volume.shows(second, { b = "2" }))
    end)

    it("lets a script end the program", function()
        assert.equal(7, (run "os.exit(7)"))
    end)
end)
