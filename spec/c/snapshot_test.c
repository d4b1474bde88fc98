/* snapshot_test.c: a reader's consistent view (G1, G9), on our volumes and on
 * those that a kubelet writes.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static aw_snapshot *open_snapshot(const char *target)
{
    aw_snapshot *snapshot = NULL;
    aw_error err;

    CHECK_OK(aw_snapshot_open(target, &snapshot, &err), &err);
    return snapshot;
}

/* EXPECTED is NULL where the version must be gone. */
static void check_reads(aw_snapshot *snapshot, const char *path, const char *expected)
{
    char *data = NULL;
    size_t size = 0;
    aw_error err;

    if (!expected) {
        CHECK(aw_snapshot_read(snapshot, path, &data, &size, &err) < 0);
        CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
        return;
    }
    CHECK_OK(aw_snapshot_read(snapshot, path, &data, &size, &err), &err);
    CHECK_TEXT(data, expected);
    CHECK(size == strlen(expected));
    free(data);
}

static void check_paths(aw_snapshot *snapshot, const char *expected)
{
    aw_list paths = { NULL, 0 };
    aw_error err;

    CHECK_OK(aw_snapshot_paths(snapshot, &paths, &err), &err);
    CHECK_TEXT(joined(&paths), expected);
    aw_list_clear(&paths);
}

static void publish(unsigned keep, const file *files)
{
    aw_error err;
    CHECK_OK(write_keeping(keep, files, NULL, &err), &err);
}

static bool version_exists(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "target/%s", name);
    return disk_exists(path);
}

/* ---- reading ----------------------------------------------------------- */

TEST(reads, "G9: a snapshot tells its version, paths, contents and modes")
{
    aw_snapshot *snapshot;
    char *live;
    bool current = false;
    aw_stat st;
    aw_error err;

    publish(1, FILES(F("a", "1"), FM("b/c", "two", 0600), F("b/d/e", ""), F("b-x", "3")));
    snapshot = open_snapshot("target");
    live = live_name("target");
    CHECK_TEXT(aw_snapshot_version(snapshot), live);
    check_paths(snapshot, "a b-x b/c b/d/e");
    check_reads(snapshot, "a", "1");
    check_reads(snapshot, "b/c", "two");
    check_reads(snapshot, "./b//d/e", "");
    CHECK_OK(aw_snapshot_stat(snapshot, "b/c", &st, &err), &err);
    CHECK(!st.directory && st.mode == 0600 && st.size == 3 && st.uid == geteuid());
    CHECK(st.gid == getegid() && st.mtime > 1700000000);
    CHECK_OK(aw_snapshot_stat(snapshot, "b", &st, &err), &err);
    CHECK(st.directory && st.mode == 0755);
    CHECK_OK(aw_snapshot_stat(snapshot, ".", &st, &err), &err);
    CHECK(st.directory && st.mode == 0755);
    CHECK_OK(aw_snapshot_is_current(snapshot, &current, &err), &err);
    CHECK(current);
    aw_snapshot_close(snapshot);
    aw_snapshot_close(NULL);
    free(live);
}

TEST(empty, "G9: a snapshot of an empty version has no paths")
{
    aw_snapshot *snapshot;

    publish(1, NO_FILES);
    snapshot = open_snapshot("target");
    check_paths(snapshot, "");
    aw_snapshot_close(snapshot);
}

TEST(big, "G9: a snapshot reads large files and bytes of any value exactly")
{
    enum { SIZE = 3000000 };
    aw_payload *payload = payload_of(NO_FILES);
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_entry entry = AW_ENTRY_INIT;
    aw_snapshot *snapshot;
    char *data = malloc(SIZE), *seen = NULL;
    size_t size;
    aw_error err;

    CHECK(data != NULL);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 >> 3);
    entry.data = data;
    entry.size = SIZE;
    CHECK_OK(aw_payload_add(payload, "blob", 4, &entry, &err), &err);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    snapshot = open_snapshot("target");
    CHECK_OK(aw_snapshot_read(snapshot, "blob", &seen, &size, &err), &err);
    CHECK(size == SIZE && memcmp(seen, data, SIZE) == 0 && seen[SIZE] == '\0');
    aw_snapshot_close(snapshot);
    free(seen);
    free(data);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

