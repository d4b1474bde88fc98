/* inspect_test.c: the health of a target, told without touching it, and without
 * being in anybody's way.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- as text ----------------------------------------------------------- */

static void put_list(FILE *out, const char *what, const aw_list *list)
{
    if (list->count > 0)
        fprintf(out, "; %s %s", what, joined(list));
}

/* "sound, live, leased; missing a b; …": only what is not empty. */
static char *text_of(const aw_inspection *is)
{
    static const char *const faults[] = { "sound", "no ..data", "dangling", "not trusted" };
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    if (!out)
        abort();
    fputs(faults[is->fault], out);
    for (size_t i = 0; i < is->version_count; i++)
        fprintf(out, ", %s%s", is->versions[i].version.live ? "live" : "kept",
                is->versions[i].leased ? " leased" : "");
    put_list(out, "residue", &is->residue);
    put_list(out, "dangling", &is->dangling);
    put_list(out, "missing", &is->missing);
    put_list(out, "foreign", &is->foreign);
    if (is->others > 0)
        fprintf(out, "; %zu others", is->others);
    if (is->locked != 0)
        fputs(is->locked > 0 ? "; locked" : "; perhaps locked", out);
    fclose(out);
    return text;
}

static int inspect(char **text, aw_error *err)
{
    aw_inspection is = AW_INSPECTION_INIT;

    if (aw_inspect("target", &is, err) < 0)
        return -1;
    *text = text_of(&is);
    aw_inspection_clear(&is);
    return 0;
}

/* And nothing has changed, no time and no lock file either. */
#define CHECK_IS(expected) check_is(__LINE__, expected)
static void check_is(int line, const char *expected)
{
    char *before = disk_full_state("target"), *after, *text = NULL;
    size_t descriptors = disk_open_files();
    aw_error err;

    CHECK_OK(inspect(&text, &err), &err);
    test_same_text(__FILE__, line, "it", text, expected);
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    CHECK(disk_open_files() == descriptors);
    free(before);
    free(after);
    free(text);
}

#define SET FILES(F("a", "1"), F("d/x", "2"), F("e", "3"))

/* ---- what there is ----------------------------------------------------- */

TEST(sound, "a sound target is told as such, with its versions, newest first")
{
    aw_inspection is = AW_INSPECTION_INIT;
    char *first, *second;
    aw_error err;

    must_write(SET);
    CHECK_IS("sound, live");
    first = live_name("target");
    must_write(FILES(F("a", "2")));
    second = live_name("target");
    CHECK_IS("sound, live, kept");
    CHECK_OK(aw_inspect("target/", &is, &err), &err);
    CHECK(strncmp(is.target, test_dir, strlen(test_dir)) == 0);
    CHECK_TEXT(is.target + strlen(test_dir), "/target");
    CHECK_TEXT(is.live, second);
    CHECK(is.message == NULL && is.fault == AW_SOUND);
    CHECK_TEXT(is.versions[0].version.name, second);
    CHECK_TEXT(is.versions[1].version.name, first);
    CHECK(is.versions[0].version.time > 1700000000);
    aw_inspection_clear(&is);
    CHECK(is.target == NULL && is.versions == NULL && is.version_count == 0);
    aw_inspection_clear(&is);
    free(first);
    free(second);
}

TEST(residue, "what a killed writer left is told, and gone with the next write")
{
    must_write(SET);
    leave_residue();
    CHECK_IS("sound, live; residue ..2001_01_01_00_00_00.1_tmp ..2999_01_01_00_00_00.1 ..data_tmp"
             "; dangling gone half");
    must_write(SET);
    CHECK_IS("sound, live");
}

TEST(at_work, "what a writer who holds the lock is making is neither residue nor dangling")
{
    int fd;

    must_write(SET);
    leave_residue();
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK_IS("sound, live; locked");
    close(fd);
}

