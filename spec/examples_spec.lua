-- The examples do what they say, on the interpreter that runs this.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"

local VERSION = "%.%.%d%d%d%d_%d%d_%d%d_%d%d_%d%d_%d%d%.%d+"
local PROGRAMS = {
    "write", "template_config", "check_before_publish", "snapshot_reader", "watch", "rollback",
}

local build = os.getenv("ATOMICWRITER_BUILD") or "build"

describe("the examples", function()
    local dir

    before_each(function() dir = sandbox.tmpdir() end)
    after_each(sandbox.cleanup)

    -- The words that run an example with SETTINGS, words for env(1). Scratch directories of its own
    -- go into DIR.
    local function command(name, settings, ...)
        local words = { "env", "-u", "ATOMICWRITER_BUILD", "TMPDIR=" .. dir,
            "LUA_PATH=" .. package.path, "LUA_CPATH=" .. package.cpath,
            "LUA_PATH_5_4=" .. package.path, "LUA_CPATH_5_4=" .. package.cpath, "env" }
        for _, setting in ipairs(settings) do words[#words + 1] = setting end
        words[#words + 1] = sandbox.interpreter()
        words[#words + 1] = "examples/" .. name .. ".lua"
        for _, argument in ipairs { ... } do words[#words + 1] = argument end
        return words
    end

    -- Run an example that has to succeed, with nothing on stderr: what it printed.
    local function output_of(name, ...)
        local status, stdout, stderr = sandbox.run(command(name, {}, ...))
        assert.equal("", stderr)
        assert.equal(0, status)
        return stdout
    end

    -- The contents of the files that a new reader sees, by path.
    local function contents(target)
        local snapshot = assert(atomicwriter.open(target))
        local map = {}
        for _, path in ipairs(assert(snapshot:paths())) do
            map[path] = assert(snapshot:read(path))
        end
        snapshot:close()
        return map
    end

    -- What stands at each path below DIRECTORY as `find` has it: a string of FORMAT.
    local function tree(directory, format)
        local map = {}
        local text = sandbox.must { "find", directory, "-mindepth", "1",
            "-printf", "%P\\t" .. format .. "\\n" }
        for path, rest in text:gmatch("([^\t\n]*)\t([^\n]*)") do map[path] = rest end
        return map
    end

    -- The one scratch directory that an example has made.
    local function scratch()
        local names = sandbox.names(dir)
        assert.equal(1, #names)
        return dir .. "/" .. names[1]
    end

    describe("all of them", function()
        it("are in the list of examples/README.md", function()
            local readme = sandbox.read_file("examples/README.md")
            -- What runs inside nginx is listed by directory.
            local found = sandbox.must(
                "cd examples && find . -path './nginx-*' -prune -o -name '*.lua' -print"
                .. " -o -name '*.c' -print")
            local count = 0
            for path in found:gmatch("%./([^\n]+)") do
                count = count + 1
                assert.truthy(readme:find("| `" .. path .. "` |", 1, true), path)
            end
            assert.equal(#PROGRAMS + 4, count) -- and c, podinfo, systemd, tls
        end)

        for _, name in ipairs(PROGRAMS) do
            it("print a usage line on demand and do nothing then: " .. name, function()
                assert.equal(("usage: lua5.4 %s.lua [TARGET]\n"):format(name),
                    output_of(name, "--help"))
                assert.same({}, sandbox.names(dir))
            end)

            it("refuse an option that they do not have, and do nothing then: " .. name, function()
                local status, stdout, stderr = sandbox.run(command(name, {}, "--foo"))
                assert.equal(2, status)
                assert.equal("", stdout)
                assert.equal(("usage: lua5.4 %s.lua [TARGET]\n"):format(name), stderr)
                assert.same({}, sandbox.names(dir))
            end)

            it("say on stderr what went wrong, and exit with 1: " .. name, function()
                local status, stdout, stderr = sandbox.run(command(name, {}, dir .. "/none/target"))
                assert.equal(1, status)
                assert.equal("", stdout)
                assert.truthy(stderr:find(dir .. "/none/target: ", 1, true), stderr)
                assert.same({}, sandbox.names(dir))
            end)
        end
    end)

    describe("write.lua", function()
        it("publishes two files, once", function()
            local target = dir .. "/app"
            assert.truthy(output_of("write", target):find("^published\t.*\t" .. VERSION .. "\n$"))
            assert.same({ ["app.conf"] = "listen = 8080\n", ["tls/key.pem"] = "only an example\n" },
                contents(target))
            assert.equal("0600", sandbox.mode(target .. "/tls/key.pem"))
            assert.truthy(output_of("write", target):find("^nothing to change\t"))
        end)

        it("makes a scratch directory when it gets no target, and names it", function()
            local text = output_of("write")
            assert.equal(scratch(), text:match("^published\t(.-)\t"))
            assert.equal("listen = 8080\n", contents(scratch())["app.conf"])
        end)
    end)

    describe("template_config.lua", function()
        it("fills in the environment and the labels", function()
            local status, text, stderr =
                sandbox.run(command("template_config", { "APP_PORT=9000" }))
            assert.equal("", stderr)
            assert.equal(0, status)
            local file = '# shop\nlisten = 9000\ntag = "app=shop"\ntag = "tier=frontend"\n'
            assert.same({ ["app.conf"] = file }, contents(scratch()))
            assert.equal(file, text:match("\n(.*)$"))
        end)

        it("uses defaults for what is not set", function()
            local status = sandbox.run(command("template_config", { "-u", "APP_PORT" }))
            assert.equal(0, status)
            assert.truthy(contents(scratch())["app.conf"]:find("listen = 8080\n", 1, true))
        end)
    end)

    describe("check_before_publish.lua", function()
        it("publishes the good script and refuses the broken one, with the reason", function()
            local text = output_of "check_before_publish"
            assert.truthy(text:find("^published\t" .. VERSION .. "\nrefused  \t"), text)
            assert.truthy(text:find("the check refused: greet.sh: ", 1, true), text)
            assert.equal('in place  if true; then echo "Good morning"; fi',
                text:match("([^\n]*)\n$"))
            assert.same({ ["greet.sh"] = 'if true; then echo "Good morning"; fi\n' },
                contents(scratch()))
        end)

        it("works below a path that needs quoting", function()
            local target = dir .. "/it's a target"
            assert.truthy(output_of("check_before_publish", target):find("^published"))
        end)
    end)

    describe("snapshot_reader.lua", function()
        it("reads the old version to the end while a new one goes live", function()
            local text = output_of "snapshot_reader"
            local old, new = text:match("^(" .. VERSION .. " %(not live any more%)\n.*)("
                .. VERSION .. " %(live%)\n.*)$")
            assert.truthy(old, text)
            assert.truthy(old:find("generation = one\n.*certificate one\n"), old)
            assert.falsy(old:find "two")
            assert.truthy(new:find("generation = two\n.*certificate two\n"), new)
            assert.falsy(new:find "one\n")
        end)

        it("only reads a target that it is given, and shows no secret", function()
            local target = dir .. "/app"
            output_of("write", target)
            local before = sandbox.listing(target)
            local text = output_of("snapshot_reader", target)
            assert.truthy(text:find("  0644     14  app.conf       listen = 8080\n", 1, true), text)
            local secret = "  0600     16  tls/key.pem    (not for everybody)\n"
            assert.truthy(text:find(secret, 1, true), text)
            assert.equal(before, sandbox.listing(target))
        end)
    end)

    describe("watch.lua", function()
        it("keeps the last good configuration when a new one makes no sense", function()
            local status, stdout, stderr = sandbox.run(command("watch", {}))
            assert.equal(0, status)
            assert.equal("listening on port 8080\nlistening on port 8081\n", stdout)
            assert.equal("watch.lua: app.conf: listen is no number; still on port 8080\n", stderr)
        end)

        it("follows a target until it is gone", function()
            local target = dir .. "/app"
            local writer = assert(atomicwriter.new(target, { create = true }))
            local follower
            local function publish_and_await(port)
                assert(writer:write { ["app.conf"] = ("listen = %d\n"):format(port) })
                follower = follower or sandbox.spawn(command("watch", {}, target))
                local line = ("listening on port %d\n"):format(port)
                assert.truthy(sandbox.eventually(function()
                    return sandbox.read_file(follower.dir .. "/out"):find(line, 1, true)
                end), line)
            end
            publish_and_await(1001)
            publish_and_await(1002)
            writer:close()
            sandbox.rmtree(target)

            local status, stdout, stderr = follower:wait(10)
            assert.equal(1, status)
            assert.equal("listening on port 1001\nlistening on port 1002\n", stdout)
            assert.truthy(stderr:find(target .. ": ", 1, true), stderr)
        end)
    end)

    describe("rollback.lua", function()
        it("goes back by one, then to a version by name", function()
            local live = {}
            for text in output_of("rollback"):gmatch(VERSION .. "\t([^\t]+)\t<%- live\n") do
                live[#live + 1] = text
            end
            assert.same({ "workers = 4000", "workers = 8", "workers = 4" }, live)
            assert.same({ ["app.conf"] = "workers = 4\n" }, contents(scratch()))
        end)
    end)

    describe("c/write.c", function()
        -- The library may be instrumented; then the program must be, too.
        local function instrumentation()
            local words = {}
            for word in (sandbox.read_file(build .. "/flags") or ""):gmatch("%S+") do
                if word:find("^%-fsanitize=") or word == "--coverage" then
                    words[#words + 1] = word
                end
            end
            return table.concat(words, " ")
        end

        it("compiles without a warning, publishes and reads back", function()
            local program, target = dir .. "/write", dir .. "/app"
            local plainly = "env -u LD_PRELOAD "
            local _, _, warnings = sandbox.run(plainly .. (os.getenv("CC") or "cc")
                .. " -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Icsrc -pthread "
                .. instrumentation() .. " -o " .. sandbox.sh { program, "examples/c/write.c",
                    build .. "/libatomicwriter.a" })
            assert.equal("", warnings)

            local first = sandbox.must(plainly .. sandbox.sh { program, target })
            assert.truthy(first:find("^published " .. VERSION
                .. ": 2 added, 0 updated, 0 removed, 0 unchanged\n"
                .. "app.conf of " .. VERSION .. ": listen = 8080\n$"), first)
            assert.same({ ["app.conf"] = "listen = 8080\n", ["tls/key.pem"] = "only an example\n" },
                contents(target))
            assert.equal("0600", sandbox.mode(target .. "/tls/key.pem"))
            local second = sandbox.must(plainly .. sandbox.sh { program, target })
            assert.truthy(second:find("^already live: .* 2 unchanged\n"), second)

            local status, stdout, stderr =
                sandbox.run(plainly .. sandbox.sh { program, dir .. "/no/app" })
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.truthy(stderr:find(dir .. "/no/app: ", 1, true), stderr)
            status, stdout, stderr = sandbox.run(plainly .. sandbox.sh { program })
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.equal("usage: " .. program .. " TARGET\n", stderr)
        end)
    end)

    describe("podinfo", function()
        local ENVIRONMENT = { "-u", "LANG", "HOME=/home/pod", "PATH=" .. os.getenv("PATH"),
            "USER=pod user", "PODINFO_SECRET=do not show" }

        local function run_podinfo(...)
            local status, stdout, stderr =
                sandbox.run(command("podinfo/podinfo", ENVIRONMENT, ...))
            assert.equal("", stderr)
            assert.equal(0, status)
            return stdout
        end

        -- The lines between one heading and the next.
        local function step(text, number)
            return ("\n" .. text .. "\n\n"):match("\n" .. number .. "%. [^\n]*\n(.-\n)\n%f[%d%z]")
        end

        it("projects what a pod has, from labels, the environment and templates", function()
            local target = dir .. "/pod"
            run_podinfo(target)
            local files = contents(target)
            assert.equal(sandbox.must "cat /proc/sys/kernel/hostname", files.podName .. "\n")
            assert.equal('app="podinfo"\nport="9898"\ntier="backend"', files["user/labels"])
            assert.equal('example.com/note="Says \\"hello\\",\\nthen waits."\n'
                .. 'example.com/owner="the platform team"', files["k8s/annotations"])
            assert.equal("/home/pod", files["env/HOME"])
            assert.equal("pod user", files["env/USER"])
            assert.equal(os.getenv("PATH"), files["env/PATH"])
            assert.equal("# podinfo on " .. files.podName
                .. ", tier BACKEND; edit app.conf.tmpl instead\n"
                .. '\n[server]\nport    = 9898\nthreads = 4\nlocale  = "C.UTF-8"\n'
                .. '\n[labels]\napp = "podinfo"\nport = "9898"\ntier = "backend"\n'
                .. "\n[limits]\nrequests = 100\n", files["app.conf"])
            for _, path in ipairs { "podName", "user/labels", "k8s/annotations", "app.conf",
                "env/HOME", "env/PATH", "env/USER" } do files[path] = nil end
            assert.same({}, files)
        end)

        it("shows the links, and they are on disk as shown", function()
            local target = dir .. "/pod"
            local text = run_podinfo(target)
            local links = {}
            for name, link in step(text, 2):gmatch("lrwxrwxrwx +%d+  (%S+) %-> (%S+)\n") do
                links[name] = link
            end
            local first = step(text, 1):match("published +(" .. VERSION .. ")")
            assert.equal(first, links["..data"])
            links["..data"] = nil
            assert.same({ ["app.conf"] = "..data/app.conf", env = "..data/env", k8s = "..data/k8s",
                podName = "..data/podName", user = "..data/user" }, links)
            for name, link in pairs(links) do
                assert.equal(link, sandbox.readlink(target .. "/" .. name))
            end
            assert.equal("0640", sandbox.mode(target .. "/app.conf"))
            assert.truthy(step(text, 2):find("%-rw%-r%-%-%-%-%-  1    app%.conf\n"), text)
        end)

        it("tells which files were swapped, written and reused, by inode", function()
            local target = dir .. "/pod"
            local text = run_podinfo(target)
            local told = step(text, 3)
            local before, after = told:match(
                "%.%.data %-> (%S+)  before\n +%.%.data %-> (%S+)  after one rename\n")
            assert.equal(step(text, 1):match(VERSION), before)
            assert.is_true(before < after)
            local written, reused = told:match("\n   written(.*)\n   reused(.*)\n   open reader")
            assert.truthy(written:find("app%.conf +inode %d+, before %d+\n.*user/labels +inode"),
                told)
            assert.falsy(reused:find("user/labels", 1, true))

            -- The version of this step is retained, so its inodes can still be looked at.
            local inodes = tree(target .. "/" .. after, "%i")
            for _, path in ipairs { "app.conf", "user/labels" } do
                assert.equal(inodes[path], written:match(path .. " +inode (%d+)"))
            end
            local count = 0
            for path, inode in reused:gmatch("(%S+) +inode (%d+), now with 2 links") do
                count = count + 1
                assert.equal(inodes[path], inode)
            end
            assert.equal(5, count) -- podName, k8s/annotations and three variables
        end)

        it("lets the open reader see the old label and a new reader the new one", function()
            local told = step(run_podinfo(), 3)
            assert.truthy(told:find('open reader still sees tier="backend"\n', 1, true), told)
            assert.truthy(told:find('new reader  sees tier="frontend"\n', 1, true), told)
        end)

        it("refuses a bad set, and then goes back to the first one", function()
            local target = dir .. "/pod"
            local text = run_podinfo(target)
            local refusal = step(text, 4)
            assert.truthy(refusal:find("check_failed, committed = false\n", 1, true), refusal)
            local reason = 'app.conf: the port "98x98" is no number\n'
            assert.truthy(refusal:find(reason, 1, true), refusal)
            assert.truthy(refusal:find("the same names, inodes and links", 1, true), refusal)

            local rollback = step(text, 5)
            local live, retained = rollback:match("versions +(%S+)  live\n +(%S+)  retained\n")
            assert.equal(live, sandbox.readlink(target .. "/..data"))
            assert.truthy(rollback:find("updated     app.conf user/labels\n", 1, true), rollback)
            assert.truthy(rollback:find("written     0 bytes; 7 files reused", 1, true), rollback)
            local names = { "..data", "..lock", "app.conf", "env", "k8s", "podName", "user",
                live, retained }
            table.sort(names)
            assert.same(names, sandbox.names(target))
        end)

        it("prints no secret, no colours into a pipe, and little enough to read", function()
            local text = run_podinfo()
            assert.falsy(text:find("do not show", 1, true))
            assert.falsy(text:find("\27", 1, true))
            local _, lines = text:gsub("\n", "\n")
            assert.is_true(lines <= 75, lines .. " lines")
        end)

        it("empties only the demo directory of a build, time and again", function()
            sandbox.mkdir(dir .. "/build")
            sandbox.write_file(dir .. "/build/library", "stays")
            local settings = { "ATOMICWRITER_BUILD=" .. dir .. "/build" }
            for _ = 1, 2 do
                local status, _, stderr = sandbox.run(command("podinfo/podinfo", settings))
                assert.equal("", stderr)
                assert.equal(0, status)
                sandbox.write_file(dir .. "/build/demo/litter", "goes")
            end
            assert.equal("stays", sandbox.read_file(dir .. "/build/library"))
            assert.same({ "build" }, sandbox.names(dir))
            assert.equal(0, sandbox.run(command("podinfo/podinfo", settings)))
            assert.same({ "podinfo" }, sandbox.names(dir .. "/build/demo"))
        end)

        it("does not replace what somebody else has published", function()
            local target = dir .. "/app"
            output_of("write", target)
            local before = sandbox.listing(target)
            local status, stdout, stderr = sandbox.run(command("podinfo/podinfo", {}, target))
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.equal("podinfo: " .. target
                .. ": something is published there already, which this would replace\n", stderr)
            assert.equal(before, sandbox.listing(target))
        end)

        it("wants at most one argument", function()
            local status, stdout, stderr = sandbox.run(command("podinfo/podinfo", {}, "a", "b"))
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.equal("usage: lua5.4 podinfo.lua [TARGET]\n", stderr)
        end)
    end)
end)