TEST(not_found, "G9: what is not in the version is not_found: missing, a directory, outside, hostile")
{
    static const char *const paths[] = {
        "missing", "b/missing", "a/below", "b", ".", "..", "../target/a", "/etc/passwd", "",
        "b/../a", "..data/a", "link", "link/passwd", "fifo",
    };
    aw_snapshot *snapshot;
    char path[PATH_MAX], *live;

    publish(1, FILES(F("a", "1"), F("b/c", "2")));
    live = live_name("target");
    snprintf(path, sizeof path, "target/%s/link", live);
    disk_symlink("/etc", path);
    snprintf(path, sizeof path, "target/%s/fifo", live);
    CHECK(mkfifo(path, 0644) == 0);
    snapshot = open_snapshot("target");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char *data = NULL;
        size_t size = 77;
        aw_error err;
        CHECK_THAT(aw_snapshot_read(snapshot, paths[i], &data, &size, &err) < 0, "\"%s\" was read",
                   paths[i]);
        CHECK_THAT(err.code == AW_E_NOT_FOUND && !err.committed, "\"%s\" gave %s", paths[i],
                   aw_code_name(err.code));
        CHECK(data == NULL && size == 77);
    }
    check_paths(snapshot, "a b/c");
    aw_snapshot_close(snapshot);
    free(live);
}

