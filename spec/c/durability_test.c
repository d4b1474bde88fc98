/* durability_test.c: the order of syncs (G4).
 *
 * What a power cut spares can only be seen with one; but the rules are simple, and a trace of the calls shows each breach of them on any
 * file system. An inode is dirty from when it is written, changed or, for a
 * directory, given or deprived of an entry, until its own fsync or a syncfs.
 *
 *   at the swap      nothing in the new version is dirty, nor the target
 *   at the note in "..lock" that the version is durable, and at the end
 *                    nothing in that version is dirty, nor the target
 *   when a version is emptied
 *                    its new name has been synced
 *
 * Names that are removed from the target do not count: they may come back.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- what is dirty ----------------------------------------------------- */

enum { DIRTY_MAX = 4096 };

static ino_t        dirty[DIRTY_MAX];
static size_t       dirty_count;
static char         retired[64][AW_VERSION_MAX]; /* new names not yet synced  */
static size_t       retired_count;
static bool         durable;          /* the write that runs promises it      */
static unsigned     swaps, notes, syncs, fs_syncs;
static char         breach[2 * PATH_MAX];
static aw_sys_table real;

static void note_breach(const char *format, ...)
{
    va_list args;

    if (breach[0] != '\0')
        return;
    va_start(args, format);
    vsnprintf(breach, sizeof breach, format, args);
    va_end(args);
}

static bool is_dirty(ino_t inode)
{
    for (size_t i = 0; i < dirty_count; i++)
        if (dirty[i] == inode)
            return true;
    return false;
}

static void clean_inode(ino_t inode)
{
    for (size_t i = 0; i < dirty_count; i++)
        if (dirty[i] == inode)
            dirty[i--] = dirty[--dirty_count];
}

static void soil_inode(ino_t inode)
{
    if (is_dirty(inode))
        return;
    if (dirty_count == DIRTY_MAX)
        abort();
    dirty[dirty_count++] = inode;
}

static ino_t inode_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

static void soil(int fd)
{
    int kept = errno;
    soil_inode(inode_of(fd));
    errno = kept;
}

/* AT_FDCWD with a path: the directory that holds it. */
static void soil_parent(int dir, const char *name)
{
    int kept = errno;

    if (dir == AT_FDCWD) {
        char parent[PATH_MAX];
        struct stat st;
        snprintf(parent, sizeof parent, "%s/..", name);
        if (stat(parent, &st) == 0)
            soil_inode(st.st_ino);
    } else {
        soil_inode(inode_of(dir));
    }
    errno = kept;
}

/* ---- rules ------------------------------------------------------------- */

static bool target_is_dirty(void)
{
    return is_dirty(disk_inode("target"));
}

/* The first thing below PATH that is dirty, PATH too; in FOUND. */
static bool find_dirty(const char *path, char found[PATH_MAX])
{
    struct dirent *entry;
    bool hit = false;
    DIR *dir;

    if (is_dirty(disk_inode(path))) {
        snprintf(found, PATH_MAX, "%s", path);
        return true;
    }
    dir = opendir(path);
    while (dir && !hit && (entry = readdir(dir)) != NULL) {
        char below[PATH_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        hit = find_dirty(below, found);
    }
    if (dir)
        closedir(dir);
    return hit;
}

static void check_version(const char *name, const char *when)
{
    char path[PATH_MAX], found[PATH_MAX];

    snprintf(path, sizeof path, "target/%s", name);
    if (find_dirty(path, found))
        note_breach("%s %s is not synced", when, found);
}

static void check_target(const char *when)
{
    if (target_is_dirty())
        note_breach("%s the target is not synced", when);
}

static void check_live(const char *when)
{
    char *live = live_name("target");
    check_version(live, when);
    free(live);
}

/* ---- the calls --------------------------------------------------------- */

static int watch_openat(int dir, const char *name, int flags, mode_t mode)
{
    int fd = real.openat(dir, name, flags, mode);

    if (fd >= 0 && (flags & O_CREAT)) {
        soil(fd);
        soil(dir);
    }
    return fd;
}

static int watch_mkdirat(int dir, const char *name, mode_t mode)
{
    struct stat st;
    int rc = real.mkdirat(dir, name, mode);

    if (rc == 0 && fstatat(dir, name, &st, 0) == 0)
        soil_inode(st.st_ino);
    if (rc == 0)
        soil_parent(dir, name);
    return rc;
}

static int watch_symlinkat(const char *text, int dir, const char *name)
{
    int rc = real.symlinkat(text, dir, name);
    soil(dir);
    return rc;
}

static int watch_linkat(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc = real.linkat(from_dir, from, to_dir, to);
    soil(to_dir);
    return rc;
}

static int watch_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc;

    if (strcmp(to, "..data") == 0) {
        char text[AW_VERSION_MAX] = "";
        (void)!readlinkat(from_dir, from, text, sizeof text - 1);
        swaps++;
        if (durable) {
            check_version(text, "at the swap");
            check_target("at the swap");
        }
    }
    rc = real.renameat(from_dir, from, to_dir, to);
    if (rc == 0 && strncmp(from, "..2", 3) == 0) {
        snprintf(retired[retired_count++ % 64], AW_VERSION_MAX, "%.60s", to);
    } else {
        soil(from_dir);
        soil(to_dir);
    }
    return rc;
}

