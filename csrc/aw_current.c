/* aw_current: see the header. */
#define _GNU_SOURCE /* O_NOFOLLOW and the like, through the headers */
#include "aw_current.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- where a target lies ----------------------------------------------- */

/* The real path of FD; or that which TARGET will have once it is made. */
static int find_path(int fd, const char *target, char path[PATH_MAX])
{
    const char *base = strrchr(target, '/') + 1;
    char parent[PATH_MAX];
    size_t length;
    int dir, rc;

    if (fd >= 0)
        return aw_sys_fd_path(fd, path, PATH_MAX);
    length = (size_t)(base - target);
    if (length >= sizeof parent)
        return -1;
    memcpy(parent, target, length);
    parent[length] = '\0';
    dir = aw_sys_openat(AT_FDCWD, parent, O_PATH | O_DIRECTORY, 0);
    rc = dir < 0 ? -1 : aw_sys_fd_path(dir, path, PATH_MAX);
    aw_close_fd(&dir);
    if (rc < 0)
        return -1;
    length = strlen(path);
    if (length + 1 + strlen(base) >= PATH_MAX)
        return -1;
    snprintf(path + length, PATH_MAX - length, "/%s", base);
    return 0;
}

/* Whether NAME, a component of PATH of LENGTH bytes, is a version of a target. */
static bool is_version_of_some(const char *path, const char *name, size_t length)
{
    char version[AW_VERSION_MAX], data[PATH_MAX + sizeof AW_NAME_DATA];
    struct stat st;

    if (length >= sizeof version)
        return false;
    memcpy(version, name, length);
    version[length] = '\0';
    if (!aw_name_is_version(version) && !aw_name_is_retired(version))
        return false;
    snprintf(data, sizeof data, "%.*s" AW_NAME_DATA, (int)(name - path), path);
    return aw_sys_fstatat(AT_FDCWD, data, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

int aw_refuse_version(int fd, const char *target, aw_error *err)
{
    const char *name;
    char path[PATH_MAX];
    size_t length;

    if (find_path(fd, target, path) < 0)
        return 0;
    for (name = path; (name = strstr(name, "/..")) != NULL; name += length) {
        length = strcspn(++name, "/");
        if (is_version_of_some(path, name, length))
            return aw_fail(err, AW_E_FOREIGN_ENTRY, target, "it %s the version %.*s of %.*s",
                           name[length] == '\0' ? "is" : "lies inside", (int)length, name,
                           (int)(name - path - (name - path > 1)), path);
    }
    return 0;
}

/* ---- the live version -------------------------------------------------- */

int aw_live_name(int target, char name[AW_VERSION_MAX], aw_error *err)
{
    char text[AW_VERSION_MAX];

    if (aw_at_read_link(target, AW_NAME_DATA, text, sizeof text) == 0) {
        if (!aw_name_is_version(text))
            return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_DATA,
                           "it does not lead to a version of this target");
        memcpy(name, text, sizeof text);
        return 0;
    }
    if (errno == ENOENT) {
        name[0] = '\0';
        return 0;
    }
    if (errno == EINVAL || errno == ENAMETOOLONG)
        return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_DATA,
                       errno == EINVAL ? "it is no symbolic link"
                                       : "it does not lead to a version of this target");
    return aw_fail_io(err, "readlinkat", AW_NAME_DATA);
}

int aw_live_open(int target, aw_live *live, aw_error *err)
{
    if (aw_live_name(target, live->name, err) < 0)
        return -1;
    if (live->name[0] == '\0')
        return 0;
    live->fd = aw_at_open_dir(target, live->name);
    if (live->fd >= 0 && aw_sys_fstat(live->fd, &live->st) < 0) {
        aw_fail_io(err, "fstat", live->name);
        aw_close_fd(&live->fd);
        return -1;
    }
    if (live->fd >= 0 || errno == ENOENT)
        return 0;
    if (errno == ENOTDIR || errno == ELOOP)
        return aw_fail(err, AW_E_FOREIGN_ENTRY, live->name, "it is no directory");
    return aw_fail_io(err, "openat", live->name);
}

void aw_live_close(aw_live *live)
{
    aw_close_fd(&live->fd);
}

/* ---- the names in the target ------------------------------------------- */

static int put_name(const char ***names, size_t *count, size_t *room, const char *name)
{
    if (aw_grow(names, *count, room, sizeof **names) < 0)
        return -1;
    (*names)[(*count)++] = name;
    return 0;
}

aw_whose aw_found_whose(int target, const aw_found *found, aw_error *err)
{
    static const char prefix[] = AW_NAME_DATA "/";
    char text[sizeof prefix + NAME_MAX + 1];

    if (!found->link)
        return AW_THEIRS;
    if (aw_at_read_link(target, found->name, text, sizeof text) == 0)
        return strncmp(text, prefix, sizeof prefix - 1) == 0
               && strcmp(text + sizeof prefix - 1, found->name) == 0 ? AW_OURS : AW_THEIRS;
    if (errno == ENOENT)
        return AW_GONE;
    if (errno == EINVAL || errno == ENAMETOOLONG)
        return AW_THEIRS;
    aw_fail_io(err, "readlinkat", found->name);
    return AW_WHOSE_FAILED;
}

