/* aw_write: the writer, and the algorithm as a list.
 *
 * One write is one transaction (struct txn): what it has opened and made so
 * far. publish() takes it from step to step; finish() is the only way out, and
 * undoes in the reverse order of doing unless the swap has happened.
 */
#define _GNU_SOURCE /* O_DIRECTORY */
#include "aw_write.h"

#include "aw_at.h"
#include "aw_compare.h"
#include "aw_current.h"
#include "aw_error.h"
#include "aw_links.h"
#include "aw_lock.h"
#include "aw_name.h"
#include "aw_payload.h"
#include "aw_recover.h"
#include "aw_snapshot.h"
#include "aw_stage.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct aw_writer {
    char      *target;   /* absolute */
    aw_options options;
};

/* ---- the writer -------------------------------------------------------- */

static bool valid_options(const aw_options *o)
{
    const int64_t last_id = 4294967294, last_timeout = (int64_t)1 << 40;

    return o->default_mode >= 0 && o->default_mode <= 0777
           && o->dir_mode >= 0 && o->dir_mode <= 0777
           && o->uid >= AW_UNSET && o->uid <= last_id
           && o->gid >= AW_UNSET && o->gid <= last_id
           && (o->durability == AW_DURABLE || o->durability == AW_NOT_DURABLE)
           && o->lock_timeout >= 0 && o->lock_timeout <= last_timeout;
}

static int make_absolute(const char *path, char **absolute, aw_error *err)
{
    char cwd[PATH_MAX] = "";
    size_t length = strlen(path), size;
    const char *slash = "";

    while (length > 1 && path[length - 1] == '/')
        length--;
    if (path[0] != '/') {
        if (!aw_sys_getcwd(cwd, sizeof cwd))
            return aw_fail_io(err, "getcwd", path);
        slash = cwd[1] != '\0' ? "/" : ""; /* the root has its slash */
    }
    size = strlen(cwd) + 1 + length + 1;
    *absolute = malloc(size);
    if (!*absolute)
        return aw_fail_memory(err);
    snprintf(*absolute, size, "%s%s%.*s", cwd, slash, (int)length, path);
    return 0;
}

int aw_writer_open(const char *target, const aw_options *options, aw_writer **writer,
                   aw_error *err)
{
    static const aw_options defaults = AW_OPTIONS_INIT;
    aw_writer *made;
    int fd;

    if (options && !valid_options(options)) {
        errno = EINVAL;
        return aw_fail_io(err, "aw_writer_open", target);
    }
    if (target[0] == '\0')
        return aw_fail(err, AW_E_NO_TARGET, NULL, "the target's path is empty");
    made = calloc(1, sizeof *made);
    if (!made)
        return aw_fail_memory(err);
    made->options = options ? *options : defaults;
    if (make_absolute(target, &made->target, err) < 0) {
        free(made);
        return -1;
    }
    fd = aw_target_open(made->target, err);
    if (fd < 0 && !(made->options.create && err->code == AW_E_NO_TARGET && errno == ENOENT)) {
        aw_writer_close(made);
        return -1;
    }
    aw_close_fd(&fd);
    *writer = made;
    return 0;
}

const char *aw_writer_target(const aw_writer *writer)
{
    return writer->target;
}

void aw_writer_close(aw_writer *writer)
{
    if (!writer)
        return;
    free(writer->target);
    free(writer);
}

/* ---- a transaction ----------------------------------------------------- */

typedef struct txn {
    const aw_writer *writer;
    aw_payload      *payload;
    const aw_check  *check;
    int              target;
    int              lock;
    bool             may_create;    /* the target, if it is missing           */
    bool             made_target;   /* by this write                          */
    aw_live          live;
    bool             live_durable;  /* so says the note in "..lock"           */
    aw_scan          scan;
    char             newest[AW_VERSION_MAX]; /* the greatest name seen; or "" */
    aw_rules         rules;
    unsigned char   *actions;
    aw_stage         stage;
    aw_links         links;
    bool             committed;
    bool             rolling_back;
    const char      *wanted;        /* by a rollback: a version, or NULL      */
    int              origin;        /* the version rolled back to             */
    aw_tree          origin_tree;   /* its folders' names live here           */
    aw_result        result;
    aw_error        *err;
} txn;

