/* blocklog: a disk that remembers in which order it was written to.
 *
 *     blocklog DIRECTORY MIB     serves, until it is killed or unmounted,
 *
 *         DIRECTORY/disk         the disk, for a loop device
 *         DIRECTORY/control      commands go in, the log comes out
 *
 * A flush of the loop device arrives here as an fsync of "disk". Commands, a line each:
 *
 *     record       from now on, log
 *     mark TEXT    into the log
 *     replay       no longer log
 *     state N S    the disk as it may be after a power cut behind the first N entries of the
 *                  log: all that is older than the last flush among them, and of the rest,
 *                  with S = 0, all; else a random choice of whole writes (S odd) or of
 *                  their sectors (S even), S being the seed. N must not decrease. What is
 *                  written to it is gone at the next state.
 *
 * Reading "control" gives the log, a line for each entry: "W OFFSET LENGTH", "F" for a
 * flush, "M TEXT". All is kept in memory. FUSE, through libfuse3; one thread.
 */
#define _GNU_SOURCE
#define FUSE_USE_VERSION 34
#include <errno.h>
#include <fuse_lowlevel.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { ROOT = FUSE_ROOT_ID, DISK, CONTROL };
enum { BLOCK = 4096, SECTOR = 512 };

typedef struct entry {
    char   kind; /* 'W', 'F' or 'M' */
    size_t offset, length;
    char  *data; /* of a write, or a mark's text */
} entry;

static size_t disk_size;
static char  *base;     /* the disk; in a replay, as far as it is certain */
static char **overlay;  /* in a replay: the blocks that differ, or NULL   */
static bool   logging, replaying;
static entry *entries;
static size_t entry_count, certain; /* entries that are in the base */
static char  *listing;
static size_t listing_size;

/* ---- the disk ---------------------------------------------------------- */

static char *block_for_writing(size_t block)
{
    if (!replaying)
        return base + block * BLOCK;
    if (!overlay[block]) {
        overlay[block] = malloc(BLOCK);
        if (!overlay[block])
            abort();
        memcpy(overlay[block], base + block * BLOCK, BLOCK);
    }
    return overlay[block];
}

static const char *block_for_reading(size_t block)
{
    return replaying && overlay[block] ? overlay[block] : base + block * BLOCK;
}

/* Call with each part of a range that lies in one block. */
#define FOR_BLOCKS(offset, length, at, done, part) \
    for (size_t done = 0, at = (offset), part; \
         part = BLOCK - at % BLOCK < (length) - done ? BLOCK - at % BLOCK : (length) - done, \
         done < (length); done += part, at += part)

static void put(size_t offset, const char *data, size_t length)
{
    FOR_BLOCKS(offset, length, at, done, part)
        memcpy(block_for_writing(at / BLOCK) + at % BLOCK, data + done, part);
}

static void get(size_t offset, char *data, size_t length)
{
    FOR_BLOCKS(offset, length, at, done, part)
        memcpy(data + done, block_for_reading(at / BLOCK) + at % BLOCK, part);
}

/* ---- the log ----------------------------------------------------------- */

static void append(char kind, size_t offset, const char *data, size_t length)
{
    entry *added;

    if ((entry_count & (entry_count + 1)) == 0) {
        entries = realloc(entries, 2 * (entry_count + 1) * sizeof *entries);
        if (!entries)
            abort();
    }
    added = &entries[entry_count++];
    *added = (entry){ kind, offset, length, malloc(length + 1) };
    if (!added->data)
        abort();
    memcpy(added->data, data, length);
    added->data[length] = '\0';
}

static void list_log(void)
{
    FILE *out;

    free(listing);
    out = open_memstream(&listing, &listing_size);
    for (size_t i = 0; i < entry_count; i++) {
        const entry *one = &entries[i];

        if (one->kind == 'W')
            fprintf(out, "W %zu %zu\n", one->offset, one->length);
        else
            fprintf(out, "%c %s\n", one->kind, one->data);
    }
    fclose(out);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed >> 11;
}

/* What may be lost in part: a write, or a sector of it. */
static void put_some(const entry *one, bool whole, uint64_t *seed)
{
    size_t step = whole ? one->length : SECTOR;

    for (size_t at = 0; at < one->length; at += step) {
        size_t length = one->length - at < step ? one->length - at : step;

        if (next_random(seed) % 2)
            put(one->offset + at, one->data + at, length);
    }
}

static void go_to_state(size_t count, unsigned long choice)
{
    uint64_t seed = 0x9e3779b97f4a7c15 ^ (uint64_t)choice << 20 ^ count;
    size_t flushed = certain;

    for (size_t i = 0; i < disk_size / BLOCK; i++) {
        free(overlay[i]);
        overlay[i] = NULL;
    }
    if (count > entry_count)
        count = entry_count;
    for (size_t i = certain; i < count; i++)
        if (entries[i].kind == 'F')
            flushed = i;
    replaying = false;
    for (; certain < flushed; certain++)
        if (entries[certain].kind == 'W')
            put(entries[certain].offset, entries[certain].data, entries[certain].length);
    replaying = true;
    for (size_t i = certain; i < count; i++) {
        const entry *one = &entries[i];

        if (one->kind == 'W' && choice == 0)
            put(one->offset, one->data, one->length);
        else if (one->kind == 'W')
            put_some(one, choice % 2 == 1, &seed);
    }
}

