/* aw_inspect: the health of a target, without the lock.
 *
 * A writer may be at work meanwhile, so the order of looking counts: the live
 * version, all names, the lock, and then again each name that would be called a
 * killed writer's, and the live version. What is there before and after the lock
 * was seen free is nobody's work in progress: a version's name is never used twice.
 * If another version went live meanwhile, all is looked at anew.
 *
 * Asking for a lease takes an exclusive lock for an instant, and asking for the
 * writers' lock a shared one. Openers of a snapshot and writers wait until it is
 * given back, see AW_LOCK_GRACE.
 */
#define _GNU_SOURCE /* O_NOFOLLOW, LOCK_* */
#include "aw_inspect.h"

#include "aw_at.h"
#include "aw_current.h"
#include "aw_error.h"
#include "aw_lock.h"
#include "aw_memory.h"
#include "aw_name.h"
#include "aw_snapshot.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

typedef struct inspector {
    int            target;
    aw_live        live;
    aw_scan        scan;
    bool          *needed;  /* for each of the scan's found: the live version
                               has such a name                               */
    aw_inspection  is;
    aw_error      *err;
} inspector;

/* ---- ..data ------------------------------------------------------------ */

static int tell_fault(inspector *i, aw_fault fault, const char *message)
{
    i->is.fault = fault;
    i->is.message = strdup(message);
    return i->is.message ? 0 : aw_fail_memory(i->err);
}

static int look_at_live(inspector *i)
{
    char text[AW_ERROR_TEXT_MAX];

    if (aw_live_open(i->target, &i->live, i->err) < 0) {
        if (i->err->code != AW_E_FOREIGN_ENTRY)
            return -1;
        i->live.name[0] = '\0';
        return tell_fault(i, AW_FOREIGN, aw_error_text(i->err, text, sizeof text));
    }
    if (i->live.name[0] == '\0')
        return tell_fault(i, AW_MISSING, "there is no ..data: nothing is live");
    if (i->live.fd < 0) {
        snprintf(text, sizeof text, "..data leads to %s, which is not there", i->live.name);
        return tell_fault(i, AW_DANGLING, text);
    }
    i->is.live = strdup(i->live.name);
    return i->is.live ? 0 : aw_fail_memory(i->err);
}

/* ---- the versions ------------------------------------------------------ */

/* Unless VERSION has gone meanwhile. Who may not open it, or has a file system
 * without such locks, hears of no lease. */
static int put_version(inspector *i, const char *version)
{
    int fd = aw_at_open_dir(i->target, version);
    aw_inspected *put = &i->is.versions[i->is.version_count];

    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 && errno != EACCES)
        return aw_fail_io(i->err, "openat", version);
    snprintf(put->version.name, sizeof put->version.name, "%s", version);
    put->version.time = aw_name_time(version);
    put->version.live = i->is.live && strcmp(version, i->is.live) == 0;
    put->leased = fd >= 0 && aw_lock_try(fd, LOCK_EX, 0) < 0 && errno == EWOULDBLOCK;
    i->is.version_count++;
    aw_close_fd(&fd);
    return 0;
}

/* INV-1: newer than what "..data" names was never live. A "..data" that cannot be
 * trusted says nothing about them. */
static bool is_unfinished(const inspector *i, const char *version)
{
    if (i->is.fault == AW_FOREIGN)
        return false;
    return i->live.name[0] == '\0' || aw_name_compare(version, i->live.name) > 0;
}

static int look_at_versions(inspector *i)
{
    i->is.versions = calloc(i->scan.version_count + 1, sizeof *i->is.versions);
    if (!i->is.versions)
        return aw_fail_memory(i->err);
    for (size_t n = 0; n < i->scan.version_count; n++) {
        const char *version = i->scan.versions[n];

        if ((is_unfinished(i, version) ? aw_list_add(&i->is.residue, version, i->err)
                                       : put_version(i, version)) < 0)
            return -1;
    }
    for (size_t n = 0; n < i->scan.retired_count; n++) {
        if (aw_list_add(&i->is.residue, i->scan.retired[n], i->err) < 0)
            return -1;
    }
    if (!i->scan.data_tmp)
        return 0;
    return aw_list_add(i->scan.data_tmp_type == AW_DIRECTORY ? &i->is.foreign : &i->is.residue,
                       AW_NAME_DATA_TMP, i->err);
}

