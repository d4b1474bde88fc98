/* atomicwriter: project a set of files into a directory, all or nothing.
 *
 * A payload maps relative paths to data, mode and owner. aw_write() makes the
 * target directory show exactly that set. The layout is the one Kubernetes
 * uses for ConfigMap and Secret volumes:
 *
 *   TARGET/
 *     ..data -> ..2026_11_22_15_04_05.483920175   the live version
 *     ..2026_11_22_15_04_05.483920175/            its files, never changed again
 *     ..2026_11_22_14_00_00.118273645/            a retained previous version
 *     ..lock                                      flock'ed by writers, never unlinked
 *     podName -> ..data/podName                   visible names: first components
 *
 * One rename of a symbolic link over "..data" is the whole change: whoever
 * resolves "..data" once sees the old set or the new one.
 *
 * WHAT IS PROMISED
 *
 *   G1  atomic         one resolution of "..data", one complete version
 *   G2  all or nothing a failure before the swap leaves nothing behind
 *   G3  committed      after the swap nothing is undone; a later error says
 *                      committed = true, a failed tidy-up is a warning
 *   G4  durable        AW_DURABLE: once aw_write() returns 0, the version
 *                      survives a power cut, and so does everything it shares
 *                      with an earlier one
 *   G5  self-healing   every write first sweeps what a killed one left
 *   G6  serialised     writers exclude each other with flock on "..lock"
 *   G7  confined       nothing outside the target is created, followed, deleted
 *   G8  exact          data, mode, uid, gid are all compared and all set
 *   G9  snapshots      a reader's lease keeps its version from being removed
 *   G10 compatible     whatever reads a Kubernetes volume reads this one
 *
 * HOW TO CALL IT
 *
 *   aw_error err;
 *   aw_writer *writer = NULL;
 *   aw_payload *payload = NULL;
 *   aw_result result = AW_RESULT_INIT;
 *   aw_options options = AW_OPTIONS_INIT;
 *   aw_entry entry = AW_ENTRY_INIT;
 *   int rc = -1;
 *
 *   entry.data = "hello\n";
 *   entry.size = 6;
 *   if (aw_payload_new(&payload, &err) == 0
 *       && aw_payload_add(payload, "greeting", 8, &entry, &err) == 0
 *       && aw_writer_open("/etc/app", &options, &writer, &err) == 0)
 *       rc = aw_write(writer, payload, NULL, &result, &err);
 *   if (rc != 0) {
 *       char text[AW_ERROR_TEXT_MAX];
 *       fputs(aw_error_text(&err, text, sizeof text), stderr);
 *   }
 *   aw_result_clear(&result);
 *   aw_writer_close(writer);
 *   aw_payload_free(payload);
 *
 * RULES THAT HOLD FOR EVERY FUNCTION
 *
 *   Result      0 is success, -1 is failure with *ERR filled. Out parameters
 *               are untouched by a failure. ERR must not be NULL.
 *   Ownership   what a function hands out is freed by the function of the same
 *               family (…_free, …_close, …_clear), which accept NULL and
 *               cleared objects. Strings passed in are copied unless the
 *               comment says "borrowed".
 *   Threads     no static state, no umask, no chdir, no signals, no fork. Any
 *               thread may use any object, one thread at a time per object.
 *   Descriptors every one is O_CLOEXEC and belongs to the object that made it.
 *   Blocking    only where the comment says so.
 */
#ifndef ATOMICWRITER_H
#define ATOMICWRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The one place where the version number stands. */
#define AW_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define AW_API __attribute__((visibility("default")))
#else
#define AW_API
#endif

/* ---- errors ------------------------------------------------------------ */

typedef enum aw_code {
    AW_OK = 0,
    AW_E_INVALID_PAYLOAD, /* the payload breaks a rule; nothing was touched  */
    AW_E_NO_TARGET,       /* the target is missing or is not a directory     */
    AW_E_FOREIGN_ENTRY,   /* something that is not ours stands in the way    */
    AW_E_LOCKED,          /* another writer held the lock until the timeout  */
    AW_E_CHECK_FAILED,    /* the caller's check refused the staged tree      */
    AW_E_CANCELLED,       /* the caller's progress hook said stop            */
    AW_E_NOT_FOUND,       /* no such version, or no such file in it          */
    AW_E_IO               /* the system said no: see op and sys_errno        */
} aw_code;

