/* error_test.c: what people and programs read when something failed. */
#include "aw_error.h"
#include "test.h"

#include <errno.h>
#include <string.h>

TEST(codes, "each code has the name that the Lua module gives it, others are unknown")
{
    CHECK_TEXT(aw_code_name(AW_OK), "ok");
    CHECK_TEXT(aw_code_name(AW_E_INVALID_PAYLOAD), "invalid_payload");
    CHECK_TEXT(aw_code_name(AW_E_NO_TARGET), "no_target");
    CHECK_TEXT(aw_code_name(AW_E_FOREIGN_ENTRY), "foreign_entry");
    CHECK_TEXT(aw_code_name(AW_E_LOCKED), "locked");
    CHECK_TEXT(aw_code_name(AW_E_CHECK_FAILED), "check_failed");
    CHECK_TEXT(aw_code_name(AW_E_NOT_FOUND), "not_found");
    CHECK_TEXT(aw_code_name(AW_E_IO), "io");
    CHECK_TEXT(aw_code_name((aw_code)99), "unknown");
    CHECK_TEXT(aw_code_name((aw_code)-1), "unknown");
}

TEST(io, "a failed call is told with its name, its path and its errno")
{
    char text[AW_ERROR_TEXT_MAX];
    aw_error err;

    errno = ENOSPC;
    CHECK(aw_fail_io(&err, "fsync", "user/labels") == -1);
    CHECK(err.code == AW_E_IO && err.sys_errno == ENOSPC && !err.committed);
    CHECK_TEXT(err.op, "fsync");
    CHECK_TEXT(err.path, "user/labels");
    CHECK_TEXT(aw_error_text(&err, text, sizeof text),
               "user/labels: fsync failed: No space left on device");
    err.committed = true;
    CHECK(strstr(aw_error_text(&err, text, sizeof text), "live already") != NULL);
    CHECK(aw_fail_memory(&err) == -1 && err.sys_errno == ENOMEM);
}

TEST(reason, "a reason of ours replaces all that an earlier error left")
{
    char text[AW_ERROR_TEXT_MAX];
    aw_error err;

    errno = EIO;
    aw_fail_io(&err, "openat", "x");
    err.committed = true;
    CHECK(aw_fail(&err, AW_E_LOCKED, NULL, "waited for %d ms", 200) == -1);
    CHECK(err.code == AW_E_LOCKED && err.sys_errno == 0 && !err.committed && err.op == NULL);
    CHECK_TEXT(err.path, "");
    CHECK_TEXT(aw_error_text(&err, text, sizeof text), "waited for 200 ms");
}

TEST(one_line, "an error is one line, whatever bytes a name has")
{
    char text[AW_ERROR_TEXT_MAX];
    aw_error err;

    aw_fail_at(&err, AW_E_INVALID_PAYLOAD, "a\nb\x1b[2J\0c\x7f", 10, "bad");
    aw_error_text(&err, text, sizeof text);
    for (const char *p = text; *p != '\0'; p++)
        CHECK_THAT((unsigned char)*p >= 0x20 && *p != 0x7f, "\"%s\"", text);
    CHECK(strstr(text, "bad") != NULL);
}

TEST(short_room, "text is cut to the room that there is, and ends with a NUL byte")
{
    aw_error err;

    aw_fail(&err, AW_E_NOT_FOUND, "some/\n\n\n/path", "no such version");
    for (size_t size = 1; size < 64; size++) {
        char text[64];
        memset(text, '!', sizeof text);
        aw_error_text(&err, text, size);
        CHECK(strnlen(text, size) < size);
        for (size_t i = size; i < sizeof text; i++)
            CHECK(text[i] == '!');
    }
}

TEST(bare, "an error without words is told by its code, an unknown errno by its number")
{
    char text[AW_ERROR_TEXT_MAX] = "untouched";
    aw_error err = { .code = AW_E_LOCKED };

    CHECK_TEXT(aw_error_text(&err, text, 0), "untouched");
    CHECK_TEXT(aw_error_text(&err, text, sizeof text), "locked");
    errno = 4095;
    aw_fail_io(&err, "openat", "x");
    CHECK(strstr(aw_error_text(&err, text, sizeof text), "4095") != NULL);
}

TEST(long_path, "a path too long for the error is cut visibly")
{
    static char path[AW_ERROR_PATH_MAX * 2], text[AW_ERROR_TEXT_MAX];
    aw_error err;

    memset(path, 'p', sizeof path - 1);
    aw_fail(&err, AW_E_INVALID_PAYLOAD, path, "too long");
    CHECK(strlen(err.path) < sizeof err.path);
    CHECK_TEXT(err.path + strlen(err.path) - 3, "...");
    CHECK(strstr(aw_error_text(&err, text, sizeof text), "too long") != NULL);
    memset(path, '\0', sizeof path);
    aw_fail_at(&err, AW_E_INVALID_PAYLOAD, path, sizeof path, "too long");
    CHECK(strlen(err.path) < sizeof err.path);
}
