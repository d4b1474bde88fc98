/* aw_snapshot: a reader's consistent view of one version.
 *
 * A lease is a shared flock on the version's directory; a writer that prunes
 * asks for an exclusive one. Taking it and finding afterwards that "..data"
 * still names this version means that no writer has begun to remove it: only
 * versions that are no longer live are removed, and from now on the lease is in
 * the way. Otherwise the version is let go and "..data" is read again.
 *
 * Whoever asks for leases has the lock for an instant, in which it may be stopped: it
 * is waited for. A file system without flock, or a stranger who keeps an exclusive
 * one, gives no lease; reading works all the same.
 */
#define _GNU_SOURCE /* O_DIRECTORY */
#include "aw_snapshot.h"

#include "aw_at.h"
#include "aw_current.h"
#include "aw_error.h"
#include "aw_lock.h"
#include "aw_name.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

struct aw_snapshot {
    int     target;
    aw_live live;   /* its fd carries the lease */
};

enum { ATTEMPTS_MAX = 1000 };

int aw_target_absolute(const char *path, char **absolute, aw_error *err)
{
    char cwd[PATH_MAX] = "";
    size_t length = strlen(path), size;
    const char *slash = "";

    while (length > 1 && path[length - 1] == '/')
        length--;
    if (path[0] != '/') {
        if (!aw_sys_getcwd(cwd, sizeof cwd))
            return aw_fail_io(err, "getcwd", path);
        slash = cwd[1] != '\0' ? "/" : ""; /* the root has its slash */
    }
    size = strlen(cwd) + 1 + length + 1;
    *absolute = malloc(size);
    if (!*absolute)
        return aw_fail_memory(err);
    snprintf(*absolute, size, "%s%s%.*s", cwd, slash, (int)length, path);
    return 0;
}

int aw_target_open(const char *target, aw_error *err)
{
    int fd = aw_sys_openat(AT_FDCWD, target, O_RDONLY | O_DIRECTORY, 0), code = errno;

    if (fd >= 0)
        return fd;
    if (code == ENOENT)
        aw_fail(err, AW_E_NO_TARGET, target, "no such directory");
    else if (code == ENOTDIR)
        aw_fail(err, AW_E_NO_TARGET, target, "it is no directory");
    else
        aw_fail_io(err, "openat", target);
    errno = code;
    return -1;
}

/* 1 ours to read, 0 it was replaced meanwhile and may be on its way out, -1
 * failed. */
static int lease(int target, const aw_live *live, int64_t deadline, aw_error *err)
{
    char name[AW_VERSION_MAX];

    (void)aw_lock_try(live->fd, LOCK_SH, deadline); /* without a lease, see above */
    if (aw_live_name(target, name, err) < 0)
        return -1;
    return strcmp(name, live->name) == 0;
}

static int hold_live_version(aw_snapshot *snapshot, aw_error *err)
{
    const int64_t deadline = aw_lock_deadline(AW_LOCK_GRACE);

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        int leased = 0;

        if (aw_live_open(snapshot->target, &snapshot->live, err) < 0)
            return -1;
        if (snapshot->live.fd >= 0)
            leased = lease(snapshot->target, &snapshot->live, deadline, err);
        if (leased == 1)
            return 0;
        aw_live_close(&snapshot->live);
        if (leased < 0)
            return -1;
        if (snapshot->live.name[0] == '\0')
            return aw_fail(err, AW_E_NOT_FOUND, "..data", "nothing has been written here yet");
    }
    /* Every attempt found a link that had just gone stale; or one that is. */
    return aw_fail(err, AW_E_NOT_FOUND, snapshot->live.name,
                   "..data leads to this version, and it is not there");
}

int aw_snapshot_open(const char *target, aw_snapshot **snapshot, aw_error *err)
{
    static const aw_live none = AW_LIVE_INIT;
    aw_snapshot *made = calloc(1, sizeof *made);

    if (!made)
        return aw_fail_memory(err);
    made->live = none;
    made->target = aw_target_open(target, err);
    if (made->target < 0 || hold_live_version(made, err) < 0) {
        aw_snapshot_close(made);
        return -1;
    }
    *snapshot = made;
    return 0;
}

