/* fuzz.c: see the header. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_fail(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

bool slice_next(slice *rest, char separator, slice *part)
{
    const char *end;

    if (!rest->at)
        return false;
    end = rest->size > 0 ? memchr(rest->at, separator, rest->size) : NULL;
    part->at = rest->at;
    part->size = end ? (size_t)(end - rest->at) : rest->size;
    rest->at = end ? end + 1 : NULL;
    rest->size -= part->size + (end != NULL);
    return true;
}

long long slice_number(slice part, long long fallback)
{
    char text[32] = "";

    if (part.size == 0)
        return fallback;
    memcpy(text, part.at, part.size < sizeof text ? part.size : sizeof text - 1);
    return strtoll(text, NULL, 10);
}

char *slice_copy(slice part, bool terminated)
{
    char *copy = malloc(part.size + 1 - !terminated + (part.size == 0 && !terminated));

    if (!copy)
        abort();
    if (part.size > 0)
        memcpy(copy, part.at, part.size);
    if (terminated)
        copy[part.size] = '\0';
    return copy;
}
