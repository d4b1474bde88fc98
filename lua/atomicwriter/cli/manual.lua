--- The manual page atomicwriter(1), made from what the commands say of themselves.
--
-- `make` calls it; argparse is not needed.
-- @module atomicwriter.cli.manual

local cli = require "atomicwriter.cli"

local format, gsub, match = string.format, string.gsub, string.match

local INTRODUCTION = [[
.SH DESCRIPTION
.B atomicwriter
projects a set of files into a directory so that every reader sees all of the old set or all of the
new one, never a mixture: while it is written, when the writer is killed, on a full disk, after a
power cut.
The files come from templates, labels, other files, commands and the environment.
The complete new set can be checked before anybody sees it, whoever uses it is told once, and when
that fails the previous set comes back.
.PP
The layout is that of Kubernetes ConfigMap and Secret volumes: the link
.I ..data
names the live version, and each visible name is a link into it.
Names that begin with
.I ..
are reserved.]]

local CONCLUSION = [[
.SH TEMPLATES
.TS
l l.
{{ expression }}	prints; {{- and -}} trim white space
{{ name | filter(argument) }}	filters chain
{% statement %}	runs a statement of Lua
{% include "part.tmpl" %}	relative to the including file
{% raw %}...{% endraw %}	is left as it is
{# comment #}	vanishes
.TE
.PP
Names: env, labels, annotations, data.NAME, target, hostname.
What is undefined is an error, unless
.B default
follows.
Filters: default, required, upper, lower, trim, indent, nindent, join, split, replace, quote,
squote, shell, json, yaml, base64, base64decode, html, urlencode, basename, dirname, sort, keys,
lines.
A template is code of its owner's, not of a stranger's.
.SH EXIT STATUS
.TP
0
done, whether or not anything has changed
.TP
1
failed
.TP
2
wrong usage
.TP
3
the check failed and nothing was published
.TP
4
published, but the reload failed; the message says whether it was rolled back
.PP
.B diff
exits with 0 when nothing differs, 1 when something does, 2 when it failed;
.B follow
with the status of its command.
What a signal interrupts ends by that signal.
.SH ENVIRONMENT
Checks, reloads and followed commands find
.BR ATOMICWRITER_TARGET ,
and, as far as it applies,
.B ATOMICWRITER_STAGE
(the staged tree),
.B ATOMICWRITER_VERSION
and
.BR ATOMICWRITER_PREVIOUS .
.PP
etcd is reached through
.BR etcdctl (1),
whose variables
.BR ETCDCTL_ENDPOINTS ,
.BR ETCDCTL_CACERT ,
.BR ETCDCTL_CERT ,
.BR ETCDCTL_KEY ,
.B ETCDCTL_USER
and
.B ETCDCTL_PASSWORD
count where no option is given.
.SH SEE ALSO
.BR etcdctl (1),
.BR kubectl (1),
.BR rename (2),
.BR inotify (7)]]

-- TEXT with what roff would take for its own made plain.
local function plain(text)
    text = gsub(gsub(text, "\\", "\\e"), "%-", "\\-")
    return (gsub(gsub(text, "^([.'])", "\\&%1"), "\n([.'])", "\n\\&%1"))
end

-- Stands in for a command of argparse, and keeps what is defined.
local Recorder = {}
Recorder.__index = Recorder

local function new_element(fields)
    return setmetatable(fields, {
        __index = function(_, property)
            return function(self, value)
                rawset(self, property, value)
                return self
            end
        end,
    })
end

function Recorder:argument(name, help)
    local element = new_element { label = name, help = help }
    self.arguments[#self.arguments + 1] = element
    return element
end

function Recorder:option(names, help)
    local element = new_element { label = gsub(names, " ", ", "), help = help }
    self.options[#self.options + 1] = element
    return element
end

Recorder.flag = Recorder.option

function Recorder.group() end

local function option_text(element)
    local argument = rawget(element, "argname")
    local text = "\\fB" .. plain(element.label) .. "\\fR"
    return argument and text .. " \\fI" .. plain(argument) .. "\\fR" or text
end

local function add_elements(lines, elements, text_of)
    for _, element in ipairs(elements) do
        lines[#lines + 1] = ".TP\n" .. text_of(element) .. "\n" .. plain(element.help)
    end
end

local function add_command(lines, command)
    local recorder = setmetatable({ arguments = {}, options = {} }, Recorder)
    command.define(recorder)
    lines[#lines + 1] = format(".SS %s\n.B %s\n.PP\n%s", command.name, plain(command.usage),
        plain(command.description))
    add_elements(lines, recorder.arguments, function(element)
        return "\\fI" .. plain(element.label) .. "\\fR"
    end)
    add_elements(lines, recorder.options, option_text)
    if command.example then
        lines[#lines + 1] = ".PP\n.nf\n" .. plain(command.example) .. "\n.fi"
    end
end

local M = {}

--- The page.
-- @tparam string version of the program
-- @treturn string roff, with the macros of man and tbl
function M.text(version)
    local lines = {
        "'\\\" t", format('.TH ATOMICWRITER 1 "" "atomicwriter %s" "User Commands"', version),
        ".SH NAME\natomicwriter \\- project files into a directory, all or nothing", ".SH SYNOPSIS",
    }
    for _, item in ipairs(cli.COMMANDS) do
        local name, rest = match(cli.load(item[1]).usage, "^(atomicwriter %S+) ?(.*)$")
        lines[#lines + 1] = format(".B %s\n%s\n.br", name, plain(rest))
    end
    lines[#lines + 1] = INTRODUCTION
    lines[#lines + 1] = ".SH COMMANDS"
    for _, item in ipairs(cli.COMMANDS) do add_command(lines, cli.load(item[1])) end
    lines[#lines + 1] = CONCLUSION
    return table.concat(lines, "\n") .. "\n"
end

return M
