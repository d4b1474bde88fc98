/* aw_path: see the header. */
#define _GNU_SOURCE /* memrchr */
#include "aw_path.h"

#include "aw_error.h"

#include <string.h>

static int refuse(aw_error *err, const char *path, size_t length, const char *why)
{
    return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length, "invalid path: %s", why);
}

int aw_path_clean(const char *path, size_t length, char *clean, size_t *clean_length,
                  aw_error *err)
{
    size_t out = 0, at = 0;

    if (length == 0)
        return aw_fail(err, AW_E_INVALID_PAYLOAD, NULL, "invalid path: it is empty");
    if (memchr(path, '\0', length))
        return refuse(err, path, length, "it has a NUL byte");
    if (length > AW_PATH_BYTES_MAX)
        return refuse(err, path, length, "it is longer than 4096 bytes");
    if (path[0] == '/')
        return refuse(err, path, length, "it is absolute");

    while (at < length) {
        const char *name = path + at;
        const char *slash = memchr(name, '/', length - at);
        size_t size = slash ? (size_t)(slash - name) : length - at;

        at += size + 1;
        if (size == 0 || (size == 1 && name[0] == '.'))
            continue;
        if (size == 2 && name[0] == '.' && name[1] == '.')
            return refuse(err, path, length, "it has a '..' component");
        if (size > AW_COMPONENT_MAX)
            return refuse(err, path, length, "a component is longer than 255 bytes");
        if (out == 0 && size > 2 && name[0] == '.' && name[1] == '.')
            return refuse(err, path, length, "names that begin with '..' are reserved");
        if (out > 0)
            clean[out++] = '/';
        memcpy(clean + out, name, size);
        out += size;
    }
    if (out == 0)
        return refuse(err, path, length, "it names the target itself");
    clean[out] = '\0';
    *clean_length = out;
    return 0;
}

int aw_path_compare(const char *a, size_t a_length, const char *b, size_t b_length)
{
    enum { STEP = 8 };
    size_t shorter = a_length < b_length ? a_length : b_length, i = 0;

    while (i + STEP <= shorter && memcmp(a + i, b + i, STEP) == 0)
        i += STEP;
    for (; i < shorter; i++) {
        unsigned char x = (unsigned char)a[i], y = (unsigned char)b[i];

        if (x == y)
            continue;
        if (x == '/')
            return -1;
        if (y == '/')
            return 1;
        return x < y ? -1 : 1;
    }
    if (a_length == b_length)
        return 0;
    return a_length < b_length ? -1 : 1;
}

bool aw_path_below(const char *path, size_t length, const char *directory,
                   size_t directory_length)
{
    if (directory_length == 0)
        return length > 0;
    return length > directory_length && path[directory_length] == '/'
           && memcmp(path, directory, directory_length) == 0;
}

size_t aw_path_parent(const char *path, size_t length)
{
    const char *slash = memrchr(path, '/', length);

    return slash ? (size_t)(slash - path) : 0;
}

const char *aw_path_base(const char *path, size_t length)
{
    size_t parent = aw_path_parent(path, length);

    return parent > 0 ? path + parent + 1 : path;
}

size_t aw_path_first(const char *path, size_t length)
{
    const char *slash = memchr(path, '/', length);

    return slash ? (size_t)(slash - path) : length;
}
