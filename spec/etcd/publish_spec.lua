-- `atomicwriter publish`: the sources of `write` into etcd, as one transaction.

local cjson = require "cjson"
local client = require "atomicwriter.cli.etcd.client"
local etcd = require "spec.support.etcd"
local publication = require "atomicwriter.cli.etcd.publication"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

local MARK = "..published"

describe("publishing to etcd:", function()
    local store, dir, prefix
    local count = 0

    setup(function() store = etcd.start() end)
    teardown(sandbox.cleanup)
    before_each(function()
        count = count + 1
        prefix = ("/publish%d/"):format(count)
        dir = sandbox.memdir()
    end)

    local function publish(...)
        return cjson.decode(store:must("publish", prefix, "--output", "json", ...))
    end

    -- What is below the prefix, without the mark.
    local function files()
        local found = {}
        for key, value in pairs(store:below(prefix)) do
            if key ~= prefix .. MARK then found[key:sub(#prefix + 1)] = value end
        end
        return found
    end

    local function refused(wanted, what, ...)
        local before, revision = files(), store:revision()
        local status, stdout, stderr = store:run("publish", prefix, ...)
        assert.equal(wanted, status, stderr)
        assert.equal("", stdout)
        assert.truthy(stderr:find(what, 1, true), stderr)
        assert.same(before, files())
        assert.equal(revision, store:revision())
        return stderr
    end

    it("puts what is new, updates what differs, deletes what is stale, at one revision", function()
        assert.same({ "a", "b", "sub/c" }, publish("--from-literal", "a=1", "--from-literal", "b=1",
            "--from-literal", "sub/c=1").added)
        store:put(prefix .. "by-hand", "1")
        local before = store:revision()
        local result = publish("--from-literal", "a=1", "--from-literal", "b=2", "--from-literal",
            "d=2")
        assert.same({ { "d" }, { "b" }, { "by-hand", "sub/c" }, 1, true },
            { result.added, result.updated, result.removed, result.unchanged, result.changed })
        assert.equal(before + 1, result.revision)
        assert.equal(before + 1, store:revision())
        assert.same({ a = "1", b = "2", d = "2" }, files())
    end)

    it("says in text what it did, and at which revision", function()
        local text = store:must("publish", prefix, "--from-literal", "a=1")
        assert.equal(("+ a\n%s: published as revision %d (1 added, 0 updated, 0 removed, "
            .. "0 unchanged)\n"):format(prefix, store:revision()), text)
        assert.equal(("%s: unchanged, revision %d\n"):format(prefix, store:revision()),
            store:must("publish", prefix, "--from-literal", "a=1"))
    end)

    it("touches nothing when nothing differs, or in a dry run", function()
        publish("--from-literal", "a=1")
        local revision = store:revision()
        local result = publish("--from-literal", "a=1")
        assert.is_false(result.changed)
        assert.equal(revision, result.revision)
        result = publish("--from-literal", "a=2", "--dry-run")
        assert.same({ "a" }, result.updated)
        assert.equal(revision, store:revision())
        assert.same({ a = "1" }, files())
    end)

    it("takes the sources of write, and write makes the same of it", function()
        sandbox.mkdir(dir .. "/t")
        sandbox.write_file(dir .. "/t/x.tmpl", "port {{ data.port }}\n")
        local all = {}
        for code = 0, 255 do all[#all + 1] = string.char(code) end
        local binary = table.concat(all)
        sandbox.write_file(dir .. "/bin", binary)
        local sources = { "--template", dir .. "/t", "--set", "port=80", "--label", "app=web",
            "--from-file", dir .. "/bin", "--from-literal", "empty=" }
        publish(sandbox.unpack(sources))
        store:must("write", dir .. "/one", "--create", sandbox.unpack(sources))
        store:must("write", dir .. "/two", "--create", "--from-etcd", prefix)
        local expected = { x = "port 80\n", labels = 'app="web"', bin = binary, empty = "" }
        assert(volume.shows(dir .. "/one", expected))
        assert(volume.shows(dir .. "/two", expected))
    end)

    describe("takes any bytes in keys and values:", function()
        local function round_trip(wanted)
            local made = publication.new(assert(client.new { endpoints = store.endpoints }), prefix)
            local result = assert(made:publish(wanted, { timeout = 5 }))
            assert.is_true(result.changed)
            assert.same(wanted, files())
        end

        it("each byte in a value and in a key", function()
            for from = 0, 192, 64 do
                local values, keys = {}, {}
                for code = from, from + 63 do
                    local byte = string.char(code)
                    values["v" .. code] = "x" .. byte .. byte .. "y"
                    values["w" .. code % 32] = byte
                    if code ~= 0 then keys["k" .. byte .. "k"] = byte end -- no path has a NUL
                end
                for _, wanted in ipairs { values, keys } do
                    store:ctl("del", "--prefix", prefix)
                    round_trip(wanted)
                end
            end
        end)

        it("what etcdctl could take for its own", function()
            round_trip {
                ["-x"] = "-y", ["--prefix"] = "--lease=1", ["a b"] = " c d ", ["'"] = "'\"'",
                ['"'] = '\\"', ["\\"] = "\\\\", ["\n\n"] = "\n\nput x y\n\n", ["`"] = "$(false)",
                ["\\x41"] = "\\u0041", ["%s"] = "%d%n", ["empty"] = "", ["put a b"] = "del a",
            }
        end)

        it("values as large as etcd takes", function()
            local random = {}
            for i = 1, 175000 do
                random[i] = ("\0\"\\\255\n'%c%c"):format(i % 256, math.floor(i / 256) % 256)
            end
            round_trip { large = table.concat(random) }
        end)
    end)

    describe("--expect", function()
        it("publishes when nothing has changed since, also when other keys have", function()
            local revision = publish("--from-literal", "a=1", "--expect", "0").revision
            store:put("/other", "x")
            local result = publish("--from-literal", "a=2", "--expect", ("%d"):format(revision))
            assert.is_true(result.changed)
            publish("--from-literal", "a=3", "--expect", ("%d"):format(store:revision()))
        end)

        it("refuses when a key was changed, added or deleted since", function()
            local revision = ("%d"):format(publish("--from-literal", "a=1", "--from-literal",
                "b=1").revision)
            refused(1, "revision 0 is expected, but " .. prefix .. " was changed at " .. revision,
                "--from-literal", "a=2", "--expect", "0")
            store:delete(prefix .. "b")
            refused(1, prefix .. "b was deleted since", "--from-literal", "a=2", "--expect",
                revision)
            local changed = ("%d"):format(store:put(prefix .. "a", "by hand"))
            refused(1, ("revision %s is expected, but %s was changed at %s"):format(revision,
                prefix, changed), "--from-literal", "a=2", "--expect", revision)
            refused(1, "etcd has only come to", "--from-literal", "a=2", "--expect", "99999999")
            store:ctl("compact", changed)
            local now = ("%d"):format(store:put("/other", "x"))
            store:ctl("compact", now)
            refused(1, ("revision %s is expected, and was compacted: whether a key was deleted "
                .. "since cannot be told; look at what is there, and expect %s; nothing was "
                .. "published"):format(changed, now), "--from-literal", "a=2", "--expect", changed)
            publish("--from-literal", "a=2", "--expect", now)
        end)

        it("lets one of many publishers through", function()
            publish("--from-literal", "a=0")
            local revision, children = ("%d"):format(store:revision()), {}
            for i = 1, 8 do
                children[i] = store:spawn("publish", prefix, "--from-literal", "p" .. i .. "=1",
                    "--expect", revision)
            end
            local won = 0
            for _, child in ipairs(children) do
                local status, _, err = child:wait()
                won = won + (status == 0 and 1 or 0)
                assert.truthy(status == 0 or err:find("is expected", 1, true), err)
            end
            assert.equal(1, won)
            local names = {}
            for name in pairs(files()) do names[#names + 1] = name end
            assert.equal(1, #names)
        end)
    end)

    it("publishers at the same time never leave, nor ever show, a mixture of their sets", function()
        publish("--from-literal", "x=0")
        local from = store:revision()
        local children = {}
        for i = 1, 6 do
            children[i] = store:spawn("publish", prefix, "--from-literal", "a" .. i .. "=" .. i,
                "--from-literal", "b" .. i .. "=" .. i)
        end
        for _, child in ipairs(children) do
            local status, _, err = child:wait()
            assert.equal(0, status, err)
        end
        for revision = from + 1, store:revision() do
            local text = store:ctl("get", "--prefix", "--keys-only", "--rev",
                ("%d"):format(revision), "--", prefix)
            assert.truthy(text:match("a(%d)\n.*b%1\n"), text)
            assert.equal(3, select(2, text:gsub(prefix, "")))
        end
    end)

    -- A publication that calls MEANWHILE between its first read and its transaction.
    local function overtaken(meanwhile)
        local made = publication.new(assert(client.new { endpoints = store.endpoints }), prefix)
        local run, done = made.client.run, false
        function made.client.run(self, words, opts)
            if words[1] == "txn" and not done then
                done = true
                meanwhile(made)
            end
            return run(self, words, opts)
        end
        return made
    end

    it("undoes what somebody else has put at the same time", function()
        local stolen = false
        local made = overtaken(function()
            stolen = true
            store:put(prefix .. "stranger", "1")
        end)
        local result = assert(made:publish({ a = "1" }, { timeout = 5 }))
        assert.is_true(stolen)
        assert.same({ a = "1" }, files())
        assert.equal(store:revision(), result.revision)
        assert.same({ { "a" }, {}, { "stranger" }, 0, true }, { result.added, result.updated,
            result.removed, result.unchanged, result.changed })
    end)

    it("the first two publishers of a prefix never show a mixture", function()
        local from = store:revision()
        local made = overtaken(function() publish("--from-literal", "b=1") end)
        local result = assert(made:publish({ a = "1" }, { timeout = 5 }))
        assert.same({ a = "1" }, files())
        assert.same({ { "a" }, { "b" } }, { result.added, result.removed })
        for revision = from + 1, store:revision() do
            local text = store:ctl("get", "--prefix", "--keys-only", "--rev",
                ("%d"):format(revision), "--", prefix)
            assert.equal(2, select(2, text:gsub(prefix, "")), text)
        end
    end)

    it("notices what somebody else has changed that it leaves as it is", function()
        for _, change in ipairs { "put", "delete" } do
            publish("--from-literal", "a=1", "--from-literal", "same=1")
            local made = overtaken(function()
                if change == "put" then store:put(prefix .. "same", "2")
                else store:delete(prefix .. "same") end
            end)
            made._bare = true -- as where there is no room for all comparisons
            local result = assert(made:publish({ a = change, same = "1" }, { timeout = 5 }))
            assert.same({ a = change, same = "1" }, files())
            assert.equal(store:revision(), result.revision)
            made = overtaken(function() store:put(prefix .. "same", "3") end)
            made._bare = true
            local from = store:revision()
            local _, err = made:publish({ a = "last", same = "1" }, { timeout = 5, expect = from })
            assert.equal(("somebody else has written at the same time; published as revision %d, "
                .. "mixed with what others have written"):format(from + 2), tostring(err))
            assert.same({ a = "last", same = "3" }, files())
        end
    end)

    it("a transaction that etcd does not answer is given up in time", function()
        local other = etcd.start()
        other:put("/app/a", "1")
        local made = publication.new(assert(client.new { endpoints = other.endpoints }), "/app/")
        local run = made.client.run
        function made.client.run(self, words, opts)
            if words[1] == "txn" then
                assert.is_true(opts.timeout <= 10)
                other.nodes[1]:pause()
            end
            return run(self, words, opts)
        end
        local begun = sandbox.now()
        local result, err = made:publish({ a = "2" }, { timeout = 1 })
        assert.is_nil(result)
        assert.equal("etcd at " .. other.endpoints .. ": nothing answers; it is not known whether "
            .. "it was published", tostring(err))
        assert.is_true(sandbox.now() - begun < 60) -- etcdctl alone would wait for ever
        other.nodes[1]:resume()
    end)

    -- A publication whose first transaction is made or not, as IS_MADE says, and never answered.
    -- MEANWHILE is called then.
    local function unanswered(is_made, meanwhile)
        local made = publication.new(assert(client.new { endpoints = store.endpoints }), prefix)
        local run, lost = made.client.run, false
        function made.client.run(self, words, opts)
            if words[1] ~= "txn" or lost then return run(self, words, opts) end
            lost = true
            if is_made then assert(run(self, words, opts)) end
            if meanwhile then meanwhile() end
            return nil, self:failure("Error: context deadline exceeded\n")
        end
        return made
    end

    it("finds out whether it was published when the answer was lost", function()
        for _, is_made in ipairs { true, false } do
            local value = tostring(is_made)
            local result = assert(unanswered(is_made):publish({ a = value }, { timeout = 5 }))
            assert.is_true(result.changed)
            assert.equal(store:revision(), result.revision)
            assert.same({ a = value }, files())
        end
    end)

    describe("when the answer was lost and somebody else has written:", function()
        local function stranger() store:put(prefix .. "stranger", "1") end

        it("publishes again", function()
            publish("--from-literal", "a=0")
            for _, is_made in ipairs { true, false } do
                local made = unanswered(is_made, stranger)
                local result = assert(made:publish({ a = tostring(is_made) }, { timeout = 5 }))
                assert.equal(store:revision(), result.revision)
                assert.same({ a = tostring(is_made) }, files())
            end
        end)

        it("with --expect says which revision ours was", function()
            local from = publish("--from-literal", "a=0").revision
            local result, err = unanswered(true, stranger):publish({ a = "1" },
                { timeout = 5, expect = from })
            assert.is_nil(result)
            assert.equal("conflict", err.code)
            assert.equal(("somebody else has written at the same time; published as revision %d, "
                .. "mixed with what others have written"):format(from + 1), tostring(err))
            assert.same({ a = "1", stranger = "1" }, files())
        end)

        it("with --expect says that it is not known where others have published", function()
            local from = publish("--from-literal", "a=0").revision
            local made = unanswered(true, function() publish("--from-literal", "b=0") end)
            local result, err = made:publish({ a = "1" }, { timeout = 5, expect = from })
            assert.is_nil(result)
            assert.equal("conflict", err.code)
            assert.truthy(tostring(err):find(("revision %d is expected, but %s was changed at %d; "
                .. "it is not known whether it was published"):format(from, prefix, from + 2), 1,
                true), tostring(err))
        end)
    end)

    it("finds out whether it was published when etcdctl was killed or failed oddly", function()
        sandbox.mkdir(dir .. "/bin")
        local etcdctl = sandbox.must "command -v etcdctl":gsub("\n", "")
        for turn, ending in ipairs { "kill -9 $$", "echo odd >&2; exit 1" } do
            sandbox.write_file(dir .. "/bin/etcdctl", ([[#!/bin/sh
                test "$1" = txn && ! test -e %s/done%d || exec %s "$@"
                : >%s/done%d
                %s "$@" >&2
                %s
            ]]):format(dir, turn, etcdctl, dir, turn, etcdctl, ending), "0755")
            local value = "geheimnis" .. turn
            local words = store:words("publish", prefix, "--from-literal", "a=" .. value,
                "--timeout", "10s")
            local status, stdout, stderr = sandbox.run { "env",
                "PATH=" .. dir .. "/bin:" .. os.getenv "PATH", sandbox.unpack(words) }
            assert.same({ a = value }, files())
            assert.falsy(stderr:find("geheimnis", 1, true))
            if turn == 1 then
                assert.equal(0, status, stderr)
                assert.truthy(stdout:find(("published as revision %d"):format(store:revision()), 1,
                    true))
                assert.truthy(stderr:find("etcdctl was ended by SIGKILL; still trying", 1, true),
                    stderr)
            else
                assert.equal(1, status)
                assert.truthy(stderr:find("etcdctl failed, and may have shown what it was given; "
                    .. "it is not known whether it was published\n", 1, true), stderr)
            end
        end
    end)

    describe("never deletes what nobody has published there:", function()
        it("keys that were there before, unless --expect is given", function()
            store:put(prefix .. "hand", "1")
            local revision = store:put(prefix .. "made", "1")
            refused(1, ("2 keys below %s, such as %shand, were not put there by publish and would "
                .. "be deleted; to do that, give --expect %d; nothing was published\n")
                :format(prefix, prefix, revision), "--from-literal", "a=1")
            local status, out, err = store:run("publish", prefix, "--dry-run", "--from-literal",
                "a=1")
            assert.equal(1, status)
            assert.truthy(out:find("- hand\n- made\n", 1, true), out)
            assert.truthy(err:find(("--expect %d"):format(revision), 1, true), err)
            assert.same({ "hand", "made" }, publish("--from-literal", "a=1", "--expect",
                ("%d"):format(revision)).removed)
            assert.same({ a = "1" }, files())
        end)

        it("but takes over a prefix that was filled by hand with the same names", function()
            store:put(prefix .. "a", "by hand")
            assert.same({ "a" }, publish("--from-literal", "a=1").updated)
        end)

        it("prefixes below that are published by themselves, which can be read, too", function()
            publish("--from-literal", "a=1")
            store:must("publish", prefix .. "db", "--from-literal", "b=1")
            store:must("write", dir .. "/t", "--create", "--from-etcd", prefix)
            assert(volume.shows(dir .. "/t", { a = "1", ["db/b"] = "1" }))
            for _, more in ipairs { "--timeout=5s", ("--expect=%d"):format(store:revision()) } do
                refused(1, ("%sdb/ is published by itself: publish there, or delete "
                    .. "%sdb/..published first"):format(prefix, prefix), "--from-literal", "a=2",
                    more)
            end
            store:delete(prefix .. "db/..published")
            assert.same({ "db/b" }, publish("--from-literal", "a=2").removed)
        end)
    end)

    describe("where etcd's limits are passed, says what to do and touches nothing:", function()
        local function many(number)
            local words = {}
            for i = 1, number do
                words[#words + 1] = "--from-literal"
                words[#words + 1] = "k" .. i .. "=v"
            end
            return sandbox.unpack(words)
        end

        it("operations", function()
            assert.equal(126, #publish(many(126)).added)
            store:ctl("del", "--prefix", prefix)
            local text = refused(1, "too many operations", many(127))
            assert.truthy(text:find("it has 129", 1, true), text)
            assert.truthy(text:find("--max-txn-ops 129", 1, true), text)
            local status, out, err = store:run("publish", prefix, "--dry-run", many(127))
            assert.equal(1, status)
            assert.truthy(out:find("127 added", 1, true), out)
            assert.truthy(err:find("--max-txn-ops 129", 1, true), err)
        end)

        it("but what is unchanged does not count", function()
            publish(many(126))
            local words = { many(126) }
            words[#words + 1] = "--from-literal"
            words[#words + 1] = "another=1"
            for i = 1, 60 do
                words[#words + 1] = "--from-literal"
                words[#words + 1] = "more" .. i .. "=1"
            end
            assert.equal(61, #publish(sandbox.unpack(words)).added)
        end)

        it("comparisons do not count, for those that need not be are left out", function()
            local small = etcd.start(1, { words = { "--max-txn-ops", "64" } })
            local function run(...)
                small:must("publish", "/app", ...)
            end
            run(many(60))
            local words = { many(60) }
            for i = 1, 20 do
                words[#words + 1] = "--from-literal"
                words[#words + 1] = "new" .. i .. "=v"
            end
            run(sandbox.unpack(words))
            local below = 0
            for _ in pairs(small:below "/app/new") do below = below + 1 end
            assert.equal(20, below)
        end)

        it("bytes", function()
            sandbox.write_file(dir .. "/large", ("x"):rep(1572864))
            local text = refused(1, "request is too large", "--from-file", dir .. "/large")
            assert.truthy(text:find("--max-request-bytes", 1, true), text)
            sandbox.write_file(dir .. "/huge", ("x"):rep(3 * 2 ^ 20))
            refused(1, "--max-request-bytes", "--from-file", dir .. "/huge")
            local status, _, err =
                store:run("publish", prefix, "--dry-run", "--from-file", dir .. "/large")
            assert.equal(1, status)
            assert.truthy(err:find("--max-request-bytes", 1, true), err)
        end)
    end)

    it("tells of a bad source before etcd is asked", function()
        refused(2, "no source given")
        refused(1, "/nonexistent", "--from-file", "/nonexistent")
        refused(2, "--expect: 'x' is no revision", "--from-literal", "a=1", "--expect", "x")
        local text = store:must("publish", "--help")
        assert.falsy(text:find("--mode", 1, true)) -- etcd has no modes
        local status, _, err = store:run("publish", "", "--from-literal", "a=1")
        assert.equal(2, status)
        assert.truthy(err:find("PREFIX: the prefix is empty", 1, true), err)
    end)

    it("says at once that nothing answers, and what is known when it is interrupted", function()
        local other = etcd.start()
        other:put("/app/a", "1")
        other.nodes[1]:pause()
        local child = other:spawn("publish", "/app", "--from-literal", "a=2", "--timeout", "20s")
        sandbox.eventually(function()
            return (sandbox.read_file(child.dir .. "/err") or ""):find "nothing answers"
        end, 8)
        assert.equal(("atomicwriter: warning: etcd at %s: nothing answers; still trying\n")
            :format(other.endpoints), sandbox.read_file(child.dir .. "/err"))
        sandbox.sleep(3)
        child:kill "TERM"
        local status, _, err = child:wait(10)
        assert.is_true(status ~= 0)
        assert.truthy(err:find("still trying\natomicwriter: interrupted: nothing was published\n"),
            err)
    end)

    it("does not know whether a transaction was made that was interrupted", function()
        local signals, its_client = {}, assert(client.new {})
        function its_client.run(self, words)
            if words[1] == "get" then return '{"header":{"revision":1}}' end
            signals.stop = "SIGTERM"
            return nil, self:failure "Error: context deadline exceeded"
        end
        local made = publication.new(its_client, "/app/", signals)
        local result, err = made:publish({ a = "1" }, { timeout = 1 })
        assert.is_nil(result)
        assert.equal("cancelled", err.code)
        assert.equal("interrupted: it is not known whether it was published", tostring(err))
    end)

    it("gives up when nothing answers in time, and says that nothing was published", function()
        local port = sandbox.free_ports(1)[1]
        local status, _, err = store:run("publish", prefix, "--from-literal", "a=1",
            "--etcd-endpoints", "127.0.0.1:" .. port, "--timeout", "1s")
        assert.equal(1, status)
        assert.truthy(err:find("nothing answers; nothing was published", 1, true), err)
    end)

    it("shows nothing of what etcdctl repeats, whatever words are in it", function()
        local made = assert(client.new {})
        for _, text in ipairs { "Error: invalid txn request: put -- a geheimnis EOF\n",
            'Error: unknown command "geheimnis timed out"\n', "geheimnis: no leader\n",
            '{"level":"warn","error":"geheimnis: permission denied"}\n' } do
            local err = made:failure(text, { discreet = true })
            assert.is_nil(err.kind)
            assert.falsy(tostring(err):find("geheimnis", 1, true))
        end
        assert.equal("silent", made:failure("Error: rpc error: code = Unavailable desc = EOF\n",
            { discreet = true }).kind)
        assert.equal("too_large", made:failure("Error: etcdserver: request is too large\n",
            { discreet = true }).kind)
    end)

    it("says that nothing was published when etcdctl cannot be started", function()
        local made = overtaken(function() end)
        local run = made.client.run
        function made.client.run(self, words, opts)
            if words[1] ~= "txn" then return run(self, words, opts) end
            local path = os.getenv "PATH"
            require("luv").os_setenv("PATH", "/nowhere")
            local output, err = run(self, words, opts)
            require("luv").os_setenv("PATH", path)
            return output, err
        end
        local _, err = made:publish({ a = "1" }, { timeout = 1 })
        assert.truthy(tostring(err):find("; nothing was published$"), tostring(err))
    end)

    it("shows no value in what it says, nor among the arguments of a process", function()
        sandbox.write_file(dir .. "/secret", "geheimnis" .. ("x"):rep(1572864))
        local text = refused(1, "too large", "--from-file", dir .. "/secret", "--log-level",
            "debug")
        assert.falsy(text:find("geheimnis", 1, true))
        sandbox.mkdir(dir .. "/bin")
        sandbox.write_file(dir .. "/bin/etcdctl", ("#!/bin/sh\nprintf '%%s\\n' \"$@\" >>%s/args\n"
            .. "exec %s \"$@\"\n"):format(dir, sandbox.must "command -v etcdctl":gsub("\n", "")),
            "0755")
        sandbox.write_file(dir .. "/secret", "geheimnis")
        local words = store:words("publish", prefix, "--from-file", dir .. "/secret")
        sandbox.must { "env", "PATH=" .. dir .. "/bin:" .. os.getenv "PATH",
            sandbox.unpack(words) }
        local seen = sandbox.read_file(dir .. "/args")
        assert.truthy(seen:find("txn", 1, true))
        assert.falsy(seen:find("geheimnis", 1, true))
    end)
end)
