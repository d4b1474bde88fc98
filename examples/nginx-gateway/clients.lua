-- For wrk: what the clients of the gateway saw. A mixed answer is one whose two revisions differ.

local threads = {}

function setup(thread)
    threads[#threads + 1] = thread
end

function init()
    blue, green, failed, mixed, newest = 0, 0, 0, 0, 0
end

function response(status, headers, body)
    local routes, flags = tonumber(headers["X-Routes"]), tonumber(headers["X-Flags"])
    if status ~= 200 or not routes or not flags then
        failed = failed + 1
        return
    end
    if routes ~= flags then mixed = mixed + 1 end
    -- Odd revisions go to green, even ones to blue.
    if (routes % 2 == 1) ~= (body == "green\n") then mixed = mixed + 1 end
    if body == "green\n" then green = green + 1 else blue = blue + 1 end
    if routes > newest then newest = routes end
end

function done(summary)
    local sum = { blue = 0, green = 0, failed = 0, mixed = 0 }
    local newest_of_all = 0
    for _, thread in ipairs(threads) do
        for name in pairs(sum) do sum[name] = sum[name] + thread:get(name) end
        newest_of_all = math.max(newest_of_all, thread:get "newest")
    end
    local errors = summary.errors
    io.write(("requests=%d blue=%d green=%d failed=%d mixed=%d newest=%d\n"):format(
        summary.requests, sum.blue, sum.green, sum.failed + errors.connect + errors.read
        + errors.write + errors.timeout, sum.mixed, newest_of_all))
end
