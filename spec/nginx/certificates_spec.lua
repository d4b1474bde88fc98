-- Certificate and key from one version: the example nginx-tls, rotated while clients shake hands.

local atomicwriter = require "atomicwriter"
local lfs = require "lfs"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local why_not = nginx.missing() or not sandbox.has "openssl" and "there is no openssl"
    or not sandbox.has "wrk" and "there is no wrk"
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

local PAIRS = 20
local ROTATIONS = 200

describe("the example nginx-tls", function()
    local dir, target, writer, port

    -- A pair, and its certificate's subject.
    local function make_pair(name)
        sandbox.must { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=" .. name,
            "-addext", "subjectAltName=DNS:localhost", "-keyout", dir .. "/" .. name .. ".key",
            "-out", dir .. "/" .. name .. ".crt" }
        return {
            ["tls.crt"] = sandbox.read_file(dir .. "/" .. name .. ".crt"),
            ["tls.key"] = { data = sandbox.read_file(dir .. "/" .. name .. ".key"), mode = "0600" },
        }
    end

    local function start()
        local conf = sandbox.read_file "examples/nginx-tls/nginx.conf"
        port = sandbox.free_ports(1)[1]
        conf = sandbox.substitute(conf,
            { ["8443"] = port, ["/tmp/atomicwriter-nginx-tls"] = dir })
        if sandbox.is_root() then conf = "user root;\n" .. conf end
        sandbox.write_file(dir .. "/nginx.conf", "daemon off;\n" .. conf)
        local path, cpath = nginx.lua_path()
        local server = sandbox.spawn { "env",
            "LUA_PATH=" .. lfs.currentdir() .. "/examples/nginx-tls/?.lua;" .. path,
            "LUA_CPATH=" .. cpath, "nginx", "-p", dir .. "/", "-c", dir .. "/nginx.conf",
            "-e", "error.log" }
        return server
    end

    local function log()
        return sandbox.read_file(dir .. "/error.log") or ""
    end

    -- The subject that a handshake ends with, which proves that the server has its key; the
    -- client trusts only our certificates.
    local function handshake()
        local status, out, err = sandbox.run { "curl", "-sv", "-m", "30", "--cacert",
            dir .. "/all.crt", "https://localhost:" .. port .. "/",
            "--resolve", "localhost:" .. port .. ":127.0.0.1" }
        return status == 0 and err:match "subject: CN=(%w+)", out .. err
    end

    before_each(function()
        if why_not then return end
        dir = sandbox.tmpdir()
        target = dir .. "/live"
        writer = assert(atomicwriter.new(target, { create = true, durability = "none" }))
        make_pair "placeholder"
    end)
    after_each(function()
        if writer then writer:close() end
        sandbox.cleanup()
    end)

    maybe("G1: fails no handshake and mixes no pair in 200 rotations under load", function()
        local made, all = {}, {}
        for i = 1, PAIRS do
            made[i] = make_pair("pair" .. i)
            all[i] = made[i]["tls.crt"]
        end
        sandbox.write_file(dir .. "/all.crt", table.concat(all))
        assert(writer:write(made[1]))
        local server = start()
        assert.truthy(sandbox.eventually(handshake), log())

        -- As many handshakes as there is time for: each request on a connection of its own.
        local load = sandbox.spawn { "wrk", "-t1", "-c4", "-d60s", "-H", "Connection: close",
            "https://127.0.0.1:" .. port .. "/" }
        local seen, distinct, last = 0, 0, {}
        for i = 1, ROTATIONS do
            assert(writer:write(made[i % PAIRS + 1]))
            if i % 4 == 0 then
                local subject, why = handshake()
                assert.truthy(subject, why)
                seen = seen + 1
                if not last[subject] then distinct = distinct + 1 end
                last[subject] = true
            else
                sandbox.sleep(0.025) -- longer than a worker takes to notice
            end
        end
        load:kill "INT"
        local _, report = load:wait()
        assert.falsy(report:find "Socket errors", report)
        assert.falsy(report:find "Non%-2xx", report)
        local handshakes = tonumber(report:match "(%d+) requests in")
        assert.truthy(handshakes > ROTATIONS, report)
        assert.falsy(log():find("SSL_do_handshake", 1, true), log())
        assert.falsy(log():find("[error]", 1, true), log())
        assert.truthy(distinct >= PAIRS / 4)
        -- Both workers end with the last pair.
        assert.truthy(sandbox.eventually(function()
            for _ = 1, 8 do
                if handshake() ~= "pair" .. (ROTATIONS % PAIRS + 1) then return false end
            end
            return true
        end))
        print(("# nginx: %d rotations, %d handshakes, %d of them checked one by one, "
            .. "0 failed, 0 mixed"):format(ROTATIONS, handshakes + seen, seen))
        server:kill "QUIT"
        assert.equal(0, (server:wait(30)))
    end)

    maybe("keeps the last pair when half of a renewal is published", function()
        local first, second = make_pair "first", make_pair "second"
        sandbox.write_file(dir .. "/all.crt", first["tls.crt"] .. second["tls.crt"])
        assert(writer:write(first))
        start()
        assert.truthy(sandbox.eventually(handshake), log())
        assert(writer:write { ["tls.crt"] = second["tls.crt"], ["tls.key"] = first["tls.key"] })
        assert.truthy(sandbox.eventually(function()
            return select(2, log():gsub("tls.key is not the key of tls.crt", "")) == 2
        end), log())
        assert.equal("first", (handshake()))
        assert(writer:write(second))
        assert.truthy(sandbox.eventually(function()
            for _ = 1, 8 do
                if handshake() ~= "second" then return false end
            end
            return true
        end))
    end)
end)
