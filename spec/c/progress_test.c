/* progress_test.c: the progress hook: when it is called, with what, and what its
 * no comes to at each of its calls.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what the hook is told --------------------------------------------- */

enum { CALLS_MAX = 4000 };

typedef struct diary {
    aw_progress calls[CALLS_MAX];
    size_t      count;
    size_t      stop_at;      /* cancel at this call, counted from 1; or 0   */
    const char *reason;       /* to give then; or NULL                       */
    char        live[64];     /* what "..data" said before                   */
    size_t      too_late;     /* calls that saw another                      */
} diary;

static diary seen;

static void begin_diary(size_t stop_at, const char *reason)
{
    char *live = live_name("target");

    memset(&seen, 0, sizeof seen);
    seen.stop_at = stop_at;
    seen.reason = reason;
    snprintf(seen.live, sizeof seen.live, "%s", live ? live : "");
    free(live);
}

static int note(void *context, const aw_progress *progress, char *reason, size_t size)
{
    diary *d = context;
    char *live = live_name("target");

    d->too_late += strcmp(live ? live : "", d->live) != 0;
    free(live);
    if (d->count < CALLS_MAX)
        d->calls[d->count] = *progress;
    d->count++;
    if (d->count != d->stop_at)
        return 0;
    if (d->reason)
        snprintf(reason, size, "%s", d->reason);
    return 1;
}

static const aw_hooks hooks = { NULL, note, &seen };

static aw_writer *durable_writer(void)
{
    aw_options options = AW_OPTIONS_INIT;
    aw_writer *writer = NULL;
    aw_error err;

    options.create = true;
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    return writer;
}

static int noted_write(const file *files, aw_error *err)
{
    aw_writer *writer = durable_writer();
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    int rc = aw_write(writer, payload, &hooks, &result, err);

    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
    return rc;
}

/* Each phase begins with no file done and ends with all, in steps of one file or
 * less, and bytes only grow. */
static void check_diary(const aw_phase *phases, size_t phase_count, const size_t *totals)
{
    size_t at = 0;

    for (size_t p = 0; p < phase_count; p++) {
        aw_progress last = { phases[p], 0, totals[p], 0 };

        CHECK_THAT(at < seen.count && seen.calls[at].files == 0 && seen.calls[at].bytes == 0,
                   "phase %zu does not begin with nothing done", p);
        for (; at < seen.count && seen.calls[at].phase == phases[p]; at++) {
            const aw_progress *call = &seen.calls[at];

            CHECK_THAT(call->total == totals[p], "call %zu: total %zu", at, call->total);
            CHECK_THAT(call->files >= last.files && call->files <= last.files + 1,
                       "call %zu: from %zu to %zu files", at, last.files, call->files);
            CHECK_THAT(call->bytes >= last.bytes && call->bytes <= last.bytes + (4 << 20),
                       "call %zu: from %zu to %zu bytes", at, (size_t)last.bytes,
                       (size_t)call->bytes);
            last = *call;
        }
        CHECK_THAT(last.files == totals[p], "phase %zu ends with %zu files", p, last.files);
    }
    CHECK_THAT(at == seen.count, "%zu calls, and %zu more", at, seen.count - at);
    CHECK_THAT(seen.too_late == 0, "%zu calls after the swap", seen.too_late);
}

#define OLD FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "3"), F("old", "4"))
#define NEW FILES(F("a", "1"), FM("d/x", "two", 0600), F("d/e/y", "three"), F("new", "four"))

TEST(phases, "a write tells of every file compared, written and synced, and not after the swap")
{
    const aw_phase phases[] = { AW_COMPARING, AW_WRITING, AW_SYNCING };
    aw_error err;

    begin_diary(0, NULL);
    CHECK_OK(noted_write(OLD, &err), &err);
    check_diary(phases, 3, (const size_t[]){ 4, 4, 4 });
    begin_diary(0, NULL);
    CHECK_OK(noted_write(NEW, &err), &err);
    check_diary(phases, 3, (const size_t[]){ 4, 4, 3 });
    CHECK_CLEAN("target", NEW, 1);
}

