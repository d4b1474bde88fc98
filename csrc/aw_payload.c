/* aw_payload: see the header. */
#define _POSIX_C_SOURCE 200809L /* PATH_MAX */
#include "aw_payload.h"

#include "aw_error.h"
#include "aw_path.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static const int64_t last_id = 4294967294; /* 4294967295 is chown's "leave it" */

int aw_payload_new(aw_payload **payload, aw_error *err)
{
    aw_payload *made = calloc(1, sizeof *made);

    if (!made)
        return aw_fail_memory(err);
    made->origin = -1;
    atomic_init(&made->users, 1);
    *payload = made;
    return 0;
}

/* One user less of what payloads share. */
static void let_go(aw_payload *payload)
{
    while (payload && atomic_fetch_sub(&payload->users, 1) == 1) {
        aw_payload *base = payload->base;

        aw_arena_clear(&payload->arena);
        if (!payload->shares) {
            free(payload->order);
            free(payload->folders);
        }
        free(payload);
        payload = base;
    }
}

void aw_payload_free(aw_payload *payload)
{
    if (!payload)
        return;
    free(payload->items);
    payload->items = NULL;
    let_go(payload);
}

size_t aw_payload_count(const aw_payload *payload)
{
    return payload->count;
}

/* ---- adding ------------------------------------------------------------ */

static int check_id(const char *what, int64_t id, const char *path, size_t length,
                    aw_error *err)
{
    if (id == AW_UNSET || (id >= 0 && id <= last_id))
        return 0;
    return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                      "invalid %s %lld: it must be 0 to 4294967294", what, (long long)id);
}

static int check_entry(const aw_entry *entry, const char *path, size_t length, aw_error *err)
{
    if (!entry->data && entry->size > 0)
        return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                          "invalid entry: a size without data");
    if (entry->data && entry->source)
        return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                          "invalid entry: both data and a source");
    if (entry->source && entry->source[0] == '\0')
        return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                          "invalid entry: the source is empty");
    if (entry->mode != AW_UNSET && (entry->mode < 0 || entry->mode > 0777))
        return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                          "invalid mode %d (octal %#o): it must be 0 to 0777",
                          entry->mode, (unsigned)entry->mode);
    if (check_id("uid", entry->uid, path, length, err) < 0)
        return -1;
    return check_id("gid", entry->gid, path, length, err);
}

int aw_payload_put(aw_payload *payload, const aw_item *item, aw_error *err)
{
    const char *path;

    if (payload->count == UINT_MAX
        || aw_grow(&payload->items, payload->count, &payload->room, sizeof *payload->items) < 0)
        return aw_fail_memory(err);
    path = aw_arena_copy(&payload->arena, item->path, item->length);
    if (!path)
        return aw_fail_memory(err);
    payload->items[payload->count] = *item;
    payload->items[payload->count].path = path;
    payload->items[payload->count].parent = aw_path_parent(path, item->length);
    payload->items[payload->count].added = (unsigned)payload->count;
    payload->count++;
    payload->sealed = false;
    return 0;
}

/* Put what ENTRY says into ITEM. */
static int take_entry(aw_payload *payload, aw_item *item, const aw_entry *entry, aw_error *err)
{
    const char *source = NULL;

    if (entry->source) {
        source = aw_arena_copy(&payload->arena, entry->source, strlen(entry->source));
        if (!source)
            return aw_fail_memory(err);
    }
    item->source = source;
    item->data = source ? NULL : entry->data ? entry->data : "";
    item->size = entry->size;
    item->mode = entry->mode;
    item->uid = entry->uid;
    item->gid = entry->gid;
    return 0;
}

int aw_payload_add(aw_payload *payload, const char *path, size_t length,
                   const aw_entry *entry, aw_error *err)
{
    aw_item item = { 0 };
    char clean[AW_PATH_BYTES_MAX + 1];

    if (aw_path_clean(path, length, clean, &item.length, err) < 0)
        return -1;
    if (atomic_load(&payload->users) > 1)
        return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length,
                          "a payload that another was derived from is given no more files");
    if (check_entry(entry, path, length, err) < 0)
        return -1;
    item.path = clean;
    if (take_entry(payload, &item, entry, err) < 0)
        return -1;
    return aw_payload_put(payload, &item, err);
}

