-- The files of a pod, projected the way a kubelet does it, with a look at what happens on disk.
--
--     lua5.4 podinfo.lua [TARGET]
--
-- `make demo` runs this from a checkout and projects into build/demo/podinfo, which it empties
-- first. By itself it takes a new scratch directory, or TARGET, in which it deletes nothing: there
-- must be nothing published yet.
--
-- What a program would find below TARGET:
--
--     podName            the name of this host
--     user/labels        labels, in the format of the downward API
--     k8s/annotations    annotations, likewise
--     env/NAME           some harmless variables of the environment of this process
--     app.conf           made by app.conf.tmpl and limits.tmpl from all of the above
--
-- Read `assemble` for how such a set is put together, and the five steps at the end for what can
-- be done with it. Everything in between only prints.

local atomicwriter = require "atomicwriter"
local env = require "atomicwriter.env"
local payload = require "atomicwriter.payload"
local template = require "atomicwriter.template"

local HERE = arg[0]:match("^(.*)/") or "."

-- Variables that are nobody's secret.
local ENVIRONMENT = { "HOME", "LANG", "PATH", "USER" }

local function fail(message)
    io.stderr:write("podinfo: ", tostring(message), "\n")
    os.exit(1)
end

-- The value, unless there is none: then what went wrong ends the program.
local function must(value, err)
    if not value then fail(err) end
    return value
end

---- the files -------------------------------------------------------------------------------

local function hostname()
    local file = io.open("/proc/sys/kernel/hostname")
    if not file then return "localhost" end
    local name = file:read()
    file:close()
    return name or "localhost"
end

local function environment()
    local found = {}
    for _, pattern in ipairs(ENVIRONMENT) do
        for name, value in pairs(must(env.match(pattern))) do found[name] = value end
    end
    return found
end

-- What the files are made of.
local function gather()
    return {
        hostname = hostname(),
        env = environment(),
        labels = { app = "podinfo", port = "9898", tier = "backend" },
        annotations = {
            ["example.com/owner"] = "the platform team",
            ["example.com/note"] = 'Says "hello",\nthen waits.',
        },
    }
end

-- All files, made from FACTS: path to data and mode.
local function assemble(facts)
    local files = payload.new()
    must(files:add("podName", facts.hostname))
    must(files:labels(facts.labels, "user/labels"))
    must(files:annotations(facts.annotations, "k8s/annotations"))
    for name, value in pairs(facts.env) do
        must(files:add("env/" .. name, value))
    end
    must(files:add("app.conf", {
        data = must(template.render_file(HERE .. "/app.conf.tmpl", facts)),
        mode = "0640",
    }))
    return files:build()
end

-- What a program would say about its own configuration, were there a program. It raises rather than
-- end the program, so that the write under way can tidy up.
local function check(stage)
    local file = assert(io.open(stage .. "/app.conf"))
    local port = file:read("*a"):match("\nport%s*=%s*([^\n]*)")
    file:close()
    if port and port:match("^%d+$") then return true end
    return false, ("app.conf: the port %q is no number"):format(port or "")
end

---- looking and telling ---------------------------------------------------------------------