/* ---- the visible names ------------------------------------------------- */

/* Of what is no link, the name alone was found; it may have gone, too. */
static aw_whose owner_of(const inspector *i, const aw_found *found)
{
    aw_whose owner = aw_found_whose(i->target, found, i->err);
    struct stat st;

    if (owner != AW_THEIRS || found->link)
        return owner;
    return aw_sys_fstatat(i->target, found->name, &st, AT_SYMLINK_NOFOLLOW) < 0
           && errno == ENOENT ? AW_GONE : AW_THEIRS;
}

/* NAME is in the live version: there must be a link of ours. */
static int look_for_name(inspector *i, const char *name)
{
    const aw_found *found = aw_scan_find(&i->scan, name, strlen(name));
    aw_whose owner = AW_GONE;

    if (strncmp(name, "..", 2) == 0) /* drift; no writer makes it visible */
        return 0;
    if (found) {
        i->needed[found - i->scan.found] = true;
        owner = owner_of(i, found);
    }
    if (owner == AW_GONE)
        return aw_list_add(&i->is.missing, name, i->err);
    if (owner == AW_THEIRS)
        return aw_list_add(&i->is.foreign, name, i->err);
    return owner == AW_OURS ? 0 : -1;
}

static int look_for_names(inspector *i)
{
    int fd = i->live.fd >= 0 ? aw_at_open_dir(i->live.fd, ".") : -1, more, rc = 0;
    aw_listing listing;
    const char *name;
    aw_type type;

    if (i->live.fd < 0)
        return 0;
    if (fd < 0)
        return aw_fail_io(i->err, "openat", i->live.name);
    aw_listing_start(&listing, fd);
    while (rc == 0 && (more = aw_listing_next(&listing, &name, &type)) != 0)
        rc = more < 0 ? aw_fail_io(i->err, "getdents64", i->live.name) : look_for_name(i, name);
    aw_close_fd(&fd);
    return rc;
}

/* What the live version has no name for. */
static int look_at_others(inspector *i)
{
    for (size_t n = 0; n < i->scan.found_count; n++) {
        const aw_found *found = &i->scan.found[n];
        aw_whose owner = i->needed[n] ? AW_GONE : owner_of(i, found); /* what is needed is told */

        if (owner == AW_WHOSE_FAILED)
            return -1;
        if (owner == AW_THEIRS)
            i->is.others++;
        else if (owner == AW_OURS && i->is.fault != AW_FOREIGN
                 && aw_list_add(&i->is.dangling, found->name, i->err) < 0)
            return -1;
    }
    return 0;
}

static int look_at_names(inspector *i)
{
    i->needed = calloc(i->scan.found_count + 1, sizeof *i->needed);
    if (!i->needed)
        return aw_fail_memory(i->err);
    return look_for_names(i) < 0 ? -1 : look_at_others(i);
}

/* ---- the lock ---------------------------------------------------------- */

/* That it is a regular file is seen before it is opened: a socket cannot
 * be opened at all, and a device may heed it. */
