--- What the arguments of options may be: texts turned into values, or refused with a reason.
--
-- Each function takes the text and returns the value, or nil and what is wrong with it.
-- @module atomicwriter.cli.values

local find, format, gmatch, gsub, match, upper =
    string.find, string.format, string.gmatch, string.gsub, string.match, string.upper

local UNITS = { ms = 0.001, s = 1, m = 60, h = 3600, [""] = 1 }
local ID_MAX = 4294967294
local COUNT_MAX = 1000000 -- as a writer has it
local COMMAND_TIMEOUT = 60 -- seconds

local M = {}

--- A mode of files: octal digits, `640` or `0640`.
-- @tparam string text
-- @treturn string octal digits as a writer takes them
function M.mode(text)
    if not find(text, "^0?[0-7][0-7][0-7]$") then
        return nil, format("'%s' is no file mode: give three octal digits, such as 0640", text)
    end
    return "0" .. match(text, "...$")
end

--- A mode of directories, which their owner must be able to read and enter.
-- @tparam string text
-- @treturn string
function M.dir_mode(text)
    local mode, why = M.mode(text)
    if not mode then return nil, why end
    if not find(mode, "^0[57]") then
        return nil, format("'%s' locks the owner out: give 0700, 0750 or 0755", text)
    end
    return mode
end

--- A command of the shell.
-- @tparam string text
-- @treturn string
function M.command(text)
    if not find(text, "%S") then return nil, "the command is empty" end
    return text
end

--- A whole number from 0 to 1000000.
-- @tparam string text
-- @treturn number
function M.count(text)
    local number = find(text, "^%d+$") and tonumber(text)
    if number and number <= COUNT_MAX then return number end
    return nil, format("'%s' is no number from 0 to %d", text, COUNT_MAX)
end

--- A time: `100ms`, `2s`, `1.5m`, `1h`; plain numbers are seconds.
-- @tparam string text
-- @treturn number seconds
function M.duration(text)
    local number, unit = match(text, "^(%d+%.?%d*)(%a*)$")
    number = number and UNITS[unit] and tonumber(number) * UNITS[unit]
    if not number or number > 1e9 then
        return nil, format("'%s' is no time: give a number and ms, s, m or h, such as 100ms", text)
    end
    return number
end

--- How long a command may take.
-- @tparam ?number seconds 0: for ever; nil: as long as usual
-- @treturn ?number seconds; nil: for ever
function M.command_timeout(seconds)
    seconds = seconds or COMMAND_TIMEOUT
    return seconds > 0 and seconds or nil
end

-- NAME as the system knows it, by LOOKUP of the core.
local function find_id(text, lookup, kind)
    if find(text, "^%d+$") then
        local id = tonumber(text)
        if id > ID_MAX then return nil, format("%s id %s is out of range", kind, text) end
        return id
    end
    local id, err = require("atomicwriter.core")[lookup](text)
    if id then return id end
    return nil, format("there is no %s '%s'%s", kind, text, err and ": " .. tostring(err) or "")
end

--- A user, by name or number.
-- @tparam string text
-- @treturn number
function M.user(text) return find_id(text, "user_id", "user") end

--- A group, by name or number.
-- @tparam string text
-- @treturn number
function M.group(text) return find_id(text, "group_id", "group") end

--- A signal: `HUP`, `SIGHUP` or `hup`.
-- @tparam string text
-- @treturn string `"HUP"`
function M.signal(text)
    local name = match(upper(text), "^SIG(%u+%d*)$") or match(upper(text), "^%u+%d*$")
    local loaded, number = pcall(require("atomicwriter.cli.process").signal_number, name or "")
    if not loaded then return nil, tostring(number) end -- luv is missing
    if not number then
        return nil, format("there is no signal '%s': give a name such as HUP or USR1", text)
    end
    return name
end

