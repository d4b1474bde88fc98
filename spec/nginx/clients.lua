-- For wrk: what the clients of a load saw. A body of two words names the version of two files; they
-- differ when the answer is mixed. With an argument each waits up to so many milliseconds before it
-- asks again. Ends with one line: NAME=NUMBER…, times in microseconds.

local threads = {}

function setup(thread)
    threads[#threads + 1] = thread
end

function init(args)
    answers, failed, mixed = 0, 0, 0
    local pause = tonumber(args[1])
    if pause then
        function delay() return math.random(0, pause) end
    end
end

function response(status, _, body)
    answers = answers + 1
    if status ~= 200 then failed = failed + 1 end
    local first, second = body:match "^(%w+) (%w+)$"
    if first ~= second then mixed = mixed + 1 end
end

function done(summary, latency)
    local sum = { answers = 0, failed = 0, mixed = 0 }
    for _, thread in ipairs(threads) do
        for name in pairs(sum) do sum[name] = sum[name] + thread:get(name) end
    end
    local errors = summary.errors
    io.write(("answers=%d failed=%d mixed=%d p50=%d p99=%d max=%d\n"):format(sum.answers,
        sum.failed + errors.connect + errors.read + errors.write + errors.timeout, sum.mixed,
        latency:percentile(50), latency:percentile(99), latency.max))
end
