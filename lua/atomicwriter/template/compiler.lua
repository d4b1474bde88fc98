--- Turns a template's source into a Lua chunk whose line numbers are those of the template.
--
-- The chunk takes its environment and its helpers as arguments and returns the function that
-- renders. Text does not stand in the code but in a table, since a function of LuaJIT can have no
-- more than 65,536 constants.
-- @module atomicwriter.template.compiler

local scanner = require "atomicwriter.template.scanner"

local find, floor, format, gsub, match, rep, sub =
    string.find, math.floor, string.format, string.gsub, string.match, string.rep, string.sub

-- What a chunk is called, before the template's name: how an error finds its template.
local CHUNK_MARK = "=template:"
-- Lua shortens the name of a chunk in its messages.
local SHORT_SOURCE_MAX = 59
local EXPRESSION_SHOWN = 60
local TEXTS_PER_GROUP = 256

-- On 5.4 a local named _ENV is the environment of the code that follows. LuaJIT sets it from
-- outside, and for it the name means nothing.
local HEADER = "local _ENV, __text, __write, __emit, __need, __attempt, __filter, __include = ... "
    .. "return function() " -- one line, or all others shift
local FOOTER = " end"

-- Filters before which an undefined value is no error yet.
local TOLERANT = { default = true, required = true }

local setfenv = rawget(_G, "setfenv")

local Compiler = {}
Compiler.__index = Compiler

local function fail(message, line)
    error({ message = message, line = line }, 0)
end

function Compiler:put(code)
    self.parts[#self.parts + 1] = code
    local _, newlines = gsub(code, "\n", "")
    self.line = self.line + newlines
end

function Compiler:go_to(line)
    if line > self.line then self:put(rep("\n", line - self.line)) end
end

function Compiler:put_text(node)
    if node.value == "" then return end
    local group = floor(self.text_count / TEXTS_PER_GROUP) + 1
    local index = self.text_count % TEXTS_PER_GROUP + 1
    self.text_count = self.text_count + 1
    self.texts[group] = self.texts[group] or {}
    self.texts[group][index] = node.value
    self:put(format("__write(__text[%d][%d]) ", group, index))
end

-- The name of a filter, and the code that follows its first argument, line breaks included.
local function parse_filter(segment, line)
    local before, name, between, rest = match(segment, "^(%s*)([%a_][%w_]*)(%s*)(.*)$")
    if not name then fail("the name of a filter is missing after '|'", line) end
    local newlines = gsub(before .. between, "[^\n]+", "")
    if rest == "" then return name, newlines end
    local arguments, after = match(rest, "^%((.*)%)(%s*)$")
    if not arguments then fail(format("malformed arguments of the filter '%s'", name), line) end
    local comma = find(arguments, "%S") and ", " or ""
    return name, newlines .. comma .. arguments .. gsub(after, "[^\n]+", "")
end

function Compiler:put_expression(node)
    local head = node.segments[1]
    if not find(head, "%S") then fail("the expression is empty", node.line) end
    local number = #self.expressions + 1
    local shown = gsub(match(head, "^%s*(.-)%s*$"), "%s+", " ")
    if #shown > EXPRESSION_SHOWN then shown = sub(shown, 1, EXPRESSION_SHOWN) .. "…" end
    self.expressions[number] = shown

    -- The parentheses also leave one value of several. They close right after the expression, since
    -- Lua takes the line of what closes it for the line of the expression.
    local code = gsub(head, "%s*$", ")%0", 1)
    code = "(" .. code
    for index = 2, #node.segments do
        local name, arguments = parse_filter(node.segments[index], node.line)
        if not self.filters[name] then fail(format("unknown filter '%s'", name), node.line) end
        if TOLERANT[name] then
            code = "__attempt(function() return " .. code .. " end)"
        elseif index == 2 then
            code = format("__need(%d, ", number) .. code .. ")"
        end
        code = format("(__filter[%q](", name) .. code .. arguments .. "))"
    end
    self:put(format("__emit(%d, ", number) .. code .. ") ")
end

function Compiler:put_statement(node)
    -- Two calls in a row would be read as one, were it not for what stands between them.
    if find(node.code, "^%s*%(") then self:put("do end ") end
    self:put(node.code .. " ")
end

function Compiler:put_include(node)
    local newline = node.newline and (node.newline == "\n" and [["\n"]] or [["\r\n"]]) or "nil"
    self:put("__include(" .. newline .. ", " .. node.code .. ") ")
end

local PUTTERS = {
    text = Compiler.put_text,
    expression = Compiler.put_expression,
    statement = Compiler.put_statement,
    include = Compiler.put_include,
}

local function generate(self, nodes)
    for _, node in ipairs(nodes) do
        local putter = PUTTERS[node.kind]
        if putter then
            if node.kind ~= "text" then self:go_to(node.line) end
            putter(self, node)
        end
    end
    return table.concat(self.parts)
end

local M = { CHUNK_MARK = CHUNK_MARK }

--- Split what Lua says about a template into message and line.
-- @tparam string message
-- @tparam string name of the template
-- @treturn[1] string
-- @treturn[1] number
-- @treturn[2] string MESSAGE as it is: it is not about the template
function M.split_message(message, name)
    local prefix = sub(sub(CHUNK_MARK, 2) .. name, 1, SHORT_SOURCE_MAX) .. ":"
    if sub(message, 1, #prefix) ~= prefix then return message end
    local line, text = match(sub(message, #prefix + 1), "^(%d+): (.*)$")
    if not line then return message end
    text = gsub(text, "near '__%a+'", "near the end of the tag")
    return text, tonumber(line)
end

-- A block that is not closed takes the end of our own function for its own. Without the function
-- around it, Lua knows which block it was.
local function load_chunk(body, name)
    local chunk, message = load(HEADER .. body .. FOOTER, CHUNK_MARK .. name, "t")
    if chunk then return chunk end
    local _, body_message = load(body, CHUNK_MARK .. name, "t")
    return nil, M.split_message(body_message or message, name)
end

--- Compile SOURCE.
-- @tparam string source
-- @tparam string name for errors
-- @tparam table filters the known ones, by name
-- @tparam table delimiters as `scanner.scan` takes them
-- @treturn[1] table unit: `name`, `source`, `chunk`, `texts`, `expressions`
-- @treturn[2] nil
-- @treturn[2] string what is wrong
-- @treturn[2] ?number in which line
function M.compile(source, name, filters, delimiters)
    local nodes, message, line = scanner.scan(source, delimiters)
    if not nodes then return nil, message, line end
    local self = setmetatable({
        parts = {}, line = 1, filters = filters, texts = {}, text_count = 0, expressions = {},
    }, Compiler)
    local ok, body = pcall(generate, self, nodes)
    if not ok then
        if type(body) ~= "table" then error(body, 0) end
        return nil, body.message, body.line
    end
    local chunk, load_message, load_line = load_chunk(body, name)
    if not chunk then return nil, load_message, load_line end
    return {
        name = name, source = source,
        chunk = chunk, texts = self.texts, expressions = self.expressions,
    }
end

--- Bind a unit to an environment.
-- @tparam table unit
-- @tparam table environment what the template sees as its globals
-- @tparam function write and the other helpers, in the order of the chunk's header
-- @treturn function renders
function M.bind(unit, environment, ...)
    if setfenv then setfenv(unit.chunk, environment) end
    return unit.chunk(environment, unit.texts, ...)
end

return M
