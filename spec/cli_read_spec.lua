-- The commands that look: diff, status, ls, cat, render; and rollback.

local atomicwriter = require "atomicwriter"
local cjson = require "cjson"
local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("the command line, reading", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
    end)
    after_each(sandbox.cleanup)

    local function file(name, data)
        sandbox.write_file(dir .. "/" .. name, data)
        return dir .. "/" .. name
    end

    local function write(...)
        return command.must("write", target, ...)
    end

    -- Publish any PAYLOAD, with names that the command does not take.
    local function publish(payload, options)
        local writer = assert(atomicwriter.new(target, options))
        local result = assert(writer:write(payload))
        writer:close()
        return result.version
    end

    -- Run one that has to leave everything as it is: exit status, stdout, stderr.
    local function look(...)
        local before = sandbox.listing(dir)
        local status, stdout, stderr = command.run(...)
        assert.equal(before, sandbox.listing(dir))
        return status, stdout, stderr
    end

    -- The one line that a command says which fails with exit status WANTED.
    local function fails(wanted, ...)
        local status, stdout, stderr = look(...)
        assert.equal(wanted, status, stderr)
        assert.equal("", stdout)
        assert.truthy(stderr:find("^atomicwriter: [^\n]+\n$"), stderr)
        return stderr
    end

    describe("diff", function()
        -- What it prints where something differs.
        local function diff(...)
            local status, stdout, stderr = look("diff", target, ...)
            assert.equal("", stderr)
            assert.equal(1, status, stdout)
            return stdout
        end

        it("prints nothing and exits with 0 when nothing differs", function()
            write("--from-literal", "a=1")
            assert.equal("", command.must("diff", target, "--from-literal", "a=1"))
        end)

        it("exits with 2 when it fails", function()
            write("--from-literal", "a=1")
            assert.truthy(fails(2, "diff", target, "--from-file", dir .. "/missing")
                :find("--from-file: " .. dir .. "/missing", 1, true))
            fails(2, "diff", dir .. "/missing", "--from-literal", "a=1")
            fails(2, "diff", target)
            fails(2, "diff", target, "--from-exec", "k=false")
        end)

        it("is what patch turns the old contents into the new ones with", function()
            local long = ("line\n"):rep(50)
            publish {
                changed = "a\nb\nc\n", ["dir/changed"] = long .. "x\n" .. long,
                ["no-newline"] = "a", ["to-newline"] = "a", removed = "gone\n",
                ["dir/sub/removed"] = "gone\n", same = "same\n", ["a name"] = "gone\n",
                ["new\nline"] = "gone\n", ['"quoted"'] = "gone\n", ["\195\164 \\"] = "gone\n",
            }
            local sources = {
                "--from-literal", "changed=a\nB\nc\n", "--from-literal",
                "dir/changed=" .. long .. "y\n" .. long, "--from-literal", "no-newline=b",
                "--from-literal", "to-newline=a\n", "--from-literal", "same=same\n",
                "--from-literal", "added=+++ b/x\n--- a/x\n",
            }
            local copy = dir .. "/copy"
            sandbox.must { "cp", "-r", target .. "/" .. volume.live(target), copy }
            sandbox.write_file(dir .. "/patch", diff(sandbox.unpack(sources)))
            sandbox.must("setsid patch -t -s -p1 -d " .. copy .. " <" .. dir .. "/patch")
            write(sandbox.unpack(sources))
            sandbox.must { "diff", "-r", copy, target .. "/" .. volume.live(target) }
        end)

        it("tells of a file that becomes a directory, and back", function()
            publish { x = "1\n", ["y/y"] = "2\n" }
            assert.equal("--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n"
                .. "--- /dev/null\n+++ b/x/x\n@@ -0,0 +1 @@\n+1\n"
                .. "--- /dev/null\n+++ b/y\n@@ -0,0 +1 @@\n+2\n"
                .. "--- a/y/y\n+++ /dev/null\n@@ -1 +0,0 @@\n-2\n",
                diff("--from-literal", "x/x=1\n", "--from-literal", "y=2\n"))
        end)

        it("names binary files, and empty ones that come or go", function()
            publish { bin = "\0\1", gone = "" }
            assert.equal("Binary files a/bin and b/bin differ\n"
                .. "gone: removed, empty\nnew: new, empty\n",
                diff("--from-file", "bin=" .. file("f", "\0\2"), "--from-literal", "new="))
        end)

        it("tells modes and owners, also where the contents are the same", function()
            write("--from-literal", "a=1")
            assert.equal("a: mode 0644 -> 0640\n", diff("--from-literal", "a=1", "--mode", "0640"))
            if sandbox.is_root() then
                assert.equal(".: mode or owner of a directory\na: uid 0 -> 1\na: gid 0 -> 2\n",
                    diff("--from-literal", "a=1", "--owner", "1", "--group", "2"))
            end
            local text = diff("--from-literal", "a=2", "--file-mode", "a=0664")
            assert.truthy(text:find("^a: mode 0644 %-> 0664\n%-%-%- a/a\n"), text)
        end)

        it("shows of what others may not read the sizes alone, on either side", function()
            publish {
                changed = { data = "old-secret", mode = "0600" }, gone = { data = "old-secret",
                mode = "0640" }, opened = { data = "old-secret", mode = "0600" },
                closed = "old-secret",
            }
            local sources = {
                "--from-literal", "changed=new-secret-2", "--file-mode", "changed=0600",
                "--from-literal", "opened=new-secret-2", "--from-literal", "closed=new-secret-2",
                "--file-mode", "closed=0600", "--from-literal", "added=new-secret-2",
                "--file-mode", "added=0660",
            }
            local text = diff(sandbox.unpack(sources))
            assert.falsy(text:find("secret", 1, true), text)
            assert.equal("added: new, 12 bytes, contents not shown\n"
                .. "changed: 10 bytes -> 12 bytes, contents not shown\n"
                .. "closed: mode 0644 -> 0600\n"
                .. "closed: 10 bytes -> 12 bytes, contents not shown\n"
                .. "gone: removed, 10 bytes, contents not shown\n"
                .. "opened: mode 0600 -> 0644\n"
                .. "opened: 10 bytes -> 12 bytes, contents not shown\n", text)
            sources[#sources + 1] = "--show-secrets"
            text = diff(sandbox.unpack(sources))
            assert.equal(4, select(2, text:gsub("%-old%-secret", "")))
            assert.equal(4, select(2, text:gsub("%+new%-secret", "")))
        end)

        it("compares with nothing where nothing has been written yet", function()
            assert.equal("--- /dev/null\n+++ b/a\n@@ -0,0 +1 @@\n+1\n",
                diff("--from-literal", "a=1\n"))
        end)
    end)

    describe("status", function()
        local function status_of(wanted)
            local status, stdout, stderr = look("status", target)
            assert.equal("", stderr)
            assert.equal(wanted, status, stdout)
            local json_status, json = command.run("status", target, "--output", "json")
            assert.equal(wanted, json_status)
            local record = cjson.decode(json)
            assert.equal(wanted == 0, record.healthy)
            assert.equal(wanted ~= 0, #record.faults > 0)
            for _, fault in ipairs(record.faults) do
                assert.truthy(stdout:find("unhealthy " .. fault, 1, true), stdout)
            end
            return stdout, record
        end

        it("shows the live version and the retained ones, newest first", function()
            local versions = {}
            for number = 1, 3 do
                versions[number] = publish({ a = tostring(number) }, { keep = 2 })
            end
            local text, record = status_of(0)
            for number, kind in ipairs { "retained", "retained", "live" } do
                assert.truthy(text:find("\n" .. kind .. " +" .. versions[number]:gsub("%.", "%%.")
                    .. "  %d+%-%d+%-%d+T"), text)
                local about = record.versions[4 - number]
                assert.equal(versions[number], about.name)
                assert.equal(kind == "live", about.live)
                assert.is_false(about.leased)
            end
            assert.truthy(text:find("\nhealthy\n$"))
            assert.equal(versions[3], record.live)
            assert.equal(target, record.target)
            for _, name in ipairs { "dangling", "missing", "foreign", "residue", "faults" } do
                assert.same({}, record[name], name)
            end
        end)

        it("shows which version somebody reads", function()
            publish { a = "1" }
            local snapshot = assert(atomicwriter.open(target))
            publish { a = "2" }
            local text, record = status_of(0)
            assert.truthy(text:find(snapshot.version .. "[^\n]*being read\n"))
            assert.is_false(record.versions[1].leased)
            assert.is_true(record.versions[2].leased)
            snapshot:close()
            assert.falsy(status_of(0):find("being read", 1, true))
        end)

        it("is unhealthy where nothing is live", function()
            local _, record = status_of(1)
            assert.is_nil(record.live)
            sandbox.symlink("../elsewhere", target .. "/..data")
            assert.truthy(status_of(1):find("..data", 1, true))
        end)

        it("names what dangles, is missing, is foreign or was left over", function()
            publish { a = "1", b = "2", c = "3" }
            sandbox.symlink("..data/dangling", target .. "/dangling")
            os.remove(target .. "/a")
            os.remove(target .. "/b")
            file("target/b", "foreign")
            sandbox.symlink("..2020_01_01_00_00_00.1", target .. "/..data_tmp")
            sandbox.mkdir(target .. "/..2999_01_01_00_00_00.1")
            local text, record = status_of(1)
            assert.same({ "dangling" }, record.dangling)
            assert.same({ "a" }, record.missing)
            assert.same({ "b" }, record.foreign)
            assert.same({ "..2999_01_01_00_00_00.1", "..data_tmp" }, record.residue)
            assert.equal(5, #record.faults)
            assert.falsy(text:find("\nhealthy", 1, true))
            assert.falsy(text:find(" c ", 1, true))
        end)

        it("is healthy again after the next write", function()
            publish { a = "1" }
            sandbox.symlink("..data/dangling", target .. "/dangling")
            os.remove(target .. "/a")
            status_of(1)
            write("--from-literal", "a=1")
            status_of(0)
        end)

        it("lets what others have put there alone", function()
            publish { a = "1" }
            file("target/README", "mine")
            sandbox.symlink("/nowhere", target .. "/link")
            status_of(0)
        end)

        it("fails for what is no directory", function()
            fails(1, "status", dir .. "/missing")
            fails(1, "status", file("file", ""))
        end)
    end)

    describe("ls", function()
        it("lists all files, or those at or below a path", function()
            publish { a = "1", ["d/x"] = "2", ["d/sub/y"] = "3", dx = "4", ["sp ace\n"] = "5" }
            assert.equal("a\nd/sub/y\nd/x\ndx\nsp ace\\n\n", command.must("ls", target))
            for _, path in ipairs { "d", "d/", "./d", "d//.", } do
                assert.equal("d/sub/y\nd/x\n", command.must("ls", target, path), path)
            end
            assert.equal("d/sub/y\n", command.must("ls", target, "d/sub/y"))
            assert.equal(command.must("ls", target), command.must("ls", target, "."))
        end)

        it("shows mode, owner, group, size and time with -l", function()
            publish { a = { data = "four", mode = "0640" } }
            local user = sandbox.must("id -un"):gsub("\n", "")
            local group = sandbox.must("id -gn"):gsub("\n", "")
            local text = command.must("ls", "-l", target)
            local mode, owner, owner_group, size, time, name =
                text:match("^(%d+) (%S+) +(%S+) +(%d+) (%S+) (%S+)\n$")
            assert.same({ "0640", user, group, "4", "a" }, { mode, owner, owner_group, size, name })
            assert.truthy(time:find("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"))
        end)

        it("says the same in JSON", function()
            local version = publish { a = { data = "four", mode = "0640" }, ["d/b"] = "" }
            local record = cjson.decode(command.must("ls", target, "--output", "json"))
            assert.equal(version, record.version)
            assert.equal(2, #record.files)
            assert.equal("a", record.files[1].path)
            assert.equal("0640", record.files[1].mode)
            assert.equal(4, record.files[1].size)
            assert.equal(sandbox.uid(), record.files[1].uid)
            publish({})
            assert.same({}, cjson.decode(command.must("ls", target, "--output=json")).files)
        end)

        it("names what is missing", function()
            publish { a = "1" }
            assert.truthy(fails(1, "ls", target, "b"):find(": b: no such file", 1, true))
            assert.truthy(fails(1, "ls", dir .. "/missing"):find("no such directory", 1, true))
            fails(1, "ls", target, "..")
            fails(1, "ls", target, "..data/a")
            sandbox.mkdir(dir .. "/empty")
            assert.truthy(fails(1, "ls", dir .. "/empty"):find("nothing has been written", 1, true))
        end)
    end)

    describe("cat", function()
        it("prints files byte for byte, one after the other", function()
            publish { a = "\0\255\r\n", ["d/b"] = "no newline", empty = "" }
            assert.equal("\0\255\r\nno newline\0\255\r\n",
                command.must("cat", target, "a", "empty", "d/b", "./a"))
        end)

        it("takes all from one version, whatever is written meanwhile", function()
            -- The first file is larger than a pipe: cat waits in the middle of it.
            local big = ("1"):rep(1024 * 1024)
            publish({ a = big, b = "1" }, { keep = 0 })
            local reader = sandbox.spawn { "sh", "-c", sandbox.sh(command.words("cat", target,
                "a", "b")) .. ' | { head -c 1 >"$0/first"; : >"$0/reading"; '
                .. 'while ! test -e "$0/go"; do sleep 0.01; done; cat >"$0/rest"; }', dir }
            assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/reading") end))
            publish({ a = "2", b = "2" }, { keep = 0 })
            publish({ a = "3", b = "3" }, { keep = 0 })
            file("go", "")
            assert.equal(0, (reader:wait()))
            assert.equal(big .. "1",
                sandbox.read_file(dir .. "/first") .. sandbox.read_file(dir .. "/rest"))
        end)

        it("names what is missing or is no file", function()
            publish { a = "1", ["d/b"] = "2" }
            assert.truthy(fails(1, "cat", target, "b"):find(": b: no such file", 1, true))
            assert.truthy(fails(1, "cat", target, "d"):find(": d: ", 1, true))
            fails(1, "cat", target, "../target/a")
            fails(1, "cat", dir .. "/missing", "a")
        end)
    end)

    describe("render", function()
        it("prints what a write would write", function()
            file("_part", "port {{ data.port }}")
            local path = file("t.tmpl", '{% include "_part" %}\n{{ labels.a }} {{ target }}\n')
            assert.equal("port 80\nb /etc/app\n", command.must("render", path, "--set", "port=80",
                "--label", "a=b", "--target", "/etc/app"))
        end)

        it("takes a template from standard input", function()
            local words = sandbox.sh(command.words("render", "-", "--set", "x=1"))
            assert.equal("x is 1", sandbox.must("printf '%s' 'x is {{ data.x }}' | " .. words))
            local status, stdout, stderr = sandbox.run("printf '%s' '\n{{ nope }}' | " .. words)
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.equal("atomicwriter: standard input:2: undefined: nope\n", stderr)
        end)

        it("names template and line of what is wrong", function()
            assert.truthy(fails(1, "render", file("t", "\n\n{{ nope }}"))
                :find(dir .. "/t:3: undefined: nope", 1, true))
            assert.truthy(fails(1, "render", file("t", "{% if %}")):find(dir .. "/t:1: ", 1, true))
            assert.truthy(fails(1, "render", dir .. "/missing"):find("No such file", 1, true))
            assert.truthy(fails(1, "render", dir):find(dir, 1, true))
        end)
    end)

    describe("rollback", function()
        it("publishes the newest retained version again", function()
            publish { a = "1" }
            publish { a = "2", b = "2" }
            local printed = command.must("rollback", target)
            assert.truthy(printed:find("^~ a\n%- b\n"), printed)
            assert.truthy(printed:find(volume.live(target), 1, true))
            assert(volume.shows(target, { a = "1" }))
        end)

        it("publishes the one that is named", function()
            local first = publish({ a = "1" }, { keep = 5 })
            for number = 2, 4 do publish({ a = tostring(number) }, { keep = 5 }) end
            command.must("rollback", target, first, "--keep", "5")
            assert(volume.shows(target, { a = "1" }, 5))
        end)

        it("reloads once, and undoes what cannot be reloaded", function()
            publish { a = "1" }
            publish { a = "2" }
            command.must("rollback", target, "--reload", "echo x >>" .. dir .. "/count")
            assert.equal("x\n", sandbox.read_file(dir .. "/count"))
            assert(volume.shows(target, { a = "1" }))
            local status = command.run("rollback", target, "--reload",
                "! grep -q 2 " .. target .. "/a")
            assert.equal(4, status)
            assert(volume.shows(target, { a = "1" }))
        end)

        it("says so in JSON", function()
            publish { a = "1" }
            local previous = publish { a = "2" }
            local record = cjson.decode(command.must("rollback", target, "--output", "json"))
            assert.same({ "a" }, record.updated)
            assert.equal(previous, record.previous)
            assert.equal(volume.live(target), record.version)
        end)

        it("says when there is none to go back to", function()
            publish({ a = "1" }, { keep = 0 })
            local text = command.fails(1, "rollback", target)
            assert.truthy(text:find("no version is retained", 1, true), text)
            text = command.fails(1, "rollback", target, "..2020_01_01_00_00_00.1")
            assert.truthy(text:find("..2020_01_01_00_00_00.1: there is no such", 1, true), text)
            command.fails(1, "rollback", target, "../elsewhere")
            command.fails(1, "rollback", dir .. "/missing")
            assert(volume.shows(target, { a = "1" }))
        end)
    end)
end)
