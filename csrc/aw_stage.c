/* aw_stage: see the header. */
#define _GNU_SOURCE /* O_NOFOLLOW */
#include "aw_stage.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>

/* ---- (6) making it ----------------------------------------------------- */

int aw_stage_name(aw_stage *stage, int target, const char *newest, aw_error *err)
{
    struct timespec now;

    if (aw_sys_clock_gettime(CLOCK_REALTIME, &now) < 0)
        return aw_fail_io(err, "clock_gettime", NULL);
    if (aw_name_next(&now, newest, stage->name) < 0)
        return aw_fail(err, AW_E_FOREIGN_ENTRY, newest,
                       "no version's name can be greater than this one");
    stage->target = target;
    return 0;
}

int aw_stage_make(aw_stage *stage, int target, const char *newest, aw_error *err)
{
    if (aw_stage_name(stage, target, newest, err) < 0)
        return -1;
    stage->fd = aw_at_make_dir(target, stage->name); /* INV-2: nobody races us to it */
    return stage->fd < 0 ? aw_fail_io(err, "mkdirat", stage->name) : 0;
}

bool aw_stage_is_there(const aw_stage *stage)
{
    struct stat held, named;

    return aw_sys_fstat(stage->fd, &held) == 0
           && aw_sys_fstatat(stage->target, stage->name, &named, AT_SYMLINK_NOFOLLOW) == 0
           && held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

void aw_stage_discard(aw_stage *stage)
{
    aw_error ignored;

    if (stage->fd < 0)
        return;
    aw_close_fd(&stage->fd);
    (void)aw_at_remove_tree(stage->target, stage->name, &ignored); /* else the next write */
}

/* ---- how to sync ------------------------------------------------------- */

/* There are two ways: each file, its write-back begun when it is written; or one syncfs, which
 * also waits for what others have written. Both were measured, and the difference that a file
 * makes grows with their number. */
typedef struct sync_costs {
    unsigned file;   /* microseconds that one more file costs by itself; 0: syncfs
                        may do less than it says here (FUSE, overlays, 9p)   */
    size_t   from;   /* so many files on, it is worth asking                 */
    bool     early;  /* it helps to begin the write-back early               */
} sync_costs;

static sync_costs costs_on(int fd)
{
    switch (aw_sys_file_system_type(fd)) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return (sync_costs) { 50, 8, true };
    case BTRFS_SUPER_MAGIC:
        return (sync_costs) { 1500, 2, false };
    default:
        return (sync_costs) { 0, 0, true };
    }
}

/* What others have to write is asked for. A MiB takes up to a millisecond, but not all of it is
 * on this file system. Where nobody tells, many files are worth some risk, but not on btrfs,
 * whose costs vary too much to guess at. */
static bool prefers_syncfs(const sync_costs *costs, size_t count, uint64_t bytes)
{
    enum { MANY = 48, MIB = 1 << 20, MIB_COST = 250 };
    int64_t dirty;

    if (costs->file == 0 || count < costs->from || !aw_sys_kernel_at_least(5, 8))
        return false; /* before Linux 5.8 it hid errors */
    dirty = aw_sys_dirty_memory();
    if (dirty < 0)
        return costs->early && count >= MANY;
    dirty = (uint64_t)dirty > bytes ? dirty - (int64_t)bytes : 0;
    return dirty / MIB * MIB_COST < (int64_t)(count * costs->file);
}

static bool writes_back_early(int fd, size_t count)
{
    sync_costs costs = costs_on(fd);

    return costs.early && !prefers_syncfs(&costs, count, 0);
}

/* ---- (7) filling it ---------------------------------------------------- */

typedef struct filler {
    const aw_payload *payload;
    const aw_rules   *rules;
    aw_cursor         to;
    aw_cursor         live;
    aw_cursor         origin;
    aw_copier         copier;
    bool              writeback; /* start writing back at once, sync later    */
    int               arrives;   /* the mode that the last file was created with,
                                    and had; or AW_UNSET                     */
    bool              hopeless;  /* one had another                          */
    unsigned char    *touched;   /* folders that change; NULL: all are new    */
    aw_meter         *meter;
    aw_result        *result;
    aw_error         *err;
} filler;

