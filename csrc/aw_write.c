/* aw_write: the writer, and the algorithm as a list. */
#define _GNU_SOURCE /* AT_FDCWD */
#include "aw_write.h"

#include "aw_after.h"
#include "aw_at.h"
#include "aw_compare.h"
#include "aw_error.h"
#include "aw_links.h"
#include "aw_lock.h"
#include "aw_name.h"
#include "aw_recover.h"
#include "aw_snapshot.h"
#include "aw_stage.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the writer -------------------------------------------------------- */

static const int64_t last_timeout = (int64_t)1 << 40; /* no sum of it overflows */

static bool valid_options(const aw_options *o)
{
    const int64_t last_id = 4294967294;

    return o->default_mode >= 0 && o->default_mode <= 0777
           && o->dir_mode >= 0 && o->dir_mode <= 0777 && (o->dir_mode & 0500) == 0500
           && o->uid >= AW_UNSET && o->uid <= last_id
           && o->gid >= AW_UNSET && o->gid <= last_id
           && (o->durability == AW_DURABLE || o->durability == AW_NOT_DURABLE)
           && o->lock_timeout >= 0 && o->lock_timeout <= last_timeout;
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
    made->ahead = (aw_ahead)AW_AHEAD_INIT;
    if (aw_target_absolute(target, &made->target, err) < 0) {
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

void aw_writer_set_lock_timeout(aw_writer *writer, int64_t timeout)
{
    if (timeout > last_timeout)
        timeout = last_timeout;
    writer->options.lock_timeout = timeout > 0 ? timeout : 0;
}

void aw_writer_settle(aw_writer *writer)
{
    aw_after_wait(writer);
}

void aw_writer_close(aw_writer *writer)
{
    if (!writer)
        return;
    aw_after_end(writer);
    aw_list_clear(&writer->warnings);
    aw_memo_drop(&writer->learned);
    aw_memo_clear(&writer->memo);
    free(writer->target);
    free(writer);
}

/* ---- (1) --------------------------------------------------------------- */

static int check_payload(aw_txn *t)
{
    return t->choose ? 0 : aw_txn_check_payload(t); /* a rollback finds its own in (4) */
}

/* ---- (4) (5) ----------------------------------------------------------- */

/* Read the target's names, and see that nothing is in the payload's way. */
static int survey(aw_txn *t)
{
    if (aw_txn_survey(t) < 0)
        return -1;
    if (t->choose && t->choose(t, t->wanted) < 0)
        return -1;
    return aw_links_check(t->target, &t->scan, t->payload, t->untouched ? t->actions : NULL,
                          t->err);
}

static int sweep(aw_txn *t)
{
    if (t->choose) /* what it goes back to is found among the names */
        t->untouched = t->remembered = false;
    if (t->untouched)
        return 0;
    aw_txn_give_up_next(t); /* it is swept, too */
    if (survey(t) < 0)
        return -1;
    return aw_recover_sweep(t->target, &t->scan, &t->live, t->payload, aw_txn_is_durable(t),
                            &t->result, t->err);
}

static int plan(aw_txn *t)
{
    t->actions = calloc(t->payload->count + 1, 1);
    if (!t->actions)
        return aw_fail_memory(t->err);
    if (aw_compare(t->target, &t->live, t->payload, &t->rules, &t->writer->memo, &t->learned,
                   t->actions, &t->meter, &t->result, t->err) < 0)
        return -1;
    if (t->rules.edited) /* by somebody who may not have synced it */
        t->note.durable = false;
    return 0;
}

/* ---- (6) (7) (8) (9) --------------------------------------------------- */

/* Names are read if they have not been. A writer that knows them need not, while no visible
 * name comes or goes. */
static int know_names(aw_txn *t)
{
    if (!t->untouched)
        return 0;
    t->names_stay = t->remembered && t->result.added.count == 0 && t->result.removed.count == 0;
    return t->names_stay ? aw_txn_recall_names(t) : survey(t);
}

/* Whether what was made ahead of time is what the live version is, and it pays. */
static bool may_use_ahead(const aw_txn *t)
{
    const aw_memo *memo = &t->writer->memo;
    size_t half = t->result.unchanged * 2;

    return t->remembered && t->learned.as_known && half >= t->payload->count
           && half >= memo->count
           && aw_ahead_is_ready(&t->writer->ahead, t->live.name, memo->payload);
}

/* 1, or 0 when it cannot be, -1. */
static int use_ahead(aw_txn *t)
{
    if (!may_use_ahead(t)
        || aw_ahead_use(&t->writer->ahead, &t->stage, t->target, t->newest, t->err) < 0)
        return 0;
    t->touched = calloc(t->payload->folder_count + 1, 1);
    if (!t->touched)
        return aw_fail_memory(t->err);
    aw_scan_one_went(&t->scan, AW_NAME_NEXT, AW_DIRECTORY, t->scan.next);
    t->scan.next = 0;
    return 1;
}

/* Where stats may come from a cache, stamps prove nothing. */
static bool has_stamps(const aw_txn *t)
{
    aw_clock clock = t->learned.clock;

    return (clock == AW_CLOCK_UNKNOWN ? aw_clock_of(t->target) : clock) != AW_CLOCK_NONE;
}

static int make_version(aw_txn *t)
{
    int rc;

    t->draws_lines = t->draws_lines && has_stamps(t);
    if (know_names(t) < 0)
        return -1;
    t->links.target = t->target;
    /* The caller is told before anything is made: it may have to get ready to undo it. */
    if (aw_meter_begin(&t->meter, AW_WRITING, t->payload->count, t->err) < 0)
        return -1;
    t->writer->names.count = 0; /* they change from now on */
    rc = use_ahead(t);
    if (rc == 0)
        rc = aw_stage_make(&t->stage, t->target, t->newest, t->err);
    aw_txn_give_up_next(t); /* what is not used now never is */
    if (rc < 0)
        return -1;
    aw_scan_came(&t->scan, t->stage.name, AW_DIRECTORY);
    return 0;
}

/* The directories of the new version, while nobody else can have changed them: from behind
 * a line, so that whoever does from now on gives them another stamp. */
static void sketch_version(aw_txn *t)
{
    aw_stamp line;
    struct stat st;

    t->sketched = t->draws_lines && aw_lock_draw_line(&t->lock, &line)
                  && aw_memo_sketch(t->stage.fd, t->payload, NULL, NULL, &t->folders)
                  && aw_sys_fstat(t->stage.fd, &st) == 0;
    if (t->sketched)
        t->made = aw_stamp_of(&st);
}

static int fill_version(aw_txn *t)
{
    int rc;

    t->linking = aw_stamp_now();
    rc = t->touched ? aw_stage_amend(&t->stage, t->writer->memo.payload, t->payload, &t->rules,
                                     t->actions, t->touched, &t->meter, &t->result, t->err)
                    : aw_stage_fill(&t->stage, t->payload, t->live.fd, &t->rules, t->actions,
                                    &t->meter, &t->result, t->err);
    if (rc == 0)
        sketch_version(t);
    return rc;
}

static int ask_check(aw_txn *t)
{
    char reason[AW_ERROR_DETAIL_MAX] = "", *path;
    size_t size = strlen(t->writer->target) + 1 + sizeof t->stage.name;
    int refused;

    if (!t->hooks || !t->hooks->check)
        return 0;
    path = malloc(size);
    if (!path)
        return aw_fail_memory(t->err);
    snprintf(path, size, "%s/%s", t->writer->target, t->stage.name);
    refused = t->hooks->check(t->hooks->context, path, reason, sizeof reason);
    free(path);
    if (refused)
        return aw_fail(t->err, AW_E_CHECK_FAILED, NULL, "the check refused: %s",
                       reason[0] != '\0' ? reason : "it gave no reason");
    if (!aw_stage_is_there(&t->stage))
        return aw_fail(t->err, AW_E_CHECK_FAILED, t->stage.name,
                       "the check took the staged tree away");
    return aw_compare_names(t->payload, t->stage.fd, t->err);
}

/* What is linked needs a sync too unless it is known to have had one. One call that syncs all
 * does that for ..data_tmp as well, which is made before it; not where new visible names would
 * dangle meanwhile. */
static int sync_version(aw_txn *t)
{
    unsigned which = AW_BIT(AW_WRITTEN);
    bool at_once;

    if (!aw_txn_is_durable(t))
        return 0;
    if (t->choose || !t->note.durable)
        which |= AW_BIT(AW_LINKED);
    at_once = aw_stage_syncs_at_once(t->stage.fd, t->payload, t->actions, which, t->result.bytes);
    t->target_synced = at_once && t->names_stay;
    if (t->target_synced && aw_links_stage(&t->links, t->stage.name, t->err) < 0)
        return -1;
    return aw_stage_sync(t->stage.fd, t->payload, t->actions, which, t->touched, at_once,
                         &t->meter, t->err);
}

/* ---- (10) (11) (12) ---------------------------------------------------- */

static int sync_target(aw_txn *t)
{
    return aw_txn_is_durable(t) ? aw_sync_directory(t->target, ".", t->err) : 0;
}

/* The target's own name, unless a durable write has been here before. A parent
 * that we may not open is somebody else's to keep. */
static int sync_parent(aw_txn *t)
{
    int fd, rc;

    if (!aw_txn_is_durable(t) || t->note.durable)
        return 0;
    fd = aw_at_open_dir(t->target, "..");
    if (fd < 0 && errno == EACCES)
        return !t->made_target || aw_sys_syncfs(t->target) == 0
               ? 0 : aw_fail_io(t->err, "syncfs", "..");
    if (fd < 0)
        return aw_fail_io(t->err, "openat", "..");
    rc = aw_sys_fsync(fd);
    if (rc < 0 && (errno == EINVAL || errno == EROFS))
        rc = 0;
    if (rc < 0)
        aw_fail_io(t->err, "fsync", "..");
    aw_close_fd(&fd);
    return rc;
}

static int name_result(aw_txn *t, const char *version, const char *previous)
{
    t->result.version = strdup(version);
    if (previous)
        t->result.previous = strdup(previous);
    return !t->result.version || (previous && !t->result.previous) ? aw_fail_memory(t->err) : 0;
}

static int stage_links(aw_txn *t)
{
    if (name_result(t, t->stage.name, t->live.fd >= 0 ? t->live.name : NULL) < 0)
        return -1;
    if (!t->names_stay && aw_links_add(&t->links, &t->scan, t->payload, t->err) < 0)
        return -1;
    if (!t->links.staged && aw_links_stage(&t->links, t->stage.name, t->err) < 0)
        return -1;
    if (sync_parent(t) < 0)
        return -1;
    return t->target_synced ? 0 : sync_target(t);
}

/* A remote file system may rename and then lose its answer: what counts is what
 * "..data" says. If that cannot be read either, nothing is undone that readers
 * may be seeing already; the next write finds out. */
static int swap(aw_txn *t)
{
    char name[AW_VERSION_MAX];
    aw_error ignored;
    int rc = aw_links_swap(&t->links, t->err);

    if (rc == 0)
        t->committed = true;
    else if (aw_live_name(t->target, name, &ignored) == 0)
        t->committed = strcmp(name, t->stage.name) == 0;
    else
        t->in_doubt = true;
    return rc;
}

static int sync_swap(aw_txn *t)
{
    if (sync_target(t) < 0)
        return -1;
    if (aw_txn_is_durable(t))
        aw_txn_note_durable(t, t->stage.name, t->stage.fd);
    return 0;
}

/* ---- (13) (14) --------------------------------------------------------- */

static void tidy(aw_txn *t)
{
    if (!t->names_stay)
        aw_links_drop_stale(t->target, &t->scan, t->payload, &t->result);
    if (!t->leaves_pruning)
        aw_after_prune(t);
}

/* ---- when nothing differs ---------------------------------------------- */

static int sync_live(aw_txn *t)
{
    const unsigned which = AW_BIT(AW_KEEP);
    bool at_once = aw_stage_syncs_at_once(t->live.fd, t->payload, t->actions, which, 0);

    return aw_stage_sync(t->live.fd, t->payload, t->actions, which, NULL, at_once, &t->meter,
                         t->err);
}

/* A durable write vouches for what another has left: for names that are not
 * known to be synced, and for a version that is not. */
static int vouch_for_live(aw_txn *t)
{
    if (!aw_txn_is_durable(t) || (t->synced && t->note.durable))
        return 0;
    if (!t->note.durable && (sync_live(t) < 0 || sync_parent(t) < 0))
        return -1;
    if (sync_target(t) < 0)
        return -1;
    if (!t->note.durable)
        aw_txn_note_durable(t, t->live.name, t->live.fd);
    return 0;
}

/* The same of a target whose names the writer knows. */
static int confirm_remembered(aw_txn *t)
{
    if (vouch_for_live(t) < 0)
        return -1;
    if (!aw_txn_is_durable(t) || t->synced)
        return 0;
    if (aw_txn_recall_names(t) < 0)
        return -1;
    t->writer->names.synced = true;
    aw_txn_note_clean(t, t->scan.version_count - 1);
    return 0;
}

/* What a write promises holds for this one too. */
static int confirm_live(aw_txn *t)
{
    const aw_pruning how = { .target = t->target, .live = t->live.name,
                             .keep = t->writer->options.keep, .leased_max = AW_LEASED_MAX,
                             .durable = aw_txn_is_durable(t), .guess = t->payload };

    t->links.target = t->target;
    if (name_result(t, t->live.name, NULL) < 0)
        return -1;
    if (t->remembered)
        return confirm_remembered(t);
    if (t->untouched)
        return vouch_for_live(t);
    if (aw_links_add(&t->links, &t->scan, t->payload, t->err) < 0 || vouch_for_live(t) < 0)
        return -1;
    (void)aw_recover_prune(&how, &t->scan, &t->result);
    aw_txn_note_clean(t, t->scan.version_count - 1);
    return 0;
}

/* ---- the algorithm ----------------------------------------------------- */

int aw_publish(aw_txn *t)
{
    if (check_payload(t) < 0)       return -1;  /* (1) */
    if (aw_txn_take_lock(t) < 0)    return -1;  /* (2) */
    if (aw_txn_read_live(t) < 0)    return -1;  /* (3) */
    if (sweep(t) < 0)               return -1;  /* (4) */
    if (plan(t) < 0)                return -1;  /* (5) */
    if (!t->result.changed)
        return confirm_live(t);
    if (make_version(t) < 0)        return -1;  /* (6) */
    if (fill_version(t) < 0)        return -1;  /* (7) */
    if (ask_check(t) < 0)           return -1;  /* (8) */
    if (sync_version(t) < 0)        return -1;  /* (9) */
    if (stage_links(t) < 0)         return -1;  /* (10) */
    if (swap(t) < 0)                return -1;  /* (11) the point of no return */
    if (sync_swap(t) < 0)           return -1;  /* (12) */
    tidy(t);                                    /* (13) (14) */
    return 0;
}

/* What has been written is to be read once before it has a print. What has been linked has
 * another ctime now, from before the line that is still to be drawn. */
static void learn_new_version(aw_txn *t)
{
    aw_memo *learned = &t->learned;

    for (size_t i = 0; learned->prints && i < t->payload->count; i++) {
        if (t->actions[i] != AW_LINKED)
            learned->prints[i].inode = 0;
    }
    learned->from = t->linking;
    memcpy(learned->version, t->stage.name, sizeof learned->version);
    learned->device = t->seen.st_dev;
    learned->payload = t->payload;
    learned->count = t->payload->count;
    learned->replaced = t->payload->replaced;
    learned->listed = t->sketched;
    learned->folders = t->folders;
}

static void learn(aw_txn *t)
{
    if (t->result.changed)
        learn_new_version(t);
    t->payload->written = ++t->writer->writes;
    t->writer->learned = t->learned;
    t->learned = (aw_memo)AW_MEMO_INIT;
}

/* What pays, and what can be. Functions of the caller's may do what they like with files, and
 * take their time: there are no lines then. */
static void choose_ways(aw_txn *t)
{
    enum { FILES_MIN = 3 };
    const aw_options *options = &t->writer->options;
    bool called = t->hooks && (t->hooks->check || t->hooks->progress);

    t->draws_lines = t->payload->count >= FILES_MIN && !t->writer->no_lines && !called;
    t->leaves_pruning = options->early;
    t->prepares = options->prepare && options->reuse && t->draws_lines;
}

/* Whether the next write, if it is like this one, will link most files. Not below a setgid
 * target: what is made in directories that have got their mode has another group. */
static bool links_most(const aw_txn *t)
{
    return t->sketched && !(t->seen.st_mode & S_ISGID)
           && (!t->result.previous || 2 * t->result.linked >= t->payload->count);
}

int aw_write(aw_writer *writer, aw_payload *payload, const aw_hooks *hooks,
             aw_result *result, aw_error *err)
{
    aw_result done;
    aw_txn t;
    int rc;

    aw_after_wait(writer);
    aw_txn_begin(&t, writer, payload, hooks, err);
    t.may_create = writer->options.create;
    choose_ways(&t);
    rc = aw_publish(&t);
    if (rc == 0)
        learn(&t);
    t.prepares = t.prepares && rc == 0 && links_most(&t);
    done = t.result;
    if (rc == 0 && t.result.changed && aw_after_go_on(&t))
        *result = done;
    else
        rc = aw_txn_finish(&t, rc, result);
    if (rc == 0)
        aw_after_tell(writer, result);
    return rc;
}

void aw_writer_remember(aw_writer *writer, aw_payload *payload)
{
    bool last = payload && payload == writer->learned.payload
                && payload->written == writer->writes; /* no other one at the same place */

    if (last) {
        if (payload == writer->memo.payload)
            writer->memo.payload = NULL; /* it stays */
        aw_memo_clear(&writer->memo);
        writer->memo = writer->learned;
        writer->learned = (aw_memo)AW_MEMO_INIT;
    } else if (!payload || payload != writer->memo.payload) {
        aw_memo_clear(&writer->memo);
        aw_payload_free(payload);
    }
}

/* ---- without a change -------------------------------------------------- */

static void foretell(aw_txn *t)
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

static int plan_once(aw_txn *t)
{
    if (aw_txn_check_payload(t) < 0)
        return -1;
    if (aw_txn_open_target(t) < 0)
        return -1;
    if (t->target < 0)
        t->rules = aw_rules_for(NULL, &t->writer->options);
    if (t->target >= 0
        && (aw_txn_read_live(t) < 0 || survey(t) < 0))
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

int aw_plan(aw_writer *writer, aw_payload *payload, aw_result *result, aw_error *err)
{
    enum { ATTEMPTS_MAX = 100 };
    aw_txn t;

    for (int i = 0;; i++) {
        int rc;

        aw_txn_begin(&t, writer, payload, NULL, err);
        t.may_create = writer->options.create;
        rc = plan_once(&t);
        if (i + 1 == ATTEMPTS_MAX || !aw_txn_was_replaced(&t))
            return aw_txn_finish(&t, rc, result);
        if (aw_txn_finish(&t, rc, result) == 0)
            aw_result_clear(result);
    }
}