void aw_snapshot_close(aw_snapshot *snapshot)
{
    if (!snapshot)
        return;
    aw_live_close(&snapshot->live);
    aw_close_fd(&snapshot->target);
    free(snapshot);
}

const char *aw_snapshot_version(const aw_snapshot *snapshot)
{
    return snapshot->live.name;
}

int aw_snapshot_is_current(aw_snapshot *snapshot, bool *current, aw_error *err)
{
    char name[AW_VERSION_MAX];

    if (aw_live_name(snapshot->target, name, err) < 0)
        return -1;
    *current = strcmp(name, snapshot->live.name) == 0;
    return 0;
}

/* ---- files ------------------------------------------------------------- */

/* Whether what is below the version may be incomplete: it was removed in spite
 * of a lease; or another writer's, who knows no leases (there is no "..lock"),
 * is not live any more. */
static bool is_stale(const aw_snapshot *snapshot)
{
    char name[AW_VERSION_MAX];
    struct stat held, named;
    aw_error ignored;

    if (aw_sys_fstat(snapshot->live.fd, &held) < 0
        || aw_sys_fstatat(snapshot->target, snapshot->live.name, &named,
                          AT_SYMLINK_NOFOLLOW) < 0
        || held.st_dev != named.st_dev || held.st_ino != named.st_ino)
        return true;
    if (aw_sys_fstatat(snapshot->target, AW_NAME_LOCK, &named, AT_SYMLINK_NOFOLLOW) == 0)
        return false;
    return aw_live_name(snapshot->target, name, &ignored) < 0
           || strcmp(name, snapshot->live.name) != 0;
}

static int fail_stale(const char *op, const char *path, aw_error *err)
{
    errno = ESTALE;
    aw_fail_io(err, op, path);
    snprintf(err->detail, sizeof err->detail,
             "this version was removed while it was read; a new snapshot sees the live one");
    return -1;
}

/* What an error below the version comes to. A version on its way out must not
 * look like one that never had the file. */
static int fail_below(const aw_snapshot *snapshot, const char *op, const char *path,
                      aw_error *err)
{
    int code = errno;

    if (code == ENOENT && is_stale(snapshot))
        return fail_stale(op, path, err);
    errno = code;
    if (code == ENOENT || code == ENOTDIR || code == ELOOP)
        return aw_fail(err, AW_E_NOT_FOUND, path, "no such file in this version");
    return aw_fail_io(err, op, path);
}

/* Go to the directory that holds PATH; its last component is at *NAME, in CLEAN
 * ("." for the version itself). */
static int enter_below(aw_snapshot *snapshot, aw_cursor *cursor, const char *path,
                       char clean[AW_PATH_BYTES_MAX + 1], const char **name, aw_error *err)
{
    size_t length = strlen(path);

    *name = ".";
    if (strcmp(path, ".") == 0)
        return 0;
    if (length > AW_PATH_BYTES_MAX || aw_path_clean(path, length, clean, &length, err) < 0)
        return aw_fail(err, AW_E_NOT_FOUND, path, "no version can have such a path");
    *name = aw_cursor_enter_parent(cursor, clean, length);
    return *name ? 0 : fail_below(snapshot, "openat", path, err);
}

static int open_below(aw_snapshot *snapshot, const char *path, struct stat *st, aw_error *err)
{
    aw_cursor cursor = AW_CURSOR_INIT(snapshot->live.fd);
    char clean[AW_PATH_BYTES_MAX + 1];
    const char *name;
    int fd = -1;

    if (enter_below(snapshot, &cursor, path, clean, &name, err) == 0) {
        fd = aw_at_open_file(cursor.dir, name);
        if (fd < 0)
            fail_below(snapshot, "openat", path, err);
        else if (aw_sys_fstat(fd, st) < 0) {
            aw_fail_io(err, "fstat", path);
            aw_close_fd(&fd);
        }
    }
    aw_cursor_close(&cursor);
    return fd;
}

