-- The examples of the command line do what their READMEs say: the commands are taken from there and
-- run, in a copy of the example, with other directories and ports.

local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"

describe("the examples of the command", function()
    local dir, place, replacements

    before_each(function()
        dir = sandbox.tmpdir()
        sandbox.mkdir(dir .. "/bin")
        local words = "#!/bin/sh\nexec " .. sandbox.sh(command.words()) .. ' "$@"\n'
        sandbox.write_file(dir .. "/bin/atomicwriter", words, "0755")
    end)
    after_each(sandbox.cleanup)

    -- Copy the example NAME. What it writes goes below DIR/output, its README says /tmp/….
    local function take(name, more)
        place = dir .. "/" .. name
        sandbox.must { "cp", "-r", "examples/" .. name, place }
        replacements = { ["/tmp/atomicwriter-" .. name] = dir .. "/output" }
        for old, new in pairs(more or {}) do replacements[old] = new end
    end

    local function edit(file, change)
        local path = place .. "/" .. file
        local text = sandbox.read_file(path)
        local changed = change(text)
        assert.are_not.equal(text, changed)
        sandbox.write_file(path, changed)
    end

    -- Put the directories and ports of this test into FILE of the copy.
    local function adapt(file)
        edit(file, function(text) return sandbox.substitute(text, replacements) end)
    end

    -- The words that run SCRIPT in the copy.
    local function shell(script)
        return { "env", "-C", place, "PATH=" .. dir .. "/bin:" .. os.getenv("PATH"),
            "sh", "-ec", sandbox.substitute(script, replacements) }
    end

    -- The blocks of shell commands in the README, in order.
    local function steps()
        local list = {}
        for block in sandbox.read_file(place .. "/README.md"):gmatch("```sh\n(.-)```") do
            list[#list + 1] = block
        end
        return list
    end

    local function run(script) return sandbox.run(shell(script)) end

    -- Run SCRIPT, which has to succeed, and return what it printed.
    local function must(script)
        local status, stdout, stderr = run(script)
        assert.equal("0", status .. (status == 0 and "" or ": " .. stderr))
        return stdout
    end

    -- Run SCRIPT, which has to be refused by a check: what was said.
    local function refused(script)
        local status, stdout, stderr = run(script)
        assert.equal(3, status, stderr)
        assert.equal("", stdout)
        assert.truthy(stderr:find("the check refused", 1, true), stderr)
        return stderr
    end

    local function read(path) return sandbox.read_file(dir .. "/output/" .. path) end

    local function live(target)
        return sandbox.readlink(dir .. "/output/" .. target .. "/..data")
    end

    -- Start SCRIPT, which ends with a command that stays, and wait until that has logged TEXT.
    local function start(script, text)
        local child = sandbox.spawn(shell(script:gsub("%f[^\n%z]atomicwriter ", "exec %0", 1)))
        assert.truthy(sandbox.eventually(function()
            return sandbox.read_file(child.dir .. "/err"):find(text, 1, true)
        end), sandbox.read_file(child.dir .. "/err"))
        return child
    end

    -- Whether the loop of process PID waits for file events: a descriptor for them is polled.
    local function polls_inotify(pid)
        local polled, notified = {}, {}
        local status, text = sandbox.run("cd /proc/" .. pid .. "/fdinfo && grep -H . *")
        if status ~= 0 then return false end
        for fd, line in text:gmatch("(%d+):([^\n]*)") do
            notified[line:match("^inotify ") and fd or false] = true
            polled[line:match("^tfd: *(%d+)") or false] = true
        end
        for fd in pairs(notified) do
            if fd and polled[fd] then return true end
        end
        return false
    end

    -- nginx hangs with AddressSanitizer in it.
    local has_nginx = sandbox.has "nginx" and sandbox.has "curl" and not sandbox.is_sanitized();

    (has_nginx and describe or pending)("nginx", function()
        local step, base

        -- nginx makes itself a daemon, so it is no child of ours.
        local function pid()
            local text = read "nginx.pid"
            return text and text:match("^%d+")
        end

        before_each(function()
            local ports = sandbox.free_ports(2)
            take("nginx", { ["8080"] = ports[1], ["8081"] = ports[2] })
            adapt "site.yaml"
            step = steps()
            base = step[2]
        end)

        after_each(function()
            local last = pid()
            if not last then return end
            sandbox.run { "kill", "-TERM", last }
            assert.truthy(sandbox.eventually(function() return not pid() end))
        end)

        local function page()
            return (select(2, run "curl -s -H 'Host: example.test' http://127.0.0.1:8080/tea"))
        end

        local function logged(pattern) return select(2, read("error.log"):gsub(pattern, "")) end

        -- Wait for the COUNTth reload to be complete: until then old workers may answer.
        local function is_reloaded(count, wanted)
            assert.truthy(sandbox.eventually(function()
                return logged "worker process %d+ exited" >= count
            end), read "error.log")
            assert.equal(wanted, page())
            assert.equal(count, logged "%(SIGHUP%) received")
        end

        local HELLO = "Hello, you asked example.test for /tea.\n"
        local WELCOME = "Welcome to example.test.\n"

        it("serves what is published, and reloads once for a change, never without one", function()
            local stdout = must(step[1])
            assert.equal(HELLO, stdout:match("[^\n]*\n$"))
            assert.truthy(stdout:find("3 added", 1, true), stdout)

            local unchanged = base:gsub("%-%-set [^=]+='[^']*'", "")
            assert.truthy(must(unchanged):find(": unchanged, ", 1, true))
            assert.truthy(must(step[2]):find("1 updated", 1, true))
            is_reloaded(1, WELCOME)
            assert.truthy(must(step[2]):find(": unchanged, ", 1, true))
            must(unchanged)
            is_reloaded(2, HELLO)

            must(step[5])
            assert.truthy(sandbox.eventually(function() return not pid() end))
        end)

        it("leaves nginx's own variables alone", function()
            must(step[1])
            local servers = read "site/servers.conf"
            for _, line in ipairs {
                "proxy_set_header Host $host;",
                "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
                'return 200 "Hello, you asked $host for $request_uri.\\n";',
            } do
                assert.truthy(servers:find("\n        " .. line .. "\n", 1, true), servers)
            end
        end)

        it("does not publish what nginx refuses, by what the staged files say", function()
            must(step[1])
            local before = sandbox.listing(dir .. "/output/site")
            local why = refused(step[3])
            local version = live "site"
            assert.truthy(why:find('invalid port in "127.0.0.1:http-or-so"', 1, true), why)
            assert.falsy(why:find(version, 1, true), why)
            assert.equal(before, sandbox.listing(dir .. "/output/site"))

            edit("templates/upstreams.conf.tmpl", function(text)
                return text:gsub("server ", "sever ")
            end)
            refused(base)
            edit("templates/upstreams.conf.tmpl", function(text)
                return text:gsub("sever ", "server {{ data.site.none }} ")
            end)
            local status, _, stderr = run(base)
            assert.equal(1, status)
            assert.truthy(stderr:find(
                "templates/upstreams.conf.tmpl:4: undefined: data.site.none", 1, true), stderr)
            assert.equal(before, sandbox.listing(dir .. "/output/site"))

            assert.equal(HELLO, page())
            edit("templates/upstreams.conf.tmpl", function(text)
                return text:gsub("server {{[^}]*}} ", "server ")
            end)
            must(base)
            is_reloaded(1, WELCOME)
        end)

        it("reloads at each version that another process publishes", function()
            must(step[1])
            local follower = start(step[4], "")
            assert.truthy(sandbox.eventually(function() return polls_inotify(follower.pid) end))
            local without_reload = base:gsub("\\\n%s*%-%-signal.*$", "\n")
            assert.truthy(must(without_reload):find("1 updated", 1, true))
            is_reloaded(1, WELCOME)
            follower:kill "TERM"
            local status, _, stderr = follower:wait()
            assert.equal(0, status, stderr)
        end)
    end)

    describe("systemd", function()
        local has_systemd = sandbox.has "systemd-analyze"
        local step

        before_each(function()
            take("systemd", {
                ["/etc/"] = dir .. "/root/etc/", ["/var/lib/"] = dir .. "/root/var/",
            })
            adapt "project.lua"
            step = steps()
            if not has_systemd then
                sandbox.write_file(dir .. "/bin/systemd-analyze", "#!/bin/sh\n", "0755")
            end
        end)

        it("renders a unit and its drop-in, and leaves to systemd what is systemd's", function()
            local unit = "# " .. dir .. [[
/output/units/worker@.service: made by atomicwriter, edit its templates instead.
# %i is the name of the queue; systemd fills that in, and ${BROKER}, too.
[Unit]
Description=Worker of queue %i
After=network.target

[Service]
DynamicUser=yes
Environment="BROKER=amqp://127.0.0.1"
Environment="GREETING=100 %% \"ready\""
RuntimeDirectory=worker-%i
ExecStart=/bin/sh /opt/worker/run --queue=%i --broker=${BROKER} --state=${RUNTIME_DIRECTORY}
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure

[Install]
WantedBy=multi-user.target
]]
            local limits = "[Service]\nMemoryMax=200M\nTasksMax=16\n"
            local stdout = must(step[1])
            assert.equal(unit .. limits, stdout:match("0 unchanged%)\n(.*)$"))
            assert.equal(unit, read "units/worker@.service")
            assert.equal(limits, read "units/worker@.service.d/limits.conf")
        end)

        it("publishes no unit that systemd refuses or warns of", function()
            if not has_systemd then return pending "needs systemd-analyze" end
            must(step[1])
            local version = live "units"
            for old, new in pairs {
                ["run: /bin/sh"] = "run: /no/such/program", ["memory: 200M"] = "memory: plenty",
            } do
                local text = sandbox.read_file(place .. "/workers.yaml")
                edit("workers.yaml", function(yaml)
                    return sandbox.substitute(yaml, { [old] = new })
                end)
                refused "atomicwriter run project.lua"
                sandbox.write_file(place .. "/workers.yaml", text)
            end
            edit("worker@.service.tmpl", function(unit)
                return unit:gsub("Restart=", "Restrat=")
            end)
            local why = refused "atomicwriter run project.lua"
            assert.truthy(why:find("Restrat", 1, true), why)
            assert.equal(version, live "units")
        end)

        -- The unit is not started by systemd here: its commands are run as systemd would.
        describe("as a service", function()
            local root, service

            before_each(function()
                root = dir .. "/root"
                sandbox.must { "mkdir", "-p", root .. "/etc/systemd/system", root .. "/var" }
                sandbox.write_file(dir .. "/bin/systemctl",
                    "#!/bin/sh\necho \"$@\" >>" .. root .. "/systemctl\n", "0755")
                must(step[2])
                service = sandbox.read_file(root .. "/etc/systemd/system/atomicwriter@.service")
            end)

            local function command_of(name)
                local settings = "set -a; . /etc/atomicwriter/workers/settings; set +a; "
                return "cd /etc/atomicwriter/workers; " .. settings .. "exec "
                    .. assert(service:match("\n" .. name .. "=([^\n]+)"))
            end

            local function systemctl() return sandbox.read_file(root .. "/systemctl") end

            it("projects before it has started, then whenever an input changes", function()
                local enabled = "daemon-reload\nenable --now atomicwriter@workers\n"
                assert.equal(enabled, systemctl())
                must(command_of "ExecStartPre")
                assert.equal(enabled .. "daemon-reload\n", systemctl())

                local link = root .. "/etc/systemd/system/worker@.service"
                assert.truthy(sandbox.read_file(link):find("queue %i\n", 1, true))
                local drop_in = link .. ".d/limits.conf"
                assert.truthy(sandbox.read_file(drop_in):find("TasksMax=16\n", 1, true))

                local child = start(command_of "ExecStart", "watching")
                place = root .. "/etc/atomicwriter/workers"
                edit("workers.yaml", function(text) return text:gsub("tasks: 16", "tasks: 32") end)
                assert.truthy(sandbox.eventually(function()
                    return systemctl() == enabled .. ("daemon-reload\n"):rep(2)
                end), systemctl())
                assert.truthy(sandbox.read_file(drop_in):find("TasksMax=32\n", 1, true))
                child:kill "TERM"
                local status, _, stderr = child:wait()
                assert.equal(0, status, stderr)
            end)

            it("is a unit that systemd accepts, and finds the ones that it projects", function()
                if not has_systemd then return pending "needs systemd-analyze" end
                must(command_of "ExecStartPre")
                must("systemd-analyze verify --man=no /etc/systemd/system/atomicwriter@.service "
                    .. "/etc/systemd/system/worker@.service")
                local found = must(
                    "SYSTEMD_UNIT_PATH=/etc/systemd/system systemd-analyze unit-files")
                assert.truthy(found:find("ids: worker@.service ", 1, true), found)
            end)
        end)
    end)

    describe("tls", function()
        local step

        before_each(function()
            if not sandbox.has "openssl" then pending "needs openssl" end
            take "tls"
            adapt "project.lua"
            step = steps()
        end)

        -- Whether the pair in DIRECTORY is a pair, by means other than those of the example.
        local function is_pair(directory)
            local crt, key = read(directory .. "/tls.crt"), read(directory .. "/tls.key")
            return must("openssl x509 -noout -modulus <<'E'\n" .. crt .. "E\n")
                == must("openssl rsa -noout -modulus <<'E'\n" .. key .. "E\n")
        end

        it("publishes a pair, its key for the owner alone, by write as by run", function()
            must(step[1])
            local stdout = must(step[2])
            assert.truthy(stdout:find("2 added", 1, true), stdout)
            assert.equal("0600", sandbox.mode(dir .. "/output/live/tls.key"))
            assert.equal("0644", sandbox.mode(dir .. "/output/live/tls.crt"))
            assert.is_true(is_pair "live")
            assert.truthy(must("atomicwriter run project.lua"):find(": unchanged, ", 1, true))
        end)

        it("refuses half of a renewal, and publishes the new pair at once", function()
            must(step[1])
            must(step[2])
            local version = live "live"
            local crt, key = read "live/tls.crt", read "live/tls.key"
            for _, script in ipairs { step[3], step[2] } do
                local why = refused(script)
                assert.truthy(why:find("tls.key is not the key of tls.crt", 1, true), why)
                assert.falsy(why:find("PRIVATE", 1, true))
            end
            assert.equal(version, live "live")
            assert.equal(crt .. key, read "live/tls.crt" .. read "live/tls.key")

            assert.truthy(must(step[4]):find("2 updated", 1, true))
            assert.are_not.equal(crt, read "live/tls.crt")
            assert.are_not.equal(key, read "live/tls.key")
            assert.is_true(is_pair "live")
            assert.equal("0600", sandbox.mode(dir .. "/output/live/tls.key"))
        end)

        it("refuses an expired certificate, one that soon will be, and what is none", function()
            must(step[1])
            must(step[2])
            local version = live "live"
            must [[cd /tmp/atomicwriter-tls/incoming; cp tls.crt good.crt
                openssl req -new -key tls.key -subj /CN=localhost -out csr
                openssl x509 -req -in csr -signkey tls.key -days -1 -out tls.crt 2>/dev/null]]
            for _, script in ipairs { step[2], "atomicwriter run project.lua" } do
                local why = refused(script)
                assert.truthy(why:find("tls.crt expires too soon: notAfter=", 1, true), why)
            end
            must "cd /tmp/atomicwriter-tls/incoming; cp good.crt tls.crt; echo >>tls.crt"
            refused("MARGIN=8640000 " .. "atomicwriter run project.lua") -- 100 days
            must "echo rubbish >/tmp/atomicwriter-tls/incoming/tls.crt"
            local why = refused "atomicwriter run project.lua"
            assert.truthy(why:find("tls.crt is no certificate", 1, true), why)
            must "cd /tmp/atomicwriter-tls/incoming; cp good.crt tls.crt; echo rubbish >tls.key"
            why = refused "atomicwriter run project.lua"
            assert.truthy(why:find("tls.key is no key", 1, true), why)
            assert.equal(version, live "live")
        end)

        it("publishes each renewal by itself, and waits for its second half", function()
            must(step[1])
            must(step[2])
            local child = start("export RELOAD='echo reloaded >>/tmp/atomicwriter-tls/log'\n"
                .. step[5], "watching")
            local version = live "live"
            must(step[3]:match("^[^\n]+"))
            assert.truthy(sandbox.eventually(function()
                return sandbox.read_file(child.dir .. "/err"):find("the check refused", 1, true)
            end))
            assert.equal(version, live "live")
            must(step[4]:gsub("atomicwriter run.*$", ""))
            assert.truthy(sandbox.eventually(function()
                return live "live" ~= version and read "log"
            end))
            assert.is_true(is_pair "live")
            child:kill "TERM"
            assert.equal(0, (child:wait()))
            assert.equal("reloaded\n", read "log")
        end)
    end)

    describe("dotenv", function()
        local step

        before_each(function()
            take "dotenv"
            step = steps()
        end)

        -- What ./start makes of NAME, byte for byte.
        local function value_of(name)
            return must("./start /tmp/atomicwriter-dotenv/app sh -c 'printf %s \"$" .. name
                .. "\"'")
        end

        it("hands settings on to a program as they were given", function()
            must(step[1])
            assert.equal("Anna's shop on 127.0.0.1:8080: Good morning,\n\"world\"\n", must(step[2]))
            assert.equal("it's $ecret", value_of "DATABASE_PASSWORD")
            assert.equal("on", must(step[3]))
        end)

        it("quotes whatever a value holds", function()
            local hostile = "$HOME `id` \\\\ \"x\" 'y' *\n\n#$(id)\t!; \\n &\195\164\n"
            must("export APP_LISTEN=" .. sandbox.quote(hostile) .. "\n" .. step[1])
            assert.equal(hostile, value_of "LISTEN")
        end)

        it("takes the environment before --set, and --set before the file", function()
            must("unset APP_GREETING APP_DATABASE_PASSWORD APP_NAME\n"
                .. step[1]:gsub("export APP_GREETING='.-'\n", ""))
            assert.equal("It's \"open\", for $0 a day", value_of "GREETING")
            assert.equal("Anna's shop", value_of "NAME")
            must("export APP_NAME=Other\n" .. step[1])
            assert.equal("Other", value_of "NAME")
        end)

        it("keeps what is secret from others, and out of what it says", function()
            local stdout = must("umask 0; " .. step[1])
            assert.falsy(stdout:find("ecret", 1, true))
            for _, name in ipairs { "app.env", "FEATURE_CART", "FEATURE_SEARCH" } do
                assert.equal("0600", sandbox.mode(dir .. "/output/app/" .. name))
            end
        end)

        it("starts a program again at each new version", function()
            must(step[1])
            local child = start(step[4], "")
            local function printed(text)
                assert.truthy(sandbox.eventually(function()
                    return sandbox.read_file(child.dir .. "/out") == text
                end), sandbox.read_file(child.dir .. "/out"))
            end
            printed "Anna's shop is open\n"
            must("export APP_NAME=Other\n" .. step[1])
            printed "Anna's shop is open\nOther is open\n"
            child:kill "TERM"
            child:wait()
        end)
    end)

    it("have READMEs whose commands are all run here", function()
        for name, count in pairs { nginx = 5, systemd = 2, tls = 5, dotenv = 4 } do
            take(name)
            assert.equal(count, #steps(), name)
        end
    end)
end)
