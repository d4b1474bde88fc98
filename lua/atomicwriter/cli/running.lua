--- Projections, once or for as long as their inputs change.
-- @module atomicwriter.cli.running

local M = {}

-- All are gathered before the first is written, so that a mistake in one touches none.
local function gather_all(projections, console)
    local payloads = {}
    for index, projection in ipairs(projections) do
        local payload, err = projection:gather()
        if not payload then return nil, console:fail(err, projection.target) end
        payloads[index] = payload
    end
    return payloads
end

--- Run each once.
-- @tparam {table,...} projections
-- @tparam table args `dry_run`
-- @tparam table services
-- @treturn number exit code, that of the first which did not succeed
function M.once(projections, args, services)
    local payloads, failure = gather_all(projections, services.console)
    if not payloads then return failure end
    local code = 0
    for index, projection in ipairs(projections) do
        local step = args.dry_run and projection.plan or projection.write
        local outcome = step(projection, payloads[index])
        projection:close()
        if outcome.error then services.console:log_error(outcome.error) end
        if code == 0 then code = outcome.code end
    end
    return code
end

--- Run them once, or watch.
-- @tparam {table,...} projections
-- @tparam table args `watch`, `debounce`, `splay`, `interval`, `dry_run`
-- @tparam table services
-- @tparam[opt] table loader see `atomicwriter.cli.watching`
-- @treturn number exit code
function M.run(projections, args, services, loader)
    if not args.watch then return M.once(projections, args, services) end
    return require("atomicwriter.cli.watching").run(projections, args, services, loader)
end

return M
