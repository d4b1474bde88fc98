-- The `{}` of a shell command: atomicwriter.cli.placeholder.

local placeholder = require "atomicwriter.cli.placeholder"
local process = require "atomicwriter.cli.process"

local function output_of(command)
    local status = assert(process.run(command, { capture = true }))
    assert.is_true(status.ok, process.describe(status))
    return status.output
end

describe("placeholders:", function()
    local PATHS = {
        "/plain/path-1.2_x", "/with space", "/it's", '/say "x"', "/$HOME", "/`id`",
        "/back\\slash", "/new\nline", "/star*", "/semi;colon", "/%1", "/{}", "/ü", "/#hash",
        "/a!b", "/$(id)\\\\", "/ends\\", "'", "/~", "&|<>()",
    }

    it("is safe for the shell, whatever the path, in every kind of quotes", function()
        for _, path in ipairs(PATHS) do
            for template, expected in pairs {
                ["printf '%s\\n' {}"] = "@",
                ['printf "%s\\n" "{}"'] = "@",
                ["printf '%s\\n' '{}'"] = "@",
                ['printf "%s\\n" "a \\" {}/x" {}/y'] = 'a " @/x\n@/y',
                ["printf '%s\\n' it\\'s{}'-'{}\"'\"{}"] = "it's@-@'@",
                ['printf "%s\\n" "$(printf "%s-" "a {}" {} \'{}\')"'] = "a @-@-@-",
                ["(printf '%s' {}) # it's {}\nprintf '%s\\n' {}"] = "@@",
                ["sh -c 'printf \"%s\\n\" \"$1\"' sh {}"] = "@",
            } do
                assert.equal(expected:gsub("@", (path:gsub("%%", "%%%%"))) .. "\n",
                    output_of(placeholder.fill(template, path)),
                    template .. " with " .. path)
            end
        end
    end)

    it("leaves a path alone that needs no quotes", function()
        assert.equal("nginx -t -c /a/..b_c.1/nginx.conf",
            placeholder.fill("nginx -t -c {}/nginx.conf", "/a/..b_c.1"))
    end)

    it("leaves an escaped placeholder to others", function()
        assert.equal("find /x -exec cat \\{} +", placeholder.fill("find {} -exec cat \\{} +", "/x"))
    end)
end)
