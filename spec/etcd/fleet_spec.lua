-- `--announce` and `atomicwriter fleet`: who has a revision, and who has not, and why.

local cjson = require "cjson"
local etcd = require "spec.support.etcd"
local fleet = require "atomicwriter.cli.etcd.fleet"
local sandbox = require "spec.support.sandbox"

local eventually = sandbox.eventually

describe("a fleet:", function()
    local store, dir

    before_each(function()
        store = etcd.start()
        dir = sandbox.memdir()
    end)
    after_each(sandbox.cleanup)

    local function says(child, text)
        eventually(function()
            return (sandbox.read_file(child.dir .. "/err") or ""):find(text, 1, true)
        end)
        assert.truthy((sandbox.read_file(child.dir .. "/err")):find(text, 1, true))
    end

    local function machine(name, ...)
        local child = store:spawn("write", dir .. "/" .. name, "--create", "--durability", "none",
            "--watch", "--debounce", "10ms", "--from-etcd", "/app", "--announce", "/fleet", ...)
        says(child, "watching for changes")
        return child
    end

    local function publish(...)
        return cjson.decode(store:must("publish", "/app", "--output", "json", ...)).revision
    end

    -- What `fleet` says: its exit status, and the machines by the last component of their target.
    local function ask(...)
        local status, stdout, stderr = store:run("fleet", "/fleet", "--output", "json", ...)
        assert.equal("", stderr)
        local about, named = cjson.decode(stdout), {}
        for _, item in ipairs(about.machines) do named[item.target:match("[^/]+$")] = item end
        return status, named, about
    end

    -- Run what should end by itself, but not for ever.
    local function finish(...)
        local child = store:spawn(...)
        return child:wait(5)
    end

    local function number(revision) return ("%d"):format(revision) end

    it("tells host, target, version, revision, check and reload of each machine", function()
        local revision = publish("--from-literal", "a=1")
        machine("one", "--check", "true", "--reload", "true")
        machine("two")
        local status, named, about = ask("--wait", number(revision), "--timeout", "20s",
            "--machines", "2")
        assert.equal(0, status)
        assert.equal(2, about.have)
        assert.is_true(about.all)
        assert.same({
            key = named.one.host .. dir .. "/one", target = dir .. "/one",
            reads = { ["/app/"] = { newest = revision, keys = 2 } },
            host = (sandbox.must "uname -n":gsub("\n", "")), revision = revision, has = true,
            version = sandbox.readlink(dir .. "/one/..data"), check = "passed", reload = "done",
        }, named.one)
        assert.is_nil(named.two.check)
        assert.is_nil(named.two.reload)
        assert.equal(0, (ask()))
    end)

    it("follows what is published, as text, too", function()
        publish("--from-literal", "a=1")
        machine("one")
        for i = 2, 4 do
            local revision = publish("--from-literal", "a=" .. i)
            local text = store:must("fleet", "/fleet", "--wait", number(revision))
            assert.truthy(text:find("^HOST +TARGET +REVISION +VERSION +STATE\n"), text)
            assert.truthy(text:find((" %s/one  %d +%%S+  has it\n1 of 1 have revision %d\n")
                :format(dir:gsub("%p", "%%%0"), revision, revision)), text)
            assert.equal(tostring(i), sandbox.read_file(dir .. "/one/a"))
        end
    end)

    it("names who does not have it, and why: the check, the reload, a bad key", function()
        local good = publish("--from-literal", "a=1")
        machine("fine")
        machine("checked", "--check", "grep -q 1 {}/a")
        machine("reloaded", "--reload", "grep -q 1 " .. dir .. "/reloaded/a")
        machine("stuck", "--no-rollback-on-reload-failure", "--reload", "grep -q 1 " .. dir
            .. "/stuck/a")
        assert.equal(0, (ask("--wait", number(good), "--machines", "4")))
        local bad = publish("--from-literal", "a=2")
        local status, named, about
        eventually(function()
            status, named, about = ask()
            return about.have == 1 and named.reloaded.error and named.checked.error
                and named.stuck.error
        end)
        assert.equal(1, status)
        assert.is_true(named.fine.has)
        -- What they have is as of a revision between: announcements count as revisions, too.
        local function has_old(item) return item.revision >= good and item.revision < bad end
        assert.is_true(has_old(named.checked))
        assert.same({ false, "failed" }, { named.checked.has, named.checked.check })
        assert.equal(("revision %d: %s/checked: the check refused: the command exited with "
            .. "status 1"):format(bad, dir), named.checked.why)
        assert.is_true(has_old(named.reloaded))
        assert.same({ false, "rolled back" }, { named.reloaded.has, named.reloaded.reload })
        assert.truthy(named.reloaded.why:find("the reload failed", 1, true))
        assert.equal(sandbox.readlink(dir .. "/reloaded/..data"), named.reloaded.version)
        assert.same({ false, bad, "failed" },
            { named.stuck.has, named.stuck.revision, named.stuck.reload })
        store:put("/app/..bad", "x")
        eventually(function()
            status, named = ask()
            return named.fine.error
        end)
        assert.equal(1, status)
        assert.truthy(named.fine.why:find("is refused: etcd key \"/app/..bad\"", 1, true))
        store:delete("/app/..bad")
        local mended = publish("--from-literal", "a=1")
        assert.equal(0, (ask("--wait", number(mended), "--timeout", "20s")))
        status, named = ask()
        assert.equal(0, status)
        assert.is_nil(named.checked.error)
    end)

    it("waits as long as it is told, and exits with 1", function()
        local revision = publish("--from-literal", "a=1")
        machine "one"
        local begun = sandbox.now()
        local status, named = ask("--wait", number(revision + 1000), "--timeout", "1s")
        assert.equal(1, status)
        assert.is_true(sandbox.now() - begun > 0.9 and sandbox.now() - begun < 5)
        assert.equal("it has revision " .. number(revision), named.one.why)
        status = ask("--wait", number(revision), "--machines", "2", "--timeout", "1s")
        assert.equal(1, status)
    end)

    -- Wait until `fleet` names REASON for the machine NAME.
    local function lacks(name, reason, ...)
        local text, status, named = reason:format(...), nil, nil
        assert.truthy(eventually(function()
            status, named = ask()
            return (named[name].why or ""):find(text, 1, true)
        end), named[name].why)
        assert.equal(1, status)
    end

    it("a deletion is a change, too: who refuses it does not have it", function()
        store:transact { ["/app/a"] = "1", ["/app/b"] = "1" }
        machine("one", "--check", "test -e {}/b")
        assert.equal(0, (ask("--wait", "2")))
        local deleted = store:delete("/app/b")
        lacks("one", "revision %d: %s/one: the check refused", deleted, dir)
        assert.equal(1, (ask("--wait", number(deleted), "--timeout", "1s")))
    end)

    it("a deletion that a machine has not seen yet", function()
        store:transact { ["/app/a"] = "1", ["/app/b"] = "1" }
        local child = machine("one")
        assert.equal(0, (ask("--wait", "2")))
        child:kill "STOP"
        store:delete("/app/b")
        lacks("one", "it has revision 2")
        child:kill "CONT"
        assert.equal(0, (ask("--wait", number(store:revision()), "--timeout", "20s")))
    end)

    it("an emptied prefix, with the revision that is refused, until there is something", function()
        store:put("/app/a", "1")
        machine("one")
        assert.equal(0, (ask("--wait", "2")))
        local deleted = store:delete("/app/a")
        lacks("one", "revision %d: etcd at ", deleted)
        store:put("/app/a", "1")
        assert.equal(0, (ask("--wait", number(store:revision()), "--timeout", "20s")))
    end)

    it("an error of the machine's own at a revision that it has, until it is gone", function()
        store:put("/app/a", "1")
        sandbox.write_file(dir .. "/x.tmpl", "x")
        machine("one", "--template", dir .. "/x.tmpl")
        assert.equal(0, (ask("--wait", "2")))
        sandbox.write_file(dir .. "/x.tmpl", "{{ nothing.there }}")
        lacks("one", "x.tmpl")
        assert.equal(1, (ask("--wait", "2", "--timeout", "1s")))
        sandbox.write_file(dir .. "/x.tmpl", "y")
        assert.truthy(eventually(function() return ask() == 0 end))
    end)

    it("waits for what concerns a machine, wherever the last change was", function()
        store:put("/app/a", "1")
        store:put("/data/b", "1")
        machine("both", "--data-from-etcd", "d=/data")
        local other = store:spawn("write", dir .. "/other", "--create", "--watch", "--from-etcd",
            "/other", "--announce", "/fleet")
        store:put("/other/c", "1")
        says(other, "watching for changes")
        assert.equal(0, (ask("--wait", number(store:revision()), "--machines", "2")))
        local data = store:put("/data/b", "2")
        local last = store:put("/elsewhere", "1")
        for _, revision in ipairs { data, last } do
            assert.equal(0, (ask("--wait", number(revision), "--timeout", "5s")))
        end
        assert.equal(0, (ask()))
        store:ctl("compact", number(store:revision()))
        assert.equal(0, (ask("--wait", number(last), "--timeout", "5s")))
    end)

    it("what is only in the second prefix of a machine has to be there, too", function()
        store:put("/app/a", "1")
        store:put("/data/b", "1")
        local child = machine("both", "--data-from-etcd", "d=/data")
        assert.equal(0, (ask("--wait", "3")))
        child:kill "STOP"
        local data = store:put("/data/b", "2")
        lacks("both", "it has revision")
        assert.equal(1, (ask("--wait", number(data), "--timeout", "1s")))
        child:kill "CONT"
        assert.equal(0, (ask("--wait", number(data), "--timeout", "20s")))
    end)

    it("after etcd has gone back, a machine reads again, and only then has it", function()
        for i = 1, 20 do store:put("/app/a", tostring(i)) end
        local child = machine "one"
        assert.equal(0, (ask("--wait", "21")))
        sandbox.sleep(4) -- the watch has been answered once
        store.nodes[1]:kill()
        child:kill "STOP"
        sandbox.rmtree(store.nodes[1].dir)
        store.nodes[1]:start()
        store:wait()
        store:put("/app/a", "restored")
        assert.equal(1, (ask()))
        child:kill "CONT"
        assert.truthy(eventually(function() return ask() == 0 end, 30))
        assert.equal("restored", sandbox.read_file(dir .. "/one/a"))
        says(child, "etcd has gone back from revision 21 to 2")
    end)

    it("waits on where etcd does not answer at first", function()
        local revision = publish("--from-literal", "a=1")
        machine("one")
        local program = dir .. "/bin/etcdctl"
        sandbox.mkdir(dir .. "/bin")
        sandbox.write_file(program, ([[#!/bin/sh
            if ! test -e %s/asked; then
                : >%s/asked
                echo "Error: context deadline exceeded" >&2
                exit 1
            fi
            PATH="${PATH#*:}" exec etcdctl "$@"
        ]]):format(dir, dir))
        sandbox.chmod(program, "0755")
        local child = sandbox.spawn { "env", "PATH=" .. dir .. "/bin:" .. os.getenv "PATH",
            sandbox.unpack(store:words("fleet", "/fleet", "--wait", number(revision),
                "--timeout", "30s")) }
        assert.equal(0, (child:wait(25)))
        assert.equal("", sandbox.read_file(dir .. "/asked"))
    end)

    it("an etcd that does not answer in time is an error", function()
        store.nodes[1]:kill()
        for _, words in ipairs { { "--wait", "5", "--timeout", "1s" }, {} } do
            local status, _, err = store:run("fleet", "/fleet", sandbox.unpack(words))
            assert.equal(1, status)
            assert.equal(("atomicwriter: etcd at %s: nothing answers\n"):format(store.endpoints),
                err)
        end
    end)

    it("nobody there is no success", function()
        local status, out = store:run("fleet", "/fleet")
        assert.equal(1, status)
        assert.equal("no machine announces itself below /fleet/\n", out)
        assert.equal(1, (store:run("fleet", "/fleet", "--wait", "1", "--timeout", "0.5s")))
    end)

    it("a machine that is killed disappears with its lease, and leaves no etcdctl", function()
        publish("--from-literal", "a=1")
        local one, two = machine("one", "--announce-ttl", "1500ms"), machine("two")
        assert.equal(0, (ask("--wait", "1", "--machines", "2", "--timeout", "20s")))
        local children = sandbox.must { "pgrep", "-P", tostring(one.pid) }
        one:kill "KILL"
        assert.truthy(eventually(function()
            local _, named = ask()
            return not named.one and named.two
        end))
        for pid in children:gmatch("%d+") do
            assert.truthy(eventually(function() return not sandbox.lives(pid) end), pid)
        end
        two:kill "TERM"
        assert.equal(0, (two:wait(30)))
        assert.same({}, store:below("/fleet/")) -- at once
    end)

    it("is announced again after etcd was away for longer than the lease", function()
        local revision = publish("--from-literal", "a=1")
        local child = machine("one", "--announce-ttl", "1s")
        assert.equal(0, (ask("--wait", number(revision), "--timeout", "20s")))
        store.nodes[1]:kill()
        sandbox.sleep(4)
        store.nodes[1]:start()
        store:wait()
        revision = publish("--from-literal", "a=2")
        assert.equal(0, (ask("--wait", number(revision), "--timeout", "30s")))
        child:kill "TERM"
        assert.equal(0, (child:wait(30)))
    end)

    it("everything goes through a gRPC proxy of etcd's, too", function()
        local near = { "--etcd-endpoints", store:proxy() }
        local revision = cjson.decode(store:must("publish", "/app", "--output", "json",
            "--from-literal", "a=1", near[1], near[2])).revision
        for i = 1, 3 do machine("t" .. i, near[1], near[2]) end
        assert.equal(0, (ask("--wait", number(revision), "--machines", "3", near[1], near[2])))
        for i = 2, 4 do
            revision = cjson.decode(store:must("publish", "/app", "--output", "json",
                "--from-literal", "a=" .. i, near[1], near[2])).revision
            assert.equal(0, (ask("--wait", number(revision), "--timeout", "20s")))
        end
    end)

    it("a project announces each target, and takes back what is no longer one", function()
        local revision = publish("--from-literal", "a=1")
        local function project(...)
            local list = {}
            for _, name in ipairs { ... } do
                list[#list + 1] = ("{ target = '%s', create = true, durability = 'none', "
                    .. "etcd = { prefix = '/app' } }"):format(name)
            end
            sandbox.write_file(dir .. "/p.lua", "return { " .. table.concat(list, ", ") .. " }")
        end
        project("one", "two")
        store:spawn("run", dir .. "/p.lua", "--watch", "--announce", "/fleet")
        assert.equal(0, (ask("--wait", number(revision), "--machines", "2")))
        project("two")
        assert.truthy(eventually(function()
            local _, named = ask()
            return not named.one and named.two
        end))
    end)

    it("no announcement below what is read, nor the other way round: it would never end", function()
        store:put("/app/a", "1")
        sandbox.write_file(dir .. "/p.lua", ("return { target = '%s/t', create = true, "
            .. "etcd = { prefix = '/app' } }"):format(dir))
        sandbox.write_file(dir .. "/x.tmpl", "{{ data.d.a }}")
        local from = { "write", dir .. "/t", "--create", "--watch" }
        for _, case in ipairs {
            { "/app/fleet/", "--from-etcd", "/app", "--announce", "/app/fleet" },
            { "/app/", "--from-etcd", "/app", "--announce", "/app/" },
            { "/", "--from-etcd", "/app", "--announce", "/" },
            { "/app/fleet/", "--template", dir .. "/x.tmpl", "--data-from-etcd", "d=/app",
                "--announce", "/app/fleet" },
            { "/app/fleet/", "run", dir .. "/p.lua", "--watch", "--announce", "/app/fleet" },
        } do
            local words = case[2] == "run" and {} or { sandbox.unpack(from) }
            for index = 2, #case do words[#words + 1] = case[index] end
            local status, _, err = finish(sandbox.unpack(words))
            assert.equal(2, status, err)
            assert.truthy(err:find('--announce "' .. case[1] .. '"', 1, true), err)
            assert.truthy(err:find('and "/app/"', 1, true), err)
            assert.is_nil(sandbox.kind(dir .. "/t"))
        end
    end)

    it("wrong options are told", function()
        for _, case in ipairs {
            { { "fleet", "/fleet", "--timeout", "1s" }, "--timeout needs --wait" },
            { { "fleet", "/fleet", "--wait", "x" }, "--wait: 'x' is no revision" },
            { { "fleet", "" }, "PREFIX: the prefix is empty" },
            { { "write", dir .. "/t", "--from-literal", "a=1", "--announce", "/f" },
                "--announce needs --watch" },
            { { "write", dir .. "/t", "--from-literal", "a=1", "--watch", "--announce-ttl", "1s" },
                "--announce-ttl needs --announce" },
        } do
            local status, _, err = store:run(sandbox.unpack(case[1]))
            assert.equal(2, status)
            assert.truthy(err:find(case[2], 1, true), err)
        end
    end)
end)

