std = "lua54+luajit"
max_line_length = 100
files["spec/**/*_spec.lua"] = { std = "+busted" }
local inside_nginx = {
    std = "ngx_lua+luajit",
    read_globals = { ngx = { other_fields = true, fields = { run_worker_thread = {} } } },
}
files["lua/resty"] = inside_nginx
files["examples/nginx-tls"] = inside_nginx
files["examples/nginx-gateway/gateway.lua"] = inside_nginx
-- What wrk calls, and what it lets one of its states read of another, are globals.
files["**/*clients.lua"] = { globals = {
    "setup", "init", "delay", "response", "done",
    "blue", "green", "answers", "failed", "mixed", "newest",
} }
