--- `atomicwriter diff`: what a write would change.
-- @module atomicwriter.cli.commands.diff

local options = require "atomicwriter.cli.options"

local M = {
    name = "diff",
    FAILED = 2, -- since 1 says that something differs
    description = "Show what a write of the same sources would change, as diff -u does. Contents "
        .. "are shown only of files that others may read, before and after; of the rest the sizes.",
    usage = "atomicwriter diff TARGET SOURCE... [OPTION]...",
    example = [[
Example:

   atomicwriter diff /etc/app --template conf.d/ --data site=site.yaml

Exit status: 0 nothing differs, 1 something does, 2 something went wrong.]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TARGET", "Directory to compare with."):target("target")
    options.sources(command)
    options.ownership(command)
    options.group(command, "Comparing", {
        { "--show-secrets", nil, "Show the contents of all files." },
        { "--allow-empty", nil, "Compare also with a set without any file, as write would." },
        { "--command-timeout", "TIME", "How long each --from-exec may take (1m; 0: for ever).",
            convert = require("atomicwriter.cli.values").duration },
    })
    options.logging(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    return require("atomicwriter.cli.sources").fault(args)
        or require("atomicwriter.cli.etcd.requests").fault(args)
end

local function fail(console, err)
    console:fail(err)
    return M.FAILED
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local console = services.console
    local sources, err =
        require("atomicwriter.cli.sources").new(args, { services = services })
    if not sources then return fail(console, err) end
    local payload, gather_err = sources:gather(args.target)
    gather_err = gather_err or require("atomicwriter.cli.sources").refuse_empty(args.target,
        payload, args.allow_empty)
    if gather_err then return fail(console, gather_err) end
    local text, diff_err = require("atomicwriter.cli.difference").of(args.target, payload, {
        writer = options.writer_options(args), show_secrets = args.show_secrets,
        signals = services.signals,
    })
    if not text then return fail(console, diff_err) end
    local written, why = console:write(text)
    if not written then
        console:error(why)
        return M.FAILED
    end
    return text == "" and 0 or 1
end

return M