TEST(open_errors, "G9: no target is no_target, no live version is not_found, a hostile ..data is foreign")
{
    static const char *const links[] = { "../victim", ".", "..", "/etc", "..data", "a/b",
                                         "..2026_11_22_15_04_05.1/", "..data_tmp" };
    aw_snapshot *snapshot = NULL;
    aw_error err;

    CHECK(aw_snapshot_open("missing", &snapshot, &err) < 0 && err.code == AW_E_NO_TARGET);
    disk_write("file", "", 0644);
    CHECK(aw_snapshot_open("file", &snapshot, &err) < 0 && err.code == AW_E_NO_TARGET);
    disk_mkdir("target", 0755);
    CHECK(aw_snapshot_open("target", &snapshot, &err) < 0 && err.code == AW_E_NOT_FOUND);
    disk_symlink("..2026_11_22_15_04_05.1", "target/..data"); /* leads nowhere */
    CHECK(aw_snapshot_open("target", &snapshot, &err) < 0 && err.code == AW_E_NOT_FOUND);
    disk_symlink("../victim", "target/..2026_11_22_15_04_05.1");
    disk_mkdir("victim", 0755);
    CHECK(aw_snapshot_open("target", &snapshot, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        CHECK(unlink("target/..data") == 0);
        disk_symlink(links[i], "target/..data");
        CHECK_THAT(aw_snapshot_open("target", &snapshot, &err) < 0, "\"%s\" was trusted", links[i]);
        CHECK(err.code == AW_E_FOREIGN_ENTRY);
    }
    CHECK(unlink("target/..data") == 0);
    disk_mkdir("target/..data", 0755);
    CHECK(aw_snapshot_open("target", &snapshot, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    CHECK(snapshot == NULL);
}

static int (*real_fstat)(int fd, struct stat *st);

static int fstat_too_small(int fd, struct stat *st)
{
    int rc = real_fstat(fd, st);
    if (S_ISREG(st->st_mode))
        st->st_size /= 3;
    return rc;
}

TEST(grown, "G9: a file larger than its size said is read to its end")
{
    char text[10001];
    aw_snapshot *snapshot;

    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    publish(0, FILES(F("a", text), F("b", "1")));
    snapshot = open_snapshot("target");
    real_fstat = aw_sys.fstat;
    aw_sys.fstat = fstat_too_small;
    check_reads(snapshot, "a", text);
    check_reads(snapshot, "b", "1");
    aw_snapshot_close(snapshot);
}

/* ---- leases ------------------------------------------------------------ */

static void hold_over_swaps(unsigned keep)
{
    size_t descriptors = disk_open_files();
    aw_snapshot *snapshot;
    char name[AW_VERSION_MAX];
    bool current = true;
    aw_error err;

    publish(keep, FILES(F("a", "mine"), F("b/c", "also mine")));
    snapshot = open_snapshot("target");
    snprintf(name, sizeof name, "%s", aw_snapshot_version(snapshot));
    for (int i = 0; i < 50; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        publish(keep, FILES(F("a", number), F("n", number)));
        check_reads(snapshot, "a", "mine");
        check_reads(snapshot, "b/c", "also mine");
        check_paths(snapshot, "a b/c");
    }
    CHECK_OK(aw_snapshot_is_current(snapshot, &current, &err), &err);
    CHECK(!current);
    CHECK_TEXT(aw_snapshot_version(snapshot), name);
    CHECK(version_exists(name));
    CHECK(disk_count("target", "..2") == keep + 2); /* live, kept, leased */
    aw_snapshot_close(snapshot);
    CHECK(disk_open_files() == descriptors);
    publish(keep, FILES(F("a", "last")));
    CHECK(!version_exists(name));
    CHECK_CLEAN("target", FILES(F("a", "last")), keep);
}

TEST(lease_keep_0, "G9: a snapshot held over 50 swaps with keep 0 reads its own version, gone after close and one write")
{
    hold_over_swaps(0);
}

TEST(lease_keep_1, "G9: a snapshot held over 50 swaps with keep 1 reads its own version, gone after close and one write")
{
    hold_over_swaps(1);
}

TEST(lease_process, "G9: a lease held by another process counts, and ends when it is killed")
{
    int ready[2], done[2];
    char byte = 0, name[AW_VERSION_MAX];
    pid_t child;
    int status;
    char *live;

    publish(0, FILES(F("a", "1")));
    live = live_name("target");
    snprintf(name, sizeof name, "%s", live);
    free(live);
    CHECK(pipe(ready) == 0 && pipe(done) == 0);
    child = fork();
    if (child == 0) {
        aw_snapshot *snapshot = NULL;
        aw_error err;
        close(done[1]);
        if (aw_snapshot_open("target", &snapshot, &err) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        (void)!read(done[0], &byte, 1); /* until the parent lets go */
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    publish(0, FILES(F("a", "2")));
    publish(0, FILES(F("a", "3")));
    CHECK(version_exists(name));
    close(done[1]);
    waitpid(child, &status, 0);
    publish(0, FILES(F("a", "4")));
    CHECK(!version_exists(name));
    close(ready[0]);
    close(ready[1]);
    close(done[0]);
}

TEST(lease_collect, "G9: collect leaves leased versions, and counts the others")
{
    aw_writer *writer = writer_keeping(5);
    aw_snapshot *snapshot;
    size_t removed = 99;
    aw_error err;

    publish(5, FILES(F("a", "1")));
    publish(5, FILES(F("a", "2")));
    snapshot = open_snapshot("target");
    publish(5, FILES(F("a", "3")));
    publish(5, FILES(F("a", "4")));
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 2);
    check_reads(snapshot, "a", "2");
    CHECK_CLEAN("target", FILES(F("a", "4")), 1);
    aw_snapshot_close(snapshot);
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 1);
    CHECK_CLEAN("target", FILES(F("a", "4")), 0);
    aw_writer_close(writer);
}

TEST(cap, "G9: leases keep at most AW_LEASED_MAX versions, the oldest go, and their readers are told")
{
    enum { COUNT = AW_LEASED_MAX + 10 };
    aw_snapshot *held[COUNT];
    aw_list paths = { NULL, 0 };
    char *data = NULL;
    size_t size;
    aw_stat st;
    aw_error err;

    for (int i = 0; i < COUNT; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        publish(0, FILES(F("n", number), F("d/x", number)));
        held[i] = open_snapshot("target");
    }
    publish(0, FILES(F("n", "last")));
    CHECK(disk_count("target", "..2") == AW_LEASED_MAX + 1);
    for (int i = COUNT - AW_LEASED_MAX; i < COUNT; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        check_reads(held[i], "n", number);
    }
    for (int i = 0; i < COUNT - AW_LEASED_MAX; i++) {
        CHECK(aw_snapshot_read(held[i], "n", &data, &size, &err) < 0);
        CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE && data == NULL);
        CHECK(aw_snapshot_stat(held[i], "d/x", &st, &err) < 0);
        CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
        CHECK(aw_snapshot_paths(held[i], &paths, &err) < 0);
        CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
    }
    for (int i = 0; i < COUNT; i++)
        aw_snapshot_close(held[i]);
    publish(0, FILES(F("n", "last")));
    CHECK_CLEAN("target", FILES(F("n", "last")), 0);
}

TEST(half_removed, "G9: a version that is being removed under its reader lists as stale, never in part")
{
    aw_snapshot *snapshot;
    aw_list paths = { NULL, 0 };
    char path[PATH_MAX], retired[PATH_MAX];
    const char *name;
    char *data = NULL;
    size_t size;
    aw_error err;

    publish(0, FILES(F("a", "1"), F("b", "2"), F("c/d", "3")));
    snapshot = open_snapshot("target");
    name = aw_snapshot_version(snapshot);
    snprintf(path, sizeof path, "target/%s", name);
    snprintf(retired, sizeof retired, "target/%s_tmp", name);
    CHECK(rename(path, retired) == 0); /* as pruning does, */
    snprintf(path, sizeof path, "target/%s_tmp/a", name);
    CHECK(unlink(path) == 0);          /* and so far it has come */
    CHECK(aw_snapshot_read(snapshot, "a", &data, &size, &err) < 0);
    CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
    CHECK_THAT(aw_snapshot_paths(snapshot, &paths, &err) < 0, "\"%s\" are listed", joined(&paths));
    CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
    aw_snapshot_close(snapshot);
}

static int (*real_flock)(int fd, int operation);
static int swaps_left;

/* The worst moment: the version is swapped away and pruned between the opening
 * of its directory and the lease. */
static int swap_then_flock(int fd, int operation)
{
    if (swaps_left > 0 && operation == (LOCK_SH | LOCK_NB)) {
        char number[16];
        aw_sys_table hooked = aw_sys;

        snprintf(number, sizeof number, "%d", swaps_left--);
        aw_sys.flock = real_flock;
        publish(0, FILES(F("n", number)));
        aw_sys = hooked;
    }
    return real_flock(fd, operation);
}

TEST(race, "G9: a version that is swapped away before its lease is taken is not the one that is shown")
{
    aw_snapshot *snapshot;

    publish(0, FILES(F("n", "first")));
    real_flock = aw_sys.flock;
    aw_sys.flock = swap_then_flock;
    swaps_left = 5;
    snapshot = open_snapshot("target");
    CHECK(swaps_left == 0);
    check_reads(snapshot, "n", "1");
    aw_snapshot_close(snapshot);
}

TEST(no_flock, "G9: where there is no flock a snapshot still reads")
{
    fault_plan plan = { .kind = FAULT_EVERY, .code = ENOTSUP, .call = CALL_flock };
    aw_snapshot *snapshot = NULL;
    aw_error err;
    int rc;

    publish(0, FILES(F("n", "1")));
    fault_arm(plan);
    rc = aw_snapshot_open("target", &snapshot, &err);
    fault_disarm();
    CHECK_OK(rc, &err);
    check_reads(snapshot, "n", "1");
    aw_snapshot_close(snapshot);
}

/* The kernel has no answer for a directory, but one for a file. */
static int flock_code;

static int no_answer(int fd, int operation)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || !S_ISDIR(st.st_mode))
        return flock(fd, operation);
    errno = flock_code;
    return -1;
}

