/* aw_at: see the header. */
#define _GNU_SOURCE /* O_DIRECTORY, O_NOFOLLOW, DT_* */
#include "aw_at.h"

#include "aw_error.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- descriptors ------------------------------------------------------- */

int aw_take_fd(int *fd)
{
    int taken = *fd;

    *fd = -1;
    return taken;
}

void aw_close_fd(int *fd)
{
    int kept = errno;

    if (*fd >= 0)
        (void)aw_sys_close(*fd); /* who wrote through it has asked already: aw_stage */
    *fd = -1;
    errno = kept;
}

int aw_at_open_dir(int dir, const char *name)
{
    return aw_sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* Give a directory, which the umask has shut, the mode that it should have; its
 * setgid bit, which it has from its parent, stays. */
static int open_shut_dir(int dir, const char *name)
{
    int path = aw_sys_openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0), fd = -1;
    struct stat st;

    if (path >= 0 && aw_sys_fstat(path, &st) == 0
        && aw_sys_chmod_opath(path, (st.st_mode & S_ISGID) | 0700) == 0)
        fd = aw_at_open_dir(dir, name);
    else
        errno = EACCES; /* without /proc, say, it stays shut */
    aw_close_fd(&path);
    return fd;
}

int aw_at_make_dir(int dir, const char *name)
{
    struct stat st;
    int fd;

    if (aw_sys_mkdirat(dir, name, 0700) < 0)
        return -1;
    fd = aw_at_open_dir(dir, name);
    if (fd < 0 && errno == EACCES)
        fd = open_shut_dir(dir, name);
    if (fd >= 0 && (aw_sys_fstat(fd, &st) < 0
                    || ((st.st_mode & 0700) != 0700
                        && aw_sys_fchmod(fd, (st.st_mode & S_ISGID) | 0700) < 0)))
        aw_close_fd(&fd);
    if (fd < 0) {
        int code = errno;

        (void)aw_sys_unlinkat(dir, name, AT_REMOVEDIR); /* else the next write sweeps */
        errno = code;
    }
    return fd;
}

int aw_at_open_file(int dir, const char *name)
{
    return aw_sys_openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
}

/* ---- a place in a tree ------------------------------------------------- */

static void go_to_root(aw_cursor *cursor)
{
    if (cursor->dir != cursor->root)
        aw_close_fd(&cursor->dir);
    cursor->dir = cursor->root;
    cursor->path = "";
    cursor->length = 0;
}

void aw_cursor_close(aw_cursor *cursor)
{
    go_to_root(cursor);
}

static bool is_here_or_below(const aw_cursor *cursor, const char *path, size_t length)
{
    if (cursor->length == 0)
        return true;
    if (length < cursor->length || memcmp(path, cursor->path, cursor->length) != 0)
        return false;
    return length == cursor->length || path[cursor->length] == '/';
}

