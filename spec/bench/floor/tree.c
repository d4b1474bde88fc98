/* tree: see the header. */
#define _GNU_SOURCE /* sync_file_range, syncfs */
#include "tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void need(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

/* ---- names ------------------------------------------------------------- */

void tree_init(tree *t, size_t count, bool flat, durability how)
{
    t->target = -1;
    t->count = count;
    t->how = how;
    t->directory_count = flat ? 0 : (count + PER_DIRECTORY - 1) / PER_DIRECTORY;
    t->names = calloc(count, sizeof *t->names);
    t->paths = calloc(count, sizeof *t->paths);
    t->directories = calloc(t->directory_count + 1, sizeof *t->directories);
    t->open = calloc(count, sizeof *t->open);
    need(t->names && t->paths && t->directories && t->open, "calloc");
    for (size_t i = 0; i < t->directory_count; i++)
        snprintf(t->directories[i], NAME, "d%03zu", i);
    for (size_t i = 0; i < count; i++) {
        snprintf(t->names[i], NAME, "f%05zu", i);
        if (flat)
            snprintf(t->paths[i], NAME, "f%05zu", i);
        else
            snprintf(t->paths[i], NAME, "d%03zu/f%05zu", i / PER_DIRECTORY, i);
    }
}

void tree_clear(tree *t)
{
    free(t->names);
    free(t->paths);
    free(t->directories);
    free(t->open);
}

static size_t visible_count(const tree *t)
{
    return t->directory_count > 0 ? t->directory_count : t->count;
}

static const char *visible_name(const tree *t, size_t i)
{
    return t->directory_count > 0 ? t->directories[i] : t->names[i];
}

void tree_show(const tree *t)
{
    char text[2 * NAME];

    for (size_t i = 0; i < visible_count(t); i++) {
        snprintf(text, sizeof text, "..data/%s", visible_name(t, i));
        need(symlinkat(text, t->target, visible_name(t, i)) == 0, "symlinkat");
    }
}

void tree_hide(const tree *t)
{
    for (size_t i = 0; i < visible_count(t); i++)
        need(unlinkat(t->target, visible_name(t, i), 0) == 0, "unlinkat");
}

/* ---- directories ------------------------------------------------------- */

static int open_directory(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    need(fd >= 0, name);
    return fd;
}

int tree_enter(const tree *t, int at, size_t i, int *below)
{
    if (t->directory_count == 0)
        return at;
    if (*below >= 0 && i % PER_DIRECTORY == 0)
        tree_leave(below);
    if (*below < 0)
        *below = open_directory(at, t->directories[i / PER_DIRECTORY]);
    return *below;
}

void tree_leave(int *below)
{
    if (*below >= 0)
        close(*below);
    *below = -1;
}

int version_open(const tree *t, const char *version)
{
    return open_directory(t->target, version);
}

int version_make(const tree *t, const char *version)
{
    int at;

    need(mkdirat(t->target, version, 0755) == 0, "mkdirat");
    at = version_open(t, version);
    for (size_t d = 0; d < t->directory_count; d++)
        need(mkdirat(at, t->directories[d], 0755) == 0, "mkdirat");
    return at;
}

void version_remove(const tree *t, const char *version)
{
    int at = version_open(t, version), below = -1;

    for (size_t i = 0; i < t->count; i++)
        need(unlinkat(tree_enter(t, at, i, &below), t->names[i], 0) == 0, "unlinkat");
    tree_leave(&below);
    for (size_t d = 0; d < t->directory_count; d++)
        need(unlinkat(at, t->directories[d], AT_REMOVEDIR) == 0, "unlinkat");
    close(at);
    need(unlinkat(t->target, version, AT_REMOVEDIR) == 0, "unlinkat");
}

/* ---- files ------------------------------------------------------------- */

void file_write(const tree *t, int dir, size_t i, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644); /* umask 022 */

    need(fd >= 0 && write(fd, text, SIZE) == SIZE, "write");
    if (t->how == FSYNC_EACH)
        need(fsync(fd) == 0, "fsync");
    if (t->how == FLUSH_FIRST) {
        (void)sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE); /* a hint */
        t->open[i] = fd;
        return;
    }
    need(close(fd) == 0, "close");
}

/* ---- publishing -------------------------------------------------------- */

static void sync_directory(int at, const char *name)
{
    int fd = open_directory(at, name);

    need(fsync(fd) == 0, "fsync");
    close(fd);
}

void version_sync(const tree *t, int at, long only)
{
    if (t->how == NOT_DURABLE)
        return;
    if (t->how == SYNCFS) {
        need(syncfs(at) == 0, "syncfs");
        return;
    }
    for (size_t i = 0; t->how == FLUSH_FIRST && i < t->count; i++) {
        if (only == ALL || i == (size_t)only)
            need(fsync(t->open[i]) == 0 && close(t->open[i]) == 0, "fsync");
    }
    for (size_t d = 0; d < t->directory_count; d++)
        sync_directory(at, t->directories[d]);
    need(fsync(at) == 0, "fsync");
}

void version_publish(const tree *t, const turn *now)
{
    bool name_synced = t->how == NOT_DURABLE || t->how == SYNCFS; /* or need not be */

    need(symlinkat(now->new, t->target, "..data_tmp") == 0, "symlinkat");
    need(name_synced || fsync(t->target) == 0, "fsync");
    need(renameat(t->target, "..data_tmp", t->target, "..data") == 0, "renameat");
    need(t->how == NOT_DURABLE || fsync(t->target) == 0, "fsync");
    if (now->old)
        version_remove(t, now->old);
}
