/* payload.c: building payloads. Each line is a call, with tabs between its fields:
 *
 *     PATH [MODE [UID [GID]]]    aw_payload_add(); numbers are decimal, empty: not given
 *     !                          seal what is there, and go on
 *
 * A model, a plain array, says what must be refused and how the sealed payload looks:
 * every path clean and there once, in tree order, no clash, the directories complete.
 */
#include "aw_path.h"
#include "aw_payload.h"
#include "fuzz.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { ITEMS_MAX = 64 };

typedef struct wanted {
    char    path[AW_PATH_BYTES_MAX + 1];
    aw_entry entry;
} wanted;

typedef struct model {
    wanted items[ITEMS_MAX];
    size_t count;
} model;

/* path.c holds cleaning against an oracle of its own. */
static bool is_allowed(slice path, const aw_entry *entry, char *clean)
{
    size_t length;
    aw_error err;

    return path.size <= AW_PATH_BYTES_MAX
           && aw_path_clean(path.at, path.size, clean, &length, &err) == 0
           && entry->mode >= -1 && entry->mode <= 0777
           && entry->uid >= -1 && entry->uid < 4294967295
           && entry->gid >= -1 && entry->gid < 4294967295;
}

static void add(aw_payload *payload, model *seen, slice line)
{
    aw_entry entry = AW_ENTRY_INIT;
    slice path, field;
    size_t count = aw_payload_count(payload);
    wanted *next = &seen->items[seen->count];
    char *exact;
    aw_error err;
    int rc;

    (void)slice_next(&line, '\t', &path); /* there always is a first one */
    entry.data = "x";
    entry.size = 1;
    if (slice_next(&line, '\t', &field)) {
        long long mode = slice_number(field, AW_UNSET);
        entry.mode = mode > INT_MAX ? INT_MAX : mode < INT_MIN ? INT_MIN : (int)mode;
    }
    if (slice_next(&line, '\t', &field))
        entry.uid = slice_number(field, AW_UNSET);
    if (slice_next(&line, '\t', &field))
        entry.gid = slice_number(field, AW_UNSET);

    exact = slice_copy(path, false);
    rc = aw_payload_add(payload, exact, path.size, &entry, &err);
    free(exact);
    REQUIRE((rc == 0) == is_allowed(path, &entry, next->path));
    REQUIRE(aw_payload_count(payload) == count + (rc == 0));
    if (rc < 0) {
        REQUIRE(err.code == AW_E_INVALID_PAYLOAD && err.detail[0] != '\0');
        return;
    }
    next->entry = entry;
    seen->count++;
}

/* Whether the directory A has B in it; A may be the same as B. */
static bool has_below(const char *a, const char *b)
{
    size_t length = strlen(a);

    return strncmp(a, b, length) == 0 && (b[length] == '/' || b[length] == '\0');
}

static bool clashes(const model *seen)
{
    for (size_t i = 0; i < seen->count; i++)
        for (size_t j = 0; j < seen->count; j++)
            if (i != j && has_below(seen->items[i].path, seen->items[j].path))
                return true;
    return false;
}

static void check_items(const aw_payload *payload, const model *seen)
{
    REQUIRE(payload->count == seen->count);
    for (size_t i = 0; i < payload->count; i++) {
        const aw_item *item = &payload->items[i];

        if (i > 0)
            REQUIRE(aw_path_compare(item[-1].path, item[-1].length, item->path, item->length) < 0);
        REQUIRE(strlen(item->path) == item->length && payload->order[item->added] == i);
    }
    for (size_t i = 0; i < seen->count; i++) {
        const wanted *want = &seen->items[i];
        const aw_item *item = &payload->items[payload->order[i]];
        aw_entry other = want->entry;

        REQUIRE(strcmp(item->path, want->path) == 0 && item->mode == want->entry.mode
                && item->uid == want->entry.uid && item->gid == want->entry.gid);
        REQUIRE(aw_payload_has(payload, i, want->path, strlen(want->path), &want->entry));
        other.data = "y";
        REQUIRE(!aw_payload_has(payload, i, want->path, strlen(want->path), &other));
    }
}

