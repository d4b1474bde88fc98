std = "lua54+luajit"
max_line_length = 100
files["spec/**/*_spec.lua"] = { std = "+busted" }
files["lua/resty"] = {
    std = "ngx_lua+luajit",
    read_globals = { ngx = { other_fields = true, fields = { run_worker_thread = {} } } },
}
