--- The options that commands share, in the groups in which `--help` shows them.
--
-- What is wrong with an argument is told with the name of its option. An option may be given once,
-- unless it says `many`.
-- @module atomicwriter.cli.options

local values = require "atomicwriter.cli.values"

local format, gsub = string.format, string.gsub

local TEXT_OR_JSON = { "text", "json" }

-- Each: name, argument (none: a flag), what it does; then `convert`, `choices`, `many`.

local CONTEXT = {
    { "--data", "NAME=FILE", "Data for templates: data.NAME is what FILE holds, by its suffix: "
        .. ".json, .yaml, .env or .lua.", convert = values.pair("NAME=FILE"), many = true },
    { "--set", "NAME=VALUE", "Set data.NAME to a string; NAME may have dots, and then reaches into "
        .. "what --data has loaded.", convert = values.pair("NAME=VALUE"), many = true },
    { "--data-from-etcd", "NAME=PREFIX", "Set data.NAME to the keys below a prefix of etcd: "
        .. "PREFIX/db/host is data.NAME.db.host.", convert = values.etcd_pair, many = true },
    { "--label", "KEY=VALUE", "Add a label.", convert = values.pair("KEY=VALUE"),
        many = true },
    { "--annotation", "KEY=VALUE", "Add an annotation.",
        convert = values.pair("KEY=VALUE"), many = true },
    { "--labels-from", "FILE", "Add the labels in a file of the Kubernetes downward API.",
        many = true },
    { "--annotations-from", "FILE", "Add annotations, likewise.", many = true },
    { "--delimiters", "WORDS", "Other tags in templates: two words for {{ and }}, then two for {% "
        .. "and %}, then two for {# and #}, as in '<< >> <% %>'.", convert = values.delimiters },
}

local SOURCES = {
    { "--from-file", "[KEY=]PATH", "Add a file under its own name or KEY, or the regular files "
        .. "directly in a directory.", many = true },
    { "--from-literal", "KEY=VALUE", "Add a file KEY with the bytes of VALUE.", many = true },
    { "--from-env-file", "PATH", "Add each line NAME=VALUE of a file as a file NAME.",
        many = true },
    { "--from-env", "PATTERN", "Add each environment variable whose name matches as a file; quote "
        .. "the pattern: 'APP_*'.", many = true },
    { "--from-exec", "[KEY=]CMD", "Add what a shell command prints. The file is named KEY, or else "
        .. "like the program. A command that fails fails the write.", many = true },
    { "--template", "[KEY=]PATH", "Render a file; .tmpl is dropped from its name. Of a directory: "
        .. "all files below, except those that begin with _ or . or end with ~. As KEY=DIR: below "
        .. "KEY.", many = true },
    { "--from-etcd", "PREFIX", "Add each key below a prefix of etcd as a file: all as of one "
        .. "revision. With --watch, each new revision becomes a version.",
        convert = values.etcd_prefix, many = true },
    { "--labels-key", "KEY", "The file that labels are written into, if there are any (labels); "
        .. "empty: for templates only." },
    { "--annotations-key", "KEY", "The file for annotations (annotations), likewise." },
}

local ETCD = {
    { "--etcd-endpoints", "LIST", "Where etcd listens: host:port, or URLs, with commas between "
        .. "(ETCDCTL_ENDPOINTS, 127.0.0.1:2379).", convert = values.text },
    { "--etcd-cacert", "FILE", "Certificates that etcd's own must be signed by (ETCDCTL_CACERT).",
        convert = values.text },
    { "--etcd-cert", "FILE", "Our certificate (ETCDCTL_CERT).", convert = values.text },
    { "--etcd-key", "FILE", "Its key (ETCDCTL_KEY).", convert = values.text },
    { "--etcd-user", "NAME", "Who we are (ETCDCTL_USER). The password is in ETCDCTL_PASSWORD.",
        convert = values.etcd_user },
    { "--etcd-password-file", "FILE", "Or the password is the first line of this file.",
        convert = values.text },
}

