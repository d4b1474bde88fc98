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
allow_empty, signal, pid_file, rollback, timeout, etcd. The entries of a payload
may have template, owner and group besides data, source, mode, uid and gid.

etcd = { prefix = "/app/" } makes files of the keys below a prefix, and payload
may then be left out; with name = "site" they are data.site of the context. More
fields: endpoints, cacert, cert, key, user, password. A list of such tables is
read as of one revision.]],
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

-- Make the paths in ARGS absolute, since the script runs in its own directory. True, or nil and why
-- not.
local function make_absolute(args)
    local places = { { args, "project" } }
    for _, name in ipairs(PATH_OPTIONS) do
        for index in ipairs(args[name]) do places[#places + 1] = { args[name], index } end
    end
    for _, pair in ipairs(args.data) do places[#places + 1] = { pair, "value" } end
    for _, place in ipairs(places) do
        local owner, key = place[1], place[2]
        local path, why = require("atomicwriter.cli.process").absolute(owner[key])
        if not path then return nil, why end
        owner[key] = path
    end
    return true
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local name = args.project
    local done, why = make_absolute(args)
    if not done then
        return services.console:fail(failure.new { code = "io", op = "getcwd", message = why })
    end
    local sources, err = require("atomicwriter.cli.sources").new(args,
        { services = services, needs_context = true, again = args.watch })
    if not sources then return services.console:fail(err) end
    local project = require("atomicwriter.cli.project").new(name, args.project, sources, services,
        args.announce)
    local projections, load_err = project:load()
    if not projections then return services.console:fail(load_err) end
    return require("atomicwriter.cli.running").run(projections, args, services, project)
end

return M