TEST(faults_of_data, "a ..data that is missing, leads nowhere or cannot be trusted is a fault")
{
    aw_inspection is = AW_INSPECTION_INIT;
    char *live, *moved;
    aw_error err;

    disk_mkdir("target", 0755);
    CHECK_IS("no ..data");
    must_write(FILES(F("a", "1")));
    must_write(SET);
    live = live_name("target");
    CHECK(asprintf(&moved, "target/%s", live) > 0);
    CHECK(rename(moved, "elsewhere") == 0);
    CHECK_IS("dangling, kept; dangling a d e");
    CHECK_OK(aw_inspect("target", &is, &err), &err);
    CHECK(is.live == NULL && strstr(is.message, live) != NULL);
    aw_inspection_clear(&is);
    CHECK(unlink("target/..data") == 0);
    CHECK_OK(aw_inspect("target", &is, &err), &err);
    CHECK(is.fault == AW_MISSING && is.version_count == 0 && is.residue.count == 1);
    CHECK_TEXT(is.message, "there is no ..data: nothing is live");
    aw_inspection_clear(&is);
    disk_symlink("../elsewhere", "target/..data");
    CHECK_IS("not trusted, kept");
    CHECK_OK(aw_inspect("target", &is, &err), &err);
    CHECK_TEXT(is.message, "..data: it does not lead to a version of this target");
    aw_inspection_clear(&is);
    CHECK(unlink("target/..data") == 0);
    disk_write("target/..data", "a file", 0644);
    CHECK_IS("not trusted, kept");
    free(live);
    free(moved);
}

TEST(names, "visible names that are missing, or somebody else's, are told; other entries counted")
{
    must_write(SET);
    CHECK(unlink("target/a") == 0 && unlink("target/d") == 0 && unlink("target/e") == 0);
    disk_mkdir("target/d", 0755);
    disk_symlink("..data/a", "target/e");
    CHECK_IS("sound, live; missing a; foreign d e");
    disk_write("target/z", "stranger's", 0644);
    disk_symlink("/etc", "target/etc");
    disk_mkdir("target/..unknown", 0755);
    CHECK_IS("sound, live; missing a; foreign d e; 3 others");
}

TEST(foreign_reserved, "a ..lock or ..data_tmp that a writer would refuse is foreign")
{
    must_write(SET);
    disk_mkdir("target/..data_tmp", 0755);
    CHECK(unlink("target/..lock") == 0);
    disk_symlink("a", "target/..lock");
    CHECK_IS("sound, live; foreign ..data_tmp ..lock");
    CHECK(unlink("target/..lock") == 0);
    CHECK(mkfifo("target/..lock", 0600) == 0);
    CHECK_IS("sound, live; foreign ..data_tmp ..lock");
    CHECK(unlink("target/..lock") == 0);
    CHECK(mknod("target/..lock", S_IFSOCK | 0600, 0) == 0);
    CHECK_IS("sound, live; foreign ..data_tmp ..lock");
    CHECK(unlink("target/..lock") == 0);
    disk_mkdir("target/..lock", 0755);
    CHECK_IS("sound, live; foreign ..data_tmp ..lock");
}

TEST(foreign_device, "a ..lock that is a device is foreign, whether or not there is such a device")
{
    need_root();
    must_write(SET);
    for (unsigned number = 0; number < 2; number++) {
        CHECK(unlink("target/..lock") == 0);
        if (mknod("target/..lock", S_IFCHR | 0600, makedev(number == 0 ? 1 : 499, 3)) < 0)
            test_skip("making devices is not allowed here");
        CHECK_IS("sound, live; foreign ..lock");
    }
}

TEST(leases, "G9: leased versions are told, the live one too, and stay leased")
{
    aw_snapshot *old = NULL, *new = NULL;
    aw_error err;

    must_write(SET);
    CHECK_OK(aw_snapshot_open("target", &old, &err), &err);
    CHECK_IS("sound, live leased");
    must_write(FILES(F("a", "2")));
    CHECK_IS("sound, live, kept leased");
    CHECK_OK(aw_snapshot_open("target", &new, &err), &err);
    CHECK_IS("sound, live leased, kept leased");
    aw_snapshot_close(old);
    CHECK_IS("sound, live leased, kept");
    aw_snapshot_close(new);
    CHECK_IS("sound, live, kept");
}