TEST(no_op, "a write that changes nothing tells of what it compares")
{
    const aw_phase phases[] = { AW_COMPARING };
    aw_error err;

    CHECK_OK(noted_write(OLD, &err), &err);
    begin_diary(0, NULL);
    CHECK_OK(noted_write(OLD, &err), &err);
    check_diary(phases, 1, (const size_t[]){ 4 });
    CHECK(seen.calls[seen.count - 1].bytes == 4);
}

TEST(rollback, "a rollback tells of the same phases")
{
    const aw_phase phases[] = { AW_COMPARING, AW_WRITING };
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(OLD);
    must_write(NEW);
    begin_diary(0, NULL);
    CHECK_OK(aw_rollback(writer, NULL, NULL, &hooks, &result, &err), &err);
    check_diary(phases, 2, (const size_t[]){ 4, 4 });
    CHECK_CLEAN("target", OLD, 1);
    aw_result_clear(&result);
    aw_writer_close(writer);
}

TEST(many, "a sync of everything at once tells of its beginning and its end")
{
    enum { COUNT = 60 };
    static char names[COUNT][16];
    static file files[COUNT + 1];
    aw_error err;

    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "f%02zu", i);
        files[i] = (file)F(names[i], "contents");
    }
    begin_diary(0, NULL);
    CHECK_OK(noted_write(files, &err), &err);
    CHECK(seen.calls[seen.count - 1].phase == AW_SYNCING);
    CHECK(seen.calls[seen.count - 1].files == COUNT);
    CHECK(seen.calls[seen.count - 1].total == COUNT);
    CHECK(seen.too_late == 0);
}

/* Of what is large, at least every four MiB is told. */
enum { LARGE = 10 << 20 };

static char large[LARGE + 1];

static void tells_of_bytes(const file *files)
{
    const aw_phase phases[] = { AW_COMPARING, AW_WRITING, AW_SYNCING };
    aw_error err;

    begin_diary(0, NULL);
    CHECK_OK(noted_write(files, &err), &err);
    check_diary(phases, 3, (const size_t[]){ 1, 1, 1 });
    begin_diary(0, NULL);
    CHECK_OK(noted_write(files, &err), &err);
    check_diary(phases, 1, (const size_t[]){ 1 });
    CHECK(seen.calls[seen.count - 1].bytes == LARGE);
}

TEST(large_source, "a large source tells every few MiB how far its copy, or its comparison, is")
{
    memset(large, 'x', LARGE);
    disk_write("source", large, 0644);
    tells_of_bytes(FILES(FS("big", "source", large)));
}

TEST(large_data, "large data tells every few MiB how far it is")
{
    memset(large, 'x', LARGE);
    tells_of_bytes(FILES(F("big", large)));
}

/* ---- cancelling -------------------------------------------------------- */

TEST(reason, "a cancelled write is an error of its own, with the reason that the hook gave")
{
    char text[AW_ERROR_TEXT_MAX];
    aw_error err;

    begin_diary(1, "the user has changed his mind");
    CHECK(noted_write(OLD, &err) < 0);
    CHECK(err.code == AW_E_CANCELLED && !err.committed && err.sys_errno == 0);
    CHECK_TEXT(aw_code_name(err.code), "cancelled");
    CHECK_TEXT(aw_error_text(&err, text, sizeof text), "cancelled: the user has changed his mind");
    begin_diary(2, NULL);
    CHECK(noted_write(OLD, &err) < 0);
    CHECK_TEXT(aw_error_text(&err, text, sizeof text), "cancelled");
}

typedef struct situation {
    const char *what;
    void      (*prepare)(void);
    int       (*act)(aw_error *err);
    const file *after;
} situation;

static int write_new(aw_error *err)
{
    return noted_write(NEW, err);
}

static int write_source(aw_error *err)
{
    return noted_write(FILES(FS("big", "source", large), F("a", "1")), err);
}

