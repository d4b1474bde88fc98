/* aw_recover: see the header. */
#define _GNU_SOURCE /* LOCK_*, AT_* */
#include "aw_recover.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_stage.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

static bool remove_or_warn(int target, const char *name, aw_result *result)
{
    aw_error err;

    if (aw_at_remove_tree(target, name, &err) == 0)
        return true;
    aw_result_warn(result, &err);
    return false;
}

static void retired_name(const char *version, char retired[AW_VERSION_MAX])
{
    snprintf(retired, AW_VERSION_MAX, "%.41s" AW_NAME_RETIRED_SUFFIX, version);
}

/* Give VERSION its retired name, in RETIRED. An older attempt's remains make
 * room. Returns 1, or 0 where a directory cannot be renamed (one that lies in a
 * lower layer of an overlay): it must then be removed where it is. */
static int retire(int target, const char *version, char retired[AW_VERSION_MAX], aw_error *err)
{
    retired_name(version, retired);
    if (aw_sys_renameat(target, version, target, retired) == 0)
        return 1;
    if (errno == EXDEV)
        return 0;
    if (errno == ENOTEMPTY || errno == EEXIST) {
        if (aw_at_remove_tree(target, retired, err) < 0)
            return -1;
        if (aw_sys_renameat(target, version, target, retired) == 0)
            return 1;
    }
    return aw_fail_io(err, "renameat", version);
}

/* ---- (4) --------------------------------------------------------------- */

static int sweep_data_tmp(int target, aw_scan *scan, aw_error *err)
{
    if (!scan->data_tmp)
        return 0;
    if (scan->data_tmp_type == AW_DIRECTORY)
        return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_DATA_TMP,
                       "it is a directory, and no writer makes one there");
    if (aw_sys_unlinkat(target, AW_NAME_DATA_TMP, 0) < 0 && errno != ENOENT)
        return aw_fail_io(err, "unlinkat", AW_NAME_DATA_TMP);
    aw_scan_went(scan, AW_NAME_DATA_TMP, scan->data_tmp_type);
    return 0;
}

/* INV-1: newer than the live one means never live. They must be out of the way
 * before a still newer version goes live, or they would pass for retained. */
static int sweep_unfinished(int target, aw_scan *scan, const aw_live *live, aw_result *result,
                            aw_error *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < scan->version_count; i++) {
        const char *version = scan->versions[i];
        char retired[AW_VERSION_MAX];
        int renamed;

        if (live->name[0] != '\0' && aw_name_compare(version, live->name) <= 0) {
            scan->versions[kept++] = version;
            continue;
        }
        renamed = retire(target, version, retired, err);
        if (renamed < 0)
            return -1;
        aw_scan_went(scan, version, AW_DIRECTORY);
        if (renamed)
            (void)remove_or_warn(target, retired, result);
        else if (aw_at_remove_tree(target, version, err) < 0)
            return -1;
    }
    scan->version_count = kept;
    return 0;
}

/* Whether NAME leads nowhere: the live version has no such entry. */
static bool dangles(const aw_live *live, const char *name)
{
    struct stat st;

    return live->fd < 0
           || (aw_sys_fstatat(live->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT);
}

/* Sync what the target's names say, once: a power cut must not bring back a swap's old
 * version, or a retired version's old name (INV-3), after what belongs to it has gone. */
static int settle(int target, bool *settled, aw_error *err)
{
    if (!*settled && aw_sync_directory(target, ".", err) < 0)
        return -1;
    *settled = true;
    return 0;
}

/* 1 when FOUND is a visible name that leads nowhere, else 0, or -1. */
static int is_stray(int target, const aw_found *found, const aw_live *live, aw_error *err)
{
    aw_whose owner;

    if (!found->link || !dangles(live, found->name))
        return 0;
    owner = aw_found_whose(target, found, err);
    return owner == AW_WHOSE_FAILED ? -1 : owner == AW_OURS;
}

/* 1 when it is gone. */
static int drop_name(int target, const char *name, aw_error *err)
{
    if (aw_sys_unlinkat(target, name, 0) < 0 && errno != ENOENT)
        return aw_fail_io(err, "unlinkat", name);
    return 1;
}

static int sweep_dangling(int target, aw_scan *scan, const aw_live *live,
                          const aw_payload *payload, bool *settled, aw_result *result,
                          aw_error *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < scan->found_count; i++) {
        aw_found found = scan->found[i];
        aw_error odd;
        int dropped = 0;

        if (!payload || !aw_payload_shows(payload, found.name))
            dropped = is_stray(target, &found, live, &odd);
        if (dropped == 1 && settle(target, settled, err) < 0)
            return -1;
        if (dropped == 1)
            dropped = drop_name(target, found.name, &odd);
        if (dropped < 0)
            aw_result_warn(result, &odd);
        if (dropped != 1)
            scan->found[kept++] = found;
        else
            aw_scan_one_went(scan, found.name, AW_LINK, found.inode);
    }
    scan->found_count = kept;
    return 0;
}

