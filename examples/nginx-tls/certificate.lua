--- Serve certificate and key from one version of a projected directory.
--
-- Both are parsed once for each version and worker. A pair that does not belong together is
-- not served: the worker keeps the last good one.

local ffi = require "ffi"
local resty_aw = require "resty.atomicwriter"
local ssl = require "ngx.ssl"

ffi.cdef [[
    void *OPENSSL_sk_value(const void *stack, int index);
    int X509_check_private_key(const void *certificate, const void *key);
]]

local M = {}

local config

-- ngx.ssl's parsed certificate is OpenSSL's stack of them, the server's own first.
local function belong_together(view)
    local certificate, key = view:get "tls.crt", view:get "tls.key"
    if not certificate or not key then return nil, "tls.crt or tls.key is missing" end
    if ffi.C.X509_check_private_key(ffi.C.OPENSSL_sk_value(certificate, 0), key) ~= 1 then
        return nil, "tls.key is not the key of tls.crt"
    end
    return true
end

--- Follow the directory TARGET; belongs into init_worker_by_lua.
function M.follow(target)
    config = assert(resty_aw.new {
        target = target,
        decode = { ["tls.crt"] = ssl.parse_pem_cert, ["tls.key"] = ssl.parse_pem_priv_key },
        check = belong_together,
        notify = true,
    })
    config:start()
end

--- The pair for this handshake; belongs into ssl_certificate_by_lua.
function M.serve()
    -- One view for both: in a handshake each get() would take the newest.
    local view, err = config:view()
    if view then
        local fine
        fine, err = ssl.clear_certs()
        if fine then fine, err = ssl.set_cert(view:get "tls.crt") end
        if fine then fine, err = ssl.set_priv_key(view:get "tls.key") end
        if fine then return end
    end
    ngx.log(ngx.ERR, "no certificate: ", tostring(err))
    ngx.exit(ngx.ERROR)
end

--- The version that new handshakes get.
function M.version()
    return config:version()
end

return M
