/* version_test.c: retained versions, going back to them, and their names. */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- retention ---------------------------------------------------------- */

TEST(retention, "options.keep says how many previous versions stay: 0, 1, 3")
{
    static const unsigned keeps[] = { 0, 1, 3 };

    for (size_t k = 0; k < 3; k++) {
        for (unsigned i = 0; i < 8; i++) {
            char number[16];
            aw_error err;
            snprintf(number, sizeof number, "%u.%zu", i, k);
            CHECK_OK(write_keeping(keeps[k], FILES(F("n", number)), NULL, &err), &err);
            CHECK_CLEAN("target", FILES(F("n", number)), keeps[k]);
            CHECK(disk_count("target", "..2") == 1 + (i < keeps[k] ? i : keeps[k]));
        }
        disk_remove("target");
    }
}

TEST(fewer_kept, "a smaller keep takes effect with the next write, a no-op write too")
{
    aw_error err;

    for (int i = 0; i < 6; i++)
        CHECK_OK(write_keeping(5, FILES(F("n", i % 2 ? "1" : "0")), NULL, &err), &err);
    CHECK(disk_count("target", "..2") == 6);
    CHECK_OK(write_keeping(2, FILES(F("n", "2")), NULL, &err), &err);
    CHECK(disk_count("target", "..2") == 3);
    CHECK_OK(write_keeping(0, FILES(F("n", "2")), NULL, &err), &err);
    CHECK(disk_count("target", "..2") == 1);
}

TEST(versions, "versions are told newest first, with their times and which one is live")
{
    aw_writer *writer = writer_keeping(3);
    aw_version *list = NULL;
    size_t count = 99;
    char *live;
    aw_error err;

    CHECK_OK(aw_versions(writer, &list, &count, &err), &err);
    CHECK(list == NULL && count == 0);
    for (int i = 0; i < 6; i++)
        CHECK_OK(write_keeping(3, FILES(F("n", i % 2 ? "1" : "0")), NULL, &err), &err);
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0700); /* was never live */
    disk_mkdir("target/..2001_01_01_00_00_00.1_tmp", 0700);
    CHECK_OK(aw_versions(writer, &list, &count, &err), &err);
    live = live_name("target");
    CHECK(count == 4 && list[0].live);
    CHECK_TEXT(list[0].name, live);
    for (size_t i = 0; i < count; i++) {
        CHECK(list[i].time > 1700000000 && list[i].time <= time(NULL) + 1);
        CHECK(i == 0 || (strcmp(list[i].name, list[i - 1].name) < 0 && !list[i].live));
    }
    free(list);
    free(live);
    aw_writer_close(writer);
}

TEST(collect, "collect removes all retained versions and nothing else")
{
    aw_writer *writer = writer_keeping(5);
    size_t removed = 99;
    aw_error err;

    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 0);
    for (int i = 0; i < 5; i++)
        CHECK_OK(write_keeping(5, FILES(F("n", i % 2 ? "1" : "0"), F("x/y", "z")), NULL, &err), &err);
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 4);
    CHECK_CLEAN("target", FILES(F("n", "0"), F("x/y", "z")), 0);
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 0);
    aw_writer_close(writer);
}

static int (*real_renameat)(int from_dir, const char *from, int to_dir, const char *to);

/* As an overlay answers for a directory of its lower layer. */
static int no_renaming_of_versions(int from_dir, const char *from, int to_dir, const char *to)
{
    if (strncmp(from, "..2", 3) == 0) {
        errno = EXDEV;
        return -1;
    }
    return real_renameat(from_dir, from, to_dir, to);
}

TEST(no_renames, "where a version's directory cannot be renamed it is removed all the same")
{
    aw_writer *writer;
    size_t removed = 99;
    aw_error err;

    real_renameat = aw_sys.renameat;
    aw_sys.renameat = no_renaming_of_versions;
    for (int i = 0; i < 4; i++)
        CHECK_OK(write_keeping(1, FILES(F("n", i % 2 ? "1" : "0"), F("d/x", "y")), NULL, &err), &err);
    CHECK_CLEAN("target", FILES(F("n", "1"), F("d/x", "y")), 1);
    leave_residue();
    must_write(FILES(F("n", "1"), F("d/x", "y")));
    CHECK_CLEAN("target", FILES(F("n", "1"), F("d/x", "y")), 1);
    writer = writer_keeping(1);
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 1);
    aw_writer_close(writer);
}

static char stuck[AW_VERSION_MAX];

static int no_renaming_of_one(int from_dir, const char *from, int to_dir, const char *to)
{
    if (strcmp(from, stuck) == 0) {
        errno = EBUSY;
        return -1;
    }
    return real_renameat(from_dir, from, to_dir, to);
}

