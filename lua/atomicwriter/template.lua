--- Templates for text files: configuration, scripts, units.
--
--     {% for _, name in ipairs(servers) do %}
--     server {{ name | lower }}:{{ env.PORT | default("8080") }};
--     {% end %}
--
-- `{{ expression }}` prints, `{% Lua statement %}` runs, `{# comment #}` vanishes; a `-` inside a
-- tag trims the white space on that side, and a statement or comment alone in its line leaves none.
-- Filters follow an expression after `|`, which therefore needs parentheses to be the bit operator.
-- `{% include "part.tmpl" %}` takes the path relative to the including file, and
-- `{{ include("part.tmpl") | indent(4) }}` is the same as an expression. `{% raw %}…{% endraw %}`
-- passes its text through.
--
-- Whatever is undefined is an error, unless `default` follows, or `defined("a.b")` asked before, or
-- `defined(item, "a.b")` about a local of the template; all errors name the template, the line and
-- the expression. `pairs` goes in the order of the keys, so the same context always renders the
-- same text. A template has `string`, `table` and `math` but neither `io`, `os` nor `load`. That
-- keeps it honest rather than harmless: a template is its owner's code.
-- @module atomicwriter.template

local compiler = require "atomicwriter.template.compiler"
local failure = require "atomicwriter.failure"
local filters = require "atomicwriter.template.filters"
local input = require "atomicwriter.input"
local runtime = require "atomicwriter.template.runtime"

local find, format = string.find, string.format

local DELIMITERS = {
    expression = { "{{", "}}" },
    statement = { "{%", "%}" },
    comment = { "{#", "#}" },
}

local OPTIONS = {
    name = "string", filters = "table", delimiters = "table", loader = "function", cache = "table",
}

-- All that raise do so at the line of the public function's caller.
local function check_type(value, wanted, position, name, level)
    if type(value) ~= wanted then
        error(format("bad argument #%d to '%s' (%s expected, got %s)",
            position, name, wanted, type(value)), level or 3)
    end
end

local function pass_on(name, ok, ...)
    if ok then return ... end
    local err = ...
    if type(err) ~= "string" then
        if getmetatable(err) then error(err, 0) end -- ours: something undefined, say
        err = "the error is a " .. type(err)
    end
    error(format("filter '%s': %s", name, err), 0)
end

-- The filters of the library name themselves in their errors; those of others may not.
local function with_name(name, filter)
    return function(...) return pass_on(name, pcall(filter, ...)) end
end

local function merge_filters(own)
    local merged = {}
    for name, filter in pairs(filters) do merged[name] = filter end
    for name, filter in pairs(own) do
        if type(name) ~= "string" or not find(name, "^[%a_][%w_]*$") then
            return nil, "the name of a filter must be an identifier"
        end
        if type(filter) ~= "function" then
            return nil, format("filter '%s' must be a function, got a %s", name, type(filter))
        end
        merged[name] = with_name(name, filter)
    end
    return merged
end

local function is_delimiter(text)
    return type(text) == "string" and text ~= ""
end

local function merge_delimiters(own)
    local merged, seen = {}, {}
    for kind in pairs(own) do
        if not DELIMITERS[kind] then
            return nil, format("unknown delimiter '%s'", tostring(kind))
        end
    end
    for kind, default in pairs(DELIMITERS) do
        local pair = own[kind] or default
        if type(pair) ~= "table" or not is_delimiter(pair[1]) or not is_delimiter(pair[2]) then
            return nil, format("the delimiters of '%s' must be two strings", kind)
        end
        if seen[pair[1]] then return nil, format("two kinds of tags open with '%s'", pair[1]) end
        seen[pair[1]] = true
        merged[kind] = pair
    end
    return merged
end

-- What OPTS come to. Raises at the line of the public function's caller.
local function settle(opts, position, name, loader)
    if opts == nil then opts = {} end
    check_type(opts, "table", position, name, 4)
    for key, value in pairs(opts) do
        if not OPTIONS[key] then error(format("unknown option '%s'", tostring(key)), 3) end
        if type(value) ~= OPTIONS[key] then
            error(format("option '%s' must be a %s, got a %s", key, OPTIONS[key], type(value)), 3)
        end
    end
    local merged, filter_fault = merge_filters(opts.filters or {})
    if not merged then error(filter_fault, 3) end
    local delimiters, delimiter_fault = merge_delimiters(opts.delimiters or {})
    if not delimiters then error(delimiter_fault, 3) end
    return {
        name = opts.name, filters = merged, delimiters = delimiters,
        loader = opts.loader or loader, cache = opts.cache or {},
    }
end

local function new_template(source, name, settings)
    local unit, message, line = settings.cache[name], nil, nil
    if not unit or unit.source ~= source then
        unit, message, line =
            compiler.compile(source, name, settings.filters, settings.delimiters)
    end
    settings.cache[name] = unit
    if unit then return unit end
    return nil, failure.new { code = "template", message = message, path = name, line = line }
end

local Template = {}
Template.__index = Template

--- Render the template.
-- The context is copied: a template cannot change it. Tables with a metatable pass as they are.
-- @tparam[opt] table context what the template sees as its globals
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] table error: code `template`, `message`, `path` and `line` of the template or of the
-- included one, and then `included_from`; it never shows a value of the context
function Template:render(context)
    if context ~= nil then check_type(context, "table", 1, "render") end
    return runtime.render(self._unit, context or {}, self._settings)
end

local function compile(source, name, settings)
    function settings.compile(included_source, included_name)
        return new_template(included_source, included_name, settings)
    end
    local unit, err = new_template(source, name, settings)
    if not unit then return nil, err end
    return setmetatable({ name = name, _unit = unit, _settings = settings }, Template)
end

local M = {}

--- Find the template that FROM includes as NAME: the default of the option `loader`.
-- @tparam string name absolute, or relative to the directory of FROM
-- @tparam string from name of the including template
-- @treturn[1] string its source
-- @treturn[1] string its own name, which is the `from` of what it includes
-- @treturn[2] nil
-- @treturn[2] string why not
function M.loader(name, from)
    local path = find(name, "^/") and name or runtime.directory_of(from) .. name
    local source, message = input.read(path)
    if not source then return nil, message end
    return source, path
end

--- Compile a template.
-- @tparam string source
-- @tparam[opt] table opts `name` ("template"): for errors, and what includes are relative to;
-- `filters`: more filters by name, `function(value, …)`; `delimiters`: `expression`, `statement`,
-- `comment`, each `{ opener, closer }`; `loader`: a function in place of `loader`; `cache`: a table
-- for calls with the same filters and delimiters, so that each source is compiled once
-- @treturn[1] table template, with `:render(context)`
-- @treturn[2] nil
-- @treturn[2] table error: code `template`, `message`, `path`, `line`
function M.compile(source, opts)
    check_type(source, "string", 1, "compile")
    local settings = settle(opts, 2, "compile", M.loader)
    return compile(source, settings.name or "template", settings)
end

--- Read, compile and render a file.
-- @tparam string path
-- @tparam[opt] table context
-- @tparam[opt] table opts as for `compile`; `name` is the path unless given
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] table error, code `template`, or `io` when the file cannot be read
function M.render_file(path, context, opts)
    check_type(path, "string", 1, "render_file")
    if context ~= nil then check_type(context, "table", 2, "render_file") end
    local settings = settle(opts, 3, "render_file", M.loader)
    local source, message, errno = input.read(path)
    if not source then return nil, input.failure(path, message, errno) end
    local template, err = compile(source, settings.name or path, settings)
    if not template then return nil, err end
    return template:render(context)
end

return M
