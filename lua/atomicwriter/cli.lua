--- The command line of atomicwriter.
--
-- Each command is a module of `atomicwriter.cli.commands` with `name`, `description`, `usage`,
-- `example`, `define(command)`, which adds its options to an argparse command,
-- `fault(args)`, which tells what is wrong with a combination of them, and `run(args, services)`,
-- which returns the exit code; `FAILED` is its exit code when it fails otherwise than it expects
-- (1), and `stays` says that it goes on until a signal ends it, also without `--watch`. Only the
-- one that is asked for is loaded.
-- @module atomicwriter.cli

local find, format, gsub, sub = string.find, string.format, string.gsub, string.sub

local EBADF = 9
local DONE, FAILED, USAGE = 0, 1, 2
local INTERRUPTED = 130 -- as a shell has it for SIGINT

local DESCRIPTION = "Projects a set of files into a directory so that every reader sees all of the "
    .. "old set or all of the new one: from templates, labels, files and the environment, checked "
    .. "before it is published, reloaded once, rolled back when the reload fails."

local EPILOG = [[
Try it:
   atomicwriter write /tmp/app --create --from-literal greeting=hello
   atomicwriter ls /tmp/app
   atomicwriter COMMAND --help]]

-- In the order of the help. Their summaries stand here, so that none needs to be loaded for it.
local COMMANDS = {
    { "write", "Project files into a directory, all or nothing." },
    { "run", "Project what a Lua script returns." },
    { "diff", "Show what a write would change." },
    { "render", "Print a template as it would be written." },
    { "status", "Show the live version, the retained ones, and whether all is well." },
    { "ls", "List the files of the live version." },
    { "cat", "Print files of the live version, consistently." },
    { "rollback", "Publish a retained version again." },
    { "publish", "Put files into etcd, as one transaction." },
    { "fleet", "Show which machines have what was published." },
    { "follow", "Restart, signal or reload a program at each new version." },
    { "completion", "Print the completion script for a shell." },
}

local M = { COMMANDS = COMMANDS }

local function require_argparse()
    local loaded, argparse = require("atomicwriter.optional").load("argparse")
    if loaded then return argparse end
    return nil, "the command line needs the package argparse: install lua-argparse (Debian) or "
        .. "argparse (LuaRocks)"
end

local function describe(element, command)
    element:description(command.description):epilog(command.example)
    if command.usage then element:usage("Usage: " .. command.usage) end
    command.define(element)
end

--- Load a command's module.
-- @tparam string name
-- @treturn table
function M.load(name)
    return require("atomicwriter.cli.commands." .. name)
end

--- Make the parser.
-- @tparam ?string only the name of the one command whose options are needed; nil: all
-- @treturn[1] table of argparse
-- @treturn[2] nil
-- @treturn[2] string argparse is not installed
function M.parser(only)
    local argparse, why = require_argparse()
    if not argparse then return nil, why end
    local parser = argparse("atomicwriter", DESCRIPTION, EPILOG)
    parser:usage("Usage: atomicwriter COMMAND [ARGUMENT]... [OPTION]..."):help_max_width(80)
    parser:command_target("command"):require_command(true)
    parser:flag("--version", "Print the version and exit."):action(function()
        print("atomicwriter " .. require("atomicwriter")._VERSION)
        os.exit(DONE)
    end)
    for _, item in ipairs(COMMANDS) do
        local element = parser:command(item[1]):summary(item[2])
        if not only or only == item[1] then describe(element, M.load(item[1])) end
    end
    return parser
end

local function usage_error(console, message, command)
    local help = format("atomicwriter %s--help", command and command .. " " or "")
    return console:fail(require("atomicwriter.failure").new {
        code = "usage", message = format("%s (see: %s)", message, help),
    })
end

-- What the commands work with.
local Services = {}
Services.__index = Services

-- Signals are caught once there is something to finish or to undo, and not before: it takes luv.
function Services:catch_signals()
    if jit then jit.off() end -- what is compiled calls no hooks, and could not be interrupted
    self.signals = self.signals
        or require("atomicwriter.cli.process").signals(not self.stays)
    return self.signals
