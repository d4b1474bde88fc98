/* exact_test.c: data, mode and owner are all compared and all set (G8). */
#define _GNU_SOURCE
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TEST(modes, "G8: modes are set exactly under umask 077 and under umask 0")
{
    const file *files = FILES(F("a", "1"), FM("b/c", "2", 0600), FM("b/d/e", "3", 0777),
                              FM("f", "4", 0444));
    must_write(NO_FILES);
    umask(077);
    must_write(files);
    umask(022);
    CHECK_CLEAN("target", files, 1);
    must_write(NO_FILES);
    umask(0);
    must_write(files);
    umask(022);
    CHECK_CLEAN("target", files, 1);
    CHECK(disk_mode("target/..lock") == 0600);
}

TEST(lock_mode, "G8: ..lock is 0600 whatever the umask is")
{
    umask(0777);
    must_write(FILES(F("a", "1")));
    umask(022);
    CHECK(disk_mode("target/..lock") == 0600);
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(mode_only, "G8: a change of mode alone is a change")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1"), FM("b", "2", 0600)));
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), FM("b", "2", 0640)), &result, &err), &err);
    CHECK(result.changed && result.linked == 1);
    CHECK_TEXT(joined(&result.updated), "b");
    CHECK_CLEAN("target", FILES(F("a", "1"), FM("b", "2", 0640)), 1);
    aw_result_clear(&result);
}

TEST(old_mode_stays, "G8: the retained version keeps its mode when only the mode changes")
{
    char path[PATH_MAX], *old;

    must_write(FILES(FM("b", "2", 0600)));
    old = live_name("target");
    must_write(FILES(FM("b", "2", 0644)));
    snprintf(path, sizeof path, "target/%s/b", old);
    CHECK(disk_mode(path) == 0600);
    free(old);
}

TEST(dir_mode, "G8: options.dir_mode holds for the version and its directories, and is compared")
{
    aw_options options = options_keeping(1);
    aw_result result = AW_RESULT_INIT;
    const file *files = FILES(F("a", "1"), F("b/c/d", "2"));
    aw_error err;

    must_write(files);
    options.dir_mode = 0750;
    CHECK_OK(write_with(&options, files, &result, &err), &err);
    CHECK(result.changed && result.linked == 2);
    CHECK_TEXT(joined(&result.updated), ". b b/c");
    CHECK(disk_mode(in_live("")) == 0750 && disk_mode(in_live("b")) == 0750);
    CHECK(disk_mode(in_live("b/c")) == 0750 && disk_mode(in_live("b/c/d")) == 0644);
    aw_result_clear(&result);
    CHECK_OK(write_with(&options, files, &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
}

TEST(read_only_dirs, "G8: directories that may not be written to are written, and removed again")
{
    aw_options options = options_keeping(0);
    aw_error err;

    disk_mkdir("target", 0755);
    options.dir_mode = 0555;
    for (int i = 0; i < 4; i++)
        CHECK_OK(write_with(&options, FILES(F("a/b/c", i % 2 ? "1" : "2"), F("a/d", "3")), NULL,
                            &err), &err);
    CHECK(disk_mode(in_live("a/b")) == 0555);
    CHECK(disk_count("target", "..2") == 1);
}

TEST(odd_modes, "G8: files with mode 0 or 0200 are written, compared and replaced")
{
    aw_error err;

    for (int i = 0; i < 3; i++) {
        must_write(FILES(FM("none", "1", 0), FM("write-only", "2", 0200), F("a", i % 2 ? "x" : "y")));
        CHECK(disk_mode(in_live("none")) == 0 && disk_mode(in_live("write-only")) == 0200);
    }
    CHECK_OK(write_keeping(0, NO_FILES, NULL, &err), &err);
    CHECK_CLEAN("target", NO_FILES, 0);
}

TEST(owner_only, "G8: a change of owner alone is a change, for files and directories")
{
    aw_options options = options_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_payload *payload;
    aw_writer *writer;
    aw_entry entry = AW_ENTRY_INIT;
    struct stat st;
    aw_error err;

    need_root();
    must_write(FILES(F("a", "1"), F("b/c", "2")));
    payload = payload_of(FILES(F("a", "1")));
    entry.data = "2";
    entry.size = 1;
    entry.uid = 1234;
    entry.gid = 5678;
    CHECK_OK(aw_payload_add(payload, "b/c", 3, &entry, &err), &err);
    writer = writer_keeping(1);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(result.changed && result.linked == 1);
    CHECK_TEXT(joined(&result.updated), "b/c");
    CHECK(stat("target/b/c", &st) == 0 && st.st_uid == 1234 && st.st_gid == 5678);
    CHECK(stat("target/a", &st) == 0 && st.st_uid == 0 && st.st_gid == 0);
    aw_result_clear(&result);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);

    options.uid = 42;
    options.gid = 43;
    CHECK_OK(write_with(&options, FILES(F("a", "1"), F("b/c", "2")), &result, &err), &err);
    CHECK_TEXT(joined(&result.updated), ". a b b/c");
    CHECK(stat("target/b", &st) == 0 && st.st_uid == 42 && st.st_gid == 43);
    CHECK(stat("target/b/c", &st) == 0 && st.st_uid == 42 && st.st_gid == 43);
    CHECK(stat("target/..data/", &st) == 0 && st.st_uid == 42 && st.st_gid == 43);
    aw_result_clear(&result);
    CHECK_OK(write_with(&options, FILES(F("a", "1"), F("b/c", "2")), &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
}

TEST(setgid_target, "G8: below a setgid target a fresh file's group is what is compared")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    struct stat st;

    need_root();
    disk_mkdir("target", 0755);
    CHECK(chown("target", 0, 777) == 0 && chmod("target", 02755) == 0);
    must_write(FILES(F("a", "1"), F("b/c", "2")));
    CHECK(stat("target/a", &st) == 0 && st.st_gid == 777);
    CHECK(stat("target/b/c", &st) == 0 && st.st_gid == 777);
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), F("b/c", "2")), &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
}

