/* target_test.c: the target, the writer's options, and what a write would do. */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the target --------------------------------------------------------- */

TEST(no_target, "a missing target, or one that is no directory, is no_target")
{
    static const char *const targets[] = { "missing", "missing/below", "file", "file/below", "" };
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_error err;

    disk_write("file", "", 0644);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        CHECK_THAT(aw_writer_open(targets[i], &options, &writer, &err) < 0, "\"%s\"", targets[i]);
        CHECK(err.code == AW_E_NO_TARGET && writer == NULL);
    }
}

TEST(create, "options.create makes the target with the first write, not before, and no parents")
{
    aw_options options = options_keeping(1);
    aw_payload *payload = payload_of(FILES(F("a", "1")));
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    options.create = true;
    options.dir_mode = 0711;
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    CHECK(!disk_exists("target"));
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(!disk_exists("target") && result.changed);
    aw_result_clear(&result);
    umask(077);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    umask(022);
    CHECK(disk_mode("target") == 0711);
    CHECK(disk_exists("target/a"));
    aw_result_clear(&result);
    aw_writer_close(writer);
    writer = NULL;
    if (aw_writer_open("no/parent", &options, &writer, &err) == 0)
        CHECK(aw_write(writer, payload, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NO_TARGET && !err.committed);
    CHECK(!disk_exists("no"));
    aw_writer_close(writer);
    aw_payload_free(payload);
}

TEST(target_gone, "a target that is removed under an open writer is no_target, and not made again")
{
    aw_payload *payload = payload_of(FILES(F("a", "1")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    disk_remove("target");
    CHECK(aw_write(writer, payload, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NO_TARGET && !err.committed && !disk_exists("target"));
    CHECK(aw_plan(writer, payload, &result, &err) < 0 && err.code == AW_E_NO_TARGET);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

TEST(target_link, "a target may be reached through links, and a chdir does not matter")
{
    aw_payload *payload = payload_of(FILES(F("a", "1")));
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    disk_mkdir("target", 0755);
    disk_symlink("target", "link");
    CHECK_OK(aw_writer_open("./link//", &options, &writer, &err), &err);
    CHECK(aw_writer_target(writer)[0] == '/');
    CHECK(chdir("/") == 0);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(chdir(test_dir) == 0);
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
}

TEST(options, "options out of range are refused, no options mean the defaults")
{
    aw_options options = AW_OPTIONS_INIT;
    aw_writer *writer = NULL;
    aw_payload *payload = payload_of(FILES(F("a/b", "1")));
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    disk_mkdir("target", 0755);
#define REFUSED(field, value) \
    do { \
        options = (aw_options)AW_OPTIONS_INIT; \
        options.field = value; \
        CHECK(aw_writer_open("target", &options, &writer, &err) < 0); \
        CHECK(err.code == AW_E_IO && err.sys_errno == EINVAL && writer == NULL); \
    } while (0)
    REFUSED(default_mode, 01000);
    REFUSED(default_mode, -2);
    REFUSED(dir_mode, 02755);
    REFUSED(dir_mode, -2);
    REFUSED(uid, -2);
    REFUSED(uid, 4294967295);
    REFUSED(gid, INT64_MAX);
    REFUSED(lock_timeout, -1);
    CHECK_OK(aw_writer_open("target", NULL, &writer, &err), &err);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("a/b", "1")), 0);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_writer_close(NULL);
    aw_payload_free(payload);
}

/* ---- plan --------------------------------------------------------------- */

TEST(plan, "plan says what a write would do and touches nothing, not even a time")
{
    aw_payload *payload = payload_of(FILES(F("a", "2"), F("n", "3"), F("same/s", "s")));
    aw_payload *same = payload_of(FILES(F("a", "1"), F("old", "2"), F("same/s", "s")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *before, *after, *live;
    aw_error err;

    must_write(FILES(F("a", "0")));
    must_write(FILES(F("a", "1"), F("old", "2"), F("same/s", "s")));
    leave_residue();
    live = live_name("target");
    before = disk_full_state("target");
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(result.changed && result.version == NULL);
    CHECK_TEXT(result.previous, live);
    CHECK_TEXT(joined(&result.added), "n");
    CHECK_TEXT(joined(&result.updated), "a");
    CHECK_TEXT(joined(&result.removed), "old");
    CHECK(result.unchanged == 1);
    aw_result_clear(&result);
    CHECK_OK(aw_plan(writer, same, &result, &err), &err);
    CHECK(!result.changed && result.unchanged == 3);
    CHECK_TEXT(result.version, live);
    aw_result_clear(&result);
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
    free(live);
    aw_payload_free(payload);
    aw_payload_free(same);
    aw_writer_close(writer);
}

TEST(plan_errors, "plan finds what would make the write fail")
{
    aw_payload *clash = payload_of(FILES(F("x", "2"), F("x/y", "3")));
    aw_payload *payload = payload_of(FILES(F("a", "2")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    before = disk_full_state("target");
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(result.changed && result.previous == NULL);
    aw_result_clear(&result);
    CHECK(aw_plan(writer, clash, &result, &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    disk_write("target/a", "foreign", 0644);
    CHECK(aw_plan(writer, payload, &result, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    disk_symlink("../x", "target/..data");
    CHECK(aw_plan(writer, payload, &result, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    free(before);
    free(after);
    aw_payload_free(clash);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

TEST(plan_locked, "plan needs no lock")
{
    aw_payload *payload = payload_of(FILES(F("a", "2")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    int fd;

    must_write(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    close(fd);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

static int (*real_fstat)(int fd, struct stat *st);
static int left;

/* Versions come and go while the plan is made. */
static int fstat_late(int fd, struct stat *st)
{
    if (left > 0) {
        int number = left--;
        aw_sys_table hooked = aw_sys;
        char text[16];

        snprintf(text, sizeof text, "%d", number);
        aw_sys.fstat = real_fstat;
        CHECK_OK(write_keeping(0, FILES(F("a", text), F("gone", text)), NULL, &(aw_error){ 0 }),
                 &(aw_error){ 0 });
        aw_sys = hooked;
    }
    return real_fstat(fd, st);
}

TEST(plan_races, "plan compares with one whole version, whatever goes live meanwhile")
{
    aw_payload *payload = payload_of(FILES(F("a", "1"), F("gone", "1")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "x"), F("b", "x")));
    real_fstat = aw_sys.fstat;
    aw_sys.fstat = fstat_late;
    left = 5; /* the last one equals the payload */
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(left == 0 && !result.changed && result.unchanged == 2);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

static ssize_t (*real_readlinkat)(int dir, const char *name, char *text, size_t size);

/* A writer drops the stale name, its step (13), after it was listed. */
static ssize_t readlinkat_late(int dir, const char *name, char *text, size_t size)
{
    if (strcmp(name, "stale") == 0 && unlinkat(dir, name, 0) == 0)
        left--;
    return real_readlinkat(dir, name, text, size);
}

TEST(plan_dropped, "plan takes no name for somebody else's that a writer drops meanwhile")
{
    aw_payload *payload = payload_of(FILES(F("a", "1"), F("stale", "1")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_symlink("..data/stale", "target/stale");
    real_readlinkat = aw_sys.readlinkat;
    aw_sys.readlinkat = readlinkat_late;
    left = 1;
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(left == 0);
    CHECK_TEXT(joined(&result.added), "stale");
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}
