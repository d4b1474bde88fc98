--- `atomicwriter render`: print a template.
-- @module atomicwriter.cli.commands.render

local failure = require "atomicwriter.failure"
local options = require "atomicwriter.cli.options"

local INPUT_NAME = "standard input"

local M = {
    name = "render",
    description = "Render a template and print it. Nothing is written; use it to try a template, "
        .. "or in a pipe.",
    usage = "atomicwriter render TEMPLATE [OPTION]...",
    example = [[
Example:

   atomicwriter render app.conf.tmpl --set port=8080 --label tier=front

An undefined name is an error that names the template and the line.]],
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("TEMPLATE", "Template to render; - is the standard input."):target("path")
    options.context(command)
    options.group(command, "Target", { { "--target", "TARGET", "What templates see as target." } })
    options.logging(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    return require("atomicwriter.cli.etcd.requests").fault(args)
end

local function render(path, context, delimiters)
    local template = require "atomicwriter.template"
    if path ~= "-" then return template.render_file(path, context, { delimiters = delimiters }) end
    local source, why = io.stdin:read("*a")
    if not source then
        return nil, failure.new { code = "io", op = "read", message = why, path = INPUT_NAME }
    end
    local compiled, err = template.compile(source, { name = INPUT_NAME, delimiters = delimiters })
    if not compiled then return nil, err end
    return compiled:render(context)
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`
-- @treturn number exit code
function M.run(args, services)
    local console = services.console
    local sources, err = require("atomicwriter.cli.sources").new(args,
        { services = services, needs_context = true })
    if not sources then return console:fail(err) end
    local context, context_err = sources:context(args.target or "")
    if not context then return console:fail(context_err) end
    local text, render_err = render(args.path, context, args.delimiters)
    if not text then return console:fail(render_err) end
    local written, why = console:write(text)
    if written then return 0 end
    console:error(why)
    return 1
end

return M