/* ---- deriving ---------------------------------------------------------- */

/* Sources are copied: those of the derived one that was derived from go with it. */
static int copy_items(aw_payload *to, const aw_payload *from, aw_error *err)
{
    to->items = malloc((from->count + 1) * sizeof *to->items);
    if (!to->items)
        return aw_fail_memory(err);
    memcpy(to->items, from->items, from->count * sizeof *to->items);
    to->count = to->room = from->count;
    for (size_t i = 0; i < to->count; i++) {
        const char *source = to->items[i].source;

        if (!source)
            continue;
        to->items[i].source = aw_arena_copy(&to->arena, source, strlen(source));
        if (!to->items[i].source)
            return aw_fail_memory(err);
    }
    return 0;
}

int aw_payload_derive(const aw_payload *payload, aw_payload **derived, aw_error *err)
{
    aw_payload *self = (aw_payload *)payload; /* who uses it is counted there */
    aw_payload *base = payload->shares ? payload->base : self, *made;

    if (aw_payload_new(&made, err) < 0)
        return -1;
    atomic_fetch_add(&base->users, 1);
    made->base = base;
    made->shares = true;
    made->order = payload->order;
    made->folders = payload->folders;
    made->folder_count = made->folder_room = payload->folder_count;
    made->sealed = true;
    if (copy_items(made, payload, err) < 0) {
        aw_payload_free(made);
        return -1;
    }
    *derived = made;
    return 0;
}

bool aw_payload_same_paths(const aw_payload *a, const aw_payload *b)
{
    return a == b || (a->order && a->order == b->order);
}

bool aw_payload_is_at(const aw_payload *payload, size_t index, const char *path, size_t length)
{
    const aw_item *item;

    if (index >= payload->count || !payload->sealed)
        return false;
    item = &payload->items[payload->order[index]];
    return item->length == length && memcmp(item->path, path, length) == 0;
}

