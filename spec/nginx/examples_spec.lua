-- The examples for nginx do what their READMEs say: the commands are taken from there and run, in a
-- copy, with other directories and ports. And the gateway's demonstration.

local command = require "spec.support.command"
local lfs = require "lfs"
local nginx = require "spec.nginx.server"
local sandbox = require "spec.support.sandbox"

local why_not = nginx.missing() or not sandbox.has "wrk" and "there is no wrk"
local maybe = why_not and function(name) pending(name .. ": " .. why_not) end or it

describe("in the examples for nginx,", function()
    local dir

    before_each(function()
        dir = sandbox.tmpdir()
        sandbox.mkdir(dir .. "/bin")
        sandbox.write_file(dir .. "/bin/atomicwriter",
            "#!/bin/sh\nunset LUA_PATH LUA_CPATH\nexec " .. sandbox.sh(command.words())
            .. ' "$@"\n', "0755")
    end)
    after_each(function()
        local pid = sandbox.read_file(dir .. "/output/nginx.pid")
        if pid then
            pid = pid:match "%d+"
            sandbox.run { "kill", "-QUIT", pid }
            sandbox.eventually(function() return not sandbox.lives(pid) end)
        end
        sandbox.cleanup()
    end)

    -- Run all blocks of the README of example NAME but the first, which is for the top of the
    -- checkout, as one script: what each printed.
    local function follow(name, ports)
        local replacements = { ["/tmp/atomicwriter-" .. name] = dir .. "/output" }
        for old, new in pairs(ports) do replacements[old] = new end
        local place = dir .. "/" .. name
        sandbox.must { "cp", "-r", "examples/" .. name, place }
        local conf = sandbox.substitute(sandbox.read_file(place .. "/nginx.conf"), replacements)
        if sandbox.is_root() then conf = "user root;\n" .. conf end
        sandbox.write_file(place .. "/nginx.conf", conf)
        local blocks = {}
        for block in sandbox.read_file(place .. "/README.md"):gmatch "```sh\n(.-)```" do
            blocks[#blocks + 1] = sandbox.substitute(block, replacements)
                .. "\necho; echo '====='\n"
        end
        table.remove(blocks, 1)
        local path, cpath = nginx.lua_path()
        local status, stdout, stderr = sandbox.run { "env", "-C", place, "LUA_PATH=" .. path,
            "LUA_CPATH=" .. cpath, "PATH=" .. dir .. "/bin:" .. os.getenv "PATH",
            "sh", "-ec", table.concat(blocks) }
        assert.equal("0", status .. (status == 0 and "" or ": " .. stderr .. stdout))
        local printed = {}
        for text in stdout:gmatch "(.-)\n=====\n" do printed[#printed + 1] = text end
        return printed
    end

    maybe("the gateway can be built, fed, looked at and rolled back by hand", function()
        local ports = sandbox.free_ports(3)
        local printed = follow("nginx-gateway",
            { ["8080"] = ports[1], ["8081"] = ports[2], ["8082"] = ports[3] })
        local answers = printed[2]
        assert.truthy(answers:find "^HTTP/1.1 503", answers)
        assert.truthy(answers:find '"workers":2', answers)
        assert.truthy(answers:find "HTTP/1.1 200 OK.*X%-Routes: 1.*X%-Flags: 1.*blue\ngreen\n",
            answers)
        assert.truthy(answers:find '"acknowledged":2', answers)
        assert.truthy(printed[3]:find "\ngreen\n", printed[3])
        assert.truthy(printed[3]:find "^target", printed[3])
    end)

    maybe("TLS serves the first pair, then the second", function()
        local printed = follow("nginx-tls", { ["8443"] = sandbox.free_ports(1)[1] })
        local first = printed[1]:match "\n(%.%.%d[^\n]+)\n"
        local second = printed[2]:match "\n(%.%.%d[^\n]+)\n"
        assert.truthy(first, printed[1])
        assert.truthy(second, printed[2])
        assert.are_not.equal(first, second)
        assert.equal(second, sandbox.readlink(dir .. "/output/live/..data"))
    end)

    maybe("G1: the demonstration's clients see whole sets and no failure", function()
        local path, cpath = nginx.lua_path()
        local status, stdout, stderr = sandbox.run { "env",
            "LUA_PATH=" .. lfs.currentdir() .. "/examples/nginx-gateway/?.lua;" .. path,
            "LUA_CPATH=" .. cpath, "PATH=" .. dir .. "/bin:" .. os.getenv "PATH",
            "lua5.4", "examples/nginx-gateway/demo.lua", "3" }
        assert.equal("0", status .. (status == 0 and "" or ": " .. stderr .. stdout))
        assert.truthy(stdout:find "PUT with a wrong token +401 token\n", stdout)
        assert.truthy(stdout:find "PUT of a broken route +422 refused: route 1", stdout)
        assert.truthy(stdout:find "PUT of halves of two sets +422 refused: .*different revisions",
            stdout)
        local sets = tonumber(stdout:match "(%d+) sets published")
        assert.truthy(sets >= 5, stdout)
        assert.truthy(stdout:find " 0 failed, 0 mixed\n", stdout)
        print("# nginx: gateway: " .. sets .. " sets, " .. stdout:match "(%d+ answers[^\n]*)")
    end)
end)
