--- Renders compiled units: what a template sees, what it may do, and where its errors happened.
-- @module atomicwriter.template.runtime

local compiler = require "atomicwriter.template.compiler"
local failure = require "atomicwriter.failure"
local value = require "atomicwriter.template.value"

local find, format, gmatch, gsub, match, sub =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.sub

-- Far more than anyone nests; a link in a path could hide a cycle.
local DEPTH_MAX = 64

-- How far down the stack to look for templates; after an endless recursion it has no bottom.
local LEVEL_MAX = 1000

-- How Lua's own messages about a template start.
local MESSAGE_MARK = sub(compiler.CHUNK_MARK, 2)

-- The libraries, less what is not pure: string.dump, math.random, math.randomseed.
local LIBRARIES = { string = string, table = table, math = math }
local IMPURE = { dump = true, random = true, randomseed = true }

-- What is thrown when something undefined is touched; becomes an error where it is caught.
local Undefined = {}

local function throw_undefined(name)
    error(setmetatable({ name = name }, Undefined), 0)
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

-- Walk the dotted PATH without raising; nil when any step is not there.
function State:look_up(path)
    local current, is_first = nil, true
    for step in gmatch(path, "[^.]+") do
        if is_first then
            current = rawget(self.environment, step)
            if current == nil then current = rawget(self.context, step) end
        elseif type(current) == "table" then
            local ok, item = pcall(index, current, step)
            if not ok then item = rawget(current, tonumber(step)) end
            current = item
        else
            return nil
        end
        is_first = false
    end
    return current
end

-- What templates may call -----------------------------------------------------------------------

-- Like pairs, but always in the same order, so that the same context renders the same text.
local function ordered_pairs(map)
    local keys, position = value.sorted_keys(map), 0
    return function()
        position = position + 1
        local key = keys[position]
        if key ~= nil then return key, rawget(map, key) end
    end
end

local function text_or_address(item)
    return value.text(item) or tostring(item)
end

function State:new_builtins()
    local builtins = {
        ipairs = ipairs, next = next, select = select, tonumber = tonumber, type = type,
        error = error, assert = assert, tostring = text_or_address,
        pairs = function(map)
            if type(map) ~= "table" then error("pairs needs a table, got a " .. type(map), 0) end
            return ordered_pairs(map)
        end,
        defined = function(path)
            if type(path) ~= "string" then error("defined needs a name as a string", 0) end
            return not value.is_null(self:look_up(path))
        end,
    }
    for name, library in pairs(LIBRARIES) do
        builtins[name] = {}
        for key, item in pairs(library) do
            if not IMPURE[key] then builtins[name][key] = item end
        end
        self.path_of[builtins[name]] = name
        setmetatable(builtins[name], self.strict)
    end
    builtins.table.unpack = table.unpack or unpack -- luacheck: ignore 113 143
    builtins.include = function(name) return self:include(name) end
    return builtins
end

-- Errors ----------------------------------------------------------------------------------------

-- The templates on the stack, innermost first, each with the line it is at.
local function template_frames()
    local frames, last_source = {}, nil
    for level = 2, LEVEL_MAX do
        local info = debug.getinfo(level, "Sl")
        if not info then break end
        if sub(info.source, 1, #compiler.CHUNK_MARK) == compiler.CHUNK_MARK then
            if info.source ~= last_source then
                local name = sub(info.source, #compiler.CHUNK_MARK + 1)
                frames[#frames + 1] = { name = name, line = info.currentline }
            end
            last_source = info.source
        end
    end
    return frames
end

local function message_of(err, name)
    if getmetatable(err) == Undefined then return "undefined: " .. err.name end
    if type(err) ~= "string" then return "the error is a " .. type(err) end
    local text = compiler.split_message(err, name)
    return text
end

-- Make ERR, wherever it comes from, an error that names template and line. Runs as a message
-- handler, while the stack still stands.
function State:locate(err)
    if self.located[err] then return err end
    local frames = template_frames()
    if not failure.is(err) then
        local frame = table.remove(frames, 1) or { name = self.stack[1] }
        err = failure.new {
            code = "template", message = message_of(err, frame.name),
            path = frame.name, line = frame.line,
        }
    end
    if #frames > 0 then
        err.included_from = {}
        for position, frame in ipairs(frames) do
            err.included_from[position] = format("%s:%d", frame.name, frame.line)
        end
    end
    self.located[err] = true
    return err
end

-- Units -----------------------------------------------------------------------------------------

function State:write(text)
    self.buffer[#self.buffer + 1] = text
end

-- Run RENDER with a buffer of its own, and return what it wrote.
function State:capture(render)
    local outer = self.buffer
    self.buffer = {}
    render()
    local text = table.concat(self.buffer)
    self.buffer = outer
    return text
end

local function helpers(self, unit)
    local function need(number, item)
        if value.is_null(item) then throw_undefined(unit.expressions[number]) end
        return item
    end

    local function emit(number, item)
        local text = value.text(need(number, item))
        if not text then
            error(format("cannot print a %s; pass it through a filter such as join or json: %s",
                type(item), unit.expressions[number]), 0)
        end
        self:write(text)
    end

    local function write(text) self:write(text) end

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

    -- Alone in its line, an include takes the line's end for its own.
    local function include(newline, name)
        local text = self:include(name)
        self:write(text)
        if newline and text ~= "" and sub(text, -1) ~= "\n" then self:write(newline) end
    end

    return write, emit, need, attempt, self.options.filters, include
end

function State:run(unit)
    self.stack[#self.stack + 1] = unit.name
    self.sources[#self.sources + 1] = unit.source
    compiler.bind(unit, self.environment, helpers(self, unit))()
    self.stack[#self.stack] = nil
end

-- A path as it is compared to find cycles.
local function canonical(path)
    local text = gsub(path, "/%./", "/")
    text = gsub(text, "//+", "/")
    return (gsub(text, "^%./", ""))
end

function State:check_cycle(name)
    if #self.stack >= DEPTH_MAX then error("templates are included too deeply", 0) end
    for position, outer in ipairs(self.stack) do
        if canonical(outer) == canonical(name) then
            local chain = table.concat(self.stack, " -> ", position) .. " -> " .. name
            error("a template includes itself: " .. chain, 0)
        end
    end
end

-- The text of the template NAME, as included by the one being rendered.
function State:include(name)
    if type(name) ~= "string" then error("include needs a name as a string", 0) end
    local source, resolved = self.options.loader(name, self.stack[#self.stack])
    if not source then
        error(format("cannot include %s: %s", self:show(name), tostring(resolved)), 0)
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
    return self:capture(function() self:run(included) end)
end

local function new_state(context, options)
    local self = setmetatable({
        options = options,
        buffer = {},
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
    self.context = self:adopt(context, "")
    self.builtins = self:new_builtins()
    self.environment = setmetatable({}, {
        __index = function(_, name)
            local item = rawget(self.context, name)
            if item == nil then item = rawget(self.builtins, name) end
            if item == nil then throw_undefined(self:show(name)) end
            return item
        end,
    })
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
        return self:capture(function() self:run(unit) end)
    end, function(err) return self:locate(err) end)
    if ok then return result end
    if not failure.is(result) then -- the message handler itself ran out of stack, or of memory
        local message = gsub(tostring(result), "^error in error handling$", "stack overflow")
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
