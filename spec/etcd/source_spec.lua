-- What is below a prefix of etcd as files and as data for templates, read once.

local client = require "atomicwriter.cli.etcd.client"
local command = require "spec.support.command"
local etcd = require "spec.support.etcd"
local sandbox = require "spec.support.sandbox"
local volume = require "spec.support.volume"

describe("from etcd:", function()
    local store, dir, target

    -- One for all: each test has a prefix of its own. `after_each` would end it, so none cleans up.
    setup(function() store = etcd.start() end)
    teardown(sandbox.cleanup)
    local count = 0
    local prefix
    before_each(function()
        count = count + 1
        prefix = ("/spec%d/"):format(count)
        dir = sandbox.memdir()
        target = dir .. "/target"
    end)

    local function write(...)
        return store:must("write", target, "--create", "--durability", "none", ...)
    end

    -- It fails with status WANTED, prints nothing, says WHAT (plain text), and touches nothing.
    local function refused(wanted, what, ...)
        local before = sandbox.listing(dir)
        local status, stdout, stderr = store:run("write", target, "--create", ...)
        assert.equal(wanted, status, stderr)
        assert.equal("", stdout)
        assert.truthy(stderr:find(what, 1, true), stderr)
        assert.truthy(stderr:find("^atomicwriter: [^\n]+\n$"), stderr)
        assert.equal(before, sandbox.listing(dir))
        return stderr
    end

    it("each key below the prefix is a file", function()
        store:transact { [prefix .. "a"] = "1", [prefix .. "db/host"] = "h", ["/elsewhere"] = "x" }
        assert.truthy(write("--from-etcd", prefix):find("+ db/host\n", 1, true))
        assert(volume.shows(target, { a = "1", ["db/host"] = "h" }))
    end)

    it("a prefix is a directory, with or without the slash at its end", function()
        store:transact { [prefix .. "a"] = "1", [prefix:sub(1, -2) .. "x/b"] = "other" }
        write("--from-etcd", prefix:sub(1, -2))
        assert(volume.shows(target, { a = "1" }))
    end)

    it("values are taken byte for byte, names too", function()
        local all = {}
        for code = 0, 255 do all[#all + 1] = string.char(code) end
        local value = table.concat(all)
        sandbox.write_file(dir .. "/value", value)
        local name = "ä b'\"\\\n\255"
        local words = "cat " .. dir .. "/value | ETCDCTL_ENDPOINTS=" .. store.endpoints
            .. " etcdctl put -- " .. sandbox.quote(prefix .. name)
        sandbox.must(words)
        store:put(prefix .. "empty", "")
        write("--from-etcd", prefix)
        assert(volume.shows(target, { [name] = value, empty = "" }))
    end)

    it("goes together with other sources, modes and diff", function()
        store:put(prefix .. "a", "1")
        write("--from-etcd", prefix, "--from-literal", "b=2", "--file-mode", "a=0600")
        assert(volume.shows(target, { a = "1", b = "2" }))
        assert.equal("0600", sandbox.mode(target .. "/a"))
        assert.equal(0, (store:run("diff", target, "--from-etcd", prefix, "--from-literal", "b=2",
            "--file-mode", "a=0600")))
        store:put(prefix .. "a", "3")
        local status, text = store:run("diff", target, "--from-etcd", prefix, "--from-literal",
            "b=2", "--file-mode", "a=0600", "--show-secrets")
        assert.equal(1, status)
        assert.truthy(text:find("\n-1\n", 1, true), text)
        assert.truthy(text:find("\n+3\n", 1, true), text)
    end)

    it("is data for templates, nested as the keys are", function()
        store:transact { [prefix .. "port"] = "80", [prefix .. "db/host"] = "h" }
        sandbox.write_file(dir .. "/x.tmpl", "{{ data.s.db.host }}:{{ data.s.port }}")
        assert.equal("h:80", store:must("render", dir .. "/x.tmpl", "--data-from-etcd",
            "s=" .. prefix))
        write("--template", dir .. "/x.tmpl", "--data-from-etcd", "s=" .. prefix)
        assert(volume.shows(target, { x = "h:80" }))
    end)

    it("is a field of projects: files, data, or both, with a payload or without", function()
        store:transact { [prefix .. "a"] = "1", [prefix .. "sub/b"] = "2" }
        sandbox.write_file(dir .. "/p.lua", ([[return {
            { target = "one", create = true, durability = "none", etcd = { prefix = "%s" } },
            { target = "two", create = true, durability = "none",
              etcd = { { prefix = "%s", name = "s" }, { prefix = "%ssub" } },
              payload = function(context) return { x = context.data.s.a } end } }]])
            :format(prefix, prefix, prefix))
        store:must("run", dir .. "/p.lua")
        assert(volume.shows(dir .. "/one", { a = "1", ["sub/b"] = "2" }))
        assert(volume.shows(dir .. "/two", { x = "1", b = "2" }))
    end)

    it("projects are told what is wrong with the field", function()
        for _, case in ipairs {
            { '{}', "etcd.prefix must be a string" },
            { '{ prefix = "" }', "etcd.prefix: the prefix is empty" },
            { '{ prefix = "-x" }', "cannot begin with '-'" },
            { '{ prefix = "/a", endpoint = "x" }', "unknown field 'endpoint'" },
            { '{ prefix = "/a", cert = "x" }', "cert and key need each other" },
            { '{ prefix = "/a", endpoints = { 1 } }', "endpoints must be strings" },
            { '{ prefix = "/a", user = "u" }', "no password for the user 'u'" },
            { '{ { prefix = "/a" }, 1 }', "etcd must be a table" },
        } do
            sandbox.write_file(dir .. "/p.lua", "return { target = 't', etcd = " .. case[1] .. " }")
            local status, _, err = store:run("run", dir .. "/p.lua")
            assert.equal(1, status)
            assert.truthy(err:find("p.lua: projection 1: ", 1, true), err)
            assert.truthy(err:find(case[2], 1, true), err)
        end
    end)

    it("a user of the environment needs a password, too: etcdctl would ask for it", function()
        local function new(environment)
            return client.new({}, function(name) return environment[name] end)
        end
        local made, why = new { ETCDCTL_USER = "u" }
        assert.is_nil(made)
        assert.equal("no password for the user 'u': set ETCDCTL_PASSWORD", why)
        assert(new { ETCDCTL_USER = "u", ETCDCTL_PASSWORD = "p" })
        assert.equal("p", assert(new { ETCDCTL_USER = "u:p" }).env.ETCDCTL_PASSWORD)
    end)

    it("endpoints with a password in them are refused, and not shown", function()
        local status, _, err = store:run("write", target, "--create", "--from-etcd", prefix,
            "--etcd-endpoints", "http://u:geheimnis@127.0.0.1:1")
        assert.equal(2, status)
        assert.truthy(err:find("the endpoints hold a user", 1, true), err)
        assert.falsy(err:find("geheimnis", 1, true))
        local made, why = client.new({}, function(name)
            return ({ ETCDCTL_ENDPOINTS = "http://u:geheimnis@127.0.0.1:1" })[name]
        end)
        assert.is_nil(made)
        assert.truthy(why:find("the endpoints hold a user", 1, true))
    end)

    it("etcdctl gives up when ETCDCTL_COMMAND_TIMEOUT says so, which 3.4 does not read", function()
        sandbox.mkdir(dir .. "/bin")
        sandbox.write_file(dir .. "/bin/etcdctl", ("#!/bin/sh\necho \"$*\" >>%s/args\n"
            .. "exec %s \"$@\"\n"):format(dir, sandbox.must "command -v etcdctl":gsub("\n", "")),
            "0755")
        store:put(prefix .. "a", "1")
        local words = store:words("write", target, "--create", "--from-etcd", prefix)
        for _, case in ipairs { { "7s", "^%-%-command%-timeout=7s get " }, { "", "^get " } } do
            sandbox.must { "env", "PATH=" .. dir .. "/bin:" .. os.getenv "PATH",
                "ETCDCTL_COMMAND_TIMEOUT=" .. case[1], sandbox.unpack(words) }
            assert.truthy(sandbox.read_file(dir .. "/args"):match "([^\n]*)\n$":match(case[2]))
        end
    end)

    it("two prefixes are read as of one revision, while somebody writes all the time", function()
        local script = ("i=0; while :; do i=$((i+1)); printf '\\nput %sa/v %%s\\nput %sb/v %%s"
            .. "\\n\\n\\n' $i $i | etcdctl txn >/dev/null; done"):format(prefix, prefix)
        store:transact { [prefix .. "a/v"] = "0", [prefix .. "b/v"] = "0" }
        local writer = sandbox.spawn { "env", "ETCDCTL_ENDPOINTS=" .. store.endpoints, "sh", "-c",
            script }
        local seen = {}
        for _ = 1, 10 do
            sandbox.write_file(dir .. "/x", "{{ data.a.v }} {{ data.b.v }}")
            local text = store:must("render", dir .. "/x", "--data-from-etcd",
                "a=" .. prefix .. "a", "--data-from-etcd", "b=" .. prefix .. "b")
            local one, other = text:match("^(%d+) (%d+)$")
            assert.equal(one, other)
            seen[#seen + 1] = one
        end
        writer:kill_all()
        assert.is_true(tonumber(seen[#seen]) > tonumber(seen[1]))
    end)

    describe("refuses a revision as a whole, and names the key, when", function()
        local function refuses(key, what)
            store:put(prefix .. "good", "old")
            write("--from-etcd", prefix)
            store:put(prefix .. "good", "new")
            local revision = store:put(prefix .. key, "x")
            local text = refused(1, ("revision %d of %s is refused"):format(revision, prefix),
                "--from-etcd", prefix)
            assert.truthy(text:find(what, 1, true), text)
            assert(volume.shows(target, { good = "old" }))
        end

        it("a key leads out", function() refuses("../x", prefix .. "../x") end)
        it("a key is reserved", function() refuses("..data", prefix .. "..data") end)
        it("a key is the prefix itself", function() refuses("", '"' .. prefix .. '"') end)
        it("a key is absolute", function() refuses("/x", prefix .. "/x") end)
        it("two keys are one path", function() refuses("./good", prefix .. "./good") end)
        it("a key is the directory of another", function()
            refuses("good/x", 'lies below the key "good"')
        end)
        it("a key has a name that is too long", function()
            refuses(("n"):rep(256), "longer than 255 bytes")
        end)
    end)

    it("another source that claims the same name is an error", function()
        store:put(prefix .. "a", "1")
        refused(1, "given by", "--from-etcd", prefix, "--from-literal", "a=2")
    end)

    it("no key at all is an error: a misspelt prefix must not empty a target", function()
        refused(1, "has no key below " .. prefix, "--from-etcd", prefix)
    end)

    it("nothing that answers is an error that names the endpoints", function()
        local port = sandbox.free_ports(1)[1]
        refused(1, "etcd at 127.0.0.1:" .. port .. ": nothing answers", "--from-etcd", prefix,
            "--etcd-endpoints", "127.0.0.1:" .. port)
    end)

    it("the environment of etcdctl counts, options count more", function()
        store:put(prefix .. "a", "1")
        local words = command.words("write", target, "--create", "--from-etcd", prefix,
            "--etcd-endpoints", store.endpoints)
        sandbox.must { "env", "ETCDCTL_ENDPOINTS=127.0.0.1:1", sandbox.unpack(words) }
        assert(volume.shows(target, { a = "1" }))
    end)

    it("variables that tell etcdctl how to print do no harm", function()
        store:put(prefix .. "a", "1")
        local words = command.words("write", target, "--create", "--from-etcd", prefix,
            "--etcd-endpoints", store.endpoints)
        sandbox.must { "env", "ETCDCTL_WRITE_OUT=table", "ETCDCTL_HEX=true", "ETCDCTL_DEBUG=true",
            sandbox.unpack(words) }
        assert(volume.shows(target, { a = "1" }))
    end)

    it("says which package is missing, without lua-cjson", function()
        local words = command.words("write", target, "--create", "--from-etcd", prefix,
            "--etcd-endpoints", store.endpoints)
        local status, _, err =
            sandbox.run { "env", command.without "cjson", sandbox.unpack(words) }
        assert.equal(1, status)
        assert.equal("atomicwriter: etcd needs lua-cjson: install lua-cjson (Debian) or lua-cjson "
            .. "(LuaRocks)\n", err)
    end)

    it("one endpoint that answers is enough", function()
        store:put(prefix .. "a", "1")
        local port = sandbox.free_ports(1)[1]
        write("--from-etcd", prefix, "--etcd-endpoints",
            "http://127.0.0.1:" .. port .. "," .. store.endpoints)
        assert(volume.shows(target, { a = "1" }))
    end)

    it("etcdctl that is missing is an error that names the package", function()
        sandbox.mkdir(dir .. "/bin")
        local words = command.words("write", target, "--create", "--from-etcd", prefix)
        for _, name in ipairs { "env", "lua5.4", "luajit", "sh" } do
            local found = sandbox.run("command -v " .. name) == 0
                and sandbox.must("command -v " .. name):gsub("\n$", "")
            if found then sandbox.symlink(found, dir .. "/bin/" .. name) end
        end
        local status, _, err =
            sandbox.run { "env", "PATH=" .. dir .. "/bin", sandbox.unpack(words) }
        assert.equal(1, status)
        assert.truthy(err:find("install etcd-client (Debian)", 1, true), err)
        assert.is_nil(sandbox.kind(target))
    end)

    it("wrong options are told before anything is done", function()
        refused(2, "--from-etcd: the prefix is empty", "--from-etcd", "")
        refused(2, "--from-etcd: \"-x\": a prefix cannot begin with '-'", "--from-etcd=-x")
        refused(2, "--data-from-etcd: expected NAME=PREFIX", "--from-literal", "a=1",
            "--data-from-etcd", "x")
        refused(2, "--etcd-cert and --etcd-key need each other", "--from-etcd", prefix,
            "--etcd-cert", "x")
        refused(2, "--etcd-endpoints needs --from-etcd", "--from-literal", "a=1",
            "--etcd-endpoints", "x")
        refused(2, "--etcd-password-file needs --etcd-user", "--from-etcd", prefix,
            "--etcd-password-file", "x")
        local text = refused(2, "arguments can be seen", "--from-etcd", prefix, "--etcd-user",
            "root:geheim")
        assert.falsy(text:find("geheim", 1, true))
        refused(1, "/nonexistent", "--from-etcd", prefix, "--etcd-cacert", "/nonexistent")
    end)
end)

describe("from etcd with passwords and TLS:", function()
    local store, dir

    setup(function()
        dir = sandbox.memdir()
        sandbox.must(("cd %s && openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=etcd "
            .. "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"):format(dir))
        store = etcd.start(1, { tls = { cert = dir .. "/cert.pem", key = dir .. "/key.pem" } })
        store:put("/app/a", "1")
        store:ctl("user", "add", "root:geheim")
        store:ctl("user", "grant-role", "root", "root")
        store:ctl("role", "add", "app")
        store:ctl("role", "grant-permission", "app", "--prefix=true", "read", "/app/")
        store:ctl("user", "add", "app:sehrgeheim")
        store:ctl("user", "grant-role", "app", "app")
        store:ctl("auth", "enable")
        store.user = "root:geheim"
    end)
    teardown(sandbox.cleanup)

    local function write(...)
        return store:run("write", dir .. "/target", "--create", "--from-etcd", ...)
    end

    it("a user with a password from the environment or a file reads what it may", function()
        sandbox.write_file(dir .. "/password", "sehrgeheim\n")
        local status, _, err = write("/app", "--etcd-user", "app", "--etcd-password-file",
            dir .. "/password")
        assert.equal(0, status, err)
        assert.equal("1", sandbox.read_file(dir .. "/target/a"))
    end)

    it("is refused in words that show no password", function()
        sandbox.write_file(dir .. "/wrong", "falsch\n")
        local status, _, err = write("/app", "--etcd-user", "app", "--etcd-password-file",
            dir .. "/wrong")
        assert.equal(1, status)
        assert.truthy(err:find("authentication failed", 1, true), err)
        assert.falsy(err:find("falsch", 1, true), err)
        status, _, err = write("/other", "--etcd-user", "app", "--etcd-password-file",
            dir .. "/password")
        assert.equal(1, status)
        assert.truthy(err:find("permission denied", 1, true), err)
        status, _, err = write("/app", "--etcd-user", "app")
        assert.equal(2, status)
        assert.truthy(err:find("set ETCDCTL_PASSWORD", 1, true), err)
        sandbox.write_file(dir .. "/empty", "\n")
        status = write("/app", "--etcd-user", "app", "--etcd-password-file", dir .. "/empty")
        assert.equal(2, status)
    end)

    it("passwords of projects are in no process's arguments", function()
        sandbox.write_file(dir .. "/p.lua", ([[return { target = "two", create = true,
            etcd = { prefix = "/app", endpoints = { "%s" }, cacert = "%s/cert.pem",
                     user = "app:sehrgeheim" } }]]):format(store.endpoints, dir))
        local child = store:spawn("run", dir .. "/p.lua", "--watch")
        sandbox.eventually(function() return sandbox.read_file(dir .. "/two/a") == "1" end)
        sandbox.eventually(function()
            return sandbox.run { "pgrep", "-f", "etcdctl watch" } == 0
        end)
        local _, seen = sandbox.run "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n'"
        assert.truthy(seen:find("etcdctl", 1, true))
        assert.falsy(seen:find("sehrgeheim\n", 1, true))
        store:put("/app/a", "2")
        assert.truthy(sandbox.eventually(function()
            return sandbox.read_file(dir .. "/two/a") == "2"
        end))
        child:kill "TERM"
        local status, stdout, stderr = child:wait()
        assert.equal(0, status)
        assert.falsy((stdout .. stderr):find("sehrgeheim", 1, true))
    end)
end)