enum {
    AW_ERROR_PATH_MAX = 4200,
    AW_ERROR_DETAIL_MAX = 512,
    AW_ERROR_TEXT_MAX = 5120
};

/* What went wrong, where, and whether it has happened all the same. */
typedef struct aw_error {
    aw_code     code;
    int         sys_errno;  /* 0 unless the system reported it              */
    bool        committed;  /* readers already see the new version          */
    const char *op;         /* the failed call, static: "renameat"; or NULL */
    char        path[AW_ERROR_PATH_MAX];     /* the offending path, relative to
                               the target when it lies below it; a NUL byte in
                               it reads \0; "" when there is none           */
    char        detail[AW_ERROR_DETAIL_MAX]; /* the reason in words, or ""  */
} aw_error;

/* The name of a code as the Lua module gives it: "invalid_payload", … ("ok"
 * for AW_OK). A static string, never NULL. */
AW_API const char *aw_code_name(aw_code code);

/* Compose one line (no newline) for people into TEXT of SIZE bytes, cut if it
 * is too long, control bytes escaped. Returns TEXT. Never holds file contents. */
AW_API const char *aw_error_text(const aw_error *err, char *text, size_t size);

/* ---- payload ----------------------------------------------------------- */

/* For mode, uid and gid: "not given". Mode then is the writer's default_mode;
 * an owner is the writer's uid/gid, or else what a file freshly written there
 * gets. */
#define AW_UNSET (-1)

/* One file. Either DATA and SIZE or SOURCE, not both. */
typedef struct aw_entry {
    const char *data;   /* borrowed until the write returns; any bytes       */
    size_t      size;   /* bytes in DATA                                     */
    const char *source; /* a regular file to copy, streamed by the core;
                           copied; relative to the working directory         */
    int         mode;   /* 0 to 0777, or AW_UNSET. What the writer may not
                           read back (0200, and not root) differs each time  */
    int64_t     uid;    /* 0 to 4294967294, or AW_UNSET                      */
    int64_t     gid;    /* likewise                                          */
} aw_entry;

#define AW_ENTRY_INIT { NULL, 0, NULL, AW_UNSET, AW_UNSET, AW_UNSET }

typedef struct aw_payload aw_payload;

/* An empty payload; the caller frees it with aw_payload_free(). */
AW_API int aw_payload_new(aw_payload **payload, aw_error *err);

/* Add PATH (LENGTH bytes, so that a NUL byte is noticed) with ENTRY.
 *
 * The path is cleaned as Go's path.Clean would ("a//b", "./a", "a/"). Refused
 * with AW_E_INVALID_PAYLOAD: empty, ".", absolute, any ".." component, a NUL
 * byte, a component above 255 bytes, more than 4096 bytes, a first component
 * that begins with ".." once cleaned; a mode or an owner out of range. That
 * two paths clash (the same once cleaned; "a" with "a/b") is found when the
 * payload is used. A refused path leaves the payload as it was. */
AW_API int aw_payload_add(aw_payload *payload, const char *path, size_t length,
                          const aw_entry *entry, aw_error *err);

/* The number of paths added. */
AW_API size_t aw_payload_count(const aw_payload *payload);

/* Whether what was added after INDEX others is PATH (LENGTH bytes) with what ENTRY
 * says, and the path is clean as it stands; false until PAYLOAD has been used. So a
 * caller can see, without building it anew, that it has the one that it would build. */
AW_API bool aw_payload_has(const aw_payload *payload, size_t index, const char *path,
                           size_t length, const aw_entry *entry);

/* A payload that says what PAYLOAD says, which has been used; what it borrows is borrowed
 * once more. Its paths are shared, whichever of the two is freed first, and while both are
 * there PAYLOAD is given no more files: so that who changes few of many files need not build
 * it anew, and a writer that has the other sees at once which. */
AW_API int aw_payload_derive(const aw_payload *payload, aw_payload **derived, aw_error *err);

/* Whether what was added after INDEX others is PATH (LENGTH bytes), clean as it stands. */
AW_API bool aw_payload_is_at(const aw_payload *payload, size_t index, const char *path,
                             size_t length);

/* Put ENTRY in the place of what was added after INDEX others, which there is. Refuses what
 * aw_payload_add() does. */
AW_API int aw_payload_replace(aw_payload *payload, size_t index, const aw_entry *entry,
                              aw_error *err);

