--- What is written: files of one size, all at the top or a hundred in each directory.

local M = {}

M.SIZE = 1024
local PER_DIRECTORY = 100

--- The path of the file INDEX, from 0; the same as the floor's.
function M.path(index, layout)
    if layout == "flat" then return ("f%05d"):format(index) end
    return ("d%03d/f%05d"):format(math.floor(index / PER_DIRECTORY), index)
end

--- Two payloads of N files that differ in all of them ("all"), in one, or in none.
function M.pair(differ, n, layout)
    local first, second = {}, {}
    local a, b = ("a"):rep(M.SIZE), ("b"):rep(M.SIZE)
    local changed = math.floor(n / 2)
    for i = 0, n - 1 do
        local path = M.path(i, layout)
        first[path] = a
        second[path] = (differ == "all" or (differ == "one" and i == changed)) and b or a
    end
    return first, second
end

return M
