/* disk.c: see disk.h. */
#define _GNU_SOURCE
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what, const char *path)
{
    fprintf(stderr, "disk: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

/* ---- single entries ---------------------------------------------------- */

void disk_write(const char *path, const char *text, mode_t mode)
{
    size_t size = strlen(text);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd < 0 || write(fd, text, size) != (ssize_t)size || fchmod(fd, mode) < 0)
        die("write", path);
    close(fd);
}

static char *read_at(int dir, const char *name, size_t *size)
{
    struct stat st;
    size_t have = 0;
    char *text;
    int fd = openat(dir, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return NULL;
    }
    text = malloc((size_t)st.st_size + 1);
    if (!text)
        die("malloc", name);
    while (have < (size_t)st.st_size) {
        ssize_t got = read(fd, text + have, (size_t)st.st_size - have);
        if (got <= 0)
            break;
        have += (size_t)got;
    }
    close(fd);
    text[have] = '\0';
    *size = have;
    return text;
}

char *disk_read(const char *path)
{
    size_t size;
    return read_at(AT_FDCWD, path, &size);
}

char *disk_link(const char *path)
{
    char text[PATH_MAX];
    ssize_t length = readlink(path, text, sizeof text);
    return length < 0 ? NULL : strndup(text, (size_t)length);
}

bool disk_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

void disk_mkdir(const char *path, mode_t mode)
{
    if (mkdir(path, 0700) < 0 || chmod(path, mode) < 0)
        die("mkdir", path);
}

void disk_symlink(const char *text, const char *path)
{
    if (symlink(text, path) < 0)
        die("symlink", path);
}

ino_t disk_inode(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? st.st_ino : 0;
}

int disk_mode(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 ? (int)(st.st_mode & 07777) : -1;
}

/* ---- directories ------------------------------------------------------- */

static int plain(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int scan(int dir, const char *name, struct dirent ***entries)
{
    return scandirat(dir, name, entries, plain, by_bytes);
}

static void remove_at(int dir, const char *name)
{
    struct dirent **entries;
    struct stat st;
    int count, fd;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return;
    if (!S_ISDIR(st.st_mode)) {
        if (unlinkat(dir, name, 0) < 0)
            die("remove", name);
        return;
    }
    if (fchmodat(dir, name, 0700, 0) < 0) /* we need not be root */
        die("chmod", name);
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        die("remove", name);
    count = scan(fd, ".", &entries);
    for (int i = 0; i < count; i++) {
        remove_at(fd, entries[i]->d_name);
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    close(fd);
    if (unlinkat(dir, name, AT_REMOVEDIR) < 0)
        die("rmdir", name);
}

void disk_remove(const char *path)
{
    remove_at(AT_FDCWD, path);
}

size_t disk_count(const char *path, const char *prefix)
{
    struct dirent **entries;
    size_t found = 0;
    int count = scan(AT_FDCWD, path, &entries);

    for (int i = 0; i < count; i++) {
        found += strncmp(entries[i]->d_name, prefix, strlen(prefix)) == 0;
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return found;
}

size_t disk_open_files(void)
{
    return disk_count("/proc/self/fd", "") - 1; /* the one that lists them */
}

/* ---- listings ---------------------------------------------------------- */

typedef enum detail { READERS_VIEW, STATE, FULL_STATE } detail;

typedef struct listing {
    FILE  *out;
    detail detail;
} listing;

static void put_contents(FILE *out, const char *text, size_t size)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */

    if (size <= 100 && memchr(text, '\0', size) == NULL) {
        fprintf(out, " %s", text);
        return;
    }
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    fprintf(out, " (%zu bytes, %016llx)", size, (unsigned long long)hash);
}

static void put_times(FILE *out, const struct stat *st, bool with_ctime)
{
    fprintf(out, " m%lld.%09ld", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    if (with_ctime)
        fprintf(out, " c%lld.%09ld", (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec);
}

static void put_entry(const listing *list, int dir, const char *name, const char *path,
                      const struct stat *st)
{
    char link[PATH_MAX];
    ssize_t length;
    size_t size;
    char *text;

    fprintf(list->out, "%s%s %o", path, S_ISDIR(st->st_mode) ? "/" : "",
            (unsigned)st->st_mode & 07777);
    if (list->detail != READERS_VIEW) {
        fprintf(list->out, " type %o inode %llu links %llu owner %u:%u",
                (unsigned)(st->st_mode & S_IFMT), (unsigned long long)st->st_ino,
                (unsigned long long)st->st_nlink, st->st_uid, st->st_gid);
        put_times(list->out, st, list->detail == FULL_STATE);
    }
    if (S_ISLNK(st->st_mode)) {
        length = readlinkat(dir, name, link, sizeof link);
        fprintf(list->out, " -> %.*s", length < 0 ? 0 : (int)length, link);
    } else if (S_ISREG(st->st_mode)) {
        text = read_at(dir, name, &size);
        if (text)
            put_contents(list->out, text, size);
        else
            fputs(" (unreadable)", list->out);
        free(text);
    } else if (!S_ISDIR(st->st_mode)) {
        fprintf(list->out, " (type %o)", (unsigned)(st->st_mode & S_IFMT));
    }
    fputc('\n', list->out);
}

static void put_below(const listing *list, int dir, const char *above)
{
    struct dirent **entries;
    int count = scan(dir, ".", &entries);

    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char path[PATH_MAX];
        struct stat st;

        if (!(list->detail == STATE && above[0] == '\0' && strcmp(name, "..lock") == 0)
            && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
            snprintf(path, sizeof path, "%s%s%s", above, above[0] ? "/" : "", name);
            put_entry(list, dir, name, path, &st);
            if (S_ISDIR(st.st_mode)) {
                int below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (below >= 0) {
                    put_below(list, below, path);
                    close(below);
                }
            }
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
}

static char *list_directory(const char *path, detail wanted)
{
    char *text = NULL;
    size_t size;
    struct stat st;
    listing list = { open_memstream(&text, &size), wanted };
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (!list.out)
        die("list", path);
    if (dir < 0) {
        fputs("(none)\n", list.out);
    } else {
        fstat(dir, &st);
        fprintf(list.out, "./ %o", (unsigned)st.st_mode & 07777);
        if (wanted != READERS_VIEW)
            fprintf(list.out, " inode %llu owner %u:%u", (unsigned long long)st.st_ino,
                    st.st_uid, st.st_gid);
        if (wanted == FULL_STATE)
            put_times(list.out, &st, true);
        fputc('\n', list.out);
        put_below(&list, dir, "");
        close(dir);
    }
    fclose(list.out);
    return text;
}

char *disk_tree(const char *path)
{
    return list_directory(path, READERS_VIEW);
}

char *disk_state(const char *path)
{
    return list_directory(path, STATE);
}

char *disk_full_state(const char *path)
{
    return list_directory(path, FULL_STATE);
}
