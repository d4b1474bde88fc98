local input = require "atomicwriter.input"

local function write(path, data)
    local file = assert(io.open(path, "wb"))
    file:write(data)
    file:close()
end

describe("input", function()
    local path

    before_each(function()
        path = os.tmpname()
        write(path, "text\r\n\0\255")
    end)
    after_each(function() os.remove(path) end)

    -- The paths that FN reads.
    local function observed(fn, ...)
        local paths = {}
        input.observe(function(read_path) paths[#paths + 1] = read_path end, fn, ...)
        return paths
    end

    it("reads a file, byte for byte", function()
        assert.equal("text\r\n\0\255", input.read(path))
    end)

    it("says why a file cannot be read, without its path", function()
        os.remove(path)
        assert.same({ nil, "No such file or directory", 2 }, { input.read(path) })
        assert.same({ nil, "No such file or directory", 2 }, { input.read("/nope: no: x") })
        assert.same({ nil, "Is a directory", 21 }, { input.read("/") })
        assert.same({ nil, "Not a directory", 20 }, { input.read("/dev/null/x") })
    end)

    it("tells the observer of each read and note, in order, once for each", function()
        assert.same({ path, "/missing", "/a directory", path }, observed(function()
            input.read(path)
            input.read("/missing")
            input.note("/a directory")
            input.read(path)
        end))
    end)

    it("tells the observer before the file is read", function()
        local text = input.observe(function(read_path) write(read_path, "new") end,
            input.read, path)
        assert.equal("new", text)
    end)

    it("tells nobody when nobody observes", function()
        local paths = observed(input.read, path)
        input.read(path)
        input.note(path)
        assert.same({ path }, paths)
    end)

    it("passes arguments and results of the function, nils too", function()
        local results = { n = select("#", input.observe(print, function(...) return ... end,
            nil, 2, nil)), input.observe(print, function(...) return ... end, nil, 2, nil) }
        assert.equal(3, results.n)
        assert.equal(2, results[2])
        assert.equal(0, select("#", input.observe(print, function() end)))
    end)

    it("tells the outer observer what an inner one learns, and no more the inner", function()
        local inner
        local outer = observed(function()
            input.note("/1")
            inner = observed(input.note, "/2")
            input.note("/3")
        end)
        assert.same({ "/1", "/2", "/3" }, outer)
        assert.same({ "/2" }, inner)
    end)

    it("stops telling when the function raises, and raises the same", function()
        local paths, problem = {}, {}
        local ok, err = pcall(input.observe, function(p) paths[#paths + 1] = p end, function()
            input.note("/1")
            error(problem)
        end)
        assert.is_false(ok)
        assert.equal(problem, err)
        input.note("/2")
        assert.same({ "/1" }, paths)
    end)

    it("keeps telling the outer observer when an inner function raises", function()
        assert.same({ "/1", "/2" }, observed(function()
            pcall(input.observe, function() end, function() input.note("/1") error("x") end)
            input.note("/2")
        end))
    end)
end)
