-- `atomicwriter write`: what becomes a file, what is checked and reloaded, what is refused.

local cjson = require "cjson"
local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local BINARY = "\0\1\255\r\n\0end without newline"

describe("atomicwriter write", function()
    local dir, target

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
    end)
    after_each(sandbox.cleanup)

    local function file(name, data, mode)
        sandbox.write_file(dir .. "/" .. name, data, mode)
        return dir .. "/" .. name
    end

    local function read(name)
        return sandbox.read_file(dir .. "/" .. name)
    end

    local function write(...)
        return command.must("write", target, ...)
    end

    local function shows(files, keep)
        assert(volume.shows(target, files, keep))
    end

    -- All there is below the target but the lock, which is not written for readers.
    local function listing()
        return (sandbox.listing(target):gsub('"%.%.lock"[^\n]*\n', ""))
    end

    -- The write has to fail with exit status WANTED for a reason that says WHAT (plain text),
    -- print nothing, and leave everything as it is.
    local function refused(wanted, what, ...)
        local before = sandbox.listing(dir)
        local text = command.fails(wanted, "write", target, ...)
        assert.truthy(text:find(what, 1, true), text)
        assert.equal(before, sandbox.listing(dir))
        return text
    end

    describe("takes files", function()
        it("from literals, byte for byte, split at the first '='", function()
            write("--from-literal", "a=b=c", "--from-literal", 'quoted="x" ',
                "--from-literal", "empty=", "--from-literal", "lines=1\n2\n")
            shows { a = "b=c", quoted = '"x" ', empty = "", lines = "1\n2\n" }
        end)

        it("from files, under their own name or another, binary too", function()
            write("--from-file", file("a.bin", BINARY), "--from-file", "etc/b=" .. dir .. "/a.bin")
            shows { ["a.bin"] = BINARY, ["etc/b"] = BINARY }
        end)

        it("from a directory: its regular files, neither links nor sub directories", function()
            sandbox.mkdir(dir .. "/d")
            sandbox.mkdir(dir .. "/d/sub")
            file("d/a", "1")
            file("d/.hidden", "2")
            file("d/sub/b", "3")
            sandbox.symlink("a", dir .. "/d/link")
            write("--from-file", dir .. "/d/")
            shows { a = "1", [".hidden"] = "2" }
        end)

        it("from a managed directory: the live version, with its sub directories", function()
            local managed = dir .. "/managed"
            command.must("write", managed, "--create", "--from-literal", "a=1",
                "--from-literal", "sub/b=2")
            write("--from-file", managed)
            shows { a = "1", ["sub/b"] = "2" }
        end)

        it("from env files, one file a line", function()
            local path = file("app.env", "\239\187\191# comment\nA=1 # no comment\r\n\n"
                .. '  B="quoted" \nFROM_ENVIRONMENT\nUNSET_FOR_CERTAIN\n')
            local status, _, stderr = command.run_in(dir, { "FROM_ENVIRONMENT=yes" },
                "write", target, "--from-env-file", path)
            assert.equal("", stderr)
            assert.equal(0, status)
            shows { A = "1 # no comment", B = '"quoted" ', FROM_ENVIRONMENT = "yes",
                UNSET_FOR_CERTAIN = "" }
        end)

        it("from the environment, by pattern", function()
            local status = command.run_in(dir, { "AW_SPEC_A=1", "AW_SPEC_B=2", "AX_SPEC=3" },
                "write", target, "--from-env", "AW_SPEC_*")
            assert.equal(0, status)
            shows { AW_SPEC_A = "1", AW_SPEC_B = "2" }
        end)

        it("from commands: exactly what they print", function()
            file("data", BINARY)
            write("--from-exec", "bin=cat " .. dir .. "/data", "--from-exec", "printf 'x\\ny'",
                "--from-exec", "empty=true", "--from-exec", "k=printf 'a=b'; printf c | cat")
            shows { bin = BINARY, printf = "x\ny", empty = "", k = "a=bc" }
        end)

        it("from labels and annotations, as the downward API writes them", function()
            file("podinfo", 'zone="a\\tb"\n')
            write("--label", "tier=front end", "--label", "app=web", "--labels-from",
                dir .. "/podinfo", "--annotation", 'note="hi"\n')
            shows {
                labels = 'app="web"\ntier="front end"\nzone="a\\tb"',
                annotations = 'note="\\"hi\\"\\n"',
            }
        end)

        it("renames the files of labels and annotations, or leaves them out", function()
            write("--label", "a=1", "--annotation", "b=2", "--labels-key", "podinfo/labels",
                "--annotations-key", "", "--from-literal", "x=y")
            shows { ["podinfo/labels"] = 'a="1"', x = "y" }
        end)

        it("as kubectl does, byte for byte", function()
            if not sandbox.has("kubectl") then return pending("kubectl is not installed") end
            sandbox.mkdir(dir .. "/d")
            file("d/bin", BINARY)
            file("d/text", "a\nb")
            sandbox.symlink("text", dir .. "/d/link")
            sandbox.mkdir(dir .. "/d/sub")
            local words = {
                "--from-file", dir .. "/d", "--from-file", "renamed=" .. file("f", "\n"),
                "--from-literal", "lit='=\\n\"", "--from-literal", "empty=",
            }
            local env = { "--from-env-file",
                file("e", "\239\187\191A= x \r\n\n # c\nB='q'\nHOME\nC=a=b#c\nD") }
            -- The keys and values that kubectl makes of WORDS.
            local function kubectl(list)
                local text = sandbox.must { "env", "KUBECONFIG=/dev/null", "kubectl", "create",
                    "configmap", "x", "--dry-run=client", "-o", "json", sandbox.unpack(list) }
                local map = cjson.decode(text)
                local files = map.data or {}
                for key, base64 in pairs(map.binaryData or {}) do
                    files[key] = sandbox.must("printf %s " .. base64 .. " | base64 -d")
                end
                return files
            end
            write(sandbox.unpack(words))
            shows(kubectl(words))
            write(sandbox.unpack(env))
            shows(kubectl(env))
        end)
    end)

    describe("renders templates", function()
        it("under their name without .tmpl, or a key", function()
            file("app.conf.tmpl", "port {{ data.port }}\n")
            write("--template", dir .. "/app.conf.tmpl", "--template",
                "etc/other=" .. dir .. "/app.conf.tmpl", "--set", "port=80")
            shows { ["app.conf"] = "port 80\n", ["etc/other"] = "port 80\n" }
        end)

        it("with env, labels, annotations, data, target and hostname", function()
            file("t", '{{ env.AW_SPEC }} {{ labels.tier }} {{ annotations["a/b"] }} '
                .. "{{ data.d.list | join(',') }} {{ data.d.deep.x }} {{ target }} {{ hostname }}")
            file("d.json", '{"list": [1, 2], "deep": {"x": "old"}}')
            local status, _, stderr = command.run_in(dir, { "AW_SPEC=env" }, "write", target,
                "--template", "t", "--label", "tier=front", "--annotation", "a/b=note",
                "--data", "d=d.json", "--set", "d.deep.x=new", "--labels-key=",
                "--annotations-key=")
            assert.equal("", stderr)
            assert.equal(0, status)
            shows { t = "env front note 1,2 new " .. target .. " "
                .. sandbox.must("cat /proc/sys/kernel/hostname"):gsub("\n", "") }
        end)

        it("with data of every format", function()
            file("d.json", '{"x": "json"}')
            file("d.yaml", "x: yaml")
            file("d.env", "x=env")
            file("d.lua", "return { x = 'lua' }")
            file("t", "{{ data.j.x }} {{ data.y.x }} {{ data.e.x }} {{ data.l.x }}")
            local words = { "--template", dir .. "/t" }
            for name, suffix in pairs { j = "json", y = "yaml", e = "env", l = "lua" } do
                words[#words + 1] = "--data"
                words[#words + 1] = name .. "=" .. dir .. "/d." .. suffix
            end
            write(sandbox.unpack(words))
            shows { t = "json yaml env lua" }
        end)

        it("of a directory, but not what begins with _ or . or ends with ~", function()
            for _, path in ipairs { "/d", "/d/sub", "/d/.git", "/d/_parts", "/elsewhere" } do
                sandbox.mkdir(dir .. path)
            end
            file("d/a.conf.tmpl", '{% include "_part" %}')
            file("d/_part", "{{ 1 + 1 }}")
            file("d/a.conf~", "no")
            file("d/.swp", "no")
            file("d/.git/x", "no")
            file("d/_parts/x", "no")
            file("d/sub/b", "b")
            file("elsewhere/c", "c")
            sandbox.symlink("../elsewhere/c", dir .. "/d/link.tmpl")
            sandbox.symlink("../elsewhere", dir .. "/d/directory")
            write("--template", dir .. "/d/")
            shows { ["a.conf"] = "2", ["sub/b"] = "b", link = "c" }
            write("--template", "etc/x=" .. dir .. "/d")
            shows { ["etc/x/a.conf"] = "2", ["etc/x/sub/b"] = "b", ["etc/x/link"] = "c" }
        end)

        it("of a managed directory from one version, whatever is written meanwhile", function()
            local managed, fifo = dir .. "/managed", dir .. "/fifo"
            sandbox.must { "mkfifo", fifo }
            command.must("write", managed, "--create", "--keep", "0", "--from-literal",
                'a={% include "' .. fifo .. '" %}1', "--from-literal", "b=1")
            local writer = command.spawn("write", target, "--template", managed)
            -- Opening the pipe waits for its reader: then `a` has been read, and `b` not yet.
            local feeder = sandbox.spawn { "sh", "-c", 'exec 3>"$0"; : >"$1/opened"; '
                .. 'while ! test -e "$1/go"; do sleep 0.01; done; printf x >&3', fifo, dir }
            assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/opened") end))
            command.must("write", managed, "--keep", "0", "--from-literal", "a=2",
                "--from-literal", "b=2")
            file("go", "")
            assert.equal(0, feeder:wait())
            assert.equal(0, (writer:wait()))
            shows { a = "x1", b = "1" }
        end)

        it("or publishes nothing when one fails, and names the file and the line", function()
            write("--from-literal", "a=b")
            sandbox.mkdir(dir .. "/d")
            file("d/a", "fine")
            file("d/b", "\n{{ data.missing }}")
            file("d/_part", "\n\n{{ nope }}")
            file("d/c", '{% include "_part" %}')
            local text = refused(1, dir .. "/d/b:2:", "--template", dir .. "/d")
            assert.truthy(text:find("data.missing", 1, true))
            text = refused(1, dir .. "/d/_part:3:", "--template", dir .. "/d/c")
            assert.truthy(text:find(dir .. "/d/c:1", 1, true))
        end)
    end)

    describe("sets", function()
        it("the modes that are asked for", function()
            write("--from-literal", "a=1", "--from-literal", "d/b=2", "--mode", "640",
                "--file-mode", "d/b=0600", "--dir-mode", "0750")
            assert.equal("0640", sandbox.mode(target .. "/a"))
            assert.equal("0600", sandbox.mode(target .. "/d/b"))
            assert.equal("0750", sandbox.mode(target .. "/d"))
        end)

        it("the mode of a file of labels", function()
            write("--label", "a=1", "--file-mode", "labels=0400")
            assert.equal("0400", sandbox.mode(target .. "/labels"))
        end)

        it("owners by name and by number", function()
            if not sandbox.is_root() then return pending("only root may give files away") end
            write("--from-literal", "a=1", "--from-literal", "b=2", "--from-literal", "c=3",
                "--from-literal", "d=4", "--owner", "daemon", "--group", "12345",
                "--file-owner", "b=nobody", "--file-owner", "c=0:daemon", "--file-owner", "d=:7")
            local function id(option, name)
                return (sandbox.must { "id", option, name }:gsub("\n", ""))
            end
            local daemon = id("-u", "daemon")
            assert.equal(daemon .. ":12345", sandbox.owner(target .. "/a"))
            assert.equal(id("-u", "nobody") .. ":12345", sandbox.owner(target .. "/b"))
            assert.equal("0:" .. id("-g", "daemon"), sandbox.owner(target .. "/c"))
            assert.equal(daemon .. ":7", sandbox.owner(target .. "/d"))
        end)
    end)

    describe("the target", function()
        it("shows exactly the sources: what is gone from them is gone", function()
            write("--from-literal", "a=1", "--from-literal", "b=2")
            local printed = write("--from-literal", "b=3", "--from-literal", "c=4")
            shows { b = "3", c = "4" }
            assert.equal("+ c\n~ b\n- a\n", printed:match("^(.*\n)[^\n]*\n$"))
        end)

        it("becomes empty only with --allow-empty", function()
            sandbox.mkdir(dir .. "/empty")
            write("--from-literal", "a=1")
            refused(1, target .. ": the sources hold no file at all; --allow-empty", "--from-file",
                dir .. "/empty")
            refused(1, "the sources hold no file at all", "--from-file", dir .. "/empty",
                "--dry-run")
            shows { a = "1" }
            local text = command.fails(2, "diff", target, "--from-file", dir .. "/empty")
            assert.truthy(text:find("the sources hold no file at all", 1, true), text)
            assert.equal(1, (command.run("diff", target, "--from-file", dir .. "/empty",
                "--allow-empty")))
            write("--allow-empty", "--from-file", dir .. "/empty")
            shows {}
        end)

        it("is not touched when nothing differs", function()
            write("--from-literal", "a=1")
            local before = listing()
            assert.truthy(write("--from-literal", "a=1"):find("unchanged", 1, true))
            assert.equal(before, listing())
        end)

        it("is made with --create, and only then", function()
            target = dir .. "/new"
            refused(1, "--create", "--from-literal", "a=b")
            write("--from-literal", "a=b", "--create")
            shows { a = "b" }
        end)

        it("is refused when it is a file, also with --create", function()
            target = file("file", "precious")
            refused(1, target, "--from-literal", "a=b")
            refused(1, target, "--from-literal", "a=b", "--create")
        end)

        it("is refused when something foreign stands where a file belongs", function()
            file("target/a", "precious")
            local text = command.fails(1, "write", target, "--from-literal", "a=b")
            assert.truthy(text:find(" a: ", 1, true), text)
            assert.equal("precious", read("target/a"))
        end)

        it("may be relative, behind a link, and have any name", function()
            local name = "-a 'b' \"c\" $(d) {}"
            sandbox.mkdir(dir .. "/" .. name)
            sandbox.symlink(name, dir .. "/link")
            local status, _, stderr = command.run_in(dir, {}, "write", "link", "--from-literal",
                "a=b", "--check", "test -f {}/a && test -f \"{}/a\" && test -f '{}'/a")
            assert.equal("", stderr)
            assert.equal(0, status)
            target = dir .. "/" .. name
            shows { a = "b" }
            assert.equal(0, (command.run_in(dir, {}, "write", "--from-literal", "a=c", "--", name)))
            shows { a = "c" }
        end)

        it("retains as many previous versions as --keep says", function()
            for number = 1, 4 do write("--from-literal", "a=" .. number, "--keep", "2") end
            shows({ a = "4" }, 2)
            assert.equal(3, #volume.versions(target))
            write("--from-literal", "a=5", "--keep", "0")
            assert.equal(1, #volume.versions(target))
        end)

        it("is synced, unless --durability is none", function()
            if not sandbox.has("strace") then return pending("strace is not installed") end
            local function syncs(...)
                local trace = sandbox.fresh(dir, "trace")
                local words = { "strace", "-f", "-o", trace, "-e",
                    "trace=fsync,fdatasync,syncfs,sync_file_range", "-e", "signal=none" }
                for _, word in ipairs(command.words("write", target, ...)) do
                    words[#words + 1] = word
                end
                local status, _, stderr = sandbox.run(words)
                assert.equal(0, status, stderr)
                return select(2, sandbox.read_file(trace):gsub("sync", ""))
            end
            assert.is_true(syncs("--from-literal", "a=1") > 0)
            assert.equal(0, syncs("--from-literal", "a=2", "--durability", "none"))
        end)

        it("may be written by two at once", function()
            local children = {}
            for number = 1, 8 do
                children[number] = command.spawn("write", target, "--from-literal",
                    "a=" .. number, "--from-literal", "b=" .. number)
            end
            for _, child in ipairs(children) do
                local status, _, stderr = child:wait()
                assert.equal("", stderr)
                assert.equal(0, status)
            end
            local winner = sandbox.read_file(target .. "/a")
            shows { a = winner, b = winner }
        end)

        it("is waited for as long as --lock-timeout says", function()
            write("--from-literal", "a=1")
            local lock = target .. "/..lock"
            local holder = sandbox.spawn { "flock", lock, "sleep", "1000" }
            assert.truthy(sandbox.eventually(function()
                return (sandbox.run { "flock", "-n", lock, "true" }) ~= 0
            end))
            for _, time in ipairs { "0", "50ms" } do
                refused(1, "lock", "--from-literal", "a=2", "--lock-timeout", time)
            end
            local _, stdout = command.run("write", target, "--from-literal", "a=2",
                "--lock-timeout", "0", "--output", "json")
            assert.equal("locked", cjson.decode(stdout).error.code)
            local waiting = command.spawn("write", target, "--from-literal", "a=2",
                "--lock-timeout", "1m")
            holder:kill_all()
            assert.equal(0, (waiting:wait()))
            shows { a = "2" }
        end)
    end)

    describe("--check", function()
        it("runs once on the complete new version, before anybody can see it", function()
            write("--from-literal", "old=1")
            local live = volume.live(target)
            write("--from-literal", "a=1", "--from-literal", "d/b=22", "--file-mode", "d/b=0600",
                "--check", "cd " .. dir .. "; echo {} >>stages; readlink target/..data >live; "
                .. "find {} -type f -printf '%P %m %s\\n' | sort >seen; "
                .. 'test {} = "$ATOMICWRITER_STAGE" && test "$ATOMICWRITER_TARGET" = ' .. target)
            assert.equal("a 644 1\nd/b 600 2\n", read("seen"))
            assert.equal(live .. "\n", read("live"))
            local stages = read("stages")
            assert.truthy(stages:find("^/[^\n]+\n$"), stages)
            assert.equal(volume.live(target) .. "\n", stages:match("[^/]*$"))
        end)

        it("that fails publishes nothing and exits with 3", function()
            write("--from-literal", "a=1")
            local text = refused(3, "the command exited with status 7", "--from-literal", "a=2",
                "--check", "exit 7")
            assert.truthy(text:find("check", 1, true))
        end)

        it("shows what it prints on standard error alone", function()
            local status, stdout, stderr = command.run("write", target, "--from-literal", "a=1",
                "--check", "echo out; echo err >&2; false")
            assert.equal(3, status)
            assert.equal("", stdout)
            assert.truthy(stderr:find("^out\nerr\natomicwriter: "))
        end)

        it("does not run when nothing differs, or to try", function()
            write("--from-literal", "a=1")
            write("--from-literal", "a=1", "--check", "false")
            write("--from-literal", "a=2", "--check", "false", "--dry-run")
        end)

        it("that hangs is ended by --command-timeout, with what it started", function()
            write("--from-literal", "a=1")
            local before = sandbox.listing(target)
            local text = command.fails(3, "write", target, "--from-literal", "a=2", "--check",
                "sleep 1000 & echo $! >" .. dir .. "/pid; wait", "--command-timeout", "300ms")
            assert.truthy(text:find("took longer than 0.3 s", 1, true), text)
            assert.equal(before, sandbox.listing(target))
            assert.truthy(sandbox.eventually(function()
                return (sandbox.run { "kill", "-0", read("pid"):gsub("\n", "") }) ~= 0
            end))
        end)

        it("that asks for input gets none", function()
            write("--from-literal", "a=1", "--check", "! read line")
        end)
    end)

    describe("--reload", function()
        local count

        before_each(function() count = "echo x >>" .. dir .. "/count; " end)

        it("runs once for each published version, and never when nothing changed", function()
            for _ = 1, 2 do
                write("--from-literal", "a=1", "--from-literal", "b=2", "--reload", count)
                assert.equal("x\n", read("count"))
            end
            write("--from-literal", "a=2", "--from-literal", "b=3", "--reload", count)
            assert.equal("x\nx\n", read("count"))
        end)

        it("does not run when the check says no, or to try", function()
            command.fails(3, "write", target, "--from-literal", "a=1", "--reload", count,
                "--check", "false")
            write("--from-literal", "a=1", "--reload", count, "--dry-run")
            assert.is_nil(read("count"))
        end)

        it("finds target and versions in its environment, the new one live", function()
            write("--from-literal", "a=1")
            local previous = volume.live(target)
            write("--from-literal", "a=2", "--reload", "cd " .. dir .. "; { "
                .. 'echo "$ATOMICWRITER_TARGET"; echo "$ATOMICWRITER_VERSION"; '
                .. 'echo "$ATOMICWRITER_PREVIOUS"; readlink target/..data; } >about')
            local live = volume.live(target)
            assert.equal(table.concat({ target, live, previous, live, "" }, "\n"), read("about"))
        end)

        it("prints on standard error alone", function()
            local status, stdout, stderr = command.run("write", target, "--from-literal", "a=1",
                "--reload", "echo out; echo err >&2", "--output", "json")
            assert.equal(0, status)
            assert.is_true(cjson.decode(stdout).changed)
            assert.equal("out\nerr\n", stderr)
        end)

        -- What a consumer does that refuses a=bad, and notes what it sees.
        local function consumer()
            return 'cat "$ATOMICWRITER_TARGET/a" >>' .. dir .. '/seen; ! grep -q bad "'
                .. '$ATOMICWRITER_TARGET/a"'
        end

        it("that fails brings the previous version back, reloads that, and exits with 4", function()
            write("--from-literal", "a=good ")
            local good = volume.live(target)
            local status, stdout, stderr = command.run("write", target, "--from-literal", "a=bad ",
                "--from-literal", "b=new", "--reload", consumer())
            assert.equal(4, status)
            shows { a = "good " }
            assert.equal("bad good ", read("seen"))
            assert.truthy(stderr:find("^atomicwriter: [^\n]*the reload failed: the command exited "
                .. "with status 1; rolled back to [^\n]*\n$"), stderr)
            assert.truthy(stderr:find(good, 1, true))
            assert.truthy(stderr:find(", live as " .. volume.live(target) .. "\n", 1, true), stderr)
            assert.truthy(stdout:find("rolled back", 1, true))
        end)

        it("that fails twice says so of both", function()
            write("--from-literal", "a=1")
            local status, _, stderr = command.run("write", target, "--from-literal", "a=2",
                "--reload", "exit 5")
            assert.equal(4, status)
            assert.equal(2, select(2, stderr:gsub("exited with status 5", "")))
            shows { a = "1" }
        end)

        it("that fails leaves the new version with --no-rollback-on-reload-failure", function()
            write("--from-literal", "a=good")
            local status, _, stderr = command.run("write", target, "--from-literal", "a=bad",
                "--no-rollback-on-reload-failure", "--reload", count .. "false")
            assert.equal(4, status)
            assert.equal("x\n", read("count"))
            assert.truthy(stderr:find("the new version stays", 1, true))
            shows { a = "bad" }
        end)

        it("that fails for the first version leaves it, and says why", function()
            local status, _, stderr = command.run("write", target, "--from-literal", "a=1",
                "--reload", "false", "--rollback-on-reload-failure")
            assert.equal(4, status)
            assert.truthy(stderr:find("there is no previous one", 1, true))
            shows { a = "1" }
        end)

        it("runs for a version that is live though the write failed after the swap", function()
            if not sandbox.has "strace" then pending("needs strace") end
            write("--from-literal", "a=1")
            -- The last fsync of a durable write is that of the target, after the swap.
            local words = { "strace", "-f", "-qq", "-o", dir .. "/trace",
                "-e", "trace=fsync,renameat" }
            local function run(extra, value)
                local all = {}
                for _, list in ipairs { words, extra, command.words("write", target, "--keep", "1",
                    "--from-literal", "a=" .. value, "--reload", "touch " .. dir .. "/reloaded",
                    "--output", "json") } do
                    for _, word in ipairs(list) do all[#all + 1] = word end
                end
                return sandbox.run(all)
            end
            run({}, "2")
            local before_swap = read("trace"):match("^(.*)renameat[^\n]*data_tmp")
            local syncs = select(2, before_swap:gsub("fsync%(", ""))
            os.remove(dir .. "/reloaded")
            local status, stdout, stderr =
                run({ "-e", ("inject=fsync:error=EIO:when=%d"):format(syncs + 1) }, "3")
            assert.equal(1, status, stderr)
            local record = cjson.decode(stdout)
            assert.is_true(record.error.committed)
            assert.is_true(record.changed)
            assert.equal("3", sandbox.read_file(target .. "/a"))
            assert.equal("file", sandbox.kind(dir .. "/reloaded"))
        end)

        it("that fails does not undo what another writer has published since", function()
            write("--from-literal", "a=1", "--keep", "5")
            local other = sandbox.sh(command.words("write", target, "--from-literal", "a=3",
                "--keep", "5"))
            local status, _, stderr = command.run("write", target, "--from-literal", "a=2",
                "--keep", "5", "--reload", other .. " >&2; false")
            assert.equal(4, status)
            assert.truthy(stderr:find("it was not rolled back", 1, true), stderr)
            shows({ a = "3" }, 5)
        end)

        it("that hangs is ended by --command-timeout and counts as failed", function()
            write("--from-literal", "a=1")
            local status, _, stderr = command.run("write", target, "--from-literal", "a=2",
                "--reload", "grep -q 1 " .. target .. "/a || sleep 1000",
                "--command-timeout", "300ms")
            assert.equal(4, status)
            assert.truthy(stderr:find("took longer than 0.3 s", 1, true))
            shows { a = "1" }
        end)

        it("tells in JSON what has become of it", function()
            write("--from-literal", "a=1")
            local status, stdout = command.run("write", target, "--from-literal", "a=2",
                "--reload", "false", "--output", "json")
            assert.equal(4, status)
            local record = cjson.decode(stdout)
            assert.is_true(record.changed)
            assert.is_true(record.rolled_back)
            assert.is_string(record.reload_error)
            assert.equal(sandbox.readlink(target .. "/..data"), record.live)
            assert.not_equal(record.version, record.live)
            record = cjson.decode(write("--from-literal", "a=3", "--output", "json"))
            assert.equal(record.version, record.live)
        end)
    end)

    describe("--signal", function()
        -- A process that notes each HUP; its pid stands in DIR/pid.
        local function start_consumer()
            local child = sandbox.spawn { "sh", "-c", "trap 'echo x >>\"$0/hups\"' HUP; "
                .. ': >"$0/ready"; while :; do sleep 0.01; done', dir }
            file("pid", child.pid .. "\n")
            assert.truthy(sandbox.eventually(function() return sandbox.kind(dir .. "/ready") end))
            return child
        end

        it("is sent once for each version to the process in --pid-file", function()
            local consumer = start_consumer()
            for count, name in ipairs { "HUP", "sighup" } do
                write("--from-literal", "a=" .. name, "--signal", name, "--pid-file", dir .. "/pid")
                assert.truthy(sandbox.eventually(function()
                    return read("hups") == ("x\n"):rep(count)
                end))
            end
            write("--from-literal", "a=sighup", "--signal", "TERM", "--pid-file", dir .. "/pid")
            assert.is_true(consumer:running())
            consumer:kill_all()
        end)

        it("goes to nobody but one process, or the write is rolled back", function()
            write("--from-literal", "a=1")
            local gone = sandbox.must("sh -c 'echo $$'")
            for _, text in ipairs { "", "0", "-1", "garbage", "12 13", "1e3", gone } do
                file("pid", text)
                local status, _, stderr = command.run("write", target, "--from-literal", "a=2",
                    "--signal", "HUP", "--pid-file", dir .. "/pid")
                assert.equal(4, status, text)
                assert.truthy(stderr:find("rolled back", 1, true), text)
                shows { a = "1" }
            end
            os.remove(dir .. "/pid")
            local status, _, stderr = command.run("write", target, "--from-literal", "a=2",
                "--signal", "HUP", "--pid-file", dir .. "/pid")
            assert.equal(4, status)
            assert.truthy(stderr:find("/pid: the pid file cannot be read: No such file", 1, true),
                stderr)
        end)

        it("needs a name that is one, and both options", function()
            refused(2, "--signal: there is no signal 'FOO'", "--from-literal", "a=1",
                "--signal", "FOO", "--pid-file", "x")
            refused(2, "--signal needs --pid-file", "--from-literal", "a=1", "--signal", "HUP")
            refused(2, "--pid-file needs --signal", "--from-literal", "a=1", "--pid-file", "x")
        end)
    end)

    describe("--dry-run", function()
        it("says what would change and touches nothing", function()
            write("--from-literal", "a=1", "--from-literal", "b=2")
            local before = sandbox.listing(dir)
            local printed = write("-n", "--from-literal", "a=2", "--from-literal", "c=3")
            assert.equal("+ c\n~ a\n- b\n", printed:match("^(.*\n)[^\n]*\n$"))
            assert.truthy(printed:find("would be published", 1, true))
            assert.truthy(write("-n", "--from-literal", "a=1", "--from-literal", "b=2")
                :find("unchanged", 1, true))
            assert.equal(before, sandbox.listing(dir))
        end)

        it("says when the target could not be made", function()
            target = dir .. "/missing/new"
            refused(1, "its parent directory does not exist", "-n", "--create",
                "--from-literal", "a=1")
        end)

        it("makes no target", function()
            target = dir .. "/new"
            refused(1, "--create", "-n", "--from-literal", "a=1")
            local before = sandbox.listing(dir)
            assert.truthy(write("-n", "--create", "--from-literal", "a=1"):find("^%+ a\n"))
            assert.equal(before, sandbox.listing(dir))
        end)
    end)

    describe("refuses", function()
        before_each(function() write("--from-literal", "live=1") end)

        it("to write nothing at all", function()
            refused(2, "no source given", "--mode", "0600")
        end)

        it("keys that are none", function()
            for _, key in ipairs {
                "a b", "..data", "..", ".", "a/../b", "/a", "a/", "a//b", "\195\164",
                ("x"):rep(254),
            } do
                refused(1, "--from-literal: ", "--from-literal", key .. "=x")
            end
            refused(1, "--from-file: ", "--from-file", "a b=" .. file("f", ""))
            refused(1, "--template: ", "--template", "a b=" .. dir .. "/f")
            refused(1, "--template: ", "--template", "../a=" .. dir .. "/f")
            refused(1, "--labels-key: ", "--labels-key", "a b", "--label", "a=b")
            refused(2, "--from-literal: ", "--from-literal", "=x")
            refused(2, "--from-file: ", "--from-file", "=x")
            refused(2, "--template: ", "--template", "=x")
        end)

        it("two sources for one key, and names both", function()
            local path = file("a", "x")
            file("a.tmpl", "x")
            file("a.env", "a=1")
            local text = refused(1, "--from-literal", "--from-literal", "a=1", "--from-file", path)
            assert.truthy(text:find(path, 1, true))
            for _, words in ipairs {
                { "--from-file", path }, { "--from-env-file", path .. ".env" },
                { "--template", path .. ".tmpl" }, { "--from-exec", "a=true" },
                { "--label", "a=b", "--labels-key", "a" }, { "--from-literal", "a=2" },
                { "--from-literal", "a/b=2" },
            } do
                text = refused(1, '"a"', "--from-literal", "a=1", sandbox.unpack(words))
                assert.truthy(text:find("--from-literal", 1, true), text)
                local named = text:find(words[1], 1, true) or text:find(words[2], 1, true)
                assert.truthy(named, text)
            end
            refused(2, "--label: ", "--label", "a=1", "--label", "a=2")
            refused(2, "--set: ", "--set", "a=1", "--set", "a=2", "--template", path .. ".tmpl")
            refused(1, "b.env:2: ", "--from-env-file", file("b.env", "A=1\nA=2\n"))
        end)

        it("files that are missing or cannot be read, and names option and file", function()
            local missing = dir .. "/missing"
            for _, option in ipairs {
                "--from-file", "--from-env-file", "--template", "--labels-from",
                "--annotations-from",
            } do
                refused(1, option .. ": " .. missing .. ": No such file", option, missing)
            end
            refused(1, "--data: " .. missing .. ".json: No such file", "--template",
                file("t", ""), "--data", "d=" .. missing .. ".json")
            refused(1, dir .. "/t:1: ", "--template", file("t", '{% include "missing" %}'))
            refused(1, "no regular file", "--from-file", "k=/dev/null")
        end)

        it("data that cannot be parsed, and names file and line", function()
            file("t", "x")
            for name, text in pairs {
                ["broken.json"] = "{\n'a'}", ["broken.yaml"] = "a: 1\nb: [1\n",
                ["broken.env"] = "a=1\n1=2\n", ["broken.lua"] = "return {\n}}",
            } do
                refused(1, dir .. "/" .. name .. ":", "--template", dir .. "/t",
                    "--data", "d=" .. file(name, text))
            end
            refused(1, "must end in .json", "--template", dir .. "/t",
                "--data", "d=" .. dir .. "/t")
            refused(1, dir .. "/l:1: ", "--labels-from", file("l", "a=b"))
        end)

        it("modes, owners, times and numbers that are none, and names the option", function()
            for option, values in pairs {
                ["--mode"] = { "8", "0888", "1644", "rw", "-644", "" },
                ["--file-mode"] = { "live", "live=9", "=0644" },
                ["--dir-mode"] = { "0644", "x" },
                ["--owner"] = { "no-such-user", "4294967295", "-1", "" },
                ["--group"] = { "no-such-group", "4294967295", "" },
                ["--file-owner"] = { "live", "live=:", "live=no-user", "live=0:no-group" },
                ["--keep"] = { "x", "-1", "1.5", "", "1000001", ("9"):rep(30) },
                ["--lock-timeout"] = { "soon", "-1", "" },
                ["--command-timeout"] = { "1 s" },
                ["--label"] = { "novalue" }, ["--annotation"] = { "novalue" },
                ["--set"] = { "novalue" }, ["--data"] = { "nofile" },
            } do
                for _, value in ipairs(values) do
                    refused(2, option .. ": ", "--from-literal", "live=2", option .. "=" .. value)
                end
            end
        end)

        it("modes and owners for files that nobody gives", function()
            refused(2, '--file-mode: no such file in the payload: "typo"', "--from-literal", "a=1",
                "--file-mode", "typo=0600")
            refused(2, '--file-owner: no such file in the payload: "typo"', "--from-literal",
                "a=1", "--file-owner", "typo=0")
        end)

        it("what a command prints that fails, and shows why it does", function()
            local before = sandbox.listing(dir)
            local status, stdout, stderr = command.run("write", target, "--from-exec",
                "k=echo half; echo reason >&2; exit 3")
            assert.equal(1, status)
            assert.equal("", stdout)
            assert.truthy(stderr:find("^reason\natomicwriter: %-%-from%-exec: [^\n]*status 3\n$"))
            refused(1, "took longer than 0.2 s", "--from-exec", "k=sleep 1000",
                "--command-timeout", "200ms")
            assert.equal(before, sandbox.listing(dir))
        end)

        it("to reload what could not be rolled back, unless that is asked for", function()
            refused(2, "--no-rollback-on-reload-failure", "--from-literal", "a=1", "--keep", "0",
                "--reload", "true")
            write("--from-literal", "a=1", "--keep", "0", "--reload", "true",
                "--no-rollback-on-reload-failure")
        end)

        it("commands that are empty, such as those of an unset variable", function()
            refused(2, "--check: the command is empty", "--from-literal", "a=1", "--check", "")
            refused(2, "--reload: the command is empty", "--from-literal", "a=1", "--reload", " ")
        end)

        it("options that need or exclude others", function()
            refused(2, "exclude each other", "--from-literal", "a=1", "--watch", "-n")
            refused(2, "exclude each other", "--from-literal", "a=1",
                "--rollback-on-reload-failure", "--no-rollback-on-reload-failure")
            for _, option in ipairs { "--debounce", "--splay", "--interval" } do
                refused(2, option .. " needs --watch", "--from-literal", "a=1", option, "1s")
            end
        end)
    end)

    it("tells no secret, whatever fails", function()
        local secret = "hunter2"
        write("--from-literal", "key=old-" .. secret)
        file("secret", secret)
        file("secret.json", '{"key": "' .. secret .. '", }')
        file("secret.yaml", "key: [" .. secret)
        file("secret.env", secret .. " " .. secret .. "=" .. secret)
        file("secret.lua", "return { key = '" .. secret .. "' ")
        file("labels", "key=" .. secret)
        file("good.json", '{"key": "' .. secret .. '", "map": {"' .. secret .. '": 1}}')
        file("t", "{{ data.d.key }}{{ env.AW_SPEC_SECRET }}{{ data.d.key + 1 }}")
        file("t2", "{{ data.d.key | fromjson }}")
        file("t3", "{{ data.d.key.x.y }}")
        local literal = { "--from-literal", "key=" .. secret }
        local failing = {
            { "--from-literal", secret }, { "--from-literal", "=" .. secret },
            { "--from-literal", "bad key=" .. secret },
            { "--from-literal", "key=" .. secret, "--from-literal", "key=" .. secret },
            { "--label", secret }, { "--label", "\1=" .. secret }, { "--set", secret },
            { "--label", "a=" .. secret, "--label", "a=" .. secret },
            { "--set", "a=" .. secret, "--set", "a=" .. secret, "--template", "t" },
            { "--from-env-file", "secret.env" }, { "--from-file", "bad key=secret" },
            { "--labels-from", "labels" },
            { "--template", "t", "--data", "d=secret.json" },
            { "--template", "t", "--data", "d=secret.yaml" },
            { "--template", "t", "--data", "d=secret.env" },
            { "--template", "t", "--data", "d=secret.lua" },
            { "--template", "t", "--data", "d=good.json" },
            { "--template", "t2", "--data", "d=good.json" },
            { "--template", "t3", "--data", "d=good.json" },
            { "--from-exec", "key=cat secret; false" },
            { literal[1], literal[2], "--check", "false" },
            { literal[1], literal[2], "--reload", "false" },
            { literal[1], literal[2], "--file-mode", "nokey=0600" },
            { literal[1], literal[2], "--nonsense" }, { literal[1], literal[2], secret .. "x=" },
            { literal[1], literal[2], "--lock-timeout", "0", "--keep=" },
        }
        for _, words in ipairs(failing) do
            for _, format in ipairs { "text", "json" } do
                local shown = table.concat(words, " ")
                words[#words + 1] = "--log-level=debug"
                words[#words + 1] = "--log-format=" .. format
                words[#words + 1] = "--output=" .. format
                local status, stdout, stderr = command.run_in(dir, { "AW_SPEC_SECRET=" .. secret },
                    "write", target, sandbox.unpack(words))
                words[#words], words[#words - 1], words[#words - 2] = nil, nil, nil
                assert.is_true(status ~= 0, shown)
                assert.truthy(#stderr > 0, shown)
                assert.falsy((stdout .. stderr):find(secret, 1, true), shown .. "\n" .. stderr)
            end
        end
        assert.equal("old-" .. secret, sandbox.read_file(target .. "/key"))
    end)

    describe("without rights", function()
        -- Run as a user who owns nothing here.
        local function as_nobody(...)
            local words = { "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups" }
            for _, word in ipairs(command.words(...)) do words[#words + 1] = word end
            return sandbox.run(words)
        end

        local function unavailable()
            if not sandbox.is_root() then return "only root can become somebody else" end
            if as_nobody("--version") ~= 0 then return "others may not enter this checkout" end
            sandbox.chmod(dir, "0755")
        end

        it("names what may not be read or written, and leaves it", function()
            local why = unavailable()
            if why then return pending(why) end
            write("--from-literal", "a=1")
            local secret = file("secret", "hunter2", "0600")
            sandbox.mkdir(dir .. "/locked")
            sandbox.chmod(dir .. "/locked", "0700")
            local before = sandbox.listing(dir)
            for _, words in ipairs {
                { secret, "--from-file", secret }, { secret, "--from-env-file", secret },
                { secret, "--template", secret }, { "/locked", "--from-file", dir .. "/locked" },
                { "/locked", "--template", dir .. "/locked" },
                { target, "--from-literal", "a=2" },
            } do
                local what = table.remove(words, 1)
                local status, stdout, stderr = as_nobody("write", target, sandbox.unpack(words))
                assert.equal(1, status, stderr)
                assert.equal("", stdout)
                assert.truthy(stderr:find("^atomicwriter: [^\n]*ermission denied\n$"), stderr)
                assert.truthy(stderr:find(what, 1, true), stderr)
            end
            assert.equal(before, sandbox.listing(dir))
        end)

        it("cannot give files away", function()
            local why = unavailable()
            if why then return pending(why) end
            sandbox.must { "chown", "65534:65534", target }
            local status, _, stderr = as_nobody("write", target, "--from-literal", "a=1")
            assert.equal("", stderr)
            assert.equal(0, status)
            local before = sandbox.listing(target)
            status, _, stderr = as_nobody("write", target, "--from-literal", "a=1", "--owner", "0")
            assert.equal(1, status)
            assert.truthy(stderr:find("not permitted", 1, true), stderr)
            assert.equal(before, sandbox.listing(target))
        end)
    end)
end)
