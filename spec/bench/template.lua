--- How long our templates take, beside Penlight's pl.template for the same text.
--
--    make bench
--    lua5.4 spec/bench/template.lua [--kib 100] [--runs 51]
--
-- Both work in turns on templates of the same size that render the same text, which is checked.
-- What counts is the ratio of the medians; absolute times do not travel.

local measure = require "spec.bench.measure"
local template = require "atomicwriter.template"

local penlight = measure.need("pl.template", "lua-penlight")

-- The promise: compiling and rendering takes at most this many times Penlight's time.
local WANTED = 2

-- One part of the templates, in our words. Each starts with other text, as real ones do.
local PART = [[
# upstream %d, written by a template: do not edit
server {
    listen      {{ server.port }};
    server_name {{ server.name .. ".example" }};
    root        /srv/www/site-%d/public;
{%% for _, path in ipairs(server.paths) do %%}
    location {{ path }} { proxy_pass http://{{ server.host }}:{{ server.port + 1 }}; }
{%% end %%}
{%% if server.tls then %%}
    ssl_certificate /etc/tls/{{ server.name }}.crt;
{%% end %%}
    access_log  /var/log/nginx/site-%d.log combined if=$loggable;
}
]]

local CONTEXT = {
    server = {
        port = 8080, name = "shop", host = "10.0.0.7", tls = true,
        paths = { "/api", "/static", "/images", "/login" },
    },
}

local function our_source(bytes)
    local parts, size = {}, 0
    while size < bytes do
        local number = #parts
        parts[#parts + 1] = PART:format(number, number, number)
        size = size + #parts[#parts]
    end
    return table.concat(parts)
end

-- The same for Penlight: @ starts a line of Lua, $( ) prints.
local function their_source(source)
    source = source:gsub("{%% (.-) %%}", "@ %1")
    return (source:gsub("{{ (.-) }}", "$(%1)"))
end

local OPTIONS = { escape = "@" }
local THEIR_CONTEXT = { server = CONTEXT.server, ipairs = ipairs }

local function time(samples, work, ...)
    collectgarbage()
    local start = measure.now()
    local result = work(...)
    samples[#samples + 1] = (measure.now() - start) / 1e6
    return result
end

local SIDES = {
    ours = {
        compile = function(source) return assert(template.compile(source)) end,
        render = function(page) return assert(page:render(CONTEXT)) end,
    },
    theirs = {
        compile = function(source) return assert(penlight.compile(source, OPTIONS)) end,
        render = function(page) return assert(page:render(THEIR_CONTEXT)) end,
    },
}

local function run(side, source, samples)
    local page = time(samples.compile, side.compile, source)
    local text = time(samples.render, side.render, page)
    local last = #samples.compile
    samples.both[#samples.both + 1] = samples.compile[last] + samples.render[last]
    return text
end

local function run_all(sources, runs)
    local samples = {}
    for name in pairs(SIDES) do samples[name] = { compile = {}, render = {}, both = {} } end
    for number = 1, runs do
        local order = number % 2 == 1 and { "ours", "theirs" } or { "theirs", "ours" }
        local texts = {}
        for _, name in ipairs(order) do
            texts[name] = run(SIDES[name], sources[name], samples[name])
        end
        assert(texts.ours == texts.theirs, "bench: the two sides render different texts")
    end
    return samples
end

local function print_table(samples)
    print(("  %-10s %12s %4s %12s %4s %7s  %s"):format(
        "work", "pl.template", "+-", "atomicwriter", "+-", "ratio", "wanted"))
    for _, work in ipairs { "compile", "render", "both" } do
        local their_time, their_spread = measure.summary(samples.theirs[work])
        local our_time, our_spread = measure.summary(samples.ours[work])
        local ratio = our_time / their_time
        local verdict = ""
        if work == "both" then
            verdict = ("<= %.2f %s"):format(WANTED, ratio <= WANTED and "met" or "MISSED")
        end
        print(("  %-10s %12.2f %3.0f%% %12.2f %3.0f%% %7.2f  %s"):format(
            work, their_time, their_spread, our_time, our_spread, ratio, verdict))
    end
end

local function main(arguments)
    local kib, runs = 100, 51
    for i = 1, #arguments, 2 do
        local number = tonumber(arguments[i + 1])
        if arguments[i] == "--kib" and number then
            kib = number
        elseif arguments[i] == "--runs" and number then
            runs = number
        else
            error("bench: usage: template.lua [--kib N] [--runs N]", 0)
        end
    end
    local source = our_source(kib * 1024)
    print(("templates of %d KiB, %s, %d runs; milliseconds, medians, and half of the distance of "
        .. "the quartiles"):format(
        math.floor(#source / 1024), type(jit) == "table" and jit.version or _VERSION, runs))
    print_table(run_all({ ours = source, theirs = their_source(source) }, runs))
end

main(arg)
