-- Units of a queue's workers, checked by systemd before they are published.
local data = require "atomicwriter.data"

return {
    target = os.getenv("TARGET") or "/tmp/atomicwriter-systemd/units",
    create = true,
    payload = function(context)
        local workers, err = data.load("workers.yaml")
        if not workers then return nil, err end
        context.workers = workers
        return {
            ["worker@.service"] = { template = "worker@.service.tmpl" },
            ["worker@.service.d/limits.conf"] = { template = "limits.conf.tmpl" },
        }
    end,
    check = "./check-units {}",
    reload = os.getenv("RELOAD"), -- "systemctl daemon-reload"
}