AW_API void aw_payload_free(aw_payload *payload);

/* ---- writer ------------------------------------------------------------ */

typedef enum aw_durability {
    AW_DURABLE = 0,   /* success survives a power cut ("full" in Lua)        */
    AW_NOT_DURABLE    /* atomic for readers, unsafe against power cuts       */
} aw_durability;

typedef struct aw_options {
    int           default_mode;  /* of files: 0 to 0777; 0644                */
    int           dir_mode;      /* of directories in a version: 0500 to
                                    0777, the owner can read and enter; and of
                                    a created target, which its owner can
                                    always write to; 0755                    */
    int64_t       uid, gid;      /* of files without one, and of directories;
                                    AW_UNSET: what a fresh file gets         */
    unsigned      keep;          /* previous versions retained; 1            */
    aw_durability durability;    /* AW_DURABLE                               */
    int64_t       lock_timeout;  /* milliseconds; 0: do not wait; 10000      */
    bool          reuse;         /* hard-link what is unchanged; true        */
    bool          create;        /* a missing target is made by the first
                                    write, its parent must exist; false      */
    bool          early;         /* let a thread drop the versions that are
                                    not kept; false. See aw_writer_settle()  */
    bool          prepare;       /* let a thread make the next version's
                                    directory; false. See there              */
} aw_options;

#define AW_OPTIONS_INIT \
    { 0644, 0755, AW_UNSET, AW_UNSET, 1, AW_DURABLE, 10000, true, false, false, false }

/* Versions that leases keep alive beyond options.keep. When there are more,
 * the oldest go although somebody reads them: a stuck reader must not fill
 * the disk. */
enum { AW_LEASED_MAX = 16 };

typedef struct aw_writer aw_writer;

/* A writer for TARGET, a path to a directory; symbolic links in it are
 * followed. AW_E_NO_TARGET if there is none and options.create is false. Makes
 * and locks nothing yet. The path is made absolute now, so that a later chdir
 * does not matter; each write opens it anew and checks after locking that the
 * path still leads to what was locked. A NULL OPTIONS means the defaults;
 * values out of range fail with AW_E_IO and EINVAL.
 *
 * A TARGET that is or lies in a version of another one ("/etc/app/..data", or
 * "/etc/app/tls", which is a link into it) is AW_E_FOREIGN_ENTRY to every function
 * below that would change it, and to aw_plan(), before anything is touched: a write
 * there would change that version under its readers. It is told by the real path, a
 * component named like a version with a "..data" beside it; without /proc, or below
 * a bind mount of a part of a version, it is not seen. */
AW_API int aw_writer_open(const char *target, const aw_options *options,
                          aw_writer **writer, aw_error *err);

/* The absolute path of the target; valid until the writer is closed. */
AW_API const char *aw_writer_target(const aw_writer *writer);

/* Change options.lock_timeout (milliseconds, 0 or more) from the next call on. */
AW_API void aw_writer_set_lock_timeout(aw_writer *writer, int64_t timeout);

/* Wait until a thread is done with what the last aw_write() has left to it.
 *
 * With options.early or options.prepare, aw_write() returns when the new version is live and,
 * if it is to be, durable. A thread of its own then goes on, with the lock, so that other
 * writers wait for it as they do for any: EARLY, it does (14); PREPARE, it links all files
 * of the version into a fresh directory, "..next", and syncs that as durability says. The
 * next write, if few files differ, then need only change those there. It must know the last
 * one, see aw_writer_remember(), and that the directory is still as it was, for which stamps
 * must be multigrain (Linux 6.13); else, and below a setgid target, it goes the ordinary way.
 * "..next" is private to its owner, and is swept by whoever writes next if this process ends,
 * or changes something.
 *
 * The thread has all signals blocked, and a warning of its is one of the next result's. The
 * functions that take the lock, and aw_writer_close(), wait for it themselves; so does no
 * other. In a child that was forked meanwhile there is no thread to wait for; should the
 * parent end before the thread does, the child's copy of the lock goes with its next call of
 * such a function, or with the child. */
AW_API void aw_writer_settle(aw_writer *writer);

/* Waits as aw_writer_settle() does, and takes "..next" away unless somebody else writes. */
AW_API void aw_writer_close(aw_writer *writer);

/* A list of strings; part of aw_result, freed with it. */
typedef struct aw_list {
    char **items;
    size_t count;
} aw_list;