int aw_cursor_enter(aw_cursor *cursor, const char *path, size_t length)
{
    if (!is_here_or_below(cursor, path, length))
        go_to_root(cursor);

    while (cursor->length < length) {
        size_t start = cursor->length > 0 ? cursor->length + 1 : 0, end = start;
        char name[NAME_MAX + 1];
        int below;

        while (end < length && path[end] != '/')
            end++;
        if (end - start > NAME_MAX) {
            go_to_root(cursor);
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(name, path + start, end - start);
        name[end - start] = '\0';
        below = aw_at_open_dir(cursor->dir, name);
        if (below < 0) {
            go_to_root(cursor);
            return -1;
        }
        if (cursor->dir != cursor->root)
            aw_close_fd(&cursor->dir);
        cursor->dir = below;
        cursor->path = path;
        cursor->length = end;
        cursor->entered++;
    }
    cursor->path = path;
    return 0;
}

const char *aw_cursor_enter_parent(aw_cursor *cursor, const char *path, size_t length)
{
    size_t parent = aw_path_parent(path, length);

    if (aw_cursor_enter(cursor, path, parent) < 0)
        return NULL;
    return parent > 0 ? path + parent + 1 : path;
}

const char *aw_cursor_enter_for(aw_cursor *cursor, const aw_item *item)
{
    if (aw_cursor_enter(cursor, item->path, item->parent) < 0)
        return NULL;
    return item->parent > 0 ? item->path + item->parent + 1 : item->path;
}

/* ---- listing ----------------------------------------------------------- */

/* What getdents64(2) writes. */
struct kernel_dirent {
    uint64_t       ino;
    int64_t        next;
    unsigned short size;
    unsigned char  type;
    char           name[];
};

void aw_listing_start(aw_listing *listing, int fd)
{
    listing->fd = fd;
    listing->at = listing->end = 0;
}

int aw_listing_start_again(aw_listing *listing, int fd)
{
    aw_listing_start(listing, fd);
    return aw_sys_lseek(fd, 0, SEEK_SET) < 0 ? -1 : 0;
}

static aw_type type_of_mode(mode_t mode)
{
    return S_ISREG(mode) ? AW_FILE : S_ISDIR(mode) ? AW_DIRECTORY
           : S_ISLNK(mode) ? AW_LINK : AW_OTHER;
}

/* Some file systems leave the type to stat. 1 with *TYPE, 0: it vanished. */
static int find_type(int fd, const struct kernel_dirent *entry, aw_type *type)
{
    struct stat st;

    switch (entry->type) {
    case DT_REG: *type = AW_FILE; return 1;
    case DT_DIR: *type = AW_DIRECTORY; return 1;
    case DT_LNK: *type = AW_LINK; return 1;
    case DT_UNKNOWN: break;
    default: *type = AW_OTHER; return 1;
    }
    if (aw_sys_fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    *type = type_of_mode(st.st_mode);
    return 1;
}

int aw_listing_next(aw_listing *listing, const char **name, aw_type *type)
{
    for (;;) {
        const struct kernel_dirent *entry;
        int found;

        if (listing->at == listing->end) {
            ssize_t got = aw_sys_getdents(listing->fd, listing->buffer, sizeof listing->buffer);

            if (got <= 0)
                return (int)got;
            listing->at = 0;
            listing->end = (size_t)got;
        }
        entry = (const void *)(listing->buffer + listing->at);
        listing->at += entry->size;
        if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
            continue;
        found = find_type(listing->fd, entry, type);
        if (found == 0)
            continue;
        *name = entry->name;
        listing->inode = entry->ino;
        return found;
    }
}

/* ---- contents ---------------------------------------------------------- */

int aw_at_read_link(int dir, const char *name, char *text, size_t size)
{
    ssize_t got = aw_sys_readlinkat(dir, name, text, size);

    if (got < 0)
        return -1;
    if ((size_t)got >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    text[got] = '\0';
    return 0;
}

int aw_write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t put = aw_sys_write(fd, data, size);

        if (put < 0)
            return -1;
        data += put;
        size -= (size_t)put;
    }
    return 0;
}

ssize_t aw_read_all(int fd, char *buffer, size_t size)
{
    size_t have = 0;

    while (have < size) {
        ssize_t got = aw_sys_read(fd, buffer + have, size - have);

        if (got < 0)
            return -1;
        if (got == 0)
            break;
        have += (size_t)got;
    }
    return (ssize_t)have;
}

static int count_copied(aw_copier *copier, size_t bytes)
{
    *copier->bytes += bytes;
    return aw_meter_bytes(copier->meter, bytes, copier->err);
}

/* In the kernel, without the data passing through this process, until the end of
 * FROM; or, when it grows, until LAST bytes. Stops early, without an error, where
 * the kernel cannot: the offsets tell how far it came. A file below /proc has a
 * size of 0 and copies as nothing, so that only a read can tell the end. */
static int copy_in_kernel(aw_copier *copier, int from, int to, uint64_t last, const char *shown)
{
    enum { STEP = 4 << 20 }; /* small enough to be cancelled between two */

    while (*copier->bytes <= last) {
        ssize_t copied = aw_sys_copy_file_range(from, to, STEP);

        if (copied == 0)
            return 0;
        if (copied < 0)
            return errno == ENOSPC || errno == EDQUOT || errno == EIO
                   ? aw_fail_io(copier->err, "copy_file_range", shown) : 0;
        if (count_copied(copier, (size_t)copied) < 0)
            return -1;
    }
    return 0;
}

/* The same by hand. */
static int copy_by_hand(aw_copier *copier, int from, int to, uint64_t last, const char *shown)
{
    enum { SIZE = 128 * 1024 };

    if (!copier->buffer)
        copier->buffer = malloc(SIZE);
    if (!copier->buffer)
        return aw_fail_memory(copier->err);
    for (;;) {
        ssize_t got = aw_sys_read(from, copier->buffer, SIZE);

        if (got < 0)
            return aw_fail_io(copier->err, "read", shown);
        if (got == 0)
            return 0;
        if (aw_write_all(to, copier->buffer, (size_t)got) < 0)
            return aw_fail_io(copier->err, "write", shown);
        if (count_copied(copier, (size_t)got) < 0)
            return -1;
        if (*copier->bytes > last)
            return 0; /* it grows while we copy: for ever, perhaps */
    }
}

int aw_copy_rest(aw_copier *copier, int from, int to, const char *shown)
{
    uint64_t last = UINT64_MAX;
    struct stat st;

    if (aw_sys_fstat(from, &st) < 0)
        return aw_fail_io(copier->err, "fstat", shown);
    if (st.st_size > 0) { /* below /proc it says nothing */
        last = *copier->bytes + (uint64_t)st.st_size;
        if (aw_sys_clone_file(from, to) == 0)
            return aw_sys_fstat(to, &st) < 0 ? aw_fail_io(copier->err, "fstat", shown)
                                             : count_copied(copier, (size_t)st.st_size);
        if (copy_in_kernel(copier, from, to, last, shown) < 0)
            return -1;
    }
    return copy_by_hand(copier, from, to, last, shown);
}

/* ---- removal ----------------------------------------------------------- */

/* Directories nest deeper than descriptors and stacks reach. Below this depth
 * one is moved up to the top of the tree, where the next pass finds it. */
enum { DEPTH_MAX = 6 };

typedef struct remover {
    const char *tree;     /* its name, for errors                            */
    int         top;      /* the directory that is to become empty           */
    bool        placed;   /* device is known                                 */
    dev_t       device;   /* of top: anything else is a mount, not ours      */
    unsigned    hoisted;  /* names given to directories moved up             */
    aw_error   *err;
} remover;

static int empty_directory(remover *r, int dir, int depth);

static int fail_in_tree(remover *r, const char *op, const char *name, int depth)
{
    char path[2 * (NAME_MAX + 1) + sizeof "/.../"];
    int code = errno;

    snprintf(path, sizeof path, "%s%s%s", r->tree, depth > 0 ? "/.../" : "/", name);
    errno = code;
    return aw_fail_io(r->err, op, path);
}

static int check_device(remover *r, int dir, const char *name, int depth)
{
    struct stat st;

    if (!r->placed && aw_sys_fstat(r->top, &st) < 0)
        return fail_in_tree(r, "fstat", ".", 0);
    if (!r->placed)
        r->device = st.st_dev;
    r->placed = true;
    if (aw_sys_fstat(dir, &st) < 0)
        return fail_in_tree(r, "fstat", name, depth);
    if (st.st_dev == r->device)
        return 0;
    errno = EXDEV;
    return fail_in_tree(r, "openat", name, depth);
}

/* A directory can only be moved by who may write to it. */
static void allow_moving(int dir, const char *name)
{
    int fd = aw_at_open_dir(dir, name);

    if (fd >= 0)
        (void)aw_sys_fchmod(fd, 0700); /* then the next attempt tells */
    aw_close_fd(&fd);
}

static int hoist(remover *r, int dir, const char *name, int depth)
{
    enum { ATTEMPTS_MAX = 10000 };
    char hoisted[32];

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        snprintf(hoisted, sizeof hoisted, "..deep.%u", r->hoisted++);
        if (aw_sys_renameat(dir, name, r->top, hoisted) == 0)
            return 0;
        if (errno == EACCES && i == 0)
            allow_moving(dir, name);
        else if (errno != EEXIST && errno != ENOTEMPTY && errno != ENOTDIR)
            break;
    }
    return fail_in_tree(r, "renameat", name, depth);
}

