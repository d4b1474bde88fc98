/* spared_test.c: calls that a write does without, and what it rests on that it may: that files get
 * the mode that open(2) is told (aw_stage), and that a version holds what is known of it
 * when it is removed (aw_recover).
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static aw_sys_table real;
static unsigned modes_set, listings, writes, tries;

static int count_fchmod(int fd, mode_t mode)
{
    modes_set++;
    return real.fchmod(fd, mode);
}

static ssize_t count_getdents(int fd, void *buffer, size_t size)
{
    listings++;
    return real.getdents(fd, buffer, size);
}

static void count_calls(void)
{
    real = aw_sys;
    modes_set = listings = 0;
    aw_sys.fchmod = count_fchmod;
    aw_sys.getdents = count_getdents;
}

static bool yes(void)
{
    return true;
}

/* ---- modes --------------------------------------------------------------- */

static const file plain[] = { F("a", "1"), F("b", "2"), F("c", "3"), F("d/e", "4"), F("d/f", "5"),
                              F("g", "6"), { NULL, NULL, 0, NULL } };
static const file mixed[] = { F("a", "1"), FM("b", "2", 0600), FM("c", "3", 0), FM("d/e", "4", 0777),
                              FM("d/f", "5", 0444), FM("g", "6", 0662), { NULL, NULL, 0, NULL } };
static const file narrow[] = { FM("a", "1", 0400), FM("b", "2", 0640), FM("c", "3", 0400),
                               { NULL, NULL, 0, NULL } };

static void check_modes(void)
{
    static const file *const payloads[] = { plain, mixed, narrow };

    for (size_t i = 0; i < sizeof payloads / sizeof *payloads; i++) {
        must_write(NO_FILES);
        must_write(payloads[i]);
        CHECK_CLEAN("target", payloads[i], 1);
    }
}

static unsigned modes_set_for(const file *files)
{
    must_write(NO_FILES);
    modes_set = 0;
    must_write(files);
    CHECK_CLEAN("target", files, 1);
    return modes_set;
}

TEST(mode_once, "the mode of the first file is looked at, those of the others are not set")
{
    unsigned few, many;

    umask(022);
    count_calls();
    aw_sys.is_one_thread = yes;
    few = modes_set_for(FILES(F("a", "1"), F("b", "2"), F("c", "3")));
    many = modes_set_for(FILES(F("a", "1"), F("b", "2"), F("c", "3"), F("d", "4"), F("e", "5")));
    CHECK_THAT(many == few, "%u modes set, and %u", few, many);
}

TEST(umasks, "G8: modes are exact under every umask, whatever mode the first file has")
{
    static const mode_t masks[] = { 0, 022, 027, 077, 0277, 0777 };

    aw_sys.is_one_thread = yes;
    for (size_t i = 0; i < sizeof masks / sizeof *masks; i++) {
        umask(masks[i]);
        check_modes();
    }
}

/* A default ACL with the three entries that every file has, which takes the place of the umask. */
static bool set_default_acl(const char *path, unsigned owner, unsigned group, unsigned others)
{
    const uint32_t nobody = 0xffffffff;
    struct { uint32_t version; struct { uint16_t tag, bits; uint32_t id; } entries[3]; } acl = {
        htole32(2), { { htole16(1), htole16((uint16_t)owner), nobody },
                      { htole16(4), htole16((uint16_t)group), nobody },
                      { htole16(32), htole16((uint16_t)others), nobody } }
    };

    return setxattr(path, "system.posix_acl_default", &acl, sizeof acl, 0) == 0;
}

TEST(default_acl, "G8: modes are exact where a default ACL takes the place of the umask")
{
    must_write(NO_FILES);
    aw_sys.is_one_thread = yes;
    umask(0);
    if (!set_default_acl("target", 6, 4, 0))
        test_skip("no ACLs on this file system");
    check_modes();
    CHECK(set_default_acl("target", 7, 7, 7));
    umask(0777);
    check_modes();
}

static ssize_t write_and_change_umask(int fd, const void *data, size_t size)
{
    umask(writes++ % 2 == 0 ? 077 : 0);
    return real.write(fd, data, size);
}

