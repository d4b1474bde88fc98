--- `atomicwriter cat`: print files of the live version.
-- @module atomicwriter.cli.commands.cat

local options = require "atomicwriter.cli.options"
local reading = require "atomicwriter.cli.reading"

local M = {
    name = "cat",
    description = "Print files of the live version, one after the other. All of them come from the "
        .. "same version, whatever is written meanwhile.",
    usage = "atomicwriter cat TARGET [PATH]... [OPTION]...",
    example = [[
Example: a certificate and its key, which always match:

   atomicwriter cat /etc/app tls/cert.pem tls/key.pem]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to read."):target("target")
    command:argument("PATH", "Files in it; without any, all of them."):target("paths"):args("*")
    options.logging(command)
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`
-- @treturn number exit code
function M.run(args, services)
    return reading.with_snapshot(args.target, services.console, function(snapshot)
        local paths, list_err = args.paths, nil
        if #paths == 0 then paths, list_err = snapshot:paths() end
        if not paths then return nil, list_err end
        for _, path in ipairs(paths) do
            local data, err = snapshot:read(path)
            if not data then return nil, err end
            local written, why = services.console:write(data)
            if not written then return nil, why end
        end
        return true
    end)
end

return M