static int look_at_lock(inspector *i)
{
    struct stat st;
    int fd;

    i->is.locked = 0;
    if (aw_sys_fstatat(i->target, AW_NAME_LOCK, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : aw_fail_io(i->err, "fstatat", AW_NAME_LOCK);
    if (!S_ISREG(st.st_mode))
        return aw_list_add(&i->is.foreign, AW_NAME_LOCK, i->err);
    fd = aw_at_open_file(i->target, AW_NAME_LOCK);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 && errno != EACCES)
        return aw_fail_io(i->err, "openat", AW_NAME_LOCK);
    if (fd < 0)
        i->is.locked = -1;
    else if (aw_sys_flock(fd, LOCK_SH | LOCK_NB) < 0)
        i->is.locked = errno == EWOULDBLOCK ? 1 : -1;
    aw_close_fd(&fd);
    return 0;
}

/* "..next" is residue unless a writer that has not ended holds it; once nobody has the lock,
 * for who makes it takes hold of it later. One that has come since is somebody else's. */
static int look_at_next(inspector *i)
{
    int fd = i->scan.next != 0 ? aw_at_open_dir(i->target, AW_NAME_NEXT) : -1;
    struct stat st;
    bool left = fd >= 0 && aw_sys_fstat(fd, &st) == 0 && st.st_ino == i->scan.next
                && (aw_lock_try(fd, LOCK_EX, 0) == 0 || errno != EWOULDBLOCK);

    aw_close_fd(&fd);
    return left ? aw_list_add(&i->is.residue, AW_NAME_NEXT, i->err) : 0;
}

/* Leave of LIST only what is still there. */
static void confirm(const inspector *i, aw_list *list)
{
    size_t kept = 0;
    struct stat st;

    for (size_t n = 0; n < list->count; n++) {
        bool gone = aw_sys_fstatat(i->target, list->items[n], &st, AT_SYMLINK_NOFOLLOW) < 0
                    && errno == ENOENT;

        if (i->is.locked != 1 && !gone)
            list->items[kept++] = list->items[n];
        else
            free(list->items[n]);
    }
    list->count = kept;
}

/* ---- all of it --------------------------------------------------------- */

static int look(inspector *i)
{
    if (look_at_live(i) < 0 || aw_scan_target(i->target, &i->scan, i->err) < 0)
        return -1;
    if (look_at_versions(i) < 0 || look_at_names(i) < 0 || look_at_lock(i) < 0
        || look_at_next(i) < 0)
        return -1;
    confirm(i, &i->is.residue);
    confirm(i, &i->is.dangling);
    aw_list_sort(&i->is.residue);
    aw_list_sort(&i->is.missing);
    aw_list_sort(&i->is.foreign);
    return 0;
}

static bool was_replaced(const inspector *i)
{
    char name[AW_VERSION_MAX];
    aw_error ignored;

    if (aw_live_name(i->target, name, &ignored) < 0)
        return ignored.code == AW_E_FOREIGN_ENTRY && i->is.fault != AW_FOREIGN;
    return strcmp(name, i->live.name) != 0
           || (name[0] == '\0' && i->is.fault == AW_FOREIGN);
}

static void forget(inspector *i)
{
    aw_live_close(&i->live);
    aw_scan_clear(&i->scan);
    free(i->needed);
    i->needed = NULL;
    aw_inspection_clear(&i->is);
}

static int look_until_steady(inspector *i)
{
    enum { ATTEMPTS_MAX = 100 };

    for (int n = 1;; n++) {
        int rc = look(i);

        if (n == ATTEMPTS_MAX || !was_replaced(i))
            return rc;
        forget(i);
    }
}

int aw_inspect(const char *target, aw_inspection *inspection, aw_error *err)
{
    inspector i = { -1, AW_LIVE_INIT, AW_SCAN_INIT, NULL, AW_INSPECTION_INIT, err };
    int rc = -1;

    i.target = aw_target_open(target, err);
    if (i.target >= 0)
        rc = look_until_steady(&i);
    if (rc == 0)
        rc = aw_target_absolute(target, &i.is.target, err);
    if (rc == 0) {
        *inspection = i.is;
        i.is = (aw_inspection)AW_INSPECTION_INIT;
    }
    forget(&i);
    aw_close_fd(&i.target);
    return rc;
}

void aw_inspection_clear(aw_inspection *inspection)
{
    static const aw_inspection empty = AW_INSPECTION_INIT;

    free(inspection->target);
    free(inspection->message);
    free(inspection->live);
    free(inspection->versions);
    aw_list_clear(&inspection->residue);
    aw_list_clear(&inspection->dangling);
    aw_list_clear(&inspection->missing);
    aw_list_clear(&inspection->foreign);
    *inspection = empty;
}
