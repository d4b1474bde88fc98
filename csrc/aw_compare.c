/* aw_compare: see the header. */
#define _GNU_SOURCE /* AT_SYMLINK_NOFOLLOW */
#include "aw_compare.h"

#include "aw_error.h"
#include "aw_memory.h"
#include "aw_name.h"
#include "aw_path.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one file ---------------------------------------------------------- */

enum { HALF = 64 * 1024 };

static const size_t NOT_KNOWN = (size_t)-1;

typedef struct comparison {
    int            target;
    aw_rules      *rules;
    aw_cursor      live;
    aw_cursor      origin;
    char          *buffer;  /* two halves, made when a file is read          */
    const aw_memo *memo;    /* about the live version, or NULL               */
    size_t         recalled;/* an index into its payload, for recall()       */
    aw_memo       *learned;
    struct timespec made;   /* when it was made                              */
    aw_stamp       began;   /* when the comparison began                     */
    bool           counted; /* only the number of names is known, each file is
                               to be found                                   */
    bool           odd;     /* where one should have been is something else  */
    bool           unsorted;/* the lists of the result                       */
    size_t         told;    /* files that progress was told of already       */
    aw_meter      *meter;
    aw_result     *result;
    aw_error      *err;
} comparison;

/* An error that says: there is no such thing to compare with. */
static bool says_absent(int code)
{
    return code == ENOENT || code == ENOTDIR || code == ELOOP || code == EACCES
           || code == ENXIO || code == ENAMETOOLONG;
}

/* 1 equal, 0 different, -1 with c->err filled; as the next three. */
static int same_as_memory(comparison *c, const aw_item *item, int fd)
{
    const char *data = item->data;
    size_t left = item->size;

    for (;;) {
        size_t wanted = left < HALF ? left + 1 : HALF;
        ssize_t got = aw_sys_read(fd, c->buffer, wanted);

        if (got < 0)
            return aw_fail_io(c->err, "read", item->path);
        if (aw_meter_bytes(c->meter, (size_t)got, c->err) < 0)
            return -1;
        if ((size_t)got > left || memcmp(c->buffer, data, (size_t)got) != 0)
            return 0;
        data += got;
        left -= (size_t)got;
        if ((size_t)got < wanted) /* a regular file ends where a read is short */
            return left == 0;
    }
}

static int same_as_file(comparison *c, const aw_item *item, int fd, int other)
{
    for (;;) {
        char *second = c->buffer + HALF;
        ssize_t got = aw_read_all(fd, c->buffer, HALF);
        ssize_t expected = got < 0 ? -1 : aw_read_all(other, second, HALF);

        if (expected < 0)
            return aw_fail_io(c->err, "read", item->path);
        if (aw_meter_bytes(c->meter, (size_t)got, c->err) < 0)
            return -1;
        if (got != expected || memcmp(c->buffer, second, (size_t)got) != 0)
            return 0;
        if (got < HALF)
            return 1;
    }
}

static int same_as_item_file(comparison *c, const aw_item *item, int fd)
{
    int other = aw_item_open(item, &c->origin, c->err), same;
    struct stat ours, theirs;

    if (other < 0) /* what we may not read we may still link, in a rollback */
        return !item->source && c->err->sys_errno == EACCES ? 0 : -1;
    if (aw_sys_fstat(fd, &ours) < 0 || aw_sys_fstat(other, &theirs) < 0)
        same = aw_fail_io(c->err, "fstat", item->path);
    else if (ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)
        same = 1;
    else
        same = same_as_file(c, item, fd, other);
    aw_close_fd(&other);
    return same;
}

static int same_data(comparison *c, const aw_item *item, int fd)
{
    if (!c->buffer)
        c->buffer = malloc(2 * (size_t)HALF);
    if (!c->buffer)
        return aw_fail_memory(c->err);
    return item->data ? same_as_memory(c, item, fd) : same_as_item_file(c, item, fd);
}

static bool has_owner(const struct stat *st, const aw_wish *wanted)
{
    return st->st_uid == wanted->uid && st->st_gid == wanted->gid;
}

static bool is_later(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec > b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec > b->tv_nsec);
}

static bool has_mode_and_owner(comparison *c, const aw_item *item, const struct stat *st)
{
    aw_wish wanted = aw_wish_for_item(c->rules, item);

    if (!has_owner(st, &wanted) && !c->rules->probed) {
        aw_rules_probe(c->rules, c->target);
        wanted = aw_wish_for_item(c->rules, item);
    }
    return S_ISREG(st->st_mode) && (st->st_mode & 07777) == wanted.mode && has_owner(st, &wanted);
}

