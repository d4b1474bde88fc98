/* rare_test.c: answers of the kernel, the disk and the clock that hardly ever come,
 * and that no fault run makes up, for the call succeeds, or another state goes with
 * the error. Each is given through the table of system calls, and what the write
 * or the reader comes to is looked at.
 */
#define _GNU_SOURCE
#include "aw_at.h"
#include "aw_memo.h"
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OLD FILES(F("a", "1"), F("d/x", "2"))
#define NEW FILES(F("a", "2"), F("d/y", "3"))

static aw_sys_table kernel; /* while some of it is replaced */

static void keep_kernel(void)
{
    kernel = aw_sys;
}

/* A write of NEW that must fail with CODE and leave OLD as it is. */
static void check_fails(aw_code code)
{
    char *before = disk_state("target"), *after;
    aw_error err = { 0 };

    CHECK(write_keeping(1, NEW, NULL, &err) < 0);
    CHECK_THAT(err.code == code && !err.committed, "%s", aw_code_name(err.code));
    after = disk_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

/* ---- listing ----------------------------------------------------------- */

/* Some file systems leave the type of an entry to stat. */
static ssize_t getdents_untyped(int fd, void *buffer, size_t size)
{
    ssize_t got = kernel.getdents(fd, buffer, size);

    for (ssize_t at = 0; at < got;) {
        struct dirent64 *entry = (void *)((char *)buffer + at);

        entry->d_type = DT_UNKNOWN;
        at += entry->d_reclen;
    }
    return got;
}

TEST(untyped, "G2 G5 G9: a listing that does not tell types is as good")
{
    aw_snapshot *snapshot = NULL;
    aw_list paths = { NULL, 0 };
    aw_error err;

    keep_kernel();
    aw_sys.getdents = getdents_untyped;
    must_write(OLD);
    leave_residue();
    must_write(NEW);
    CHECK_CLEAN("target", NEW, 1);
    CHECK_OK(aw_snapshot_open("target", &snapshot, &err), &err);
    CHECK_OK(aw_snapshot_paths(snapshot, &paths, &err), &err);
    CHECK_TEXT(joined(&paths), "a d/y");
    aw_list_clear(&paths);
    aw_snapshot_close(snapshot);
}

static int stranger_code;

static int fstatat_of_stranger(int dir, const char *name, struct stat *st, int flags)
{
    if (strcmp(name, "stranger") != 0)
        return kernel.fstatat(dir, name, st, flags);
    errno = stranger_code;
    return -1;
}

TEST(vanishing, "what vanishes while it is listed is not there; what cannot be looked at is an error")
{
    must_write(OLD);
    disk_write("target/stranger", "", 0644);
    keep_kernel();
    aw_sys.getdents = getdents_untyped;
    aw_sys.fstatat = fstatat_of_stranger;
    stranger_code = EIO;
    check_fails(AW_E_IO);
    stranger_code = ENOENT;
    must_write(NEW);
    CHECK(unlink("target/stranger") == 0);
    CHECK_CLEAN("target", NEW, 1);
}

TEST(long_link, "G7: a link with a longer text than any of ours is somebody else's")
{
    char text[NAME_MAX + 100];

    must_write(FILES(F("d/x", "2")));
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    disk_symlink(text, "target/a");
    check_fails(AW_E_FOREIGN_ENTRY);
    CHECK(unlink("target/a") == 0);
    must_write(NEW);
    CHECK_CLEAN("target", NEW, 1);
}

static ino_t mount_inode;

static int fstat_of_mount(int fd, struct stat *st)
{
    int rc = kernel.fstat(fd, st);

    if (rc == 0 && st->st_ino == mount_inode)
        st->st_dev++;
    return rc;
}

TEST(mounted, "G7: what is mounted in a version that goes is not removed, and that is a warning")
{
    char old[PATH_MAX], path[PATH_MAX];
    char *live;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(OLD);
    live = live_name("target");
    snprintf(old, sizeof old, "target/%s_tmp/d/x", live);
    snprintf(path, sizeof path, "target/%s/d", live);
    mount_inode = disk_inode(path);
    CHECK(mount_inode != 0);
    keep_kernel();
    aw_sys.fstat = fstat_of_mount;
    CHECK_OK(write_keeping(0, NEW, &result, &err), &err);
    aw_sys = kernel;
    CHECK(result.warnings.count == 1);
    CHECK(disk_exists(old));
    aw_result_clear(&result);
    CHECK_OK(write_keeping(0, OLD, NULL, &err), &err);
    CHECK_CLEAN("target", OLD, 0);
    free(live);
}

/* ---- removing what is deep --------------------------------------------- */

static unsigned hoists_refused;
static int refusal;

/* Deep directories are moved up before they are removed. */
static int renameat_refused(int from_dir, const char *from, int to_dir, const char *to)
{
    if (strncmp(to, "..deep.", 7) != 0 || hoists_refused == 0)
        return kernel.renameat(from_dir, from, to_dir, to);
    hoists_refused--;
    errno = refusal;
    return -1;
}

#define DEEP FILES(F("1/2/3/4/5/6/7/8/9/f", "deep"), F("a", "1"))

TEST(deep, "a deep directory that may not be moved is made movable; else it stays, with a warning")
{
    static const int codes[] = { EACCES, EEXIST, EIO };

    for (size_t i = 0; i < 3; i++) {
        aw_result result = AW_RESULT_INIT;
        aw_error err;

        must_write(DEEP);
        keep_kernel();
        aw_sys.renameat = renameat_refused;
        refusal = codes[i];
        hoists_refused = 1;
        CHECK_OK(write_keeping(0, OLD, &result, &err), &err);
        CHECK(hoists_refused == 0);
        aw_sys = kernel;
        CHECK(result.warnings.count == (refusal == EIO));
        aw_result_clear(&result);
        CHECK_OK(write_keeping(0, NEW, NULL, &err), &err);
        CHECK_CLEAN("target", NEW, 0);
        disk_remove("target");
    }
}

TEST(too_long, "a component that no directory can hold is not cut, and the cursor is at the root again")
{
    char path[NAME_MAX + 1];
    int root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    aw_cursor cursor = AW_CURSOR_INIT(root);

    memset(path, 'x', sizeof path);
    CHECK(root >= 0);
    errno = 0;
    CHECK(aw_cursor_enter(&cursor, path, sizeof path - 1) < 0 && errno != ENAMETOOLONG);
    CHECK(aw_cursor_enter(&cursor, path, sizeof path) < 0 && errno == ENAMETOOLONG);
    CHECK(cursor.dir == root && cursor.length == 0);
    close(root);
}

TEST(long_likeness, "a target below a directory with a longer name than any version's is no version's")
{
    static const char name[] =
        "..2026_11_22_15_04_05.1111111111111111111111111111111111111111111111111111111111111111";

    disk_mkdir(name, 0755);
    disk_symlink(name, "..data");
    CHECK(chdir(name) == 0);
    must_write(OLD);
    CHECK_CLEAN("target", OLD, 1);
}

TEST(cut_path, "a path that does not fit is an error, never cut")
{
    char path[PATH_MAX];
    int root = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    CHECK(aw_sys_fd_path(root, path, 2) < 0 && errno == ENAMETOOLONG);
    CHECK(aw_sys_fd_path(root, path, sizeof path) == 0);
    CHECK_TEXT(path, test_dir);
    close(root);
}

/* ---- the clock --------------------------------------------------------- */

static int clock_code;
static time_t clock_second;

static int odd_clock(clockid_t clock, struct timespec *now)
{
    if (clock != CLOCK_REALTIME)
        return kernel.clock_gettime(clock, now);
    *now = (struct timespec){ clock_second, 0 };
    errno = clock_code;
    return clock_code ? -1 : 0;
}

TEST(no_clock, "G2: without a clock, or with one that has no four-digit year, a write is an error")
{
    must_write(OLD);
    keep_kernel();
    aw_sys.clock_gettime = odd_clock;
    clock_code = EINVAL;
    check_fails(AW_E_IO);
    must_write(OLD); /* nothing is made, so no name is needed */
    clock_code = 0;
    clock_second = (time_t)253402300800; /* the year 10000 */
    check_fails(AW_E_FOREIGN_ENTRY);
    clock_second = (time_t)INT64_MAX;
    check_fails(AW_E_FOREIGN_ENTRY);
    aw_sys = kernel;
    must_write(NEW);
    CHECK_CLEAN("target", NEW, 1);
}

/* ---- the note ---------------------------------------------------------- */

#define LONG "______________________________________________________________________"
#define REST " durable=1 clean=1 synced=1 names=1.1 retained=1 inode=1 changed=1.1"

TEST(junk, "G5: a damaged note is none")
{
    static const char *const junk[] = {
        "", "junk", "..2026_11_22_15_04_05.1 durable=1 clean=1",
        "version durable=1 clean=1 synced=1 names=1.000000001 retained=1 inode=1 changed=1.000000001",
        "..2026_11_22_15_04_05.1 durable=1 clean=1 synced=1 names=1.1 retained=1 inode=-1 changed=1.1",
        "..2026_11_22_15_04_05.1 durable=1 clean=1 synced=1 names=1.1 retained=1 inode= 1 changed=1.1",
        ("..2026_11_22_15_04_05.1" LONG LONG REST),
    };
    char text[251];

    must_write(OLD);
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        memset(text, ' ', 250);
        text[250] = '\0';
        memcpy(text, junk[i], strlen(junk[i]));
        text[249] = '\n';
        disk_write("target/..lock", i == 0 ? "" : text, 0600);
        leave_residue();
        must_write(i % 2 ? OLD : NEW);
        CHECK_CLEAN("target", i % 2 ? OLD : NEW, 1);
    }
}