describe("judging a fleet:", function()
    -- Why MACHINE does not have WANTED, with etcd at 100 and what is below /app/ as of CHANGED.
    local function why(machine, wanted, changed)
        local machines = { machine }
        local count = fleet.judge(machines, {
            revision = 100, wanted = wanted, prefixes = { ["/app/"] = changed },
        })
        assert.equal(machine.has and 1 or 0, count)
        return machine.why
    end

    local function reads(newest, keys) return { ["/app/"] = { newest = newest, keys = keys } } end

    it("a later revision will do, or an earlier one with the same keys", function()
        local changed, old = { newest = 11, keys = 3 }, "it has revision 11"
        assert.is_nil(why({ revision = 12, reads = reads(5, 2) }, 12, changed))
        assert.is_nil(why({ revision = 13, reads = reads(5, 2) }, 12, changed))
        assert.is_nil(why({ revision = 11, reads = reads(11, 3) }, 12, changed))
        assert.equal(old, why({ revision = 11, reads = reads(11, 4) }, 12, changed))
        assert.equal(old, why({ revision = 11, reads = reads(10, 3) }, 12, changed))
        assert.equal(old, why({ revision = 11, reads = reads(11, 3) }, 12, nil))
        assert.equal("it reads nothing from etcd", why({ revision = 1, reads = {} }, 12, changed))
    end)

    it("what it should have is what there is, if nothing else is asked for", function()
        local changed = { newest = 11, keys = 3 }
        assert.is_nil(why({ revision = 11, reads = reads(11, 3) }, nil, changed))
        assert.equal("it has revision 99",
            why({ revision = 99, reads = reads(11, 4) }, nil, changed))
    end)

    it("a revision that etcd has not come to is of another history", function()
        assert.equal("it has revision 101, and etcd has only come to 100",
            why({ revision = 101, reads = reads(11, 3) }, 5, { newest = 11, keys = 3 }))
    end)

    it("an error counts whatever there is", function()
        local changed = { newest = 11, keys = 3 }
        local function with(revision, tried)
            return { revision = revision, tried = tried, error = "no", reads = reads(11, 3) }
        end
        assert.equal("revision 12: no", why(with(11, 12), 12, changed))
        assert.equal("no", why(with(nil, nil), 12, changed))
        assert.equal("revision 12: no", why(with(12, 12), 12, changed))
        assert.equal("revision 13: no", why(with(12, 13), 12, changed))
        assert.equal("the reload failed",
            why({ revision = 12, reload = "failed", reads = reads(11, 3) }, 12, changed))
    end)

    it("what is no announcement is shown as what it is", function()
        local machines = fleet.parse { x = "no json", y = '{"host":1,"revision":"2"}',
            z = '[]', r = '{"reads":{"\\u0000":{},"-x":{},"/a":1,"/b/":{"newest":"x"}}}' }
        assert.equal(4, #machines)
        for _, machine in ipairs(machines) do
            assert.equal("it reads nothing from etcd", why(machine, 1))
        end
        assert.truthy(fleet.lines(machines)[3]:find("^x  "))
    end)

    it("the table cannot be forged by what machines say", function()
        local machines = fleet.parse { x = '{"host":"a\\nb","target":"\\u001b[2J"}' }
        fleet.judge(machines, { revision = 1, prefixes = {} })
        for _, line in ipairs(fleet.lines(machines)) do assert.falsy(line:find("%c")) end
    end)
end)