/* What a write did, or what aw_plan() says that it would do. */
typedef struct aw_result {
    bool    changed;   /* a new version went live                            */
    char   *version;   /* the live one after the call; from aw_plan() of a
                          change: NULL, names are chosen by the write        */
    char   *previous;  /* the one live before, if it was another; or NULL    */
    aw_list added;     /* paths, in byte order. A directory whose mode or    */
    aw_list updated;   /* owner differs is listed too, the version's own as  */
    aw_list removed;   /* "."; and a directory that nothing asked for        */
    size_t  unchanged; /* files that stay as they are                        */
    size_t  linked;    /* files reused by hard link from an earlier version  */
    uint64_t bytes;    /* bytes of file data written                         */
    aw_list warnings;  /* tidying that failed and is left to the next write  */
} aw_result;

#define AW_RESULT_INIT \
    { false, NULL, NULL, {NULL, 0}, {NULL, 0}, {NULL, 0}, 0, 0, 0, {NULL, 0} }

/* Free what RESULT holds and make it AW_RESULT_INIT again. */
AW_API void aw_result_clear(aw_result *result);

/* What a write calls while it runs. Neither function may use the writer. */

/* Asked once, when the new version is complete but not yet visible.
 * STAGE is the absolute path of the staged tree. Return 0 to publish it, or
 * anything else to refuse, with a reason in REASON (SIZE bytes, zeroed).
 * The payload's data is not read any more once this is called. It must not
 * write into STAGE: files that did not change are shared with the live version.
 * Names that it adds or takes away make the write fail; what it does inside of
 * files is not looked for. */
typedef int (*aw_check_fn)(void *context, const char *stage, char *reason, size_t size);

typedef enum aw_phase {
    AW_COMPARING = 0, /* (5): the payload with the live version              */
    AW_WRITING,       /* (6) (7): files written or linked; told before (6)   */
    AW_SYNCING        /* (9): files synced; not when AW_NOT_DURABLE          */
} aw_phase;

/* How far a phase has come. */
typedef struct aw_progress {
    aw_phase phase;
    size_t   files;   /* done                                                */
    size_t   total;   /* to be done in this phase                            */
    uint64_t bytes;   /* of file data, read or written in this phase         */
} aw_progress;

/* Told when a phase begins, at every file, and every few MiB of a large one: often,
 * so it should be quick. Return 0 to go on, or anything else to cancel the
 * write, with a reason in REASON as above: everything is undone, as for any
 * failure. Not called from the swap on. */
typedef int (*aw_progress_fn)(void *context, const aw_progress *progress, char *reason,
                              size_t size);

typedef struct aw_hooks {
    aw_check_fn    check;    /* or NULL                                      */
    aw_progress_fn progress; /* or NULL                                      */
    void          *context;  /* for both                                     */
} aw_hooks;

/* Replace everything visible in the target with PAYLOAD, all or nothing.
 *
 *   (1) check the payload            (8) let the check look at the staged tree
 *   (2) open the target, lock it     (9) sync it
 *   (3) read the live version       (10) add new visible names, stage ..data_tmp,
 *   (4) sweep residue                    sync the target
 *   (5) plan; nothing differs: stop (11) rename over ..data: the commit
 *   (6) make the version directory  (12) sync the target
 *   (7) fill it                     (13) drop stale visible names
 *                                   (14) drop versions beyond keep, unleased
 *
 * Returns 0 and fills *RESULT (which must be AW_RESULT_INIT or cleared), or -1
 * with *RESULT untouched. Until (11) a failure undoes everything; from then on
 * it has err->committed set and undoes nothing. HOOKS may be NULL. Borrows
 * PAYLOAD, which can be written again. Blocks on the lock and on the disk.
 * Signals do not end it: who must heed them sets a short lock_timeout and calls
 * again. */
AW_API int aw_write(aw_writer *writer, aw_payload *payload, const aw_hooks *hooks,
                    aw_result *result, aw_error *err);

