--- `atomicwriter completion`: completion scripts for shells.
-- @module atomicwriter.cli.commands.completion

local SHELLS = { "bash", "fish", "zsh" }

local M = {
    name = "completion",
    description = "Print the completion script for a shell. `make install` puts the one for bash "
        .. "where bash finds it.",
    usage = "atomicwriter completion bash|fish|zsh",
    example = [[
Example:

   source <(atomicwriter completion bash)]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("SHELL", "Shell to complete in."):target("shell"):choices(SHELLS)
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`
-- @treturn number exit code
function M.run(args, services)
    local parser = require("atomicwriter.cli").parser()
    local text = parser["get_" .. args.shell .. "_complete"](parser)
    local written, why = services.console:write(text)
    if written then return 0 end
    services.console:error(why)
    return 1
end

return M