end

-- What goes on with etcd; made when it is first asked for.
function Services:etcd()
    self.hub = self.hub or require("atomicwriter.cli.etcd.hub").new(self)
    return self.hub
end

local function new_services(args, command, console)
    local stays = args.watch or command.stays
    local services = setmetatable({ console = console, stays = stays }, Services)
    if stays then services:catch_signals() end
    if args.watch then services.new_inputs = require("atomicwriter.cli.inputs").new end
    return services
end

local function run(args, command, console)
    local services = new_services(args, command, console)
    local code = command.run(args, services)
    if services.hub then services.hub:close() end
    local signals = services.signals
    if signals and signals.stop and code == (command.FAILED or FAILED) then signals:die() end
    if signals then signals:close() end
    -- Before signals are caught, the interpreter heeds SIGINT itself, by raising an error.
    return services.interrupted and INTERRUPTED or code
end

local function new_console(args)
    return require("atomicwriter.cli.console").new {
        output = args.output, log_format = args.log_format, log_level = args.log_level,
        quiet = args.quiet,
    }
end

-- Whether ERR is the interpreter's word for a SIGINT.
local function is_interrupt(err)
    return type(err) == "string" and find(err, "interrupted!", 1, true) ~= nil
end

-- Keeps what is wrong apart from where it is: only a mistake of ours has a traceback.
local function traceback(err)
    if type(err) == "string" and not is_interrupt(err) then return debug.traceback(err, 2) end
    return err
end

local function report_crash(err, console, command)
    if is_interrupt(err) then
        console:error("interrupted")
        return INTERRUPTED
    end
    if type(err) == "table" then -- a library is missing
        console:fail(err)
    else
        io.stderr:write("atomicwriter: this should not have happened: ", tostring(err), "\n")
    end
    return command.FAILED or FAILED
end

-- What ARGV has for OPTION, as far as that can be told before it is parsed.
local function raw_value(argv, option)
    for index, word in ipairs(argv) do
        if word == option then return argv[index + 1] end
        if sub(word, 1, #option + 1) == option .. "=" then return sub(word, #option + 2) end
    end
    return nil
end

-- The name of the command in ARGV: its first word that is no option.
local function command_of(argv)
    for _, word in ipairs(argv) do
        if not find(word, "^%-") then return word end
    end
    return nil
end

-- Where standard streams are closed, other files would get their descriptors. Nothing can be
-- read from what is there instead, and what is printed fails; messages vanish.
local function hold_standard_streams()
    local held = {}
    for index, stream in ipairs { io.stdin, io.stdout, io.stderr } do
        local _, _, errno = stream:seek("cur")
        if errno == EBADF then
            held[index] = io.open("/dev/null", stream == io.stderr and "wb" or "rb")
        end
    end
    return held
end

local standard_streams -- never collected

local function main(argv)
    standard_streams = standard_streams or hold_standard_streams()
    local name = command_of(argv)
    local console = new_console {
        output = raw_value(argv, "--output"), log_format = raw_value(argv, "--log-format"),
    }
    local parser, why = M.parser(name or "")
    if not parser then
        console:error(why)
        return FAILED
    end
    if #argv == 0 then
        io.stderr:write(parser:get_help(), "\n")
        return USAGE
    end
    local parsed, args = parser:pparse(argv)
    if not parsed then
        local message = gsub(args, "\nDid", "; did")
        return usage_error(console, message, not find(args, "unknown command") and name)
    end
    local command = M.load(args.command)
    console = new_console(args)
    local fault = command.fault and command.fault(args)
    if fault then return usage_error(console, fault, args.command) end
    local ok, code = xpcall(run, traceback, args, command, console)
    if not ok then return report_crash(code, console, command) end
    return code
end

--- Run the command line.
-- @tparam {string,...} argv
-- @treturn number exit code
function M.main(argv)
    local ok, code = xpcall(main, traceback, argv)
    if ok then return code end
    if not is_interrupt(code) then error(code, 0) end
    io.stderr:write("atomicwriter: interrupted\n") -- before the command has begun
    return INTERRUPTED
end

return M
