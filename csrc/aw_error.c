/* aw_error: see the header. No kernel calls, no allocation. */
#define _POSIX_C_SOURCE 200809L
#include "aw_error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const code_names[] = {
    [AW_OK] = "ok",
    [AW_E_INVALID_PAYLOAD] = "invalid_payload",
    [AW_E_NO_TARGET] = "no_target",
    [AW_E_FOREIGN_ENTRY] = "foreign_entry",
    [AW_E_LOCKED] = "locked",
    [AW_E_CHECK_FAILED] = "check_failed",
    [AW_E_CANCELLED] = "cancelled",
    [AW_E_NOT_FOUND] = "not_found",
    [AW_E_IO] = "io",
};

const char *aw_code_name(aw_code code)
{
    size_t index = (size_t)code;
    return index < sizeof code_names / sizeof code_names[0] ? code_names[index] : "unknown";
}

/* Copy LENGTH bytes of PATH, a NUL byte as \0, cut with "..." when too long. */
static void keep_path(aw_error *err, const char *path, size_t length)
{
    const size_t room = sizeof err->path - sizeof "...";
    size_t out = 0;

    for (size_t i = 0; i < length; i++) {
        if (out + 2 > room) {
            memcpy(err->path + out, "...", sizeof "...");
            return;
        }
        if (path[i] == '\0') {
            err->path[out++] = '\\';
            err->path[out++] = '0';
        } else {
            err->path[out++] = path[i];
        }
    }
    err->path[out] = '\0';
}

static int fail(aw_error *err, aw_code code, const char *op, int sys_errno,
                const char *path, size_t length)
{
    err->code = code;
    err->sys_errno = sys_errno;
    err->committed = false;
    err->op = op;
    err->detail[0] = '\0';
    keep_path(err, path, length);
    return -1;
}

int aw_fail_at(aw_error *err, aw_code code, const char *path, size_t length,
               const char *detail, ...)
{
    va_list args;

    fail(err, code, NULL, 0, path, length);
    va_start(args, detail);
    vsnprintf(err->detail, sizeof err->detail, detail, args);
    va_end(args);
    return -1;
}

int aw_fail(aw_error *err, aw_code code, const char *path, const char *detail, ...)
{
    va_list args;

    fail(err, code, NULL, 0, path ? path : "", path ? strlen(path) : 0);
    va_start(args, detail);
    vsnprintf(err->detail, sizeof err->detail, detail, args);
    va_end(args);
    return -1;
}

int aw_fail_io(aw_error *err, const char *op, const char *path)
{
    return fail(err, AW_E_IO, op, errno, path ? path : "", path ? strlen(path) : 0);
}

int aw_fail_io_at(aw_error *err, const char *op, const char *path, size_t length)
{
    return fail(err, AW_E_IO, op, errno, path, length);
}

int aw_fail_cancelled(aw_error *err, const char *reason)
{
    return aw_fail(err, AW_E_CANCELLED, NULL, "cancelled%s%s", reason[0] != '\0' ? ": " : "",
                   reason);
}

int aw_fail_memory(aw_error *err)
{
    return fail(err, AW_E_IO, "malloc", ENOMEM, "", 0);
}

/* ---- text -------------------------------------------------------------- */

typedef struct line {
    char  *text;
    size_t size, used;
} line;

/* Append, control bytes as \xHH: an error is one line whatever a name holds. */
static void put(line *out, const char *text)
{
    static const char digits[] = "0123456789abcdef";

    for (const char *p = text; *p != '\0'; p++) {
        unsigned char byte = (unsigned char)*p;
        bool control = byte < 0x20 || byte == 0x7f;

        if (out->used + (control ? 4 : 1) + 1 > out->size)
            break;
        if (control) {
            out->text[out->used++] = '\\';
            out->text[out->used++] = 'x';
            out->text[out->used++] = digits[byte >> 4];
            out->text[out->used++] = digits[byte & 15];
        } else {
            out->text[out->used++] = (char)byte;
        }
    }
    out->text[out->used] = '\0';
}

const char *aw_error_text(const aw_error *err, char *text, size_t size)
{
    line out = { text, size, 0 };
    char reason[128];

    if (size == 0)
        return text;
    text[0] = '\0';
    if (err->path[0] != '\0') {
        put(&out, err->path);
        put(&out, ": ");
    }
    if (err->detail[0] != '\0') {
        put(&out, err->detail);
    } else if (err->op) {
        put(&out, err->op);
        put(&out, " failed");
    } else {
        put(&out, aw_code_name(err->code));
    }
    if (err->sys_errno != 0) {
        put(&out, ": ");
        if (strerror_r(err->sys_errno, reason, sizeof reason) != 0)
            snprintf(reason, sizeof reason, "error %d", err->sys_errno);
        put(&out, reason);
    }
    if (err->committed)
        put(&out, " (the new version is live already)");
    return text;
}
