--- Project a set of files into a directory, all or nothing.
--
-- A *payload* maps relative paths to data, mode and owner. Writing it makes the
-- target directory show exactly that set: whoever reads sees the whole old one
-- or the whole new one, and with the default durability the change survives a
-- power cut. The layout is that of Kubernetes ConfigMap and Secret volumes.
--
--    local atomicwriter = require "atomicwriter"
--
--    local writer = assert(atomicwriter.new("/etc/app", { create = true }))
--    local result = assert(writer:write {
--        ["app.conf"] = "listen = 8080\n",
--        ["tls/key.pem"] = { source = "/root/key.pem", mode = "0600" },
--    })
--    print(result.changed, result.version)
--
-- ### Errors
--
-- What the world does wrong is returned as `nil` and an @{Error}. Misuse raises
-- at the caller's line: a wrong type, an unknown option, a closed object.
--
-- ### Closing
--
-- Writers, snapshots and watchers hold descriptors until `close()`, which may
-- be called again. The garbage collector closes them too, and so does
-- `local writer <close> = …` of Lua 5.4. Each has the field `target`, as it was
-- given, and `tostring()` names it: `atomicwriter.writer (/etc/app)`.
--
-- @module atomicwriter

local core = require "atomicwriter.core"

local M = {}

--- The version of this library, such as `"0.1.0"`.
M._VERSION = core._VERSION

--- A writer for a target directory.
--
-- Makes and locks nothing yet. Any number of writers, in any number of
-- processes, may have the same target: their writes exclude each other.
--
-- A writer that stays open keeps the strings of the payload that it wrote last, and
-- no copy of them. Files that are not to change then take one question to the kernel
-- each instead of being read. `close()` lets go of them.
--
-- A mode is a string of octal digits, `"0644"`, or a number within 0 to 511.
-- @function new
-- @tparam string target path of a directory; a relative one is resolved now
-- @tparam[opt] table options
-- @tparam[opt="0644"] string|number options.default_mode mode of files that have none
-- @tparam[opt="0755"] string|number options.dir_mode mode of the directories in
--  a version, and of a target that is created; the owner must be able to
--  read and enter them
-- @tparam[opt] number options.uid owner of files that have none and of
--  directories; else what a freshly written file gets
-- @tparam[opt] number options.gid group, likewise
-- @tparam[opt=1] number options.keep previous versions retained for @{Writer:rollback}
-- @tparam[opt="full"] string options.durability `"full"`: a successful write
--  survives a power cut; `"none"`: atomic for readers, no syncs
-- @tparam[opt=10] number options.lock_timeout seconds, also fractions, to wait
--  for other writers; 0 does not wait
-- @tparam[opt=true] boolean options.reuse hard-link files that did not change
-- @tparam[opt=false] boolean options.create let the first write make the target,
--  whose parent must exist
-- @tparam[opt=false] boolean options.early return when the new version is live (and
--  durable), and let a thread remove the versions that are not kept
-- @tparam[opt=false] boolean options.prepare let a thread link all files into a fresh
--  directory, `..next`, which becomes the next version when few files differ: that write
--  then costs what has changed, and one question to the kernel a file. For a writer that
--  stays open, on Linux 6.13 or later; elsewhere, and below a setgid target, it does no
--  good. See @{Writer:settle}
-- @treturn[1] Writer
-- @treturn[2] nil
-- @treturn[2] Error `no_target`, `io`
-- @usage local writer = assert(atomicwriter.new("/etc/app", { keep = 3 }))
M.new = core.new

--- A snapshot: a consistent view of the version that is live now.
--
-- It holds a lease, so that writers keep the version while it is open; a stuck
-- reader loses it when more than 16 leased versions have piled up. It also reads
-- read-only mounts, and volumes that a kubelet writes, which knows no leases: there
-- a version that was replaced may end with ESTALE, but is never shown in part.
-- Never blocks.
-- @function open
-- @tparam string target path of a directory
-- @treturn[1] Snapshot
-- @treturn[2] nil
-- @treturn[2] Error `no_target`; `not_found`: no live version; `foreign_entry`; `io`
-- @usage local snapshot = assert(atomicwriter.open("/etc/app"))
M.open = core.open

--- A watcher: tells of new versions.
--
-- The version that is live now counts as seen.
-- @function watch
-- @tparam string target path of a directory
-- @treturn[1] Watcher
-- @treturn[2] nil
-- @treturn[2] Error `no_target`, `foreign_entry`, `io`
-- @usage local watcher = assert(atomicwriter.watch("/etc/app"))
M.watch = core.watch