/* Unlink, and where the directory's own mode forbids it, allow it first: a
 * version's directories may well be 0555. */
static int unlink_forced(int dir, const char *name, int flags)
{
    if (aw_sys_unlinkat(dir, name, flags) == 0 || errno == ENOENT)
        return 0;
    if (errno != EACCES || aw_sys_fchmod(dir, 0700) < 0)
        return -1;
    return aw_sys_unlinkat(dir, name, flags) == 0 || errno == ENOENT ? 0 : -1;
}

static int remove_directory(remover *r, int dir, const char *name, int depth)
{
    int below, rc;

    if (unlink_forced(dir, name, AT_REMOVEDIR) == 0)
        return 0;
    if (errno != ENOTEMPTY && errno != EEXIST)
        return fail_in_tree(r, "unlinkat", name, depth);
    if (depth == DEPTH_MAX)
        return hoist(r, dir, name, depth);
    below = aw_at_open_dir(dir, name);
    if (below < 0 && depth > 0 && (errno == EMFILE || errno == ENFILE))
        return hoist(r, dir, name, depth); /* two descriptors are enough */
    if (below < 0)
        return fail_in_tree(r, "openat", name, depth);
    rc = check_device(r, below, name, depth);
    if (rc == 0)
        rc = empty_directory(r, below, depth + 1);
    aw_close_fd(&below);
    if (rc == 0 && unlink_forced(dir, name, AT_REMOVEDIR) < 0)
        rc = fail_in_tree(r, "unlinkat", name, depth);
    return rc;
}

