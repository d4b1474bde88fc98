--- `atomicwriter follow`: the consumer's side.
-- @module atomicwriter.cli.commands.follow

local options = require "atomicwriter.cli.options"
local values = require "atomicwriter.cli.values"

local M = {
    name = "follow",
    stays = true,
    description = "Watch a target and act on each new version: restart CMD, or send it a signal, "
        .. "or run a reload command. Survives swaps, and works on volumes that Kubernetes writes. "
        .. "Versions that come in a burst are acted upon once, the last one always is.",
    usage = "atomicwriter follow TARGET [OPTION]... [-- CMD [ARGUMENT]...]",
    example = [[
Examples: restart a service, signal one, reload one that runs elsewhere:

   atomicwriter follow /etc/app -- app --config /etc/app/app.conf
   atomicwriter follow /etc/app --signal HUP -- app
   atomicwriter follow /etc/app --reload 'nginx -s reload'

Signals are passed on to CMD, and follow exits with its status. CMD and the
reload find the version in ATOMICWRITER_VERSION, the target in
ATOMICWRITER_TARGET.]],
}

local FOLLOWING = {
    { "--signal", "NAME", "Send this signal instead of restarting.", convert = values.signal },
    { "--pid-file", "FILE", "Signal the process in this file; no CMD." },
    { "--reload", "CMD", "Shell command to run at each new version, instead of restarting.",
        convert = values.command },
    { "--debounce", "TIME", "Wait until versions have ceased for so long (100ms).",
        convert = values.duration },
    { "--grace", "TIME", "How long a restart waits between TERM and KILL (10s).",
        convert = values.duration },
    { "--command-timeout", "TIME", "How long a reload may take (1m; 0: for ever).",
        convert = values.duration },
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to follow."):target("target")
    command:argument("CMD", "Program to run, and its arguments."):target("words"):args("*")
    options.group(command, "Following", FOLLOWING)
    options.logging(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    local has_command = #args.words > 0
    if args.signal and args.reload then return "--signal and --reload exclude each other" end
    if args.pid_file and not args.signal then return "--pid-file needs --signal" end
    if args.pid_file and has_command then return "--pid-file and a command exclude each other" end
    if has_command then return nil end
    if args.signal and not args.pid_file then return "--signal needs a command, or --pid-file" end
    if args.signal or args.reload then return nil end
    return "nothing to do: give a command after --, or --reload, or --signal with --pid-file"
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `signals`
-- @treturn number exit code
function M.run(args, services)
    return require("atomicwriter.cli.follow").run({
        target = args.target, command = #args.words > 0 and args.words or nil,
        signal = args.signal, pid_file = args.pid_file, reload = args.reload,
        debounce = args.debounce, grace = args.grace,
        timeout = values.command_timeout(args.command_timeout),
    }, services.console, services.signals)
end

return M