static uint64_t sketch_of(const char *name, aw_type type, uint64_t inode)
{
    const uint64_t prime = 0x100000001b3, odd = 0x9e3779b97f4a7c15; /* FNV-1a, mixed */
    uint64_t sketch = 0xcbf29ce484222325 + (uint64_t)type;

    for (; *name != '\0'; name++)
        sketch = (sketch ^ (unsigned char)*name) * prime;
    sketch = (sketch ^ sketch >> 32 ^ inode) * odd;
    return (sketch ^ sketch >> 29) * prime;
}

void aw_scan_came(aw_scan *scan, const char *name, aw_type type)
{
    scan->sketch += sketch_of(name, type, 0);
}

void aw_scan_went(aw_scan *scan, const char *name, aw_type type)
{
    scan->sketch -= sketch_of(name, type, 0);
}

void aw_scan_one_came(aw_scan *scan, const char *name, aw_type type, uint64_t inode)
{
    scan->sketch += sketch_of(name, type, inode);
}

void aw_scan_one_went(aw_scan *scan, const char *name, aw_type type, uint64_t inode)
{
    scan->sketch -= sketch_of(name, type, inode);
}

static bool is_next(const char *name, aw_type type)
{
    return type == AW_DIRECTORY && strcmp(name, AW_NAME_NEXT) == 0;
}

/* NAME has been listed. */
static void sketch_name(aw_scan *scan, const char *name, aw_type type, uint64_t inode)
{
    if ((type == AW_LINK && strncmp(name, "..", 2) != 0) || is_next(name, type))
        aw_scan_one_came(scan, name, type, inode);
    else
        aw_scan_came(scan, name, type);
}

/* What is there anyway, and of a fixed kind. */
static bool goes_without_saying(const char *name)
{
    return strcmp(name, AW_NAME_DATA) == 0 || strcmp(name, AW_NAME_LOCK) == 0;
}

/* File NAME under what it is. */
static int note_name(aw_scan *scan, const char *name, aw_type type, uint64_t inode,
                     aw_error *err)
{
    aw_found *found;
    int rc;

    if (goes_without_saying(name))
        return 0;
    sketch_name(scan, name, type, inode);
    if (strcmp(name, AW_NAME_DATA_TMP) == 0) {
        scan->data_tmp = true;
        scan->data_tmp_type = type;
        return 0;
    }
    if (is_next(name, type)) {
        scan->next = inode;
        return 0;
    }
    name = aw_arena_copy(&scan->arena, name, strlen(name));
    if (!name)
        return aw_fail_memory(err);
    if (type == AW_DIRECTORY && aw_name_is_version(name)) {
        rc = put_name(&scan->versions, &scan->version_count, &scan->version_room, name);
        return rc < 0 ? aw_fail_memory(err) : 0;
    }
    if (type == AW_DIRECTORY && aw_name_is_retired(name)) {
        rc = put_name(&scan->retired, &scan->retired_count, &scan->retired_room, name);
        return rc < 0 ? aw_fail_memory(err) : 0;
    }
    if (aw_grow(&scan->found, scan->found_count, &scan->found_room, sizeof *scan->found) < 0)
        return aw_fail_memory(err);
    found = &scan->found[scan->found_count++];
    found->name = name;
    found->link = type == AW_LINK;
    found->inode = inode;
    return 0;
}

static int newest_first(const void *left, const void *right)
{
    return aw_name_compare(*(const char *const *)right, *(const char *const *)left);
}

static int found_order(const void *left, const void *right)
{
    const aw_found *a = left, *b = right;

    return strcmp(a->name, b->name);
}

int aw_scan_target(int target, aw_scan *scan, aw_error *err)
{
    aw_listing listing;
    const char *name;
    aw_type type;
    int fd = aw_at_open_dir(target, "."), more; /* anew: it may be long since TARGET was */

    if (fd < 0)
        return aw_fail_io(err, "openat", ".");
    aw_listing_start(&listing, fd);
    while ((more = aw_listing_next(&listing, &name, &type)) > 0) {
        if (note_name(scan, name, type, listing.inode, err) < 0)
            break;
    }
    if (more < 0)
        aw_fail_io(err, "getdents64", ".");
    aw_close_fd(&fd);
    if (more != 0)
        return -1;
    if (scan->version_count > 1)
        qsort(scan->versions, scan->version_count, sizeof *scan->versions, newest_first);
    if (scan->found_count > 1)
        qsort(scan->found, scan->found_count, sizeof *scan->found, found_order);
    return 0;
}