TEST(no_target, "what is no directory is no_target")
{
    aw_inspection is = AW_INSPECTION_INIT;
    aw_error err;

    CHECK(aw_inspect("nowhere", &is, &err) < 0 && err.code == AW_E_NO_TARGET);
    disk_write("file", "", 0644);
    CHECK(aw_inspect("file", &is, &err) < 0 && err.code == AW_E_NO_TARGET);
    CHECK(is.target == NULL);
}

TEST(kubelet, "G10: a volume in kubelet's layout is sound, and no lock is made there")
{
    disk_mkdir("target", 0755);
    disk_mkdir("target/..2026_11_22_15_04_05.1182736450", 0755);
    disk_write("target/..2026_11_22_15_04_05.1182736450/labels", "app=\"web\"", 0644);
    disk_symlink("..2026_11_22_15_04_05.1182736450", "target/..data");
    disk_symlink("..data/labels", "target/labels");
    CHECK_IS("sound, live");
}

/* ---- who looks --------------------------------------------------------- */

TEST(no_rights, "who may only read the target is told all but whether it is locked")
{
    pid_t child;
    int status = -1;

    need_root();
    must_write(SET);
    leave_residue();
    CHECK(chmod(".", 0755) == 0);
    child = fork();
    if (child == 0) {
        char *text = NULL;
        aw_error err;

        if (setgid(65534) < 0 || setuid(65534) < 0)
            _exit(99);
        if (inspect(&text, &err) < 0)
            _exit(1);
        _exit(strcmp(text, "sound, live; residue ..2001_01_01_00_00_00.1_tmp "
                           "..2999_01_01_00_00_00.1 ..data_tmp; dangling gone half; "
                           "perhaps locked") == 0 ? 0 : 2);
    }
    waitpid(child, &status, 0);
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}

static atomic_bool stop;
static atomic_uint writes, looks, reads, failed_writes, bad_looks, unleased;
static char first_bad[512]; /* of the one thread that looks and tells */

/* Never waits for the lock: nobody else writes. */
static void *write_on(void *context)
{
    aw_options options = options_keeping(1);

    (void)context;
    options.lock_timeout = 0;
    while (!atomic_load(&stop)) {
        static const file sets[2][3] = { { F("a", "1"), F("x", "1"), { 0 } },
                                         { F("a", "2"), F("y", "2"), { 0 } } };
        aw_error err;

        if (write_with(&options, sets[atomic_load(&writes) % 2], NULL, &err) < 0)
            atomic_fetch_add(&failed_writes, 1);
        atomic_fetch_add(&writes, 1);
    }
    return NULL;
}

static void *read_on(void *context)
{
    (void)context;
    while (!atomic_load(&stop)) {
        aw_snapshot *snapshot = NULL;
        char path[AW_VERSION_MAX + 8];
        aw_error err;
        int fd;

        if (aw_snapshot_open("target", &snapshot, &err) < 0) {
            atomic_fetch_add(&unleased, 1);
            continue;
        }
        snprintf(path, sizeof path, "target/%s", aw_snapshot_version(snapshot));
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) == 0)
            atomic_fetch_add(&unleased, 1);
        close(fd);
        aw_snapshot_close(snapshot);
        atomic_fetch_add(&reads, 1);
    }
    return NULL;
}

static int (*real_flock)(int fd, int operation);
static _Thread_local bool looking;
static _Thread_local unsigned taken;

/* Who looks is now and then stopped while it holds a lock, as by a CPU quota. */
static int flock_and_be_stopped(int fd, int operation)
{
    int rc = real_flock(fd, operation);

    if (rc == 0 && looking && ++taken % 97 == 0)
        usleep(20000);
    return rc;
}

