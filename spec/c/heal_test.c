/* heal_test.c: what killed writers left is swept by the next write (G5). */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TEST(heals_links, "G5: deleted visible links come back with a no-op write, which publishes nothing")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"));
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    must_write(files);
    before = live_name("target");
    CHECK(unlink("target/a") == 0 && unlink("target/b") == 0);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK(!result.changed);
    after = live_name("target");
    CHECK_TEXT(after, before);
    CHECK_CLEAN("target", files, 0);
    aw_result_clear(&result);
    free(before);
    free(after);
}

TEST(heals_write, "G5: a write sweeps ..data_tmp, unfinished and half-removed versions, dangling links")
{
    must_write(FILES(F("a", "1")));
    leave_residue();
    must_write(FILES(F("a", "2"), F("half", "whole")));
    CHECK_CLEAN("target", FILES(F("a", "2"), F("half", "whole")), 1);
}

TEST(heals_noop, "G5: a no-op write sweeps the same")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1")));
    leave_residue();
    CHECK_OK(write_keeping(1, FILES(F("a", "1")), &result, &err), &err);
    CHECK(!result.changed && result.warnings.count == 0);
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
    aw_result_clear(&result);
}

TEST(heals_first, "G5: residue in a target that never had a live version is swept, too")
{
    disk_mkdir("target", 0755);
    leave_residue();
    must_write(FILES(F("a", "1")));
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(heals_deep, "G5: residue nested deeper than descriptors reach is swept")
{
    char path[PATH_MAX] = "target/..2999_01_01_00_00_00.1";
    size_t at;

    must_write(FILES(F("a", "1")));
    disk_mkdir(path, 0755);
    for (int i = 0; i < 300; i++) {
        at = strlen(path);
        snprintf(path + at, sizeof path - at, "/d");
        disk_mkdir(path, 0755);
        disk_write(strcat(path, "f"), "", 0644);
        path[at + 2] = '\0';
    }
    must_write(FILES(F("a", "1")));
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(heals_hoisted, "G5: also when an earlier sweep of it was killed half-way")
{
    char path[PATH_MAX] = "target/..2999_01_01_00_00_00.1/..deep.0";

    must_write(FILES(F("a", "1")));
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755);
    disk_mkdir(path, 0755);
    disk_write("target/..2999_01_01_00_00_00.1/..deep.1", "", 0644);
    for (int i = 0; i < 40; i++) {
        size_t at = strlen(path);
        snprintf(path + at, sizeof path - at, "/d");
        disk_mkdir(path, 0755);
    }
    must_write(FILES(F("a", "1")));
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(heals_twice, "G5: an unfinished version is swept although one is half-removed under its name")
{
    must_write(FILES(F("a", "1")));
    leave_residue();
    disk_mkdir("target/..2999_01_01_00_00_00.1_tmp", 0755);
    disk_write("target/..2999_01_01_00_00_00.1_tmp/rest", "", 0644);
    must_write(FILES(F("a", "2")));
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}

TEST(data_tmp_directory, "G5: a ..data_tmp that is a directory does not stop writes for ever")
{
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_mkdir("target/..data_tmp", 0755);
    disk_write("target/..data_tmp/x", "", 0644);
    if (write_keeping(1, FILES(F("a", "2")), NULL, &err) < 0) {
        /* then it must be the error that says whose it is */
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        CHECK_TEXT(err.path, "..data_tmp");
        return;
    }
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}

TEST(dangling_data, "a ..data that leads to no version counts as no live version")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    disk_mkdir("target", 0755);
    disk_symlink("..2026_11_22_15_04_05.1", "target/..data");
    disk_symlink("..data/old", "target/old");
    CHECK_OK(write_keeping(1, FILES(F("a", "1")), &result, &err), &err);
    CHECK(result.changed);
    CHECK_TEXT(joined(&result.added), "a");
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
    aw_result_clear(&result);
}

static int unable_to_sync(int fd)
{
    (void)fd;
    errno = EIO;
    return -1;
}

TEST(stray_stays, "G4: where the target cannot be synced, no stray name is dropped")
{
    aw_options options = AW_OPTIONS_INIT;
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_symlink("..data/gone", "target/gone");
    aw_sys.fsync = unable_to_sync;
    CHECK(write_with(&options, FILES(F("a", "1")), NULL, &err) < 0);
    CHECK(err.code == AW_E_IO && err.sys_errno == EIO && !err.committed);
    CHECK(disk_exists("target/gone"));
}