bool aw_scan_is_right(int target, const aw_scan *scan)
{
    aw_scan now = AW_SCAN_INIT;
    aw_listing listing;
    const char *name;
    aw_type type;
    int more;

    if (aw_listing_start_again(&listing, target) < 0)
        return false;
    while ((more = aw_listing_next(&listing, &name, &type)) > 0) {
        if (!goes_without_saying(name))
            sketch_name(&now, name, type, listing.inode);
    }
    return more == 0 && now.sketch == scan->sketch;
}

void aw_scan_clear(aw_scan *scan)
{
    static const aw_scan empty = AW_SCAN_INIT;

    free(scan->versions);
    free(scan->retired);
    free(scan->found);
    aw_arena_clear(&scan->arena);
    *scan = empty;
}

const aw_found *aw_scan_find(const aw_scan *scan, const char *name, size_t length)
{
    size_t low = 0, high = scan->found_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const aw_found *found = &scan->found[middle];
        int order = strncmp(found->name, name, length);

        if (order == 0 && found->name[length] != '\0')
            order = 1;
        if (order == 0)
            return found;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- the tree of a version --------------------------------------------- */

static aw_node *put_node(aw_tree *tree, const char *path, size_t length, aw_type type)
{
    static const aw_node blank = { 0 };
    aw_node *node;

    if (aw_grow(&tree->nodes, tree->count, &tree->room, sizeof *tree->nodes) < 0)
        return NULL;
    node = &tree->nodes[tree->count++];
    *node = blank;
    node->path = path;
    node->length = length;
    node->type = (int)type;
    return node;
}

static const char *join(aw_arena *arena, const aw_node *directory, const char *name,
                        size_t *length)
{
    size_t size = strlen(name), at = directory->length > 0 ? directory->length + 1 : 0;
    char *path = aw_arena_take(arena, at + size + 1);

    if (!path)
        return NULL;
    if (at > 0) {
        memcpy(path, directory->path, directory->length);
        path[at - 1] = '/';
    }
    memcpy(path + at, name, size + 1);
    *length = at + size;
    return path;
}

/* The directory that is node INDEX, open at FD: its entries become nodes. */
static int list_directory(aw_tree *tree, size_t index, int fd, aw_error *err)
{
    aw_node directory = tree->nodes[index];
    aw_listing listing;
    const char *name;
    struct stat st;
    aw_type type;
    int more;

    if (aw_sys_fstat(fd, &st) < 0)
        return aw_fail_io(err, "fstat", directory.path);
    tree->nodes[index].mode = (int)(st.st_mode & 07777);
    tree->nodes[index].uid = st.st_uid;
    tree->nodes[index].gid = st.st_gid;
    aw_listing_start(&listing, fd);
    while ((more = aw_listing_next(&listing, &name, &type)) > 0) {
        size_t length;
        const char *path = join(&tree->arena, &directory, name, &length);

        if (!path || !put_node(tree, path, length, type))
            return aw_fail_memory(err);
    }
    return more < 0 ? aw_fail_io(err, "getdents64", directory.path) : 0;
}

/* The root is opened anew: a process that was forked with it may list it, too. */
static int read_directory(aw_tree *tree, size_t index, aw_cursor *cursor, aw_error *err)
{
    const aw_node *directory = &tree->nodes[index];
    int fd = -1, rc;

    if (aw_cursor_enter(cursor, directory->path, directory->length) == 0)
        fd = index == 0 ? aw_at_open_dir(cursor->root, ".") : cursor->dir;
    if (fd < 0) {
        tree->nodes[index].unreadable = errno == EACCES;
        return errno == EACCES ? 0 : aw_fail_io(err, "openat", directory->path);
    }
    rc = list_directory(tree, index, fd, err);
    if (index == 0)
        aw_close_fd(&fd);
    return rc;
}

static int node_order(const void *left, const void *right)
{
    const aw_node *a = left, *b = right;

    return aw_path_compare(a->path, a->length, b->path, b->length);
}

int aw_tree_read(int root, aw_tree *tree, aw_error *err)
{
    aw_cursor cursor = AW_CURSOR_INIT(root);
    int rc = 0;

    if (!put_node(tree, "", 0, AW_DIRECTORY))
        return aw_fail_memory(err);
    for (size_t i = 0; rc == 0 && i < tree->count; i++) {
        if (tree->nodes[i].type == AW_DIRECTORY)
            rc = read_directory(tree, i, &cursor, err);
    }
    aw_cursor_close(&cursor);
    if (rc == 0)
        qsort(tree->nodes, tree->count, sizeof *tree->nodes, node_order);
    return rc;
}

void aw_tree_clear(aw_tree *tree)
{
    static const aw_tree empty = AW_TREE_INIT;

    free(tree->nodes);
    aw_arena_clear(&tree->arena);
    *tree = empty;
}
