--- What fails before the swap changes nothing, what fails after it is told as committed.

local atomicwriter = require "atomicwriter"
local sandbox = require "spec.support.sandbox"
local strace = require "spec.support.strace"
local volume = require "spec.support.volume"

local FAST = { durability = "none" }

local function need_strace()
    local ok, reason = strace.available()
    if not ok then pending(reason) end
end

describe("A write that fails before the swap", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    ---- the disk is full ------------------------------------------------------

    -- Run BODY(mount point) on a tmpfs of its own.
    local function on_tmpfs(options, body, ...)
        local mount = dir .. "/mount"
        sandbox.mkdir(mount)
        local status, _, stderr = sandbox.run(sandbox.with_mounts(
            "mount -t tmpfs -o mode=755," .. options .. ' none "$1"', mount,
            sandbox.lua(dir, body, mount, ...)))
        if status == 77 then
            pending("a tmpfs cannot be mounted here: " .. (stderr:match("[^\n]+") or ""))
        end
        assert.equal(0, status, stderr)
    end

    it("G2: leaves the target byte-identical on a full disk (ENOSPC), again and again", function()
        on_tmpfs("size=1m", function(mount)
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local target = vol.prepare(mount, "target")
            local before = box.listing(target)
            local writer = assert(require("atomicwriter").new(target))
            box.write_file(mount .. "/source", ("s"):rep(300000))
            local source = mount .. "/source"
            local many = { changed = "x", ["dir/kept"] = vol.before["dir/kept"] }
            for i = 1, 400 do many["many/" .. i] = ("m"):rep(4000) end
            local payloads = {
                { big = ("b"):rep(2000000) },
                { changed = "after", ["dir/big"] = ("b"):rep(900000), second = ("c"):rep(900000) },
                many,
                { a = { source = source }, b = { source = source }, c = { source = source } },
            }
            for _ = 1, 5 do
                for i, payload in ipairs(payloads) do
                    local result, err = writer:write(payload)
                    assert(result == nil, "there was room for payload " .. i)
                    assert(err.code == "io" and err.errno == 28, tostring(err))
                    assert(err.committed == false)
                    assert(box.listing(target) == before, "changed by payload " .. i)
                end
            end
            assert(writer:write(vol.after)) -- and the space is free again
            assert(vol.shows(target, vol.after))
        end)
    end)

    it("G2: leaves the target byte-identical when the space ends at any step", function()
        on_tmpfs("size=400k", function(mount)
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local target = vol.prepare(mount, "target")
            local before = box.listing(target)
            local writer = assert(require("atomicwriter").new(target, { keep = 0 }))
            local blocks = 0
            repeat -- fill the disk to the last page
                local file = assert(io.open(mount .. "/fill" .. blocks, "wb"))
                file:setvbuf("no")
                local done = file:write(("f"):rep(4096))
                file:close()
                blocks = blocks + 1
            until not done
            local failures = 0
            while true do
                local result, err = writer:write(vol.after)
                if result then break end
                assert(err.code == "io" and err.errno == 28 and not err.committed, tostring(err))
                assert(box.listing(target) == before, "changed with " .. failures .. " free")
                failures = failures + 1
                blocks = blocks - 1
                assert(os.remove(mount .. "/fill" .. blocks))
            end
            assert(failures >= 3, "only " .. failures .. " failures")
            assert(vol.shows(target, vol.after, 0))
        end)
    end)

    it("G2: leaves the target byte-identical when the inodes end at any step", function()
        on_tmpfs("nr_inodes=100", function(mount)
            local box = require "spec.support.sandbox"
            local vol = require "spec.support.volume"
            local target = vol.prepare(mount, "target")
            local before = box.listing(target)
            local writer = assert(require("atomicwriter").new(target))
            local files = 0
            while true do
                local file = io.open(mount .. "/fill" .. files, "wb")
                if not file then break end
                file:close()
                files = files + 1
            end
            local failures = 0
            while true do
                local result, err = writer:write(vol.after)
                if result then break end
                assert(err.code == "io" and err.errno == 28 and not err.committed, tostring(err))
                assert(box.listing(target) == before, "changed with " .. failures .. " free")
                failures = failures + 1
                files = files - 1
                assert(os.remove(mount .. "/fill" .. files))
            end
            -- the version, three directories, five files, two links, ..data_tmp
            assert(failures >= 12, "only " .. failures .. " failures")
            assert(vol.shows(target, vol.after))
        end)
    end)

    it("G2: leaves the target byte-identical above the quota (EDQUOT)", function()
        need_strace()
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "full"))
        local tried = 0
        for _, event in ipairs(strace.marked(events)) do
            if event.call == "write" or event.call == "mkdirat" or event.call == "symlinkat"
                or event.call == "openat" and event.arguments[3]:find("O_CREAT", 1, true) then
                tried = tried + 1
                local target = volume.prepare(dir, "quota" .. tried, FAST)
                local before = sandbox.listing(target)
                local status, stdout = strace.inject(
                    sandbox.lua(dir, volume.update, target, "full"),
                    event.call, "error=EDQUOT", event.nth)
                assert.equal(0, status)
                assert.matches("^io%s+false%s.*quota", stdout)
                assert.equal(before, sandbox.listing(target))
            end
        end
        assert.is_true(tried >= 15)
    end)

    ---- rights and limits -----------------------------------------------------

    -- The words that run WORDS without the power to override permissions.
    local function unprivileged(words)
        if not sandbox.is_root() then return words end
        if not sandbox.has "setpriv" then pending("there is no setpriv here") end
        return { "setpriv", "--bounding-set=-dac_override,-dac_read_search", "--",
            sandbox.unpack(words) }
    end

    it("G2: leaves the target byte-identical when it may not be written to (EACCES)", function()
        local target = volume.prepare(dir, "target", FAST)
        sandbox.chmod(target, "0555")
        local before = sandbox.listing(target)
        for _, operation in ipairs { "update", "rollback" } do
            local status, stdout, stderr = sandbox.run(unprivileged(
                sandbox.lua(dir, volume.update, target, "full", operation)))
            assert.equal(0, status, stderr)
            assert.matches("^io%s+false%s.*[Pp]ermission denied", stdout)
            assert.equal(before, sandbox.listing(target))
        end
        sandbox.chmod(target, "0755")
        assert.equal("ok", sandbox.must(unprivileged(
            sandbox.lua(dir, volume.update, target, "full"))):match("^%S+"))
    end)

    it("G2: leaves the target byte-identical when the lock is somebody else's (EACCES)", function()
        local target = volume.prepare(dir, "target", FAST)
        sandbox.chmod(target .. "/..lock", "0000")
        local before = sandbox.listing(target)
        local stdout = sandbox.must(unprivileged(sandbox.lua(dir, volume.update, target, "full")))
        assert.matches("^io%s+false%s.*%.%.lock", stdout)
        assert.equal(before, sandbox.listing(target))
    end)

    it("G2: leaves the target byte-identical when the live version cannot be read", function()
        local target = volume.prepare(dir, "target", FAST)
        sandbox.chmod(target .. "/..data/kept", "0000")
        sandbox.chmod(target .. "/..data/dir", "0000")
        local before = sandbox.listing(target .. "/..data/")
        local stdout = sandbox.must(unprivileged(sandbox.lua(dir, volume.update, target, "none")))
        if stdout:match("^io") then
            assert.matches("^io%s+false", stdout)
            assert.equal(before, sandbox.listing(target .. "/..data/"))
        else -- replacing what cannot be read is right, too
            assert.same(volume.after, volume.consume(target))
        end
    end)

    it("G2: leaves the target byte-identical when descriptors run out (EMFILE)", function()
        local failures, done = 0, false
        for limit = 4, 20 do
            local target = volume.prepare(dir, "limit" .. limit, FAST)
            local before = sandbox.listing(target)
            local status, stdout = sandbox.run("ulimit -n " .. limit .. "; "
                .. sandbox.sh(sandbox.lua(dir, function(path)
                    local vol = require "spec.support.volume"
                    local writer = assert(require("atomicwriter").new(path))
                    -- as deep as descriptors may not reach when it is to be removed again
                    vol.after["1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20/deep"] = "deep"
                    vol.after["1/2/3/4/5/6/7/8/9/10/else/deep"] = "deep"
                    vol.after["zz"] = { source = "/proc/self/status" } -- takes one more
                    local result, err = writer:write(vol.after)
                    print(result and "ok" or err.code, err and tostring(err.committed), err)
                end, target)))
            if status ~= 0 then -- too few to start at all
                assert.equal(before, sandbox.listing(target))
            elseif stdout:match("^ok") then
                assert.equal("deep", volume.consume(target)["1/2/3/4/5/6/7/8/9/10/else/deep"])
                assert.matches("VmHWM", volume.consume(target).zz)
                assert.is_nil(sandbox.kind(target .. "/removed"))
                done = true
            else
                assert.matches("^io%s+false%s.*open files", stdout)
                assert.equal(before, sandbox.listing(target))
                failures = failures + 1
            end
        end
        assert.is_true(done)
        assert.is_true(failures >= 2, "only " .. failures .. " failures")
    end)

    it("G2: leaves the target byte-identical when a check takes all descriptors", function()
        local target = volume.prepare(dir, "target", FAST)
        local before = sandbox.listing(target)
        sandbox.must("ulimit -n 40; " .. sandbox.sh(sandbox.lua(dir, function(path)
            local writer = assert(require("atomicwriter").new(path))
            local deep = ("d/"):rep(30) .. "file" -- deeper than what is left can reach
            local held = {}
            local result, err = writer:write({ [deep] = "1", ["a/" .. deep] = "2" }, {
                check = function()
                    repeat held[#held + 1] = io.open("/dev/null") until not io.open("/dev/null")
                    return false, "no"
                end,
            })
            assert(result == nil and err.code == "check_failed", tostring(err))
            assert(#held > 10)
        end, target)))
        assert.equal(before, sandbox.listing(target))
    end)

    ---- the check -------------------------------------------------------------

    local function refusing(check, pattern)
        local target = volume.prepare(dir, "target", FAST)
        local writer = assert(atomicwriter.new(target, FAST))
        local before = sandbox.listing(target)
        for _, payload in ipairs { volume.after, {}, { ["other/x"] = "y" } } do
            local asked = 0
            local result, err = writer:write(payload, { check = function(stage)
                asked = asked + 1
                return check(stage, target, payload)
            end })
            assert.is_nil(result)
            assert.equal(1, asked)
            assert.equal("check_failed", err.code)
            assert.is_false(err.committed)
            if pattern then assert.matches(pattern, err.message) end
            assert.equal(before, sandbox.listing(target))
        end
        assert(writer:write(volume.after, { check = function() return true end }))
        assert(volume.shows(target, volume.after))
    end

    it("G2: keeps the old version when the check says no", function()
        refusing(function() return false, "port 99999 is out of range" end, "port 99999")
    end)

    it("G2: keeps the old version when the check says nil, with or without a reason", function()
        refusing(function() return nil, "the reason" end, "the reason")
        sandbox.cleanup()
        dir = sandbox.memdir()
        refusing(function() return nil end)
        sandbox.cleanup()
        dir = sandbox.memdir()
        refusing(function() end)
    end)

    it("G2: keeps the old version when the check raises", function()
        refusing(function() error("cannot parse line 7") end, "cannot parse line 7")
    end)

    it("G2: keeps the old version when the check raises a table", function()
        refusing(function() error({ code = 7 }) end)
    end)

    it("G2: keeps the old version when the check says no and litters the staged tree", function()
        refusing(function(stage)
            sandbox.write_file(stage .. "/litter", "x")
            sandbox.mkdir(stage .. "/deep")
            sandbox.mkdir(stage .. "/deep/er")
            sandbox.write_file(stage .. "/deep/er/litter", "x")
            sandbox.symlink("/", stage .. "/deep/link")
            return false, "no"
        end, "no")
    end)

    it("G2: shows the check the whole staged tree while readers see the old one", function()
        local target = volume.prepare(dir, "target", FAST)
        local writer = assert(atomicwriter.new(target, FAST))
        local staged
        assert(writer:write(volume.after, { check = function(stage)
            staged = stage
            assert.equal("/", stage:sub(1, 1))
            assert.same(volume.after, volume.contents(stage, "."))
            assert.equal("0755", sandbox.mode(stage))
            assert.equal("0644", sandbox.mode(stage .. "/new/sub/added"))
            assert.same(volume.before, volume.contents(target, volume.live(target)))
            assert(volume.resolves(target, volume.before))
            return true
        end }))
        assert.equal(target .. "/" .. volume.live(target), staged)
    end)

    it("G8: publishes nothing that the check has slipped into the staged tree", function()
        local target = volume.prepare(dir, "target", FAST)
        local writer = assert(atomicwriter.new(target, FAST))
        local before = sandbox.listing(target)
        local result, err = writer:write(volume.after, { check = function(stage)
            sandbox.write_file(stage .. "/cache.pid", "1")
            return true
        end })
        if result then
            assert(volume.shows(target, volume.after))
        else
            assert.is_false(err.committed)
            assert.equal(before, sandbox.listing(target))
        end
    end)

    it("G2: asks no check when nothing differs", function()
        local target = volume.prepare(dir, "target", FAST)
        local writer = assert(atomicwriter.new(target, FAST))
        local function check() error("asked") end
        assert.is_false(assert(writer:write(volume.before, { check = check })).changed)
    end)

    it("G2: leaves no target that it has made", function()
        local writer = assert(atomicwriter.new(dir .. "/new",
            { create = true, durability = "none" }))
        local result = writer:write({ a = "1" }, { check = function() return false, "no" end })
        assert.is_nil(result)
        assert.is_nil(sandbox.kind(dir .. "/new"))
        assert(writer:write { a = "1" })
        assert(volume.shows(dir .. "/new", { a = "1" }))
    end)

    it("G2: leaves an empty target without ..data, versions and links", function()
        local target = dir .. "/target"
        sandbox.mkdir(target)
        local writer = assert(atomicwriter.new(target, FAST))
        assert.is_nil((writer:write({ a = "1", ["b/c"] = "2" }, { check = function() end })))
        for _, name in ipairs(sandbox.names(target)) do assert.equal("..lock", name) end
    end)
end)

describe("A write in which a system call fails", function()
    local dir

    before_each(function() dir = sandbox.memdir() end)
    after_each(function() sandbox.cleanup() end)

    local HARMLESS = { brk = true, mmap = true, munmap = true, geteuid = true, getegid = true,
        lseek = true, futex = true, getuid = true, getgid = true, mprotect = true, madvise = true,
        mremap = true, clock_gettime = true, rt_sigaction = true, rt_sigprocmask = true }

    -- What the writer says about the fault, and what is there, must agree.
    local function verdict(target, before, stdout, event, was, becomes)
        local said, committed = stdout:match("^(%S+)%s+(%S*)")
        if said == "ok" then
            assert(volume.shows(target, becomes))
        elseif said == "warned" then
            assert.same(becomes, volume.contents(target, volume.live(target)))
        elseif committed == "true" then
            said = "committed"
            assert.same(becomes, volume.contents(target, volume.live(target)))
        else
            assert.equal("false", committed, event.text .. ": " .. stdout)
            assert.equal(before, sandbox.listing(target), event.text .. ": " .. stdout)
            assert(volume.resolves(target, was))
            return "undone"
        end
        assert(volume.resolves(target, becomes))
        local writer = assert(atomicwriter.new(target, FAST))
        local result = assert(writer:write(becomes)) -- sweeps what was left
        writer:close()
        assert.is_false(result.changed)
        assert.same({}, result.warnings)
        assert(volume.shows(target, becomes))
        return said
    end

    local function sweep(operation, becomes, errors)
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "full", operation))
        local count = { ok = 0, warned = 0, undone = 0, committed = 0 }
        local swapped = false
        for i, event in ipairs(strace.marked(events)) do
            if not HARMLESS[event.call] then
                local target = volume.prepare(dir, "target" .. i, FAST)
                local before = sandbox.listing(target)
                local status, stdout, stderr = strace.inject(
                    sandbox.lua(dir, volume.update, target, "full", operation),
                    event.call, "error=" .. (errors[event.call] or "EIO"), event.nth)
                assert.equal(0, status, event.text .. ": " .. stderr)
                local what = verdict(target, before, stdout, event, volume.before, becomes)
                count[what] = count[what] + 1
                if swapped then
                    assert.not_equal("undone", what, event.text)
                elseif what ~= "ok" then
                    assert.equal("undone", what, event.text)
                end
            end
            if event.call:match("^rename") and strace.name(event, 4) == "..data" then
                swapped = true
            end
        end
        assert.is_true(swapped)
        return count
    end

    it("G2, G3: is undone before the swap and committed after it, whichever call", function()
        need_strace()
        local count = sweep("update", volume.after, {})
        assert.is_true(count.undone >= 80, "only " .. count.undone .. " undone")
        assert.is_true(count.committed >= 1, "none committed")
        assert.is_true(count.warned >= 5, "only " .. count.warned .. " warned")
    end)

    it("G3: says committed when the sync after the swap fails, and undoes nothing", function()
        need_strace()
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "full"))
        local swapped, sync
        for _, event in ipairs(strace.marked(events)) do
            if event.call:match("^rename") and strace.name(event, 4) == "..data" then
                swapped = true
            elseif swapped and not sync and event.call == "fsync" then
                sync = event
            end
        end
        for _, code in ipairs { "EIO", "ENOSPC", "EDQUOT" } do
            local target = volume.prepare(dir, code, FAST)
            local was = volume.live(target)
            local status, stdout = strace.inject(sandbox.lua(dir, volume.update, target, "full"),
                "fsync", "error=" .. code, sync.nth)
            assert.equal(0, status)
            assert.matches("^io%s+true%s.*fsync", stdout)
            assert.not_equal(was, volume.live(target))
            assert.same(volume.after, volume.contents(target, volume.live(target)))
            assert(volume.resolves(target, volume.after))
            assert.same({ was, volume.live(target) },
                { select(-2, sandbox.unpack(volume.versions(target))) })
            local writer = assert(atomicwriter.new(target))
            local result = assert(writer:write(volume.after))
            assert.is_false(result.changed)
            assert(volume.shows(target, volume.after))
        end
    end)

    it("G3: tells a failed tidy-up as a warning, and the next write sweeps it", function()
        need_strace()
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "none"))
        local first = strace.find(strace.marked(events), "unlinkat(")
        local target = volume.prepare(dir, "target", FAST)
        local status, stdout = strace.inject(sandbox.lua(dir, volume.update, target, "none"),
            "unlinkat", "error=EIO", first.nth .. "+")
        assert.equal(0, status)
        assert.matches("^warned%s", stdout)
        assert(volume.resolves(target, volume.after))
        assert.equal("link", sandbox.kind(target .. "/removed"))
        local writer = assert(atomicwriter.new(target, FAST))
        assert.is_false(assert(writer:write(volume.after)).changed)
        assert(volume.shows(target, volume.after))
    end)

    it("G2: is undone when a rollback fails before the swap", function()
        need_strace()
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "full", "rollback"))
        for i, event in ipairs(strace.marked(events)) do
            if event.call:match("^rename") and strace.name(event, 4) == "..data" then break end
            if event.call == "linkat" or event.call == "symlinkat" or event.call == "fsync"
                or event.call == "mkdirat" or event.call == "fchmod" then
                local target = volume.prepare(dir, "target" .. i, FAST)
                local before = sandbox.listing(target)
                local _, stdout = strace.inject(
                    sandbox.lua(dir, volume.update, target, "full", "rollback"),
                    event.call, "error=EIO", event.nth)
                assert.matches("^io%s+false", stdout)
                assert.equal(before, sandbox.listing(target))
            end
        end
    end)

    it("writes the data again where links are refused", function()
        need_strace()
        for _, code in ipairs { "EXDEV", "EPERM", "EMLINK", "EOPNOTSUPP" } do
            local target = volume.prepare(dir, code, FAST)
            local inode = sandbox.inode(target .. "/..data/kept")
            local status, stdout, stderr = strace.inject(
                sandbox.lua(dir, volume.update, target, "full"), "linkat", "error=" .. code, "1+")
            assert.equal(0, status, stderr)
            assert.matches("^ok", stdout, code)
            assert(volume.shows(target, volume.after))
            assert.not_equal(inode, sandbox.inode(target .. "/..data/kept"))
        end
    end)

    it("starts again after EINTR", function()
        need_strace()
        local _, _, _, events = strace.record(dir, sandbox.lua(dir, volume.update,
            volume.prepare(dir, "traced", FAST), "full"))
        local seen = {}
        for _, event in ipairs(strace.marked(events)) do
            if not HARMLESS[event.call] and event.call ~= "close" and not seen[event.call] then
                seen[event.call] = true
                local target = volume.prepare(dir, event.call, FAST)
                local status, stdout, stderr = strace.inject(
                    sandbox.lua(dir, volume.update, target, "full"),
                    event.call, "error=EINTR", event.nth)
                assert.equal(0, status, stderr)
                assert.matches("^ok", stdout, event.call)
                assert(volume.shows(target, volume.after))
            end
        end
    end)
end)