/* Hand PAYLOAD, which the last aw_write() by WRITER has written, over to it. It is the
 * writer's then: freed when another is handed over, or NULL, or when the writer is
 * closed; until then it may be written again, but nothing be added to it, and the data
 * that it borrows must stay as they are. A payload that was not the last one written is
 * freed.
 *
 * What the writer then knows is in the live version, it need not read there. A file
 * whose data are to stay as they are takes one stat(2), for as long as its
 * inode and ctime are those from when it was last read; a file whose data
 * are to change takes nothing. It relies on it that every change stamps a ctime, which
 * nobody can set: on ext4, xfs, btrfs, f2fs, tmpfs and overlays. Elsewhere files are
 * read. A change within the same tick of the kernel's clock is not missed. Missed may be
 * stores into a file of the live version through a shared mapping, on a disk one that
 * somebody keeps; a write(2) to it that takes more than 20 ms and is under way while it is
 * read; an edit whose mtime is set back while a write, or the thread that goes on after it,
 * compares, links or unlinks the file; and a name that somebody whom its modes let puts into
 * a version while it is being made. Without this call, each write reads what is live. */
AW_API void aw_writer_remember(aw_writer *writer, aw_payload *payload);

/* What aw_write() would do now. Takes no lock and touches nothing. */
AW_API int aw_plan(aw_writer *writer, aw_payload *payload, aw_result *result,
                   aw_error *err);

/* Publish the contents, modes and owners of a retained version again, as a new
 * version: names only ever increase, so that whoever compares them sees a
 * change. VERSION is a name from aw_versions(), or NULL for the newest retained
 * one. EXPECTED is the version that must be live once the lock is held, so that
 * nobody undoes what another has published since; or NULL for any. AW_E_NOT_FOUND
 * if there is none such, or another is live. Otherwise as aw_write(). */
AW_API int aw_rollback(aw_writer *writer, const char *version, const char *expected,
                       const aw_hooks *hooks, aw_result *result, aw_error *err);

/* Remove every retained version that nobody leases, whatever options.keep
 * says. *REMOVED is their number. Where nothing is live nothing is removed. What
 * cannot be removed is AW_E_IO once the rest is, with *REMOVED set all the same
 * and the first reason in err->detail. Blocks on the lock. */
AW_API int aw_collect(aw_writer *writer, size_t *removed, aw_error *err);

/* ---- versions ---------------------------------------------------------- */

enum { AW_VERSION_MAX = 64 }; /* bytes of a version's name, its NUL included */

typedef struct aw_version {
    char    name[AW_VERSION_MAX];
    int64_t time;  /* seconds since 1970 UTC, as the name has it             */
    bool    live;
} aw_version;

/* The live version and the retained ones, newest first, as an array that the
 * caller frees with free(); NULL and 0 when there are none. Takes no lock. */
AW_API int aw_versions(aw_writer *writer, aw_version **versions, size_t *count,
                       aw_error *err);

/* ---- snapshots --------------------------------------------------------- */

/* A consistent view: one version, held by a lease (a shared flock on its
 * directory) until closed. Works on read-only mounts, needs no more than the
 * right to read, and works on volumes that a kubelet writes. A kubelet knows no
 * leases, though: once it has replaced a version, reading that one may fail with
 * ESTALE, but never shows a part of it as the whole. */
typedef struct aw_snapshot aw_snapshot;

/* The live version of TARGET. AW_E_NO_TARGET: no such directory.
 * AW_E_NOT_FOUND: no live version. AW_E_FOREIGN_ENTRY: "..data" is something
 * else than a link to one version. Does not block. */
AW_API int aw_snapshot_open(const char *target, aw_snapshot **snapshot, aw_error *err);

/* The version's name; valid until the snapshot is closed. */
AW_API const char *aw_snapshot_version(const aw_snapshot *snapshot);

/* All of the file PATH. *DATA is freed by the caller with free(), is never
 * NULL and has a NUL byte behind its SIZE bytes. AW_E_NOT_FOUND: no such
 * regular file. AW_E_IO with ESTALE: the version was removed under the lease
 * (see AW_LEASED_MAX), or by a writer who knows none. */
AW_API int aw_snapshot_read(aw_snapshot *snapshot, const char *path, char **data,
                            size_t *size, aw_error *err);

/* The paths of all regular files, in byte order; cleared by the caller with
 * aw_list_clear(). */
AW_API int aw_snapshot_paths(aw_snapshot *snapshot, aw_list *paths, aw_error *err);

AW_API void aw_list_clear(aw_list *list);

typedef struct aw_stat {
    bool     directory;
    int      mode;      /* permission bits, 0 to 07777                       */
    int64_t  uid, gid;
    uint64_t size;      /* bytes                                             */
    int64_t  mtime;     /* seconds since 1970 UTC                            */
} aw_stat;

