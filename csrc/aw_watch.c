/* aw_watch: new live versions, told through inotify.
 *
 * One watch on the target directory: it survives every swap, which a watch on
 * "..data" or on a visible file does not. What an event says is not looked at,
 * apart from the target's own end: on any event, and once after the watch has
 * been set, "..data" is read and compared with what was told last. So neither a
 * coalesced event nor an overflow of the queue can lose a version.
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
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

struct aw_watcher {
    int   target;
    int   inotify;
    bool  gone;                  /* the target was removed or renamed away   */
    char  seen[AW_VERSION_MAX];  /* the version told last                    */
    char *path;
};

enum {
    EVENTS = IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF
             | (int)IN_ONLYDIR,
    ENDS = IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED
};

/* Watch by path, then make sure that the path still leads to what is open. */
static int add_watch(aw_watcher *watcher, aw_error *err)
{
    struct stat held, named;

    if (aw_sys_inotify_add_watch(watcher->inotify, watcher->path, (uint32_t)EVENTS) < 0) {
        aw_fail_io(err, "inotify_add_watch", watcher->path);
        if (errno == ENOSPC) /* "no space left on device" would mislead */
            snprintf(err->detail, sizeof err->detail,
                     "no inotify watch is left (sysctl fs.inotify.max_user_watches)");
        return -1;
    }
    if (aw_sys_fstat(watcher->target, &held) < 0)
        return aw_fail_io(err, "fstat", watcher->path);
    if (aw_sys_fstatat(AT_FDCWD, watcher->path, &named, 0) < 0
        || held.st_dev != named.st_dev || held.st_ino != named.st_ino)
        return aw_fail(err, AW_E_NO_TARGET, watcher->path, "it was replaced just now");
    return 0;
}

int aw_watch_open(const char *target, aw_watcher **watcher, aw_error *err)
{
    aw_watcher *made = calloc(1, sizeof *made);

    if (!made)
        return aw_fail_memory(err);
    made->inotify = -1;
    made->target = -1;
    made->path = strdup(target);
    if (!made->path) {
        aw_fail_memory(err);
        goto fail;
    }
    made->target = aw_target_open(target, err);
    if (made->target < 0)
        goto fail;
    made->inotify = aw_sys_inotify_init();
    if (made->inotify < 0) {
        aw_fail_io(err, "inotify_init1", NULL);
        if (errno == EMFILE)
            snprintf(err->detail, sizeof err->detail,
                     "no inotify instance is left (sysctl fs.inotify.max_user_instances), "
                     "or no descriptor");
        goto fail;
    }
    if (add_watch(made, err) < 0 || aw_live_name(made->target, made->seen, err) < 0)
        goto fail;
    *watcher = made;
    return 0;
fail:
    aw_watch_close(made);
    return -1;
}

void aw_watch_close(aw_watcher *watcher)
{
    if (!watcher)
        return;
    aw_close_fd(&watcher->inotify);
    aw_close_fd(&watcher->target);
    free(watcher->path);
    free(watcher);
}

int aw_watch_fd(const aw_watcher *watcher)
{
    return watcher->inotify;
}

/* Empty the queue. Only an end of the target is noted. */
static int drain(aw_watcher *watcher, aw_error *err)
{
    alignas(struct inotify_event) char buffer[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)];

    for (;;) {
        ssize_t got = aw_sys_read(watcher->inotify, buffer, sizeof buffer);

        if (got < 0)
            return errno == EAGAIN ? 0 : aw_fail_io(err, "read", "inotify");
        for (ssize_t at = 0; at < got;) {
            const struct inotify_event *event = (const void *)(buffer + at);

            if (event->mask & (uint32_t)ENDS)
                watcher->gone = true;
            at += (ssize_t)(sizeof *event + event->len);
        }
        if (got == 0)
            return 0;
    }
}

/* 1 with VERSION when another version is live than was told, else 0. */
static int look(aw_watcher *watcher, char version[AW_VERSION_MAX], aw_error *err)
{
    char name[AW_VERSION_MAX];

    if (watcher->gone)
        return aw_fail(err, AW_E_NO_TARGET, watcher->path,
                       "it was removed or renamed while it was watched");
    if (aw_live_name(watcher->target, name, err) < 0)
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
        int64_t left = -1;
        int rc = drain(watcher, err);

        if (rc == 0)
            rc = look(watcher, version, err);
        if (rc != 0)
            return rc;
        if (deadline >= 0) {
            left = deadline - aw_lock_clock();
            if (left <= 0)
                return 0;
            if (left > INT_MAX)
                left = INT_MAX;
        }
        if (aw_sys_poll(&poll, 1, (int)left) < 0)
            return aw_fail_io(err, "poll", NULL);
    }
}