void aw_recover_drop_next(int target, aw_scan *scan, aw_result *result)
{
    if (scan->next == 0)
        return;
    aw_scan_one_went(scan, AW_NAME_NEXT, AW_DIRECTORY, scan->next);
    scan->next = 0;
    (void)remove_or_warn(target, AW_NAME_NEXT, result);
}

int aw_recover_sweep(int target, aw_scan *scan, const aw_live *live,
                     const aw_payload *payload, bool durable, aw_result *result,
                     aw_error *err)
{
    bool settled = !durable;

    if (sweep_data_tmp(target, scan, err) < 0)
        return -1;
    if (sweep_unfinished(target, scan, live, result, err) < 0)
        return -1;
    if (scan->retired_count > 0 && settle(target, &settled, err) < 0)
        return -1;
    for (size_t i = 0; i < scan->retired_count; i++) {
        aw_scan_went(scan, scan->retired[i], AW_DIRECTORY);
        (void)remove_or_warn(target, scan->retired[i], result);
    }
    aw_recover_drop_next(target, scan, result);
    return sweep_dangling(target, scan, live, payload, &settled, result, err);
}

/* ---- (14) -------------------------------------------------------------- */

/* There is no flock for directories here, so nobody can have a lease. */
static bool knows_no_leases(int code)
{
    return code == EOPNOTSUPP || code == ENOSYS || code == EINVAL || code == EBADF;
}

/* Whether a snapshot holds VERSION. Asking takes the lease away from nobody:
 * the lock is given back at once, and a reader that meets it looks at "..data"
 * again. */
static int is_leased(int target, const char *version, aw_error *err)
{
    int fd = aw_at_open_dir(target, version), leased = 0;

    if (fd < 0)
        return aw_fail_io(err, "openat", version);
    if (aw_sys_flock(fd, LOCK_EX | LOCK_NB) < 0 && !knows_no_leases(errno))
        leased = errno == EWOULDBLOCK ? 1 : aw_fail_io(err, "flock", version);
    aw_close_fd(&fd);
    return leased;
}

/* Which of SCAN's versions may go: their indices into GOING. Newest first, so
 * that the cap on leases falls upon the oldest. */
static size_t choose(const aw_pruning *how, const aw_scan *scan, size_t *going,
                     aw_result *result)
{
    size_t count = 0, leased_count = 0;
    unsigned keep = how->keep;
    aw_error err;

    for (size_t i = 0; i < scan->version_count; i++) {
        int leased;

        if (strcmp(scan->versions[i], how->live) == 0)
            continue;
        if (keep > 0) {
            keep--;
            continue;
        }
        leased = is_leased(how->target, scan->versions[i], &err);
        if (leased < 0)
            aw_result_warn(result, &err);
        else if (!leased || ++leased_count > how->leased_max)
            going[count++] = i;
    }
    return count;
}

/* The version at INDEX is no longer there under its name. */
static void forget(aw_scan *scan, size_t index)
{
    aw_scan_went(scan, scan->versions[index], AW_DIRECTORY);
    scan->versions[index] = NULL;
}

