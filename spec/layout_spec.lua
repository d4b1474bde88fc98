--- The layout on disk and the consumers' view of it.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local strace = require "spec.support.strace"
local volume = require "spec.support.volume"

describe("G10: the layout", function()
    local dir, target, writer

    before_each(function()
        dir = sandbox.memdir()
        target = dir .. "/target"
        sandbox.mkdir(target)
        writer = assert(atomicwriter.new(target, { durability = "none" }))
    end)
    after_each(function()
        writer:close()
        sandbox.cleanup()
    end)

    local function shows(payload, keep)
        local result = assert(writer:write(payload))
        assert(volume.shows(target, payload, keep))
        return result
    end

    ---- names -----------------------------------------------------------------

    it("has ..data, one version directory, visible links and ..lock, nothing else", function()
        local result = shows { podName = "web-1", ["user/labels"] = 'app="web"' }
        local expected = { "..data", "..lock", result.version, "podName", "user" }
        table.sort(expected)
        assert.same(expected, sandbox.names(target))
        assert.equal(result.version, sandbox.readlink(target .. "/..data"))
        assert.equal("..data/podName", sandbox.readlink(target .. "/podName"))
        assert.equal("..data/user", sandbox.readlink(target .. "/user"))
        local version = target .. "/" .. result.version
        assert.equal("directory", sandbox.kind(version))
        assert.equal("file", sandbox.kind(version .. "/podName"))
        assert.equal("directory", sandbox.kind(version .. "/user"))
        assert.equal("file", sandbox.kind(version .. "/user/labels"))
    end)

    it("names versions by the UTC time and digits", function()
        local before = os.time()
        local name = shows({ a = "1" }).version
        local after = os.time()
        assert.matches(volume.VERSION, name)
        local stamp = name:match("^%.%.(.*)%.%d+$")
        local possible = {}
        for second = before - 1, after do possible[os.date("!%Y_%m_%d_%H_%M_%S", second)] = true end
        assert.is_true(possible[stamp], stamp .. " is not now")
    end)

    it("keeps the time in UTC in every zone", function()
        local out = sandbox.must("TZ=XYZ-14 " .. sandbox.sh(sandbox.lua(dir, function(path)
            local w = assert(require("atomicwriter").new(path))
            local before = os.time()
            local name = assert(w:write { zone = "1" }).version
            local versions = assert(w:versions())
            assert(versions[1].name == name)
            local time = versions[1].time
            assert(time >= before - 1 and time <= os.time(), "time is not now")
            print(os.date("!%Y_%m_%d_%H_%M_%S", time) == name:match("^%.%.(.*)%.%d+$"))
        end, target)))
        assert.equal("true\n", out)
    end)

    it("gives every version a greater name than the one before", function()
        local last
        for i = 1, 100 do
            local name = assert(writer:write { a = tostring(i) }).version
            if last then assert.is_true(volume.older(last, name), last .. " then " .. name) end
            last = name
        end
    end)

    for _, future in ipairs { "..2099_12_31_23_59_59.5", "..2099_12_31_23_59_59.999999999",
        "..9998_01_01_00_00_00.4294967295" } do
        it("gives a greater name than " .. future .. ", when the clock has stepped back", function()
            sandbox.mkdir(target .. "/" .. future)
            sandbox.write_file(target .. "/" .. future .. "/a", "future")
            sandbox.symlink(future, target .. "/..data")
            sandbox.symlink("..data/a", target .. "/a")
            local first = assert(writer:write { a = "now" })
            assert.is_true(volume.older(future, first.version), first.version)
            assert.equal(future, first.previous)
            local second = assert(writer:write { a = "later" })
            assert.is_true(volume.older(first.version, second.version), second.version)
            assert(volume.shows(target, { a = "later" }))
        end)
    end

    it("has a ..lock of mode 0600 that is never unlinked", function()
        shows { a = "1" }
        assert.equal("file", sandbox.kind(target .. "/..lock"))
        assert.equal("0600", sandbox.mode(target .. "/..lock"))
        local inode = sandbox.inode(target .. "/..lock")
        shows { a = "2" }
        shows {}
        assert(writer:rollback())
        assert(writer:collect())
        assert.equal(inode, sandbox.inode(target .. "/..lock"))
        assert.equal("0600", sandbox.mode(target .. "/..lock"))
    end)

    it("never changes a version once it was live", function()
        local first = shows { a = "1", b = "same", ["c/d"] = "1", e = "gone" }
        -- a hard link from it counts one more name; all else must stay
        local function look()
            return (sandbox.listing(target .. "/" .. first.version):gsub("links=%d+", ""))
        end
        local before = look()
        shows { a = "2", b = "same", ["c/d"] = "1", ["c/f"] = "new" }
        assert.equal(before, look())
        shows { a = "2", b = "same" }
    end)

    ---- names and paths of payloads -------------------------------------------

    it("shows dotfiles, also those that begin with two dots below the top", function()
        shows { [".hidden"] = "1", [".dir/.file"] = "2", ["a/..b"] = "3", ["a/..data"] = "4",
            ["a/...."] = "5", [".x."] = "6" }
    end)

    it("shows nested paths through one link for their first component", function()
        shows { ["a/b/c/d/e/f/g"] = "deep", ["a/b/h"] = "less", ["a/i"] = "least", j = "top" }
        local visible = {}
        for _, name in ipairs(sandbox.names(target)) do
            if name:sub(1, 2) ~= ".." then visible[#visible + 1] = name end
        end
        assert.same({ "a", "j" }, visible)
    end)

    it("cleans a//b, ./a and a/ as path.Clean would", function()
        local result = assert(writer:write { ["a//b"] = "1", ["./c"] = "2", ["d/"] = "3",
            [".//e/./f//"] = "4", ["././g"] = "5", ["h/i/."] = "6" })
        assert.same({ "a/b", "c", "d", "e/f", "g", "h/i" }, result.added)
        local clean = { ["a/b"] = "1", c = "2", d = "3", ["e/f"] = "4", g = "5", ["h/i"] = "6" }
        assert(volume.shows(target, clean))
        assert.is_false(assert(writer:write(clean)).changed)
    end)

    it("shows names with spaces, newlines, leading dashes, quotes, globs and UTF-8", function()
        local payload = {
            [" leading and trailing "] = "1", ["new\nline"] = "2", ["-rf"] = "3", ["--"] = "4",
            ["it's \"quoted\""] = "5", ["*?[a]"] = "6", ["größe/日本語"] = "7", ["\\n"] = "8",
            ["tab\tand\27escape"] = "9", ["-d/-e f/\n"] = "10", ["$HOME"] = "11",
            ["\255\254 is no UTF-8"] = "12", ["~"] = "13", ["a -> b"] = "14", [".\n"] = "15",
        }
        shows(payload)
        payload["new\nline"], payload["-rf"] = nil, nil
        shows(payload)
    end)

    it("shows names of 255 bytes and paths as long as a consumer can open", function()
        local long = ("x"):rep(255)
        shows { [long] = "1", [long:gsub("x", "y") .. "/" .. long] = "2" }
        local opened, refused = 0, 0
        for length = 3900, 4096, 7 do
            local path = (("p"):rep(199) .. "/"):rep(30):sub(1, length - 1) .. "q"
            local result, err = writer:write { [path] = "deep" }
            if result then
                opened = opened + 1
                assert.equal(0, refused, "a longer path than a refused one")
                assert.equal("deep", sandbox.read_file(target .. "/" .. path))
                assert.equal("deep", sandbox.read_file(target .. "/..data/" .. path))
                assert.equal("deep", sandbox.read_file(
                    target .. "/" .. result.version .. "/" .. path))
                assert.equal("deep", assert(atomicwriter.open(target)):read(path))
            else
                refused = refused + 1
                assert.equal("invalid_payload", err.code)
                assert.equal(path, err.path)
            end
        end
        assert.is_true(opened > 0 and refused > 0)
    end)

    it("is deeper than descriptors reach, and prunes as deep", function()
        local deep = ("d/"):rep(300)
        for i = 1, 3 do
            local payload = { [deep .. "file"] = "deep " .. i, [deep:sub(1, 500) .. "f"] = "less",
                top = "top" }
            local result = assert(writer:write(payload))
            assert.same({}, result.warnings)
            assert.equal("deep " .. i, sandbox.read_file(target .. "/" .. deep .. "file"))
            assert.equal(math.min(i, 2), #volume.versions(target))
        end
        assert.same({}, assert(writer:write { top = "top" }).warnings)
        assert.equal(1, assert(writer:collect()))
        assert(volume.shows(target, { top = "top" }, 0))
    end)

    it("projects any bytes, an empty file and a file of some megabytes", function()
        local bytes = {}
        for i = 0, 255 do bytes[i + 1] = string.char(i) end
        shows { bytes = table.concat(bytes), empty = "", newline = "\n",
            big = ("0123456789abcdef"):rep(300000) }
    end)

    it("has a thousand files and as many directories", function()
        local payload = {}
        for i = 1, 1000 do payload["d" .. i .. "/f"] = "data " .. i end
        assert.equal(1000, #shows(payload).added)
        payload["d500/f"] = "changed"
        local result = shows(payload)
        assert.same({ "d500/f" }, result.updated)
        assert.equal(999, result.unchanged)
    end)

    ---- updates ---------------------------------------------------------------

    it("follows 40 updates in a row", function()
        for i = 1, 40 do
            local payload = { counter = tostring(i), steady = "steady" }
            payload["dir/even"] = tostring(i - i % 2)
            if i % 3 == 0 then payload["third/" .. i % 5] = "x" end
            if i % 4 == 0 then payload["dir/even"], payload["dir"] = nil, "a file" end
            if i % 7 == 0 then payload = { ["dir/even"] = "alone" } end
            local result = shows(payload)
            assert.is_true(result.changed)
            assert.equal(math.min(i, 2), #volume.versions(target))
        end
    end)

    it("follows a change of type between file and directory", function()
        shows { a = "file", ["b/c"] = "nested" }
        local link = sandbox.readlink(target .. "/a")
        local result = shows { ["a/x"] = "nested", b = "file" }
        assert.same({ "a/x", "b" }, result.added)
        assert.same({ "a", "b/c" }, result.removed)
        assert.equal(link, sandbox.readlink(target .. "/a"))
        shows { a = "file", ["b/c"] = "nested" }
        shows { ["a/x/y"] = "1", ["b/c/d"] = "2" }
        shows { ["a/x"] = "1", ["b/c"] = "2" }
    end)

    it("shows nothing after an empty payload, and everything again after the next", function()
        shows { a = "1", ["b/c"] = "2" }
        local result = shows {}
        assert.is_true(result.changed)
        assert.same({ "a", "b/c" }, result.removed)
        assert.same({}, volume.consume(target))
        assert.equal("directory", sandbox.kind(target .. "/" .. result.version))
        assert.is_false(shows({}).changed)
        shows { a = "1", ["b/c"] = "2" }
    end)

    it("publishes an empty payload on an empty target", function()
        local result = shows {}
        assert.is_true(result.changed)
        assert.matches(volume.VERSION, volume.live(target))
        assert.is_nil(result.previous)
    end)

    it("says what was added, updated, removed, unchanged, linked and written", function()
        local first = shows { same = "12345", update = "1", gone = "1", ["d/same"] = "1" }
        assert.same({ "d/same", "gone", "same", "update" }, first.added)
        assert.same({ {}, {} }, { first.updated, first.removed })
        assert.same({ 0, 0, 8 }, { first.unchanged, first.linked, first.bytes })
        assert.is_nil(first.previous)
        local second = shows { same = "12345", update = "22", ["d/same"] = "1", new = "333" }
        assert.same({ "new" }, second.added)
        assert.same({ "update" }, second.updated)
        assert.same({ "gone" }, second.removed)
        assert.same({ 2, 2, 5 }, { second.unchanged, second.linked, second.bytes })
        assert.equal(first.version, second.previous)
        local third = shows { same = "12345", update = "22", ["d/same"] = "1", new = "333" }
        assert.is_false(third.changed)
        assert.equal(second.version, third.version)
        assert.is_nil(third.previous)
        assert.same({ {}, {}, {} }, { third.added, third.updated, third.removed })
        assert.same({ 4, 0, 0 }, { third.unchanged, third.linked, third.bytes })
    end)

    it("hard-links what did not change, and only that", function()
        shows { same = "1", changed = "1", ["d/same"] = "1" }
        local function inode(path) return sandbox.inode(target .. "/..data/" .. path) end
        local same, changed, nested = inode "same", inode "changed", inode "d/same"
        shows { same = "1", changed = "2", ["d/same"] = "1" }
        assert.equal(same, inode "same")
        assert.equal(nested, inode "d/same")
        assert.not_equal(changed, inode "changed")
    end)

    it("hard-links nothing when reuse is off", function()
        writer:close()
        writer = assert(atomicwriter.new(target, { durability = "none", reuse = false }))
        shows { same = "1", changed = "1" }
        local inode = sandbox.inode(target .. "/..data/same")
        local result = shows { same = "1", changed = "2" }
        assert.not_equal(inode, sandbox.inode(target .. "/..data/same"))
        assert.same({ 1, 0 }, { result.unchanged, result.linked })
    end)

    it("leaves ..data, every inode and every time alone when nothing differs", function()
        -- but for the note in ..lock: it says so, once a tick of the kernel's clock has passed
        local function look()
            return (sandbox.listing(target):gsub('("%.%.lock" .- )mtime=%S+ %b""', "%1", 1))
        end
        shows { a = "1", ["b/c"] = "2" }
        local before = look()
        sandbox.sleep(0.05)
        assert.is_false(shows({ a = "1", ["b/c"] = "2" }).changed)
        assert.equal(before, look())
    end)

    it("is foretold by plan, which touches nothing", function()
        shows { same = "1", update = "1", gone = "1" }
        local payload = { same = "1", update = "22", ["new/x"] = "3" }
        local before = sandbox.listing(target)
        local plan = assert(writer:plan(payload))
        assert.equal(before, sandbox.listing(target))
        local previous = volume.live(target)
        local result = shows(payload)
        assert.is_nil(plan.version)
        assert.equal(previous, plan.previous)
        for _, field in ipairs { "changed", "added", "updated", "removed", "unchanged", "linked",
            "bytes" } do
            assert.same(result[field], plan[field], field)
        end
        plan = assert(writer:plan(payload))
        assert.is_false(plan.changed)
        assert.equal(result.version, plan.version)
    end)

    it("is planned on an empty target without making as much as a lock", function()
        local plan = assert(writer:plan { a = "1" })
        assert.is_true(plan.changed)
        assert.same({ "a" }, plan.added)
        assert.same({}, sandbox.names(target))
    end)

    ---- modes under a umask ---------------------------------------------------

    it("G8: has its modes under umask 077, and 0", function()
        for _, umask in ipairs { "077", "000", "0777", "0700" } do
            local path = dir .. "/under-" .. umask
            local words = sandbox.lua(dir, function(where)
                local w = assert(require("atomicwriter").new(where, { create = true }))
                assert(w:write { plain = "1", ["a/b/secret"] = { data = "2", mode = "0600" },
                    open = { data = "3", mode = 511 }, closed = { data = "4", mode = 0 } })
            end, path)
            sandbox.must("umask " .. umask .. "; exec " .. sandbox.sh(words))
            for name, mode in pairs { [""] = "0755", ["/..data"] = "0755", ["/a"] = "0755",
                ["/a/b"] = "0755", ["/plain"] = "0644", ["/a/b/secret"] = "0600",
                ["/open"] = "0777", ["/closed"] = "0000", ["/..lock"] = "0600" } do
                assert.equal(mode, sandbox.mode(path .. name), "mode of " .. name)
            end
        end
    end)

    ---- the moment of the swap ------------------------------------------------

    -- Killing the writer at its next call freezes what a watcher finds that wakes up
    -- at the IN_MOVED_TO of ..data.
    it("G10: resolves every name of the new version at the IN_MOVED_TO of ..data", function()
        local ok, reason = strace.available()
        if not ok then pending(reason) end
        for _, from in ipairs { "update", "first" } do
            local function fresh(name)
                if from == "update" then
                    return volume.prepare(dir, name, { durability = "none" })
                end
                sandbox.mkdir(dir .. "/" .. name)
                return dir .. "/" .. name
            end
            local traced, killed = fresh("traced-" .. from), fresh("killed-" .. from)
            local status, _, stderr, events =
                strace.record(dir, sandbox.lua(dir, volume.update, traced, "full"))
            assert.equal(0, status, stderr)
            events = strace.marked(events)
            local after
            for i, event in ipairs(events) do
                if event.call:match("^rename") and strace.name(event, 4) == "..data" then
                    after = events[i + 1]
                end
            end
            status = strace.inject(sandbox.lua(dir, volume.update, killed, "full"),
                after.call, "signal=SIGKILL", after.nth)
            assert.equal(137, status)
            assert.same(volume.after, volume.contents(killed, volume.live(killed)))
            for path, data in pairs(volume.after) do
                assert.equal(data, sandbox.read_file(killed .. "/" .. path))
            end
            assert.is_nil(sandbox.kind(killed .. "/..data_tmp"))
        end
    end)

    it("G10: swaps by one rename of ..data_tmp over ..data", function()
        local ok, reason = strace.available()
        if not ok then pending(reason) end
        volume.prepare(dir, "traced", { durability = "none" })
        local _, _, _, events = strace.record(dir,
            sandbox.lua(dir, volume.update, dir .. "/traced", "none"))
        local swaps = {}
        for _, event in ipairs(strace.marked(events)) do
            if event.text:find('"..data"', 1, true) and event.call ~= "readlinkat" then
                swaps[#swaps + 1] = event
            end
        end
        assert.equal(1, #swaps)
        assert.matches("^renameat", swaps[1].call)
        assert.equal("..data_tmp", strace.name(swaps[1], 2))
    end)
end)

describe("A reader that resolves ..data once", function()
    after_each(sandbox.cleanup)

    it("G1: sees exactly one version, complete, however often it is swapped", function()
        local dir = sandbox.memdir()
        local target = dir .. "/target"
        local function payload(n)
            local files = {}
            for i = 1, 30 do files["dir" .. i % 3 .. "/file" .. i] = "generation " .. n end
            return files
        end
        local writer = assert(atomicwriter.new(target,
            { durability = "none", create = true, keep = 2000 }))
        assert(writer:write(payload(0)))
        local reader = sandbox.spawn(sandbox.lua(dir, function(path)
            local lfs = require "lfs"
            local seen, reads = {}, 0
            repeat
                assert(lfs.chdir(path .. "/..data")) -- resolved once; its name is forgotten
                local generation
                for i = 1, 30 do
                    local name = "dir" .. i % 3 .. "/file" .. i
                    local file = assert(io.open(name, "rb"))
                    local data = file:read("*a")
                    file:close()
                    generation = generation or data
                    assert(data == generation, "torn: " .. data .. " and " .. generation)
                end
                seen[generation] = true
                reads = reads + 1
                io.open(path .. "/../started", "w"):close()
            until generation == "generation 1000"
            local n = 0
            for _ in pairs(seen) do n = n + 1 end
            print(n, reads)
        end, target))
        sandbox.eventually(function() return sandbox.kind(dir .. "/started") end)
        for n = 1, 1000 do assert(writer:write(payload(n))) end
        local status, stdout, stderr = reader:wait()
        assert.equal(0, status, stderr)
        assert.is_true(tonumber(stdout:match("^%d+")) > 1, "the reader saw no swap: " .. stdout)
    end)
end)
