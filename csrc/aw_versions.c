/* aw_versions: what is done with versions other than the live one. */
#define _GNU_SOURCE /* AT_SYMLINK_NOFOLLOW */
#include "aw_versions.h"

#include "aw_after.h"
#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_recover.h"
#include "aw_snapshot.h"
#include "aw_sys.h"
#include "aw_txn.h"
#include "aw_write.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- rolling back ------------------------------------------------------ */

/* The retained version that is meant, as a name in the scan; or NULL. Those that
 * are newer than the live one were never live (INV-1). */
static const char *find_origin(const aw_txn *t, const char *wanted)
{
    for (size_t i = 0; i < t->scan.version_count; i++) {
        const char *version = t->scan.versions[i];

        if (t->live.name[0] == '\0' || aw_name_compare(version, t->live.name) > 0)
            continue;
        if (wanted ? strcmp(version, wanted) == 0 : strcmp(version, t->live.name) != 0)
            return version;
    }
    return NULL;
}

static int put_file(aw_txn *t, aw_cursor *cursor, const aw_node *node)
{
    const char *name = aw_cursor_enter_parent(cursor, node->path, node->length);
    aw_item item = { 0 };
    struct stat st;

    if (!name || aw_sys_fstatat(cursor->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return aw_fail_io(t->err, "fstatat", node->path);
    item.path = node->path;
    item.length = node->length;
    item.mode = (int)(st.st_mode & 07777);
    item.uid = st.st_uid;
    item.gid = st.st_gid;
    return aw_payload_put(t->payload, &item, t->err);
}

static int put_node(aw_txn *t, aw_cursor *cursor, const aw_node *node)
{
    aw_folder folder = { node->path, node->length, node->mode, node->uid, node->gid };

    if (node->type == AW_FILE)
        return put_file(t, cursor, node);
    if (node->type != AW_DIRECTORY)
        return aw_fail(t->err, AW_E_FOREIGN_ENTRY, node->path,
                       "the version to roll back to has this, which is no regular file");
    if (node->unreadable) {
        errno = EACCES;
        return aw_fail_io(t->err, "openat", node->path);
    }
    return aw_payload_put_folder(t->payload, &folder, t->err);
}

static int check_expected(const aw_txn *t)
{
    bool live = t->live.fd >= 0;

    if (!t->expected || (live && strcmp(t->live.name, t->expected) == 0))
        return 0;
    return aw_fail(t->err, AW_E_NOT_FOUND, t->expected, "it is not the live version%s%s",
                   live ? ": that is " : ", and none is", live ? t->live.name : "");
}

/* The payload of a rollback: what the version holds, as it is there. */
static int choose_origin(aw_txn *t, const char *wanted)
{
    const char *version = find_origin(t, wanted);
    aw_cursor cursor;
    int rc = 0;

    if (check_expected(t) < 0)
        return -1;
    if (!version)
        return aw_fail(t->err, AW_E_NOT_FOUND, wanted, "there is no such retained version");
    t->origin = aw_at_open_dir(t->target, version);
    if (t->origin < 0)
        return aw_fail_io(t->err, "openat", version);
    if (aw_tree_read(t->origin, &t->origin_tree, t->err) < 0)
        return -1;
    if (aw_payload_new(&t->payload, t->err) < 0)
        return -1;
    cursor = (aw_cursor)AW_CURSOR_INIT(t->origin);
    for (size_t i = 0; rc == 0 && i < t->origin_tree.count; i++)
        rc = put_node(t, &cursor, &t->origin_tree.nodes[i]);
    aw_cursor_close(&cursor);
    t->payload->origin = t->origin;
    t->payload->sealed = true; /* the tree is in order, and cannot clash */
    return rc;
}

int aw_rollback(aw_writer *writer, const char *version, const char *expected,
                const aw_hooks *hooks, aw_result *result, aw_error *err)
{
    aw_txn t;
    int rc;

    aw_after_wait(writer);
    aw_txn_begin(&t, writer, NULL, hooks, err);
    t.choose = choose_origin;
    t.wanted = version;
    t.expected = expected;
    rc = aw_txn_finish(&t, aw_publish(&t), result);
    if (rc == 0)
        aw_after_tell(writer, result);
    aw_payload_free(t.payload);
    return rc;
}

/* ---- collecting and listing --------------------------------------------- */

/* What was in the way of a removal, as an error. */
static int tell_warning(const aw_result *result, aw_error *err)
{
    if (result->warnings.count == 0)
        return 0;
    return aw_fail(err, AW_E_IO, NULL, "%s", result->warnings.items[0]);
}

static int collect(aw_txn *t, size_t *removed, bool *pruned)
{
    aw_pruning how = { .live = t->live.name, .leased_max = SIZE_MAX,
                       .durable = aw_txn_is_durable(t) };

    if (aw_txn_take_lock(t) < 0 || aw_txn_read_live(t) < 0)
        return -1;
    if (t->live.fd < 0) /* the retained ones may be all that is left */
        return 0;
    if (aw_txn_survey(t) < 0
        || aw_recover_sweep(t->target, &t->scan, &t->live, NULL, aw_txn_is_durable(t),
                            &t->result, t->err) < 0)
        return -1;
    how.target = t->target;
    *removed = aw_recover_prune(&how, &t->scan, &t->result);
    *pruned = true;
    return tell_warning(&t->result, t->err);
}

int aw_collect(aw_writer *writer, size_t *removed, aw_error *err)
{
    aw_result unused = AW_RESULT_INIT;
    bool pruned = false;
    size_t count = 0;
    aw_txn t;
    int rc;

    aw_after_wait(writer);
    aw_txn_begin(&t, writer, NULL, NULL, err);
    rc = collect(&t, &count, &pruned);
    if (rc == 0 || pruned)
        *removed = count;
    return aw_txn_finish(&t, rc, &unused);
}

static int list_versions(const aw_txn *t, aw_version **versions, size_t *count)
{
    aw_version *list = calloc(t->scan.version_count + 1, sizeof *list);
    size_t found = 0;

    if (!list)
        return aw_fail_memory(t->err);
    for (size_t i = 0; i < t->scan.version_count; i++) {
        const char *name = t->scan.versions[i];

        if (t->live.name[0] == '\0' || aw_name_compare(name, t->live.name) > 0)
            continue; /* INV-1: unfinished */
        snprintf(list[found].name, sizeof list[found].name, "%s", name);
        list[found].time = aw_name_time(name);
        list[found].live = t->live.fd >= 0 && strcmp(name, t->live.name) == 0;
        found++;
    }
    if (found == 0) {
        free(list);
        list = NULL;
    }
    *versions = list;
    *count = found;
    return 0;
}

static int versions_once(aw_txn *t, aw_version **versions, size_t *count)
{
    t->target = aw_target_open(t->writer->target, t->err);
    if (t->target < 0 || aw_txn_read_live(t) < 0 || aw_txn_survey(t) < 0)
        return -1;
    return list_versions(t, versions, count);
}

int aw_versions(aw_writer *writer, aw_version **versions, size_t *count, aw_error *err)
{
    enum { ATTEMPTS_MAX = 100 };
    aw_result unused = AW_RESULT_INIT;
    aw_version *list = NULL;
    size_t listed = 0;
    aw_txn t;
    int rc;

    for (int i = 0;; i++) {
        bool last;

        aw_txn_begin(&t, writer, NULL, NULL, err);
        rc = versions_once(&t, &list, &listed);
        last = i + 1 == ATTEMPTS_MAX || !aw_txn_was_replaced(&t);
        (void)aw_txn_finish(&t, rc, &unused); /* there is nothing to undo */
        if (last)
            break;
        free(list);
        list = NULL;
    }
    if (rc < 0)
        return -1;
    *versions = list;
    *count = listed;
    return 0;
}
