/* aw_txn: see the header. */
#define _GNU_SOURCE /* O_DIRECTORY */
#include "aw_txn.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_lock.h"
#include "aw_name.h"
#include "aw_snapshot.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void aw_txn_begin(aw_txn *t, aw_writer *writer, aw_payload *payload, const aw_hooks *hooks,
                  aw_error *err)
{
    static const aw_txn blank = { 0 };
    static const aw_live no_live = AW_LIVE_INIT;
    static const aw_stage no_stage = AW_STAGE_INIT;

    *t = blank;
    t->writer = writer;
    t->payload = payload;
    t->hooks = hooks;
    t->meter = (aw_meter)AW_METER_INIT(hooks);
    t->target = t->origin = -1;
    t->lock = (aw_lock)AW_LOCK_INIT;
    t->ahead = (aw_ahead)AW_AHEAD_INIT;
    t->live = no_live;
    t->stage = no_stage;
    t->err = err;
    aw_memo_drop(&writer->learned);
}

bool aw_txn_is_durable(const aw_txn *t)
{
    return t->writer->options.durability == AW_DURABLE;
}

/* ---- (1) --------------------------------------------------------------- */

int aw_txn_check_payload(aw_txn *t)
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

static int look_at_target(aw_txn *t, int fd)
{
    return aw_sys_fstat(fd, &t->seen) < 0 ? aw_fail_io(t->err, "fstat", t->writer->target) : 0;
}

static int make_target(aw_txn *t)
{
    const char *path = t->writer->target;
    const aw_folder plain = { "", 0, AW_UNSET, AW_UNSET, AW_UNSET };
    aw_rules rules = aw_rules_for(NULL, &t->writer->options);
    aw_wish wish = aw_wish_for_folder(&rules, &plain);

    t->target = aw_at_make_dir(AT_FDCWD, path);
    if (t->target < 0) {
        if (errno == ENOENT)
            return aw_fail(t->err, AW_E_NO_TARGET, path, "its parent directory does not exist");
        return errno == EEXIST ? 0 : aw_fail_io(t->err, "mkdirat", path);
    }
    t->made_target = true;
    if (look_at_target(t, t->target) < 0)
        return -1;
    if (aw_sys_fchmod(t->target, wish.mode | 0300) < 0)
        return aw_fail_io(t->err, "fchmod", path);
    if (aw_sys_fchown(t->target, wish.chown_uid, wish.chown_gid) < 0)
        return aw_fail_io(t->err, "fchown", path);
    return 0;
}

/* A writer asks once for each directory that it finds at its path: the answer
 * takes a sixth of the time of a small write that changes nothing. */
static int refuse_version(aw_txn *t, int fd)
{
    aw_writer *writer = t->writer;

    if (fd >= 0 && look_at_target(t, fd) < 0)
        return -1;
    if (fd >= 0 && t->seen.st_dev == writer->dev && t->seen.st_ino == writer->ino)
        return 0;
    if (aw_refuse_version(fd, writer->target, t->err) < 0)
        return -1;
    if (fd >= 0) {
        writer->dev = t->seen.st_dev;
        writer->ino = t->seen.st_ino;
    }
    return 0;
}

int aw_txn_open_target(aw_txn *t)
{
    int fd = aw_target_open(t->writer->target, t->err);

    if (fd < 0 && (!t->may_create || errno != ENOENT))
        return -1;
    if (refuse_version(t, fd) < 0) {
        aw_close_fd(&fd);
        return -1;
    }
    t->target = aw_take_fd(&fd);
    return 0;
}

static int open_or_make_target(aw_txn *t)
{
    if (aw_txn_open_target(t) < 0)
        return -1;
    if (t->target >= 0)
        return 0;
    if (make_target(t) < 0)
        return -1;
    if (t->target >= 0)
        return 0;
    t->target = aw_target_open(t->writer->target, t->err); /* somebody else has made it just now */
    return t->target < 0 ? -1 : look_at_target(t, t->target);
}