/* Versions come and go, and may be leased; anything else would be an alarm. */
static void *look_on(void *context)
{
    looking = true;
    while (!atomic_load(&stop)) {
        aw_inspection is = AW_INSPECTION_INIT;
        aw_error err;

        if (aw_inspect("target", &is, &err) < 0 || is.fault != AW_SOUND || is.residue.count > 0
            || is.dangling.count > 0 || is.missing.count > 0 || is.foreign.count > 0
            || is.others > 0 || is.version_count == 0 || !is.versions[0].version.live) {
            char *text = text_of(&is);

            if (context && atomic_fetch_add(&bad_looks, 1) == 0)
                snprintf(first_bad, sizeof first_bad, "%s", text);
            free(text);
        }
        aw_inspection_clear(&is);
        atomic_fetch_add(&looks, 1);
    }
    return NULL;
}

TEST(in_the_way, "G6 G9: looking makes no writer and no reader fail, and raises no false alarm")
{
    void *(*const work[])(void *) = { write_on, read_on, look_on, look_on };
    pthread_t threads[4];

    must_write(FILES(F("a", "0")));
    real_flock = aw_sys.flock;
    aw_sys.flock = flock_and_be_stopped;
    for (size_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, work[i], i == 2 ? first_bad : NULL) == 0);
    while (atomic_load(&writes) < 1500 || atomic_load(&reads) < 1500 || atomic_load(&looks) < 3000)
        usleep(1000);
    atomic_store(&stop, true);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    test_note("%u writes, %u reads, %u looks", writes, reads, looks);
    CHECK_THAT(failed_writes == 0, "%u writes failed", failed_writes);
    CHECK_THAT(unleased == 0, "%u snapshots have no lease", unleased);
    CHECK_THAT(bad_looks == 0, "%u false alarms: %s", bad_looks, first_bad);
}

/* ---- faults ------------------------------------------------------------ */

static const char found[] = "sound, live, kept; residue ..2001_01_01_00_00_00.1_tmp "
                            "..2999_01_01_00_00_00.1 ..data_tmp; dangling gone half; missing d; "
                            "foreign a; 1 others";

static void try_fault(fault_plan plan, fault_call call)
{
    size_t descriptors = disk_open_files();
    char *text = NULL;
    aw_error err;
    int rc;

    fault_arm(plan);
    rc = inspect(&text, &err);
    fault_disarm();
    CHECK_THAT(rc == 0 || (fault_is_failure(&plan) && plan.code != EINTR), "%s",
               fault_describe(&plan, call));
    CHECK(rc == 0 || (err.code == AW_E_IO && !err.committed));
    CHECK_THAT(rc < 0 || strcmp(text, found) == 0 || plan.code == EACCES || plan.code == ENOENT
                   || call == CALL_flock, "%s, %s: %s", fault_call_name(call),
               strerrorname_np(plan.code), text);
    CHECK_THAT(disk_open_files() == descriptors, "%s leaks", fault_call_name(call));
    free(text);
}

TEST(faults, "a fault while looking is an error, or told by what could not be seen, and leaks nothing")
{
    fault_call trace[200];
    char *before, *after, *text;
    unsigned calls, points = 0;
    aw_error err;

    must_write(SET);
    must_write(FILES(F("a", "2"), F("d/x", "2"), F("e", "3")));
    leave_residue();
    CHECK(unlink("target/d") == 0 && unlink("target/a") == 0);
    disk_write("target/a", "stranger's", 0644);
    disk_write("target/z", "stranger's", 0644);
    before = disk_full_state("target");
    fault_arm((fault_plan){ .kind = FAULT_NONE });
    CHECK_OK(inspect(&text, &err), &err);
    calls = fault_calls();
    CHECK_TEXT(text, found);
    free(text);
    CHECK(calls < 200);
    for (unsigned at = 1; at <= calls; at++)
        trace[at] = fault_call_at(at);
    for (unsigned at = 1; at <= calls; at++) {
        fault_plan plans[FAULT_PLANS_MAX];
        size_t count = fault_plans(at, trace[at], plans);

        for (size_t i = 0; i < count; i++, points++)
            try_fault(plans[i], trace[at]);
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    test_note("fault: %u calls, %u points, 0 violations", calls, points);
    free(before);
    free(after);
}