TEST(no_answer_stays, "G9: a version stays, with a warning, when the kernel cannot tell whether it is leased")
{
    static const int codes[] = { EIO, ENOLCK, ENOMEM, ESTALE };
    const file *const sets[] = { FILES(F("n", "0")), FILES(F("n", "1")) };
    const aw_sys_table kernel = aw_sys;

    publish(0, sets[1]);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        aw_snapshot *snapshot = open_snapshot("target");
        aw_result result = AW_RESULT_INIT;
        aw_error err;
        int rc;

        flock_code = codes[i];
        aw_sys.flock = no_answer;
        rc = write_keeping(0, sets[i % 2], &result, &err);
        aw_sys = kernel;
        CHECK_OK(rc, &err);
        CHECK(result.warnings.count == 1 && strstr(result.warnings.items[0], "flock") != NULL);
        aw_result_clear(&result);
        check_reads(snapshot, "n", sets[1 - i % 2]->data);
        aw_snapshot_close(snapshot);
        publish(0, sets[i % 2]);
        CHECK_CLEAN("target", sets[i % 2], 0);
    }
}

TEST(no_leases_here, "G9: where directories have no flock nobody has a lease, and versions go")
{
    static const int codes[] = { EOPNOTSUPP, ENOSYS, EINVAL, EBADF };

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        const file next[] = { F("n", i % 2 ? "1" : "2"), { NULL, NULL, 0, NULL } };
        const aw_sys_table kernel = aw_sys;

        flock_code = codes[i];
        aw_sys.flock = no_answer;
        publish(0, next);
        aw_sys = kernel;
        CHECK_CLEAN("target", next, 0);
    }
}