/* 1 when the path still leads to what is locked, which is then SEEN as it is now; else 0. */
static int is_same_target(aw_txn *t)
{
    struct stat named;

    if (aw_sys_fstatat(AT_FDCWD, t->writer->target, &named, 0) < 0)
        return errno == ENOENT || errno == ENOTDIR
               ? 0 : aw_fail_io(t->err, "fstatat", t->writer->target);
    if (t->seen.st_dev != named.st_dev || t->seen.st_ino != named.st_ino)
        return 0;
    t->seen = named;
    return 1;
}

int aw_txn_take_lock(aw_txn *t)
{
    enum { ATTEMPTS_MAX = 1000 };
    int64_t deadline = aw_lock_deadline(t->writer->options.lock_timeout);

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        int same, locked;

        if (open_or_make_target(t) < 0)
            return -1;
        locked = aw_lock_take(t->target, deadline, &t->lock, t->err);
        if (locked < 0 && t->err->sys_errno != ENOENT)
            return -1;
        same = is_same_target(t);
        if (same == 1)
            return locked;
        if (same < 0)
            return -1;
        aw_close_fd(&t->lock.fd); /* it was replaced while we waited */
        aw_close_fd(&t->target);
        t->made_target = false;
    }
    return aw_fail(t->err, AW_E_NO_TARGET, t->writer->target,
                   "it is replaced again and again while it is being locked");
}

/* ---- (3) --------------------------------------------------------------- */

static void keep_newest(aw_txn *t, const char *version, size_t length)
{
    char name[AW_VERSION_MAX];

    snprintf(name, sizeof name, "%.*s", (int)length, version);
    if (t->newest[0] == '\0' || aw_name_compare(name, t->newest) > 0)
        memcpy(t->newest, name, sizeof name);
}

static void find_newest(aw_txn *t)
{
    const size_t suffix = sizeof AW_NAME_RETIRED_SUFFIX - 1;

    if (t->live.name[0] != '\0')
        keep_newest(t, t->live.name, sizeof t->live.name);
    if (t->scan.version_count > 0)
        keep_newest(t, t->scan.versions[0], AW_VERSION_MAX);
    for (size_t i = 0; i < t->scan.retired_count; i++)
        keep_newest(t, t->scan.retired[i], strlen(t->scan.retired[i]) - suffix);
}

int aw_txn_survey(aw_txn *t)
{
    aw_stamp now = aw_stamp_clock();

    t->surveyed = aw_stamp_of(&t->seen);
    t->sure = aw_stamp_is_settled(&t->surveyed, &now);
    if (aw_scan_target(t->target, &t->scan, t->err) < 0)
        return -1;
    find_newest(t);
    return 0;
}

int aw_txn_recall_names(aw_txn *t)
{
    const aw_names *names = &t->writer->names;

    t->scan.versions = calloc(names->count, sizeof *t->scan.versions);
    if (!t->scan.versions)
        return aw_fail_memory(t->err);
    t->scan.version_room = names->count;
    for (size_t i = 0; i < names->count; i++) {
        const char *name = aw_arena_copy(&t->scan.arena, names->versions[i],
                                         strlen(names->versions[i]));

        if (!name)
            return aw_fail_memory(t->err);
        t->scan.versions[t->scan.version_count++] = name;
    }
    t->scan.sketch = names->sketch;
    t->scan.next = t->writer->ahead.fd >= 0 ? t->writer->ahead.inode : 0;
    t->surveyed = names->stamp;
    t->sure = true; /* a line was drawn behind it */
    find_newest(t);
    return 0;
}

static void identify(aw_note *note, const char *version, const struct stat *st)
{
    snprintf(note->version, sizeof note->version, "%s", version);
    note->inode = (uint64_t)st->st_ino;
    note->version_stamp = aw_stamp_of(st);
}