/* One pass; a file system that lists while entries go may leave some out. */
static int empty_directory(remover *r, int dir, int depth)
{
    aw_listing listing;
    const char *name;
    aw_type type;
    int more;

    aw_listing_start(&listing, dir);
    while ((more = aw_listing_next(&listing, &name, &type)) > 0) {
        if (type == AW_DIRECTORY) {
            if (remove_directory(r, dir, name, depth) < 0)
                return -1;
        } else if (unlink_forced(dir, name, 0) < 0) {
            return fail_in_tree(r, "unlinkat", name, depth);
        }
    }
    return more < 0 ? fail_in_tree(r, "getdents64", ".", depth) : 0;
}

int aw_at_remove_tree(int dir, const char *name, aw_error *err)
{
    enum { PASSES_MAX = 10000 }; /* each but the last made the tree smaller */
    remover r = { name, -1, false, 0, 0, err };
    int rc;

    for (int pass = 0; pass < PASSES_MAX; pass++) {
        if (aw_sys_unlinkat(dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
            return 0;
        if (errno != ENOTEMPTY && errno != EEXIST)
            return aw_fail_io(err, "unlinkat", name);
        r.top = aw_at_open_dir(dir, name);
        if (r.top < 0)
            return aw_fail_io(err, "openat", name);
        rc = empty_directory(&r, r.top, 0);
        aw_close_fd(&r.top);
        if (rc < 0)
            return -1;
    }
    errno = ENOTEMPTY;
    return aw_fail_io(err, "unlinkat", name);
}
