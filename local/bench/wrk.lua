-- The body comes from the file named after `--`; the last line of the output is JSON. Each call has
-- a pair id of its own, as behind the gateway.
local calls = 0

function init(args)
    local file = assert(io.open(args[1], "rb"))
    wrk.method = "POST"
    wrk.body = file:read("*a")
    wrk.headers["Content-Type"] = "application/json"
    file:close()
end

function request()
    calls = calls + 1
    wrk.headers["x-shadow-pair-id"] = string.format("5f0c1d1e-8d5c-4d0f-9d6a-%012d", calls)
    return wrk.format()
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"calls": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "failed": %d}\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
