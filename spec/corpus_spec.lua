--- The fuzz targets in Lua, on their corpora: `make fuzz` starts from these files, runs on
-- Lua 5.4 alone and needs clang; here each file, and each half of it, is read on every Lua.

local sandbox = require "spec.support.sandbox"

-- Which inputs need limits is for the fuzzer, which can set them.
local ENDLESS = { ["template/endless"] = true, ["data/lua-endless"] = true }

local function no_limit() end

describe("A corpus for fuzzing is read without a violation:", function()
    for _, name in ipairs { "labels", "env", "template", "data" } do
        it(name, function()
            local target = assert(loadfile("spec/fuzz/" .. name .. ".lua"))()
            local corpus = "spec/fuzz/corpus/" .. name
            local count = 0
            for _, entry in ipairs(sandbox.names(corpus)) do
                if not ENDLESS[name .. "/" .. entry] then
                    local bytes = assert(sandbox.read_file(corpus .. "/" .. entry))
                    for _, part in ipairs { bytes, bytes:sub(1, math.floor(#bytes / 2)) } do
                        local ok, err = pcall(target, part, no_limit)
                        assert(ok, entry .. ": " .. tostring(err))
                        count = count + 1
                    end
                end
            end
            assert.is_true(count >= 20, count .. " inputs")
        end)
    end
end)
