--- `atomicwriter status`: what is there, and whether all is well.
-- @module atomicwriter.cli.commands.status

local options = require "atomicwriter.cli.options"

local format = string.format

local M = {
    name = "status",
    description = "Show the live version, the retained ones, which of them somebody reads, and "
        .. "what is wrong, if anything. Reads only.",
    usage = "atomicwriter status TARGET [OPTION]...",
    example = [[
Example, for monitoring:

   atomicwriter status /etc/app --output json

Exit status: 0 all is well, 1 the target is unhealthy: there is no live
version, names dangle or are missing, something foreign stands in their place,
or a killed writer has left something. The next write mends all but what is
foreign.]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to look at."):target("target")
    options.output(command)
end

-- What makes a target unhealthy: a list of names, what to say of each, and whether it is so for a
-- moment while a writer is at work, too.
local FAULTS = {
    { "dangling", "dangles: nothing is behind this name", passing = true },
    { "missing", "is missing: the live version has it, but no name leads there" },
    { "foreign", "is in the way: it is not ours" },
    { "residue", "is left over from a writer that was killed", passing = true },
}

-- Two lists: what is wrong, and what may be. Who may not open the lock cannot tell a writer that is
-- at work from one that was killed.
local function faults_of(about)
    local faults, doubts = {}, {}
    if not about.live then faults[1] = about.message end
    for _, fault in ipairs(FAULTS) do
        local list = fault.passing and about.locked == nil and doubts or faults
        for _, name in ipairs(about[fault[1]]) do list[#list + 1] = name .. " " .. fault[2] end
    end
    return faults, doubts
end

local function version_line(version)
    return format("%-9s %s  %s%s", version.live and "live" or "retained", version.name,
        os.date("!%Y-%m-%dT%H:%M:%SZ", version.time), version.leased and "  being read" or "")
end

local function describe(about, faults, doubts)
    local lines = { "target    " .. about.target }
    for _, version in ipairs(about.versions) do lines[#lines + 1] = version_line(version) end
    if about.locked then lines[#lines + 1] = "a writer is at work" end
    for _, fault in ipairs(faults) do lines[#lines + 1] = "unhealthy " .. fault end
    for _, doubt in ipairs(doubts) do
        lines[#lines + 1] = "unsure    " .. doubt .. ", or a writer is at work"
    end
    if #faults == 0 then lines[#lines + 1] = "healthy" end
    return lines
end

local LISTS = { "versions", "dangling", "missing", "foreign", "residue" }

local function record_of(about, faults, doubts)
    local list = require("atomicwriter.template.json").list
    local record = { healthy = #faults == 0, faults = list(faults), doubts = list(doubts) }
    for name, item in pairs(about) do record[name] = item end
    for _, name in ipairs(LISTS) do record[name] = list(about[name]) end
    return record
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`
-- @treturn number exit code
function M.run(args, services)
    local about, err = require("atomicwriter").inspect(args.target)
    if not about then return services.console:fail(err, args.target) end
    local faults, doubts = faults_of(about)
    local written, why = services.console:result(function()
        return record_of(about, faults, doubts)
    end, describe(about, faults, doubts))
    if not written then services.console:error(why) end
    return written and #faults == 0 and 0 or 1
end

return M
