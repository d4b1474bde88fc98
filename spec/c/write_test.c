/* write_test.c: what a write shows and tells; its check. */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

    must_write(FILES(F("a", "1")));
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

    must_write(files);
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

    must_write(FILES(F("a", "1"), F("d/e/deep", "2"), F("changed", "old")));
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

    must_write(FILES(F("a", "1"), F("b", "2")));
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

    must_write(FILES(F("d/old", ""), F("keep", ""), F("d-x", "1"), F("z", ""), F("d/u", "1")));
    CHECK_OK(write_keeping(1, FILES(F("keep", ""), F("d-x", "2"), F("d/u", "2"), F("n/1", ""),
                                    F("n/2", ""), F("n-1", "")), &result, &err), &err);
    CHECK_TEXT(joined(&result.added), "n-1 n/1 n/2");
    CHECK_TEXT(joined(&result.updated), "d-x d/u");
    CHECK_TEXT(joined(&result.removed), "d/old z");
    aw_result_clear(&result);
}

TEST(type_change, "a name turns from a file into a directory and back")
{
    must_write(FILES(F("a", "file"), F("x/y/z", "deep"), F("s", "same")));
    must_write(FILES(F("a/b", "below"), F("x/y", "shallow"), F("s", "same")));
    CHECK_CLEAN("target", FILES(F("a/b", "below"), F("x/y", "shallow"), F("s", "same")), 1);
    must_write(FILES(F("a", "file"), F("x", "top"), F("s/t", "not the same")));
    CHECK_CLEAN("target", FILES(F("a", "file"), F("x", "top"), F("s/t", "not the same")), 1);
}

TEST(shrink, "an empty payload after data shows nothing, and data comes back")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1"), F("b/c", "2")));
    CHECK_OK(write_keeping(1, NO_FILES, &result, &err), &err);
    CHECK_CLEAN("target", NO_FILES, 1);
    CHECK(result.changed);
    CHECK_TEXT(joined(&result.removed), "a b/c");
    aw_result_clear(&result);
    CHECK_OK(write_keeping(1, NO_FILES, &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    must_write(FILES(F("a", "1"), F("b/c", "2")));
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
    must_write(files);
    CHECK_CLEAN("target", files, 0);
    must_write(NO_FILES);
    CHECK_CLEAN("target", NO_FILES, 1);
}

TEST(unclean_paths, "unclean paths are shown cleaned")
{
    must_write(FILES(F("./a//b/", "1"), F("c/./d", "2")));
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
    must_write(FILES(F(name, "long"), F(deep, "deep")));
    must_write(FILES(F(name, "longer"), F(deep, "deep")));
    must_write(FILES(F(name, "longer")));
    CHECK_CLEAN("target", FILES(F(name, "longer")), 1);
    must_write(NO_FILES);
    CHECK_CLEAN("target", NO_FILES, 1);
}

TEST(too_long, "a path that could not be opened below the target is refused, nothing is touched")
{
    static char deep[PATH_MAX];
    char *before, *after;
    aw_error err;

    for (size_t at = 0; at < 4090; at++)
        deep[at] = at % 200 == 199 ? '/' : 'd';
    must_write(FILES(F("a", "1")));
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

    must_write(FILES(F("a", "1")));
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
        must_write(FILES(F("n", number), F(i % 2 ? "odd" : "even", number), F("same", "s")));
        CHECK_CLEAN("target", FILES(F("n", number), F(i % 2 ? "odd" : "even", number),
                                    F("same", "s")), 1);
        name = live_name("target");
        CHECK(!last || strcmp(name, last) > 0);
        free(last);
        last = name;
    }
    free(last);
}

/* ---- hard links refused ------------------------------------------------- */

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
        rc = aw_rollback(writer, NULL, NULL, NULL, &result, &err);
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

/* ---- the check ---------------------------------------------------------- */

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
    aw_hooks hooks = { ask, NULL, a };
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    int rc = aw_write(writer, payload, &hooks, &result, err);

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

    must_write(old);
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

    must_write(FILES(F("a", "1"), F("b/c", "2")));
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

/* What a check does to the tree that it was shown. */
static int meddle(void *context, const char *stage, char *reason, size_t size)
{
    const int *kind = context;
    (void)reason;
    (void)size;

    if (chdir(stage) < 0)
        return -1;
    switch (*kind) {
    case 0: disk_write("extra", "", 0644); break;
    case 1: disk_write("b/extra", "", 0644); break;
    case 2: disk_mkdir("b/d", 0755); break;
    case 3: disk_remove("a"); break;
    case 4: disk_remove("b"); break;
    case 5: disk_remove("z"); break;
    case 6: disk_remove("a"); disk_symlink("z", "a"); break;
    case 7: disk_remove("a"); disk_mkdir("a", 0755); break;
    case 8: return chdir(test_dir) < 0 || rename(stage, "elsewhere") < 0;
    default: break;
    }
    return chdir(test_dir);
}

TEST(check_meddles, "G2: a check that adds, removes or replaces something in the staged tree, or moves it, refuses it so")
{
    aw_writer *writer;
    aw_payload *payload = payload_of(FILES(F("a", "2"), F("b/c", "3"), F("z", "4")));
    char *before, *after;

    must_write(FILES(F("a", "1")));
    before = disk_state("target");
    writer = writer_keeping(1);
    for (int kind = 0; kind < 9; kind++) {
        const aw_hooks hooks = { meddle, NULL, &kind };
        aw_result result = AW_RESULT_INIT;
        aw_error err;

        CHECK_THAT(aw_write(writer, payload, &hooks, &result, &err) < 0, "case %d", kind);
        CHECK(err.code == AW_E_CHECK_FAILED && !err.committed);
        CHECK_THAT(err.path[0] != '\0', "case %d", kind);
        after = disk_state("target");
        CHECK_TEXT(after, before);
        free(after);
    }
    free(before);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

/* ---- errors ------------------------------------------------------------- */

TEST(result_untouched, "a failure leaves the result untouched")
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1")));
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

    must_write(FILES(F("a", "1"), F("b/c", "2")));
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

/* ---- other file systems ------------------------------------------------ */

static ssize_t (*real_getdents)(int fd, void *buffer, size_t size);

/* Some file systems leave the type of an entry to stat. */
static ssize_t getdents_without_types(int fd, void *buffer, size_t size)
{
    enum { SIZE_AT = 16, TYPE_AT = 18 }; /* in what the kernel writes */
    ssize_t got = real_getdents(fd, buffer, size);
    unsigned char *entry = buffer;

    for (ssize_t at = 0; at < got;) {
        unsigned short length;
        memcpy(&length, entry + at + SIZE_AT, sizeof length);
        entry[at + TYPE_AT] = 0;
        at += length;
    }
    return got;
}

TEST(no_types, "a file system that lists names without types makes no difference")
{
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    real_getdents = aw_sys.getdents;
    aw_sys.getdents = getdents_without_types;
    must_write(FILES(F("a", "1"), F("b/c", "2")));
    leave_residue();
    disk_symlink("a", in_live("link"));
    disk_write("target/foreign", "", 0644);
    must_write(FILES(F("a", "1"), F("b/d", "3")));
    CHECK(unlink("target/foreign") == 0);
    CHECK_CLEAN("target", FILES(F("a", "1"), F("b/d", "3")), 1);
    must_write(FILES(F("a", "1"), F("b/e", "4")));
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    CHECK_CLEAN("target", FILES(F("a", "1"), F("b/d", "3")), 1);
    aw_result_clear(&result);
    must_write(NO_FILES);
    CHECK_CLEAN("target", NO_FILES, 1);
    aw_writer_close(writer);
}
