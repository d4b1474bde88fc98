--- `atomicwriter write`: project files into a directory.
-- @module atomicwriter.cli.commands.write

local options = require "atomicwriter.cli.options"

local M = {
    name = "write",
    description = "Gather files from the sources and make the target show exactly that set: "
        .. "readers see all of the old set or all of the new one. When nothing differs, nothing is "
        .. "touched.",
    usage = "atomicwriter write TARGET SOURCE... [OPTION]...",
    example = [[
Example: render a directory of templates, let nginx check the result before
anybody sees it, and reload nginx once if anything has changed:

   atomicwriter write /etc/nginx/app --create --template conf.d/ \
       --data site=site.yaml --label tier=front \
       --check 'nginx -t -c {}/nginx.conf' --reload 'nginx -s reload'

Exit status: 0 done, 1 failed, 2 usage, 3 the check failed and nothing was
published, 4 published but the reload failed.]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to project into."):target("target")
    options.sources(command)
    options.ownership(command)
    options.writing(command)
    options.commands(command)
    options.watching(command)
    options.output(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    return require("atomicwriter.cli.sources").fault(args) or options.fault(args)
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local sources, err =
        require("atomicwriter.cli.sources").new(args,
            { services = services, again = args.watch })
    if not sources then return services.console:fail(err) end
    local projection = require("atomicwriter.cli.projection").new({
        target = args.target, options = options.writer_options(args),
        gather = function(projection)
            local payload, gather_err = sources:gather(args.target)
            projection.origin = sources.origin
            return payload, gather_err
        end,
        check = args.check, reload = args.reload, signal = args.signal, pid_file = args.pid_file,
        rollback = not args.no_rollback_on_reload_failure, timeout = args.command_timeout,
        allow_empty = args.allow_empty,
    }, services)
    return require("atomicwriter.cli.running").run({ projection }, args, services)
end

return M