static int stat_below(aw_snapshot *snapshot, const char *path, struct stat *st, aw_error *err)
{
    aw_cursor cursor = AW_CURSOR_INIT(snapshot->live.fd);
    char clean[AW_PATH_BYTES_MAX + 1];
    const char *name;
    int rc = enter_below(snapshot, &cursor, path, clean, &name, err);

    if (rc == 0 && aw_sys_fstatat(cursor.dir, name, st, AT_SYMLINK_NOFOLLOW) < 0)
        rc = fail_below(snapshot, "fstatat", path, err);
    aw_cursor_close(&cursor);
    return rc;
}

/* SIZE is a guess to begin with: what is read until the end counts. */
static int read_whole(int fd, size_t size, const char *path, char **data, size_t *length,
                      aw_error *err)
{
    size_t room = size + 1, have = 0;
    char *buffer = malloc(room);

    while (buffer) {
        ssize_t got = aw_read_all(fd, buffer + have, room - have);
        char *grown;

        if (got < 0) {
            aw_fail_io(err, "read", path);
            free(buffer);
            return -1;
        }
        have += (size_t)got;
        if (have < room) {
            buffer[have] = '\0';
            *data = buffer;
            *length = have;
            return 0;
        }
        room *= 2;
        grown = realloc(buffer, room);
        if (!grown)
            free(buffer);
        buffer = grown;
    }
    return aw_fail_memory(err);
}

int aw_snapshot_read(aw_snapshot *snapshot, const char *path, char **data, size_t *size,
                     aw_error *err)
{
    struct stat st;
    int fd = open_below(snapshot, path, &st, err), rc;

    if (fd < 0)
        return -1;
    if (S_ISREG(st.st_mode))
        rc = read_whole(fd, (size_t)st.st_size, path, data, size, err);
    else
        rc = aw_fail(err, AW_E_NOT_FOUND, path, "it is no regular file");
    aw_close_fd(&fd);
    return rc;
}

int aw_snapshot_stat(aw_snapshot *snapshot, const char *path, aw_stat *stat, aw_error *err)
{
    struct stat st;

    if (stat_below(snapshot, path, &st, err) < 0)
        return -1;
    if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return aw_fail(err, AW_E_NOT_FOUND, path, "it is no regular file");
    stat->directory = S_ISDIR(st.st_mode);
    stat->mode = (int)(st.st_mode & 07777);
    stat->uid = st.st_uid;
    stat->gid = st.st_gid;
    stat->size = (uint64_t)st.st_size;
    stat->mtime = st.st_mtim.tv_sec;
    return 0;
}

static int put_paths(const aw_tree *tree, aw_list *paths, aw_error *err)
{
    for (size_t i = 0; i < tree->count; i++) {
        const aw_node *node = &tree->nodes[i];

        if (node->unreadable) {
            errno = EACCES;
            return aw_fail_io(err, "openat", i > 0 ? node->path : ".");
        }
        if (node->type == AW_FILE && aw_list_add(paths, node->path, err) < 0)
            return -1;
    }
    aw_list_sort(paths);
    return 0;
}

int aw_snapshot_paths(aw_snapshot *snapshot, aw_list *paths, aw_error *err)
{
    aw_tree tree = AW_TREE_INIT;
    aw_list found = { NULL, 0 };
    int rc = aw_tree_read(snapshot->live.fd, &tree, err);

    if (is_stale(snapshot)) /* then the listing may be one in part */
        rc = fail_stale("getdents64", ".", err);
    if (rc == 0)
        rc = put_paths(&tree, &found, err);
    aw_tree_clear(&tree);
    if (rc == 0)
        *paths = found;
    else
        aw_list_clear(&found);
    return rc;
}
