--- `atomicwriter publish`: files into etcd.
-- @module atomicwriter.cli.commands.publish

local failure = require "atomicwriter.failure"
local options = require "atomicwriter.cli.options"
local values = require "atomicwriter.cli.values"

local format = string.format

local TIMEOUT = 30 -- seconds

local M = {
    name = "publish",
    description = "Gather files from the sources and put them below a prefix of etcd, as one "
        .. "transaction: keys that are stale are deleted in it, what has not changed is not "
        .. "touched. Whoever watches the prefix gets all of it as one revision.",
    usage = "atomicwriter publish PREFIX SOURCE... [OPTION]...",
    example = [[
Example: publish a directory of templates, unless somebody else has published
since revision 1234:

   atomicwriter publish /app --template conf.d/ --data site=site.yaml \
       --expect 1234

Exit status: 0 done, 2 usage, 1 failed: the message says whether nothing was
published, or this is not known, or it was, but somebody else has written at the
same time.]],
}

local PUBLISHING = {
    { "--expect", "REVISION", "Publish only if nothing below the prefix has changed since this "
        .. "revision of etcd; 0: only if there is nothing.", convert = values.revision },
    { "--timeout", "TIME", "How long to go on while etcd does not answer (30s).",
        convert = values.duration },
    { "-n --dry-run", nil, "Say what would change, and touch nothing." },
    { "--command-timeout", "TIME", "How long each --from-exec may take (1m; 0: for ever).",
        convert = values.duration },
}

--- Add the arguments and options to an argparse COMMAND.
function M.define(command)
    command:argument("PREFIX", "Prefix of the keys."):target("prefix")
        :convert(values.named("PREFIX", values.etcd_prefix))
    options.sources(command)
    options.group(command, "Publishing", PUBLISHING)
    options.output(command)
end

--- What is wrong with the combination of ARGS, or nil.
function M.fault(args)
    return require("atomicwriter.cli.sources").fault(args)
        or require("atomicwriter.cli.etcd.requests").fault(args, true)
end

-- The data of each file of PAYLOAD, those that would be copied, too.
local function read_all(payload)
    local input = require "atomicwriter.input"
    local files = {}
    for path, entry in pairs(payload) do
        local data = type(entry) == "table" and entry.data or entry
        if type(data) ~= "string" then
            local why, errno
            data, why, errno = input.read(entry.source)
            if not data then return nil, input.failure(entry.source, why, errno) end
        end
        files[path] = data
    end
    return files
end

local SIGNS = { { "added", "+" }, { "updated", "~" }, { "removed", "-" } }

local function describe(prefix, result, dry_run)
    local lines = {}
    for _, kind in ipairs(SIGNS) do
        for _, path in ipairs(result[kind[1]]) do lines[#lines + 1] = kind[2] .. " " .. path end
    end
    local what = format("unchanged, revision %.0f", result.revision)
    if result.changed then
        what = format("%s (%d added, %d updated, %d removed, %d unchanged)",
            dry_run and "would be published" or format("published as revision %.0f",
                result.revision),
            #result.added, #result.updated, #result.removed, result.unchanged)
    end
    lines[#lines + 1] = format("%s: %s", prefix, what)
    return lines
end

local function record_of(prefix, result)
    local list = require("atomicwriter.template.json").list
    return {
        prefix = prefix, changed = result.changed, revision = result.revision,
        added = list(result.added), updated = list(result.updated), removed = list(result.removed),
        unchanged = result.unchanged, obstacle = result.obstacle,
    }
end

-- The files that the sources make, and the client to publish them with; or nil and an error.
local function prepare(args, services)
    local sources, err = require("atomicwriter.cli.sources").new(args, { services = services })
    if not sources then return nil, err end
    local client, client_err = require("atomicwriter.cli.etcd.requests").client(args)
    if not client then return nil, client_err end
    local payload, gather_err = sources:gather(args.prefix)
    if not payload then return nil, gather_err end
    local files, read_err = read_all(payload)
    if not files then return nil, read_err end
    if next(files) == nil then
        return nil, failure.new { code = "invalid_payload", message = "the sources hold no file" }
    end
    return files, client
end

--- Run the command.
-- @tparam table args
-- @tparam table services `console`, `catch_signals`
-- @treturn number exit code
function M.run(args, services)
    local console = services.console
    local files, client = prepare(args, services)
    if not files then return console:fail(client) end
    local publication = require("atomicwriter.cli.etcd.publication").new(client, args.prefix,
        services:catch_signals(), console)
    local result, err = publication:publish(files, {
        expect = args.expect, timeout = args.timeout or TIMEOUT, dry_run = args.dry_run,
    })
    if not result then return console:fail(err) end
    if result.obstacle then console:warn(result.obstacle) end
    local written, why = console:result(function() return record_of(args.prefix, result) end,
        describe(args.prefix, result, args.dry_run))
    if written then return result.obstacle and 1 or 0 end
    console:error(why)
    return 1
end

return M
