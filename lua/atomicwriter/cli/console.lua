--- What the command says: results on standard output, everything else on standard error.
--
-- Text is for people, JSON (one object a line) for programs. Control bytes are escaped, so that a
-- file name cannot forge a line or steer a terminal.
-- @module atomicwriter.cli.console

local format, gmatch, gsub, sub = string.format, string.gmatch, string.gsub, string.sub

local LEVELS = { error = 1, warn = 2, info = 3, debug = 4 }
local PREFIX = { error = "", warn = "warning: ", info = "", debug = "debug: " }
local CLEAR_LINE = "\r\27[K"

local Console = {}
Console.__index = Console

local function escape(character)
    return format("\\x%02x", string.byte(character))
end

local M = {}

--- TEXT on one line, without control bytes.
-- @tparam string text
-- @treturn string
function M.clean(text)
    return (gsub(gsub(text, "\n", "\\n"), "[%z\1-\31\127]", escape))
end

-- TEXT as JSON can hold it: what is not UTF-8 becomes U+FFFD.
local function valid(text)
    local unicode = require "atomicwriter.unicode"
    if unicode.is_valid(text) then return text end
    local out, position = {}, 1
    while position <= #text do
        local codepoint, width = unicode.decode(text, position)
        out[#out + 1] = codepoint and sub(text, position, position + width - 1) or "\239\191\189"
        position = position + (codepoint and width or 1)
    end
    return table.concat(out)
end

local function all_valid(item)
    if type(item) == "string" then return valid(item) end
    if type(item) ~= "table" then return item end
    local copy = setmetatable({}, getmetatable(item))
    for key, field in pairs(item) do copy[all_valid(key)] = all_valid(field) end
    return copy
end

local function encode(item)
    return require("atomicwriter.template.json").encode(all_valid(item))
end

--- ITEM as JSON on one line; what is not UTF-8 in it becomes U+FFFD.
-- @param item
-- @treturn string
function M.encode(item)
    return encode(item)
end

local function send(stream, text)
    local ok, why = stream:write(text)
    if ok then ok, why = stream:flush() end
    return ok, why
end

--- Log one line.
-- @tparam string level `"error"`, `"warn"`, `"info"` or `"debug"`
-- @tparam string message never with the contents of a file
-- @tparam[opt] table fields more to say in JSON: strings, numbers, booleans by name. `traceback` is
--  shown in text, too, in lines of its own
function Console:log(level, message, fields)
    if LEVELS[level] > self._level then return end
    self:clear_progress()
    if self._log_format == "json" then
        local record = { time = os.date("!%Y-%m-%dT%H:%M:%SZ", self._clock()), level = level }
        for name, value in pairs(fields or {}) do record[name] = value end
        record.message = message
        send(self._stderr, encode(record) .. "\n")
    else
        local text = "atomicwriter: " .. PREFIX[level] .. M.clean(message) .. "\n"
        for line in gmatch(fields and fields.traceback or "", "[^\n]+") do
            text = text .. "  " .. M.clean(line) .. "\n"
        end
        send(self._stderr, text)
    end
end

function Console:error(message, fields) self:log("error", message, fields) end
function Console:warn(message, fields) self:log("warn", message, fields) end
function Console:info(message, fields) self:log("info", message, fields) end
function Console:debug(message, fields) self:log("debug", message, fields) end

--- Write bytes to standard output as they are.
-- @tparam string bytes
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string that they could not be written, and why
function Console:write(bytes)
    self:clear_progress()
    local ok, why = send(self._stdout, bytes)
    if ok then return true end
    return nil, "cannot write to standard output: " .. why
end

--- Print a result: in JSON what RECORD_OF() returns, or else LINES.
-- @tparam function record_of
-- @tparam {string,...} lines; nothing is printed when the console is quiet
-- @treturn[1] boolean true
-- @treturn[2] nil
-- @treturn[2] string that it could not be written, and why
function Console:result(record_of, lines)
    if self._quiet then return true end
    if self.json then return self:write(encode(record_of()) .. "\n") end
    local text = {}
    for index, line in ipairs(lines) do text[index] = M.clean(line) .. "\n" end
    return self:write(table.concat(text))
end

--- What JSON says of an error.
-- @tparam table err with `code` and `tostring`
-- @tparam ?string target
-- @treturn table
function M.error_record(err, target)
    return {
        target = target, changed = err.committed or false,
        error = {
            code = err.code, message = tostring(err), path = err.path, line = err.line, op = err.op,
            errno = err.errno, committed = err.committed or false,
        },
    }
end

--- Print an error as a result, if results are JSON.
-- @tparam table err
-- @tparam ?string target
function Console:fail_in_json(err, target)
    if self.json then self:result(function() return M.error_record(err, target) end) end
end

--- Log an error, with the traceback that it may have.
-- @tparam table err
function Console:log_error(err)
    self:error(tostring(err), { traceback = err.traceback })
end

--- Tell of an error, in JSON on standard output too.
-- @tparam table err
-- @tparam ?string target
-- @treturn number exit code: 2 when the command line is to blame, else 1
function Console:fail(err, target)
    self:log_error(err)
    self:fail_in_json(err, target)
    return err.code == "usage" and 2 or 1
end

--- Show how far a long operation has come, in one line that the next one replaces. Only on a
-- terminal.
-- @tparam string message
function Console:progress(message)
    if self._terminal == nil then self._terminal = self._is_terminal() end
    if not self._terminal or self._level < LEVELS.info then return end
    self._in_progress = true
    send(self._stderr, CLEAR_LINE .. M.clean(message))
end

--- Take the progress line away.
function Console:clear_progress()
    if not self._in_progress then return end
    self._in_progress = false
    send(self._stderr, CLEAR_LINE)
end

local function stderr_is_terminal()
    local loaded, uv = require("atomicwriter.optional").load("luv")
    return loaded and uv.guess_handle(2) == "tty"
end

--- Make a console.
-- @tparam[opt] table options `output` and `log_format`: `"text"` or `"json"`; `log_level`:
--  `"error"`, `"warn"`, `"info"` or `"debug"`; `quiet`: no results; and to control the world
--  outside: `stdout`, `stderr`: open files; `clock`: seconds since 1970; `is_terminal`: whether
--  stderr is one
-- @treturn table console, with the field `json`: results are printed as JSON
function M.new(options)
    options = options or {}
    return setmetatable({
        json = options.output == "json",
        _quiet = options.quiet,
        _log_format = options.log_format or "text",
        _level = LEVELS[options.log_level or "info"],
        _stdout = options.stdout or io.stdout,
        _stderr = options.stderr or io.stderr,
        _clock = options.clock or os.time,
        _is_terminal = options.is_terminal or stderr_is_terminal,
    }, Console)
end

return M