static int fail_folder(aw_error *err, const char *op, const aw_folder *folder)
{
    return folder->length > 0 ? aw_fail_io_at(err, op, folder->path, folder->length)
                              : aw_fail_io(err, op, ".");
}

static int make_folder(filler *f, const aw_folder *folder)
{
    char name[NAME_MAX + 1];
    int made;

    if (!aw_cursor_enter_parent(&f->to, folder->path, folder->length))
        return fail_folder(f->err, "openat", folder);
    made = aw_at_make_dir(f->to.dir, aw_folder_name(folder, name));
    if (made < 0)
        return fail_folder(f->err, "mkdirat", folder);
    aw_close_fd(&made);
    return 0;
}

static int make_folders(filler *f)
{
    for (size_t i = 1; i < f->payload->folder_count; i++) {
        if (make_folder(f, &f->payload->folders[i]) < 0)
            return -1;
    }
    return 0;
}

static bool wants_owner(const aw_wish *wish)
{
    return wish->chown_uid != (uid_t)-1 || wish->chown_gid != (gid_t)-1;
}

/* NULL, or the call that failed. */
static const char *set_mode_and_owner(int fd, const aw_wish *wish)
{
    if (aw_sys_fchmod(fd, wish->mode) < 0)
        return "fchmod";
    if (!wants_owner(wish))
        return NULL;
    return aw_sys_fchown(fd, wish->chown_uid, wish->chown_gid) < 0 ? "fchown" : NULL;
}

/* Children first: a mode may take from us the right to enter. */
static int finish_folders(filler *f)
{
    for (size_t i = f->payload->folder_count; i-- > 0;) {
        const aw_folder *folder = &f->payload->folders[i];
        aw_wish wish = aw_wish_for_folder(f->rules, folder);
        const char *failed;

        if (f->touched && !f->touched[i])
            continue;
        if (aw_cursor_enter(&f->to, folder->path, folder->length) < 0)
            return fail_folder(f->err, "openat", folder);
        failed = set_mode_and_owner(f->to.dir, &wish);
        if (failed)
            return fail_folder(f->err, failed, folder);
    }
    return 0;
}