/* Somebody's exclusive lock on the live version, until a time of a clock that only
 * naps turn. */
static int stranger;
static int64_t held_until, fake_now; /* nanoseconds */

static int fake_clock(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = (struct timespec){ fake_now / 1000000000, (long)(fake_now % 1000000000) };
    return 0;
}

static int fake_sleep(const struct timespec *time)
{
    fake_now += time->tv_sec * 1000000000 + time->tv_nsec;
    if (stranger >= 0 && fake_now >= held_until) {
        close(stranger);
        stranger = -1;
    }
    return 0;
}

static int open_live(void)
{
    char *live = live_name("target"), path[PATH_MAX];
    int fd;

    snprintf(path, sizeof path, "target/%s", live);
    free(live);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* any reader can */
    CHECK(fd >= 0);
    return fd;
}

/* Open a snapshot meanwhile, and see whether it has a lease. */
static void open_while_held(int64_t milliseconds, bool leased)
{
    aw_sys_table kernel = aw_sys;
    aw_snapshot *snapshot;
    int probe;

    publish(0, FILES(F("n", "1")));
    probe = open_live();
    stranger = open_live();
    CHECK(flock(stranger, LOCK_EX) == 0);
    fake_now = 0;
    held_until = milliseconds * 1000000;
    aw_sys.clock_gettime = fake_clock;
    aw_sys.sleep = fake_sleep;
    snapshot = open_snapshot("target");
    aw_sys = kernel;
    check_reads(snapshot, "n", "1");
    CHECK((stranger < 0) == leased);
    CHECK_THAT(flock(probe, LOCK_EX | LOCK_NB) < 0, "no lock at all");
    if (stranger >= 0)
        close(stranger);
    CHECK_THAT((flock(probe, LOCK_EX | LOCK_NB) < 0) == leased, "after %d ms", (int)milliseconds);
    close(probe);
    publish(0, FILES(F("n", "2")));
    check_reads(snapshot, "n", leased ? "1" : NULL);
    aw_snapshot_close(snapshot);
    publish(0, FILES(F("n", "3")));
}

