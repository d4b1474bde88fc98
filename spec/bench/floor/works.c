/* works: see the header. */
#define _GNU_SOURCE /* statx */
#include "works.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- with versions ----------------------------------------------------- */

void rewrite(const tree *t, const turn *now)
{
    int at = version_make(t, now->new), below = -1;

    for (size_t i = 0; i < t->count; i++)
        file_write(t, tree_enter(t, at, i, &below), i, t->names[i], now->text);
    tree_leave(&below);
    version_sync(t, at, ALL);
    close(at);
    version_publish(t, now);
}

static void link_file(const tree *t, int from, int to, size_t i, bool looks)
{
    struct stat st;

    need(!looks || (fstatat(from, t->names[i], &st, AT_SYMLINK_NOFOLLOW) == 0
                    && st.st_size == SIZE), "fstatat");
    need(linkat(from, t->names[i], to, t->names[i], 0) == 0, "linkat");
}

void change_one(const tree *t, const turn *now, bool looks)
{
    int at = version_make(t, now->new), below = -1;
    int from = version_open(t, now->old), old_below = -1;
    const size_t changed = t->count / 2;

    for (size_t i = 0; i < t->count; i++) {
        int dir = tree_enter(t, at, i, &below), old_dir = tree_enter(t, from, i, &old_below);

        if (i == changed)
            file_write(t, dir, i, t->names[i], now->text);
        else
            link_file(t, old_dir, dir, i, looks);
    }
    tree_leave(&below);
    tree_leave(&old_below);
    version_sync(t, at, (long)changed);
    close(at);
    close(from);
    version_publish(t, now);
}

/* ---- without a change -------------------------------------------------- */

static void compare_each(const tree *t, const turn *now, bool looks)
{
    char seen[SIZE + 1];
    struct stat st;
    uid_t owner = looks ? geteuid() : 0;
    int at = version_open(t, now->old), below = -1;

    for (size_t i = 0; i < t->count; i++) {
        int fd = openat(tree_enter(t, at, i, &below), t->names[i], O_RDONLY | O_CLOEXEC);

        /* one byte more than there should be shows that it is no longer */
        need(fd >= 0 && read(fd, seen, sizeof seen) == SIZE, "read");
        if (memcmp(seen, now->text, SIZE) != 0)
            exit(1);
        need(!looks || (fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0644
                        && st.st_uid == owner), "fstat");
        close(fd);
    }
    tree_leave(&below);
    close(at);
}

void compare(const tree *t, const turn *now)
{
    compare_each(t, now, false);
}

void verify(const tree *t, const turn *now)
{
    compare_each(t, now, true);
}

void look(const tree *t, int at)
{
    struct statx seen;

    for (size_t i = 0; i < t->count; i++)
        need(statx(at, t->paths[i], AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &seen) == 0
             && seen.stx_size == SIZE, "statx");
}

/* ---- file by file ------------------------------------------------------ */

static void replace(const tree *t, int dir, size_t i, const char *text)
{
    char temporary[NAME + 8];

    snprintf(temporary, sizeof temporary, ".%s.tmp", t->names[i]);
    file_write(t, dir, i, temporary, text);
    need(renameat(dir, temporary, dir, t->names[i]) == 0, "renameat");
}

void replace_each(const tree *t, const turn *now)
{
    int at = version_open(t, now->old), below = -1;

    for (size_t i = 0; i < t->count; i++)
        replace(t, tree_enter(t, at, i, &below), i, now->text);
    tree_leave(&below);
    version_sync(t, at, ALL);
    close(at);
}

void replace_one(const tree *t, const turn *now)
{
    int at = version_open(t, now->old), below = -1;
    const size_t changed = t->count / 2;

    replace(t, tree_enter(t, at, changed, &below), changed, now->text);
    tree_leave(&below);
    if (t->how != NOT_DURABLE)
        need(fsync(at) == 0, "fsync");
    close(at);
}