local function shell_word(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Run a command that has nothing to say.
local function run(command)
    local ok = os.execute(command)
    if ok ~= true and ok ~= 0 then fail("this command failed: " .. command) end
end

-- Everything below DIRECTORY, by path: mode and type, inode, hard links, link text.
local function scan(directory)
    local pipe = must(io.popen("find -H " .. shell_word(directory)
        .. [[ -mindepth 1 -printf '%P\0%M\0%i\0%n\0%l\0']]))
    local text = pipe:read("*a")
    pipe:close()
    local found = {}
    for path, mode, inode, links, link in text:gmatch(("(%Z*)%z"):rep(5)) do
        found[#found + 1] = { path = path, mode = mode, inode = inode, links = links, link = link,
            order = path:gsub("/", "\1") } -- a directory, what is in it, and then its neighbours
    end
    table.sort(found, function(a, b) return a.order < b.order end)
    return found
end

local bold = { "", "" }

local function heading(text)
    print("\n" .. bold[1] .. text .. bold[2])
end

local function say(title, ...)
    print(("   %-11s "):format(title) .. table.concat({ ... }, "  "))
end

local function show_tree(directory)
    for _, item in ipairs(scan(directory)) do
        local depth = select(2, item.path:gsub("/", ""))
        local name = ("  "):rep(depth) .. item.path:match("[^/]*$")
        if item.mode:sub(1, 1) == "d" then name = name .. "/" end
        if item.link ~= "" then name = name .. " -> " .. item.link end
        print(("   %s %2s  %s"):format(item.mode, item.links, name))
    end
end

local function show_text(text)
    for line in text:gmatch("([^\n]*)\n") do
        print(line == "" and "   |" or "   | " .. line)
    end
end

-- Compare the files of two versions by inode.
local function show_reuse(target, old, new)
    local inode_of, written, reused = {}, {}, {}
    for _, item in ipairs(scan(target .. "/" .. old)) do inode_of[item.path] = item.inode end
    for _, item in ipairs(scan(target .. "/" .. new)) do
        local before = inode_of[item.path]
        if item.mode:sub(1, 1) == "-" then
            local list = before == item.inode and reused or written
            list[#list + 1] = ("%-16s inode %s"):format(item.path, item.inode)
                .. (before == item.inode and (", now with %s links"):format(item.links)
                    or (", before %s"):format(before or "none"))
        end
    end
    for index, line in ipairs(written) do say(index == 1 and "written" or "", line) end
    for index, line in ipairs(reused) do say(index == 1 and "reused" or "", line) end
    if #reused == 0 then say("reused", "nothing: this file system has no hard links") end
end

-- The target as text: equal texts, and nobody has touched anything.
local function fingerprint(target)
    local lines = {}
    for _, item in ipairs(scan(target)) do
        local facts = { item.path, item.mode, item.inode, item.links, item.link }
        lines[#lines + 1] = table.concat(facts, "\0")
    end
    return table.concat(lines, "\n")
end

local function live_version(writer)
    for _, version in ipairs(must(writer:versions())) do
        if version.live then return version.name end
    end
end

-- One label as a reader of SNAPSHOT finds it.
local function label_line(snapshot, key)
    return ("\n" .. must(snapshot:read("user/labels"))):match("\n(" .. key .. "=[^\n]*)")
end

---- where to ----------------------------------------------------------------------------------

local function new_demo_directory(build)
    local demo = shell_word(build .. "/demo")
    run("rm -rf -- " .. demo .. " && mkdir -p -- " .. demo)
    return build .. "/demo/podinfo"
end

local function new_scratch_directory()
    return must(must(io.popen("mktemp -d")):read(), "mktemp made no directory") .. "/podinfo"
end

local function choose_target()
    local given, build = arg[1], os.getenv("ATOMICWRITER_BUILD")
    if given then
        local snapshot = atomicwriter.open(given)
        if snapshot then
            snapshot:close()
            fail(given .. ": something is published there already, which this would replace")
        end
        return given
    end
    return build and build ~= "" and new_demo_directory(build) or new_scratch_directory()
end

-- PATH as somebody would type it here.
local function shorten(path)
    local here = (os.getenv("PWD") or "") .. "/"
    path = path:sub(1, #here) == here and path:sub(#here + 1) or path
    return path:find("[^%w/._-]") and shell_word(path) or path
end

---- five steps --------------------------------------------------------------------------------

if #arg > 1 or (arg[1] or ""):find("^%-") then
    io.stderr:write("usage: lua5.4 podinfo.lua [TARGET]\n")
    os.exit(1)
end
local terminal = not os.getenv("NO_COLOR") and os.execute("test -t 1")
if terminal == true or terminal == 0 then bold = { "\27[1m", "\27[0m" } end

local target = choose_target()
local writer = must(atomicwriter.new(target, { create = true }))
local facts = gather()

print(("atomicwriter %s: the files of a pod, projected into %s"):format(
    atomicwriter._VERSION, shorten(target)))

heading "1. Publish a set of files: readers see all of it or nothing"
local first = must(writer:write(assemble(facts), { check = check }))
say("published", first.version)
say("added", table.concat(first.added, " "))
say("written", first.bytes .. " bytes, safe against a power cut")

heading "2. On disk: one version, and links that lead through ..data (mode, hard links, name)"
show_tree(target)
print("\n   app.conf, from two templates, the labels and the environment:")
local reader = must(atomicwriter.open(target))
show_text(must(reader:read("app.conf")))

heading "3. Change one label while a reader holds a snapshot"
facts.labels.tier = "frontend"
local second = must(writer:write(assemble(facts), { check = check }))
say("swapped", "..data -> " .. second.previous .. "  before")
say("", "..data -> " .. second.version .. "  after one rename")
show_reuse(target, second.previous, second.version)
local newcomer = must(atomicwriter.open(target))
say("open reader", "still sees " .. label_line(reader, "tier"))
say("new reader", "sees " .. label_line(newcomer, "tier"))
newcomer:close()
reader:close()

heading "4. Try to publish a set that the check refuses"
local before = fingerprint(target)
facts.labels.port = "98x98"
local result, err = writer:write(assemble(facts), { check = check })
if result then fail("the check let a bad port through") end
if err.code ~= "check_failed" then fail(err) end
say("error", err.code .. ", committed = " .. tostring(err.committed))
say("", (tostring(err):gsub("^.*refused: ", "")))
if fingerprint(target) ~= before then fail("a refused write has left something behind") end
say("on disk", "the same names, inodes and links as before")

heading "5. Roll back to the previous version"
local third = must(writer:rollback())
say("published", third.version .. "  the files of step 1")
say("updated", table.concat(third.updated, " "))
say("written", ("%d bytes; %d files reused by hard link"):format(third.bytes, third.linked))
reader = must(atomicwriter.open(target))
say("new reader", "sees " .. label_line(reader, "tier"))
reader:close()
for index, version in ipairs(must(writer:versions())) do
    local state = version.live and "live" or "retained"
    say(index == 1 and "versions" or "", version.name, state)
end
if live_version(writer) ~= third.version then fail("..data leads elsewhere") end

print("\nLook around: ls -la " .. shorten(target))
writer:close()