TEST(asked_for, "G9: whoever asks for leases, and is stopped meanwhile, takes none from a snapshot")
{
    open_while_held(1, true);
    open_while_held(30, true);
    open_while_held(900, true);
}

TEST(held_exclusively, "G9: a stranger's exclusive lock on the live version stops neither readers nor writers")
{
    open_while_held(5000, false);
    CHECK_THAT(fake_now >= 1000000000 && fake_now < 1050000000, "after %lld ns",
               (long long)fake_now);
}

/* ---- other people's volumes -------------------------------------------- */

/* What a kubelet makes: no lock, names with up to ten digits, modes of its own. */
static void make_kubelet_volume(void)
{
    disk_mkdir("target", 0777);
    disk_mkdir("target/..2026_11_22_15_04_05.1182736450", 0755);
    disk_write("target/..2026_11_22_15_04_05.1182736450/labels", "app=\"web\"", 0644);
    disk_mkdir("target/..2026_11_22_15_04_05.1182736450/user", 0755);
    disk_write("target/..2026_11_22_15_04_05.1182736450/user/name", "n", 0400);
    disk_symlink("..2026_11_22_15_04_05.1182736450", "target/..data");
    disk_symlink("..data/labels", "target/labels");
    disk_symlink("..data/user", "target/user");
}

