--- Templates. The bytes are a template; and text that has to pass through one unchanged.
--
-- Whatever the source, compiling ends, and fails with the template's name and a line of it; what
-- compiles can be rendered, with a text, the same one each time, or such an error, which shows
-- nothing of the context. Text without delimiters, text in a raw block and a value that is printed
-- come out as they went in.

local template = require "atomicwriter.template"
local require_ = require "spec.fuzz.require"

local that = require_.that

local INSTRUCTIONS = 2000 * 1000

-- Of templates that do so on purpose, or for which counting instructions is too late.
local SHOWS = { "error", "assert", "required" }
local SLOW = { "find", "match", "gsub", "move", "split", "replace" }

local NO_LINE = {
    ["too many statements for one function: move some into an include"] = true,
    ["stack overflow"] = true, ["not enough memory"] = true,
}

local function mentions(source, words)
    for _, word in ipairs(words) do
        if source:find(word, 1, true) then return true end
    end
    return false
end

local PARTS = {
    part = "part of {{ name }}\n", ["a/deep"] = "{% include 'part' %}",
    self = "{% include 'self' %}", broken = "\n{{ }}", undefined = "{{ nowhere.to_be_found }}",
}

local function options()
    return {
        name = "source",
        loader = function(name)
            if PARTS[name] then return PARTS[name], name end
            return nil, "there is no such template"
        end,
    }
end

local function context()
    return {
        name = "value", secret = require_.SECRET, number = 8080, yes = true,
        list = { "a", "b", require_.SECRET }, env = { PORT = "80", SECRET = require_.SECRET },
        data = { nested = { [require_.SECRET] = { 1, 2, 3 } } },
    }
end

local function line_of(err, source)
    if err.path == "source" then return require_.failure(err, "template", source, NO_LINE) end
    require_.failure(err, "template", PARTS[err.path] or "", NO_LINE)
end

-- What rendering comes to; "too long" and what a template makes of it are all the same.
local function render(compiled, limit)
    limit(INSTRUCTIONS)
    local ok, text, err = pcall(compiled.render, compiled, context())
    limit(100 * INSTRUCTIONS)
    if not ok then
        that(tostring(text):find("too long", 1, true), "rendering raises %s", tostring(text))
        return "too long"
    end
    if err and tostring(err):find("too long", 1, true) then return "too long" end
    return text, err
end

local function check_source(source, limit)
    limit(100 * INSTRUCTIONS)
    local compiled, err = template.compile(source, options())
    if not compiled then
        that(err.path == "source" and tostring(err):find("^source:"), "%s", tostring(err))
        return line_of(err, source)
    end
    if mentions(source, SLOW) then return end
    local text, fault = render(compiled, limit)
    if fault then
        line_of(fault, source)
        if not mentions(source, SHOWS) then require_.discreet(fault) end
    end
    if text ~= "too long" and not source:find("tostring", 1, true) then
        local again, second_fault = render(compiled, limit)
        that(again == text or again == "too long", "rendered twice: %s, %s", tostring(text),
            tostring(again))
        that(again == "too long" or tostring(second_fault) == tostring(fault),
            "failed twice: %s, %s", tostring(fault), tostring(second_fault))
    end
end

local function check_verbatim(source, text, with)
    local compiled = assert(template.compile(source))
    local rendered, err = compiled:render(with)
    that(rendered == text, "%q renders to %q (%s)", source, tostring(rendered), tostring(err))
end

return function(bytes, limit)
    check_source(bytes, limit)
    local plain = bytes:gsub("{+([{%%#])", "%1")
    check_verbatim(plain, plain)
    local inner = bytes:gsub("%%", "")
    check_verbatim("x{% raw %}" .. inner .. "{% endraw %}x", "x" .. inner .. "x")
    check_verbatim("{{ name }}", bytes, { name = bytes })
end