static void begin(txn *t, const aw_writer *writer, aw_payload *payload, aw_error *err)
{
    static const txn blank = { 0 };
    static const aw_live no_live = AW_LIVE_INIT;
    static const aw_stage no_stage = AW_STAGE_INIT;

    *t = blank;
    t->writer = writer;
    t->payload = payload;
    t->target = t->lock = t->origin = -1;
    t->live = no_live;
    t->stage = no_stage;
    t->err = err;
}

static bool is_durable(const txn *t)
{
    return t->writer->options.durability == AW_DURABLE;
}

/* ---- (1) --------------------------------------------------------------- */

static int check_payload(txn *t)
{
    if (aw_payload_seal(t->payload, t->err) < 0)
        return -1;
    if (aw_payload_fits(t->payload, strlen(t->writer->target), t->err) < 0)
        return -1;
    for (size_t i = 0; i < t->payload->count; i++) {
        int fd;

        if (!t->payload->items[i].source)
            continue;
        fd = aw_item_open(&t->payload->items[i], NULL, t->err);
        if (fd < 0)
            return -1;
        aw_close_fd(&fd);
    }
    return 0;
}

/* ---- (2) --------------------------------------------------------------- */

static int make_target(txn *t)
{
    const char *path = t->writer->target;
    const aw_folder plain = { "", 0, AW_UNSET, AW_UNSET, AW_UNSET };
    aw_rules rules;
    aw_wish wish;

    if (aw_sys_mkdirat(AT_FDCWD, path, 0700) < 0) {
        if (errno == ENOENT)
            return aw_fail(t->err, AW_E_NO_TARGET, path, "its parent directory does not exist");
        return errno == EEXIST ? 0 : aw_fail_io(t->err, "mkdirat", path);
    }
    t->made_target = true;
    t->target = aw_target_open(path, t->err);
    if (t->target < 0)
        return -1;
    if (aw_rules_for(-1, &t->writer->options, &rules, t->err) < 0)
        return -1;
    wish = aw_wish_for_folder(&rules, &plain);
    if (aw_sys_fchmod(t->target, wish.mode) < 0)
        return aw_fail_io(t->err, "fchmod", path);
    if (aw_sys_fchown(t->target, wish.chown_uid, wish.chown_gid) < 0)
        return aw_fail_io(t->err, "fchown", path);
    return 0;
}

static int open_target(txn *t)
{
    t->target = aw_target_open(t->writer->target, t->err);
    if (t->target >= 0)
        return 0;
    if (!t->may_create || errno != ENOENT)
        return -1;
    if (make_target(t) < 0)
        return -1;
    if (t->target < 0) /* somebody else has made it just now */
        t->target = aw_target_open(t->writer->target, t->err);
    return t->target < 0 ? -1 : 0;
}