TEST(kubelet, "G9 G10: a snapshot reads a directory in kubelet's layout, and changes nothing there")
{
    aw_snapshot *snapshot;
    char *before, *after;

    make_kubelet_volume();
    before = disk_full_state("target");
    snapshot = open_snapshot("target");
    CHECK_TEXT(aw_snapshot_version(snapshot), "..2026_11_22_15_04_05.1182736450");
    check_paths(snapshot, "labels user/name");
    check_reads(snapshot, "labels", "app=\"web\"");
    aw_snapshot_close(snapshot);
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(kubelet_removes, "G9: a kubelet that removes the version under a snapshot is told as ESTALE")
{
    aw_snapshot *snapshot;
    char *data = NULL;
    size_t size;
    bool current = true;
    aw_error err;

    make_kubelet_volume();
    snapshot = open_snapshot("target");
    disk_mkdir("target/..2026_11_22_15_04_06.77", 0755);
    disk_symlink("..2026_11_22_15_04_06.77", "target/..data_tmp");
    CHECK(rename("target/..data_tmp", "target/..data") == 0);
    disk_remove("target/..2026_11_22_15_04_05.1182736450");
    CHECK(aw_snapshot_read(snapshot, "labels", &data, &size, &err) < 0);
    CHECK(err.code == AW_E_IO && err.sys_errno == ESTALE);
    CHECK_OK(aw_snapshot_is_current(snapshot, &current, &err), &err);
    CHECK(!current);
    aw_snapshot_close(snapshot);
}

TEST(no_rights, "G9: reading needs no more than the right to read")
{
    pid_t child;
    int status = -1;

    if (geteuid() != 0)
        test_skip("needs root, to give up rights");
    publish(0, FILES(F("a", "1"), FM("secret", "2", 0600)));
    CHECK(chmod(".", 0755) == 0);
    child = fork();
    if (child == 0) {
        aw_snapshot *snapshot = NULL;
        char *data = NULL;
        size_t size;
        aw_error err;
        int bad = 0;
        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(99);
        bad |= aw_snapshot_open("target", &snapshot, &err) < 0 ? 1 : 0;
        if (bad)
            _exit(1);
        bad |= aw_snapshot_read(snapshot, "a", &data, &size, &err) < 0 ? 2 : 0;
        bad |= aw_snapshot_read(snapshot, "secret", &data, &size, &err) == 0 ? 4 : 0;
        bad |= err.code == AW_E_IO && err.sys_errno == EACCES ? 0 : 8;
        _exit(bad);
    }
    waitpid(child, &status, 0);
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

TEST(read_only, "G9: a snapshot reads a read-only bind mount")
{
    aw_snapshot *snapshot;
    pid_t child;
    int status = -1;

    publish(0, FILES(F("a", "1"), F("b/c", "2")));
    child = fork(); /* with a mount table of its own */
    if (child == 0) {
        aw_error err;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
            || mount("target", "target", NULL, MS_BIND, NULL) < 0
            || mount(NULL, "target", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL) < 0)
            _exit(77);
        if (open("target/probe", O_CREAT | O_WRONLY | O_CLOEXEC, 0644) >= 0 || errno != EROFS)
            _exit(1);
        snapshot = NULL;
        if (aw_snapshot_open("target", &snapshot, &err) < 0)
            _exit(2);
        check_reads(snapshot, "b/c", "2");
        check_paths(snapshot, "a b/c");
        aw_snapshot_close(snapshot);
        if (write_keeping(0, FILES(F("a", "2")), NULL, &err) == 0)
            _exit(3);
        if (err.code != AW_E_IO || err.sys_errno != EROFS || err.committed)
            _exit(4);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        test_skip("mounting is not allowed here");
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

/* ---- faults ------------------------------------------------------------ */

/* Open, list, read, ask. -1 with the first failure. */
static int use_snapshot(char **text, aw_error *err)
{
    aw_snapshot *snapshot = NULL;
    aw_list paths = { NULL, 0 };
    char *data = NULL;
    size_t size;
    bool current;
    aw_stat st;
    int rc = aw_snapshot_open("target", &snapshot, err);

    if (rc == 0)
        rc = aw_snapshot_paths(snapshot, &paths, err);
    if (rc == 0)
        rc = aw_snapshot_read(snapshot, "b/c", &data, &size, err);
    if (rc == 0)
        rc = aw_snapshot_stat(snapshot, "b", &st, err);
    if (rc == 0)
        rc = aw_snapshot_is_current(snapshot, &current, err);
    if (rc == 0 && asprintf(text, "%s: %s", joined(&paths), data) < 0)
        abort();
    aw_list_clear(&paths);
    free(data);
    aw_snapshot_close(snapshot);
    return rc;
}

static void try_reading(fault_plan plan, fault_call call)
{
    bool fails = fault_is_failure(&plan) && plan.code != EINTR;
    size_t descriptors = disk_open_files();
    char *text = NULL;
    aw_error err;
    int rc;

    fault_arm(plan);
    rc = use_snapshot(&text, &err);
    fault_disarm();
    CHECK_THAT(rc == 0 || fails, "call %u: %s", plan.at, fault_describe(&plan, call));
    CHECK_THAT(rc < 0 || strcmp(text, "a b/c: 2") == 0, "call %u: %s: \"%s\"", plan.at,
               fault_describe(&plan, call), text);
    CHECK(rc == 0 || (err.code != AW_OK && !err.committed));
    CHECK_THAT(disk_open_files() == descriptors, "call %u: %s: a descriptor leaks", plan.at,
               fault_describe(&plan, call));
    free(text);
}

TEST(faults, "G9: a fault in a reader's call is an error or does not matter, and leaks nothing")
{
    fault_call trace[100];
    unsigned calls, points = 0;
    char *before, *after;
    aw_error err;

    publish(1, FILES(F("a", "1"), F("b/c", "2")));
    before = disk_full_state("target");
    fault_arm((fault_plan){ .kind = FAULT_NONE });
    CHECK_OK(use_snapshot(&after, &err), &err);
    fault_disarm();
    free(after);
    calls = fault_calls();
    CHECK(calls < 100);
    for (unsigned at = 1; at <= calls; at++)
        trace[at] = fault_call_at(at);
    for (unsigned at = 1; at <= calls; at++) {
        fault_plan plans[FAULT_PLANS_MAX];
        size_t count = fault_plans(at, trace[at], plans);

        for (size_t i = 0; i < count; i++, points++)
            try_reading(plans[i], trace[at]);
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    test_note("fault: %u calls, %u points, 0 violations", calls, points);
    free(before);
    free(after);
}