--- What is in a target, and whether all is well with it.
--
-- Takes no lock, touches nothing and needs no more than the right to read the
-- target; it also looks at read-only mounts, and at volumes that a kubelet writes.
-- All is well when `fault` is nil and `residue`, `dangling`, `missing` and
-- `foreign` are empty. Never blocks.
-- @function inspect
-- @tparam string target path of a directory
-- @treturn[1] Inspection
-- @treturn[2] nil
-- @treturn[2] Error `no_target`, `io`
-- @usage local found = assert(atomicwriter.inspect("/etc/app"))
-- print(found.live or found.message, #found.versions)
M.inspect = core.inspect

--- What to project: a table of relative path to entry.
--
-- An entry is a string, the data, or a table with the fields below. Paths are
-- cleaned (`a//b`, `./a`, `a/`); absolute ones, `..` and first components that
-- begin with `..` are refused, and so are two that clash.
-- @table Payload
-- @tfield string data contents of the file; or else
-- @tfield string source path of a regular file to copy, streamed and never in Lua's memory
-- @tfield ?string|number mode octal digits, `"0640"`, or a number within 0 to 511
-- @tfield ?number uid
-- @tfield ?number gid

--- What a write did.
-- @table Result
-- @tfield boolean changed a new version went live
-- @tfield ?string version the live one, `"..2026_11_22_15_04_05.483920175"`;
--  nil from @{Writer:plan} of a change
-- @tfield ?string previous the one that was live before, if it was another
-- @tfield {string,...} added paths, sorted
-- @tfield {string,...} updated paths whose data, mode or owner differs; a
--  directory's too, `"."` for the top
-- @tfield {string,...} removed paths, sorted
-- @tfield number unchanged count of files that stay as they are
-- @tfield number linked files reused by hard link from an earlier version
-- @tfield number bytes of file data written
-- @tfield {string,...} warnings tidying that failed and is left to the next write

--- Why something failed. `tostring(err)` and `..` give its message.
-- @table Error
-- @tfield string code `"invalid_payload"`, `"no_target"`, `"foreign_entry"`,
--  `"locked"`, `"check_failed"`, `"cancelled"`, `"not_found"` or `"io"`
-- @tfield string message one line for people; begins with the target
-- @tfield ?string path what it is about, relative to the target if below it
-- @tfield ?string op the system call that failed, `"renameat"`
-- @tfield ?number errno of that call
-- @tfield boolean committed whether readers see the new version all the same

--- How far a write is, as its progress function is told.
-- @table Progress
-- @tfield string phase `"lock"`: waits for another writer; `"compare"`: compares
--  the payload with the live version; `"write"`; `"sync"`, if durable
-- @tfield number files done in this phase
-- @tfield number total files to be done in this phase
-- @tfield number bytes of file data that this phase has read or written

--- A retained version, an item of @{Writer:versions}.
-- @table Version
-- @tfield string name `"..2026_11_22_15_04_05.483920175"`
-- @tfield number time when it was written, seconds since 1970 UTC
-- @tfield boolean live

--- What @{inspect} finds. The lists hold names at the top of the target, in byte order.
-- @table Inspection
-- @tfield string target its absolute path
-- @tfield ?string live the name of the live version
-- @tfield ?string fault why there is none: `"missing"`: there is no `..data`;
--  `"dangling"`: what it names is not there; `"foreign"`: it is something else than a
--  link to one version, and no writer touches it
-- @tfield ?string message about the fault, one line
-- @tfield {Version,...} versions the live one and the retained, newest first, each
--  also with the boolean `leased`: a snapshot holds it
-- @tfield {string,...} residue left by a killed writer, for the next one to sweep:
--  unfinished and half-removed versions, `..data_tmp`
-- @tfield {string,...} dangling visible names that lead nowhere
-- @tfield {string,...} missing names of the live version that are not visible
-- @tfield {string,...} foreign names that a writer needs and somebody else has
-- @tfield number others entries of somebody else's at other names, which are left alone
-- @tfield ?boolean locked a writer holds the lock now: then what it is making is
--  neither in `residue` nor in `dangling`. Nil when `..lock` may not be opened: then
--  these two may be a write in progress

--- Writes into one target. Made by @{new}.
-- @type Writer

--- Replace everything visible in the target by a payload, all or nothing.
--
-- Nothing is touched when nothing differs. Blocks on the lock and on the disk.
-- @function Writer:write
-- @tparam Payload payload
-- @tparam[opt] table options
-- @tparam[opt] function options.check called with the absolute path of the
--  staged tree before anybody can see it. Returns `true` to publish, or
--  `false` or `nil` and a reason; when it does so or raises, nothing is
--  published. It cannot use the writer that calls it, and must not write into
--  the tree: files that did not change are shared with the live version.
-- @tparam[opt] function options.progress called with a @{Progress} when a phase
--  begins and then about ten times a second, until the new version goes live.
--  Returns `false`, and perhaps a reason, to cancel; when it does so or raises, the
--  error is `cancelled` and nothing has changed. It cannot use the writer either.
-- @treturn[1] Result
-- @treturn[2] nil
-- @treturn[2] Error any code; look at `committed`
-- @usage local result, err = writer:write({ ["app.conf"] = text }, {
--     check = function(stage)
--         local status = os.execute("app --test-config '" .. stage .. "/app.conf'")
--         return status == true or status == 0, "the app refuses it" -- 0 in LuaJIT
--     end,
-- })

--- What @{Writer:write} would do now. Takes no lock and touches nothing.
-- @function Writer:plan
-- @tparam Payload payload
-- @treturn[1] Result without a version when something would change
-- @treturn[2] nil
-- @treturn[2] Error

--- Publish a retained version again, under a new name.
-- @function Writer:rollback
-- @tparam[opt] string version a name from @{Writer:versions}; the newest
--  retained one by default
-- @tparam[opt] table options
-- @tparam[opt] function options.check as of @{Writer:write}
-- @tparam[opt] function options.progress as of @{Writer:write}
-- @tparam[opt] string options.expect a version's name: roll back only if that one is
--  live once the lock is held, and never undo what somebody else has published
-- @treturn[1] Result
-- @treturn[2] nil
-- @treturn[2] Error `not_found`: none such, or another than the expected one is
--  live; else as for @{Writer:write}

--- The live version and the retained ones, newest first. Takes no lock.
-- @function Writer:versions
-- @treturn[1] {Version,...}
-- @treturn[2] nil
-- @treturn[2] Error

--- Remove every retained version that nobody reads, whatever `keep` says.
-- @function Writer:collect
-- @treturn[1] number how many went
-- @treturn[1] ?Error why some could not go, if there are such
-- @treturn[2] nil
-- @treturn[2] Error

--- Wait until what the last write has left to a thread is done (`early`, `prepare`).
--
-- Nobody has to call this: until then the thread has the lock, and other writers wait for it
-- as for any. The next write and `close()` wait for it, too. A warning of the thread's is in
-- the next result. If the process ends meanwhile, the next writer sweeps what is left.
-- @function Writer:settle

--- Close the writer.
-- @function Writer:close

--- Reads one version. Made by @{open}.
--
-- Its field `version` is the name of that version.
-- @type Snapshot

--- All of a file.
-- @function Snapshot:read
-- @tparam string path relative to the version
-- @treturn[1] string
-- @treturn[2] nil
-- @treturn[2] Error `not_found`: no such regular file; `io` with errno ESTALE:
--  the version was removed under the lease, or by a writer that knows none

--- The paths of all regular files, sorted.
-- @function Snapshot:paths
-- @treturn[1] {string,...}
-- @treturn[2] nil
-- @treturn[2] Error

--- About a regular file or directory.
-- @function Snapshot:stat
-- @tparam string path relative to the version; `"."` is the version itself
-- @treturn[1] table `type`: `"file"` or `"directory"`; the numbers `mode`
--  (permission bits), `uid`, `gid`, `size` (bytes) and `mtime` (seconds since
--  1970 UTC)
-- @treturn[2] nil
-- @treturn[2] Error `not_found`, `io`

--- Whether this version is still the live one.
-- @function Snapshot:is_current
-- @treturn[1] boolean
-- @treturn[2] nil
-- @treturn[2] Error

--- Close the snapshot and end its lease.
-- @function Snapshot:close

--- Tells of new versions of one target. Made by @{watch}.
-- @type Watcher

--- Wait until the live version is another than the last one told.
--
-- Versions that come and go faster than this is called are skipped, the last
-- one never is.
-- @function Watcher:wait
-- @tparam[opt] number timeout seconds, also fractions; 0 only looks, nil waits for ever
-- @treturn[1] string the version's name
-- @treturn[2] nil
-- @treturn[2] string `"timeout"`
-- @treturn[3] nil
-- @treturn[3] Error `no_target`: the target was removed or renamed, told within a
--  second; `foreign_entry`; `io`

--- The inotify descriptor, for an event loop; it stays the watcher's.
--
-- Readable means: call `watcher:wait(0)`.
-- @function Watcher:fd
-- @treturn number

--- Close the watcher.
-- @function Watcher:close

return M