/* ---- file systems that can less ---------------------------------------- */

static int openat_without_tmpfile(int dir, const char *name, int flags, mode_t mode)
{
    if ((flags & O_TMPFILE) != O_TMPFILE)
        return kernel.openat(dir, name, flags, mode);
    errno = EOPNOTSUPP;
    return -1;
}

static uid_t other_euid(void)
{
    return kernel.geteuid() + 1;
}

TEST(no_tmpfile, "G8: where files have another owner than we, and no unnamed ones, that is no change")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(OLD);
    keep_kernel();
    aw_sys.openat = openat_without_tmpfile;
    aw_sys.geteuid = other_euid;
    CHECK_OK(write_keeping(1, OLD, &result, &err), &err);
    CHECK(!result.changed && result.warnings.count == 0);
    aw_result_clear(&result);
    CHECK_OK(write_keeping(1, NEW, &result, &err), &err);
    CHECK(result.changed);
    aw_result_clear(&result);
    CHECK_CLEAN("target", NEW, 1);
}

static ino_t synced_inode;
static int sync_code;

static int fsync_refused(int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || (synced_inode != 0 && st.st_ino != synced_inode)
        || !S_ISDIR(st.st_mode))
        return 0;
    errno = sync_code;
    return -1;
}

static int durable_write(const file *files, aw_error *err)
{
    aw_options options = AW_OPTIONS_INIT;

    return write_with(&options, files, NULL, err);
}

