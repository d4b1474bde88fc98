/* aw_links: see the header. */
#define _GNU_SOURCE /* AT_SYMLINK_NOFOLLOW */
#include "aw_links.h"

#include "aw_compare.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

/* The payload's items come in tree order, those of one visible name together.
 * The index behind the last one that shares item FIRST's visible name, whose
 * LENGTH is given back. */
static size_t end_of_name(const aw_payload *payload, size_t first, size_t *length)
{
    const aw_item *items = payload->items;
    size_t i = first + 1;

    *length = aw_path_first(items[first].path, items[first].length);
    while (i < payload->count
           && aw_path_below(items[i].path, items[i].length, items[first].path, *length))
        i++;
    return i;
}

static bool shown_by_live(const unsigned char *known, size_t first, size_t end)
{
    while (known && first < end && known[first] == AW_ADD)
        first++;
    return known && first < end;
}

int aw_links_check(int target, const aw_scan *scan, const aw_payload *payload,
                   const unsigned char *known, aw_error *err)
{
    size_t length, end;

    for (size_t i = 0; i < payload->count; i = end) {
        const aw_found *found;
        aw_whose owner;

        end = end_of_name(payload, i, &length);
        if (shown_by_live(known, i, end))
            continue;
        found = aw_scan_find(scan, payload->items[i].path, length);
        owner = found ? aw_found_whose(target, found, err) : AW_GONE;
        if (owner == AW_WHOSE_FAILED)
            return -1;
        if (owner == AW_THEIRS)
            return aw_fail(err, AW_E_FOREIGN_ENTRY, found->name,
                           "the payload needs this name, and what stands there is not ours");
    }
    return 0;
}

static int make_link(aw_links *links, const char *first, size_t length, aw_error *err)
{
    char text[sizeof AW_NAME_DATA + 1 + AW_COMPONENT_MAX] = AW_NAME_DATA "/";
    const char *name = aw_arena_copy(&links->arena, first, length);

    if (!name || aw_grow(&links->made, links->count, &links->room, sizeof *links->made) < 0)
        return aw_fail_memory(err);
    memcpy(text + sizeof AW_NAME_DATA, name, length + 1);
    if (aw_sys_symlinkat(text, links->target, name) == 0) {
        links->made[links->count++] = name;
        return 0;
    }
    if (errno == EEXIST)
        return aw_fail(err, AW_E_FOREIGN_ENTRY, name,
                       "the payload needs this name, and somebody has just taken it");
    return aw_fail_io(err, "symlinkat", name);
}

/* NAME was made just now. */
static void note_link(int target, aw_scan *scan, const char *name)
{
    struct stat st;

    if (aw_sys_fstatat(target, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        aw_scan_one_came(scan, name, AW_LINK, st.st_ino);
}

int aw_links_add(aw_links *links, aw_scan *scan, const aw_payload *payload, aw_error *err)
{
    size_t length, end;

    for (size_t i = 0; i < payload->count; i = end) {
        const char *path = payload->items[i].path;

        end = end_of_name(payload, i, &length);
        if (aw_scan_find(scan, path, length))
            continue;
        if (make_link(links, path, length, err) < 0)
            return -1;
        note_link(links->target, scan, links->made[links->count - 1]);
    }
    return 0;
}

int aw_links_stage(aw_links *links, const char *version, aw_error *err)
{
    if (aw_sys_symlinkat(version, links->target, AW_NAME_DATA_TMP) < 0)
        return aw_fail_io(err, "symlinkat", AW_NAME_DATA_TMP);
    links->staged = true;
    return 0;
}

int aw_links_swap(aw_links *links, aw_error *err)
{
    if (aw_sys_renameat(links->target, AW_NAME_DATA_TMP, links->target, AW_NAME_DATA) < 0)
        return aw_fail_io(err, "renameat", AW_NAME_DATA);
    links->staged = false;
    return 0;
}

void aw_links_undo(aw_links *links)
{
    /* whatever fails here is left to the next write */
    if (links->staged)
        (void)aw_sys_unlinkat(links->target, AW_NAME_DATA_TMP, 0);
    links->staged = false;
    while (links->count > 0)
        (void)aw_sys_unlinkat(links->target, links->made[--links->count], 0);
}

static int drop_if_ours(int target, aw_scan *scan, const aw_found *found, aw_error *err)
{
    aw_whose owner = aw_found_whose(target, found, err);

    if (owner == AW_OURS && aw_sys_unlinkat(target, found->name, 0) < 0 && errno != ENOENT)
        return aw_fail_io(err, "unlinkat", found->name);
    if (owner == AW_OURS)
        aw_scan_one_went(scan, found->name, AW_LINK, found->inode);
    return owner == AW_WHOSE_FAILED ? -1 : 0;
}

void aw_links_drop_stale(int target, aw_scan *scan, const aw_payload *payload,
                         aw_result *result)
{
    for (size_t i = 0; i < scan->found_count; i++) {
        const aw_found *found = &scan->found[i];
        aw_error err;

        if (found->link && !aw_payload_shows(payload, found->name)
            && drop_if_ours(target, scan, found, &err) < 0)
            aw_result_warn(result, &err);
    }
}

void aw_links_clear(aw_links *links)
{
    free(links->made);
    aw_arena_clear(&links->arena);
    links->made = NULL;
    links->count = links->room = 0;
}
