-- What `require` does to the program that calls it: nothing.

local lfs = require "lfs"
local sandbox = require "spec.support.sandbox"

-- The modules below lua/, by name. resty.* needs nginx around it.
local function modules(dir, prefix, found)
    for name in lfs.dir(dir) do
        local path = dir .. "/" .. name
        if name ~= "." and name ~= ".." and name ~= "resty" and name ~= "bin" then
            if lfs.attributes(path, "mode") == "directory" then
                modules(path, prefix .. name .. ".", found)
            elseif name:match("%.lua$") then
                found[#found + 1] = prefix .. name:gsub("%.lua$", "")
            end
        end
    end
    return found
end

-- In a fresh interpreter, where nothing of ours has been loaded: require the
-- module and print what that changed, a word for each thing.
local function child(name)
    local loaded, before = {}, {}
    for key in pairs(package.loaded) do loaded[key] = true end
    local tables = { _G = _G, string = string, table = table, math = math, os = os,
        io = io, debug = debug, coroutine = coroutine, package = package }
    for where, t in pairs(tables) do
        for key, value in pairs(t) do before[where .. "." .. tostring(key)] = value end
    end
    local string_meta = getmetatable("").__index

    -- Reading an unset global is a slip too: it is how a misspelt local shows.
    setmetatable(_G, {
        __newindex = function(_, key, value)
            io.write("sets:", key, "\n")
            rawset(_G, key, value)
        end,
        __index = function(_, key)
            local differs = key == "jit" or key == "utf8" or key == "setfenv"
                or key == "loadstring" or key == "unpack"
            if not differs then io.write("reads:", key, "\n") end
        end,
    })
    io.write(type(require(name)), "\n")
    setmetatable(_G, nil)

    for where, t in pairs(tables) do
        for key, value in pairs(t) do
            local known = where .. "." .. tostring(key)
            if before[known] ~= value then io.write("changes:", known, "\n") end
        end
    end
    if getmetatable("").__index ~= string_meta then io.write("changes:string metatable\n") end
    for key in pairs(package.loaded) do
        if not loaded[key] and not key:match("^atomicwriter%f[.%z]") and key ~= "ffi" then
            io.write("loads:", key, "\n")
        end
    end
end

describe("require leaks no global:", function()
    local dir

    before_each(function() dir = sandbox.tmpdir() end)
    after_each(sandbox.cleanup)

    local function report(name)
        local status, stdout, stderr = sandbox.run(sandbox.sh(sandbox.lua(dir, child, name)))
        assert.equal("", stderr)
        assert.equal(0, status)
        return stdout
    end

    local names = modules("lua", "", { "atomicwriter.core" })
    table.sort(names)
    for _, name in ipairs(names) do
        it(name, function()
            assert.equal("table\n", report(name))
        end)
    end

    it("and would be caught if it did", function()
        sandbox.write_file(dir .. "/leaky.lua", "lost = 1; string.trim = print; "
            .. "local x = misspelt; return {}")
        local path = package.path
        package.path = dir .. "/?.lua;" .. path
        local ok, said = pcall(report, "leaky")
        package.path = path
        assert.is_true(ok, said)
        for _, word in ipairs { "sets:lost", "reads:misspelt", "changes:string.trim",
            "changes:_G.lost", "loads:leaky" } do
            assert.truthy(said:find(word, 1, true), word .. " in " .. said)
        end
    end)

    it("and prints nothing, whatever the locale", function()
        local words = sandbox.lua(dir, function() require "atomicwriter" end)
        local status, stdout, stderr = sandbox.run("LC_ALL=xx " .. sandbox.sh(words))
        assert.same({ 0, "", "" }, { status, stdout, stderr })
    end)
end)