/* Something goes from DIR. The name below the target that it goes from must be
 * that of a version under removal, and synced. */
static void check_removal(int dir)
{
    char link[64], where[PATH_MAX], *name;
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    length = readlink(link, where, sizeof where - 1);
    where[length < 0 ? 0 : length] = '\0';
    name = strstr(where, "/target/");
    if (!name)
        return;
    name += strlen("/target/");
    name[strcspn(name, "/")] = '\0';
    if (strlen(name) < 4 || strcmp(name + strlen(name) - 4, "_tmp") != 0)
        note_breach("%s is emptied under the name of a version", name);
    for (size_t i = 0; i < retired_count; i++)
        if (strcmp(retired[i], name) == 0)
            note_breach("%s is emptied before that name is synced", name);
}

static int watch_unlinkat(int dir, const char *name, int flags)
{
    if (durable)
        check_removal(dir);
    return real.unlinkat(dir, name, flags);
}

static ssize_t watch_write(int fd, const void *data, size_t size)
{
    soil(fd);
    return real.write(fd, data, size);
}

static ssize_t watch_copy(int from, int to, size_t size)
{
    soil(to);
    return real.copy_file_range(from, to, size);
}

static int watch_clone(int from, int to)
{
    soil(to);
    return real.clone_file(from, to);
}

static int watch_fchmod(int fd, mode_t mode)
{
    soil(fd);
    return real.fchmod(fd, mode);
}

static int watch_fchown(int fd, uid_t uid, gid_t gid)
{
    soil(fd);
    return real.fchown(fd, uid, gid);
}

static int watch_fsync(int fd)
{
    syncs++;
    clean_inode(inode_of(fd));
    if (inode_of(fd) == disk_inode("target"))
        retired_count = 0;
    return 0; /* the disk is not what is tested */
}

static int watch_syncfs(int fd)
{
    (void)fd;
    fs_syncs++;
    dirty_count = retired_count = 0;
    return 0;
}

/* Starting to write back promises nothing. */
static int watch_writeback(int fd)
{
    (void)fd;
    return 0;
}

static ssize_t watch_pwrite(int fd, const void *data, size_t size, off_t at)
{
    char *live = live_name("target");
    char note[256] = "", name[AW_VERSION_MAX] = "";
    int durably = 0;

    memcpy(note, data, size < sizeof note - 1 ? size : sizeof note - 1);
    if (sscanf(note, "%63s durable=%d", name, &durably) == 2 && durably) {
        notes++;
        if (!live || strcmp(name, live) != 0)
            note_breach("the note speaks of %s, live is %s", name, live ? live : "nothing");
        check_version(name, "at the note");
        check_target("at the note");
    }
    free(live);
    return real.pwrite(fd, data, size, at);
}

static void watch_calls(void)
{
    real = aw_sys;
    dirty_count = retired_count = 0;
    swaps = notes = syncs = fs_syncs = 0;
    breach[0] = '\0';
    aw_sys.openat = watch_openat;
    aw_sys.mkdirat = watch_mkdirat;
    aw_sys.symlinkat = watch_symlinkat;
    aw_sys.linkat = watch_linkat;
    aw_sys.renameat = watch_renameat;
    aw_sys.unlinkat = watch_unlinkat;
    aw_sys.write = watch_write;
    aw_sys.pwrite = watch_pwrite;
    aw_sys.copy_file_range = watch_copy;
    aw_sys.clone_file = watch_clone;
    aw_sys.fchmod = watch_fchmod;
    aw_sys.fchown = watch_fchown;
    aw_sys.fsync = watch_fsync;
    aw_sys.syncfs = watch_syncfs;
    aw_sys.start_writeback = watch_writeback;
}

/* ---- writing ----------------------------------------------------------- */

static aw_writer *open_writer(aw_durability durability, unsigned keep)
{
    aw_options options = AW_OPTIONS_INIT;
    aw_writer *writer = NULL;
    aw_error err;

    options.durability = durability;
    options.keep = keep;
    options.create = true;
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    durable = durability == AW_DURABLE;
    return writer;
}