static bool no(void)
{
    return false;
}

TEST(other_threads, "G8: modes are exact though another thread changes the umask all the time")
{
    real = aw_sys;
    aw_sys.is_one_thread = no;
    aw_sys.write = write_and_change_umask;
    check_modes();
}

static int change_umask(void *context, const aw_progress *progress, char *reason, size_t size)
{
    (void)context, (void)progress, (void)reason, (void)size;
    umask(writes++ % 2 == 0 ? 0 : 077);
    return 0;
}

TEST(progress, "G8: modes are exact though the progress function changes the umask")
{
    const aw_hooks hooks = { .progress = change_umask };
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(plain);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    umask(0);
    aw_sys.is_one_thread = yes;
    CHECK_OK(aw_write(writer, payload, &hooks, &result, &err), &err);
    CHECK(writes > 6);
    CHECK_CLEAN("target", plain, 1);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

static void *wait_for_byte(void *fd)
{
    char byte;

    CHECK(read(*(int *)fd, &byte, 1) == 1);
    return NULL;
}

TEST(one_thread, "a process with two threads is not said to have one")
{
    pthread_t thread;
    int ends[2];

    CHECK(pipe(ends) == 0);
    CHECK(pthread_create(&thread, NULL, wait_for_byte, &ends[0]) == 0);
    CHECK(!aw_sys_is_one_thread());
    CHECK(write(ends[1], "", 1) == 1);
    CHECK(pthread_join(thread, NULL) == 0);
    close(ends[0]);
    close(ends[1]);
}

TEST(owners, "G8: modes are exact where owners are set, too")
{
    const aw_options base = options_keeping(1);
    aw_options options = base;
    struct stat st;

    need_root();
    umask(0);
    disk_mkdir("target", 0755);
    options.uid = options.gid = 777;
    aw_sys.is_one_thread = yes;
    CHECK(write_with(&options, mixed, NULL, &(aw_error) { 0 }) == 0);
    CHECK(stat(in_live("d/e"), &st) == 0 && st.st_uid == 777 && (st.st_mode & 07777) == 0777);
    CHECK(stat(in_live("c"), &st) == 0 && st.st_gid == 777 && (st.st_mode & 07777) == 0);
}

static int openat_forcing(int dir, const char *name, int flags, mode_t mode)
{
    return real.openat(dir, name, flags, flags & O_CREAT ? mode | 0040 : mode);
}

TEST(forced_bits, "G8: modes are exact where a file system adds to some modes and not to others")
{
    umask(0);
    real = aw_sys;
    aw_sys.is_one_thread = yes;
    aw_sys.openat = openat_forcing;
    must_write(FILES(F("a", "1"), FM("b", "secret", 0600), F("c", "2"), FM("d", "3", 0444),
                     FM("e", "4", 0400)));
    CHECK_CLEAN("target", FILES(F("a", "1"), FM("b", "secret", 0600), F("c", "2"),
                                FM("d", "3", 0444), FM("e", "4", 0400)), 0);
}

/* ---- removal ------------------------------------------------------------- */

static const file before[] = { F("a", "1"), F("b/c", "2"), F("b/d/e", "3"), F("f", "4"),
                               { NULL, NULL, 0, NULL } };
static const file after[] = { F("a", "5"), F("b/c", "6"), F("b/d/e", "7"), F("f", "8"),
                              { NULL, NULL, 0, NULL } };

static void write_keeping_none(const file *files)
{
    aw_error err;

    CHECK_OK(write_keeping(0, files, NULL, &err), &err);
    CHECK_CLEAN("target", files, 0);
}

TEST(removed_unseen, "a version with the names of the new one is removed without being listed")
{
    unsigned kept;

    write_keeping_none(before);
    count_calls();
    must_write(after);
    kept = listings;
    aw_sys = real;
    disk_remove("target");
    write_keeping_none(before);
    count_calls();
    write_keeping_none(after);
    CHECK_THAT(listings == kept, "%u listings instead of %u", listings, kept);
}

TEST(other_names, "a version with any other names is removed as well")
{
    const file *const others[] = {
        FILES(F("a", "1")), FILES(F("a/b", "1"), F("b", "2"), F("f/g", "3")),
        FILES(F("0", ""), F("a", "1"), F("b/c", "2"), F("b/d/e", "3"), F("f", "4")),
        FILES(F("a", "1"), F("b/c/d", "2"), F("b/d/e/f", "3"), F("b/d/g", "4"), F("z", "")),
        NO_FILES
    };

    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        write_keeping_none(before);
        write_keeping_none(others[i]);
    }
    write_keeping_none(before);
}

