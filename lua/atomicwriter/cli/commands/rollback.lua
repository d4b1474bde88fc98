--- `atomicwriter rollback`: publish a retained version again.
-- @module atomicwriter.cli.commands.rollback

local options = require "atomicwriter.cli.options"

local M = {
    name = "rollback",
    description = "Publish a retained version again, under a new name. By default the newest one.",
    usage = "atomicwriter rollback TARGET [VERSION] [OPTION]...",
    example = [[
Example: see what there is, and go back:

   atomicwriter status /etc/app
   atomicwriter rollback /etc/app ..2026_11_22_15_04_05.483920175 \
       --reload 'systemctl reload app']],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to roll back."):target("target")
    command:argument("VERSION", "Name of a retained version."):target("version"):args("?")
    options.retention(command)
    options.reload(command)
    options.output(command)
end

M.fault = options.fault

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local projection = require("atomicwriter.cli.projection").new({
        target = args.target, options = options.writer_options(args),
        reload = args.reload, signal = args.signal, pid_file = args.pid_file,
        rollback = not args.no_rollback_on_reload_failure, timeout = args.command_timeout,
    }, services)
    local outcome = projection:rollback(args.version)
    projection:close()
    if outcome.error then services.console:log_error(outcome.error) end
    return outcome.code
end

return M
