--- Splits the source of a template into nodes, and settles which white space stays.
--
-- A node is a table with `kind` and the `position` in the source that it starts at:
--
-- - `text`: `value`, to be written as it is
-- - `expression`: `segments`, Lua code of the expression and of the filters after it
-- - `statement`: `code`, a Lua statement
-- - `include`: `code`, Lua code of the arguments; `newline`, what ended the line it stood alone in
-- - `mark`: nothing to generate, a comment or the bounds of a raw block
--
-- Code keeps its line breaks and loses its comments, so its first line is the one that its tag
-- starts in, and so on.
-- @module atomicwriter.template.scanner

local byte, find, gsub, match, sub =
    string.byte, string.find, string.gsub, string.match, string.sub

local DASH = byte("-")

local OPENING = { [")"] = "(", ["]"] = "[", ["}"] = "{" }
local IS_OPENING = { ["("] = true, ["["] = true, ["{"] = true }

local Scanner = {}
Scanner.__index = Scanner

-- Errors travel as a table, and only up to M.scan.
local function fail(message, position)
    error({ message = message, position = position }, 0)
end

local function newlines_in(text)
    return (gsub(text, "[^\n]+", ""))
end

local function escape_pattern(text)
    return (gsub(text, "%W", "%%%0"))
end

function Scanner:starts_with(text, position)
    return sub(self.source, position, position + #text - 1) == text
end

function Scanner:add(node)
    self.nodes[#self.nodes + 1] = node
    return node
end

function Scanner:add_text(stop, verbatim)
    if stop < self.position then return end
    self:add { kind = "text", value = sub(self.source, self.position, stop), verbatim = verbatim }
    self.position = stop + 1
end

-- Where the next tag with OPENER opens at or after the current position.
function Scanner:find_opener(opener)
    local start = find(self.source, opener, self.position, true)
    if opener == "{#" then
        while start and sub(self.source, start - 1, start - 1) == "$" do
            start = find(self.source, opener, start + 1, true) -- a shell's ${#array[@]}
        end
    end
    return start
end

-- The next tag: where it opens and its kind. Of two that open at the same place, the longer wins.
function Scanner:next_tag()
    local best, best_kind
    local tags, position = self.tags, self.position
    for index = 1, #tags do
        local tag = tags[index]
        local start = tag.upcoming
        if start and start < position then
            start = self:find_opener(tag.opener)
            tag.upcoming = start
        end
        if start and (not best or start < best) then best, best_kind = start, tag.kind end
    end
    return best, best_kind
end

-- The position after the string that starts at POSITION.
function Scanner:skip_string(position, tag_start)
    local quote = sub(self.source, position, position)
    local stop = position + 1
    while true do
        stop = find(self.source, "[\\\n" .. quote .. "]", stop)
        if not stop then fail("unfinished string in the tag", tag_start) end
        local character = sub(self.source, stop, stop)
        if character == quote then return stop + 1 end
        if character == "\n" then fail("unfinished string in the tag", tag_start) end
        stop = stop + 2
        if sub(self.source, stop - 1, stop - 1) == "z" then
            stop = find(self.source, "%S", stop) or stop
        end
    end
end

-- The position after the long bracket that starts at POSITION, or nil when none starts there.
function Scanner:skip_long_bracket(position, tag_start)
    local level = match(self.source, "^%[(=*)%[", position)
    if not level then return nil end
    local _, stop = find(self.source, "]" .. level .. "]", position + 2 + #level, true)
    if not stop then fail("unfinished long string or comment in the tag", tag_start) end
    return stop + 1
end

-- A comment ends with its line, and with its tag too.
function Scanner:skip_comment(position, closer, tag_start)
    local after = self:skip_long_bracket(position + 2, tag_start)
    if after then return after end
    local line_end = find(self.source, "\n", position, true) or #self.source + 1
    local tag_end = find(self.source, closer, position + 2, true) or line_end
    if tag_end > position + 2 and sub(self.source, tag_end - 1, tag_end - 1) == "-" then
        tag_end = tag_end - 1
    end
    return math.min(tag_end, line_end)
end

-- What ends a piece of code in which nothing is of interest.
local function special_characters(closer)
    return "[-'\"|%[%](){}" .. escape_pattern(sub(closer, 1, 1)) .. "]"
end

-- What read_code does when the code has brackets, strings, comments or filters.
function Scanner:read_intricate_code(kind, closer)
    local source, special, tag_start = self.source, self.specials[kind], self.position
    local position, piece = self.position, self.position
    local segments, stack, before = {}, {}, ""

    local function keep(stop) before = before .. sub(source, piece, stop) end
    local function cut()
        if self.has_returns then before = gsub(gsub(before, "\r\n", "\n"), "\r", " ") end
        segments[#segments + 1], before = before, ""
    end

    while true do
        position = find(source, special, position)
        if not position then fail("the tag is not closed", tag_start) end
        local character = sub(source, position, position)
        local closes = OPENING[character] and stack[#stack] == OPENING[character]
        local trimmed = character == "-" and self:starts_with(closer, position + 1)
        if not closes and (trimmed or self:starts_with(closer, position)) then
            keep(position - 1)
            cut()
            self.position = position + #closer + (trimmed and 1 or 0)
            return segments, trimmed
        elseif closes then
            stack[#stack] = nil
            position = position + 1
        elseif OPENING[character] and kind == "expression" then
            fail("unbalanced '" .. character .. "' in the expression", tag_start)
        elseif character == "'" or character == '"' then
            position = self:skip_string(position, tag_start)
        elseif character == "-" and self:starts_with("--", position) then
            keep(position - 1)
            local after = self:skip_comment(position, closer, tag_start)
            before = before .. " " .. newlines_in(sub(source, position, after - 1))
            position, piece = after, after
        elseif character == "|" and kind == "expression" and #stack == 0 then
            keep(position - 1)
            cut()
            position = position + 1
            piece = position
        else
            local after = character == "[" and self:skip_long_bracket(position, tag_start)
            if not after and IS_OPENING[character] then stack[#stack + 1] = character end
            position = after or position + 1
        end
    end
end

-- Read Lua code up to CLOSER. Returns the code in segments, cut at each `|` outside of brackets
-- when it is an expression, and whether the tag ends with a `-`. A closer within a string does not
-- count, and neither does one that closes brackets opened inside, as in {{ f({ a = {} }) }}.
function Scanner:read_code(kind, closer)
    local stop = find(self.source, self.specials[kind], self.position)
    if not stop or self.has_returns or not self:starts_with(closer, stop) then
        return self:read_intricate_code(kind, closer)
    end
    local code = sub(self.source, self.position, stop - 1)
    self.position = stop + #closer
    return { code }, false
end

-- Step over the opener; tell whether a "-" that trims follows. {{-1}} is a negative number.
function Scanner:open_tag(kind)
    local position = self.position + #self.delimiters[kind][1]
    local trims = byte(self.source, position) == DASH
        and not (kind == "expression" and find(self.source, "^%-[%d.]", position))
    self.position = trims and position + 1 or position
    return trims
end

function Scanner:read_comment(node)
    local closer = self.delimiters.comment[2]
    node.kind, node.quiet = "mark", true
    node.trim_left = self:open_tag("comment")
    local start, stop = find(self.source, closer, self.position, true)
    if not start then fail("the comment is not closed", node.position) end
    node.trim_right = start > self.position and sub(self.source, start - 1, start - 1) == "-"
    self.position = stop + 1
end

-- The text of a raw block and the tag that ends it.
function Scanner:read_raw(tag_start)
    local opener, closer = self.delimiters.statement[1], self.delimiters.statement[2]
    local pattern = "^(%-?)%s*endraw%s*(%-?)" .. escape_pattern(closer) .. "()"
    local start = self.position
    while true do
        start = find(self.source, opener, start, true)
        if not start then fail("the raw block is not closed", tag_start) end
        local left, right, after = match(self.source, pattern, start + #opener)
        if left then
            self:add_text(start - 1, true)
            self:add {
                kind = "mark", quiet = true, trim_left = left == "-", trim_right = right == "-",
            }
            self.position = after
            return
        end
        start = start + #opener
    end
end

function Scanner:read_statement(node)
    node.quiet = true
    node.trim_left = self:open_tag("statement")
    local segments, trimmed = self:read_code("statement", self.delimiters.statement[2])
    node.code, node.trim_right = segments[1], trimmed
    local word, rest = match(node.code, "^%s*([%a_][%w_]*)(.*)$")
    if word == "include" then
        node.kind = "include"
        node.code = newlines_in(match(node.code, "^%s*")) .. rest
        if not find(rest, "%S") then fail("include needs the name of a template", node.position) end
    elseif word == "raw" and not find(rest, "%S") then
        node.kind = "mark"
        self:read_raw(node.position)
    elseif word == "endraw" and not find(rest, "%S") then
        fail("endraw without raw", node.position)
    end
end

function Scanner:read_expression(node)
    node.trim_left = self:open_tag("expression")
    node.segments, node.trim_right = self:read_code("expression", self.delimiters.expression[2])
end

local READERS = {
    comment = Scanner.read_comment,
    statement = Scanner.read_statement,
    expression = Scanner.read_expression,
}

-- White space -----------------------------------------------------------------------------------

local function is_blank(node)
    return node and node.kind == "text" and not node.verbatim and find(node.value, "^[ \t]*$")
end

local function has_marker(node)
    return node.trim_left or node.trim_right
end

local function starts_line(nodes, index)
    local before = nodes[index - 1]
    if not before then return true end
    if before.kind ~= "text" then return false end
    local last_line = match(before.value, "^.*\n(.*)$")
    if last_line then return find(last_line, "^[ \t]*$") ~= nil end
    return (index == 2 or before.after_newline) and find(before.value, "^[ \t]*$") ~= nil
end

-- The line break after nodes[index], "" at the end of the file, nil when something else follows.
local function line_end_after(nodes, index)
    local after = nodes[index + 1]
    if not after then return "" end
    if after.kind ~= "text" then return nil end
    local newline = match(after.value, "^[ \t]*(\r?\n)")
    if newline then return newline end
    if index + 1 == #nodes and is_blank(after) then return "" end
    return nil
end

-- Take away the line that nodes[first] to nodes[last] have to themselves.
local function remove_line(nodes, first, last, newline)
    local before, after = nodes[first - 1], nodes[last + 1]
    if before then before.value = match(before.value, "^.*\n") or "" end
    if after then
        after.value = gsub(after.value, "^[ \t]*\r?\n?", "", 1)
        after.after_newline = true
    end
    for index = first, last do
        if nodes[index].kind == "text" then nodes[index].value = "" end
        if nodes[index].kind == "include" and newline ~= "" then nodes[index].newline = newline end
    end
end

-- Statements and comments that have lines to themselves leave no blank lines. A tag with a "-"
-- says itself what it wants.
local function remove_quiet_lines(nodes)
    local index = 1
    while index <= #nodes do
        local first, last = index, nil
        local node = nodes[index]
        if node.quiet and not has_marker(node) and starts_line(nodes, index) then
            last = index
            while true do
                local next_index = is_blank(nodes[last + 1]) and last + 2 or last + 1
                local following = nodes[next_index]
                if not following or not following.quiet or has_marker(following) then break end
                last = next_index
            end
            local newline = line_end_after(nodes, last)
            if newline then remove_line(nodes, first, last, newline) end
        end
        index = (last or first) + 1
    end
end

local function apply_markers(nodes)
    for index, node in ipairs(nodes) do
        local before, after = nodes[index - 1], nodes[index + 1]
        if node.trim_left and before and before.kind == "text" then
            before.value = match(before.value, "^.*%S") or ""
        end
        if node.trim_right and after and after.kind == "text" then
            after.value = gsub(after.value, "^%s+", "")
        end
    end
end

local function read_all(self)
    while true do
        local start, kind = self:next_tag()
        self:add_text((start or #self.source + 1) - 1)
        if not start then return end
        local node = self:add {
            kind = kind, position = start, trim_left = false, trim_right = false, quiet = false,
        }
        READERS[kind](self, node)
    end
end

-- The kinds of tags, those with the longest openers first, and where each opens next.
local function new_tags(delimiters)
    local tags = {}
    for kind, delimiter in pairs(delimiters) do
        tags[#tags + 1] = { kind = kind, opener = delimiter[1], upcoming = 0 }
    end
    table.sort(tags, function(a, b) return #a.opener > #b.opener end)
    return tags
end

local M = {}

--- The line of a position in a text.
-- @tparam string source
-- @tparam number position
-- @treturn number
function M.line_at(source, position)
    local _, newlines = gsub(sub(source, 1, position - 1), "\n", "")
    return newlines + 1
end

--- Split SOURCE into nodes.
-- @tparam string source
-- @tparam table delimiters `expression`, `statement` and `comment`: opener and closer of each
-- @treturn[1] table list of nodes
-- @treturn[2] nil
-- @treturn[2] string what is wrong
-- @treturn[2] number in which line
function M.scan(source, delimiters)
    local self = setmetatable({
        source = source,
        has_returns = find(source, "\r", 1, true) ~= nil,
        delimiters = delimiters,
        tags = new_tags(delimiters),
        specials = {
            expression = special_characters(delimiters.expression[2]),
            statement = special_characters(delimiters.statement[2]),
        },
        position = 1,
        nodes = {},
    }, Scanner)
    local ok, err = pcall(read_all, self)
    if not ok then
        if type(err) ~= "table" then error(err, 0) end
        return nil, err.message, M.line_at(source, err.position)
    end
    remove_quiet_lines(self.nodes)
    apply_markers(self.nodes)
    return self.nodes
end

return M
