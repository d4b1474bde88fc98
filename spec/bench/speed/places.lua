--- Where is measured: in memory, on file systems with a journal that are made for it, on disk.
--
-- A file system is made in an image on BENCH_DISK and mounted as a loop device. The image has no
-- name any more then, so nothing is left of it once it is unmounted; run.sh sees to that.

local host = require "spec.bench.host"

local quote = host.shell_quote

local M = {}

-- What ext4 would else initialise in the background is initialised at once.
local MAKE = {
    ext4 = { command = "mkfs.ext4 -q -F -O has_journal -E lazy_itable_init=0,lazy_journal_init=0",
        package = "e2fsprogs" },
    xfs = { command = "mkfs.xfs -q -f", package = "xfsprogs" },
    btrfs = { command = "mkfs.btrfs -q -f", package = "btrfs-progs" },
}
local IMAGE_SIZE = "6G" -- sparse

local function run(command)
    local status = os.execute(command)
    return status == true or status == 0
end

local function loop_image(kind, disk)
    local make = MAKE[kind]
    local program = make.command:match("^%S+")
    if not run("command -v " .. program .. " >/dev/null") then
        return nil, program .. " is missing: apt-get install " .. make.package
    end
    local image, mounted = disk .. "/" .. kind .. ".image", disk .. "/" .. kind
    local script = "image=%s mounted=%s; truncate -s %s $image && %s $image >/dev/null"
        .. " && mkdir $mounted && mount -o loop $image $mounted && rm $image"
    if not run(script:format(quote(image), quote(mounted), IMAGE_SIZE, make.command)) then
        return nil, "no loop device could be mounted"
    end
    return mounted
end

--- Whether NAME is one of ours; else it is a directory of the user's.
function M.is_known(name)
    return name == "tmpfs" or MAKE[name] ~= nil
end

--- The places of NAMES that can be: in the stead of images, which only root can mount, TMPDIR.
function M.possible(names)
    if os.getenv("BENCH_MOUNTS") then return names end
    local found, instead = {}, false
    for _, name in ipairs(names) do
        if not MAKE[name] then
            found[#found + 1] = name
        elseif not instead then
            print("only root can mount file systems made for this: TMPDIR has to do")
            found[#found + 1], instead = "disk", true
        end
    end
    return found
end

--- Open the place NAME: "tmpfs", "ext4", "xfs", "btrfs", "disk" (TMPDIR) or a path. Returns
-- { name =, directory =, kind = what it is, loop = } or nil and why there is none.
function M.open(name)
    local disk = assert(os.getenv("BENCH_DISK"), "bench: start it by make bench, or run.sh")
    local memory = os.getenv("BENCH_MEMORY") or ""
    local place = { name = name, loop = MAKE[name] ~= nil }
    local base, why
    if name == "tmpfs" then
        base, why = memory ~= "" and memory or nil, "there is no /dev/shm"
    elseif place.loop then
        base, why = loop_image(name, disk)
    elseif name == "disk" then
        base = disk
    else
        base, why = name, nil
    end
    if not base then return nil, why end
    local made = host.output_of("mktemp -d " .. quote(base .. "/work-XXXXXX"))
    place.directory = made:match("^[^\n]+")
    if not place.directory then return nil, "no directory can be made in " .. base end
    place.kind = host.file_system(place.directory)
    if place.loop then
        place.kind = ("%s (loop image on %s)"):format(place.kind, host.file_system(disk))
        place.mounted = base
    end
    return place
end

--- Remove what was made, and unmount.
function M.close(place)
    run("rm -rf " .. quote(place.directory))
    if place.mounted then run("umount " .. quote(place.mounted)) end
end

return M
