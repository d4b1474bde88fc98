/* write_test.c: aw_write(), aw_plan(), aw_rollback(), aw_versions() and
 * aw_collect() against the contract in atomicwriter.h, from outside.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A write that must succeed, retaining one version. */
static void publish(const file *files)
{
    aw_error err;
    CHECK_OK(write_keeping(1, files, NULL, &err), &err);
}

static int write_with(const aw_options *options, const file *files, aw_result *result,
                      aw_error *err)
{
    aw_payload *payload = payload_of(files);
    aw_result own = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    int rc = aw_writer_open("target", options, &writer, err);

    if (rc == 0)
        rc = aw_write(writer, payload, NULL, result ? result : &own, err);
    aw_result_clear(&own);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

static void need_root(void)
{
    if (geteuid() != 0)
        test_skip("needs root");
}

/* The path of PATH in the live version. The string is static. */
static const char *in_live(const char *path)
{
    static char full[PATH_MAX];
    char *name = live_name("target");

    snprintf(full, sizeof full, "target/%s/%s", name ? name : "(none)", path);
    free(name);
    return full;
}

/* ---- what a write shows ------------------------------------------------ */

TEST(first_write, "a first write shows the payload through visible names, and says what it did")
{
    const file *files = FILES(F("podName", "web-1"), F("user/labels", "a=\"b\"\n"),
                              FM("user/secret/key", "k", 0600), F("empty", ""));
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    char *name, *text;

    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK_CLEAN("target", files, 0);
    name = live_name("target");
    CHECK(result.changed);
    CHECK_TEXT(result.version, name);
    CHECK(result.previous == NULL);
    CHECK_TEXT(joined(&result.added), "empty podName user/labels user/secret/key");
    CHECK(result.updated.count == 0 && result.removed.count == 0 && result.warnings.count == 0);
    CHECK(result.unchanged == 0 && result.linked == 0 && result.bytes == 5 + 6 + 1);
    text = disk_read("target/user/labels");
    CHECK_TEXT(text, "a=\"b\"\n");
    free(text);
    text = disk_link("target/user");
    CHECK_TEXT(text, "..data/user");
    free(text);
    free(name);
    aw_result_clear(&result);
    CHECK(result.version == NULL && result.added.count == 0);
}

TEST(version_name, "a version is named after the time in UTC")
{
    time_t before = time(NULL), after;
    unsigned year, month, day, hour, minute, second;
    struct tm tm = { 0 };
    char *name;

    publish(FILES(F("a", "1")));
    after = time(NULL);
    name = live_name("target");
    CHECK(sscanf(name, "..%4u_%2u_%2u_%2u_%2u_%2u.", &year, &month, &day, &hour, &minute,
                 &second) == 6);
    tm.tm_year = (int)year - 1900;
    tm.tm_mon = (int)month - 1;
    tm.tm_mday = (int)day;
    tm.tm_hour = (int)hour;
    tm.tm_min = (int)minute;
    tm.tm_sec = (int)second;
    CHECK_THAT(timegm(&tm) >= before && timegm(&tm) <= after, "%s", name);
    free(name);
}

TEST(no_change, "an unchanged payload publishes nothing and touches no version")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"), F("empty", ""));
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    publish(files);
    before = disk_state("target");
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    after = disk_state("target");
    CHECK_TEXT(after, before);
    CHECK(!result.changed && result.previous == NULL && result.unchanged == 3);
    CHECK(result.linked == 0 && result.bytes == 0);
    CHECK(result.added.count + result.updated.count + result.removed.count == 0);
    free(before);
    before = live_name("target");
    CHECK_TEXT(result.version, before);
    aw_result_clear(&result);
    free(before);
    free(after);
}

TEST(one_of_many, "what is unchanged is one file in both versions, by hard link")
{
    aw_result result = AW_RESULT_INIT;
    ino_t a, deep, changed;
    char *first, *second;
    aw_error err;

    publish(FILES(F("a", "1"), F("d/e/deep", "2"), F("changed", "old")));
    first = live_name("target");
    a = disk_inode(in_live("a"));
    deep = disk_inode(in_live("d/e/deep"));
    changed = disk_inode(in_live("changed"));
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), F("d/e/deep", "2"), F("changed", "new")),
                           &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("a", "1"), F("d/e/deep", "2"), F("changed", "new")), 1);
    second = live_name("target");
    CHECK(strcmp(first, second) != 0);
    CHECK_TEXT(result.previous, first);
    CHECK_TEXT(result.version, second);
    CHECK(disk_inode(in_live("a")) == a && disk_inode(in_live("d/e/deep")) == deep);
    CHECK(disk_inode(in_live("changed")) != changed);
    CHECK(result.changed && result.unchanged == 2 && result.linked == 2 && result.bytes == 3);
    CHECK_TEXT(joined(&result.updated), "changed");
    CHECK(result.added.count + result.removed.count + result.warnings.count == 0);
    aw_result_clear(&result);
    free(first);
    free(second);
}

TEST(no_reuse, "options.reuse = false shares no file between versions")
{
    aw_options options = options_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    ino_t a;

    publish(FILES(F("a", "1"), F("b", "2")));
    a = disk_inode(in_live("a"));
    options.reuse = false;
    CHECK_OK(write_with(&options, FILES(F("a", "1"), F("b", "3")), &result, &err), &err);
    CHECK(disk_inode(in_live("a")) != a);
    CHECK(result.unchanged == 1 && result.linked == 0 && result.bytes == 2);
    CHECK_CLEAN("target", FILES(F("a", "1"), F("b", "3")), 1);
    aw_result_clear(&result);
}