/* Whether the file NAME still is what it was when it had the data of item KNOWN, an index
 * into what is remembered, or NOT_KNOWN. */
static bool is_known(const comparison *c, const char *name, size_t known, struct stat *st)
{
    return known != NOT_KNOWN && c->memo->prints[known].inode != 0
           && aw_sys_fstatat(c->live.dir, name, st, AT_SYMLINK_NOFOLLOW) == 0
           && aw_memo_knows(c->memo, known, st);
}

/* Item INDEX is kept. The file was last looked at, before it was read, as ST. */
static void keep(comparison *c, size_t index, const struct stat *st)
{
    if (is_later(&st->st_mtim, &c->made))
        c->rules->edited = true;
    if (c->learned->prints)
        c->learned->prints[index] = aw_print_of(st, c->learned->clock, &c->began);
}

/* KNOWN is as above. */
static int same_file(comparison *c, const aw_item *item, size_t index, size_t known)
{
    const char *name = aw_cursor_enter_for(&c->live, item);
    struct stat st;
    int fd, same;

    if (name && is_known(c, name, known, &st) && has_mode_and_owner(c, item, &st)) {
        keep(c, index, &st);
        return 1;
    }
    fd = name ? aw_at_open_file(c->live.dir, name) : -1;
    if (fd < 0)
        c->odd = errno != EACCES;
    if (fd < 0)
        return says_absent(errno) ? 0 : aw_fail_io(c->err, "openat", item->path);
    if (aw_sys_fstat(fd, &st) < 0)
        same = aw_fail_io(c->err, "fstat", item->path);
    else
        same = has_mode_and_owner(c, item, &st) ? same_data(c, item, fd) : 0;
    if (same == 0 && !S_ISREG(st.st_mode))
        c->odd = true;
    if (same == 1)
        keep(c, index, &st);
    aw_close_fd(&fd);
    return same;
}

/* ---- what a writer remembers ------------------------------------------- */

/* The item of the live version that has ITEM's path, or NULL. To be asked in tree
 * order: both payloads are, so that one pass over both is enough. */
static const aw_item *recall(comparison *c, const aw_item *item)
{
    const aw_payload *known = c->memo ? c->memo->payload : NULL;

    for (; known && c->recalled < known->count; c->recalled++) {
        const aw_item *one = &known->items[c->recalled];
        int order = one->path == item->path ? 0 : aw_path_compare(one->path, one->length,
                                                                  item->path, item->length);

        if (order >= 0)
            return order == 0 ? one : NULL;
    }
    return NULL;
}

/* Both in memory. */
static bool same_bytes(const aw_item *a, const aw_item *b)
{
    return a->size == b->size && (a->data == b->data || memcmp(a->data, b->data, a->size) == 0);
}