int aw_payload_replace(aw_payload *payload, size_t index, const aw_entry *entry, aw_error *err)
{
    aw_item *item = &payload->items[payload->order[index]];

    if (check_entry(entry, item->path, item->length, err) < 0)
        return -1;
    payload->replaced++;
    return take_entry(payload, item, entry, err);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

bool aw_payload_has(const aw_payload *payload, size_t index, const char *path, size_t length,
                    const aw_entry *entry)
{
    const char *data = entry->data || entry->source ? entry->data : "";
    const aw_item *item;

    if (!aw_payload_is_at(payload, index, path, length))
        return false;
    item = &payload->items[payload->order[index]];
    return item->mode == entry->mode && item->uid == entry->uid && item->gid == entry->gid
           && item->size == entry->size && !item->data == !data
           && (item->data == data || memcmp(item->data, data, item->size) == 0)
           && same_text(item->source, entry->source);
}

/* ---- the set as a whole ------------------------------------------------ */

static int by_path(const void *left, const void *right)
{
    const aw_item *a = left, *b = right;

    return aw_path_compare(a->path, a->length, b->path, b->length);
}

/* In tree order a clash is between neighbours. */
static int find_clash(const aw_payload *payload, aw_error *err)
{
    for (size_t i = 1; i < payload->count; i++) {
        const aw_item *a = &payload->items[i - 1], *b = &payload->items[i];

        if (by_path(a, b) == 0)
            return aw_fail(err, AW_E_INVALID_PAYLOAD, b->path,
                           "invalid path: two keys mean this path once they are cleaned");
        if (aw_path_below(b->path, b->length, a->path, a->length))
            return aw_fail(err, AW_E_INVALID_PAYLOAD, a->path,
                           "invalid path: it is a file, and also the directory of '%.300s'",
                           b->path);
    }
    return 0;
}

int aw_payload_put_folder(aw_payload *payload, const aw_folder *folder, aw_error *err)
{
    if (aw_grow(&payload->folders, payload->folder_count, &payload->folder_room,
                sizeof *payload->folders) < 0)
        return aw_fail_memory(err);
    payload->folders[payload->folder_count++] = *folder;
    return 0;
}

static int put_plain_folder(aw_payload *payload, const char *path, size_t length, aw_error *err)
{
    aw_folder folder = { path, length, AW_UNSET, AW_UNSET, AW_UNSET };

    return aw_payload_put_folder(payload, &folder, err);
}

/* Every directory of ITEM that the item before it does not lie below as well. */
static int put_new_folders(aw_payload *payload, const aw_item *before, const aw_item *item,
                           aw_error *err)
{
    for (size_t i = 0; i < item->length; i++) {
        if (item->path[i] != '/')
            continue;
        if (before && aw_path_below(before->path, before->length, item->path, i))
            continue;
        if (put_plain_folder(payload, item->path, i, err) < 0)
            return -1;
    }
    return 0;
}

/* What growing has left over is given back: a payload may stay for long. */
static int note_order(aw_payload *payload, aw_error *err)
{
    size_t count = payload->count;
    unsigned *order = realloc(payload->order, (count + 1) * sizeof *order);
    aw_item *items;

    if (!order)
        return aw_fail_memory(err);
    payload->order = order;
    for (size_t i = 0; i < count; i++)
        order[payload->items[i].added] = (unsigned)i;
    items = count > 0 ? realloc(payload->items, count * sizeof *items) : NULL;
    if (items) {
        payload->items = items;
        payload->room = count;
    }
    return 0;
}

int aw_payload_seal(aw_payload *payload, aw_error *err)
{
    if (payload->sealed)
        return 0;
    if (payload->shares) { /* something was added since */
        payload->order = NULL;
        payload->folders = NULL;
        payload->folder_count = payload->folder_room = 0;
        payload->shares = false;
    }
    if (payload->count > 1)
        qsort(payload->items, payload->count, sizeof *payload->items, by_path);
    if (find_clash(payload, err) < 0 || note_order(payload, err) < 0)
        return -1;
    payload->folder_count = 0;
    if (put_plain_folder(payload, "", 0, err) < 0)
        return -1;
    for (size_t i = 0; i < payload->count; i++) {
        const aw_item *before = i > 0 ? &payload->items[i - 1] : NULL;

        if (put_new_folders(payload, before, &payload->items[i], err) < 0)
            return -1;
    }
    payload->sealed = true;
    return 0;
}

int aw_payload_fits(const aw_payload *payload, size_t target_length, aw_error *err)
{
    /* "/" + a version's name + "/" + the path + NUL; names have 41 bytes at most */
    const size_t around = target_length + 1 + 41 + 1 + 1;

    for (size_t i = 0; i < payload->count; i++) {
        const aw_item *item = &payload->items[i];

        if (around + item->length > PATH_MAX)
            return aw_fail(err, AW_E_INVALID_PAYLOAD, item->path,
                           "invalid path: too long to be opened below this target");
    }
    return 0;
}

bool aw_payload_shows(const aw_payload *payload, const char *name)
{
    size_t length = strlen(name), low = 0, high = payload->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const aw_item *item = &payload->items[middle];
        int order = aw_path_compare(item->path, aw_path_first(item->path, item->length),
                                    name, length);

        if (order == 0)
            return true;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

const char *aw_folder_name(const aw_folder *folder, char name[NAME_MAX + 1])
{
    const char *base = aw_path_base(folder->path, folder->length);
    size_t length = folder->length - (size_t)(base - folder->path);

    memcpy(name, base, length);
    name[length] = '\0';
    return name;
}

size_t aw_payload_find_folder(const aw_payload *payload, const char *path, size_t length)
{
    size_t low = 0, high = payload->folder_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const aw_folder *folder = &payload->folders[middle];
        int order = aw_path_compare(folder->path, folder->length, path, length);

        if (order == 0)
            return middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return AW_NO_FOLDER;
}