static bool is_folder(const aw_payload *payload, const char *path, size_t length)
{
    for (size_t i = 0; i < payload->folder_count; i++)
        if (payload->folders[i].length == length
            && memcmp(payload->folders[i].path, path, length) == 0)
            return true;
    return false;
}

/* The version's own, then every directory above an item, once and in tree order. */
static void check_folders(const aw_payload *payload, const model *seen)
{
    REQUIRE(payload->folder_count > 0 && payload->folders[0].length == 0);
    for (size_t i = 1; i < payload->folder_count; i++) {
        const aw_folder *folder = &payload->folders[i];
        bool needed = false;

        REQUIRE(aw_path_compare(folder[-1].path, folder[-1].length, folder->path,
                                folder->length) < 0);
        for (size_t j = 0; j < seen->count; j++)
            needed |= strlen(seen->items[j].path) > folder->length
                      && seen->items[j].path[folder->length] == '/'
                      && memcmp(seen->items[j].path, folder->path, folder->length) == 0;
        REQUIRE(needed);
    }
    for (size_t i = 0; i < seen->count; i++) {
        const char *path = seen->items[i].path;

        for (const char *slash = path; (slash = strchr(slash, '/')) != NULL; slash++)
            REQUIRE(is_folder(payload, path, (size_t)(slash - path)));
    }
}

/* Visible are the first components, and no name that is one byte off. */
static void check_shown(const aw_payload *payload, const model *seen)
{
    for (size_t i = 0; i < seen->count; i++) {
        char name[AW_COMPONENT_MAX + 2];
        size_t length = strcspn(seen->items[i].path, "/");
        bool longer = false, shorter = false;

        memcpy(name, seen->items[i].path, length);
        name[length] = '\0';
        REQUIRE(aw_payload_shows(payload, name));
        for (size_t j = 0; j < seen->count; j++) {
            const char *path = seen->items[j].path;
            size_t other = strcspn(path, "/");

            longer |= other == length + 1 && memcmp(path, name, length) == 0
                      && path[length] == '~';
            shorter |= other == length - 1 && memcmp(path, name, length - 1) == 0;
        }
        memcpy(name + length, "~", 2);
        REQUIRE(aw_payload_shows(payload, name) == longer);
        name[length - 1] = '\0';
        REQUIRE(aw_payload_shows(payload, name) == shorter);
    }
}

static void check_fits(const aw_payload *payload, const model *seen)
{
    size_t longest = 0;
    aw_error err;

    for (size_t i = 0; i < seen->count; i++)
        if (strlen(seen->items[i].path) > longest)
            longest = strlen(seen->items[i].path);
    for (size_t target = 1; target < PATH_MAX; target += 97) {
        /* TARGET/..YYYY_MM_DD_hh_mm_ss.DIGITS/PATH, and its NUL byte */
        bool fits = seen->count == 0 || target + 1 + 41 + 1 + longest + 1 <= PATH_MAX;

        REQUIRE((aw_payload_fits(payload, target, &err) == 0) == fits);
    }
}

static void seal(aw_payload *payload, const model *seen)
{
    bool bad = clashes(seen);
    aw_error err;

    for (int again = 0; again < 2; again++) {
        REQUIRE((aw_payload_seal(payload, &err) == 0) == !bad);
        if (bad) {
            REQUIRE(err.code == AW_E_INVALID_PAYLOAD && err.path[0] != '\0');
            continue;
        }
        check_items(payload, seen);
        check_folders(payload, seen);
        check_shown(payload, seen);
        check_fits(payload, seen);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static model seen;
    slice rest = { (const char *)bytes, size }, line;
    aw_payload *payload = NULL;
    aw_error err;

    seen.count = 0;
    REQUIRE(aw_payload_new(&payload, &err) == 0);
    while (seen.count < ITEMS_MAX && slice_next(&rest, '\n', &line)) {
        if (line.size == 1 && line.at[0] == '!')
            seal(payload, &seen);
        else
            add(payload, &seen, line);
    }
    seal(payload, &seen);
    aw_payload_free(payload);
    return 0;
}