static void close_gaps(aw_scan *scan)
{
    size_t kept = 0;

    for (size_t i = 0; i < scan->version_count; i++) {
        if (scan->versions[i])
            scan->versions[kept++] = scan->versions[i];
    }
    scan->version_count = kept;
}

/* Whether the directory that CURSOR has come to is of the file system that its root is of. */
static bool is_no_mount(const aw_cursor *cursor)
{
    struct stat top, here;

    return aw_sys_fstat(cursor->root, &top) == 0 && aw_sys_fstat(cursor->dir, &here) == 0
           && top.st_dev == here.st_dev;
}

static bool unlink_files(aw_cursor *cursor, const aw_payload *guess)
{
    size_t entered = 0;

    for (size_t i = 0; i < guess->count; i++) {
        const aw_item *item = &guess->items[i];
        const char *name = aw_cursor_enter_for(cursor, item);

        if (!name || (cursor->entered != entered && !is_no_mount(cursor)))
            return false;
        entered = cursor->entered;
        if (aw_sys_unlinkat(cursor->dir, name, 0) < 0)
            return false;
    }
    return true;
}

/* Children first. */
static void unlink_folders(aw_cursor *cursor, const aw_payload *guess)
{
    for (size_t i = guess->folder_count; i-- > 1;) {
        const aw_folder *folder = &guess->folders[i];
        const char *base = aw_cursor_enter_parent(cursor, folder->path, folder->length);
        char name[NAME_MAX + 1];

        if (!base || aw_sys_unlinkat(cursor->dir, aw_folder_name(folder, name),
                                     AT_REMOVEDIR) < 0)
            return;
    }
}

/* Whether RETIRED is what was live, and not something that somebody has put in its place: that
 * would have been moved, perhaps out of the target (G7). */
static bool is_what_was(const aw_pruning *how, const char *retired)
{
    struct stat st;

    return how->was && aw_sys_fstatat(how->target, retired, &st, AT_SYMLINK_NOFOLLOW) == 0
           && st.st_dev == how->was->st.st_dev && st.st_ino == how->was->st.st_ino;
}

/* Empty a version as if it held what GUESS does. What goes otherwise than that is left to
 * who lists it. */
static void empty_by_guess(const aw_pruning *how, const char *retired)
{
    bool was_live = how->guess && is_what_was(how, retired);
    int opened = how->guess && !was_live ? aw_at_open_dir(how->target, retired) : -1;
    aw_cursor cursor;

    if (!was_live && opened < 0)
        return;
    cursor = (aw_cursor)AW_CURSOR_INIT(was_live ? how->was->fd : opened);
    if (unlink_files(&cursor, how->guess))
        unlink_folders(&cursor, how->guess);
    aw_cursor_close(&cursor);
    aw_close_fd(&opened);
}

size_t aw_recover_prune(const aw_pruning *how, aw_scan *scan, aw_result *result)
{
    size_t *going = malloc((scan->version_count + 1) * sizeof *going);
    size_t count, retired = 0, removed = 0;
    char name[AW_VERSION_MAX];
    aw_error err;

    if (!going)
        return 0; /* the next write prunes */
    count = choose(how, scan, going, result);
    for (size_t i = 0; i < count; i++) {
        const char *version = scan->versions[going[i]];
        int renamed = retire(how->target, version, name, &err);

        if (renamed > 0) {
            going[retired++] = going[i];
        } else if (renamed < 0) {
            aw_result_warn(result, &err);
        } else if (remove_or_warn(how->target, version, result)) {
            forget(scan, going[i]);
            removed++;
        }
    }
    if (how->durable && retired > 0 && aw_sync_directory(how->target, ".", &err) < 0) {
        aw_result_warn(result, &err); /* INV-3: then not yet */
        retired = 0;
    }
    for (size_t i = 0; i < retired; i++) {
        retired_name(scan->versions[going[i]], name);
        empty_by_guess(how, name);
        removed += remove_or_warn(how->target, name, result);
        forget(scan, going[i]);
    }
    close_gaps(scan);
    free(going);
    return removed;
}