/* About the regular file or directory PATH ("." is the version itself). */
AW_API int aw_snapshot_stat(aw_snapshot *snapshot, const char *path, aw_stat *stat,
                            aw_error *err);

/* Whether "..data" still leads to this version. */
AW_API int aw_snapshot_is_current(aw_snapshot *snapshot, bool *current, aw_error *err);

/* Idempotent through NULL; ends the lease. */
AW_API void aw_snapshot_close(aw_snapshot *snapshot);

/* ---- inspecting -------------------------------------------------------- */

typedef enum aw_fault {
    AW_SOUND = 0,  /* "..data" leads to a version                            */
    AW_MISSING,    /* there is no "..data"                                   */
    AW_DANGLING,   /* it names a version that is not there                   */
    AW_FOREIGN     /* it is something else than a link to one version        */
} aw_fault;

/* A version that is there. */
typedef struct aw_inspected {
    aw_version version;
    bool       leased;   /* a snapshot holds it                              */
} aw_inspected;

/* What is in a target. The lists are in byte order. */
typedef struct aw_inspection {
    char         *target;    /* absolute                                     */
    aw_fault      fault;     /* of "..data"                                  */
    char         *message;   /* about it, one line; NULL when it is sound    */
    char         *live;      /* the live version, or NULL                    */
    aw_inspected *versions;  /* the live one and the retained, newest first  */
    size_t        version_count;
    aw_list       residue;   /* left by a killed writer: unfinished versions,
                                half-removed ones, "..data_tmp"              */
    aw_list       dangling;  /* visible names that lead nowhere              */
    aw_list       missing;   /* the live version's, without a visible name   */
    aw_list       foreign;   /* names that a writer needs and somebody else
                                has; with "..lock" and "..data_tmp"          */
    size_t        others;    /* entries of others at names not needed        */
    int           locked;    /* 1 a writer holds the lock, 0 none does, -1 we
                                may not know: "..lock" cannot be opened      */
} aw_inspection;

#define AW_INSPECTION_INIT \
    { NULL, AW_SOUND, NULL, NULL, NULL, 0, {NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}, 0, 0 }

/* Look at TARGET, and change nothing. Needs the right to read it, takes no lock,
 * and works on read-only mounts and on volumes that a kubelet writes. What is
 * being written while the lock is held is told neither as residue nor as
 * dangling; without a lock to look at, or where locked is -1, it may be.
 *
 * Fills *INSPECTION (AW_INSPECTION_INIT or cleared before). AW_E_NO_TARGET: no
 * such directory. Leases are asked for by holding a lock for an instant, which
 * nobody else fails by, unless we are stopped in it for more than a second; a
 * retained version may stay until the next write by it. */
AW_API int aw_inspect(const char *target, aw_inspection *inspection, aw_error *err);

/* Free what INSPECTION holds and make it AW_INSPECTION_INIT again. */
AW_API void aw_inspection_clear(aw_inspection *inspection);

/* ---- watching ---------------------------------------------------------- */

/* Tells of new live versions through one inotify watch on the target, which
 * survives swaps. An overflow of the queue loses nothing: the link is read
 * anew on every event. */
typedef struct aw_watcher aw_watcher;

/* Start watching. The version that is live now counts as seen. */
AW_API int aw_watch_open(const char *target, aw_watcher **watcher, aw_error *err);

/* Wait until the live version is another than the last one told, for TIMEOUT
 * milliseconds (-1: for ever, 0: only look).
 * Returns 1 with the name in VERSION, 0 when the time is over, or -1:
 * AW_E_NO_TARGET when the target was removed or renamed away (told within a
 * second, and from then on); AW_E_IO with EINTR when a signal came, so that the
 * caller can look at it and call again; AW_E_FOREIGN_ENTRY as for snapshots. */
AW_API int aw_watch_wait(aw_watcher *watcher, int64_t timeout,
                         char version[AW_VERSION_MAX], aw_error *err);

/* The inotify descriptor, for poll(); it stays the watcher's. Readable means:
 * call aw_watch_wait(watcher, 0, …). */
AW_API int aw_watch_fd(const aw_watcher *watcher);

AW_API void aw_watch_close(aw_watcher *watcher);

#ifdef __cplusplus
}
#endif

#endif
