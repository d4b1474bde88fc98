--- Turns a template's source into a Lua chunk, and knows which tag each line of the chunk is of.
--
-- The chunk takes its environment and its helpers as arguments and returns the function that
-- renders. Every tag starts a line of the chunk, so the line of an error tells the tag. Text does
-- not stand in the code but in a table, since a function of LuaJIT can have no more than 65,536
-- constants.
-- @module atomicwriter.template.compiler

local scanner = require "atomicwriter.template.scanner"

local find, format, gmatch, gsub, match, sub =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.sub

-- What a chunk is called, before what is its own.
local CHUNK_MARK = "=template:"
local CODE_SHOWN = 60
-- How many pieces of a template too large for LuaJIT share a function.
local PIECES_TOGETHER = 32

-- On 5.4 a local named _ENV is the environment of the code that follows. LuaJIT sets it from
-- outside, and for it the name means nothing.
local HEADER = "local _ENV, __text, __emit, __need, __attempt, __default, __filter, __include, "
    .. "__run = ... return function() " -- one line, the first
local FOOTER = " end"

-- Filters before which an undefined value is no error yet.
local TOLERANT = { default = true, required = true }

local setfenv = rawget(_G, "setfenv")

local Compiler = {}
Compiler.__index = Compiler

-- Errors travel as a table, and only up to M.compile.
local function fail(message, line)
    error({ message = message, line = line }, 0)
end

local function fail_at(node, message, ...)
    error({ message = format(message, ...), position = node.position }, 0)
end

