/* aw_payload: the set of files to project, checked as a whole.
 *
 * Built by aw_payload_add() (see the public header), or by aw_payload_put() out
 * of a version that is to be published again.
 */
#ifndef AW_PAYLOAD_H
#define AW_PAYLOAD_H

#include "atomicwriter.h"
#include "aw_memory.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>

typedef struct aw_item {
    const char *path;    /* cleaned, in the arena                            */
    size_t      length;  /* of path                                          */
    size_t      parent;  /* of the part of it that is the directory's        */
    const char *data;    /* borrowed; NULL: see source, then origin          */
    size_t      size;    /* of data                                          */
    const char *source;  /* in the arena, or NULL                            */
    int         mode;    /* or AW_UNSET, as the two below                    */
    unsigned    added;   /* before it, others                                */
    int64_t     uid;
    int64_t     gid;
} aw_item;

/* A directory of the version; the first one is the version's own, "". */
typedef struct aw_folder {
    const char *path;    /* not NUL-terminated: the beginning of an item's   */
    size_t      length;
    int         mode;    /* or AW_UNSET, as the two below                    */
    int64_t     uid;
    int64_t     gid;
} aw_folder;

struct aw_payload {
    aw_item   *items;    /* in tree order once sealed                        */
    size_t     count, room;
    unsigned  *order;    /* once sealed: where the item is that was added as
                            number so and so                                 */
    aw_folder *folders;  /* in tree order, filled by sealing                 */
    size_t     folder_count, folder_room;
    int        origin;   /* borrowed: the version directory that holds what
                            has neither data nor source; or -1               */
    bool       sealed;
    unsigned   replaced; /* how often an item was                            */
    uint64_t   written;  /* by which of its writer's writes last; 0: by none */
    aw_arena   arena;
    struct aw_payload *base; /* whose arena the paths are in; NULL: our own  */
    bool       shares;   /* base's order and folders                         */
    atomic_uint users;   /* of the arena, order and folders: we, and those
                            that were derived                                */
};

/* The last component of FOLDER's path, put into NAME. */
const char *aw_folder_name(const aw_folder *folder, char name[NAME_MAX + 1]);

/* Which of PAYLOAD's folders (sealed) PATH is, or AW_NO_FOLDER. */
#define AW_NO_FOLDER ((size_t)-1)
size_t aw_payload_find_folder(const aw_payload *payload, const char *path, size_t length);

/* Whether the paths of both are the same ones. */
bool aw_payload_same_paths(const aw_payload *a, const aw_payload *b);

/* Sort the items, refuse paths that clash, fill the folders. Idempotent. */
int aw_payload_seal(aw_payload *payload, aw_error *err);

/* Refuse paths that could not be opened below a target whose path has
 * TARGET_LENGTH bytes: TARGET/VERSION/PATH must fit into PATH_MAX. */
int aw_payload_fits(const aw_payload *payload, size_t target_length, aw_error *err);

/* Whether NAME is the first component of a path in PAYLOAD (sealed). */
bool aw_payload_shows(const aw_payload *payload, const char *name);

/* Append an item or a folder as it is, PATH copied; for a payload that is made
 * from a version's own listing. */
int aw_payload_put(aw_payload *payload, const aw_item *item, aw_error *err);
int aw_payload_put_folder(aw_payload *payload, const aw_folder *folder, aw_error *err);

#endif