TEST(setgid_and_umask, "G8: so it is under a umask that takes the owner its own rights")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    struct stat st;

    need_root();
    disk_mkdir("target", 0755);
    CHECK(chown("target", 0, 777) == 0 && chmod("target", 02755) == 0);
    umask(0777);
    must_write(FILES(F("a", "1"), F("b/c", "2")));
    CHECK(stat("target/b/c", &st) == 0 && st.st_gid == 777);
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), F("b/c", "2")), &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
}

/* Change something behind the library's back; the same payload must mend it. */
static void check_mends(const file *files, const char *updated, const char *removed,
                        const char *added)
{
    aw_result result = AW_RESULT_INIT;
    char *before = live_name("target"), *after;
    aw_error err;

    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    after = live_name("target");
    CHECK(result.changed);
    CHECK(strcmp(before, after) != 0); /* a live version is never changed */
    CHECK_TEXT(joined(&result.updated), updated);
    CHECK_TEXT(joined(&result.removed), removed);
    CHECK_TEXT(joined(&result.added), added);
    CHECK_CLEAN("target", files, 1);
    aw_result_clear(&result);
    free(before);
    free(after);
}

TEST(drift, "G8: drift on disk is a change: contents, size, mode, a file gone")
{
    const file *files = FILES(F("a", "1"), F("b/c", "22"), F("d", "3"));

    must_write(files);
    disk_write(in_live("a"), "X", 0644);
    check_mends(files, "a", "", "");
    disk_write(in_live("b/c"), "22 and more", 0644);
    check_mends(files, "b/c", "", "");
    disk_write(in_live("b/c"), "", 0644);
    check_mends(files, "b/c", "", "");
    CHECK(chmod(in_live("d"), 0600) == 0);
    check_mends(files, "d", "", "");
    CHECK(chmod(in_live("d"), 04644) == 0);
    check_mends(files, "d", "", "");
    CHECK(unlink(in_live("b/c")) == 0);
    check_mends(files, "", "", "b/c");
    CHECK(chmod(in_live("b"), 0700) == 0);
    check_mends(files, "b", "", "");
    CHECK(chmod(in_live(""), 0711) == 0);
    check_mends(files, ".", "", "");
}

TEST(owner_drift, "G8: drift of an owner is a change, of the version's directory too")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"));

    need_root();
    must_write(files);
    CHECK(chown(in_live("a"), 7, 0) == 0);
    check_mends(files, "a", "", "");
    CHECK(chown(in_live("b"), 0, 7) == 0);
    check_mends(files, "b", "", "");
    CHECK(chown(in_live(""), 7, 7) == 0);
    check_mends(files, ".", "", "");
}

TEST(extra, "G8: an extra file, link or directory in the live version is a change")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"));

    must_write(files);
    disk_write(in_live("extra"), "", 0644);
    check_mends(files, "", "extra", "");
    disk_write(in_live("b/extra"), "", 0644);
    check_mends(files, "", "b/extra", "");
    disk_mkdir(in_live("b/empty"), 0755);
    check_mends(files, "", "b/empty", "");
    disk_symlink("a", in_live("link"));
    check_mends(files, "", "link", "");
}

TEST(odd_types, "G7: a link, a FIFO or a directory where a file was is replaced, never followed")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"));
    char *victim;

    disk_write("victim", "1", 0644);
    disk_mkdir("elsewhere", 0755);
    disk_write("elsewhere/c", "2", 0644);
    must_write(files);
    CHECK(unlink(in_live("a")) == 0);
    disk_symlink("../../victim", in_live("a")); /* with the very contents */
    check_mends(files, "a", "", "");
    CHECK(unlink(in_live("a")) == 0 && mkfifo(in_live("a"), 0644) == 0);
    check_mends(files, "a", "", "");
    CHECK(unlink(in_live("a")) == 0);
    disk_mkdir(in_live("a"), 0755);
    check_mends(files, "", "", "a");
    disk_remove(in_live("b"));
    disk_symlink("../../elsewhere", in_live("b"));
    check_mends(files, "", "b", "b/c");
    CHECK_OK(write_keeping(0, NO_FILES, NULL, &(aw_error){ 0 }), &(aw_error){ 0 });
    victim = disk_read("victim");
    CHECK_TEXT(victim, "1");
    free(victim);
    CHECK(disk_exists("elsewhere/c"));
}