function Compiler:put(code)
    self.parts[#self.parts + 1] = code
end

-- Start the code of a tag on a line of its own.
function Compiler:put_tag(node, code)
    local count = #self.nodes + 1
    node.first = count
    self.nodes[count] = node
    if find(code, "\n", 1, true) then
        for _ in gmatch(code, "\n") do
            count = count + 1
            self.nodes[count] = node
        end
    end
    local parts = self.parts
    parts[#parts + 1] = "\n"
    parts[#parts + 1] = code
end

-- The number of a text.
function Compiler:add_text(text)
    local number = #self.texts + 1
    self.texts[number] = text
    return number
end

function Compiler:put_text(node)
    if node.value ~= "" then self:put("__text(" .. self:add_text(node.value) .. ") ") end
end

-- The name of the filter in SEGMENT, the line breaks before its arguments, and the arguments.
local function parse_filter(segment, node)
    local before, name, between, rest = match(segment, "^(%s*)([%a_][%w_]*)(%s*)(.*)$")
    if not name then fail_at(node, "the name of a filter is missing after '|'") end
    local newlines = gsub(before .. between, "[^\n]+", "")
    if rest == "" then return name, newlines, "" end
    local arguments, after = match(rest, "^%((.*)%)(%s*)$")
    if not arguments then fail_at(node, "malformed arguments of the filter '%s'", name) end
    return name, newlines, arguments .. gsub(after, "[^\n]+", "")
end

-- CODE passed through the filter at INDEX of the segments; NUMBER tells __need what the value is.
function Compiler:add_filter(code, node, index, number)
    local name, newlines, arguments = parse_filter(node.segments[index], node)
    if not self.filters[name] then fail_at(node, "unknown filter '%s'", name) end
    if TOLERANT[name] then
        code = "__attempt(function() return " .. code .. " end)"
    elseif index == 2 then
        code = "__need(" .. number .. ", " .. code .. ")"
    end
    if name == "default" and not find(arguments, "...", 1, true) then
        -- What is not needed may be undefined.
        arguments = newlines .. ", function() return " .. arguments .. " end"
        return "(__default(" .. code .. arguments .. "))"
    end
    local comma = find(arguments, "%S") and ", " or ""
    return format("(__filter[%q](", name) .. code .. newlines .. comma .. arguments .. "))"
end

-- Writing the text that follows is part of the same call, which saves time.
function Compiler:put_expression(node, following)
    local segments = node.segments
    local head = match(segments[1], "^(.*%S)")
    if not head then fail_at(node, "the expression is empty") end
    local number = #self.nodes + 1
    -- The parentheses also leave one value of several. They close right after the expression, since
    -- Lua takes the line of what closes it for the line of the expression.
    local code = "(" .. head .. ")" .. sub(segments[1], #head + 1)
    for index = 2, #segments do code = self:add_filter(code, node, index, number) end
    code = "__emit(" .. number .. ", " .. code
    if not following or following.kind ~= "text" then return self:put_tag(node, code .. ") ") end
    self:put_tag(node, code .. ", " .. self:add_text(following.value) .. ") ")
    return 2
end

function Compiler:put_statement(node)
    -- Two calls in a row would be read as one, were it not for what stands between them.
    local separator = find(node.code, "^%s*%(") and "do end " or ""
    self:put_tag(node, separator .. node.code .. " ")
end

function Compiler:put_include(node)
    local newline = node.newline and (node.newline == "\n" and [["\n"]] or [["\r\n"]]) or "nil"
    self:put_tag(node, "__include(" .. newline .. ", " .. node.code .. ") ")
end

local PUTTERS = {
    text = Compiler.put_text,
    expression = Compiler.put_expression,
    statement = Compiler.put_statement,
    include = Compiler.put_include,
}

-- Put the code of NODE, and perhaps of the one that follows; tells how many these were.
local function put_node(self, node, following)
    local putter = PUTTERS[node.kind]
    return putter and putter(self, node, following) or 1
end

-- Whether NODE may move into a function of its own: statements may not, and what uses the
-- arguments of a function around it.
local function is_movable(node)
    if node.kind == "expression" then
        return not find(table.concat(node.segments), "...", 1, true)
    end
    return node.kind ~= "statement" and not find(node.code or "", "...", 1, true)
end

-- A function of LuaJIT holds a limited number of constants, and a loop a limited number of
-- instructions. Templates that are too large get a function for every few pieces.
local function put_in_functions(self, nodes)
    local index, pieces = 1, 0
    while index <= #nodes do
        local movable = is_movable(nodes[index])
        if pieces > 0 and (not movable or pieces == PIECES_TOGETHER) then
            self:put("end) ")
            pieces = 0
        end
        if movable then
            if pieces == 0 then self:put("__run(function() ") end
            pieces = pieces + 1
        end
        index = index + put_node(self, nodes[index], nodes[index + 1])
    end
    if pieces > 0 then self:put("end) ") end
end

local function put_plainly(self, nodes)
    local index = 1
    while index <= #nodes do
        index = index + put_node(self, nodes[index], nodes[index + 1])
    end
end

-- Units -----------------------------------------------------------------------------------------

-- A compiled template. Its chunk is called by the address of its table, which is short, unlike the
-- names of templates: Lua shortens long ones in its messages.
local Unit = {}
Unit.__index = Unit

-- By the names of their chunks, while they are in use.
local units = setmetatable({}, { __mode = "v" })

-- The line of the template that line NUMBER of the chunk is of, and the tag.
function Unit:place_of(number)
    number = math.min(number, #self.nodes)
    local node = self.nodes[number]
    if not node then return nil end
    return scanner.line_at(self.source, node.position) + number - node.first, node
end

--- The code of the tag at a line of the chunk, to show it to people.
-- @tparam number number
-- @treturn ?string without filters; nil when no tag is there
function Unit:code_at(number)
    local _, node = self:place_of(number)
    if not node or not node.kind then return nil end
    local code = node.segments and node.segments[1] or node.code
    if node.kind == "include" then code = "include " .. code end
    code = gsub(match(code, "^%s*(.-)%s*$"), "%s+", " ")
    if #code > CODE_SHOWN then code = sub(code, 1, CODE_SHOWN) .. "…" end
    return code
end

--- Split what Lua says about a unit into message and line.
-- @tparam string message
-- @treturn[1] string
-- @treturn[1] number the template's line
-- @treturn[1] number the chunk's line
-- @treturn[2] string MESSAGE as it is: it is not about the unit
function Unit:split_message(message)
    local prefix = sub(self.chunk_name, 2) .. ":"
    if sub(message, 1, #prefix) ~= prefix then return message end
    local number, text = match(message, "^(%d+): (.*)$", #prefix + 1)
    if not number then return message end
    text = gsub(text, "near '__%a+'", "near the end of the tag")
    text = gsub(text, "at line (%d+)", function(digits)
        return "at line " .. (self:place_of(tonumber(digits)) or digits)
    end)
    return text, (self:place_of(tonumber(number))), tonumber(number)
end

--- Bind the unit to an environment.
-- @tparam table environment what the template sees as its globals
-- @tparam function text and the other helpers, in the order of the chunk's header
-- @treturn function renders
function Unit:bind(environment, ...)
    if setfenv then setfenv(self.chunk, environment) end
    return self.chunk(environment, ...)
end

local function is_too_large(message)
    return find(message, "control structure too long", 1, true)
        or find(message, "more than %d%d%d%d%d+ ") -- constants, or variables in LuaJIT
        or find(message, "limit is %d%d%d%d%d+") -- and in Lua
end

-- A block that is not closed takes the end of our own function for its own. Without the function
-- around it, Lua knows which block it was.
local function load_chunk(unit, body)
    local chunk, message = load(HEADER .. body .. FOOTER, unit.chunk_name, "t")
    if chunk then return chunk end
    if is_too_large(message) then return nil, message, true end
    local _, body_message = load(body, unit.chunk_name, "t")
    return nil, body_message or message
end

local function build(unit, nodes, filters, put_all)
    local self = setmetatable({
        parts = {},
        texts = {},
        nodes = { { position = 1, first = 1 } }, -- by line of the chunk; the first is our own
        filters = filters,
    }, Compiler)
    put_all(self, nodes)
    unit.texts, unit.nodes = self.texts, self.nodes
    return load_chunk(unit, table.concat(self.parts))
end

local function compile(unit, nodes, filters)
    local chunk, message, too_large = build(unit, nodes, filters, put_plainly)
    if too_large then
        chunk, message, too_large = build(unit, nodes, filters, put_in_functions)
    end
    if too_large then fail("too many statements for one function: move some into an include") end
    if not chunk then fail(unit:split_message(message)) end
    unit.chunk = chunk
end

local M = { CHUNK_MARK = CHUNK_MARK }

--- The unit whose chunk has this name.
-- @tparam string chunk_name
-- @treturn ?table
function M.unit_of(chunk_name)
    return units[chunk_name]
end

--- Compile SOURCE.
-- @tparam string source
-- @tparam string name for errors
-- @tparam table filters the known ones, by name
-- @tparam table delimiters as `scanner.scan` takes them
-- @treturn[1] table unit: `name`, `source`, `texts`, `chunk_name` and the methods above
-- @treturn[2] nil
-- @treturn[2] string what is wrong
-- @treturn[2] ?number in which line
function M.compile(source, name, filters, delimiters)
    local nodes, message, line = scanner.scan(source, delimiters)
    if not nodes then return nil, message, line end
    local unit = setmetatable({ name = name, source = source }, Unit)
    unit.chunk_name = CHUNK_MARK .. match(tostring(unit), "%x+$")
    units[unit.chunk_name] = unit
    local ok, err = pcall(compile, unit, nodes, filters)
    if ok then return unit end
    if type(err) ~= "table" then error(err, 0) end
    if err.position then return nil, err.message, scanner.line_at(source, err.position) end
    return nil, err.message, err.line
end

return M