static int write_old(aw_error *err)
{
    return noted_write(OLD, err);
}

static int roll_back(aw_error *err)
{
    aw_writer *writer = durable_writer();
    aw_result result = AW_RESULT_INIT;
    int rc = aw_rollback(writer, NULL, NULL, &hooks, &result, err);

    aw_result_clear(&result);
    aw_writer_close(writer);
    return rc;
}

static void have_nothing(void)
{
}

static void have_old(void)
{
    must_write(OLD);
}

static void have_two(void)
{
    must_write(NEW);
    must_write(OLD);
}

static void have_source(void)
{
    must_write(OLD);
    disk_write("source", large, 0644);
}

static ssize_t no_copy(int from, int to, size_t size)
{
    (void)from;
    (void)to;
    (void)size;
    errno = EOPNOTSUPP;
    return -1;
}

static int no_clone(int from, int to)
{
    return (int)no_copy(from, to, 0);
}

static void have_source_to_read(void)
{
    have_source();
    aw_sys.copy_file_range = no_copy;
    aw_sys.clone_file = no_clone;
}

static int write_large(aw_error *err)
{
    return noted_write(FILES(F("big", large), F("a", "1")), err);
}

static void have_large(void)
{
    have_source();
    must_write(FILES(F("big", large), F("a", "1")));
}

/* A durable write vouches for what another has left. */
static void have_old_without_a_link(void)
{
    must_write(OLD);
    CHECK(unlink("target/old") == 0);
}

static size_t calls_of(const situation *s)
{
    aw_error err;

    s->prepare();
    begin_diary(0, NULL);
    CHECK_OK(s->act(&err), &err);
    disk_remove("target");
    CHECK(seen.too_late == 0);
    return seen.count;
}

static void cancel_at(const situation *s, size_t at, size_t calls)
{
    size_t open_files = disk_open_files();
    char *before, *after;
    aw_error err;

    s->prepare();
    before = disk_state("target");
    begin_diary(at, NULL);
    CHECK_THAT(s->act(&err) < 0, "%s: call %zu of %zu is not heeded", s->what, at, calls);
    CHECK_THAT(err.code == AW_E_CANCELLED && !err.committed, "%s: call %zu of %zu: %s", s->what,
               at, calls, aw_code_name(err.code));
    CHECK_THAT(seen.count == at, "%s: called again after call %zu of %zu", s->what, at, calls);
    after = disk_state("target");
    CHECK_TEXT(after, before);
    CHECK(disk_open_files() == open_files);
    free(before);
    free(after);
    begin_diary(0, NULL);
    CHECK_OK(s->act(&err), &err);
    CHECK_CLEAN("target", s->after, 1);
    disk_remove("target");
}

TEST(each_call, "G2: cancelled at any call of the hook, a write leaves everything as it was")
{
    const situation situations[] = {
        { "the first write, which makes the target", have_nothing, write_new, NEW },
        { "a change", have_old, write_new, NEW },
        { "a large source", have_source, write_source,
          FILES(FS("big", "source", large), F("a", "1")) },
        { "a large source that is read", have_source_to_read, write_source,
          FILES(FS("big", "source", large), F("a", "1")) },
        { "large data", have_old, write_large, FILES(F("big", large), F("a", "1")) },
        { "large data that is there", have_large, write_large,
          FILES(F("big", large), F("a", "1")) },
        { "a large source that is there", have_large, write_source,
          FILES(FS("big", "source", large), F("a", "1")) },
        { "a rollback", have_two, roll_back, NEW },
        { "a no-op that heals and syncs", have_old_without_a_link, write_old, OLD },
    };

    memset(large, 'x', LARGE);
    for (size_t i = 0; i < sizeof situations / sizeof situations[0]; i++) {
        size_t calls = calls_of(&situations[i]);

        test_note("%s: %zu calls", situations[i].what, calls);
        CHECK(calls > 4);
        for (size_t at = 1; at <= calls; at++)
            cancel_at(&situations[i], at, calls);
    }
}