static bool same_instant(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Stream from a file. One that changes meanwhile may be torn: refused. */
static int copy_contents(filler *f, const aw_item *item, int to)
{
    const char *shown = item->source ? item->source : item->path;
    int from = aw_item_open(item, &f->origin, f->err), rc;
    struct stat before, after;

    if (from < 0)
        return -1;
    rc = aw_sys_fstat(from, &before) < 0 ? aw_fail_io(f->err, "fstat", shown)
                                         : aw_copy_rest(&f->copier, from, to, shown);
    if (rc == 0 && aw_sys_fstat(from, &after) < 0)
        rc = aw_fail_io(f->err, "fstat", shown);
    else if (rc == 0 && (before.st_size != after.st_size
                         || !same_instant(&before.st_mtim, &after.st_mtim)
                         || !same_instant(&before.st_ctim, &after.st_ctim)))
        rc = aw_fail(f->err, AW_E_IO, shown, "the source changed while it was copied");
    aw_close_fd(&from);
    return rc;
}

static int write_contents(filler *f, const aw_item *item, int fd)
{
    const size_t step = 4 << 20; /* small enough to be cancelled between two */
    const char *data = item->data;
    size_t left = item->size;

    if (!data)
        return copy_contents(f, item, fd);
    for (;;) {
        size_t size = left < step ? left : step;

        if (aw_write_all(fd, data, size) < 0)
            return aw_fail_io(f->err, "write", item->path);
        f->result->bytes += size;
        data += size;
        left -= size;
        if (aw_meter_bytes(f->meter, size, f->err) < 0)
            return -1;
        if (left == 0)
            return 0;
    }
}

/* FD has been created with MODE. What open(2) makes of that depends on the umask, or on the
 * default ACL, which all of the version's directories have from the target; not on the file.
 * So what it has made of one file's mode it makes of the same mode again, as long as nobody
 * can change the umask meanwhile: no other thread, and no function of the caller's. */
static bool has_arrived(filler *f, int fd, mode_t mode)
{
    struct stat st;

    f->hopeless = aw_sys_fstat(fd, &st) < 0 || (st.st_mode & 07777) != mode;
    if (!f->hopeless && aw_sys_is_one_thread() && !aw_meter_calls(f->meter))
        f->arrives = (int)mode;
    return !f->hopeless;
}

static int write_item(filler *f, const aw_item *item, const char *name)
{
    const int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW; /* INV-4: a new inode */
    aw_wish wish = aw_wish_for_item(f->rules, item);
    bool plain = !wants_owner(&wish), arrives = plain && (int)wish.mode == f->arrives;
    bool tries = plain && !arrives && !f->hopeless;
    int fd = aw_sys_openat(f->to.dir, name, flags, arrives || tries ? wish.mode : 0600), rc;
    const char *failed = NULL;

    if (fd < 0)
        return aw_fail_io(f->err, "openat", item->path);
    rc = write_contents(f, item, fd);
    if (rc == 0 && !arrives && !(tries && has_arrived(f, fd, wish.mode)))
        failed = set_mode_and_owner(fd, &wish);
    if (failed)
        rc = aw_fail_io(f->err, failed, item->path);
    if (rc == 0 && f->writeback)
        (void)aw_sys_start_writeback(fd); /* a hint; (9) is what counts */
    if (aw_sys_close(fd) < 0 && errno != EINTR && rc == 0)
        rc = aw_fail_io(f->err, "close", item->path); /* NFS tells a full disk here */
    return rc;
}

/* The file system will not link, but may well write. */
static bool refuses_links(int code)
{
    return code == EXDEV || code == EPERM || code == EMLINK || code == ENOTSUP
           || code == EOPNOTSUPP;
}

/* 1 linked, 0 it must be written, -1 failed. */
static int link_item(filler *f, const aw_item *item, const char *name, unsigned char action)
{
    aw_cursor *from = !item->data && !item->source ? &f->origin : &f->live;
    const char *there;

    if (!f->rules->options->reuse || (from == &f->live && action != AW_KEEP))
        return 0;
    there = aw_cursor_enter_for(from, item);
    if (!there)
        return aw_fail_io(f->err, "openat", item->path);
    if (aw_sys_linkat(from->dir, there, f->to.dir, name) == 0)
        return 1;
    return refuses_links(errno) && !f->rules->links_only
           ? 0 : aw_fail_io(f->err, "linkat", item->path);
}

/* Item INDEX in the directory that it belongs in, as its action says. */
static int fill_item(filler *f, const aw_item *item, unsigned char *action)
{
    const char *name = aw_cursor_enter_for(&f->to, item);
    int linked;

    if (!name)
        return aw_fail_io(f->err, "openat", item->path);
    linked = link_item(f, item, name, *action);
    if (linked < 0 || (linked == 0 && write_item(f, item, name) < 0))
        return -1;
    *action = linked ? AW_LINKED : AW_WRITTEN;
    f->result->linked += (size_t)linked;
    return 0;
}

static int fill_items(filler *f, unsigned char *actions)
{
    for (size_t i = 0; i < f->payload->count; i++) {
        if (fill_item(f, &f->payload->items[i], &actions[i]) < 0)
            return -1;
        if (aw_meter_files(f->meter, 1, f->err) < 0)
            return -1;
    }
    return 0;
}

static filler filler_of(aw_stage *stage, const aw_payload *payload, int live,
                        const aw_rules *rules, aw_meter *meter, aw_result *result, aw_error *err)
{
    filler f = { payload, rules, AW_CURSOR_INIT(stage->fd), AW_CURSOR_INIT(live),
                 AW_CURSOR_INIT(payload->origin), { NULL, &result->bytes, meter, err },
                 false, AW_UNSET, false, NULL, meter, result, err };

    f.writeback = rules->options->durability == AW_DURABLE
                  && writes_back_early(stage->fd, payload->count - result->unchanged);
    return f;
}

static void close_filler(filler *f)
{
    aw_cursor_close(&f->to);
    aw_cursor_close(&f->live);
    aw_cursor_close(&f->origin);
    free(f->copier.buffer);
}

int aw_stage_fill(aw_stage *stage, const aw_payload *payload, int live,
                  const aw_rules *rules, unsigned char *actions, aw_meter *meter,
                  aw_result *result, aw_error *err)
{
    filler f = filler_of(stage, payload, live, rules, meter, result, err);
    int rc = -1;

    if (make_folders(&f) == 0 && fill_items(&f, actions) == 0)
        rc = finish_folders(&f);
    close_filler(&f);
    return rc;
}

/* ---- (7) changing what is linked --------------------------------------- */

/* The directory that holds PATH has changed, if it is to stay. */
static void touch_parent(filler *f, const char *path, size_t length)
{
    size_t folder = aw_payload_find_folder(f->payload, path, aw_path_parent(path, length));

    if (folder != AW_NO_FOLDER)
        f->touched[folder] = 1;
}

static int drop(filler *f, const char *path, size_t length, int flags)
{
    const char *base = aw_cursor_enter_parent(&f->to, path, length);
    char name[NAME_MAX + 1];
    size_t size = base ? length - (size_t)(base - path) : 0;

    if (!base)
        return aw_fail_io_at(f->err, "openat", path, length);
    memcpy(name, base, size);
    name[size] = '\0';
    if (aw_sys_unlinkat(f->to.dir, name, flags) < 0)
        return aw_fail_io_at(f->err, "unlinkat", path, length);
    touch_parent(f, path, length);
    return 0;
}

/* Unlink what is not to stay. Both payloads are in tree order. */
static int drop_items(filler *f, const aw_payload *before, const unsigned char *actions)
{
    size_t i = 0;

    for (size_t b = 0; b < before->count; b++) {
        const aw_item *old = &before->items[b];
        int order = 1;

        for (; order > 0 && i < f->payload->count; i += order > 0) {
            const aw_item *item = &f->payload->items[i];

            order = old->path == item->path ? 0 : aw_path_compare(old->path, old->length,
                                                                  item->path, item->length);
        }
        if (order == 0 && actions[i] == AW_KEEP)
            continue;
        if (drop(f, old->path, old->length, 0) < 0)
            return -1;
    }
    return 0;
}

/* Remove the directories that are not to stay, children first, and make new ones. */
static int change_folders(filler *f, const aw_payload *before)
{
    for (size_t i = before->folder_count; i-- > 1;) {
        const aw_folder *old = &before->folders[i];

        if (aw_payload_find_folder(f->payload, old->path, old->length) == AW_NO_FOLDER
            && drop(f, old->path, old->length, AT_REMOVEDIR) < 0)
            return -1;
    }
    for (size_t i = 1; i < f->payload->folder_count; i++) {
        const aw_folder *folder = &f->payload->folders[i];

        if (aw_payload_find_folder(before, folder->path, folder->length) != AW_NO_FOLDER)
            continue;
        if (make_folder(f, folder) < 0)
            return -1;
        touch_parent(f, folder->path, folder->length);
        f->touched[i] = 1;
    }
    return 0;
}

static int amend_items(filler *f, unsigned char *actions)
{
    for (size_t i = 0; i < f->payload->count; i++) {
        const aw_item *item = &f->payload->items[i];

        if (actions[i] == AW_KEEP) {
            actions[i] = AW_LINKED;
            f->result->linked++;
        } else {
            if (fill_item(f, item, &actions[i]) < 0)
                return -1;
            touch_parent(f, item->path, item->length);
        }
        if (aw_meter_files(f->meter, 1, f->err) < 0)
            return -1;
    }
    return 0;
}

/* The directories that were made so that they could be written to, and the version's own. */
static void touch_unfinished(filler *f)
{
    for (size_t i = 0; i < f->payload->folder_count; i++) {
        aw_wish wish = aw_wish_for_folder(f->rules, &f->payload->folders[i]);

        if (i == 0 || (wish.mode & 0300) != 0300)
            f->touched[i] = 1;
    }
}

int aw_stage_amend(aw_stage *stage, const aw_payload *before, const aw_payload *payload,
                   const aw_rules *rules, unsigned char *actions, unsigned char *touched,
                   aw_meter *meter, aw_result *result, aw_error *err)
{
    filler f = filler_of(stage, payload, -1, rules, meter, result, err);
    int rc = -1;

    f.touched = touched;
    touch_unfinished(&f);
    if (drop_items(&f, before, actions) == 0 && change_folders(&f, before) == 0
        && amend_items(&f, actions) == 0)
        rc = finish_folders(&f);
    close_filler(&f);
    return rc;
}

/* ---- (9) syncing ------------------------------------------------------- */

int aw_sync_directory(int fd, const char *name, aw_error *err)
{
    if (aw_sys_fsync(fd) == 0 || errno == EINVAL)
        return 0;
    return aw_fail_io(err, "fsync", name);
}

/* 1 synced, 0 it may not be opened (a mode such as 0200), -1 failed. */
static int sync_item(aw_cursor *cursor, const aw_item *item, aw_error *err)
{
    const char *name = aw_cursor_enter_for(cursor, item);
    int fd = name ? aw_at_open_file(cursor->dir, name) : -1, rc = 1;

    if (fd < 0)
        return errno == EACCES ? 0 : aw_fail_io(err, "openat", item->path);
    if (aw_sys_fsync(fd) < 0)
        rc = aw_fail_io(err, "fsync", item->path);
    aw_close_fd(&fd);
    return rc;
}

static int sync_folder(aw_cursor *cursor, const aw_folder *folder, aw_error *err)
{
    if (aw_cursor_enter(cursor, folder->path, folder->length) < 0)
        return errno == EACCES ? 0 : fail_folder(err, "openat", folder);
    if (aw_sync_directory(cursor->dir, "", err) == 0)
        return 1;
    return fail_folder(err, "fsync", folder);
}

/* 1, 0 or -1 as above. */
static int sync_each(aw_cursor *cursor, const aw_payload *payload,
                     const unsigned char *actions, unsigned which,
                     const unsigned char *touched, aw_meter *meter, aw_error *err)
{
    int rc = 1;

    for (size_t i = 0; rc == 1 && i < payload->count; i++) {
        if (which & AW_BIT(actions[i]))
            rc = sync_item(cursor, &payload->items[i], err);
        if (rc == 1 && (which & AW_BIT(actions[i])) && aw_meter_files(meter, 1, err) < 0)
            rc = -1;
    }
    for (size_t i = payload->folder_count; rc == 1 && i-- > 0;) {
        if (touched && !touched[i])
            continue;
        rc = sync_folder(cursor, &payload->folders[i], err);
        if (rc == 1 && aw_meter_files(meter, 0, err) < 0)
            rc = -1;
    }
    return rc;
}

/* All at once, and what else there is on the file system. */
static int sync_file_system(int root, size_t count, aw_meter *meter, aw_error *err)
{
    if (aw_sys_syncfs(root) < 0)
        return aw_fail_io(err, "syncfs", "");
    return aw_meter_files(meter, count - meter->now.files, err);
}

static size_t count_actions(const aw_payload *payload, const unsigned char *actions,
                            unsigned which)
{
    size_t count = 0;

    for (size_t i = 0; i < payload->count; i++)
        count += (which & AW_BIT(actions[i])) != 0;
    return count;
}

bool aw_stage_syncs_at_once(int root, const aw_payload *payload, const unsigned char *actions,
                            unsigned which, uint64_t bytes)
{
    sync_costs costs = costs_on(root);

    return prefers_syncfs(&costs, count_actions(payload, actions, which), bytes);
}

int aw_stage_sync(int root, const aw_payload *payload, const unsigned char *actions,
                  unsigned which, const unsigned char *touched, bool at_once, aw_meter *meter,
                  aw_error *err)
{
    size_t count = count_actions(payload, actions, which);
    aw_cursor cursor = AW_CURSOR_INIT(root);
    int rc = 0;

    if (aw_meter_begin(meter, AW_SYNCING, count, err) < 0)
        return -1;
    if (!at_once)
        rc = sync_each(&cursor, payload, actions, which, touched, meter, err);
    aw_cursor_close(&cursor);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    return sync_file_system(root, count, meter, err);
}