TEST(collect_stuck, "collect that cannot remove a version removes the rest, counts it and fails")
{
    aw_writer *writer = writer_keeping(5);
    size_t removed = 99;
    char *live;
    aw_error err;

    for (int i = 0; i < 5; i++) {
        CHECK_OK(write_keeping(5, FILES(F("n", i % 2 ? "1" : "0")), NULL, &err), &err);
        live = live_name("target");
        if (i == 2)
            snprintf(stuck, sizeof stuck, "%s", live);
        free(live);
    }
    real_renameat = aw_sys.renameat;
    aw_sys.renameat = no_renaming_of_one;
    CHECK(aw_collect(writer, &removed, &err) < 0);
    CHECK(err.code == AW_E_IO && !err.committed && removed == 3);
    CHECK_THAT(strstr(err.detail, stuck) || strcmp(err.path, stuck) == 0, "%s: %s", err.path,
               err.detail);
    CHECK_CLEAN("target", FILES(F("n", "0")), 1);
    aw_sys.renameat = real_renameat;
    CHECK_OK(aw_collect(writer, &removed, &err), &err);
    CHECK(removed == 1);
    CHECK_CLEAN("target", FILES(F("n", "0")), 0);
    aw_writer_close(writer);
}

TEST(collect_nothing_live, "collect removes nothing where nothing is live")
{
    aw_writer *writer = writer_keeping(1);
    size_t removed = 99;
    aw_error err;

    disk_mkdir("target/..2026_11_22_15_04_05.1", 0755);
    disk_symlink("..2026_11_22_15_04_06.1", "target/..data");
    (void)aw_collect(writer, &removed, &err);
    CHECK(disk_exists("target/..2026_11_22_15_04_05.1"));
    aw_writer_close(writer);
}

/* ---- rollback ----------------------------------------------------------- */

TEST(rollback, "rollback publishes the newest retained version again, under a greater name")
{
    const file *old = FILES(F("a", "1"), FM("b/c", "2", 0600), F("same", "s"));
    aw_writer *writer = writer_keeping(2);
    aw_result result = AW_RESULT_INIT;
    char *second;
    aw_error err;

    CHECK_OK(write_keeping(2, old, NULL, &err), &err);
    CHECK_OK(write_keeping(2, FILES(F("a", "3"), F("new", "4"), F("same", "s")), NULL, &err), &err);
    second = live_name("target");
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    CHECK_CLEAN("target", old, 2);
    CHECK(result.changed && strcmp(result.version, second) > 0);
    CHECK_TEXT(result.previous, second);
    CHECK_TEXT(joined(&result.added), "b/c");
    CHECK_TEXT(joined(&result.updated), "a");
    CHECK_TEXT(joined(&result.removed), "new");
    aw_result_clear(&result);
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err); /* and forth again */
    CHECK_CLEAN("target", FILES(F("a", "3"), F("new", "4"), F("same", "s")), 2);
    aw_result_clear(&result);
    free(second);
    aw_writer_close(writer);
}

TEST(rollback_named, "rollback takes any retained version by name")
{
    aw_writer *writer = writer_keeping(3);
    aw_result result = AW_RESULT_INIT;
    char *first;
    aw_error err;

    CHECK_OK(write_keeping(3, FILES(F("n", "0")), NULL, &err), &err);
    first = live_name("target");
    for (int i = 1; i < 4; i++)
        CHECK_OK(write_keeping(3, FILES(F("n", i % 2 ? "1" : "2"), F("m", "x")), NULL, &err), &err);
    CHECK_OK(aw_rollback(writer, first, NULL, NULL, &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("n", "0")), 3);
    aw_result_clear(&result);
    free(first);
    aw_writer_close(writer);
}

TEST(rollback_modes, "rollback restores the modes of files and directories as they were")
{
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    disk_mkdir("target", 0755);
    options.dir_mode = 0711;
    options.default_mode = 0604;
    CHECK_OK(write_with(&options, FILES(F("a", "1"), F("b/c", "2"), FM("d", "3", 0)), NULL, &err), &err);
    before = live_tree("target");
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), F("b/c", "2")), NULL, &err), &err);
    options = options_keeping(1); /* whose dir_mode must not matter now */
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    after = live_tree("target");
    CHECK_TEXT(after, before);
    aw_result_clear(&result);
    aw_writer_close(writer);
    free(before);
    free(after);
}

TEST(rollback_none, "rollback to what is not there is not_found, and touches nothing")
{
    static const char *const names[] = {
        NULL, "..2026_11_22_15_04_05.1", "..data", "..", ".", "", "../target", "a", "..lock",
        "..2999_01_01_00_00_00.1", "..2001_01_01_00_00_00.1_tmp", "/etc",
    };
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    CHECK(aw_rollback(writer, NULL, NULL, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NOT_FOUND && !err.committed);
    must_write(FILES(F("a", "1")));
    before = disk_state("target");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_THAT(aw_rollback(writer, names[i], NULL, NULL, &result, &err) < 0,
                   "%s was found", names[i]);
        CHECK(err.code == AW_E_NOT_FOUND && !err.committed);
    }
    after = disk_state("target");
    CHECK_TEXT(after, before);
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755); /* unfinished: never live */
    CHECK(aw_rollback(writer, "..2999_01_01_00_00_00.1", NULL, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NOT_FOUND);
    free(before);
    free(after);
    aw_writer_close(writer);
}