TEST(no_sync, "G4: directories that know no sync are no failure, nor a parent that is read-only")
{
    aw_error err;

    disk_mkdir("target", 0755);
    aw_sys.fsync = fsync_refused;
    synced_inode = 0;
    sync_code = EINVAL;
    CHECK_OK(durable_write(OLD, &err), &err);
    CHECK_CLEAN("target", OLD, 1);
    disk_remove("target");
    disk_mkdir("target", 0755);
    synced_inode = disk_inode(".");
    sync_code = EROFS;
    CHECK_OK(durable_write(OLD, &err), &err);
    synced_inode = disk_inode("target");
    CHECK(durable_write(NEW, &err) < 0 && err.sys_errno == EROFS && !err.committed);
    CHECK_CLEAN("target", OLD, 1);
}

static long other_type = FUSE_SUPER_MAGIC;

static long other_file_system(int fd)
{
    (void)fd;
    return other_type;
}

static const char *other_release;

static int release(char *buffer, size_t size)
{
    snprintf(buffer, size, "%s", other_release);
    return 0;
}

TEST(clocks, "which file systems tell every change by its time, and from which kernel on")
{
    static const struct {
        long type;
        const char *release;
        aw_clock clock;
    } known[] = {
        { EXT4_SUPER_MAGIC, "6.13.0-1", AW_CLOCK_MULTIGRAIN },
        { TMPFS_MAGIC, "7.0", AW_CLOCK_MULTIGRAIN },
        { XFS_SUPER_MAGIC, "6.12.9", AW_CLOCK_TICKING },
        { BTRFS_SUPER_MAGIC, "5.20", AW_CLOCK_TICKING },
        { OVERLAYFS_SUPER_MAGIC, "6.13", AW_CLOCK_TICKING },
        { FUSE_SUPER_MAGIC, "6.13", AW_CLOCK_NONE },
        { -1, "6.13", AW_CLOCK_NONE },
    };

    aw_sys.file_system_type = other_file_system;
    aw_sys.kernel_release = release;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        other_type = known[i].type;
        other_release = known[i].release;
        CHECK_THAT(aw_clock_of(-1) == known[i].clock, "%lx, %s", (unsigned long)other_type,
                   other_release);
    }
    other_type = FUSE_SUPER_MAGIC;
}

static unsigned syncfs_calls;

static int count_syncfs(int fd)
{
    (void)fd;
    syncfs_calls++;
    return 0;
}