--- Tags of templates: openers and closers of expressions, statements, comments, in this order.
-- @tparam string text two, four or six words
-- @treturn table as templates take `delimiters`
function M.delimiters(text)
    local words = {}
    for word in gmatch(text, "%S+") do words[#words + 1] = word end
    if #words ~= 2 and #words ~= 4 and #words ~= 6 then
        return nil, "expected two, four or six words, such as '<< >> <% %>'"
    end
    local delimiters = {}
    for index, kind in ipairs { "expression", "statement", "comment" } do
        local opener = words[2 * index - 1]
        delimiters[kind] = opener and { opener, words[2 * index] }
    end
    local ok, why = pcall(require("atomicwriter.template").compile, "", { delimiters = delimiters })
    if not ok then return nil, (gsub(why, "^[^:]*:%d+: ", "")) end
    return delimiters
end

--- `KEY=VALUE`, split at the first `=`.
-- @tparam string form how it is called in errors, which do not show the text: it may be a secret
-- @treturn function which returns a table `{ key =, value = }`
function M.pair(form)
    return function(text)
        local key, value = match(text, "^([^=]+)=(.*)$")
        if not key then return nil, "expected " .. form end
        return { key = key, value = value }
    end
end

--- A prefix of etcd, which is a directory: it gets its slash at the end.
-- @tparam string text
-- @treturn string
function M.etcd_prefix(text)
    return require("atomicwriter.cli.etcd.requests").prefix(text)
end

--- `NAME=PREFIX`.
-- @tparam string text
-- @treturn table `{ key =, value = }`
function M.etcd_pair(text)
    local pair, why = M.pair("NAME=PREFIX")(text)
    if not pair then return nil, why end
    pair.value, why = M.etcd_prefix(pair.value)
    if not pair.value then return nil, why end
    return pair
end

--- A user of etcd, without the password, which everybody could see here.
-- @tparam string text
-- @treturn string
function M.etcd_user(text)
    if text == "" then return nil, "the user is empty" end
    if find(text, ":", 1, true) then
        return nil, "give the password in ETCDCTL_PASSWORD or by --etcd-password-file: arguments "
            .. "can be seen by everybody"
    end
    return text
end

--- A revision of etcd.
-- @tparam string text
-- @treturn number
function M.revision(text)
    local number = find(text, "^%d+$") and #text <= 15 and tonumber(text)
    if number then return number end
    return nil, format("'%s' is no revision: give a number, as publish prints it", text)
end

--- CONVERT with NAME in front of its errors.
-- @tparam string name
-- @tparam function convert
-- @treturn function
function M.named(name, convert)
    return function(text)
        local value, why = convert(text)
        if value == nil then return nil, format("%s: %s", name, why) end
        return value
    end
end

--- A text that is not empty.
-- @tparam string text
-- @treturn string
function M.text(text)
    if text == "" then return nil, "it is empty" end
    return text
end

--- `KEY=MODE`, split at the last `=`.
-- @tparam string text
-- @treturn table `{ key =, value = }`
function M.key_mode(text)
    local key, mode_text = match(text, "^(.+)=([^=]*)$")
    if not key then return nil, "expected KEY=MODE, such as key.pem=0600" end
    local mode, why = M.mode(mode_text)
    if not mode then return nil, why end
    return { key = key, value = mode }
end

--- `KEY=USER[:GROUP]`, `KEY=:GROUP`, split at the last `=`.
-- @tparam string text
-- @treturn table `{ key =, uid =, gid = }`
function M.key_owner(text)
    local key, user, group = match(text, "^(.+)=([^=:]*):?([^=:]*)$")
    if not key or user .. group == "" then
        return nil, "expected KEY=USER, KEY=USER:GROUP or KEY=:GROUP"
    end
    local owner = { key = key }
    for field, pair in pairs { uid = { user, M.user }, gid = { group, M.group } } do
        if pair[1] ~= "" then
            local id, why = pair[2](pair[1])
            if not id then return nil, why end
            owner[field] = id
        end
    end
    return owner
end

return M