TEST(rollback_odd, "G7: rollback to a version with a link or a FIFO in it is refused, and follows nothing")
{
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *before, *after, *live;
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_symlink("/etc/passwd", in_live("link"));
    must_write(FILES(F("a", "2")));
    live = live_name("target");
    before = disk_state("target");
    CHECK(aw_rollback(writer, NULL, NULL, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
    CHECK_TEXT(err.path, "link");
    after = disk_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
    free(live);
    aw_writer_close(writer);
}

TEST(rollback_live, "rollback to the live version is no change or not found")
{
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *live;
    aw_error err;

    must_write(FILES(F("a", "1")));
    live = live_name("target");
    if (aw_rollback(writer, live, NULL, NULL, &result, &err) < 0)
        CHECK(err.code == AW_E_NOT_FOUND);
    CHECK_CLEAN("target", FILES(F("a", "1")), 1);
    aw_result_clear(&result);
    free(live);
    aw_writer_close(writer);
}

TEST(rollback_expected, "a rollback that expects another live version is not_found, and changes nothing")
{
    aw_writer *writer = writer_keeping(2);
    aw_result result = AW_RESULT_INIT;
    char *first, *second, *before, *after;
    aw_error err;

    must_write(FILES(F("a", "1")));
    first = live_name("target");
    must_write(FILES(F("a", "2")));
    second = live_name("target");
    before = disk_state("target");
    CHECK(aw_rollback(writer, NULL, first, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NOT_FOUND && strstr(err.detail, second) != NULL);
    CHECK_TEXT(err.path, first);
    after = disk_state("target");
    CHECK_TEXT(after, before);
    CHECK_OK(aw_rollback(writer, NULL, second, NULL, &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("a", "1")), 2);
    aw_result_clear(&result);
    free(first);
    free(second);
    free(before);
    free(after);
    aw_writer_close(writer);
}

/* ---- names increase ----------------------------------------------------- */

/* A clock of which a test says how late it is. */
static struct timespec fake_time;

static int fake_clock(clockid_t clock, struct timespec *time)
{
    static const struct timespec start = { 1, 0 };
    *time = clock == CLOCK_REALTIME ? fake_time : start;
    return 0;
}

TEST(clock_back, "versions' names increase when the clock stands still, steps back or lies")
{
    static const time_t seconds[] = { 1795359845, 1795359845, 0, 1795359846, 1700000000, 1, 4102444800,
                                      1795359845, 4102444800 };
    char *last = NULL;

    aw_sys.clock_gettime = fake_clock;
    for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++) {
        char number[16], *name;
        size_t stamp = strlen("..2026_11_22_15_04_05.");

        fake_time.tv_sec = seconds[i];
        fake_time.tv_nsec = 999999999;
        snprintf(number, sizeof number, "%zu", i);
        must_write(FILES(F("n", number)));
        CHECK_CLEAN("target", FILES(F("n", number)), 1);
        name = live_name("target");
        if (last) {
            int order = strncmp(name, last, stamp);
            CHECK_THAT(order > 0 || (order == 0 && strtoull(name + stamp, NULL, 10)
                                                   > strtoull(last + stamp, NULL, 10)),
                       "%s after %s", name, last);
        }
        free(last);
        last = name;
    }
    free(last);
}

TEST(clock_rollback, "a rollback after the clock stepped back has a greater name, too")
{
    aw_writer *writer = writer_keeping(2);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    aw_sys.clock_gettime = fake_clock;
    fake_time = (struct timespec){ 1795359845, 5 };
    CHECK_OK(write_keeping(2, FILES(F("n", "1")), NULL, &err), &err);
    CHECK_OK(write_keeping(2, FILES(F("n", "2")), NULL, &err), &err);
    fake_time.tv_sec = 1000;
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("n", "1")), 2);
    CHECK_TEXT(result.version, "..2026_11_22_15_04_05.000000007");
    aw_result_clear(&result);
    aw_writer_close(writer);
}

TEST(kubelet_names, "a version that a kubelet wrote is taken over, with a greater name")
{
    disk_mkdir("target", 0755);
    disk_mkdir("target/..2026_11_22_15_04_05.1182736450", 0755);
    disk_write("target/..2026_11_22_15_04_05.1182736450/a", "theirs", 0644);
    disk_symlink("..2026_11_22_15_04_05.1182736450", "target/..data");
    disk_symlink("..data/a", "target/a");
    must_write(FILES(F("a", "ours"), F("b", "new")));
    CHECK_CLEAN("target", FILES(F("a", "ours"), F("b", "new")), 1);
}
