/* path.c: payload paths. The bytes are two paths, split at the first newline.
 *
 * Cleaning agrees with the rules as design has them, written down once more over a list
 * of components; what is clean stays so; nothing is written beyond the room that the
 * contract asks for. Tree order is that of the lists of components, and the questions
 * about paths agree with those lists.
 */
#include "aw_path.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS_MAX = 4096 };

typedef struct parts {
    slice  at[PARTS_MAX];
    size_t count;
} parts;

static bool is_text(slice part, const char *text)
{
    return part.size == strlen(text) && memcmp(part.at, text, part.size) == 0;
}

/* The components of PATH; false when a rule is broken. */
static bool split(slice path, parts *found)
{
    slice part;

    found->count = 0;
    if (path.size == 0 || path.size > 4096 || path.at[0] == '/' || memchr(path.at, 0, path.size))
        return false;
    while (slice_next(&path, '/', &part)) {
        if (part.size == 0 || is_text(part, "."))
            continue;
        if (is_text(part, "..") || part.size > 255)
            return false;
        found->at[found->count++] = part;
    }
    if (found->count == 0)
        return false;
    return found->at[0].size < 2 || memcmp(found->at[0].at, "..", 2) != 0;
}

static size_t join(const parts *list, char *text)
{
    size_t length = 0;

    for (size_t i = 0; i < list->count; i++) {
        if (i > 0)
            text[length++] = '/';
        memcpy(text + length, list->at[i].at, list->at[i].size);
        length += list->at[i].size;
    }
    return length;
}

static int sign(int number)
{
    return (number > 0) - (number < 0);
}

static int compare_parts(const parts *a, const parts *b)
{
    for (size_t i = 0; i < a->count && i < b->count; i++) {
        slice x = a->at[i], y = b->at[i];
        int order = memcmp(x.at, y.at, x.size < y.size ? x.size : y.size);

        if (order != 0)
            return sign(order);
        if (x.size != y.size)
            return x.size < y.size ? -1 : 1;
    }
    return (a->count > b->count) - (a->count < b->count);
}

static void check_parts(const char *clean, size_t length, const parts *list)
{
    slice first = list->at[0], last = list->at[list->count - 1];
    size_t parent = list->count == 1 ? 0 : length - last.size - 1;

    REQUIRE(aw_path_first(clean, length) == first.size);
    REQUIRE(aw_path_parent(clean, length) == parent);
    REQUIRE(strcmp(aw_path_base(clean, length), clean + length - last.size) == 0);
    REQUIRE(aw_path_below(clean, length, "", 0));
    REQUIRE(!aw_path_below(clean, length, clean, length));
    if (parent > 0)
        REQUIRE(aw_path_below(clean, length, clean, parent));
}

/* The clean form of PATH, which the caller frees, with its components in LIST; or NULL. */
static char *check_clean(slice path, parts *list, size_t *length)
{
    char *exact = slice_copy(path, false), *clean = malloc(path.size + 1);
    bool allowed = split(path, list);
    size_t again_length;
    aw_error err;
    int rc;

    if (!clean)
        abort();
    rc = aw_path_clean(exact, path.size, clean, length, &err);
    free(exact);
    REQUIRE((rc == 0) == allowed);
    if (rc == 0) {
        char *expected = malloc(path.size + 1), *again = malloc(*length + 1);

        REQUIRE(expected && again);
        REQUIRE(*length == join(list, expected) && memcmp(clean, expected, *length) == 0);
        REQUIRE(clean[*length] == '\0');
        REQUIRE(aw_path_clean(clean, *length, again, &again_length, &err) == 0);
        REQUIRE(again_length == *length && strcmp(again, clean) == 0);
        check_parts(clean, *length, list);
        free(expected);
        free(again);
        return clean;
    }
    REQUIRE(err.code == AW_E_INVALID_PAYLOAD && err.detail[0] != '\0' && !err.committed);
    REQUIRE(strlen(err.path) < sizeof err.path && (path.size == 0) == (err.path[0] == '\0'));
    free(clean);
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static parts a_parts, b_parts;
    slice rest = { (const char *)bytes, size }, a, b = { "", 0 };
    size_t a_length, b_length;
    char *a_clean, *b_clean;

    if (!slice_next(&rest, '\n', &a))
        return 0;
    if (rest.at)
        b = rest;
    a_clean = check_clean(a, &a_parts, &a_length);
    b_clean = check_clean(b, &b_parts, &b_length);
    if (a_clean && b_clean) {
        int order = aw_path_compare(a_clean, a_length, b_clean, b_length);
        bool below = a_parts.count > b_parts.count;

        for (size_t i = 0; below && i < b_parts.count; i++)
            below = a_parts.at[i].size == b_parts.at[i].size
                    && memcmp(a_parts.at[i].at, b_parts.at[i].at, a_parts.at[i].size) == 0;
        REQUIRE(sign(order) == compare_parts(&a_parts, &b_parts));
        REQUIRE(sign(aw_path_compare(b_clean, b_length, a_clean, a_length)) == -sign(order));
        REQUIRE(aw_path_below(a_clean, a_length, b_clean, b_length) == below);
    }
    free(a_clean);
    free(b_clean);
    return 0;
}
