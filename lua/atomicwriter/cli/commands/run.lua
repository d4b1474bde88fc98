--- `atomicwriter run`: project what a Lua script returns.
-- @module atomicwriter.cli.commands.run

local failure = require "atomicwriter.failure"
local options = require "atomicwriter.cli.options"

local PATH_OPTIONS = { "labels_from", "annotations_from" }

local M = {
    name = "run",
    description = "Run a Lua script that returns a projection, or a list of them, and project "
        .. "them. All are gathered before the first is written. The script runs in its own "
        .. "directory.",
    usage = "atomicwriter run PROJECT.lua [OPTION]...",
    example = [[
Example of a project:

   return {
       target = "/etc/app",
       create = true,
       payload = function(context)
           return {
               ["app.conf"] = { template = "app.conf.tmpl" },
               ["tls/key.pem"] = { source = "/root/key.pem", mode = "0600" },
           }
       end,
       check = "app --test {}/app.conf",
       reload = "systemctl reload app",
   }

Fields: target, payload (a table, or a function of the context), check and
reload (shell commands, or functions), watch (more paths), filters, delimiters,
mode, dir_mode, owner, group, keep, durability, lock_timeout, reuse, create,
signal, pid_file, rollback, timeout. The entries of a payload may have template,
owner and group besides data, source, mode, uid and gid.]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("PROJECT.lua", "Lua script."):target("project")
    options.context(command)
    options.watching(command)
    options.dry_run(command)
    options.output(command)
end

M.fault = options.fault

-- The script runs in its own directory, and the user's paths are relative to another.
local function make_absolute(args, cwd)
    local function absolute(path)
        return path:find("^/") and path or cwd .. "/" .. path
    end
    for _, name in ipairs(PATH_OPTIONS) do
        for index, path in ipairs(args[name]) do args[name][index] = absolute(path) end
    end
    for _, pair in ipairs(args.data) do pair.value = absolute(pair.value) end
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local cwd, why = require("atomicwriter.cli.process").uv().cwd()
    if not cwd then
        return services.console:fail(failure.new {
            code = "io", op = "getcwd", message = "the working directory is gone: " .. why,
        })
    end
    make_absolute(args, cwd)
    local sources, err = require("atomicwriter.cli.sources").new(args,
        { needs_context = true, again = args.watch })
    if not sources then return services.console:fail(err) end
    local project = require("atomicwriter.cli.project").new(args.project, cwd, sources, services)
    local projections, load_err = project:load()
    if not projections then return services.console:fail(load_err) end
    return require("atomicwriter.cli.running").run(projections, args, services, project)
end

return M
