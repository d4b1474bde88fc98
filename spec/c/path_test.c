/* path_test.c: payload paths as text (G7: nothing outside the target). */
#include "aw_path.h"
#include "test.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static int clean_bytes(const char *path, size_t length, char *clean, aw_error *err)
{
    /* Exactly the room that the contract asks for: ASan sees one byte more. */
    char *room = malloc(length + 1);
    size_t clean_length = 0;
    int rc = room ? aw_path_clean(path, length, room, &clean_length, err) : -1;

    if (rc == 0) {
        CHECK(clean_length == strlen(room));
        memcpy(clean, room, clean_length + 1);
    }
    free(room);
    return rc;
}

TEST(cleans, "a path is cleaned as Go's path.Clean would")
{
    static const char *const pairs[][2] = {
        { "a", "a" },           { "a/b", "a/b" },       { "a//b", "a/b" },
        { "./a", "a" },         { "a/", "a" },          { "a/.", "a" },
        { "././a/.//b/./", "a/b" }, { "a/./b", "a/b" }, { "a///", "a" },
        { ".a", ".a" },         { "...", NULL },        { "a/..b", "a/..b" },
        { "a/...", "a/..." },   { " ", " " },           { "-rf", "-rf" },
        { "a\nb", "a\nb" },     { "\xff\xfe", "\xff\xfe" }, { "a/..data", "a/..data" },
        { ".", NULL },          { "./", NULL },         { "././.", NULL },
        { "/", NULL },          { "/a", NULL },         { "//a", NULL },
        { "..", NULL },         { "../a", NULL },       { "a/..", NULL },
        { "a/../b", NULL },     { "a/b/../../..", NULL }, { "./..", NULL },
        { "..a", NULL },        { "..data", NULL },     { "..data/x", NULL },
        { "./..data/x", NULL }, { ".//..sneaky", NULL }, { "./..data_tmp", NULL },
        { "..2026_11_22_15_04_05.1/a", NULL },          { "", NULL },
    };

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const char *path = pairs[i][0], *expected = pairs[i][1];
        char clean[256] = "";
        aw_error err;
        int rc = clean_bytes(path, strlen(path), clean, &err);

        CHECK_THAT((rc == 0) == (expected != NULL), "\"%s\" gave %d", path, rc);
        if (expected)
            CHECK_TEXT(clean, expected);
        else
            CHECK_THAT(err.code == AW_E_INVALID_PAYLOAD && strcmp(err.path, path) == 0
                       && !err.committed && err.sys_errno == 0 && err.detail[0] != '\0',
                       "\"%s\" gave the error %d at \"%s\"", path, err.code, err.path);
    }
}

TEST(refuses_nul, "a NUL byte is refused wherever it stands, and shown as \\0")
{
    static const struct { const char *bytes; size_t length; const char *shown; } cases[] = {
        { "\0", 1, "\\0" }, { "a\0", 2, "a\\0" }, { "a\0b", 3, "a\\0b" }, { "a/\0/b", 5, "a/\\0/b" },
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char clean[16];
        aw_error err;
        CHECK(clean_bytes(cases[i].bytes, cases[i].length, clean, &err) < 0);
        CHECK(err.code == AW_E_INVALID_PAYLOAD);
        CHECK_TEXT(err.path, cases[i].shown);
    }
}

TEST(component_limit, "a component has at most 255 bytes, at the end and in the middle")
{
    char path[600], clean[600];
    aw_error err;

    memset(path, 'x', sizeof path);
    CHECK(clean_bytes(path, 255, clean, &err) == 0);
    CHECK(clean_bytes(path, 256, clean, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD);
    path[255] = '/';
    CHECK(clean_bytes(path, 256 + 255, clean, &err) == 0);
    CHECK(clean_bytes(path, 256 + 256, clean, &err) < 0);
    path[255] = 'x';
    path[256] = '/';
    CHECK(clean_bytes(path, 259, clean, &err) < 0);
}

TEST(path_limit, "a path has at most 4096 bytes")
{
    static char path[5000], clean[5000];
    aw_error err;

    for (size_t i = 0; i < sizeof path; i++)
        path[i] = i % 100 == 99 ? '/' : 'x';
    path[4095] = 'x';
    CHECK(clean_bytes(path, 4096, clean, &err) == 0);
    CHECK(clean_bytes(path, 4097, clean, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD);
    CHECK(strlen(err.path) == 4097);
    memset(path, 'y', sizeof path); /* longer than an error can hold */
    CHECK(clean_bytes(path, sizeof path, clean, &err) < 0);
    CHECK(strlen(err.path) < AW_ERROR_PATH_MAX);
}

TEST(tree_order, "in tree order a directory is followed at once by what lies below it")
{
    static const char *const sorted[] = {
        "a", "a/b", "a/b/c", "a/c", "a\x01", "a b", "a-b", "a.b", "a0", "ab", "b", "\xc3\xa9", "\xff",
    };
    const size_t count = sizeof sorted / sizeof sorted[0];

    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            int order = aw_path_compare(sorted[i], strlen(sorted[i]), sorted[j], strlen(sorted[j]));
            CHECK_THAT((i < j) == (order < 0) && (i > j) == (order > 0), "\"%s\" and \"%s\": %d",
                       sorted[i], sorted[j], order);
        }
}

TEST(parts, "a path's directory, base and first component are found")
{
    CHECK(aw_path_parent("a", 1) == 0);
    CHECK(aw_path_parent("a/b", 3) == 1);
    CHECK(aw_path_parent("a/b/c", 5) == 3);
    CHECK_TEXT(aw_path_base("a", 1), "a");
    CHECK_TEXT(aw_path_base("a/bc", 4), "bc");
    CHECK_TEXT(aw_path_base("a/b/c", 5), "c");
    CHECK(aw_path_first("abc", 3) == 3);
    CHECK(aw_path_first("ab/c/d", 6) == 2);
    CHECK(aw_path_below("a/b", 3, "a", 1));
    CHECK(aw_path_below("a/b", 3, "", 0));
    CHECK(!aw_path_below("ab", 2, "a", 1));
    CHECK(!aw_path_below("a", 1, "a", 1));
    CHECK(!aw_path_below("", 0, "", 0));
    CHECK(!aw_path_below("a", 1, "a/b", 3));
}
