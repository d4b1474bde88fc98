/* aw_after: see the header. */
#define _GNU_SOURCE /* LOCK_UN, AT_SYMLINK_NOFOLLOW */
#include "aw_after.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_recover.h"
#include "aw_snapshot.h"
#include "aw_sys.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

struct aw_after {
    pthread_t thread;
    int       pid;     /* whose thread it is: a forked child has none        */
    aw_txn    t;
    aw_result result;  /* its warnings                                       */
    aw_error  err;     /* nobody reads it                                    */
};

void aw_after_prune(aw_txn *t)
{
    aw_pruning how = { .target = t->target, .live = t->stage.name,
                       .keep = t->writer->options.keep, .leased_max = AW_LEASED_MAX,
                       .durable = aw_txn_is_durable(t), .guess = t->payload };

    if (t->live.fd >= 0)
        how.was = &t->live;
    (void)aw_recover_prune(&how, &t->scan, &t->result); /* how many does not matter */
}

/* ---- the work ---------------------------------------------------------- */

static void make_next(aw_txn *t)
{
    aw_error err;

    if (t->result.warnings.count > 0)
        return;
    if (aw_ahead_make(t->target, &t->lock, t->stage.fd, t->stage.name, &t->rules,
                      aw_txn_is_durable(t), &t->ahead, &err) < 0)
        return; /* then the next write links the files itself, and sweeps */
    t->scan.next = t->ahead.inode;
    aw_scan_one_came(&t->scan, AW_NAME_NEXT, AW_DIRECTORY, t->scan.next);
}

static void do_rest(aw_txn *t)
{
    if (t->leaves_pruning)
        aw_after_prune(t);
    aw_recover_drop_next(t->target, &t->scan, &t->result);
    if (t->prepares)
        make_next(t);
    if (t->draws_lines)
        t->no_lines = !aw_txn_settle(t);
}

/* What T found is the writer's now. The memo is there, or was handed over since. */
static void absorb(aw_writer *writer, aw_txn *t)
{
    aw_memo *memos[] = { &writer->memo, &writer->learned };

    writer->names = t->names;
    writer->no_lines = writer->no_lines || t->no_lines;
    aw_ahead_close(&writer->ahead);
    writer->ahead = t->ahead;
    t->ahead = (aw_ahead)AW_AHEAD_INIT;
    for (size_t i = 0; i < 2; i++) {
        if (strcmp(memos[i]->version, t->stage.name) == 0)
            aw_memo_set_line(memos[i], &t->line);
    }
}

/* ---- the thread -------------------------------------------------------- */

/* A child that was forked meanwhile has the lock's descriptor too, but not the lock. */
static void *run(void *argument)
{
    struct aw_after *after = argument;

    do_rest(&after->t);
    (void)aw_sys_flock(after->t.lock.fd, LOCK_UN);
    (void)aw_txn_finish(&after->t, 0, &after->result);
    return NULL;
}

static bool start(aw_txn *t)
{
    struct aw_after *after = malloc(sizeof *after);
    static const aw_result nothing = AW_RESULT_INIT;

    if (!after)
        return false;
    after->t = *t;
    after->t.result = nothing;
    after->t.untidy = t->result.warnings.count > 0;
    after->t.err = &after->err;
    after->t.payload = NULL; /* the caller's */
    after->t.hooks = NULL;
    after->t.meter = (aw_meter)AW_METER_INIT(NULL);
    after->result = nothing;
    after->pid = aw_sys_getpid();
    if (aw_sys_thread_start(&after->thread, run, after) < 0) {
        free(after);
        return false;
    }
    t->writer->after = after;
    return true;
}

bool aw_after_go_on(aw_txn *t)
{
    if ((t->leaves_pruning || t->prepares) && start(t))
        return true;
    do_rest(t);
    absorb(t->writer, t);
    return false;
}

/* In a forked child: the thread is the parent's, and so is what it works on. What the child
 * has of it is descriptors; with that of the lock it would hold it for longer than its parent. */
static void disown(struct aw_after *after)
{
    aw_close_fd(&after->t.lock.fd);
    aw_close_fd(&after->t.stage.fd);
    aw_close_fd(&after->t.live.fd);
    aw_close_fd(&after->t.target);
}

void aw_after_wait(aw_writer *writer)
{
    struct aw_after *after = writer->after;

    writer->after = NULL;
    if (!after)
        return;
    if (after->pid != aw_sys_getpid()) {
        disown(after);
        return;
    }
    (void)aw_sys_thread_join(after->thread); /* fails for what is no thread alone */
    absorb(writer, &after->t);
    for (size_t i = 0; i < after->result.warnings.count; i++)
        (void)aw_list_add(&writer->warnings, after->result.warnings.items[i], &after->err);
    aw_result_clear(&after->result);
    free(after);
}

void aw_after_tell(aw_writer *writer, aw_result *result)
{
    aw_error ignored; /* no memory to warn with */

    for (size_t i = 0; i < writer->warnings.count; i++)
        (void)aw_list_add(&result->warnings, writer->warnings.items[i], &ignored);
    aw_list_clear(&writer->warnings);
}

static void drop_ahead(const aw_writer *writer)
{
    aw_lock lock = AW_LOCK_INIT;
    aw_error ignored;
    struct stat st;
    int target = aw_target_open(writer->target, &ignored);

    if (target >= 0 && aw_lock_take(target, aw_lock_clock(), &lock, &ignored) == 0
        && aw_sys_fstatat(target, AW_NAME_NEXT, &st, AT_SYMLINK_NOFOLLOW) == 0
        && st.st_ino == writer->ahead.inode)
        (void)aw_at_remove_tree(target, AW_NAME_NEXT, &ignored);
    aw_close_fd(&lock.fd);
    aw_close_fd(&target);
}

void aw_after_end(aw_writer *writer)
{
    aw_after_wait(writer);
    if (writer->ahead.fd >= 0 && writer->ahead.pid == aw_sys_getpid())
        drop_ahead(writer);
    aw_ahead_close(&writer->ahead);
}