/* 1 when the path still leads to what is locked, else 0. */
static int is_same_target(const txn *t)
{
    struct stat held, named;

    if (aw_sys_fstat(t->target, &held) < 0)
        return aw_fail_io(t->err, "fstat", t->writer->target);
    if (aw_sys_fstatat(AT_FDCWD, t->writer->target, &named, 0) < 0)
        return 0;
    return held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

static int take_lock(txn *t)
{
    int64_t deadline = aw_lock_deadline(t->writer->options.lock_timeout);

    for (;;) {
        int same, locked;

        if (open_target(t) < 0)
            return -1;
        locked = aw_lock_take(t->target, deadline, &t->lock, t->err);
        if (locked < 0 && t->err->sys_errno != ENOENT)
            return -1;
        same = is_same_target(t);
        if (same == 1)
            return locked;
        if (same < 0)
            return -1;
        aw_close_fd(&t->lock); /* it was replaced while we waited */
        aw_close_fd(&t->target);
        t->made_target = false;
    }
}

/* ---- (3) --------------------------------------------------------------- */

static void keep_newest(txn *t, const char *version, size_t length)
{
    char name[AW_VERSION_MAX];

    snprintf(name, sizeof name, "%.*s", (int)length, version);
    if (t->newest[0] == '\0' || aw_name_compare(name, t->newest) > 0)
        memcpy(t->newest, name, sizeof name);
}

static void find_newest(txn *t)
{
    const size_t suffix = sizeof AW_NAME_RETIRED_SUFFIX - 1;

    if (t->live.name[0] != '\0')
        keep_newest(t, t->live.name, sizeof t->live.name);
    if (t->scan.version_count > 0)
        keep_newest(t, t->scan.versions[0], AW_VERSION_MAX);
    for (size_t i = 0; i < t->scan.retired_count; i++)
        keep_newest(t, t->scan.retired[i], strlen(t->scan.retired[i]) - suffix);
}

/* What is there, without a change to it. */
static int read_target(txn *t)
{
    if (aw_live_open(t->target, &t->live, t->err) < 0)
        return -1;
    if (aw_scan_target(t->target, &t->scan, t->err) < 0)
        return -1;
    find_newest(t);
    return aw_rules_for(t->target, &t->writer->options, &t->rules, t->err);
}

static int choose_origin(txn *t);

static int read_live(txn *t)
{
    if (read_target(t) < 0)
        return -1;
    t->live_durable = t->live.fd >= 0 && aw_lock_says_durable(t->lock, t->live.name);
    if (t->rolling_back && choose_origin(t) < 0)
        return -1;
    return aw_scan_check_foreign(&t->scan, t->payload, t->err);
}

/* ---- (4) (5) ----------------------------------------------------------- */

static int sweep(txn *t)
{
    return aw_recover_sweep(t->target, &t->scan, &t->live, t->payload, &t->result, t->err);
}

static int plan(txn *t)
{
    t->actions = calloc(t->payload->count + 1, 1);
    if (!t->actions)
        return aw_fail_memory(t->err);
    return aw_compare(t->target, &t->live, t->payload, &t->rules, t->actions, &t->result,
                      t->err);
}

/* ---- (6) (7) (8) (9) --------------------------------------------------- */

static int make_version(txn *t)
{
    return aw_stage_make(&t->stage, t->target, t->newest, t->err);
}

static int fill_version(txn *t)
{
    return aw_stage_fill(&t->stage, t->payload, t->live.fd, &t->rules, t->actions, &t->result,
                         t->err);
}

static int ask_check(txn *t)
{
    char reason[AW_ERROR_DETAIL_MAX] = "", *path;
    size_t size = strlen(t->writer->target) + 1 + sizeof t->stage.name;
    int refused;

    if (!t->check || !t->check->call)
        return 0;
    path = malloc(size);
    if (!path)
        return aw_fail_memory(t->err);
    snprintf(path, size, "%s/%s", t->writer->target, t->stage.name);
    refused = t->check->call(t->check->context, path, reason, sizeof reason);
    free(path);
    if (refused)
        return aw_fail(t->err, AW_E_CHECK_FAILED, NULL, "the check refused: %s",
                       reason[0] != '\0' ? reason : "it gave no reason");
    return aw_compare_names(t->payload, t->stage.fd, t->err);
}

/* What is linked needs a sync too unless it is known to have had one. */
static int sync_version(txn *t)
{
    unsigned which = AW_BIT(AW_WRITTEN);

    if (!is_durable(t))
        return 0;
    if (t->rolling_back || !t->live_durable)
        which |= AW_BIT(AW_LINKED);
    return aw_stage_sync(t->stage.fd, t->payload, t->actions, which, t->err);
}

/* ---- (10) (11) (12) ---------------------------------------------------- */

static int sync_target(txn *t)
{
    return is_durable(t) ? aw_sync_directory(t->target, ".", t->err) : 0;
}

/* The target's own name, unless a durable write has been here before. A parent
 * that we may not open is somebody else's to keep. */
static int sync_parent(txn *t)
{
    int fd, rc;

    if (!is_durable(t) || t->live_durable)
        return 0;
    fd = aw_at_open_dir(t->target, "..");
    if (fd < 0)
        return errno == EACCES ? 0 : aw_fail_io(t->err, "openat", "..");
    rc = aw_sys_fsync(fd);
    if (rc < 0 && (errno == EINVAL || errno == EROFS))
        rc = 0;
    if (rc < 0)
        aw_fail_io(t->err, "fsync", "..");
    aw_close_fd(&fd);
    return rc;
}

static int name_result(txn *t, const char *version, const char *previous)
{
    t->result.version = strdup(version);
    if (previous)
        t->result.previous = strdup(previous);
    return !t->result.version || (previous && !t->result.previous) ? aw_fail_memory(t->err) : 0;
}

static int stage_links(txn *t)
{
    if (name_result(t, t->stage.name, t->live.fd >= 0 ? t->live.name : NULL) < 0)
        return -1;
    if (aw_links_add(&t->links, &t->scan, t->payload, t->err) < 0)
        return -1;
    if (aw_links_stage(&t->links, t->stage.name, t->err) < 0)
        return -1;
    return sync_parent(t) < 0 ? -1 : sync_target(t);
}

static int swap(txn *t)
{
    if (aw_links_swap(&t->links, t->err) < 0)
        return -1;
    t->committed = true;
    return 0;
}

static int sync_swap(txn *t)
{
    if (sync_target(t) < 0)
        return -1;
    if (is_durable(t))
        aw_lock_note_durable(t->lock, t->stage.name);
    return 0;
}

/* ---- (13) (14) --------------------------------------------------------- */

static void prune(txn *t, const char *live)
{
    aw_recover_prune(t->target, &t->scan, live, t->writer->options.keep, is_durable(t), NULL,
                     &t->result);
}

static void tidy(txn *t)
{
    aw_links_drop_stale(t->target, &t->scan, t->payload, &t->result);
    prune(t, t->stage.name);
}

/* ---- when nothing differs ---------------------------------------------- */

/* What a write promises holds for this one too: every visible name is there,
 * and a durable write vouches for a version that another has written. */
static int confirm_live(txn *t)
{
    if (name_result(t, t->live.name, NULL) < 0)
        return -1;
    if (aw_links_add(&t->links, &t->scan, t->payload, t->err) < 0)
        return -1;
    if (is_durable(t) && !t->live_durable) {
        if (aw_stage_sync(t->live.fd, t->payload, t->actions, AW_BIT(AW_KEEP), t->err) < 0
            || sync_parent(t) < 0 || sync_target(t) < 0)
            return -1;
        aw_lock_note_durable(t->lock, t->live.name);
    } else if (t->links.count > 0 && sync_target(t) < 0) {
        return -1;
    }
    prune(t, t->live.name);
    return 0;
}

/* ---- the way out ------------------------------------------------------- */

/* A target that this write made goes again with it, unless somebody else has
 * put something there: their lock file is not the one that we hold. */
static void unmake_target(txn *t)
{
    if (!t->made_target || is_same_target(t) != 1)
        return;
    (void)aw_sys_unlinkat(t->target, AW_NAME_LOCK, 0);
    (void)aw_sys_unlinkat(AT_FDCWD, t->writer->target, AT_REMOVEDIR);
}

/* Undo unless committed, give up everything, hand out the result. */
static int finish(txn *t, int rc, aw_result *result)
{
    aw_error kept;

    if (rc < 0)
        t->err->committed = t->committed;
    kept = *t->err;
    aw_live_close(&t->live);   /* descriptors that undoing may need */
    aw_close_fd(&t->origin);
    if (rc < 0 && !t->committed) {
        aw_links_undo(&t->links);
        aw_stage_discard(&t->stage);
        unmake_target(t);
    }
    if (rc < 0)
        *t->err = kept;
    aw_close_fd(&t->stage.fd);
    aw_close_fd(&t->lock);
    aw_close_fd(&t->target);
    aw_links_clear(&t->links);
    aw_scan_clear(&t->scan);
    aw_tree_clear(&t->origin_tree);
    free(t->actions);
    if (rc == 0)
        *result = t->result;
    else
        aw_result_clear(&t->result);
    return rc;
}

/* ---- the algorithm ----------------------------------------------------- */

static int publish(txn *t)
{
    if (t->payload && check_payload(t) < 0) return -1;  /* (1) a rollback has none yet */
    if (take_lock(t) < 0)    return -1;                 /* (2) */
    t->links.target = t->target;
    if (read_live(t) < 0)    return -1;                 /* (3) */
    if (sweep(t) < 0)        return -1;                 /* (4) */
    if (plan(t) < 0)         return -1;                 /* (5) */
    if (!t->result.changed)
        return confirm_live(t);
    if (make_version(t) < 0) return -1;                 /* (6) */
    if (fill_version(t) < 0) return -1;                 /* (7) */
    if (ask_check(t) < 0)    return -1;                 /* (8) */
    if (sync_version(t) < 0) return -1;                 /* (9) */
    if (stage_links(t) < 0)  return -1;                 /* (10) */
    if (swap(t) < 0)         return -1;                 /* (11) the point of no return */
    if (sync_swap(t) < 0)    return -1;                 /* (12) */
    tidy(t);                                            /* (13) (14) */
    return 0;
}

int aw_write(aw_writer *writer, aw_payload *payload, const aw_check *check,
             aw_result *result, aw_error *err)
{
    txn t;

    begin(&t, writer, payload, err);
    t.check = check;
    t.may_create = writer->options.create;
    return finish(&t, publish(&t), result);
}

/* ---- rolling back ------------------------------------------------------ */

/* The retained version that is meant, as a name in the scan; or NULL. Those that
 * are newer than the live one were never live (INV-1). */
static const char *find_origin(const txn *t)
{
    for (size_t i = 0; i < t->scan.version_count; i++) {
        const char *version = t->scan.versions[i];

        if (t->live.name[0] == '\0' || aw_name_compare(version, t->live.name) > 0)
            continue;
        if (t->wanted ? strcmp(version, t->wanted) == 0 : strcmp(version, t->live.name) != 0)
            return version;
    }
    return NULL;
}

static int put_file(txn *t, aw_cursor *cursor, const aw_node *node)
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

static int put_node(txn *t, aw_cursor *cursor, const aw_node *node)
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

/* The payload of a rollback: what the version holds, as it is there. */
static int choose_origin(txn *t)
{
    const char *version = find_origin(t);
    aw_cursor cursor;
    int rc = 0;

    if (!version)
        return aw_fail(t->err, AW_E_NOT_FOUND, t->wanted, "there is no such retained version");
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

int aw_rollback(aw_writer *writer, const char *version, aw_result *result, aw_error *err)
{
    txn t;
    int rc;

    begin(&t, writer, NULL, err);
    t.rolling_back = true;
    t.wanted = version;
    rc = finish(&t, publish(&t), result);
    aw_payload_free(t.payload);
    return rc;
}

/* ---- without a change -------------------------------------------------- */

static void foretell(txn *t)
{
    for (size_t i = 0; i < t->payload->count; i++) {
        const aw_item *item = &t->payload->items[i];
        struct stat st;

        if (t->actions[i] == AW_KEEP && t->rules.options->reuse)
            t->result.linked += t->result.changed;
        else if (t->result.changed && item->data)
            t->result.bytes += item->size;
        else if (t->result.changed && aw_sys_fstatat(AT_FDCWD, item->source, &st, 0) == 0)
            t->result.bytes += (uint64_t)st.st_size;
    }
}

static int plan_once(txn *t)
{
    if (check_payload(t) < 0)
        return -1;
    t->target = aw_target_open(t->writer->target, t->err);
    if (t->target < 0 && (!t->writer->options.create || errno != ENOENT))
        return -1;
    if (t->target < 0 && aw_rules_for(-1, &t->writer->options, &t->rules, t->err) < 0)
        return -1;
    if (t->target >= 0
        && (read_target(t) < 0 || aw_scan_check_foreign(&t->scan, t->payload, t->err) < 0))
        return -1;
    if (plan(t) < 0)
        return -1;
    foretell(t);
    if (!t->result.changed)
        return name_result(t, t->live.name, NULL);
    if (t->live.fd < 0)
        return 0;
    t->result.previous = strdup(t->live.name);
    return t->result.previous ? 0 : aw_fail_memory(t->err);
}

/* Without a lock the version may be replaced and removed while it is compared:
 * then whatever was found does not count. */
static bool was_replaced(txn *t)
{
    char name[AW_VERSION_MAX];
    aw_error ignored;

    return t->target >= 0 && aw_live_name(t->target, name, &ignored) == 0
           && strcmp(name, t->live.name) != 0;
}

int aw_plan(aw_writer *writer, aw_payload *payload, aw_result *result, aw_error *err)
{
    enum { ATTEMPTS_MAX = 100 };
    txn t;

    for (int i = 0;; i++) {
        int rc;

        begin(&t, writer, payload, err);
        rc = plan_once(&t);
        if (i + 1 == ATTEMPTS_MAX || !was_replaced(&t))
            return finish(&t, rc, result);
        if (finish(&t, rc, result) == 0)
            aw_result_clear(result);
    }
}

int aw_collect(aw_writer *writer, size_t *removed, aw_error *err)
{
    aw_result result = AW_RESULT_INIT;
    size_t count = 0;
    txn t;
    int rc = -1;

    begin(&t, writer, NULL, err);
    if (take_lock(&t) == 0 && read_target(&t) == 0)
        rc = sweep(&t);
    if (rc == 0)
        aw_recover_prune(t.target, &t.scan, t.live.name, 0, is_durable(&t), &count, &t.result);
    rc = finish(&t, rc, &result);
    aw_result_clear(&result);
    if (rc == 0)
        *removed = count;
    return rc;
}

int aw_versions(aw_writer *writer, aw_version **versions, size_t *count, aw_error *err)
{
    aw_version *list = NULL;
    aw_result unused = AW_RESULT_INIT;
    size_t found = 0;
    txn t;
    int rc = -1;

    begin(&t, writer, NULL, err);
    t.target = aw_target_open(writer->target, err);
    if (t.target >= 0)
        rc = read_target(&t);
    if (rc == 0 && t.live.name[0] != '\0' && t.scan.version_count > 0) {
        list = calloc(t.scan.version_count, sizeof *list);
        if (!list)
            rc = aw_fail_memory(err);
    }
    for (size_t i = 0; list && i < t.scan.version_count; i++) {
        const char *name = t.scan.versions[i];

        if (aw_name_compare(name, t.live.name) > 0)
            continue; /* INV-1: unfinished */
        snprintf(list[found].name, sizeof list[found].name, "%s", name);
        list[found].time = aw_name_time(name);
        list[found].live = t.live.fd >= 0 && strcmp(name, t.live.name) == 0;
        found++;
    }
    rc = finish(&t, rc, &unused);
    if (rc < 0) {
        free(list);
        return -1;
    }
    *versions = list;
    *count = found;
    return 0;
}