local OWNERSHIP = {
    { "--mode", "MODE", "Mode of files (0644).", convert = values.mode },
    { "--file-mode", "KEY=MODE", "Mode of one file.", convert = values.key_mode, many = true },
    { "--dir-mode", "MODE", "Mode of directories (0755).", convert = values.dir_mode },
    { "--owner", "USER", "Owner of files and directories, a name or a number.",
        convert = values.user },
    { "--group", "GROUP", "Their group, likewise.", convert = values.group },
    { "--file-owner", "KEY=USER[:GROUP]", "Owner and group of one file.",
        convert = values.key_owner, many = true },
}

local RETENTION = {
    { "--keep", "N", "Previous versions to retain (1).", convert = values.count },
    { "--durability", "full|none", "full: survives a power cut (default); none: faster, does not.",
        choices = { "full", "none" } },
    { "--lock-timeout", "TIME", "How long to wait for other writers (10s).",
        convert = values.duration },
}

local CREATE = { { "--create", nil, "Make the target directory when it is missing." } }

local EMPTY = {
    { "--allow-empty", nil, "Publish also a set without any file, which is an error else." },
}

local CHECK = {
    { "--check", "CMD", "Shell command that looks at the complete new version before anybody else "
        .. "can; {} is its path. If it fails, nothing is published.", convert = values.command },
}

local RELOAD = {
    { "--reload", "CMD", "Shell command to run once for each version that is published.",
        convert = values.command },
    { "--signal", "NAME", "Signal to send once for each version, with --pid-file.",
        convert = values.signal },
    { "--pid-file", "FILE", "File with the id of the process to signal." },
    { "--rollback-on-reload-failure", nil, "Publish the previous version again when the reload "
        .. "fails, and reload (default)." },
    { "--no-rollback-on-reload-failure", nil, "Leave the new version there all the same." },
    { "--command-timeout", "TIME", "How long a command may take, each (1m; 0: for ever).",
        convert = values.duration },
}

local WATCHING = {
    { "--watch", nil, "Stay, and write again whenever a template, an include, a data file or a key "
        .. "in etcd changes. HUP reads everything anew, TERM and INT end it." },
    { "--debounce", "TIME", "Wait until changes have ceased for so long (100ms).",
        convert = values.duration },
    { "--splay", "TIME", "Wait a random time up to this before each write, so that a fleet does "
        .. "not reload at once (0).", convert = values.duration },
    { "--announce", "PREFIX", "Keep a key below this prefix of etcd that says what this machine "
        .. "has; see atomicwriter fleet.", convert = values.etcd_prefix },
    { "--announce-ttl", "TIME", "After how long a machine that is gone is forgotten (30s).",
        convert = values.duration },
    { "--interval", "TIME", "Render at least so often, for what cannot be watched, such as "
        .. "--from-exec (0: never).", convert = values.duration },
}

local DRY_RUN = { { "-n --dry-run", nil, "Say what would change, and touch nothing." } }

local OUTPUT = {
    { "--output", "text|json", "Results as text (default) or json, one object a line.",
        choices = TEXT_OR_JSON },
    { "-q --quiet", nil, "Print no results, only what goes wrong." },
}

local LOGGING = {
    { "--log-format", "text|json", "Messages as text (default) or json.", choices = TEXT_OR_JSON },
    { "--log-level", "LEVEL", "Least important messages to show: error, warn, info (default) or "
        .. "debug.", choices = { "error", "warn", "info", "debug" } },
}

-- "-n --dry-run" is `dry_run` among the arguments.
local function target_of(names)
    return (gsub(gsub(names, "^.*%-%-", ""), "-", "_"))
end

