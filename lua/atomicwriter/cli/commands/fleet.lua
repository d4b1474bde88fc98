--- `atomicwriter fleet`: who has a revision.
-- @module atomicwriter.cli.commands.fleet

local failure = require "atomicwriter.failure"
local options = require "atomicwriter.cli.options"
local values = require "atomicwriter.cli.values"

local format = string.format

local TIMEOUT = 60 -- seconds
local INTERVAL = 1 -- between looks at whether etcd has come to the revision

local M = {
    name = "fleet",
    description = "Show what the machines have that announce themselves below a prefix of etcd "
        .. "(write --watch --announce PREFIX), and which of them do not have what they should, and "
        .. "why. A machine that has died disappears.",
    usage = "atomicwriter fleet PREFIX [OPTION]...",
    example = [[
Example: wait until all 40 machines have what was published as revision 1234:

   atomicwriter fleet /fleet --wait 1234 --timeout 5m --machines 40

Exit status: 0 all have it, 1 some do not, or there are none, 2 usage.]],
}

local FLEET = {
    { "--wait", "REVISION", "Wait until all have what this revision has below the prefixes that "
        .. "they read, or a later one. Without it, what there is now is what they should have.",
        convert = values.revision },
    { "--timeout", "TIME", "How long to wait (1m; 0: for ever).", convert = values.duration },
    { "--machines", "N", "There have to be at least so many (1).", convert = values.count },
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("PREFIX", "Prefix of the announcements."):target("prefix")
        :convert(values.named("PREFIX", values.etcd_prefix))
    options.group(command, "Fleet", FLEET)
    options.etcd(command)
    options.output(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    if args.timeout and not args.wait then return "--timeout needs --wait" end
    return require("atomicwriter.cli.etcd.requests").fault(args, true)
end

-- What the machines have, as the feed knows it now: a table with `machines`, `have` and `all`; or
-- nil and an error.
local function look(self)
    local fleet = require "atomicwriter.cli.etcd.fleet"
    local machines = fleet.parse(self.feed.files)
    local prefixes, err = fleet.prefixes(self.client, machines, self.args.wait, self.known,
        self.signals)
    if not prefixes then return nil, err end
    local have = fleet.judge(machines, {
        -- No announcement that was read is older than what it says.
        revision = self.feed.revision, wanted = self.args.wait, prefixes = prefixes,
    })
    local enough = #machines >= (self.args.machines or 1)
    return { machines = machines, have = have, all = enough and have == #machines }
end

-- Look until all have it, or the time is over.
local function wait(self)
    local process = require "atomicwriter.cli.process"
    local feed, signals = self.feed, self.signals
    local limit = self.args.timeout or TIMEOUT
    local deadline = limit > 0 and process.now() + limit or math.huge
    local about, err
    repeat
        local generation, attempts = feed.generation, feed.attempts
        feed.task:run_until(function()
            return feed.generation ~= generation or signals.stop
                or not about and feed.attempts > attempts
        end, math.min(deadline, about and process.now() + INTERVAL or deadline))
        local found
        if feed.revision then found, err = look(self) end
        about = found or about
        -- Who waits bears with an etcd that does not answer for a while.
        if err and not (self.args.wait and err.kind == "silent") then break end
        local over = signals.stop or not self.args.wait or process.now() >= deadline
    until over or about and about.all
    if err then return nil, err end
    if not about and signals.stop then
        return nil, failure.new { code = "cancelled", message = "interrupted" }
    elseif not about then -- the time may be over before etcdctl gives up
        return nil, feed.failure or self.client:failure "Error: deadline exceeded"
    end
    return about
end

local function record_of(args, about)
    local list = require("atomicwriter.template.json").list
    return {
        prefix = args.prefix, revision = args.wait, machines = list(about.machines),
        count = #about.machines, have = about.have, all = about.all,
    }
end

local function describe(args, about)
    if #about.machines == 0 then return { "no machine announces itself below " .. args.prefix } end
    local lines = require("atomicwriter.cli.etcd.fleet").lines(about.machines)
    local what = args.wait and format("revision %.0f", args.wait) or "what they should have"
    lines[#lines + 1] = format("%d of %d have %s", about.have, #about.machines, what)
    if #about.machines < (args.machines or 1) then
        lines[#lines] = format("%s; there should be %d", lines[#lines], args.machines)
    end
    return lines
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local console = services.console
    local client, err = require("atomicwriter.cli.etcd.requests").client(args)
    if not client then return console:fail(err) end
    local self = { args = args, client = client, signals = services:catch_signals(), known = {} }
    self.feed = require("atomicwriter.cli.etcd.feed").new(client:copy(), args.prefix,
        { console = console, follows = args.wait ~= nil })
    local about, wait_err = wait(self)
    self.feed:close()
    if not about then return console:fail(wait_err) end
    local written, why = console:result(function() return record_of(args, about) end,
        describe(args, about))
    if not written then console:error(why) end
    return written and about.all and 0 or 1
end

return M