static void check_done(bool changed)
{
    CHECK_THAT(breach[0] == '\0', "%s", breach);
    if (durable) {
        check_live("at the end");
        check_target("at the end");
        CHECK_THAT(breach[0] == '\0', "%s", breach);
        CHECK(notes > 0);
    }
    CHECK((swaps > 0) == changed);
    swaps = notes = syncs = fs_syncs = 0;
}

static void write_unchecked(aw_durability durability, unsigned keep, const file *files,
                            bool changed)
{
    aw_writer *writer = open_writer(durability, keep);
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(result.changed == changed && result.warnings.count == 0);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

static void write_as(aw_durability durability, unsigned keep, const file *files, bool changed)
{
    write_unchecked(durability, keep, files, changed);
    check_done(changed);
}

#define ONE FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "3"), F("old/z", "4"))
#define TWO FILES(F("a", "1"), FM("d/x", "!", 0600), F("d/e/y", "3"), F("new", "4"))

TEST(first, "G4: a first durable write has synced all it made, the target's own name too")
{
    watch_calls();
    write_as(AW_DURABLE, 1, ONE, true);
    CHECK_THAT(!is_dirty(disk_inode(".")), "the target's parent is not synced");
}

TEST(again, "G4: a durable write of some changed files has synced them, their directories and the names")
{
    watch_calls();
    write_as(AW_DURABLE, 1, ONE, true);
    write_as(AW_DURABLE, 1, TWO, true);
    write_as(AW_DURABLE, 1, ONE, true);
    write_as(AW_DURABLE, 1, NO_FILES, true);
    write_as(AW_DURABLE, 1, TWO, true);
}

TEST(pruning, "G4: a version is only emptied once its new name is synced")
{
    watch_calls();
    for (int i = 0; i < 4; i++)
        write_as(AW_DURABLE, 3, i % 2 ? ONE : TWO, true);
    write_as(AW_DURABLE, 0, NO_FILES, true);
    CHECK(disk_count("target", "..2") == 1);
}

TEST(linked, "G4: what is linked from a version written without durability is synced")
{
    watch_calls();
    write_as(AW_NOT_DURABLE, 1, ONE, true);
    write_as(AW_DURABLE, 1, TWO, true);
}

TEST(linked_later, "G4: so it is when a durable version was noted before that one")
{
    watch_calls();
    write_as(AW_DURABLE, 1, FILES(F("before", "")), true);
    write_as(AW_NOT_DURABLE, 1, ONE, true);
    write_as(AW_DURABLE, 1, TWO, true);
}

TEST(no_op, "G4: a durable write that changes nothing syncs a version that was written without")
{
    watch_calls();
    write_as(AW_NOT_DURABLE, 1, ONE, true);
    write_as(AW_DURABLE, 1, ONE, false);
}

TEST(no_op_again, "G4: a durable write that changes nothing that is durable syncs no file")
{
    watch_calls();
    write_as(AW_DURABLE, 1, ONE, true);
    write_unchecked(AW_DURABLE, 1, ONE, false);
    CHECK_THAT(syncs <= 1 && fs_syncs == 0, "%u fsync, %u syncfs: more than the target's names",
               syncs, fs_syncs);
}

TEST(relinked, "G4: a visible link that is brought back is synced")
{
    watch_calls();
    write_as(AW_DURABLE, 1, ONE, true);
    CHECK(unlink("target/a") == 0);
    write_unchecked(AW_DURABLE, 1, ONE, false);
    check_target("at the end");
    CHECK_THAT(breach[0] == '\0', "%s", breach);
    CHECK(disk_exists("target/a"));
}

TEST(rolled_back, "G4: a durable rollback to a version that was written without syncs what it links")
{
    aw_writer *writer;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    watch_calls();
    write_as(AW_NOT_DURABLE, 2, ONE, true);
    write_as(AW_DURABLE, 2, FILES(F("other", "")), true);
    writer = open_writer(AW_DURABLE, 2);
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    check_done(true);
    aw_result_clear(&result);
    aw_writer_close(writer);
}

static void write_sources(const char *text)
{
    disk_write("source", text, 0644);
}

TEST(sources, "G4: sources are synced like data")
{
    watch_calls();
    write_sources("one");
    write_as(AW_DURABLE, 1, FILES(FS("d/s", "source", ""), F("a", "1")), true);
    write_sources("two");
    write_as(AW_DURABLE, 1, FILES(FS("d/s", "source", ""), F("a", "1")), true);
}

TEST(many, "G4: many files are synced by one call, and it comes before the swap")
{
    enum { COUNT = 200 };
    static char names[COUNT][32];
    static file files[COUNT + 1];
    char *text;

    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "d%zu/e/f%zu", i % 7, i);
        files[i] = (file)F(names[i], "contents");
    }
    watch_calls();
    write_unchecked(AW_DURABLE, 1, files, true);
    CHECK_THAT(fs_syncs == 1 && syncs < 10, "%u syncfs, %u fsync", fs_syncs, syncs);
    check_done(true);
    files[COUNT / 2].data = "changed";
    write_as(AW_DURABLE, 1, files, true);
    text = disk_read("target/d2/e/f100");
    CHECK_TEXT(text, "changed");
    free(text);
}