TEST(no_syncfs, "G4: many files are synced one by one where syncfs may do less than it says")
{
    enum { COUNT = 60 };
    static char names[COUNT][16];
    static file files[COUNT + 1];
    aw_error err;

    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "f%02zu", i);
        files[i] = (file)F(names[i], "contents");
    }
    disk_mkdir("target", 0755);
    aw_sys.file_system_type = other_file_system;
    aw_sys.syncfs = count_syncfs;
    syncfs_calls = 0;
    CHECK_OK(durable_write(files, &err), &err);
    CHECK(syncfs_calls == 0);
    CHECK_CLEAN("target", files, 1);
}

/* ---- a swap whose answer is lost --------------------------------------- */

static bool blind;

static int renameat_unanswered(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc = kernel.renameat(from_dir, from, to_dir, to);

    if (strcmp(to, "..data") != 0)
        return rc;
    blind = true;
    errno = EIO;
    return -1;
}

static ssize_t readlinkat_blind(int dir, const char *name, char *text, size_t size)
{
    if (!blind)
        return kernel.readlinkat(dir, name, text, size);
    errno = EIO;
    return -1;
}

TEST(in_doubt, "G1 G3: a swap of which nobody can tell whether it happened is not undone")
{
    aw_error err;

    must_write(OLD);
    keep_kernel();
    blind = false;
    aw_sys.renameat = renameat_unanswered;
    aw_sys.readlinkat = readlinkat_blind;
    CHECK(write_keeping(1, NEW, NULL, &err) < 0);
    CHECK(err.code == AW_E_IO && err.sys_errno == EIO);
    aw_sys = kernel;
    CHECK_CLEAN("target", NEW, 1);
    must_write(OLD);
    CHECK_CLEAN("target", OLD, 1);
}

/* ---- others who write meanwhile ---------------------------------------- */

static unsigned swaps_left;

static ssize_t getdents_behind_swap(int fd, void *buffer, size_t size)
{
    if (swaps_left > 0) {
        const aw_sys_table mine = aw_sys;

        aw_sys = kernel;
        swaps_left--;
        must_write(swaps_left % 2 ? OLD : NEW);
        aw_sys = mine;
    }
    return kernel.getdents(fd, buffer, size);
}

TEST(replaced, "versions and plans are of one instant, though others write meanwhile")
{
    aw_version *versions = NULL;
    aw_result result = AW_RESULT_INIT;
    aw_payload *payload = payload_of(NEW);
    aw_writer *writer;
    size_t count = 0;
    char *live;
    aw_error err;

    must_write(NEW);
    must_write(OLD);
    writer = writer_keeping(1);
    keep_kernel();
    aw_sys.getdents = getdents_behind_swap;
    swaps_left = 3;
    CHECK_OK(aw_versions(writer, &versions, &count, &err), &err);
    CHECK(swaps_left == 0);
    live = live_name("target");
    CHECK(count == 2 && versions[0].live && !versions[1].live);
    CHECK_TEXT(versions[0].name, live);
    free(versions);
    free(live);
    must_write(OLD);
    swaps_left = 1;
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(swaps_left == 0 && !result.changed);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

static int openat_without_lock(int dir, const char *name, int flags, mode_t mode)
{
    if (strcmp(name, "..lock") != 0)
        return kernel.openat(dir, name, flags, mode);
    errno = ENOENT;
    return -1;
}

TEST(inspecting, "a ..lock that vanishes is held by nobody, and names that begin with .. are not missing")
{
    aw_inspection found = AW_INSPECTION_INIT;
    aw_error err;

    must_write(OLD);
    disk_write(in_live("..odd"), "", 0644);
    keep_kernel();
    aw_sys.openat = openat_without_lock;
    CHECK_OK(aw_inspect("target", &found, &err), &err);
    CHECK(found.fault == AW_SOUND && found.locked == 0 && found.missing.count == 0);
    aw_inspection_clear(&found);
}

TEST(odd_kinds, "G9: a link or a FIFO in a version is no file that a snapshot tells of")
{
    aw_snapshot *snapshot = NULL;
    aw_error err;
    aw_stat st;

    must_write(OLD);
    disk_symlink("a", in_live("link"));
    CHECK(mkfifo(in_live("fifo"), 0644) == 0);
    CHECK_OK(aw_snapshot_open("target", &snapshot, &err), &err);
    CHECK(aw_snapshot_stat(snapshot, "link", &st, &err) < 0 && err.code == AW_E_NOT_FOUND);
    CHECK(aw_snapshot_stat(snapshot, "fifo", &st, &err) < 0 && err.code == AW_E_NOT_FOUND);
    aw_snapshot_close(snapshot);
}

TEST(patience, "a longer patience than any clock can count is the longest")
{
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(OLD);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    aw_writer_set_lock_timeout(writer, INT64_MAX);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
    CHECK_CLEAN("target", OLD, 1);
}
