/* aw_watch: new live versions, told through inotify.
 *
 * One watch on the target directory: it survives every swap, which a watch on
 * "..data" or on a visible file does not. What an event says is not looked at,
 * apart from the target's own end: on any event, and once after the watch has
 * been set, "..data" is read and compared with what was told last. So neither a
 * coalesced event nor an overflow of the queue can lose a version.
 *
 * The kernel tells of a directory's removal when nobody has it open any more.
 * So the watcher does not hold the target: it opens it for each look, and makes
 * sure that it is the same one. Others may hold it (any snapshot does), so that
 * a long wait looks every second as well.
 */
#define _POSIX_C_SOURCE 200809L
#include "aw_watch.h"

#include "aw_at.h"
#include "aw_current.h"
#include "aw_error.h"
#include "aw_lock.h"
#include "aw_snapshot.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

struct aw_watcher {
    int   inotify;
    bool  gone;                  /* the target was removed or renamed away   */
    dev_t device;                /* which directory the target is            */
    ino_t inode;
    char  seen[AW_VERSION_MAX];  /* the version told last                    */
    char *path;                  /* absolute                                 */
};

enum { LOOK_EVERY = 1000 }; /* milliseconds */

enum {
    EVENTS = IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
             | (int)IN_ONLYDIR,
    ENDS = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
};

static int fail_gone(aw_watcher *watcher, aw_error *err)
{
    watcher->gone = true;
    return aw_fail(err, AW_E_NO_TARGET, watcher->path,
                   "it was removed or renamed while it was watched");
}

/* Open the target, if it is still the same. */
static int open_same(aw_watcher *watcher, aw_error *err)
{
    int target = aw_target_open(watcher->path, err);
    struct stat st;

    if (target < 0)
        return err->code == AW_E_NO_TARGET ? fail_gone(watcher, err) : -1;
    if (aw_sys_fstat(target, &st) < 0)
        aw_fail_io(err, "fstat", watcher->path);
    else if (st.st_dev != watcher->device || st.st_ino != watcher->inode)
        fail_gone(watcher, err);
    else
        return target;
    aw_close_fd(&target);
    return -1;
}

static int read_live_name(aw_watcher *watcher, char name[AW_VERSION_MAX], aw_error *err)
{
    int target = open_same(watcher, err), rc;

    if (target < 0)
        return -1;
    rc = aw_live_name(target, name, err);
    aw_close_fd(&target);
    return rc;
}

static int identify(aw_watcher *watcher, aw_error *err)
{
    int target = aw_target_open(watcher->path, err), rc;
    struct stat st;

    if (target < 0)
        return -1;
    rc = aw_sys_fstat(target, &st) < 0 ? aw_fail_io(err, "fstat", watcher->path) : 0;
    if (rc == 0) {
        watcher->device = st.st_dev;
        watcher->inode = st.st_ino;
    }
    aw_close_fd(&target);
    return rc;
}

/* Errors of inotify's that would be misread as they are. */
static int fail_limit(aw_error *err, const char *op, const char *path, const char *limit)
{
    int code = errno;

    aw_fail_io(err, op, path);
    if (code == ENOSPC || code == EMFILE)
        snprintf(err->detail, sizeof err->detail, "the limit is reached (sysctl %s)", limit);
    return -1;
}

static int start(aw_watcher *watcher, const char *target, aw_error *err)
{
    if (aw_target_absolute(target, &watcher->path, err) < 0 || identify(watcher, err) < 0)
        return -1;
    watcher->inotify = aw_sys_inotify_init();
    if (watcher->inotify < 0)
        return fail_limit(err, "inotify_init1", NULL, "fs.inotify.max_user_instances");
    if (aw_sys_inotify_add_watch(watcher->inotify, watcher->path, (uint32_t)EVENTS) < 0)
        return fail_limit(err, "inotify_add_watch", watcher->path,
                          "fs.inotify.max_user_watches");
    return read_live_name(watcher, watcher->seen, err); /* checks what the watch is on */
}

int aw_watch_open(const char *target, aw_watcher **watcher, aw_error *err)
{
    aw_watcher *made = calloc(1, sizeof *made);

    if (!made)
        return aw_fail_memory(err);
    made->inotify = -1;
    if (start(made, target, err) < 0) {
        aw_watch_close(made);
        return -1;
    }
    *watcher = made;
    return 0;
}

void aw_watch_close(aw_watcher *watcher)
{
    if (!watcher)
        return;
    aw_close_fd(&watcher->inotify);
    free(watcher->path);
    free(watcher);
}

int aw_watch_fd(const aw_watcher *watcher)
{
    return watcher->inotify;
}

/* Whether the SIZE bytes of events at BUFFER tell of the target's end. */
static bool tell_end(const char *buffer, size_t size)
{
    struct inotify_event event;

    for (size_t at = 0; size - at >= sizeof event; at += sizeof event + event.len) {
        memcpy(&event, buffer + at, sizeof event);
        if (event.mask & (uint32_t)ENDS)
            return true;
        if (event.len > size - at - sizeof event)
            break;
    }
    return false;
}

/* Empty the queue. Only an end of the target is noted. */
static int drain(aw_watcher *watcher, aw_error *err)
{
    char buffer[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];

    for (;;) {
        ssize_t got = aw_sys_read(watcher->inotify, buffer, sizeof buffer);

        if (got < 0)
            return errno == EAGAIN ? 0 : aw_fail_io(err, "read", "inotify");
        if (tell_end(buffer, (size_t)got))
            watcher->gone = true;
        if (got == 0)
            return 0;
    }
}

/* 1 with VERSION when another version is live than was told, else 0. */
static int look(aw_watcher *watcher, char version[AW_VERSION_MAX], aw_error *err)
{
    char name[AW_VERSION_MAX];

    if (watcher->gone)
        return fail_gone(watcher, err);
    if (read_live_name(watcher, name, err) < 0)
        return -1;
    if (name[0] == '\0' || strcmp(name, watcher->seen) == 0)
        return 0;
    memcpy(watcher->seen, name, sizeof name);
    memcpy(version, name, sizeof name);
    return 1;
}

int aw_watch_wait(aw_watcher *watcher, int64_t timeout, char version[AW_VERSION_MAX],
                  aw_error *err)
{
    int64_t deadline = timeout < 0 ? -1 : aw_lock_deadline(timeout);

    for (;;) {
        struct pollfd poll = { watcher->inotify, POLLIN, 0 };
        int64_t left = LOOK_EVERY;
        int rc = drain(watcher, err);

        if (rc == 0)
            rc = look(watcher, version, err);
        if (rc != 0)
            return rc;
        if (deadline >= 0) {
            left = deadline - aw_lock_clock();
            if (left <= 0)
                return 0;
            if (left > LOOK_EVERY)
                left = LOOK_EVERY;
        }
        if (aw_sys_poll(&poll, 1, (int)left) < 0)
            return aw_fail_io(err, "poll", NULL);
    }
}
