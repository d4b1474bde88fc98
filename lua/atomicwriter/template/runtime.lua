--- Renders compiled units: what a template sees, what it may do, and where its errors happened.
-- @module atomicwriter.template.runtime

local compiler = require "atomicwriter.template.compiler"
local failure = require "atomicwriter.failure"
local filters = require "atomicwriter.template.filters"
local pure = require "atomicwriter.template.pure"
local value = require "atomicwriter.template.value"

local find, format, gmatch, gsub, match, sub =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.sub

-- Far more than anyone nests; a link in a path could hide a cycle.
local DEPTH_MAX = 64

-- How far down the stack to look for templates; after an endless recursion it has no bottom.
local LEVEL_MAX = 1000

-- How Lua's own messages about a template start.
local MESSAGE_MARK = sub(compiler.CHUNK_MARK, 2)

-- What is thrown when something undefined is touched; becomes an error where it is caught.
local Undefined = {}

local function throw_undefined(name)
    error(setmetatable({ name = name }, Undefined), 0)
end

-- What is thrown when the message says all; to other messages the expression is added.
local Complete = {}

local function throw_complete(...)
    error(setmetatable({ message = format(...) }, Complete), 0)
end

-- Whether an error of a template means that some step of a.b.c was not there.
local function is_absence(err)
    if getmetatable(err) == Undefined then return true end
    return type(err) == "string" and sub(err, 1, #MESSAGE_MARK) == MESSAGE_MARK
        and find(err, "attempt to index", 1, true) ~= nil
        and find(err, "nil value", 1, true) ~= nil
end

local State = {}
State.__index = State

-- The context -----------------------------------------------------------------------------------

-- A key may itself come from the context: it is shown only when a template spells it.
function State:show(key)
    if type(key) == "string" then
        for _, source in ipairs(self.sources) do
            if find(source, key, 1, true) then return key end
        end
    end
    return "(computed " .. type(key) .. ")"
end

-- A copy of VALUE for the template: it cannot change the caller's tables, a name that is not there
-- raises, and whole numbers print without ".0" on 5.4. Tables with a metatable of their own are
-- objects, and pass as they are.
function State:adopt(original, path)
    if type(original) == "number" then
        return math.tointeger and math.tointeger(original) or original -- luacheck: ignore 143
    end
    if type(original) ~= "table" or getmetatable(original) ~= nil then return original end
    if self.adopted[original] then return self.adopted[original] end
    local copy = {}
    self.adopted[original], self.path_of[copy] = copy, path
    for key, item in next, original do
        local item_path = path
        if type(item) == "table" then
            if type(key) == "number" then
                item_path = path .. "[" .. value.number_text(key) .. "]"
            else
                item_path = (path == "" and "" or path .. ".") .. tostring(key)
            end
        end
        copy[key] = self:adopt(item, item_path)
    end
    return setmetatable(copy, self.strict)
end

local function index(map, key) return map[key] end

-- Walk the dotted PATH from ITEM without raising; nil when any step is not there.
local function look_up(item, path)
    for step in gmatch(path, "[^.]+") do
        if type(item) ~= "table" then return nil end
        local ok, found = pcall(index, item, step)
        if not ok then found = rawget(item, tonumber(step)) end
        item = found
    end
    return item
end

-- Whether the function at LEVEL of the stack has a local of this name.
local function has_local(level, name)
    for number = 1, math.huge do
        local found = debug.getlocal(level + 1, number)
        if not found or found == name then return found ~= nil end
    end
end

-- Tell whether there is something at the dotted PATH of the context or, when there is a PATH_IN,
-- at that path of a table.
function State:is_defined(path, path_in)
    if type(path_in or path) ~= "string" then
        throw_complete("defined needs a name as a string")
    end
    if path_in then return not value.is_null(look_up(path, path_in)) end
    local first, rest = match(path, "^([^.]*)%.?(.*)$")
    local item = rawget(self.environment, first)
    if item == nil and has_local(3, first) then
        throw_complete("defined does not see the local %s: write defined(%s, %q)", first, first,
            rest == "" and "name" or rest)
    end
    if item == self.builtins[first] then item = nil end
    return not value.is_null(look_up(item, rest))
end

-- What templates may call.
function State:new_builtins()
    local builtins = pure.new()
    for _, name in ipairs(pure.LIBRARIES) do
        self.path_of[builtins[name]] = name
        setmetatable(builtins[name], self.strict)
    end
    function builtins.error(message)
        if type(message) ~= "string" then error(message, 0) end
        throw_complete("%s", message)
    end
    function builtins.assert(item, message, ...)
        if not item then builtins.error(message or "assertion failed") end
        return item, message, ...
    end
    function builtins.defined(path, path_in)
        local is_defined = self:is_defined(path, path_in)
        return is_defined -- no tail call: is_defined looks at the stack
    end
    function builtins.include(name) return self:include(name) end
    return builtins
end

-- Errors ----------------------------------------------------------------------------------------

-- The templates on the stack, innermost first: unit, and line of its chunk.
local function template_frames()
    local frames, last_source = {}, nil
    for level = 2, LEVEL_MAX do
        local info = debug.getinfo(level, "Sl")
        if not info then break end
        local unit = compiler.unit_of(info.source)
        if unit then
            if info.source ~= last_source then
                frames[#frames + 1] = { unit = unit, number = info.currentline }
            end
            last_source = info.source
        end
    end
    return frames
end

-- Message for ERR, which happened at FRAME or, when there is none, somewhere.
local function message_of(err, frame)
    local kind = getmetatable(err)
    if kind == Undefined then return "undefined: " .. err.name end
    if kind == Complete then return err.message end
    if type(err) ~= "string" then err = "the error is a " .. type(err) end
    if not frame then return err end
    local text = frame.unit:split_message(err)
    local code = frame.unit:code_at(frame.number)
    return code and text .. ": " .. code or text
end

-- Make ERR, wherever it comes from, an error that names template and line. Runs as a message
-- handler, while the stack still stands.
function State:locate(err)
    if self.located[err] then return err end
    local frames = template_frames()
    if not failure.is(err) then
        local frame = table.remove(frames, 1)
        err = failure.new {
            code = "template", message = message_of(err, frame),
            path = frame and frame.unit.name or self.stack[1],
            line = frame and frame.unit:place_of(frame.number),
        }
    end
    if #frames > 0 then
        err.included_from = {}
        for position, frame in ipairs(frames) do
            local line = frame.unit:place_of(frame.number)
            err.included_from[position] = format("%s:%d", frame.unit.name, line)
        end
    end
    self.located[err] = true
    return err
end

-- Output ----------------------------------------------------------------------------------------

-- Where all templates of a state write. Its functions share the buffer as upvalues, which is what
-- makes them fast.
local function new_output()
    local buffer, size = {}, 0
    local output = {}

    function output.write(text)
        size = size + 1
        buffer[size] = text
    end

    -- A function that writes one of TEXTS by its number.
    function output.writer_of(texts)
        return function(number)
            size = size + 1
            buffer[size] = texts[number]
        end
    end

    -- A function that writes a value, made text by TEXT_OF(number, item) unless it is one, and then
    -- perhaps one of TEXTS by its number.
    function output.emitter_of(texts, text_of)
        return function(number, item, following)
            if type(item) ~= "string" then item = text_of(number, item) end
            size = size + 1
            buffer[size] = item
            if following then
                size = size + 1
                buffer[size] = texts[following]
            end
        end
    end

    -- Run RENDER with a buffer of its own, and return what it wrote.
    function output.capture(render)
        local outer, outer_size = buffer, size
        buffer, size = {}, 0
        render()
        local text = table.concat(buffer, "", 1, size)
        buffer, size = outer, outer_size
        return text
    end

    return output
end

-- Units -----------------------------------------------------------------------------------------

local function run_function(pieces) pieces() end

local function helpers(self, unit)
    local output = self.output

    local function need(number, item)
        if value.is_null(item) then throw_undefined(unit:code_at(number)) end
        return item
    end

    local function text_of(number, item)
        local text = value.text(item)
        if text then return text end
        need(number, item)
        error(format("cannot print a %s; pass it through a filter such as join or json",
            type(item)), 0)
    end

    -- The value of an expression that may be undefined.
    local function attempt(expression)
        local depth = #self.stack
        local ok, item = xpcall(expression, function(err)
            -- What is undefined within an include is that template's error.
            if #self.stack == depth and is_absence(err) then return Undefined end
            return self:locate(err)
        end)
        if ok then return item end
        if item == Undefined then return nil end
        error(item, 0)
    end

    -- The filter of this name; its arguments are worked out only when they may be needed.
    local function default(item, arguments)
        local filter = self.options.filters.default
        local settled = not value.is_null(item) and item ~= "" and item ~= false
        if settled and filter == filters.default then return item end
        return (filter(item, arguments()))
    end

    -- Alone in its line, an include takes the line's end for its own.
    local function include(newline, name)
        local text = self:include(name)
        output.write(text)
        if newline and text ~= "" and sub(text, -1) ~= "\n" then output.write(newline) end
    end

    return output.writer_of(unit.texts), output.emitter_of(unit.texts, text_of), need, attempt,
        default, self.options.filters, include, run_function
end

function State:run(unit)
    self.stack[#self.stack + 1] = unit.name
    self.sources[#self.sources + 1] = unit.source
    unit:bind(self.environment, helpers(self, unit))()
    self.stack[#self.stack] = nil
end

-- A path as it is compared to find cycles.
local function canonical(path)
    local text = gsub(path, "/%./", "/")
    text = gsub(text, "//+", "/")
    return (gsub(text, "^%./", ""))
end

function State:check_cycle(name)
    if #self.stack >= DEPTH_MAX then throw_complete("templates are included too deeply") end
    for position, outer in ipairs(self.stack) do
        if canonical(outer) == canonical(name) then
            local chain = table.concat(self.stack, " -> ", position) .. " -> " .. name
            throw_complete("a template includes itself: %s", chain)
        end
    end
end

-- The text of the template NAME, as included by the one being rendered.
function State:include(name)
    if type(name) ~= "string" then throw_complete("include needs a name as a string") end
    local source, resolved = self.options.loader(name, self.stack[#self.stack])
    if not source then
        throw_complete("cannot include %s: %s", self:show(name), tostring(resolved))
    end
    resolved = resolved or name
    self:check_cycle(resolved)
    local included = self.cache[resolved]
    if not included then
        local err
        included, err = self.options.compile(source, resolved)
        if not included then error(err, 0) end
        self.cache[resolved] = included
    end
    return self.output.capture(function() self:run(included) end)
end

local function new_state(context, options)
    local self = setmetatable({
        options = options,
        output = new_output(),
        stack = {},    -- names of the templates being rendered, outermost first
        sources = {},  -- their texts, and those of the ones before them
        cache = {},    -- resolved name -> compiled unit
        located = {},  -- errors that know their place already
        adopted = {},  -- table of the caller -> copy
        path_of = {},  -- copy -> its path in the context, for errors
    }, State)
    self.strict = {
        __index = function(map, key)
            if type(key) == "number" then return nil end -- the end of a list
            local path = self.path_of[map]
            throw_undefined((path == "" and "" or path .. ".") .. self:show(key))
        end,
    }
    self.builtins = self:new_builtins()
    self.environment = setmetatable({}, {
        __index = function(_, name) throw_undefined(self:show(name)) end,
    })
    for name, item in pairs(self.builtins) do self.environment[name] = item end
    for name, item in next, self:adopt(context, "") do self.environment[name] = item end
    return self
end

local M = {}

--- Render UNIT with CONTEXT.
-- @tparam table unit from `compiler.compile`
-- @tparam table context
-- @tparam table options `filters`, `loader(name, from)`, `compile(source, name)`
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] table error
function M.render(unit, context, options)
    local self = new_state(context, options)
    local ok, result = xpcall(function()
        return self.output.capture(function() self:run(unit) end)
    end, function(err) return self:locate(err) end)
    if ok then return result end
    if not failure.is(result) then
        -- The message handler itself ran out of memory or of stack; LuaJIT then says anything.
        local message = tostring(result)
        if message ~= "not enough memory" then message = "stack overflow" end
        result = failure.new { code = "template", message = message, path = unit.name }
    end
    return nil, result
end

--- The directory of PATH with its slash, "" when it has none.
-- @tparam string path
-- @treturn string
function M.directory_of(path)
    return match(path, "^(.*/)") or ""
end

return M