TEST(older_version, "so it is when it was not the live one")
{
    must_write(before);
    must_write(after);
    must_write(before);
    CHECK_CLEAN("target", before, 1);
    must_write(FILES(F("a", "1"), F("b/x", "2")));
    must_write(FILES(F("q", "1")));
    must_write(before);
    CHECK_CLEAN("target", before, 1);
}

TEST(strangers, "what somebody has put into a version goes with it")
{
    write_keeping_none(before);
    disk_mkdir(in_live("b/d/strange"), 0755);
    disk_write(in_live("b/d/strange/file"), "", 0644);
    disk_symlink("/", in_live("link"));
    CHECK(unlink(in_live("b/c")) == 0);
    write_keeping_none(after);
}

static int refuse_first(int dir, const char *name, int flags)
{
    if (flags == 0 && strcmp(name, "f") == 0 && tries++ == 0) {
        errno = EIO;
        return -1;
    }
    return real.unlinkat(dir, name, flags);
}

TEST(refused, "a file that will not go at first is removed with what is found by listing")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    write_keeping_none(before);
    real = aw_sys;
    tries = 0;
    aw_sys.unlinkat = refuse_first;
    CHECK_OK(write_keeping(0, after, &result, &err), &err);
    CHECK(tries == 2 && result.warnings.count == 0);
    CHECK_CLEAN("target", after, 0);
    aw_result_clear(&result);
}

static int move_away(void *context, const char *path, char *reason, size_t size)
{
    (void)path, (void)reason, (void)size;
    return system(context);
}

TEST(moved, "G7: what was live and has been moved out of the target is not emptied")
{
    char *live, *command, *backup, *wanted, path[PATH_MAX];
    aw_options options = options_keeping(0);
    aw_payload *payload = payload_of(after);
    aw_result result = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    aw_error err;
    aw_hooks hooks = { .check = move_away };

    write_keeping_none(before);
    live = live_name("target");
    CHECK(asprintf(&command, "mkdir backup && mv target/%s backup && cp -a backup/%s target", live,
                   live) > 0);
    hooks.context = command;
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    CHECK_OK(aw_write(writer, payload, &hooks, &result, &err), &err);
    CHECK_CLEAN("target", after, 0);
    snprintf(path, sizeof path, "backup/%s", live);
    backup = disk_tree(path);
    wanted = tree_of(before);
    CHECK_TEXT(backup, wanted);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
    free(live);
    free(command);
    free(backup);
    free(wanted);
}

/* In a mount table of its own: 0 if what is mounted is as it was. */
static int prune_around_mount(void)
{
    aw_result result = AW_RESULT_INIT;
    char path[PATH_MAX];
    aw_error err;
    char *live = live_name("target");

    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
        || mount("tmpfs", in_live("b"), "tmpfs", 0, NULL) < 0)
        return 77;
    disk_write(in_live("b/c"), "precious", 0644);
    if (write_keeping(0, after, &result, &err) < 0 || result.warnings.count != 1)
        return 1;
    snprintf(path, sizeof path, "target/%s_tmp/b/c", live);
    return disk_exists(path) ? 0 : 2;
}

TEST(mounted, "G7: what is mounted in a version is left alone, though it has a file's name")
{
    int status = -1;
    pid_t child;

    need_root();
    write_keeping_none(before);
    child = fork();
    if (child == 0)
        _exit(prune_around_mount());
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        test_skip("mounting is not allowed here");
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", (unsigned)status);
}