local function add(command, option)
    local names, argname, help = option[1], option[2], option[3]
    if not argname then return command:flag(names, help):target(target_of(names)) end
    local made = command:option(names, help):argname(argname):target(target_of(names))
    if option.convert then made:convert(values.named(names, option.convert)) end
    if option.choices then made:choices(option.choices) end
    if option.many then made:count("*") else made:overwrite(false) end
    return made
end

local M = {}

--- Add a group of options to an argparse command.
-- @tparam table command
-- @tparam string name of the group
-- @tparam table ... lists of options: `{ names, argument, help, convert =, choices =, many = }`
function M.group(command, name, ...)
    local made = {}
    for _, list in ipairs { ... } do
        for _, option in ipairs(list) do made[#made + 1] = add(command, option) end
    end
    command:group(name, (table.unpack or unpack)(made)) -- luacheck: ignore 113
end

--- How to reach etcd.
function M.etcd(command) M.group(command, "Connection to etcd", ETCD) end

--- What templates see: labels, annotations, data.
function M.context(command)
    M.group(command, "Context of templates", CONTEXT)
    M.etcd(command)
end

--- Where files come from, and what templates see.
function M.sources(command)
    M.group(command, "Sources", SOURCES)
    M.context(command)
end

--- Modes and owners of the files.
function M.ownership(command) M.group(command, "Modes and owners", OWNERSHIP) end

--- How a writer writes.
function M.writing(command) M.group(command, "Writing", RETENTION, CREATE, EMPTY, DRY_RUN) end

--- What is kept, and how a writer waits and syncs.
function M.retention(command) M.group(command, "Writing", RETENTION) end

--- What is run before and after publication.
function M.commands(command) M.group(command, "Check and reload", CHECK, RELOAD) end

--- What is run after publication.
function M.reload(command) M.group(command, "Reload", RELOAD) end

--- Staying and following changes.
function M.watching(command) M.group(command, "Watching", WATCHING) end

--- How results and messages look.
function M.output(command) M.group(command, "Output", OUTPUT, LOGGING) end

--- How messages look.
function M.logging(command) M.group(command, "Output", LOGGING) end

--- To change nothing.
function M.dry_run(command) M.group(command, "Trying", DRY_RUN) end

--- The options of a writer in ARGS.
-- @tparam table args
-- @treturn table
function M.writer_options(args)
    return {
        default_mode = args.mode, dir_mode = args.dir_mode, uid = args.owner, gid = args.group,
        keep = args.keep, durability = args.durability, lock_timeout = args.lock_timeout,
        create = args.create or false,
    }
end

-- Each: an option that makes no sense without another, and that one.
local NEEDS = {
    { "signal", "pid_file" }, { "pid_file", "signal" }, { "debounce", "watch" },
    { "splay", "watch" }, { "interval", "watch" }, { "announce", "watch" },
    { "announce_ttl", "announce" },
}
-- Each: two options that exclude each other.
local EXCLUDES = {
    { "dry_run", "watch" },
    { "rollback_on_reload_failure", "no_rollback_on_reload_failure" },
}

local function spelled(name)
    return "--" .. gsub(name, "_", "-")
end

--- What is wrong with the combination of ARGS.
-- @tparam table args
-- @treturn ?string
function M.fault(args)
    for _, pair in ipairs(NEEDS) do
        if args[pair[1]] and not args[pair[2]] then
            return format("%s needs %s", spelled(pair[1]), spelled(pair[2]))
        end
    end
    for _, pair in ipairs(EXCLUDES) do
        if args[pair[1]] and args[pair[2]] then
            return format("%s and %s exclude each other", spelled(pair[1]), spelled(pair[2]))
        end
    end
    local etcd_fault = require("atomicwriter.cli.etcd.requests").fault(args)
    if etcd_fault then return etcd_fault end
    local reloads = args.reload or args.signal
    if args.keep == 0 and reloads and not args.no_rollback_on_reload_failure then
        return "--keep 0 leaves nothing to roll back to: add --no-rollback-on-reload-failure"
    end
    return nil
end

return M
