-- `--watch`: the executable stays, and writes again whenever an input changes.

local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"

local eventually = sandbox.eventually

describe("atomicwriter --watch", function()
    local dir, target, log, child, debounce

    before_each(function()
        dir = sandbox.memdir()
        target, log = dir .. "/app", dir .. "/log"
        debounce = "20ms"
    end)
    after_each(sandbox.cleanup)

    local function path(name) return dir .. "/" .. name end

    -- As an editor: another file takes the place of NAME.
    local function replace(name, text)
        sandbox.write_file(path(name .. ".new"), text)
        assert(os.rename(path(name .. ".new"), path(name)))
    end

    local function live(name) return sandbox.read_file(target .. "/" .. name) end

    local function live_becomes(name, text)
        eventually(function() return live(name) == text end)
        assert.equal(text, live(name))
    end

    local function stderr() return sandbox.read_file(child.dir .. "/err") or "" end

    local function says(text)
        eventually(function() return stderr():find(text, 1, true) end)
        assert.truthy(stderr():find(text, 1, true), stderr())
    end

    local function count(text, pattern)
        return select(2, text:gsub(pattern, "%0"))
    end

    -- Start `write --watch` with more words, and wait until it watches.
    local function watch(...)
        child = command.spawn("write", target, "--create", "--durability", "none", "--watch",
            "--debounce", debounce, ...)
        says "watching for changes"
        return child
    end

    -- End it with SIGNAL, which has to be a success.
    local function stop(signal)
        child:kill(signal or "TERM")
        local status, _, err = child:wait(30)
        assert.equal(0, status, err)
        return err
    end

    -- A shell command that notes each reload in LOG: the live text between "<" and ">".
    local function noting(name, before_end)
        return ("printf '<' >>%s; cat %s/%s >>%s; %s printf '>\\n' >>%s"):format(
            log, target, name, log, before_end or "", log)
    end

    local function reloads() return sandbox.read_file(log) or "" end

    it("renders again when a template is edited in place, with one reload", function()
        sandbox.write_file(path "x.tmpl", "one")
        watch("--template", path "x.tmpl", "--reload", noting "x")
        live_becomes("x", "one")
        sandbox.write_file(path "x.tmpl", "two")
        live_becomes("x", "two")
        eventually(function() return reloads() == "<one>\n<two>\n" end)
        stop()
        assert.equal("<one>\n<two>\n", reloads())
    end)

    it("renders again when an editor puts another file in the place of a template", function()
        sandbox.write_file(path "x.tmpl", "one")
        watch("--template", path "x.tmpl")
        for _, text in ipairs { "two", "three", "four" } do
            replace("x.tmpl", text)
            live_becomes("x", text)
        end
        stop()
    end)

    it("finds includes, data files, env files and label files by itself", function()
        sandbox.write_file(path "x.tmpl", '{% include "part" %}{{ data.d.n }}{{ labels.l }}')
        sandbox.write_file(path "part", "p1 ")
        sandbox.write_file(path "d.json", '{"n": "j1 "}')
        sandbox.write_file(path "e.env", "E=e1")
        sandbox.write_file(path "labels", 'l="l1"')
        sandbox.write_file(path "plain", "f1")
        watch("--template", path "x.tmpl", "--data", "d=" .. path "d.json",
            "--from-env-file", path "e.env", "--labels-from", path "labels",
            "--from-file", path "plain")
        live_becomes("x", "p1 j1 l1")
        replace("part", "p2 ")
        live_becomes("x", "p2 j1 l1")
        replace("d.json", '{"n": "j2 "}')
        live_becomes("x", "p2 j2 l1")
        replace("labels", 'l="l2"')
        live_becomes("x", "p2 j2 l2")
        replace("e.env", "E=e2")
        live_becomes("E", "e2")
        replace("plain", "f2")
        live_becomes("plain", "f2")
        stop()
    end)

    it("follows files that come into a directory and go from it", function()
        sandbox.mkdir(path "conf")
        sandbox.mkdir(path "tmpl")
        sandbox.mkdir(path "tmpl/sub")
        sandbox.write_file(path "conf/a", "a")
        sandbox.write_file(path "tmpl/sub/t.tmpl", "t")
        watch("--from-file", path "conf", "--template", path "tmpl")
        sandbox.write_file(path "conf/b", "b")
        live_becomes("b", "b")
        sandbox.write_file(path "tmpl/sub/u.tmpl", "u")
        live_becomes("sub/u", "u")
        os.remove(path "conf/a")
        live_becomes("a", nil)
        stop()
    end)

    it("follows a source directory that atomicwriter manages through its swaps", function()
        local source = path "source"
        local function publish(text)
            sandbox.must(command.words("write", source, "--create", "--durability", "none",
                "--from-literal", "x.tmpl=" .. text, "--from-literal", "part=" .. text))
        end
        publish "one"
        watch("--template", source, "--from-file", "copy/x=" .. source .. "/x.tmpl")
        for _, text in ipairs { "two", "three", "four" } do
            publish(text)
            live_becomes("x", text)
            live_becomes("part", text)
            live_becomes("copy/x", text)
        end
        stop()
    end)

    it("keeps the last good version on a template error, says it once, and recovers", function()
        sandbox.write_file(path "x.tmpl", "one")
        watch("--template", path "x.tmpl")
        local before = sandbox.readlink(target .. "/..data")
        replace("x.tmpl", "first\n{{ nobody }}")
        says "x.tmpl:2: undefined: nobody"
        for _ = 1, 3 do -- each time a reason to render again
            child:kill "HUP"
            sandbox.sleep(0.05)
        end
        assert.equal(before, sandbox.readlink(target .. "/..data"))
        replace("x.tmpl", "good")
        live_becomes("x", "good")
        says "recovered"
        assert.equal(1, count(stop(), "undefined: nobody"))
    end)

    it("keeps the last good version when all sources are gone, until some are there", function()
        sandbox.mkdir(path "src")
        sandbox.write_file(path "src/a", "1")
        watch("--from-file", path "src")
        os.remove(path "src/a")
        says "the sources hold no file at all"
        assert.equal("1", live "a")
        sandbox.write_file(path "src/a", "2")
        live_becomes("a", "2")
        stop()
    end)

    it("starts although a template is wrong, and recovers", function()
        sandbox.write_file(path "x.tmpl", "{{ nobody }}")
        watch("--template", path "x.tmpl")
        says "undefined: nobody"
        replace("x.tmpl", "good")
        live_becomes("x", "good")
        stop()
    end)

    it("waits for an include that is missing", function()
        sandbox.write_file(path "x.tmpl", '{% include "part" %}')
        watch("--template", path "x.tmpl")
        says "part"
        sandbox.write_file(path "part", "there")
        live_becomes("x", "there")
        stop()
    end)

    it("reads everything anew at SIGHUP", function()
        sandbox.write_file(path "source", "one")
        watch("--from-exec", "x=cat " .. path "source")
        live_becomes("x", "one")
        replace("source", "two") -- what a command reads cannot be watched
        child:kill "HUP"
        live_becomes("x", "two")
        stop()
    end)

    it("renders at every interval what cannot be watched", function()
        sandbox.write_file(path "source", "one")
        watch("--from-exec", "x=cat " .. path "source", "--interval", "50ms")
        replace("source", "two")
        live_becomes("x", "two")
        replace("source", "three")
        live_becomes("x", "three")
        stop()
    end)

    it("reloads once for a burst of changes", function()
        sandbox.write_file(path "x.tmpl", "0")
        debounce = "400ms"
        watch("--template", path "x.tmpl", "--reload", noting "x")
        for i = 1, 20 do replace("x.tmpl", tostring(i)) end
        live_becomes("x", "20")
        stop()
        assert.equal("<0>\n<20>\n", reloads())
    end)

    it("never lets reloads overlap, and gives the last state its own", function()
        sandbox.write_file(path "x.tmpl", "0")
        debounce = "0"
        watch("--template", path "x.tmpl", "--reload", noting("x", "sleep 0.1;"))
        for i = 1, 30 do
            replace("x.tmpl", tostring(i))
            sandbox.sleep(0.02)
        end
        eventually(function() return reloads():find("<30>\n", 1, true) end)
        stop()
        assert.equal("<30>\n", reloads():match("[^\n]*\n$"))
        for line in reloads():gmatch("[^\n]*\n") do assert.truthy(line:match("^<%d+>\n$"), line) end
        assert.is_true(count(reloads(), "\n") < 31) -- some came while a reload was running
    end)

    for _, signal in ipairs { "TERM", "INT" } do
        it("finishes the reload in hand at SIG" .. signal .. " and exits with 0", function()
            sandbox.write_file(path "x.tmpl", "one")
            child = command.spawn("write", target, "--create", "--durability", "none", "--watch",
                "--template", path "x.tmpl", "--reload",
                "touch " .. path "begun" .. "; sleep 0.4; touch " .. path "ended")
            assert.truthy(eventually(function() return sandbox.kind(path "begun") end))
            stop(signal)
            assert.equal("file", sandbox.kind(path "ended"))
            assert.equal("one", live "x")
        end)
    end

    it("finishes the check in hand at SIGTERM, publishes, and exits with 0", function()
        sandbox.write_file(path "x.tmpl", "one")
        child = command.spawn("write", target, "--create", "--durability", "none", "--watch",
            "--template", path "x.tmpl", "--check", "touch " .. path "begun" .. "; sleep 0.4")
        assert.truthy(eventually(function() return sandbox.kind(path "begun") end))
        stop()
        assert.equal("one", live "x")
    end)

    it("renders at times although changes never cease", function()
        sandbox.write_file(path "x.tmpl", "one")
        watch("--template", path "x.tmpl")
        local noise = sandbox.spawn { "sh", "-c", "cd " .. dir
            .. "; while :; do echo >noise; sleep 0.005; done" }
        replace("x.tmpl", "two")
        live_becomes("x", "two")
        noise:kill "KILL"
        stop()
    end)

    it("holds no version of a source that it has read", function()
        local source = path "source"
        local function publish(text)
            sandbox.must(command.words("write", source, "--create", "--durability", "none",
                "--from-literal", "x=" .. text))
        end
        publish "0"
        watch("--template", source)
        for n = 1, 5 do
            publish(tostring(n))
            live_becomes("x", tostring(n))
        end
        local status = require("cjson").decode(
            sandbox.must(command.words("status", source, "--output", "json")))
        assert.equal(2, #status.versions) -- the live one, and one that is retained
        for _, version in ipairs(status.versions) do assert.is_false(version.leased) end
        stop()
    end)

    it("rolls back what cannot be reloaded, goes on, and takes the next good version", function()
        sandbox.write_file(path "x.tmpl", "good")
        watch("--template", path "x.tmpl", "--reload", "grep -q good " .. target .. "/x")
        replace("x.tmpl", "bad")
        says "rolled back"
        live_becomes("x", "good")
        replace("x.tmpl", "very good")
        live_becomes("x", "very good")
        assert.equal(1, count(stop(), "rolled back to"))
    end)

    it("publishes nothing that the check refuses, and says so once", function()
        sandbox.write_file(path "x.tmpl", "good")
        watch("--template", path "x.tmpl", "--check", "grep -q good {}/x")
        replace("x.tmpl", "bad")
        says "the check refused"
        child:kill "HUP"
        replace("x.tmpl", "a good one")
        live_becomes("x", "a good one")
        assert.equal(1, count(stop(), "the check refused"))
    end)

    it("waits for a target that is missing", function()
        sandbox.write_file(path "x.tmpl", "one")
        child = command.spawn("write", target, "--watch", "--durability", "none",
            "--template", path "x.tmpl")
        says "no such directory"
        sandbox.mkdir(target)
        live_becomes("x", "one")
        stop()
    end)

    it("heeds a SIGHUP that comes while it waits for changes to cease", function()
        sandbox.write_file(path "source", "one")
        sandbox.write_file(path "x.tmpl", "x")
        debounce = "500ms"
        watch("--from-exec", "y=cat " .. path "source", "--template", path "x.tmpl")
        replace("source", "two")
        sandbox.write_file(path "unrelated", "")
        sandbox.sleep(0.1)
        child:kill "HUP"
        live_becomes("y", "two")
        stop()
    end)

    it("does not publish again at every interval what could not be reloaded", function()
        sandbox.write_file(path "source", "good")
        watch("--from-exec", "x=cat " .. path "source", "--interval", "30ms",
            "--reload", noting("x", "grep -q good " .. target .. "/x &&"))
        replace("source", "bad")
        says "rolled back"
        sandbox.sleep(0.5)
        replace("source", "very good")
        live_becomes("x", "very good")
        assert.equal(1, count(stop(), "rolled back to"))
    end)

    it("can be ended while a template loops without end", function()
        sandbox.write_file(path "x.tmpl", "{% while true do end %}")
        child = command.spawn("write", target, "--create", "--watch", "--template", path "x.tmpl")
        sandbox.sleep(0.3)
        child:kill "TERM"
        assert.equal(0, (child:wait(30)))
    end)

    it("can be ended while a payload keeps it from being gathered", function()
        replace("project.lua", [[return { target = "app", create = true,
            payload = setmetatable({}, { __index = function() while true do end end }) }]])
        child = command.spawn("run", path "project.lua", "--watch")
        sandbox.sleep(0.3)
        child:kill "TERM"
        local status, _, err = child:wait(30)
        assert.equal(0, status, err)
        assert.falsy(err:find("this should not have happened", 1, true), err)
    end)

    it("says once what a check raises", function()
        replace("project.lua", [[return { target = "app", create = true, durability = "none",
            payload = { a = "1" }, check = function() error("boom") end }]])
        child = command.spawn("run", path "project.lua", "--watch", "--debounce", "20ms")
        says "boom"
        child:kill "HUP"
        sandbox.sleep(0.3)
        assert.equal(1, count(stop(), "refused: [^\n]*boom"))
        assert.equal(1, count(stderr(), "project.lua:2: in "))
    end)

    it("refuses a pipe, which would be empty the second time", function()
        for _, case in ipairs {
            { "--from-file", "k=/dev/stdin" }, { "--template", "k=/dev/stdin" },
            { "--data", "k=/dev/stdin" }, { "--from-env-file", "/dev/stdin" },
        } do
            local words = command.words("write", target, "--create", "--watch", "--from-literal",
                "a=1", sandbox.unpack(case))
            local status, out, err = sandbox.run("echo x | " .. sandbox.sh(words))
            assert.equal(2, status)
            assert.equal("", out)
            assert.truthy(err:find(case[1] .. ": /dev/stdin can be read only once", 1, true), err)
            assert.is_nil(sandbox.kind(target))
        end
    end)

    it("prints each result as one object with --output json", function()
        sandbox.write_file(path "x.tmpl", "one")
        watch("--template", path "x.tmpl", "--output", "json")
        replace("x.tmpl", "two")
        live_becomes("x", "two")
        stop()
        local json, seen = require "cjson", {}
        for line in sandbox.read_file(child.dir .. "/out"):gmatch("[^\n]+") do
            seen[#seen + 1] = json.decode(line)
        end
        assert.equal(2, #seen)
        assert.same({ "x" }, seen[1].added)
        assert.same({ "x" }, seen[2].updated)
        assert.equal(seen[1].version, seen[2].previous)
    end)

    describe("with a project", function()
        local function project(text) replace("project.lua", text) end

        local function run_project(...)
            child = command.spawn("run", path "project.lua", "--watch", "--debounce", "20ms", ...)
            says "watching for changes"
        end

        it("watches what its builders read, and the paths that it names", function()
            sandbox.write_file(path "x.tmpl", "t1")
            sandbox.write_file(path "other", "o1")
            project [[
                local template = require "atomicwriter.template"
                return {
                    target = "app", create = true, durability = "none", watch = { "other" },
                    payload = function(context)
                        return {
                            a = template.render_file("x.tmpl", context),
                            b = { template = "x.tmpl" },
                            c = io.open("other"):read("*a"),
                        }
                    end,
                }]]
            run_project()
            replace("x.tmpl", "t2")
            live_becomes("a", "t2")
            live_becomes("b", "t2")
            replace("other", "o2")
            live_becomes("c", "o2")
            stop()
        end)

        it("takes the project anew when it or a module of its own changes", function()
            sandbox.write_file(path "helper.lua", "return { text = 'h1' }")
            project [[return { target = "app", create = true, durability = "none",
                payload = { a = require("helper").text } }]]
            run_project()
            live_becomes("a", "h1")
            replace("helper.lua", "return { text = 'h2' }")
            live_becomes("a", "h2")
            project [[return { target = "app", durability = "none",
                payload = { a = require("helper").text, b = "new" } }]]
            live_becomes("b", "new")
            stop()
        end)

        it("keeps what the project said when it becomes wrong, and recovers", function()
            sandbox.write_file(path "x.tmpl", "t1")
            project [[return { target = "app", create = true, durability = "none",
                payload = { a = { template = "x.tmpl" } } }]]
            run_project()
            project "return {"
            says "project.lua:1:"
            replace("x.tmpl", "t2")
            live_becomes("a", "t2")
            project [[return { target = "app", durability = "none", payload = { a = "fixed" } }]]
            live_becomes("a", "fixed")
            stop()
        end)

        it("takes a module anew that could not be loaded", function()
            sandbox.write_file(path "helper.lua", "return { text = 'h1' }")
            project [[return { target = "app", create = true, durability = "none",
                payload = { a = require("helper").text } }]]
            run_project()
            replace("helper.lua", "return {")
            says "helper.lua:1:"
            replace("helper.lua", "return { text = 'h3' }")
            live_becomes("a", "h3")
            stop()
        end)

        it("renders only the projection whose input has changed", function()
            sandbox.write_file(path "a.tmpl", "a1")
            sandbox.write_file(path "b.tmpl", "b1")
            project(([[
                local function one(name)
                    return {
                        target = name, create = true, durability = "none",
                        reload = "basename %s >>%s",
                        payload = { x = { template = name .. ".tmpl" } },
                    }
                end
                return { one "a", one "b" }]]):format("$ATOMICWRITER_TARGET", log))
            run_project()
            replace("b.tmpl", "b2")
            eventually(function() return reloads() == "a\nb\nb\n" end)
            stop()
            assert.equal("a\nb\nb\n", reloads())
        end)

        it("stays below 16 MiB of memory through 10,000 renderings", function()
            if sandbox.is_sanitized() then pending("a sanitizer needs more") end
            sandbox.write_file(path "x.tmpl", "{% for i = 1, 20 do %}line {{ i }} {{ n }} {% end %}"
                .. ("x"):rep(4096))
            project [[
                local count = 0
                return {
                    target = "app", create = true, durability = "none",
                    payload = function(context)
                        count = count + 1
                        context.n = count
                        if count == 10000 then
                            for line in io.lines "/proc/self/status" do
                                if line:find "^VmHWM" then io.stderr:write(line, "\n") end
                            end
                            local uv = require "luv"
                            uv.kill(uv.os_getpid(), "sigterm")
                        end
                        return {
                            n = tostring(count),
                            x = require("atomicwriter.template").render_file("x.tmpl", context),
                        }
                    end,
                }]]
            child = command.spawn("run", path "project.lua", "--watch", "--interval", "0.1ms", "-q")
            local status, _, err = child:wait(300)
            assert.equal(0, status, err)
            assert.equal("10000", live "n")
            local peak = tonumber(err:match("VmHWM:%s*(%d+) kB"))
            assert.is_true(peak < 16 * 1024, peak .. " kB")
        end)
    end)
end)