TEST(lists, "added, updated and removed paths are told in byte order")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    publish(FILES(F("d/old", ""), F("keep", ""), F("d-x", "1"), F("z", ""), F("d/u", "1")));
    CHECK_OK(write_keeping(1, FILES(F("keep", ""), F("d-x", "2"), F("d/u", "2"), F("n/1", ""),
                                    F("n/2", ""), F("n-1", "")), &result, &err), &err);
    CHECK_TEXT(joined(&result.added), "n-1 n/1 n/2");
    CHECK_TEXT(joined(&result.updated), "d-x d/u");
    CHECK_TEXT(joined(&result.removed), "d/old z");
    aw_result_clear(&result);
}

TEST(type_change, "a name turns from a file into a directory and back")
{
    publish(FILES(F("a", "file"), F("x/y/z", "deep"), F("s", "same")));
    publish(FILES(F("a/b", "below"), F("x/y", "shallow"), F("s", "same")));
    CHECK_CLEAN("target", FILES(F("a/b", "below"), F("x/y", "shallow"), F("s", "same")), 1);
    publish(FILES(F("a", "file"), F("x", "top"), F("s/t", "not the same")));
    CHECK_CLEAN("target", FILES(F("a", "file"), F("x", "top"), F("s/t", "not the same")), 1);
}

TEST(shrink, "an empty payload after data shows nothing, and data comes back")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    publish(FILES(F("a", "1"), F("b/c", "2")));
    CHECK_OK(write_keeping(1, NO_FILES, &result, &err), &err);
    CHECK_CLEAN("target", NO_FILES, 1);
    CHECK(result.changed);
    CHECK_TEXT(joined(&result.removed), "a b/c");
    aw_result_clear(&result);
    CHECK_OK(write_keeping(1, NO_FILES, &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    publish(FILES(F("a", "1"), F("b/c", "2")));
    CHECK_CLEAN("target", FILES(F("a", "1"), F("b/c", "2")), 1);
}

TEST(first_empty, "an empty payload can be the first")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK_OK(write_keeping(1, NO_FILES, &result, &err), &err);
    CHECK(result.changed);
    CHECK_CLEAN("target", NO_FILES, 0);
    aw_result_clear(&result);
}

TEST(names, "names with spaces, newlines, dashes, dots and any bytes are names like others")
{
    const file *files = FILES(F(" ", "space"), F("a\nb", "newline"), F("-rf", "dash"),
                              F("--", "dashes"), F(".hidden", "dot"), F("\xc3\xa4\xe2\x82\xac", "UTF-8"),
                              F("\xff\xfe", "no UTF-8"), F("a/..data", "inside"),
                              F("a/..2026_11_22_15_04_05.1/x", "inside too"), F("\\", "backslash"),
                              F("*", "star"), F("$(x)", "shell"), F("%s%n", "format"));
    publish(files);
    CHECK_CLEAN("target", files, 0);
    publish(NO_FILES);
    CHECK_CLEAN("target", NO_FILES, 1);
}

TEST(unclean_paths, "unclean paths are shown cleaned")
{
    publish(FILES(F("./a//b/", "1"), F("c/./d", "2")));
    CHECK_CLEAN("target", FILES(F("a/b", "1"), F("c/d", "2")), 0);
}

TEST(long_names, "names of 255 bytes and paths as long as can be opened are taken")
{
    static char name[256], deep[PATH_MAX];
    size_t room = sizeof deep - strlen(test_dir) - strlen("/target/") - 43, at;

    memset(name, 'n', 255);
    for (at = 0; at < room; at++)
        deep[at] = at % 200 == 199 ? '/' : 'd';
    deep[room - 1] = 'd';
    publish(FILES(F(name, "long"), F(deep, "deep")));
    publish(FILES(F(name, "longer"), F(deep, "deep")));
    publish(FILES(F(name, "longer")));
    CHECK_CLEAN("target", FILES(F(name, "longer")), 1);
    publish(NO_FILES);
    CHECK_CLEAN("target", NO_FILES, 1);
}