/* Whether NOTE is about the directory that ST is of, and nobody has changed that since. */
static bool is_about(const aw_note *note, const char *version, const struct stat *st)
{
    aw_note same = *note;

    identify(&same, version, st);
    return strcmp(note->version, same.version) == 0 && note->inode == same.inode
           && aw_stamp_compare(&note->version_stamp, &same.version_stamp) == 0;
}

/* A writer that retains fewer versions believes less; and so does one that wants the names
 * synced, for after a power cut a note may say more than there is. What it remembers it has
 * seen since. */
static void believe_note(aw_txn *t)
{
    static const aw_note none = AW_NOTE_INIT;
    const aw_names *names = &t->writer->names;
    aw_stamp stamp = aw_stamp_of(&t->seen), version = aw_stamp_of(&t->live.st);
    bool clean;

    aw_lock_read_note(t->lock.fd, &t->note);
    if (t->live.fd < 0 || !is_about(&t->note, t->live.name, &t->live.st))
        t->note = none;
    clean = t->note.clean && aw_stamp_compare(&stamp, &t->note.target_stamp) == 0
            && t->note.retained <= t->writer->options.keep;
    t->remembered = names->count > 0 && t->live.fd >= 0
                    && aw_stamp_compare(&stamp, &names->stamp) == 0
                    && aw_stamp_compare(&version, &names->version) == 0
                    && strcmp(names->versions[0], t->live.name) == 0;
    t->synced = (clean && t->note.synced) || (t->remembered && names->synced);
    t->untouched = t->remembered || (clean && (t->note.synced || !aw_txn_is_durable(t)));
}

int aw_txn_read_live(aw_txn *t)
{
    if (aw_live_open(t->target, &t->live, t->err) < 0)
        return -1;
    if (t->lock.fd >= 0)
        believe_note(t);
    else if (aw_sys_fstat(t->target, &t->seen) < 0)
        return aw_fail_io(t->err, "fstat", ".");
    t->rules = aw_rules_for(&t->seen, &t->writer->options);
    t->rules.locked = t->lock.fd >= 0;
    return 0;
}

bool aw_txn_was_replaced(const aw_txn *t)
{
    char name[AW_VERSION_MAX];
    aw_error ignored;

    return t->target >= 0 && aw_live_name(t->target, name, &ignored) == 0
           && strcmp(name, t->live.name) != 0;
}

/* Make the note be about VERSION. What it said of another is forgotten. */
static bool turn_note_to(aw_txn *t, const char *version, int fd)
{
    static const aw_note none = AW_NOTE_INIT;
    struct stat st;

    if (aw_sys_fstat(fd, &st) < 0)
        return false;
    if (!is_about(&t->note, version, &st))
        t->note = none;
    identify(&t->note, version, &st);
    return true;
}

void aw_txn_note_durable(aw_txn *t, const char *version, int fd)
{
    if (!turn_note_to(t, version, fd))
        return;
    t->note.durable = true;
    aw_lock_write_note(&t->lock, &t->note);
}

/* What was made ahead of time is nothing that others should find. */
void aw_txn_note_clean(aw_txn *t, size_t retained)
{
    aw_stamp stamp;
    struct stat st;

    if (!t->sure || t->scan.next != 0 || retained > t->writer->options.keep
        || t->result.warnings.count > 0
        || aw_sys_fstat(t->target, &st) < 0)
        return;
    stamp = aw_stamp_of(&st);
    if (aw_stamp_compare(&stamp, &t->surveyed) != 0
        || !turn_note_to(t, t->live.name, t->live.fd))
        return;
    t->note.clean = true;
    t->note.synced = aw_txn_is_durable(t);
    t->note.target_stamp = stamp;
    t->note.retained = retained;
    aw_lock_write_note(&t->lock, &t->note);
}

/* ---- when all is done ---------------------------------------------------- */

