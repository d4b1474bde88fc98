--- The status of a followed directory: for machines as JSON, for people as one small page.
-- @module resty.atomicwriter.status

local atomicwriter = require "atomicwriter"

local ngx = ngx

local M = {}

---- what there is to tell ------------------------------------------------------

local function live_of(target)
    local found, err = atomicwriter.inspect(target)
    if not found then return nil, err.message end
    for _, version in ipairs(found.versions) do
        if version.live then
            return { version = version.name, age = math.max(0, ngx.time() - version.time) }
        end
    end
    if found.live then return { version = found.live } end
    return nil, found.message
end

local function serving_of(config)
    local view = config.newest
    if not view then return nil end
    return { version = view.version, since = config.loaded, written = view.written }
end

local function failure_of(config)
    local failure = config.failure
    if not failure then return nil end
    return { code = failure.code, message = failure.message, time = failure.time,
        version = failure.version }
end

--- Gather the status. Reads the directory's links, and no file.
-- @tparam Config config
-- @treturn table `target`; `healthy`: what is live is what all workers serve; `live`: `{ version=,
--  age= }`, seconds; `serving`: `{ version=, since=, written= }`, seconds since 1970; `error`:
--  `{ code=, message=, time=, version= }`, what still goes wrong in this worker; `worker`: the
--  process that answers. With the option `shared` also `workers`, a list of
--  `{ id=, pid=, version=, refused=, error= }`; `acknowledged`: how many of them serve the live
--  version; `total`
function M.gather(config)
    local live, why = live_of(config.target)
    local status = {
        target = config.target, worker = ngx.worker.pid(), interval = config.options.interval,
        live = live, live_error = why, serving = serving_of(config), error = failure_of(config),
    }
    local current = live and status.serving and live.version == status.serving.version
    if config.workers then
        status.workers = config.workers:list()
        status.total, status.acknowledged = #status.workers, 0
        if live then status.acknowledged = config.workers:count(live.version) end
        current = current and status.acknowledged == status.total
    end
    status.healthy = current and not status.error or false
    return status
end

---- for people -----------------------------------------------------------------

local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(value)
    return (tostring(value):gsub('[&<>"]', ESCAPES))
end

local UNITS = { { 86400, "d" }, { 3600, "h" }, { 60, "min" } }

local function duration(seconds)
    for _, unit in ipairs(UNITS) do
        if seconds >= unit[1] then return ("%d %s"):format(seconds / unit[1], unit[2]) end
    end
    return ("%d s"):format(seconds)
end

local PAGE = [[
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width">
<title>%s</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem; padding: 0 1rem;
       color: #222; background: #fff }
h1 { font-size: 1.3rem; overflow-wrap: anywhere }
.state { display: inline-block; padding: .1rem .6rem; border-radius: .3rem; color: #fff;
         background: #b3261e }
.state.good { background: #1b6e3c }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem }
dt { color: #666 }
dd { margin: 0; overflow-wrap: anywhere }
code { font-size: .95em }
table { border-collapse: collapse; width: 100%% }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ddd;
         vertical-align: top; white-space: nowrap }
td:last-child { white-space: normal; overflow-wrap: anywhere }
th { color: #666; font-weight: normal }
.bad { color: #b3261e }
</style>
<h1>%s <span class="state%s">%s</span></h1>
<dl>%s</dl>
%s</html>
]]

local function row(name, html)
    return ("<dt>%s</dt><dd>%s</dd>\n"):format(name, html)
end

local function code(value)
    return "<code>" .. escape(value) .. "</code>"
end

local function bad(value)
    return '<span class="bad">' .. escape(value) .. "</span>"
end

local function facts(status)
    local live, serving, rows = status.live, status.serving, {}
    if live then
        rows[1] = row("live version", code(live.version))
        if live.age then rows[#rows + 1] = row("published", duration(live.age) .. " ago") end
    else
        rows[1] = row("live version", bad(status.live_error or "none"))
    end
    if not serving then
        rows[#rows + 1] = row("served", bad "nothing yet")
    elseif not live or serving.version ~= live.version then
        rows[#rows + 1] = row("served instead", code(serving.version))
    end
    if status.total then
        rows[#rows + 1] = row("acknowledged",
            ("by %d of %d workers"):format(status.acknowledged, status.total))
    end
    if status.error then rows[#rows + 1] = row("last error", bad(status.error.message)) end
    return table.concat(rows)
end

local function worker_table(status)
    if not status.workers then return "" end
    local rows = { "<table>\n<tr><th>worker</th><th>process</th><th>serves</th>"
        .. "<th>error</th></tr>\n" }
    for _, worker in ipairs(status.workers) do
        rows[#rows + 1] = ("<tr><td>%d</td><td>%d</td><td>%s</td><td>%s</td></tr>\n"):format(
            worker.id, worker.pid, worker.version and code(worker.version) or "nothing",
            worker.error and bad(worker.error) or "")
    end
    rows[#rows + 1] = "</table>\n"
    return table.concat(rows)
end

--- The status as a page: HTML with its style inside and nothing from elsewhere.
-- @tparam table status as of `gather`
-- @treturn string
function M.page(status)
    return PAGE:format(escape(status.target), escape(status.target),
        status.healthy and " good" or "", status.healthy and "current" or "not current",
        facts(status), worker_table(status))
end

---- the handler ----------------------------------------------------------------

--- The status as JSON.
-- @tparam table status as of `gather`
-- @treturn string
function M.json(status)
    local cjson = require("cjson").new()
    if status.workers and #status.workers == 0 then status.workers = cjson.empty_array end
    return cjson.encode(status)
end

-- A browser names HTML before it says that anything will do; curl and probes do not.
local function wants_page()
    local format = ngx.var.arg_format
    if format then return format == "html" end
    return (ngx.var.http_accept or ""):find("text/html", 1, true) ~= nil
end

--- Answer the request with the status.
-- @tparam Config config
function M.serve(config)
    local status = M.gather(config)
    ngx.status = status.serving and 200 or 503
    ngx.header["Cache-Control"] = "no-store"
    ngx.header["Vary"] = "Accept"
    if wants_page() then
        ngx.header["Content-Type"] = "text/html; charset=utf-8"
        ngx.header["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
        ngx.print(M.page(status))
    else
        ngx.header["Content-Type"] = "application/json"
        ngx.print(M.json(status), "\n")
    end
end

return M