TEST(too_long, "a path that could not be opened below the target is refused, nothing is touched")
{
    static char deep[PATH_MAX];
    char *before, *after;
    aw_error err;

    for (size_t at = 0; at < 4090; at++)
        deep[at] = at % 200 == 199 ? '/' : 'd';
    publish(FILES(F("a", "1")));
    before = disk_full_state("target");
    CHECK(write_keeping(1, FILES(F("a", "2"), F(deep, "x")), NULL, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD && !err.committed);
    CHECK_TEXT(err.path, deep);
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(clash, "clashing paths are refused before the disk is touched")
{
    char *before, *after;
    aw_error err;

    publish(FILES(F("a", "1")));
    before = disk_full_state("target");
    CHECK(write_keeping(1, FILES(F("a", "1"), F("a/b", "2")), NULL, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD && !err.committed);
    CHECK_TEXT(err.path, "a");
    CHECK(write_keeping(1, FILES(F("x/y", "1"), F("x//y", "2")), NULL, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD);
    CHECK_TEXT(err.path, "x/y");
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(bytes, "any bytes of any size are written exactly: none, NUL bytes, megabytes")
{
    static const size_t sizes[] = { 0, 1, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 5000000 };
    aw_writer *writer = writer_keeping(0);
    char *data = malloc(5000000), *seen = malloc(5000001);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK(data && seen);
    for (size_t i = 0; i < 5000000; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        aw_payload *payload = payload_of(NO_FILES);
        aw_entry entry = AW_ENTRY_INIT;
        int fd;

        entry.data = data;
        entry.size = sizes[i];
        CHECK_OK(aw_payload_add(payload, "blob", 4, &entry, &err), &err);
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        CHECK(result.changed && result.bytes == sizes[i]);
        aw_result_clear(&result);
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        CHECK_THAT(!result.changed, "%zu bytes read back differ", sizes[i]);
        aw_result_clear(&result);
        fd = open("target/blob", O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0 && read(fd, seen, 5000001) == (ssize_t)sizes[i]);
        close(fd);
        CHECK(memcmp(seen, data, sizes[i]) == 0);
        aw_payload_free(payload);
    }
    free(data);
    free(seen);
    aw_writer_close(writer);
}

TEST(same_size, "G8: a change of one byte is a change, at the start, at the end, at a block's edge")
{
    static const size_t places[] = { 0, 4095, 4096, 65535, 65536, 131071, 131072, 199999 };
    aw_writer *writer = writer_keeping(0);
    char *data = calloc(1, 200001);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK(data != NULL);
    memset(data, 'x', 200000);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        aw_payload *payload;

        data[places[i]]++;
        payload = payload_of(FILES(F("blob", data)));
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        CHECK_THAT(result.changed, "byte %zu changed", places[i]);
        aw_result_clear(&result);
        aw_payload_free(payload);
        CHECK_CLEAN("target", FILES(F("blob", data)), 0);
    }
    free(data);
    aw_writer_close(writer);
}

TEST(many, "thousands of files in many directories, and one changed")
{
    enum { COUNT = 3000 };
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(NO_FILES), *second = payload_of(NO_FILES);
    aw_result result = AW_RESULT_INIT;
    size_t descriptors = disk_open_files();
    aw_error err;

    for (int i = 0; i < COUNT; i++) {
        aw_entry entry = AW_ENTRY_INIT;
        char path[64];
        size_t length = (size_t)snprintf(path, sizeof path, "d%d/e%d/file-%d", i % 37, i % 11, i);

        entry.data = "contents";
        entry.size = 8;
        CHECK_OK(aw_payload_add(payload, path, length, &entry, &err), &err);
        entry.size = i == 1234 ? 7 : 8;
        CHECK_OK(aw_payload_add(second, path, length, &entry, &err), &err);
    }
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(result.added.count == COUNT);
    aw_result_clear(&result);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(!result.changed && result.unchanged == COUNT);
    aw_result_clear(&result);
    CHECK_OK(aw_write(writer, second, NULL, &result, &err), &err);
    CHECK_TEXT(joined(&result.updated), "d13/e2/file-1234");
    CHECK(result.linked == COUNT - 1);
    CHECK(disk_count("target", "d") == 37);
    aw_result_clear(&result);
    CHECK(disk_open_files() == descriptors);
    aw_payload_free(payload);
    aw_payload_free(second);
    aw_writer_close(writer);
}

TEST(forty, "40 updates in a row, each complete, each with a greater name")
{
    char *last = NULL;

    for (int i = 0; i < 40; i++) {
        char number[16], *name;
        snprintf(number, sizeof number, "%d", i);
        publish(FILES(F("n", number), F(i % 2 ? "odd" : "even", number), F("same", "s")));
        CHECK_CLEAN("target", FILES(F("n", number), F(i % 2 ? "odd" : "even", number),
                                    F("same", "s")), 1);
        name = live_name("target");
        CHECK(!last || strcmp(name, last) > 0);
        free(last);
        last = name;
    }
    free(last);
}

/* ---- G8: exact --------------------------------------------------------- */

TEST(modes, "G8: modes are set exactly under umask 077 and under umask 0")
{
    const file *files = FILES(F("a", "1"), FM("b/c", "2", 0600), FM("b/d/e", "3", 0777),
                              FM("f", "4", 0444));
    publish(NO_FILES);
    umask(077);
    publish(files);
    umask(022);
    CHECK_CLEAN("target", files, 1);
    publish(NO_FILES);
    umask(0);
    publish(files);
    umask(022);
    CHECK_CLEAN("target", files, 1);
    CHECK(disk_mode("target/..lock") == 0600);
}

TEST(lock_mode, "G8: ..lock is 0600 whatever the umask is")
{
    umask(0777);
    publish(FILES(F("a", "1")));
    umask(022);
    CHECK(disk_mode("target/..lock") == 0600);
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(mode_only, "G8: a change of mode alone is a change")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    publish(FILES(F("a", "1"), FM("b", "2", 0600)));
    CHECK_OK(write_keeping(1, FILES(F("a", "1"), FM("b", "2", 0640)), &result, &err), &err);
    CHECK(result.changed && result.linked == 1);
    CHECK_TEXT(joined(&result.updated), "b");
    CHECK_CLEAN("target", FILES(F("a", "1"), FM("b", "2", 0640)), 1);
    aw_result_clear(&result);
}

TEST(old_mode_stays, "G8: the retained version keeps its mode when only the mode changes")
{
    char path[PATH_MAX], *old;

    publish(FILES(FM("b", "2", 0600)));
    old = live_name("target");
    publish(FILES(FM("b", "2", 0644)));
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

    publish(files);
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
        publish(FILES(FM("none", "1", 0), FM("write-only", "2", 0200), F("a", i % 2 ? "x" : "y")));
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
    publish(FILES(F("a", "1"), F("b/c", "2")));
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
    publish(FILES(F("a", "1"), F("b/c", "2")));
    CHECK(stat("target/a", &st) == 0 && st.st_gid == 777);
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

    publish(files);
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
    publish(files);
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

    publish(files);
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
    publish(files);
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

/* ---- G5: self-healing -------------------------------------------------- */

TEST(heals_links, "G5: deleted visible links come back with a no-op write, which publishes nothing")
{
    const file *files = FILES(F("a", "1"), F("b/c", "2"));
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    publish(files);
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

/* All that a killed writer can leave. */
static void leave_residue(void)
{
    disk_symlink("..2999_01_01_00_00_00.1", "target/..data_tmp");
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0700);
    disk_write("target/..2999_01_01_00_00_00.1/half", "ha", 0600);
    disk_mkdir("target/..2999_01_01_00_00_00.1/d", 0555);
    disk_mkdir("target/..2001_01_01_00_00_00.1_tmp", 0755);
    disk_write("target/..2001_01_01_00_00_00.1_tmp/rest", "", 0644);
    disk_symlink("..data/gone", "target/gone");
    disk_symlink("..data/half", "target/half");
}

TEST(heals_write, "G5: a write sweeps ..data_tmp, unfinished and half-removed versions, dangling links")
{
    publish(FILES(F("a", "1")));
    leave_residue();
    publish(FILES(F("a", "2"), F("half", "whole")));
    CHECK_CLEAN("target", FILES(F("a", "2"), F("half", "whole")), 1);
}

TEST(heals_noop, "G5: a no-op write sweeps the same")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    publish(FILES(F("a", "1")));
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
    publish(FILES(F("a", "1")));
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(heals_deep, "G5: residue nested deeper than descriptors reach is swept")
{
    char path[PATH_MAX] = "target/..2999_01_01_00_00_00.1";
    size_t at;

    publish(FILES(F("a", "1")));
    disk_mkdir(path, 0755);
    for (int i = 0; i < 300; i++) {
        at = strlen(path);
        snprintf(path + at, sizeof path - at, "/d");
        disk_mkdir(path, 0755);
        disk_write(strcat(path, "f"), "", 0644);
        path[at + 2] = '\0';
    }
    publish(FILES(F("a", "1")));
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

TEST(data_tmp_directory, "G5: a ..data_tmp that is a directory does not stop writes for ever")
{
    aw_error err;

    publish(FILES(F("a", "1")));
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

/* ---- G7: confined ------------------------------------------------------ */

TEST(hostile_data, "G7: a ..data that is no link to one version is a clear error, and nothing moves")
{
    static const char *const links[] = {
        "../victim", ".", "..", "/", "victim", "../target", "..data", "..lock",
        "..2026_11_22_15_04_05.1/", "..2026_11_22_15_04_05.1/d", "./..2026_11_22_15_04_05.1",
        "../target/..2026_11_22_15_04_05.1", "..2026_11_22_15_04_05.1_tmp", "..data_tmp",
    };

    disk_mkdir("victim", 0755);
    disk_write("victim/file", "precious", 0644);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        char *before, *after;
        aw_error err;

        disk_mkdir("target", 0755);
        disk_mkdir("target/..2026_11_22_15_04_05.1", 0755);
        disk_mkdir("target/..2026_11_22_15_04_05.1/d", 0755);
        disk_symlink(links[i], "target/..data");
        before = disk_state(".");
        for (int keep = 0; keep < 2; keep++) {
            CHECK_THAT(write_keeping((unsigned)keep, FILES(F("a", "1")), NULL, &err) < 0,
                       "\"%s\" was trusted", links[i]);
            CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
            CHECK_TEXT(err.path, "..data");
        }
        CHECK(unlink("target/..lock") == 0 || errno == ENOENT);
        after = disk_state(".");
        /* the target's own mtime may differ, because of ..lock */
        CHECK(strlen(after) == strlen(before));
        disk_remove("target");
        free(before);
        free(after);
    }
    CHECK(disk_exists("victim/file"));
}

TEST(data_no_link, "G7: a ..data that is a directory or a file is a clear error")
{
    aw_error err;

    disk_mkdir("target", 0755);
    disk_mkdir("target/..data", 0755);
    disk_write("target/..data/x", "", 0644);
    CHECK(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
    CHECK_TEXT(err.path, "..data");
    CHECK(disk_exists("target/..data/x"));
    disk_remove("target/..data");
    disk_write("target/..data", "", 0644);
    CHECK(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
}

TEST(version_link, "G7: a version that is a link to elsewhere is never followed nor emptied")
{
    static const char *const live[] = { "..2026_11_22_15_04_05.1", "..2026_11_22_15_04_06.1" };
    aw_error err;

    disk_mkdir("victim", 0755);
    disk_write("victim/a", "precious", 0644);
    for (int i = 0; i < 2; i++) {
        disk_mkdir("target", 0755);
        disk_symlink("../victim", "target/..2026_11_22_15_04_05.1");
        disk_mkdir("target/..2026_11_22_15_04_06.1", 0755);
        disk_symlink(live[i], "target/..data");
        if (write_keeping(0, FILES(F("a", "1")), NULL, &err) < 0)
            CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        else
            (void)write_keeping(0, FILES(F("a", "2")), NULL, &err);
        disk_remove("target");
        CHECK(disk_exists("victim/a"));
    }
}

TEST(residue_links, "G7: sweeping removes links in residue, not what they lead to")
{
    disk_mkdir("victim", 0755);
    disk_write("victim/a", "precious", 0644);
    publish(FILES(F("a", "1")));
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755);
    disk_symlink("../../victim", "target/..2999_01_01_00_00_00.1/out");
    disk_symlink("../../victim/a", "target/..2999_01_01_00_00_00.1/file");
    disk_symlink("../victim", "target/..data_tmp");
    publish(FILES(F("a", "2")));
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
    CHECK(disk_exists("victim/a"));
}

TEST(foreign_needed, "G7: a foreign entry at a name that the payload needs is refused before anything is written")
{
    static const char *const links[] = {
        "elsewhere", "..data/other", "..data", "../target/..data/a", "./..data/a", "..data//a",
        "..data/a/", "/etc/passwd",
    };
    char *before, *after;
    aw_error err;

    publish(FILES(F("b", "1")));
    for (size_t i = 0; i < 2 + sizeof links / sizeof links[0]; i++) {
        if (i == 0)
            disk_write("target/a", "foreign", 0644);
        else if (i == 1)
            disk_mkdir("target/a", 0755);
        else
            disk_symlink(links[i - 2], "target/a");
        before = disk_full_state("target/..data");
        CHECK_THAT(write_keeping(1, FILES(F("a", "1"), F("b", "2")), NULL, &err) < 0, "case %zu", i);
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        CHECK_TEXT(err.path, "a");
        CHECK(write_keeping(1, FILES(F("a/b/c", "1")), NULL, &err) < 0);
        CHECK(err.code == AW_E_FOREIGN_ENTRY);
        CHECK_TEXT(err.path, "a");
        after = disk_full_state("target/..data");
        CHECK_TEXT(after, before);
        CHECK(disk_count("target", "..2") == 1);
        disk_remove("target/a");
        free(before);
        free(after);
    }
}

TEST(foreign_left, "G7: foreign entries at names that nobody needs are left alone")
{
    char *text;

    publish(FILES(F("a", "1")));
    disk_write("target/file", "foreign", 0640);
    disk_mkdir("target/directory", 0755);
    disk_write("target/directory/x", "", 0644);
    disk_symlink("nowhere", "target/dangling");
    disk_symlink("..data/other", "target/not-its-name");
    publish(FILES(F("a", "2"), F("b", "3")));
    publish(NO_FILES);
    text = disk_read("target/file");
    CHECK_TEXT(text, "foreign");
    CHECK(disk_mode("target/file") == 0640);
    CHECK(disk_exists("target/directory/x") && disk_exists("target/dangling"));
    CHECK(disk_exists("target/not-its-name"));
    CHECK(!disk_exists("target/a") && !disk_exists("target/b"));
    free(text);
}

TEST(taken_over, "G7: a visible link that somebody replaced by a file is not deleted with its key")
{
    publish(FILES(F("a", "1"), F("b", "2")));
    CHECK(unlink("target/a") == 0);
    disk_write("target/a", "mine now", 0644);
    publish(FILES(F("b", "3")));
    CHECK(disk_exists("target/a"));
}

TEST(lock_link, "G7: a ..lock that is a link, a directory or a FIFO is a clear error and not followed")
{
    aw_error err;

    disk_write("victim", "precious", 0644);
    for (int i = 0; i < 3; i++) {
        disk_mkdir("target", 0755);
        if (i == 0)
            disk_symlink("../victim", "target/..lock");
        else if (i == 1)
            disk_mkdir("target/..lock", 0755);
        else
            CHECK(mkfifo("target/..lock", 0600) == 0);
        CHECK_THAT(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0, "case %d", i);
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        CHECK_TEXT(err.path, "..lock");
        disk_remove("target");
    }
    CHECK(disk_mode("victim") == 0644);
}

/* ---- retention --------------------------------------------------------- */

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

/* ---- rollback ---------------------------------------------------------- */

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
    CHECK_OK(aw_rollback(writer, NULL, &result, &err), &err);
    CHECK_CLEAN("target", old, 2);
    CHECK(result.changed && strcmp(result.version, second) > 0);
    CHECK_TEXT(result.previous, second);
    CHECK_TEXT(joined(&result.added), "b/c");
    CHECK_TEXT(joined(&result.updated), "a");
    CHECK_TEXT(joined(&result.removed), "new");
    aw_result_clear(&result);
    CHECK_OK(aw_rollback(writer, NULL, &result, &err), &err); /* and forth again */
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
    CHECK_OK(aw_rollback(writer, first, &result, &err), &err);
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
    CHECK_OK(aw_rollback(writer, NULL, &result, &err), &err);
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

    CHECK(aw_rollback(writer, NULL, &result, &err) < 0);
    CHECK(err.code == AW_E_NOT_FOUND && !err.committed);
    publish(FILES(F("a", "1")));
    before = disk_state("target");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK_THAT(aw_rollback(writer, names[i], &result, &err) < 0, "%s was found", names[i]);
        CHECK(err.code == AW_E_NOT_FOUND && !err.committed);
    }
    after = disk_state("target");
    CHECK_TEXT(after, before);
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755); /* unfinished: never live */
    CHECK(aw_rollback(writer, "..2999_01_01_00_00_00.1", &result, &err) < 0);
    CHECK(err.code == AW_E_NOT_FOUND);
    free(before);
    free(after);
    aw_writer_close(writer);
}

TEST(rollback_live, "rollback to the live version is no change or not found")
{
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *live;
    aw_error err;

    publish(FILES(F("a", "1")));
    live = live_name("target");
    if (aw_rollback(writer, live, &result, &err) < 0)
        CHECK(err.code == AW_E_NOT_FOUND);
    CHECK_CLEAN("target", FILES(F("a", "1")), 1);
    aw_result_clear(&result);
    free(live);
    aw_writer_close(writer);
}

/* ---- plan -------------------------------------------------------------- */

TEST(plan, "plan says what a write would do and touches nothing, not even a time")
{
    aw_payload *payload = payload_of(FILES(F("a", "2"), F("n", "3"), F("same/s", "s")));
    aw_payload *same = payload_of(FILES(F("a", "1"), F("old", "2"), F("same/s", "s")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    char *before, *after, *live;
    aw_error err;

    publish(FILES(F("a", "0")));
    publish(FILES(F("a", "1"), F("old", "2"), F("same/s", "s")));
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

    publish(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    close(fd);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

/* ---- the target -------------------------------------------------------- */

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

/* ---- G6: the lock ------------------------------------------------------ */

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

TEST(locked, "G6: a held lock is locked after the timeout, never before")
{
    static const int64_t timeouts[] = { 0, 1, 2, 3, 10, 50, 51, 200 };
    aw_options options = options_keeping(1);
    char *before, *after;
    int fd;

    publish(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    before = disk_full_state("target");
    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        double start, took;
        aw_error err;

        options.lock_timeout = timeouts[i];
        start = now();
        CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0);
        took = now() - start;
        CHECK(err.code == AW_E_LOCKED && !err.committed);
        CHECK_THAT(took >= (double)timeouts[i], "after %.3f of %d ms", took, (int)timeouts[i]);
        CHECK_THAT(took < (double)timeouts[i] + 500, "after %.3f of %d ms", took, (int)timeouts[i]);
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    close(fd);
    publish(FILES(F("a", "2")));
    free(before);
    free(after);
}

/* A clock of which a test says how late it is. */
static struct timespec fake_monotonic, fake_real;

static int fake_clock(clockid_t clock, struct timespec *time)
{
    *time = clock == CLOCK_REALTIME ? fake_real : fake_monotonic;
    return 0;
}

static int fake_sleep(const struct timespec *time)
{
    fake_monotonic.tv_sec += time->tv_sec;
    fake_monotonic.tv_nsec += time->tv_nsec + 1000;
    while (fake_monotonic.tv_nsec >= 1000000000) {
        fake_monotonic.tv_nsec -= 1000000000;
        fake_monotonic.tv_sec++;
    }
    return 0;
}

TEST(locked_exactly, "G6: the lock's timeout is kept to the nanosecond, whatever the time is")
{
    aw_options options = options_keeping(1);
    int fd;

    publish(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    aw_sys.clock_gettime = fake_clock;
    aw_sys.sleep = fake_sleep;
    options.lock_timeout = 25;
    for (long start = 0; start < 1000000000; start += 37137137) {
        double took;
        aw_error err;

        fake_monotonic = (struct timespec){ 1000, start };
        CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0);
        CHECK(err.code == AW_E_LOCKED);
        took = (double)(fake_monotonic.tv_sec - 1000) * 1e3
               + (double)(fake_monotonic.tv_nsec - start) / 1e6;
        CHECK_THAT(took >= 25, "after %.6f of 25 ms", took);
        CHECK_THAT(took < 40, "after %.6f of 25 ms", took);
    }
    close(fd);
}

TEST(lock_released, "G6: a writer waits for the lock and gets it when it is released")
{
    pid_t child;
    int ready[2];
    char byte;
    double start;

    publish(FILES(F("a", "1")));
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        int fd = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        usleep(150000);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    start = now();
    publish(FILES(F("a", "2")));
    CHECK(now() - start > 20);
    waitpid(child, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}

TEST(killed_holder, "G6: a killed holder of the lock blocks nobody")
{
    aw_options options = options_keeping(1);
    pid_t child;
    int ready[2];
    char byte;
    aw_error err;

    publish(FILES(F("a", "1")));
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        int fd = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    options.lock_timeout = 0;
    CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0 && err.code == AW_E_LOCKED);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(write_with(&options, FILES(F("a", "2")), NULL, &err), &err);
    close(ready[0]);
    close(ready[1]);
}

static bool moved;

static int move_target_then_lock(int fd, int operation)
{
    if (!moved && operation != LOCK_UN) {
        moved = true;
        if (rename("target", "moved") < 0)
            abort();
        disk_mkdir("target", 0755);
    }
    return flock(fd, operation);
}

TEST(moved_target, "G6: a target that is replaced while its lock is waited for is not written to")
{
    char *before, *after;
    aw_error err;

    publish(FILES(F("a", "1")));
    before = disk_full_state("target/..data");
    moved = false;
    aw_sys.flock = move_target_then_lock;
    if (write_keeping(1, FILES(F("a", "2")), NULL, &err) == 0)
        CHECK_CLEAN("target", FILES(F("a", "2")), 0);
    else
        CHECK(err.code == AW_E_NO_TARGET && !err.committed);
    CHECK(moved);
    after = disk_full_state("moved/..data");
    CHECK_TEXT(after, before);
    CHECK(disk_count("moved", "..2") == 1);
    free(before);
    free(after);
}

/* ---- names increase ---------------------------------------------------- */

TEST(clock_back, "versions' names increase when the clock stands still, steps back or lies")
{
    static const time_t seconds[] = { 1795359845, 1795359845, 0, 1795359846, 1700000000, 1, 4102444800,
                                      1795359845, 4102444800 };
    char *last = NULL;

    aw_sys.clock_gettime = fake_clock;
    for (size_t i = 0; i < sizeof seconds / sizeof seconds[0]; i++) {
        char number[16], *name;
        size_t stamp = strlen("..2026_11_22_15_04_05.");

        fake_real.tv_sec = seconds[i];
        fake_real.tv_nsec = 999999999;
        fake_monotonic = (struct timespec){ 1, 0 };
        snprintf(number, sizeof number, "%zu", i);
        publish(FILES(F("n", number)));
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
    fake_monotonic = (struct timespec){ 1, 0 };
    fake_real = (struct timespec){ 1795359845, 5 };
    CHECK_OK(write_keeping(2, FILES(F("n", "1")), NULL, &err), &err);
    CHECK_OK(write_keeping(2, FILES(F("n", "2")), NULL, &err), &err);
    fake_real.tv_sec = 1000;
    CHECK_OK(aw_rollback(writer, NULL, &result, &err), &err);
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
    publish(FILES(F("a", "ours"), F("b", "new")));
    CHECK_CLEAN("target", FILES(F("a", "ours"), F("b", "new")), 1);
}

/* ---- sources ----------------------------------------------------------- */

static char *numbered_lines(size_t size)
{
    char *text = malloc(size + 1);

    if (!text)
        abort();
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + i * i / 7 % 26);
    text[size] = '\0';
    return text;
}

TEST(sources, "a source is copied, compared with what is there, and reused when it is the same")
{
    char *big = numbered_lines(3000000), *other = numbered_lines(3000000);
    const file *files = FILES(FS("big", "source", big), FS("d/small", "small", "s"),
                              FS("empty", "nothing", ""));
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    ino_t inode;

    disk_write("source", big, 0600); /* whose mode does not matter */
    disk_write("small", "s", 0777);
    disk_write("nothing", "", 0644);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK_CLEAN("target", files, 0);
    CHECK(result.bytes == 3000001);
    aw_result_clear(&result);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK(!result.changed && result.unchanged == 3);
    aw_result_clear(&result);
    inode = disk_inode(in_live("d/small"));
    other[2999999] = '!';
    disk_write("source", other, 0600);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK(result.changed && result.linked == 2);
    CHECK_TEXT(joined(&result.updated), "big");
    CHECK(disk_inode(in_live("d/small")) == inode);
    CHECK_CLEAN("target", FILES(FS("big", "source", other), FS("d/small", "small", "s"),
                                FS("empty", "nothing", "")), 1);
    aw_result_clear(&result);
    free(big);
    free(other);
}

TEST(source_is_copied, "a source is copied, never shared: to change it later changes no version")
{
    char *text;

    disk_write("source", "before", 0644);
    publish(FILES(FS("a", "source", "")));
    disk_write("source", "AFTER!", 0644);
    text = disk_read("target/a");
    CHECK_TEXT(text, "before");
    CHECK(disk_inode("source") != disk_inode(in_live("a")));
    free(text);
}

TEST(source_proc, "a source below /proc, whose size reads 0, is copied whole")
{
    char *shown;
    FILE *proc;
    char expected[4096];
    size_t size;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    proc = fopen("/proc/version", "re");
    if (!proc)
        test_skip("no /proc here");
    size = fread(expected, 1, sizeof expected - 1, proc);
    expected[size] = '\0';
    fclose(proc);
    publish(FILES(FS("version", "/proc/version", "")));
    shown = disk_read("target/version");
    CHECK_TEXT(shown, expected);
    CHECK(size > 0);
    CHECK_OK(write_keeping(1, FILES(FS("version", "/proc/version", "")), &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    free(shown);
}

TEST(source_methods, "a source is copied whole whichever ways of copying the kernel refuses")
{
    static const int codes[] = { ENOSYS, EXDEV, EOPNOTSUPP, EINVAL, EPERM, EBADF, ETXTBSY };
    char *big = numbered_lines(700001);

    disk_write("source", big, 0644);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fault_plan plan = { .kind = FAULT_EVERY, .code = codes[i], .call = CALL_copy_file_range };
        aw_error err;
        int rc;

        disk_mkdir("target", 0755);
        fault_arm(plan);
        rc = write_keeping(0, FILES(FS("big", "source", big)), NULL, &err);
        fault_disarm();
        CHECK_OK(rc, &err);
        CHECK_CLEAN("target", FILES(FS("big", "source", big)), 0);
        disk_remove("target");
    }
    free(big);
}

TEST(source_link, "a source may be a link, such as another target's visible name")
{
    char *text;

    project("other", FILES(F("cert", "pem")));
    publish(FILES(FS("cert", "other/cert", "")));
    text = disk_read("target/cert");
    CHECK_TEXT(text, "pem");
    free(text);
}

TEST(source_refused, "a source that is missing, a directory or a FIFO is refused, nothing is touched")
{
    static const char *const sources[] = { "missing", "directory", "fifo", "/dev/zero", "loop" };

    disk_mkdir("directory", 0755);
    CHECK(mkfifo("fifo", 0644) == 0);
    disk_symlink("loop", "loop");
    publish(FILES(F("a", "1")));
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char *before = disk_state("target"), *after;
        aw_error err;

        CHECK_THAT(write_keeping(1, FILES(F("a", "2"), FS("b", sources[i], "")), NULL, &err) < 0,
                   "%s was taken", sources[i]);
        CHECK(!err.committed);
        CHECK_THAT(strstr(err.path, sources[i]) || strcmp(err.path, "b") == 0, "%s", err.path);
        if (i == 1 || i == 2 || i == 3)
            CHECK(err.code == AW_E_INVALID_PAYLOAD);
        CHECK(write_keeping(1, FILES(FS("a", sources[i], "")), NULL, &err) < 0);
        after = disk_state("target");
        CHECK_TEXT(after, before);
        free(before);
        free(after);
    }
    publish(FILES(F("a", "3")));
    CHECK_CLEAN("target", FILES(F("a", "3")), 1);
}

/* ---- hard links refused ------------------------------------------------ */

TEST(links_refused, "where hard links are refused files are written: EXDEV, EPERM, EMLINK, ENOTSUP")
{
    static const int codes[] = { EXDEV, EPERM, EMLINK, ENOTSUP };

    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fault_plan plan = { .kind = FAULT_EVERY, .code = codes[i], .call = CALL_linkat };
        aw_writer *writer = writer_keeping(2);
        aw_result result = AW_RESULT_INIT;
        aw_error err;
        int rc;

        disk_write("source", "source", 0644);
        CHECK_OK(write_keeping(2, FILES(F("a", "1"), FM("b/c", "2", 0600),
                                        FS("s", "source", "source")), NULL, &err), &err);
        fault_arm(plan);
        rc = write_keeping(2, FILES(F("a", "x"), FM("b/c", "2", 0600),
                                    FS("s", "source", "source")), &result, &err);
        fault_disarm();
        CHECK_OK(rc, &err);
        CHECK(result.unchanged == 2 && result.linked == 0 && result.bytes == 8);
        aw_result_clear(&result);
        CHECK_CLEAN("target", FILES(F("a", "x"), FM("b/c", "2", 0600),
                                    FS("s", "source", "source")), 2);
        fault_arm(plan);
        rc = aw_rollback(writer, NULL, &result, &err);
        fault_disarm();
        CHECK_OK(rc, &err);
        CHECK(result.linked == 0);
        aw_result_clear(&result);
        CHECK_CLEAN("target", FILES(F("a", "1"), FM("b/c", "2", 0600),
                                    FS("s", "source", "source")), 2);
        aw_writer_close(writer);
        disk_remove("target");
    }
}

/* ---- the check --------------------------------------------------------- */

typedef struct asked {
    int   answer;
    int   times;
    char *stage, *tree, *live;
} asked;

static int ask(void *context, const char *stage, char *reason, size_t size)
{
    asked *a = context;

    a->times++;
    free(a->stage);
    free(a->tree);
    free(a->live);
    a->stage = strdup(stage);
    a->tree = disk_tree(stage);
    a->live = live_tree("target");
    if (a->answer != 0)
        snprintf(reason, size, "line 7 is wrong");
    return a->answer;
}

static int write_asking(asked *a, const file *files, aw_error *err)
{
    aw_check check = { ask, a };
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    int rc = aw_write(writer, payload, &check, &result, err);

    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
    return rc;
}

TEST(check_sees, "a check sees the whole staged tree once, by its absolute path, before readers do")
{
    const file *old = FILES(F("a", "1")), *new = FILES(F("a", "2"), FM("b/c", "3", 0600));
    asked a = { 0 };
    char *old_tree = tree_of(old), *new_tree = tree_of(new);
    aw_error err;

    publish(old);
    CHECK_OK(write_asking(&a, new, &err), &err);
    CHECK(a.times == 1 && a.stage[0] == '/');
    CHECK_TEXT(a.tree, new_tree);
    CHECK_TEXT(a.live, old_tree);
    CHECK_CLEAN("target", new, 1);
    CHECK_OK(write_asking(&a, new, &err), &err);
    CHECK(a.times == 1); /* nothing changed, nothing to ask */
    free(a.stage);
    free(a.tree);
    free(a.live);
    free(old_tree);
    free(new_tree);
}

TEST(check_refuses, "G2: a check that refuses leaves the target identical, and its reason is told")
{
    asked a = { .answer = -1 };
    char *before, *after;
    aw_error err;

    publish(FILES(F("a", "1"), F("b/c", "2")));
    before = disk_state("target");
    CHECK(write_asking(&a, FILES(F("a", "2"), F("b/c", "2"), F("new", "3")), &err) < 0);
    CHECK(err.code == AW_E_CHECK_FAILED && !err.committed && err.sys_errno == 0);
    CHECK_THAT(strstr(err.detail, "line 7 is wrong") != NULL, "%s", err.detail);
    CHECK(a.times == 1);
    after = disk_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
    free(a.stage);
    free(a.tree);
    free(a.live);
}

TEST(check_first, "G2: a check that refuses the first version leaves an empty target")
{
    asked a = { .answer = 1 };
    aw_error err;

    CHECK(write_asking(&a, FILES(F("a", "1"), F("b/c", "2")), &err) < 0);
    CHECK(err.code == AW_E_CHECK_FAILED && !err.committed);
    CHECK(disk_count("target", "") == disk_count("target", "..lock"));
    free(a.stage);
    free(a.tree);
    free(a.live);
}

/* ---- errors ------------------------------------------------------------ */

TEST(result_untouched, "a failure leaves the result untouched")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    publish(FILES(F("a", "1")));
    CHECK(write_keeping(1, FILES(F("a", "2"), FS("b", "missing", "")), &result, &err) < 0);
    CHECK(!result.changed && result.version == NULL && result.added.items == NULL);
    CHECK(result.updated.items == NULL && result.unchanged == 0 && result.warnings.items == NULL);
}

TEST(error_names, "G2: a full disk is io with ENOSPC, the call and the path, and no litter")
{
    fault_plan plan = { .kind = FAULT_EVERY, .code = ENOSPC, .call = CALL_write };
    char *before, *after;
    aw_error err;
    int rc;

    publish(FILES(F("a", "1"), F("b/c", "2")));
    before = disk_state("target");
    fault_arm(plan);
    rc = write_keeping(1, FILES(F("a", "1"), F("b/c", "3"), F("new", "4")), NULL, &err);
    fault_disarm();
    CHECK(rc < 0 && err.code == AW_E_IO && err.sys_errno == ENOSPC && !err.committed);
    CHECK_TEXT(err.op, "write");
    CHECK_TEXT(err.path, "b/c");
    after = disk_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(reused_writer, "one writer and one payload serve many writes, with other ones in between")
{
    aw_writer *writer = writer_keeping(1);
    aw_payload *one = payload_of(FILES(F("a", "1"), F("b", "2")));
    aw_payload *two = payload_of(FILES(F("a", "3")));
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    for (int i = 0; i < 5; i++) {
        CHECK_OK(aw_write(writer, one, NULL, &result, &err), &err);
        CHECK(result.changed);
        aw_result_clear(&result);
        CHECK_CLEAN("target", FILES(F("a", "1"), F("b", "2")), 1);
        CHECK_OK(write_keeping(1, FILES(F("x", "other writer")), NULL, &err), &err);
        CHECK_OK(aw_write(writer, two, NULL, &result, &err), &err);
        CHECK(result.changed);
        aw_result_clear(&result);
        CHECK_CLEAN("target", FILES(F("a", "3")), 1);
    }
    aw_payload_free(one);
    aw_payload_free(two);
    aw_writer_close(writer);
}