/* The disk as it was when logging began: what came later is taken back. */
static char *first_base;

static int command(const char *line)
{
    unsigned long count, choice;

    if (strcmp(line, "record") == 0) {
        first_base = mmap(NULL, disk_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (first_base == MAP_FAILED)
            return ENOMEM;
        memcpy(first_base, base, disk_size);
        logging = true;
    } else if (strncmp(line, "mark ", 5) == 0) {
        if (logging)
            append('M', 0, line + 5, strlen(line + 5));
    } else if (strcmp(line, "replay") == 0) {
        logging = false;
        base = first_base;
        replaying = true;
        list_log();
    } else if (replaying && sscanf(line, "state %lu %lu", &count, &choice) == 2) {
        go_to_state(count, choice);
    } else {
        return EINVAL;
    }
    return 0;
}

/* ---- FUSE -------------------------------------------------------------- */

static bool describe(fuse_ino_t inode, struct stat *st)
{
    *st = (struct stat){ .st_ino = inode, .st_nlink = 1, .st_mode = S_IFREG | 0600 };
    if (inode == ROOT)
        st->st_mode = S_IFDIR | 0700;
    else if (inode == DISK)
        st->st_size = (off_t)disk_size;
    else if (inode == CONTROL)
        st->st_size = (off_t)listing_size;
    return inode >= ROOT && inode <= CONTROL;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param found = { 0 };

    found.ino = strcmp(name, "disk") == 0 ? DISK : strcmp(name, "control") == 0 ? CONTROL : 0;
    if (parent != ROOT || found.ino == 0) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    (void)describe(found.ino, &found.attr);
    fuse_reply_entry(request, &found);
}

static void on_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct stat st;

    (void)file;
    if (describe(inode, &st))
        fuse_reply_attr(request, &st, 0);
    else
        fuse_reply_err(request, ENOENT);
}

/* Truncating "control" and touching either means nothing. */
static void on_setattr(fuse_req_t request, fuse_ino_t inode, struct stat *st, int which,
                       struct fuse_file_info *file)
{
    (void)st;
    (void)which;
    on_getattr(request, inode, file);
}

static void on_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    file->direct_io = inode == CONTROL;
    fuse_reply_open(request, file); /* not keep_cache: each opening sees the state of then */
}

static void on_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    size_t at = (size_t)offset, end = inode == DISK ? disk_size : listing_size;
    char *data;

    (void)file;
    if (at >= end) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    if (size > end - at)
        size = end - at;
    if (inode != DISK) {
        fuse_reply_buf(request, listing + at, size);
        return;
    }
    data = malloc(size);
    if (!data) {
        fuse_reply_err(request, ENOMEM);
        return;
    }
    get(at, data, size);
    fuse_reply_buf(request, data, size);
    free(data);
}

static void on_write(fuse_req_t request, fuse_ino_t inode, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file)
{
    char line[256];
    int code = 0;

    (void)file;
    if (inode == DISK && (size_t)offset + size > disk_size) {
        code = ENOSPC;
    } else if (inode == DISK) {
        put((size_t)offset, data, size);
        if (logging)
            append('W', (size_t)offset, data, size);
    } else if (size < sizeof line) {
        snprintf(line, sizeof line, "%.*s", (int)strcspn(data, "\n"), data);
        code = command(line);
    } else {
        code = EINVAL;
    }
    if (code != 0)
        fuse_reply_err(request, code);
    else
        fuse_reply_write(request, size);
}

static void on_fsync(fuse_req_t request, fuse_ino_t inode, int data_only,
                     struct fuse_file_info *file)
{
    (void)data_only;
    (void)file;
    if (inode == DISK && logging)
        append('F', 0, "", 0);
    fuse_reply_err(request, 0);
}

int main(int argc, char **argv)
{
    static const struct fuse_lowlevel_ops operations = {
        .lookup = on_lookup, .getattr = on_getattr, .setattr = on_setattr, .open = on_open,
        .read = on_read, .write = on_write, .fsync = on_fsync,
    };
    char *only_name[] = { argv[0], NULL };
    struct fuse_args arguments = FUSE_ARGS_INIT(1, only_name);
    struct fuse_session *session;
    int failed;

    disk_size = argc == 3 ? strtoul(argv[2], NULL, 10) << 20 : 0;
    if (disk_size == 0) {
        fputs("usage: blocklog DIRECTORY MIB\n", stderr);
        return 2;
    }
    base = mmap(NULL, disk_size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    overlay = calloc(disk_size / BLOCK, sizeof *overlay);
    session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (base == MAP_FAILED || !overlay || !session || fuse_set_signal_handlers(session) < 0
        || fuse_session_mount(session, argv[1]) < 0)
        return 1;
    failed = fuse_session_loop(session);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    return failed != 0;
}
