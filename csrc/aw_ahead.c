/* aw_ahead: see the header. */
#define _GNU_SOURCE /* LOCK_SH */
#include "aw_ahead.h"

#include "aw_at.h"
#include "aw_current.h"
#include "aw_error.h"
#include "aw_lock.h"
#include "aw_memo.h"
#include "aw_name.h"
#include "aw_sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

/* The payload that says what is in TREE. Directories can be changed by who is to put files
 * into them; the version's own is the writer's alone until it is used. */
static int describe(const aw_tree *tree, int live, aw_payload **payload, aw_error *err)
{
    if (aw_payload_new(payload, err) < 0)
        return -1;
    (*payload)->origin = live;
    (*payload)->sealed = true; /* the tree is in order */
    for (size_t i = 0; i < tree->count; i++) {
        const aw_node *node = &tree->nodes[i];
        aw_folder folder = { node->path, node->length, node->length > 0 ? node->mode | 0300 : 0700,
                             node->uid, node->gid };
        aw_item item = { .path = node->path, .length = node->length, .mode = 0 };
        int rc = -1;

        if (node->type == AW_FILE)
            rc = aw_payload_put(*payload, &item, err);
        else if (node->type == AW_DIRECTORY && !node->unreadable)
            rc = aw_payload_put_folder(*payload, &folder, err);
        else
            aw_fail(err, AW_E_FOREIGN_ENTRY, node->path, "nothing that a writer makes");
        if (rc < 0)
            return -1;
    }
    (*payload)->sealed = true; /* putting says that it may be no more */
    return 0;
}

static int fill(aw_stage *stage, const aw_payload *payload, const aw_rules *rules, bool durable,
                aw_error *err)
{
    aw_meter meter = AW_METER_INIT(NULL);
    aw_result result = AW_RESULT_INIT;
    aw_rules links = *rules;
    unsigned char *actions = malloc(payload->count + 1);
    int rc = -1;

    if (!actions)
        return aw_fail_memory(err);
    memset(actions, AW_KEEP, payload->count + 1);
    links.links_only = true;
    if (aw_stage_fill(stage, payload, -1, &links, actions, &meter, &result, err) == 0)
        rc = durable ? aw_stage_sync(stage->fd, payload, actions, 0, NULL, false, &meter, err) : 0;
    free(actions);
    return rc;
}

/* The lease tells who inspects that it is nobody's residue. */
static int make(int target, const aw_lock *lock, const aw_payload *payload, const char *version,
                const aw_rules *rules, bool durable, aw_ahead *ahead, aw_error *err)
{
    aw_stage stage = AW_STAGE_INIT;
    aw_stamp line;
    struct stat st;
    int rc = -1;

    stage.target = target;
    stage.fd = aw_at_make_dir(target, AW_NAME_NEXT);
    if (stage.fd < 0)
        return aw_fail_io(err, "mkdirat", AW_NAME_NEXT);
    memcpy(stage.name, AW_NAME_NEXT, sizeof AW_NAME_NEXT);
    if (aw_sys_flock(stage.fd, LOCK_SH | LOCK_NB) < 0) {
        aw_fail_io(err, "flock", AW_NAME_NEXT); /* it would look like residue */
    } else if (fill(&stage, payload, rules, durable, err) == 0) {
        if (aw_sys_fstat(stage.fd, &st) < 0 || !aw_lock_draw_line(lock, &line)
            || !aw_memo_sketch(stage.fd, payload, NULL, NULL, &ahead->folders))
            aw_fail(err, AW_E_IO, AW_NAME_NEXT, "it cannot be told from a changed one");
        else
            rc = 0;
    }
    if (rc < 0) {
        aw_stage_discard(&stage);
        return -1;
    }
    memcpy(ahead->of, version, strlen(version) + 1);
    ahead->inode = st.st_ino;
    ahead->pid = aw_sys_getpid();
    ahead->fd = aw_take_fd(&stage.fd);
    return 0;
}

int aw_ahead_make(int target, const aw_lock *lock, int live, const char *version,
                  const aw_rules *rules, bool durable, aw_ahead *ahead, aw_error *err)
{
    aw_tree tree = AW_TREE_INIT;
    aw_payload *payload = NULL;
    int rc = -1;

    if (aw_tree_read(live, &tree, err) == 0 && describe(&tree, live, &payload, err) == 0)
        rc = make(target, lock, payload, version, rules, durable, ahead, err);
    aw_payload_free(payload);
    aw_tree_clear(&tree);
    return rc;
}

bool aw_ahead_is_ready(const aw_ahead *ahead, const char *version, const aw_payload *payload)
{
    uint64_t now;

    return ahead->fd >= 0 && strcmp(ahead->of, version) == 0
           && aw_memo_sketch(ahead->fd, payload, NULL, NULL, &now) && now == ahead->folders;
}

int aw_ahead_use(aw_ahead *ahead, aw_stage *stage, int target, const char *newest, aw_error *err)
{
    if (aw_stage_name(stage, target, newest, err) < 0)
        return -1;
    if (aw_sys_renameat(target, AW_NAME_NEXT, target, stage->name) < 0)
        return aw_fail_io(err, "renameat", AW_NAME_NEXT);
    (void)aw_sys_flock(ahead->fd, LOCK_UN); /* it would pass for a reader's */
    stage->fd = aw_take_fd(&ahead->fd);
    return 0;
}

void aw_ahead_close(aw_ahead *ahead)
{
    aw_close_fd(&ahead->fd);
}