/* What others have to write, and where: whatever the disk here is. */
static int64_t others = 0;
static long    type = EXT4_SUPER_MAGIC;

static int64_t known_others(void)
{
    return others;
}

static long known_type(int fd)
{
    (void)fd;
    return type;
}

/* Whether COUNT changed files are synced by one call. */
static bool at_once(size_t count, long fs_type, int64_t of_others)
{
    static char names[200][32];
    static file files[201];
    static int turn = 0;
    char text[32];
    bool once;

    snprintf(text, sizeof text, "contents %d", turn++);
    for (size_t i = 0; i < count; i++) {
        snprintf(names[i], sizeof names[i], "f%zu", i);
        files[i] = (file)F(names[i], text);
    }
    files[count] = (file){ NULL, NULL, 0, NULL };
    type = fs_type;
    others = of_others;
    watch_calls();
    aw_sys.dirty_memory = known_others;
    aw_sys.file_system_type = known_type;
    write_unchecked(AW_DURABLE, 1, files, true);
    once = fs_syncs > 0;
    check_done(true);
    aw_sys = real;
    return once;
}

TEST(ways, "G4: one call syncs all where that pays, and where others' data are not waited for")
{
    const int64_t mib = 1 << 20;

    CHECK(!at_once(7, EXT4_SUPER_MAGIC, 0));
    CHECK(at_once(10, EXT4_SUPER_MAGIC, 0));
    CHECK(!at_once(10, EXT4_SUPER_MAGIC, 200 * mib));
    CHECK(!at_once(10, XFS_SUPER_MAGIC, 200 * mib));
    CHECK(!at_once(200, EXT4_SUPER_MAGIC, 400 * mib));
    CHECK(at_once(200, EXT4_SUPER_MAGIC, 20 * mib));
    CHECK(!at_once(1, BTRFS_SUPER_MAGIC, 0));
    CHECK(at_once(10, BTRFS_SUPER_MAGIC, 20 * mib));
    CHECK(!at_once(10, BTRFS_SUPER_MAGIC, 200 * mib));
    CHECK(!at_once(47, EXT4_SUPER_MAGIC, -1));
    CHECK(at_once(48, EXT4_SUPER_MAGIC, -1)); /* where nobody tells */
    CHECK(!at_once(200, BTRFS_SUPER_MAGIC, -1));
    CHECK(!at_once(200, OVERLAYFS_SUPER_MAGIC, 0)); /* it may do less than it says */
}

TEST(link_first, "G4: what one call syncs is there before it, ..data_tmp too, by an open writer")
{
    enum { COUNT = 10 };
    static char names[COUNT][32];
    static file files[COUNT + 1];
    aw_writer *writer;

    watch_calls();
    writer = open_writer(AW_DURABLE, 1);
    for (int turn = 0; turn < 4; turn++) {
        aw_payload *payload;
        aw_result result = AW_RESULT_INIT;
        aw_error err;
        char text[32];

        snprintf(text, sizeof text, "turn %d", turn);
        for (size_t i = 0; i < COUNT; i++) {
            snprintf(names[i], sizeof names[i], "d/f%zu", i);
            files[i] = (file)F(names[i], text);
        }
        payload = payload_of(files);
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        CHECK(result.changed && result.warnings.count == 0);
        CHECK_THAT(fs_syncs == 1, "%u syncfs", fs_syncs);
        check_done(true);
        aw_result_clear(&result);
        aw_writer_remember(writer, payload);
    }
    aw_writer_close(writer);
}

static int old_release(char *buffer, size_t size)
{
    snprintf(buffer, size, "5.7.19-amd64");
    return 0;
}

TEST(old_kernel, "G4: before Linux 5.8, where syncfs hides errors, many files are synced one by one")
{
    enum { COUNT = 200 };
    static char names[COUNT][32];
    static file files[COUNT + 1];

    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "f%zu", i);
        files[i] = (file)F(names[i], "contents");
    }
    watch_calls();
    aw_sys.kernel_release = old_release;
    aw_sys.syncfs = NULL; /* not to be called */
    write_as(AW_DURABLE, 1, files, true);
}
