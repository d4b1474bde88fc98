-- The pair in INCOMING, published into TARGET as soon as certificate and key belong together.
local incoming = os.getenv("INCOMING") or "/tmp/atomicwriter-tls/incoming"

return {
    target = os.getenv("TARGET") or "/tmp/atomicwriter-tls/live",
    create = true,
    keep = 2,
    payload = {
        ["tls.crt"] = { source = incoming .. "/tls.crt" },
        ["tls.key"] = { source = incoming .. "/tls.key", mode = "0600" },
    },
    check = "./check-pair {}",
    reload = os.getenv("RELOAD"), -- "systemctl reload nginx", say
}
