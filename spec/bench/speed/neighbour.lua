--- Somebody else who has just written a lot to the same file system, and syncs nothing.

local host = require "spec.bench.host"

local M = {}

M.MEBIBYTES = 200

local Beside = {}
Beside.__index = Beside

--- Each time the neighbour's file is new, so all of it is dirty when the work begins.
function Beside:run(repetitions, samples)
    local make = ("dd if=/dev/zero of=%s bs=1M count=%d status=none"):format(self.file, M.MEBIBYTES)
    for _ = 1, repetitions do
        os.execute("rm -f " .. self.file)
        local status = os.execute(make)
        assert(status == true or status == 0, "bench: dd failed")
        self.side:run(1, samples)
    end
    os.execute("rm -f " .. self.file)
end

function Beside:close()
    self.side:close()
end

--- SIDE, in DIRECTORY, with such a neighbour.
function M.of(side, directory)
    return setmetatable({ side = side, file = host.shell_quote(directory .. "/neighbour") }, Beside)
end

return M