/* The new version is the newest; the target's ctime is STAMP. */
static void remember_names(aw_txn *t, const aw_stamp *stamp)
{
    aw_names *names = &t->names;

    if (t->scan.version_count >= AW_NAMES_MAX || !t->sketched)
        return;
    memcpy(names->versions[0], t->stage.name, sizeof t->stage.name);
    for (size_t i = 0; i < t->scan.version_count; i++)
        snprintf(names->versions[i + 1], AW_VERSION_MAX, "%s", t->scan.versions[i]);
    names->count = t->scan.version_count + 1;
    names->stamp = *stamp;
    names->version = t->made;
    names->sketch = t->scan.sketch;
}

static void note_names(aw_txn *t, const aw_stamp *stamp)
{
    if (t->scan.next != 0 || !turn_note_to(t, t->stage.name, t->stage.fd))
        return;
    t->note.clean = true;
    t->note.synced = false; /* not what was tidied up */
    t->note.target_stamp = *stamp;
    t->note.retained = t->scan.version_count;
    aw_lock_write_note(&t->lock, &t->note);
}

bool aw_txn_settle(aw_txn *t)
{
    size_t retained = t->scan.version_count;
    aw_stamp stamp;
    struct stat st;

    if (!aw_lock_draw_line(&t->lock, &t->line)) {
        t->line = (aw_stamp) { 0, 0 };
        return false;
    }
    if (t->untidy || t->result.warnings.count > 0 || retained > t->writer->options.keep
        || aw_sys_fstat(t->target, &st) < 0)
        return true;
    stamp = aw_stamp_of(&st); /* before the line, so that whoever comes now gives another */
    if (aw_stamp_compare(&stamp, &t->line) >= 0 || !aw_scan_is_right(t->target, &t->scan))
        return true;
    remember_names(t, &stamp);
    note_names(t, &stamp);
    return true;
}

/* ---- the way out ------------------------------------------------------- */

void aw_txn_give_up_next(aw_txn *t)
{
    t->gave_up_next = t->gave_up_next || t->writer->ahead.fd >= 0;
    aw_ahead_close(&t->writer->ahead);
    t->writer->names.count = 0;
}

/* Who fails leaves nothing of his. */
static void drop_next(aw_txn *t)
{
    aw_error ignored;

    if (t->gave_up_next)
        (void)aw_at_remove_tree(t->target, AW_NAME_NEXT, &ignored); /* else the next write */
}

/* A target that this write made goes again with it, unless somebody else has
 * put something there. The lock file goes only while we hold it: it may be
 * another writer's by now. */
static void unmake_target(aw_txn *t)
{
    aw_error *first = t->err, ignored;

    t->err = &ignored; /* the failure that brought us here is the one to tell */
    if (t->made_target && look_at_target(t, t->target) == 0 && is_same_target(t) == 1) {
        if (t->lock.fd >= 0)
            (void)aw_sys_unlinkat(t->target, AW_NAME_LOCK, 0);
        (void)aw_sys_unlinkat(AT_FDCWD, t->writer->target, AT_REMOVEDIR);
    }
    t->err = first;
}

int aw_txn_finish(aw_txn *t, int rc, aw_result *result)
{
    aw_live_close(&t->live);   /* descriptors that undoing may need */
    aw_close_fd(&t->origin);
    if (rc < 0)
        t->err->committed = t->committed;
    if (rc < 0 && !t->committed && !t->in_doubt) {
        aw_links_undo(&t->links);
        aw_stage_discard(&t->stage);
        drop_next(t);
        unmake_target(t);
    }
    aw_close_fd(&t->stage.fd);
    aw_close_fd(&t->lock.fd);
    aw_close_fd(&t->target);
    aw_links_clear(&t->links);
    aw_scan_clear(&t->scan);
    aw_tree_clear(&t->origin_tree);
    free(t->actions);
    free(t->touched);
    aw_memo_drop(&t->learned);
    if (rc == 0)
        *result = t->result;
    else
        aw_result_clear(&t->result);
    return rc;
}
