-- The command `atomicwriter` as a whole: help, usage errors, streams and formats, completion, the
-- manual page, and what it says where an optional library is missing.

local cjson = require "cjson"
local cli = require "atomicwriter.cli"
local command = require "spec.support.command"
local manual = require "atomicwriter.cli.manual"
local sandbox = require "spec.support.sandbox"

-- Every option of each command, as `--help` of it lists them: command -> { "--from-file", … }.
local function documented_options()
    local options = {}
    for _, item in ipairs(cli.COMMANDS) do
        local list = {}
        for line in command.must(item[1], "--help"):gmatch("[^\n]+") do
            for name in (line:match("^   (%-.*)$") or ""):gsub("   .*", ""):gmatch("%-[-%w]+") do
                list[#list + 1] = name
            end
        end
        options[item[1]] = list
    end
    return options
end

local function lines_of(text)
    local lines = {}
    for line in text:gmatch("[^\n]+") do lines[#lines + 1] = line end
    return lines
end

describe("the command line", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
    end)
    after_each(sandbox.cleanup)

    local function publish(...)
        return command.must("write", target, "--create", "-q", ...)
    end

    describe("help", function()
        it("goes to standard output, lists every command, and exits with 0", function()
            local text = command.must("--help")
            for _, item in ipairs(cli.COMMANDS) do
                assert.truthy(text:find("\n   " .. item[1] .. " ", 1, true), item[1])
            end
            assert.equal(text, command.must("-h"))
        end)

        it("of each command has usage, what it does, and an example of it", function()
            for _, item in ipairs(cli.COMMANDS) do
                local name = item[1]
                local text = command.must(name, "--help")
                assert.truthy(text:find("^Usage: atomicwriter " .. name), name)
                local example = text:match("\nExamples?[ :,\n].*\n\n   .*$")
                assert.truthy(example, name)
                if name ~= "run" then
                    assert.truthy(example:find("atomicwriter " .. name, 1, true), name)
                end
            end
        end)

        it("fits into 80 columns", function()
            for _, item in ipairs(cli.COMMANDS) do
                for _, line in ipairs(lines_of(command.must(item[1], "--help"))) do
                    assert.is_true(#line <= 80, line)
                end
            end
        end)

        it("is told on standard error with exit 2 when nothing is asked for", function()
            local status, stdout, stderr = command.run()
            assert.equal(2, status)
            assert.equal("", stdout)
            assert.equal(command.must("--help"), stderr)
        end)
    end)

    it("tells its version", function()
        assert.equal("atomicwriter " .. require("atomicwriter")._VERSION .. "\n",
            command.must("--version"))
    end)

    describe("wrong usage", function()
        -- Exit 2, one line, which points to the help.
        local function told(...)
            local text = command.fails(2, ...)
            assert.truthy(text:find("atomicwriter .*%-%-help"), text)
            return text
        end

        it("names an unknown command and suggests one", function()
            local text = told("wirte", target, "--from-literal", "a=b")
            assert.truthy(text:find("'wirte'", 1, true))
            assert.truthy(text:find("'write'", 1, true))
        end)

        it("names an unknown option and suggests one", function()
            local text = told("write", target, "--from-litral", "a=b")
            assert.truthy(text:find("'--from-litral'", 1, true))
            assert.truthy(text:find("'--from-literal'", 1, true))
            assert.truthy(text:find("atomicwriter write --help", 1, true))
        end)

        it("names a missing argument", function()
            assert.truthy(told("write"):find("TARGET"))
            assert.truthy(told("run"):find("PROJECT.lua", 1, true))
            assert.truthy(told("write", target, "--from-literal"):find("--from-literal", 1, true))
        end)

        it("names an option without a value of its own", function()
            assert.truthy(told("write", target, "--from-literal", "a=b", "--create=yes")
                :find("--create", 1, true))
        end)

        it("refuses words that nobody asked for", function()
            told("write", target, "another", "--from-literal", "a=b")
            told("status", target, "another")
        end)

        it("refuses an option that is given twice", function()
            for _, option in ipairs { "--mode", "--check", "--keep", "--output" } do
                local value = option == "--keep" and "1" or option == "--output" and "text"
                    or "0600"
                local text = told("write", target, "--from-literal", "a=b", option, value,
                    option, value)
                assert.truthy(text:find(option, 1, true), text)
            end
        end)

        it("says which words an option takes", function()
            local text = told("write", target, "--from-literal", "a=b", "--durability", "maybe")
            assert.truthy(text:find("'full', 'none'", 1, true))
            text = told("completion", "tcsh")
            assert.truthy(text:find("'bash', 'fish', 'zsh'", 1, true))
        end)

        it("does not touch the target", function()
            publish("--from-literal", "a=b")
            local before = sandbox.listing(target)
            told("write", target, "--from-literal", "a=c", "--nonsense")
            told("rollback", target, "--nonsense")
            assert.equal(before, sandbox.listing(target))
        end)

        it("is told in JSON where messages and results are JSON", function()
            local status, stdout, stderr = command.run("write", target, "--from-literal", "a=b",
                "--log-format", "json", "--output=json", "--nonsense")
            assert.equal(2, status)
            assert.truthy(cjson.decode(stderr).message:find("--nonsense", 1, true))
            local record = cjson.decode(stdout)
            assert.equal("usage", record.error.code)
            assert.is_false(record.error.committed)
        end)
    end)

    describe("output", function()
        it("is the result on standard output and nothing else", function()
            local status, stdout, stderr =
                command.run("write", target, "--create", "--from-literal", "a=b")
            assert.equal(0, status)
            assert.truthy(stdout:find("^%+ a\n"))
            assert.equal("", stderr)
        end)

        it("is nothing with -q, but errors are told", function()
            assert.equal("", publish("--from-literal", "a=b"))
            assert.equal("", command.must("status", target, "--quiet"))
            assert.truthy(command.fails(3, "write", target, "-q", "--from-literal", "a=c",
                "--check", "false"):find("check"))
        end)

        it("escapes control bytes, so that a name forges no line", function()
            local status, stdout, stderr = command.run("write", target, "--from-literal", "a=b",
                "--mode", "x\27[31m\n+ forged")
            assert.equal(2, status)
            assert.equal("", stdout)
            assert.equal(1, #lines_of(stderr))
            assert.falsy(stderr:find("\27", 1, true))
        end)

        it("with --output json is one object in one line, also of a failure", function()
            local outputs = {
                { 0, "write", target, "--create", "--from-literal", "a=b" },
                { 0, "write", target, "--from-literal", "a=b" },
                { 0, "write", target, "--from-literal", "a=c", "--dry-run" },
                { 3, "write", target, "--from-literal", "a=c", "--check", "false" },
                { 1, "write", target, "--from-file", dir .. "/missing" },
                { 1, "write", target .. "2", "--from-literal", "a=c" },
                { 0, "status", target },
                { 1, "status", target .. "2" },
                { 0, "ls", target },
                { 1, "ls", target, "missing" },
                { 1, "rollback", target },
                { 1, "run", dir .. "/missing.lua" },
            }
            for _, words in ipairs(outputs) do
                local wanted = table.remove(words, 1)
                words[#words + 1] = "--output=json"
                local status, stdout = command.run(sandbox.unpack(words))
                local shown = table.concat(words, " ") .. "\n" .. stdout
                assert.equal(wanted, status, shown)
                assert.equal(1, #lines_of(stdout), shown)
                local record = cjson.decode(stdout)
                assert.equal(wanted ~= 0, record.error ~= nil, shown)
                if words[1] ~= "run" then assert.equal(words[2], record.target, shown) end
            end
        end)

        it("says in JSON what a write did", function()
            local record = cjson.decode(command.must("write", target, "--create",
                "--from-literal", "a=b", "--output", "json"))
            assert.is_true(record.changed)
            assert.same({ "a" }, record.added)
            assert.same({}, record.updated)
            assert.same({}, record.removed)
            assert.same({}, record.warnings)
            assert.equal(sandbox.readlink(target .. "/..data"), record.version)
        end)
    end)

    describe("messages", function()
        it("are one line each with level and time with --log-format json", function()
            local status, stdout, stderr = command.run("write", target, "--create",
                "--from-literal", "a=b", "--reload", "false",
                "--log-format", "json", "--log-level", "debug")
            assert.equal(4, status)
            assert.truthy(stdout:find("published", 1, true))
            local levels = {}
            for _, line in ipairs(lines_of(stderr)) do
                local record = cjson.decode(line)
                levels[record.level] = true
                assert.truthy(record.time:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"))
                assert.is_string(record.message)
            end
            assert.same({ error = true, debug = true }, levels)
        end)

        it("less important than --log-level are not shown", function()
            local _, _, stderr = command.run("write", target, "--create", "--from-literal", "a=b",
                "--reload", "true", "--log-level", "debug")
            assert.truthy(stderr:find("debug: reloading", 1, true))
            assert.equal("", (select(3, command.run("write", target, "--from-literal", "a=c",
                "--reload", "true", "--log-level", "info"))))
        end)
    end)

    it("bears standard streams that are closed", function()
        publish("--from-literal", "a=b")
        for _, closing in ipairs { "<&-", ">&- 2>&-", "<&- >&- 2>&-", "2>&-" } do
            -- The check prints, and must not print into what has got the descriptor.
            local words = command.words("write", target, "--from-literal", "a=" .. closing,
                "--check", "cat; echo out; echo err >&2", "--reload", "echo x")
            local status = sandbox.run(sandbox.sh(words) .. " " .. closing)
            assert.equal(closing:find(">&- ", 1, true) and 1 or 0, status, closing)
            assert.equal(closing, sandbox.read_file(target .. "/a"))
            assert.equal(0, (sandbox.run(command.words("status", target))))
        end
        local status, _, stderr =
            sandbox.run(sandbox.sh(command.words("render", "-")) .. " <" .. dir)
        assert.equal(1, status)
        assert.truthy(stderr:find("standard input", 1, true), stderr)
    end)

    it("prints JSON that is valid, whatever bytes a name has", function()
        local status, stdout = sandbox.run(command.words("write", target .. "\255", "--create",
            "--from-literal", "a=b", "--output", "json"))
        assert.equal(0, status)
        assert.truthy(stdout:find("target\239\191\189\"", 1, true), stdout)
    end)

    it("says so when standard output cannot be written", function()
        publish("--from-literal", "a=b")
        for _, words in ipairs {
            { 1, "cat", target, "a" }, { 1, "ls", target }, { 1, "status", target },
            { 1, "write", target, "--from-literal", "a=c" }, { 1, "completion", "bash" },
            { 2, "diff", target, "--from-literal", "a=d" },
            { 1, "write", target, "--from-literal", "a=d", "--dry-run" },
        } do
            local wanted = table.remove(words, 1)
            local status, _, stderr = sandbox.run(
                sandbox.sh(command.words(sandbox.unpack(words))) .. " >/dev/full")
            assert.equal(wanted, status, words[1])
            local message = "^atomicwriter: [^\n]*cannot write to standard output: [^\n]+\n$"
            assert.truthy(stderr:find(message), words[1] .. ": " .. stderr)
            local is_live = stderr:find("..data", 1, true) or stderr:find(" is live, but ", 1, true)
            assert.equal(words[1] == "write" and words[#words] ~= "--dry-run", is_live ~= nil)
        end
    end)

    describe("completion", function()
        -- What bash offers for the last of WORDS.
        local function complete(...)
            local words = { "atomicwriter", ... }
            local script = sandbox.sh(command.words("completion", "bash"))
                .. ' >"$0/completion" && . "$0/completion" && COMP_WORDS=("$@") && '
                .. 'COMP_CWORD=$(($# - 1)) && _atomicwriter atomicwriter "${@: -1}" && '
                .. 'printf "%s\\n" "${COMPREPLY[@]}"'
            return sandbox.must { "bash", "-c", script, dir, sandbox.unpack(words) }
        end

        it("for bash is a valid script", function()
            sandbox.write_file(dir .. "/completion", command.must("completion", "bash"))
            sandbox.must { "bash", "-n", dir .. "/completion" }
        end)

        it("for bash completes commands", function()
            assert.equal("write\n", complete("wr"))
            local all = complete("")
            for _, item in ipairs(cli.COMMANDS) do
                assert.truthy(("\n" .. all):find("\n" .. item[1] .. "\n", 1, true), item[1])
            end
        end)

        it("for bash completes the options of a command, and their words", function()
            assert.equal("--from-literal\n", complete("write", "/etc/app", "--from-l"))
            assert.equal("--show-secrets\n", complete("diff", "/etc/app", "--sh"))
            assert.equal("full\nnone\n", complete("write", "/etc/app", "--durability", ""))
        end)

        it("is there for fish and zsh with every command and option", function()
            local options = documented_options()
            for _, shell in ipairs { "fish", "zsh" } do
                local text = command.must("completion", shell)
                for name, list in pairs(options) do
                    assert.truthy(text:find(name, 1, true), shell .. " " .. name)
                    for _, option in ipairs(list) do
                        local word = shell == "fish" and option:gsub("^%-+", "") or option
                        assert.truthy(text:find(word, 1, true), shell .. " " .. option)
                    end
                end
                if sandbox.has(shell) then
                    sandbox.write_file(dir .. "/completion", text)
                    sandbox.must { shell, "-n", dir .. "/completion" }
                end
            end
        end)
    end)

    describe("the manual page", function()
        it("has every command and every option", function()
            local text = manual.text("1.2.3"):gsub("\\%-", "-")
            for name, list in pairs(documented_options()) do
                local _, start = text:find("\n.SS " .. name .. "\n", 1, true)
                assert.truthy(start, name)
                local section = text:sub(start, (text:find("\n.S[SH] ", start)))
                for _, option in ipairs(list) do
                    if option ~= "-h" and option ~= "--help" then
                        local pattern = option:gsub("%-", "%%-") .. "%f[^-%w]"
                        assert.truthy(section:find(pattern), name .. " " .. option)
                    end
                end
            end
            assert.truthy(text:find("atomicwriter 1.2.3", 1, true))
        end)

        it("says what each exit status means", function()
            local text = manual.text("1.2.3")
            for status = 0, 4 do
                assert.truthy(text:find("\n.TP\n" .. status .. "\n", 1, true), status)
            end
        end)

        it("is formatted without a warning", function()
            if sandbox.is_sanitized() then pending("groff mixes malloc and delete") end
            if not sandbox.has("groff") then return pending("groff is not installed") end
            sandbox.write_file(dir .. "/page", manual.text("1.2.3"))
            local status, stdout, stderr =
                sandbox.run { "groff", "-man", "-t", "-Tascii", "-P-cbou", "-ww", dir .. "/page" }
            assert.equal("", stderr)
            assert.equal(0, status)
            assert.truthy(stdout:find("--from-literal", 1, true))
        end)
    end)

    describe("without an optional library", function()
        -- Run where the library NAME is missing: it fails with exit WANTED, says in one line which
        -- package to install, and touches nothing.
        local function told(wanted, name, package, ...)
            local before = sandbox.listing(dir)
            local status, stdout, stderr = command.run_in(dir, { command.without(name) }, ...)
            assert.equal(wanted, status, stderr)
            assert.equal("", stdout)
            assert.truthy(stderr:find("^atomicwriter: [^\n]+\n$"), stderr)
            assert.truthy(stderr:find("install", 1, true) or stderr:find("Debian", 1, true), stderr)
            assert.truthy(stderr:find(package, 1, true), stderr)
            assert.truthy(stderr:find("LuaRocks", 1, true), stderr)
            assert.equal(before, sandbox.listing(dir))
        end

        before_each(function() publish("--from-literal", "a=b", "--from-literal", "c=d") end)

        it("argparse: says which package to install", function()
            told(1, "argparse", "lua-argparse", "write", target, "--from-literal", "a=c")
            told(1, "argparse", "lua-argparse", "--help")
        end)

        it("luv: everything works that starts no process and watches no file", function()
            local without_luv = { command.without("luv") }
            local function works(wanted, ...)
                local status, _, stderr = command.run_in(dir, without_luv, ...)
                assert.equal("", stderr)
                assert.equal(wanted, status)
            end
            works(0, "write", target, "--from-literal", "a=c")
            works(0, "write", target, "--from-literal", "a=d", "--dry-run")
            works(0, "diff", target, "--from-literal", "a=c")
            works(0, "ls", "-l", target)
            works(0, "cat", target, "a")
            works(0, "rollback", target)
            works(0, "status", target)
            works(0, "completion", "zsh")
        end)

        it("luv: says which package to install where it is needed", function()
            sandbox.write_file(dir .. "/project.lua", "return {}")
            local sources = { "--from-literal", "a=c" }
            for _, words in ipairs {
                { "--check", "true" }, { "--reload", "true" }, { "--from-exec", "k=true" },
                { "--watch" },
            } do
                told(1, "luv", "lua-luv", "write", target, sources[1], sources[2],
                    sandbox.unpack(words))
            end
            told(2, "luv", "lua-luv", "write", target, "--from-literal", "a=c",
                "--signal", "HUP", "--pid-file", "f")
            told(1, "luv", "lua-luv", "run", "project.lua")
            told(1, "luv", "lua-luv", "follow", target, "--", "true")
            told(2, "luv", "lua-luv", "diff", target, "--from-literal", "a=c")
        end)

        it("lua-cjson: says so when a JSON file is read", function()
            sandbox.write_file(dir .. "/data.json", "{}")
            sandbox.write_file(dir .. "/t.tmpl", "x")
            told(1, "cjson", "lua-cjson", "write", target, "--template", "t.tmpl",
                "--data", "d=data.json")
        end)

        it("lyaml: says so when a YAML file is read", function()
            sandbox.write_file(dir .. "/data.yaml", "a: 1")
            sandbox.write_file(dir .. "/t.tmpl", "x")
            told(1, "yaml", "lua-yaml", "write", target, "--template", "t.tmpl",
                "--data", "d=data.yaml")
        end)
    end)
end)
