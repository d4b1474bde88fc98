-- On a terminal: the progress line, and ^C in the middle of a write. The terminal is a pseudo one
-- made by script(1), what is typed comes through its standard input.

local command = require "spec.support.command"
local sandbox = require "spec.support.sandbox"

-- Slow down the setting of each file's mode, so that a write can be looked at. With this umask
-- none arrives by itself.
local SLOW = { "sh", "-c", 'umask 077; exec "$0" "$@"', "strace", "-f", "-qq", "-I4",
    "-o", "/dev/null", "-e", "trace=write,fchmod", "-e", "inject=fchmod:delay_enter=50ms" }

describe("atomicwriter on a terminal", function()
    local dir, target

    before_each(function()
        dir = sandbox.tmpdir()
        target = dir .. "/app"
    end)
    after_each(sandbox.cleanup)

    local function words_of(...)
        local words = {}
        for _, list in ipairs { ... } do
            for _, word in ipairs(list) do words[#words + 1] = word end
        end
        return words
    end

    -- Run WORDS on a terminal of their own. Once CONDITION, a shell command, succeeds, what the
    -- command TYPING prints is typed, ^C by default. What the terminal showed, and the exit status.
    local function on_terminal(words, condition, typing)
        local keyboard = dir .. "/keyboard"
        local status, out = sandbox.run(([[
            mkfifo %s
            script -qec %s /dev/null <%s &
            exec 3>%s
            if test -n %s; then
                for i in $(seq 3000); do if %s; then break; fi; sleep 0.01; done
                { %s; } >&3
            fi
            wait $!
        ]]):format(keyboard, sandbox.quote(sandbox.sh(words)), keyboard, keyboard,
            sandbox.quote(condition or ""), condition or "false", typing or "printf '\\003'"))
        os.remove(keyboard)
        return out, status
    end

    -- A shell command that succeeds while a new version is being made in TARGET.
    local function is_writing()
        return ("ls -A %s 2>/dev/null | grep -q '^\\.\\.2'"):format(sandbox.quote(target))
    end

    local function many_files(count)
        local source = dir .. "/source"
        sandbox.mkdir(source)
        for i = 1, count do sandbox.write_file(("%s/file%03d"):format(source, i), "data " .. i) end
        return source
    end

    local function write_words(source, ...)
        return command.words("write", target, "--create", "--from-file", source, ...)
    end

    it("shows how far a write is that takes longer than a second, and takes it away", function()
        if not sandbox.has "strace" then pending("needs strace") end
        local out, status = on_terminal(words_of(SLOW, write_words(many_files(40))))
        assert.equal(0, status)
        assert.truthy(out:find("writing, %d+ of 40 files, %d+%.%d MiB") or
            out:find("syncing, %d+ of 40 files, %d+%.%d MiB"), out)
        -- The line is cleared before the result comes.
        assert.truthy(out:find("MiB\r\27[K+ file001", 1, true), out)
    end)

    it("shows nothing of it in a pipe, nor for a write that is quick", function()
        if not sandbox.has "strace" then pending("needs strace") end
        local source = many_files(40)
        local status, out, err = sandbox.run(words_of(SLOW, write_words(source)))
        assert.equal(0, status)
        assert.equal("", err)
        assert.falsy(out:find("\r", 1, true))
        out, status = on_terminal(write_words(source, "--from-literal", "more=1"))
        assert.equal(0, status)
        assert.falsy(out:find("MiB", 1, true))
    end)

    it("says that it waits for another writer", function()
        sandbox.must(command.words("write", target, "--create", "--from-literal", "a=1"))
        local holder = sandbox.spawn { "flock", target .. "/..lock", "sleep", "60" }
        sandbox.eventually(function()
            return sandbox.run { "flock", "-n", target .. "/..lock", "true" } ~= 0
        end)
        local out, status = on_terminal(command.words("write", target, "--from-literal", "a=2",
            "--lock-timeout", "2s"))
        assert.equal(1, status)
        assert.truthy(out:find("waiting for another writer", 1, true), out)
        holder:kill()
    end)

    for _, case in ipairs {
        { "of a first write", function() end },
        { "of a change", function()
            sandbox.must(command.words("write", target, "--create", "--from-literal", "old=1"))
            sandbox.must { "sh", "-c", "mv " .. target .. "/..2* " .. dir .. "/v" }
            -- A name that does not begin like the version to come, so that one can be waited for.
            sandbox.must { "sh", "-c", "cd " .. target .. " && mv " .. dir .. "/v "
                .. "..1999_01_01_00_00_00.1 && ln -sfn ..1999_01_01_00_00_00.1 ..data" }
        end },
    } do
        it("^C in the middle " .. case[1] .. " publishes nothing and leaves nothing", function()
            if not sandbox.has "strace" then pending("needs strace") end
            case[2]()
            local before = sandbox.readlink(target .. "/..data")
            local out, status = on_terminal(words_of(SLOW, write_words(many_files(40))),
                is_writing())
            assert.truthy(out:find("interrupted; nothing was published", 1, true), out)
            assert.equal(130, status)
            assert.equal(before, sandbox.readlink(target .. "/..data"))
            local left = sandbox.kind(target) and sandbox.names(target) or {}
            local expected = before and { "..1999_01_01_00_00_00.1", "..data", "..lock", "old" }
                or { "..lock" }
            if #left > 0 or before then assert.same(expected, left) end
        end)
    end

    for _, signal in ipairs { "TERM", "HUP", "INT" } do
        it("SIG" .. signal .. " in the middle of a plain write leaves nothing either", function()
            if not sandbox.has "strace" then pending("needs strace") end
            local words = write_words(many_files(40))
            -- strace would end by the signal, so it goes to the command alone.
            local script = "echo $$ >" .. dir .. "/pid; exec " .. sandbox.sh(words)
            local child = sandbox.spawn(words_of(SLOW, { "sh", "-c", script }))
            assert.truthy(sandbox.eventually(function()
                return sandbox.run(is_writing()) == 0
            end))
            local pid = sandbox.read_file(dir .. "/pid"):match("%d+")
            sandbox.must { "kill", "-" .. signal, pid }
            local status, _, err = child:wait()
            assert.truthy(err:find("interrupted; nothing was published", 1, true), err)
            assert.equal(({ TERM = 143, HUP = 129, INT = 130 })[signal], status)
            assert.is_nil(sandbox.readlink(target .. "/..data"))
            if sandbox.kind(target) then assert.same({ "..lock" }, sandbox.names(target)) end
        end)
    end

    it("^C ends a check, and nothing is published", function()
        local begun = dir .. "/begun"
        local out, status = on_terminal(command.words("write", target, "--create",
            "--from-literal", "a=1", "--check", "touch " .. begun .. "; exec sleep 50"),
            "test -e " .. begun)
        assert.truthy(out:find("interrupted; nothing was published", 1, true), out)
        assert.equal(130, status)
        assert.falsy(sandbox.resolves(target .. "/a"))
    end)

    it("^C lets a reload end, and the version stays", function()
        local begun, ended = dir .. "/begun", dir .. "/ended"
        local _, status = on_terminal(command.words("write", target, "--create",
            "--from-literal", "a=1",
            "--reload", "touch " .. begun .. "; sleep 0.5; touch " .. ended),
            "test -e " .. begun)
        assert.equal(0, status)
        assert.equal("file", sandbox.kind(ended))
        assert.truthy(sandbox.resolves(target .. "/a"))
    end)

    it("a second ^C ends a reload that hangs", function()
        local begun = dir .. "/begun"
        local out, status = on_terminal(command.words("write", target, "--create",
            "--from-literal", "a=1", "--reload", "touch " .. begun .. "; exec sleep 50"),
            "test -e " .. begun, "printf '\\003'; sleep 0.5; printf '\\003'")
        assert.equal(4, status)
        assert.truthy(out:find("the reload failed", 1, true), out)
        assert.truthy(sandbox.resolves(target .. "/a"))
    end)
end)