/* There is a file at ITEM's path, or the comparison is odd. 0, or -1. */
static int find_file(comparison *c, const aw_item *item)
{
    const char *name = aw_cursor_enter_for(&c->live, item);
    struct stat st;

    if (name && aw_sys_fstatat(c->live.dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        c->odd = !S_ISREG(st.st_mode);
    else if (says_absent(errno))
        c->odd = true;
    else
        return aw_fail_io(c->err, "fstatat", item->path);
    return 0;
}

/* As same_file(), with what is remembered. */
static int same_item(comparison *c, const aw_item *item, size_t index)
{
    const aw_item *known = item->data ? recall(c, item) : NULL;

    if (!known || !known->data)
        return same_file(c, item, index, NOT_KNOWN);
    if (!same_bytes(known, item))
        return c->counted ? find_file(c, item) : 0;
    return same_file(c, item, index, c->memo->prints ? c->recalled : NOT_KNOWN);
}

/* ---- two trees --------------------------------------------------------- */

/* Lists mostly come in order: tree order, in which they are gathered, is byte order but for
 * names with a byte below "/". */
static int tell(comparison *c, aw_list *list, const char *path, size_t length)
{
    c->result->changed = true;
    if (length == 0)
        return aw_list_add(list, ".", c->err);
    if (aw_list_add_part(list, path, length, c->err) < 0)
        return -1;
    c->unsorted = c->unsorted || aw_list_ends_unsorted(list);
    return 0;
}

static int tell_folder(comparison *c, const aw_node *node, const aw_folder *folder)
{
    aw_wish wanted = aw_wish_for_folder(c->rules, folder);
    bool owned = (uid_t)node->uid == wanted.uid && (gid_t)node->gid == wanted.gid;

    if (!owned && !node->unreadable && !c->rules->probed) {
        aw_rules_probe(c->rules, c->target);
        wanted = aw_wish_for_folder(c->rules, folder);
        owned = (uid_t)node->uid == wanted.uid && (gid_t)node->gid == wanted.gid;
    }
    if (!node->unreadable && owned && (mode_t)node->mode == wanted.mode)
        return 0;
    return tell(c, &c->result->updated, node->path, node->length);
}

static int tell_item(comparison *c, const aw_item *item, const aw_node *node, size_t index,
                     unsigned char *action)
{
    int same;

    if (!node || node->type == AW_DIRECTORY) {
        *action = AW_ADD;
        return tell(c, &c->result->added, item->path, item->length);
    }
    same = node->type == AW_FILE ? same_item(c, item, index) : 0;
    if (same < 0)
        return -1;
    if (same) {
        *action = AW_KEEP;
        c->result->unchanged++;
        return 0;
    }
    *action = AW_UPDATE;
    return tell(c, &c->result->updated, item->path, item->length);
}

static int compare_item(comparison *c, const aw_item *item, const aw_node *node, size_t index,
                        unsigned char *action)
{
    if (tell_item(c, item, node, index, action) < 0)
        return -1;
    if (c->told == 0)
        return aw_meter_files(c->meter, 1, c->err);
    c->told--;
    return 0;
}

/* A node that PAYLOAD has no item for. A directory goes without saying when
 * what lies below it is told. */
static int tell_extra(comparison *c, const aw_tree *tree, size_t index)
{
    const aw_node *node = &tree->nodes[index], *next = node + 1;
    bool told_below = node->type == AW_DIRECTORY && index + 1 < tree->count
                      && aw_path_below(next->path, next->length, node->path, node->length);

    return told_below ? 0 : tell(c, &c->result->removed, node->path, node->length);
}

/* Both are in tree order, so one pass over both is enough. */
static int compare_trees(comparison *c, const aw_payload *payload, const aw_tree *tree,
                         unsigned char *actions)
{
    size_t i = 0, f = 0;

    for (size_t n = 0; n < tree->count; n++) {
        const aw_node *node = &tree->nodes[n];
        int order = 1;

        for (; i < payload->count; i++) {
            const aw_item *item = &payload->items[i];

            order = aw_path_compare(item->path, item->length, node->path, node->length);
            if (order >= 0)
                break;
            if (compare_item(c, item, NULL, i, &actions[i]) < 0)
                return -1;
        }
        while (node->type == AW_DIRECTORY && f < payload->folder_count
               && aw_path_compare(payload->folders[f].path, payload->folders[f].length,
                                  node->path, node->length) < 0)
            f++;
        if (order == 0) {
            if (compare_item(c, &payload->items[i], node, i, &actions[i]) < 0)
                return -1;
            i++;
        } else if (node->type == AW_DIRECTORY && f < payload->folder_count
                   && aw_path_compare(payload->folders[f].path, payload->folders[f].length,
                                      node->path, node->length) == 0) {
            if (tell_folder(c, node, &payload->folders[f]) < 0)
                return -1;
        } else if (tell_extra(c, tree, n) < 0) {
            return -1;
        }
    }
    for (; i < payload->count; i++) {
        if (compare_item(c, &payload->items[i], NULL, i, &actions[i]) < 0)
            return -1;
    }
    return 0;
}

/* What was seen of the directories while they were sketched. */
typedef struct folder_look {
    const comparison *c;
    const aw_payload *payload;
    bool              settled;  /* a change from now on shows in every one   */
    size_t           *expected; /* names in each folder; NULL: not counted   */
} folder_look;

static bool counts(int fd, size_t expected)
{
    aw_listing listing;
    const char *name;
    aw_type type;
    int more;

    if (aw_listing_start_again(&listing, fd) < 0)
        return false;
    while ((more = aw_listing_next(&listing, &name, &type)) > 0) {
        if (expected-- == 0)
            return false;
    }
    return more == 0 && expected == 0;
}

/* Whether the folder is to stay as it is. Without asking what a fresh directory would get:
 * the tree is listed then. */
static bool look_at_folder(void *context, size_t index, int fd, const struct stat *st)
{
    folder_look *seen = context;
    aw_wish wanted = aw_wish_for_folder(seen->c->rules, &seen->payload->folders[index]);
    aw_stamp stamp = aw_stamp_of(st);

    if ((st->st_mode & 07777) != wanted.mode || !has_owner(st, &wanted))
        return false;
    seen->settled = seen->settled && aw_stamp_is_settled(&stamp, &seen->c->began);
    return !seen->expected || counts(fd, seen->expected[index]);
}

/* How many names each folder of PAYLOAD has. */
static void count_names(const aw_payload *payload, size_t *expected)
{
    const aw_item *last = NULL;
    size_t parent = 0, folder = 0;

    for (size_t i = 0; i < payload->count; i++) {
        const aw_item *item = &payload->items[i];
        size_t length = item->parent;

        if (!last || length != parent || memcmp(item->path, last->path, length) != 0)
            folder = aw_payload_find_folder(payload, item->path, length);
        expected[folder]++;
        last = item;
        parent = length;
    }
    for (size_t i = 1; i < payload->folder_count; i++) {
        const aw_folder *one = &payload->folders[i];

        expected[aw_payload_find_folder(payload, one->path, aw_path_parent(one->path,
                                                                           one->length))]++;
    }
}

static bool same_paths(const aw_payload *a, const aw_payload *b)
{
    bool same = a->count == b->count, shared = aw_payload_same_paths(a, b);

    for (size_t i = 0; !shared && same && i < a->count; i++)
        same = aw_path_compare(a->items[i].path, a->items[i].length,
                               b->items[i].path, b->items[i].length) == 0;
    return same;
}

/* When every file should be there, and nothing else can. 1, or 0 if one is not, or -1. */
static int compare_files(comparison *c, const aw_payload *payload, unsigned char *actions)
{
    static const aw_node file = { .type = AW_FILE };

    for (size_t i = 0; i < payload->count; i++) {
        if (compare_item(c, &payload->items[i], &file, i, &actions[i]) < 0)
            return -1;
        if (c->odd)
            return 0;
    }
    return 1;
}

/* Names are not listed where a count of them will do: each that the payload has must be
 * found, and then there is no other. As compare_files(), and 0 when they are not these. */
static int compare_counted(comparison *c, const aw_live *live, const aw_payload *payload,
                           unsigned char *actions)
{
    folder_look seen = { c, payload, true, NULL };
    uint64_t sketch;
    bool counted;

    seen.expected = calloc(payload->folder_count, sizeof *seen.expected);
    if (!seen.expected)
        return aw_fail_memory(c->err);
    count_names(payload, seen.expected);
    counted = aw_memo_sketch(live->fd, payload, look_at_folder, &seen, &sketch);
    free(seen.expected);
    if (!counted)
        return 0;
    c->counted = true;
    c->learned->listed = c->memo && seen.settled;
    c->learned->folders = sketch;
    return compare_files(c, payload, actions);
}

/* The same when the files of KNOWN should be there. Both payloads are in tree order. */
static int compare_with_known(comparison *c, const aw_payload *known, const aw_payload *payload,
                              unsigned char *actions)
{
    static const aw_node file = { .type = AW_FILE };
    size_t k = 0;

    for (size_t i = 0; i < payload->count; i++) {
        const aw_item *item = &payload->items[i];
        int order = 1;

        for (; k < known->count; k++) {
            const aw_item *old = &known->items[k];

            order = aw_path_compare(old->path, old->length, item->path, item->length);
            if (order >= 0)
                break;
            if (tell(c, &c->result->removed, old->path, old->length) < 0)
                return -1;
        }
        if (compare_item(c, item, order == 0 ? &file : NULL, i, &actions[i]) < 0)
            return -1;
        k += order == 0;
        if (c->odd)
            return 0;
    }
    for (; k < known->count; k++) {
        if (tell(c, &c->result->removed, known->items[k].path, known->items[k].length) < 0)
            return -1;
    }
    return 1;
}

/* As the live version is remembered. Not for a rollback, which has wishes of its own for the
 * directories. */
static int compare_known(comparison *c, const aw_live *live, const aw_payload *payload,
                         unsigned char *actions)
{
    const aw_payload *known = c->memo ? c->memo->payload : NULL;
    folder_look seen = { c, known, true, NULL };
    uint64_t sketch;

    if (!known || !c->memo->listed || payload->origin >= 0
        || c->learned->clock == AW_CLOCK_NONE
        || !aw_memo_sketch(live->fd, known, look_at_folder, &seen, &sketch)
        || sketch != c->memo->folders)
        return 0;
    c->learned->as_known = c->learned->listed = true;
    c->learned->folders = sketch;
    return same_paths(payload, known) ? compare_files(c, payload, actions)
                                      : compare_with_known(c, known, payload, actions);
}

/* Forget what a comparison found that came to nothing. */
static void begin_again(comparison *c)
{
    aw_list_clear(&c->result->added);
    aw_list_clear(&c->result->updated);
    aw_list_clear(&c->result->removed);
    c->result->changed = c->odd = c->counted = false;
    c->result->unchanged = c->recalled = 0;
    c->learned->as_known = c->learned->listed = false;
    c->told = c->meter->now.files;
}

static int compare_with_live(comparison *c, const aw_live *live, const aw_payload *payload,
                             unsigned char *actions)
{
    aw_tree tree = AW_TREE_INIT;
    int rc = compare_known(c, live, payload, actions);

    if (rc == 0 && !c->odd)
        rc = compare_counted(c, live, payload, actions);
    if (rc != 0)
        return rc < 0 ? -1 : 0;
    begin_again(c);
    rc = aw_tree_read(live->fd, &tree, c->err);
    if (rc == 0)
        rc = compare_trees(c, payload, &tree, actions);
    aw_tree_clear(&tree);
    return rc;
}

/* A writer that has just been opened may be closed as soon, and begins with what it
 * wrote. Without memory for the prints there are none. */
static void begin_learning(comparison *c, const aw_live *live, aw_payload *payload)
{
    aw_memo *learned = c->learned;

    memcpy(learned->version, live->name, sizeof learned->version);
    learned->payload = payload;
    learned->count = payload->count;
    learned->replaced = payload->replaced;
    learned->device = live->st.st_dev;
    if (!c->memo)
        return;
    learned->clock = c->memo->clock;
    if (learned->clock == AW_CLOCK_UNKNOWN)
        learned->clock = aw_clock_of(live->fd);
    if (learned->clock != AW_CLOCK_NONE)
        learned->prints = calloc(payload->count + 1, sizeof *learned->prints);
}

int aw_compare(int target, const aw_live *live, aw_payload *payload, aw_rules *rules,
               const aw_memo *memo, aw_memo *learned, unsigned char *actions, aw_meter *meter,
               aw_result *result, aw_error *err)
{
    comparison c = {
        .target = target, .rules = rules, .live = AW_CURSOR_INIT(live->fd),
        .origin = AW_CURSOR_INIT(payload->origin), .learned = learned,
        .began = aw_stamp_clock(), .meter = meter, .result = result, .err = err,
    };
    const aw_tree nothing = AW_TREE_INIT;
    int rc = -1;

    result->changed = live->fd < 0;
    if (aw_meter_begin(meter, AW_COMPARING, payload->count, err) < 0)
        return -1;
    if (live->fd < 0) {
        rc = compare_trees(&c, payload, &nothing, actions);
    } else {
        c.made = live->st.st_ctim;
        c.memo = aw_memo_speaks_of(memo, live->name, live->st.st_dev) ? memo : NULL;
        begin_learning(&c, live, payload);
        rc = compare_with_live(&c, live, payload, actions);
    }
    if (c.unsorted) {
        aw_list_sort(&result->added);
        aw_list_sort(&result->updated);
        aw_list_sort(&result->removed);
    }
    aw_cursor_close(&c.live);
    aw_cursor_close(&c.origin);
    free(c.buffer);
    return rc;
}

/* ---- after a check ----------------------------------------------------- */

static int refuse_name(const char *path, const char *what, aw_error *err)
{
    return aw_fail(err, AW_E_CHECK_FAILED, path,
                   "the check %s this in the staged tree, which is to be published as it was",
                   what);
}

int aw_compare_names(const aw_payload *payload, int stage, aw_error *err)
{
    aw_tree tree = AW_TREE_INIT;
    size_t i = 0, f = 0;
    int rc = aw_tree_read(stage, &tree, err);

    for (size_t n = 0; rc == 0 && n < tree.count; n++) {
        const aw_node *node = &tree.nodes[n];
        const aw_item *item = i < payload->count ? &payload->items[i] : NULL;
        const aw_folder *folder = f < payload->folder_count ? &payload->folders[f] : NULL;

        if (item && node->type == AW_FILE
            && aw_path_compare(item->path, item->length, node->path, node->length) == 0)
            i++;
        else if (folder && node->type == AW_DIRECTORY
                 && aw_path_compare(folder->path, folder->length, node->path,
                                    node->length) == 0)
            f++;
        else if (item && aw_path_compare(item->path, item->length, node->path,
                                         node->length) <= 0)
            rc = refuse_name(item->path, "removed or replaced", err);
        else
            rc = refuse_name(node->path, "left", err);
    }
    if (rc == 0 && i < payload->count)
        rc = refuse_name(payload->items[i].path, "removed", err);
    aw_tree_clear(&tree);
    return rc;
}
