-- check_layers.lua SOURCES OBJECTS: hold the structure of the C core.
--
--  * a file includes the public header, its own header and those to its left
--    in the order below, and calls nothing to its right;
--  * only lua_atomicwriter.c, which is above them all, includes Lua;
--  * only aw_sys calls the kernel: all that the other objects ask of libc is in
--    the list below;
--  * no object holds writable data: the library has no static state.

local sources, objects = assert(arg[1]), assert(arg[2])

-- Lowest first.
local order = {
    "aw_error", "aw_memory", "aw_meter", "aw_sys", "aw_path", "aw_name", "aw_payload", "aw_at",
    "aw_stamp", "aw_lock", "aw_memo", "aw_current", "aw_rules", "aw_compare", "aw_stage",
    "aw_links", "aw_recover", "aw_ahead", "aw_snapshot", "aw_watch", "aw_inspect", "aw_txn",
    "aw_after", "aw_write", "aw_versions",
}

-- What needs no kernel, as Lua patterns. Memory is the one exception.
local pure = {
    "^mem%a+$", "^str%a+$", "^strerror_r$", "^malloc$", "^calloc$", "^realloc$", "^reallocarray$",
    "^free$", "^qsort$", "^bsearch$", "^v?snprintf$", "^v?sscanf$", "^gmtime_r$", "^timegm$",
    "^abort$",
    "^pthread_mutex_%a+$", "^__errno_location$", "^__xpg_strerror_r$", "^__ctype_b_loc$",
    "^__assert_fail$", "^__stack_chk_fail$", "^_GLOBAL_OFFSET_TABLE_$",
}

local problems = {}
local function problem(...)
    problems[#problems + 1] = string.format(...)
end

local rank = {}
for index, name in ipairs(order) do
    rank[name] = index
end

local function lines_of(command)
    local pipe = assert(io.popen(command))
    local text = pipe:read("a")
    assert(pipe:close(), command)
    return text:gmatch("[^\n]+")
end

-- ---- includes ----------------------------------------------------------

local function check_includes(file, name)
    local number = 0
    for line in io.lines(sources .. "/" .. file) do
        number = number + 1
        local included = line:match('^%s*#%s*include%s*[<"]([^>"]+)[>"]')
        local layer = included and included:match("^(aw_%w+)%.h$")
        if not included then
            goto continue
        elseif included:match("^lua") or included:match("^lauxlib") then
            if name ~= "lua_atomicwriter" then
                problem("%s:%d: includes %s; only lua_atomicwriter.c may", file, number, included)
            end
        elseif layer and not rank[layer] then
            problem("%s:%d: includes %s, which has no place in the order", file, number, included)
        elseif layer and rank[layer] > (rank[name] or math.huge) then
            problem("%s:%d: includes %s, which is above %s", file, number, included, name)
        end
        ::continue::
    end
end

local present = {}
for file in lines_of("ls '" .. sources .. "'") do
    local name = file:match("^(aw_%w+)%.[ch]$") or file:match("^(lua_%w+)%.c$")
    if name and (rank[name] or name == "lua_atomicwriter") then
        check_includes(file, name)
        present[name] = present[name] or file:match("%.c$")
    elseif name then
        problem("%s: has no place in the order of layers", file)
    elseif file:match("%.c$") then
        problem("%s: a C file is named aw_*.c or lua_atomicwriter.c", file)
    end
end

-- ---- symbols -----------------------------------------------------------

local function is_pure(symbol)
    symbol = symbol:match("^__(.+)_chk$") or symbol:match("^__isoc%d+_(.+)$") or symbol
    for _, pattern in ipairs(pure) do
        if symbol:match(pattern) then
            return true
        end
    end
    return false
end

local defined_in, needs = {}, {}
for _, name in ipairs(order) do
    if present[name] then
        needs[name] = {}
        for line in lines_of("objdump -t '" .. objects .. "/" .. name .. ".o'") do
            -- address, seven flag characters, section, size, perhaps .hidden, symbol
            local flags, section, symbol = line:match("^%x+ (.......) (%S+)%s+%x+%s+(.+)$")
            symbol = symbol and symbol:gsub("^%.%S+ ", "")
            if not symbol then
                goto continue
            elseif section == "*UND*" then
                table.insert(needs[name], symbol)
            elseif flags:sub(1, 1) ~= "l" then
                defined_in[symbol] = name
                if not symbol:match("^aw_") then
                    problem("%s: exports %s; names of the core begin with aw_", name, symbol)
                end
            end
            local constant = section:match("^%.rodata") or section:match("^%.data%.rel%.ro")
            if flags:sub(7, 7) == "O" and section ~= "*UND*" and not constant then
                problem("%s: static state: %s in %s", name, symbol, section)
            end
            ::continue::
        end
    end
end

for _, name in ipairs(order) do
    for _, symbol in ipairs(needs[name] or {}) do
        local owner = defined_in[symbol]
        if owner and rank[owner] > rank[name] then
            problem("%s: uses %s of %s, which is above it", name, symbol, owner)
        elseif not owner and symbol:match("^aw_") then
            problem("%s: uses %s, which nothing defines", name, symbol)
        elseif not owner and name ~= "aw_sys" and not is_pure(symbol) then
            problem("%s: calls %s; aw_sys is the only door to the kernel", name, symbol)
        end
    end
end

for _, text in ipairs(problems) do
    print(text)
end
if not next(needs) then
    print("no object was looked at")
end
os.exit(#problems == 0 and next(needs) ~= nil)
