/* aw_error: filling in an aw_error in one line.
 *
 * Every function here returns -1, so that failing and returning is one line:
 *
 *     return aw_fail_io(err, "fsync", name);
 *
 * A later failure while undoing must not replace the first one: undoing uses
 * an aw_error of its own.
 */
#ifndef AW_ERROR_H
#define AW_ERROR_H

#include "atomicwriter.h"

/* A reason of our own. PATH may be NULL; DETAIL is a printf format. */
int aw_fail(aw_error *err, aw_code code, const char *path, const char *detail, ...)
    __attribute__((format(printf, 4, 5)));

/* As aw_fail, for a path of LENGTH bytes that may hold NUL bytes. */
int aw_fail_at(aw_error *err, aw_code code, const char *path, size_t length,
               const char *detail, ...) __attribute__((format(printf, 5, 6)));

/* AW_E_IO with the errno of the call OP (a static string) on PATH. */
int aw_fail_io(aw_error *err, const char *op, const char *path);

/* As aw_fail_io, for a path of LENGTH bytes. */
int aw_fail_io_at(aw_error *err, const char *op, const char *path, size_t length);

/* AW_E_CANCELLED for a REASON that the caller's hook gave; "": none. */
int aw_fail_cancelled(aw_error *err, const char *reason);

/* AW_E_IO with ENOMEM. */
int aw_fail_memory(aw_error *err);

#endif
