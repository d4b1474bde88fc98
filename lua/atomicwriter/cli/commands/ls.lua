--- `atomicwriter ls`: list the live version.
-- @module atomicwriter.cli.commands.ls

local options = require "atomicwriter.cli.options"
local reading = require "atomicwriter.cli.reading"

local format = string.format

local M = {
    name = "ls",
    description = "List the files of the live version, as one snapshot has them. Works on volumes "
        .. "that Kubernetes writes, too.",
    usage = "atomicwriter ls TARGET [PATH] [OPTION]...",
    example = [[
Example:

   atomicwriter ls -l /etc/app tls]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to read."):target("target")
    command:argument("PATH", "File or directory in it."):target("path"):args("?")
    command:flag("-l --long", "Show mode, owner, group, size and time as well.")
    options.output(command)
end

local function name_of(kind, id)
    return require("atomicwriter.core")[kind](id) or tostring(id)
end

local function long_line(about, path)
    local time = os.date("!%Y-%m-%dT%H:%M:%SZ", about.mtime)
    return format("%04o %-8s %-8s %10d %s %s", about.mode, name_of("user_name", about.uid),
        name_of("group_name", about.gid), about.size, time, path)
end

local function list(snapshot, args)
    local paths, err = reading.paths(snapshot, args.path)
    if not paths then return nil, err end
    local records, lines = {}, {}
    for _, path in ipairs(paths) do
        local about, stat_err = snapshot:stat(path)
        if not about then return nil, stat_err end
        records[#records + 1] = {
            path = path, mode = format("%04o", about.mode), uid = about.uid, gid = about.gid,
            size = about.size, mtime = about.mtime,
        }
        lines[#lines + 1] = args.long and long_line(about, path) or path
    end
    return records, lines
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`
-- @treturn number exit code
function M.run(args, services)
    return reading.with_snapshot(args.target, services.console, function(snapshot)
        local records, lines = list(snapshot, args)
        if not records then return nil, lines end
        return services.console:result(function()
            return {
                target = args.target, version = snapshot.version,
                files = require("atomicwriter.template.json").list(records),
            }
        end, lines)
    end)
end

return M
