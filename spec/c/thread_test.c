/* thread_test.c: writers and readers at once, in threads (G1, G6, G9).
 *
 * Also run with ThreadSanitizer, `make check-tsan`: the core promises that any thread
 * may use any object, one at a time, with no lock of its own. What the threads count
 * therefore is counted relaxed, which orders nothing: a race in the core stays one.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 8, WRITES = 100, READERS = 3, FILES_MAX = 6 };

/* What happened, for the test's own thread to look at. */
typedef struct tally {
    atomic_uint written, refused, read, followed;
    atomic_uint bad;
    atomic_bool stop;
    pthread_mutex_t mutex;
    char        first[1024];   /* complaint, under the mutex                 */
} tally;

static void count(atomic_uint *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static bool stopped(tally *t)
{
    return atomic_load_explicit(&t->stop, memory_order_relaxed);
}

static void blame(tally *t, const char *what, const char *detail)
{
    if (atomic_fetch_add_explicit(&t->bad, 1, memory_order_relaxed) > 0)
        return;
    pthread_mutex_lock(&t->mutex);
    snprintf(t->first, sizeof t->first, "%s: %s", what, detail);
    pthread_mutex_unlock(&t->mutex);
}

static void blame_error(tally *t, const char *what, const aw_error *err)
{
    char text[AW_ERROR_TEXT_MAX];
    blame(t, what, aw_error_text(err, text, sizeof text));
}

/* What write number I of writer WHO writes: all files say MARK, their number varies. */
static aw_payload *payload_of_write(unsigned who, unsigned i, char mark[32], aw_error *err)
{
    aw_payload *payload = NULL;
    int rc = aw_payload_new(&payload, err);

    snprintf(mark, 32, "%u.%u", who, i);
    for (unsigned f = 0; rc == 0 && f < 2 + (who + i) % (FILES_MAX - 1); f++) {
        aw_entry entry = AW_ENTRY_INIT;
        char path[32];
        size_t length = (size_t)snprintf(path, sizeof path, f % 2 ? "d/f%u" : "f%u", f);

        entry.data = mark;
        entry.size = strlen(mark);
        rc = aw_payload_add(payload, path, length, &entry, err);
    }
    if (rc == 0)
        return payload;
    aw_payload_free(payload);
    return NULL;
}

static int write_once(aw_writer *writer, unsigned who, unsigned i, aw_error *err)
{
    char mark[32];
    aw_payload *payload = payload_of_write(who, i, mark, err);
    aw_result result = AW_RESULT_INIT;
    int rc = payload ? aw_write(writer, payload, NULL, &result, err) : -1;

    if (rc == 0 && result.warnings.count > 0)
        rc = -1;
    aw_result_clear(&result);
    aw_payload_free(payload);
    return rc;
}

typedef struct worker {
    tally   *tally;
    unsigned number;
    unsigned keep;
} worker;

static int write_all(unsigned who, unsigned keep, tally *t)
{
    aw_options options = options_keeping(keep);
    aw_writer *writer = NULL;
    aw_error err = { 0 };

    options.lock_timeout = 60000;
    if (aw_writer_open("target", &options, &writer, &err) < 0) {
        blame_error(t, "aw_writer_open", &err);
        return -1;
    }
    for (unsigned i = 0; i < WRITES; i++) {
        if (write_once(writer, who, i, &err) < 0)
            blame_error(t, "aw_write", &err);
        else
            count(&t->written);
    }
    aw_writer_close(writer);
    return 0;
}

static void *run_writer(void *context)
{
    worker *w = context;
    write_all(w->number, w->keep, w->tally);
    return NULL;
}

/* One snapshot: every file must say the same. */
static int read_once(tally *t)
{
    aw_snapshot *snapshot = NULL;
    aw_list paths = { NULL, 0 };
    char mark[64] = "";
    aw_error err;
    int rc = aw_snapshot_open("target", &snapshot, &err);

    if (rc == 0)
        rc = aw_snapshot_paths(snapshot, &paths, &err);
    if (rc == 0 && (paths.count < 2 || paths.count > FILES_MAX))
        blame(t, "torn", joined(&paths));
    for (size_t i = 0; rc == 0 && i < paths.count; i++) {
        char *data = NULL;
        size_t size;

        rc = aw_snapshot_read(snapshot, paths.items[i], &data, &size, &err);
        if (rc == 0 && i == 0)
            snprintf(mark, sizeof mark, "%s", data);
        else if (rc == 0 && strcmp(mark, data) != 0)
            blame(t, "torn", data);
        free(data);
    }
    if (rc < 0)
        blame_error(t, "a snapshot", &err);
    aw_list_clear(&paths);
    aw_snapshot_close(snapshot);
    return rc;
}

static void *run_reader(void *context)
{
    worker *w = context;

    while (!stopped(w->tally)) {
        read_once(w->tally);
        count(&w->tally->read);
    }
    return NULL;
}

static void *run_follower(void *context)
{
    worker *w = context;
    aw_watcher *watcher = NULL;
    char version[AW_VERSION_MAX], last[AW_VERSION_MAX] = "";
    aw_error err;

    if (aw_watch_open("target", &watcher, &err) < 0) {
        blame_error(w->tally, "aw_watch_open", &err);
        return NULL;
    }
    while (!stopped(w->tally)) {
        int told = aw_watch_wait(watcher, 20, version, &err);
        if (told < 0) {
            blame_error(w->tally, "aw_watch_wait", &err);
            break;
        }
        if (told && last[0] && strcmp(version, last) <= 0)
            blame(w->tally, "versions go back", version);
        if (told) {
            snprintf(last, sizeof last, "%s", version);
            count(&w->tally->followed);
        }
    }
    aw_watch_close(watcher);
    return NULL;
}

static void first_version(void)
{
    aw_writer *writer = writer_keeping(1);
    aw_error err;

    CHECK_OK(write_once(writer, 0, 0, &err), &err);
    aw_writer_close(writer);
}

/* What was leased when the last writer pruned goes with one more write, even
 * one that changes nothing. */
static void check_no_litter(unsigned keep)
{
    aw_writer *writer = writer_keeping(keep);
    char *tree, *mark = disk_read("target/f0");
    const char *odd;
    unsigned who = 0, number = 0;
    aw_error err;

    CHECK(mark && sscanf(mark, "%u.%u", &who, &number) == 2);
    CHECK_OK(write_once(writer, who, number, &err), &err);
    tree = live_tree("target");
    odd = unclean("target", tree, keep);
    CHECK_THAT(!odd, "%s", odd);
    free(tree);
    free(mark);
    aw_writer_close(writer);
}

static void crowd(unsigned keep)
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    worker workers[WRITERS + READERS + 1];
    pthread_t threads[WRITERS + READERS + 1];
    size_t descriptors;

    first_version();
    descriptors = disk_open_files();
    for (unsigned i = 0; i < WRITERS + READERS + 1; i++) {
        workers[i] = (worker){ &t, i, keep };
        CHECK(pthread_create(&threads[i], NULL, i < WRITERS ? run_writer
                             : i < WRITERS + READERS ? run_reader : run_follower,
                             &workers[i]) == 0);
    }
    for (unsigned i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&t.stop, true);
    for (unsigned i = WRITERS; i < WRITERS + READERS + 1; i++)
        pthread_join(threads[i], NULL);
    CHECK_THAT(atomic_load(&t.bad) == 0, "%u bad, first %s", atomic_load(&t.bad), t.first);
    CHECK(atomic_load(&t.written) == WRITERS * WRITES);
    CHECK(atomic_load(&t.read) > 0 && atomic_load(&t.followed) > 0);
    test_note("%u writes, %u snapshots, %u told", atomic_load(&t.written), atomic_load(&t.read),
              atomic_load(&t.followed));
    CHECK(disk_open_files() == descriptors);
    check_no_litter(keep);
}

TEST(threads_keep_0, "G1 G6 G9: 8 threads write 100 times each, readers meanwhile: no error, no torn read, no litter (keep 0)")
{
    crowd(0);
}

TEST(threads_keep_1, "G1 G6 G9: 8 threads write 100 times each, readers meanwhile: no error, no torn read, no litter (keep 1)")
{
    crowd(1);
}

TEST(processes, "G1 G6 G9: 8 processes write 100 times each, a reader meanwhile: no error, no torn read, no litter")
{
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    pid_t children[WRITERS];
    int running = WRITERS, failed = 0, status;

    first_version();
    for (unsigned i = 0; i < WRITERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            tally own = { .mutex = PTHREAD_MUTEX_INITIALIZER };
            write_all(i, 1, &own);
            if (own.first[0])
                fprintf(stderr, "%s\n", own.first);
            _exit(atomic_load(&own.written) != WRITES);
        }
    }
    while (running > 0) {
        read_once(&t);
        count(&t.read);
        while (running > 0 && waitpid(-1, &status, WNOHANG) > 0) {
            running--;
            failed += status != 0;
        }
    }
    CHECK_THAT(failed == 0, "%d processes failed", failed);
    CHECK_THAT(atomic_load(&t.bad) == 0, "%u bad, first %s", atomic_load(&t.bad), t.first);
    test_note("%u snapshots", atomic_load(&t.read));
    check_no_litter(1);
}

/* Many threads, one target that does not exist yet. */
static void *create_and_write(void *context)
{
    worker *w = context;
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_error err = { 0 };

    options.create = true;
    options.lock_timeout = 60000;
    if (aw_writer_open("target", &options, &writer, &err) < 0)
        blame_error(w->tally, "aw_writer_open", &err);
    else if (write_once(writer, w->number, 0, &err) < 0)
        blame_error(w->tally, "aw_write", &err);
    aw_writer_close(writer);
    return NULL;
}

TEST(creators, "G6: threads that all make the target at once end with one clean target")
{
    for (int round = 0; round < 50; round++) {
        tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER };
        worker workers[WRITERS];
        pthread_t threads[WRITERS];

        for (unsigned i = 0; i < WRITERS; i++) {
            workers[i] = (worker){ &t, i, 1 };
            CHECK(pthread_create(&threads[i], NULL, create_and_write, &workers[i]) == 0);
        }
        for (unsigned i = 0; i < WRITERS; i++)
            pthread_join(threads[i], NULL);
        CHECK_THAT(atomic_load(&t.bad) == 0, "%u bad, first %s", atomic_load(&t.bad), t.first);
        check_no_litter(1);
        disk_remove("target");
    }
}

static int say_no(void *context, const char *stage, char *reason, size_t size)
{
    (void)context;
    (void)stage;
    (void)reason;
    (void)size;
    sched_yield();
    return -1;
}

/* Every other creator fails, and takes the target it made with it. */
static void *create_or_fail(void *context)
{
    worker *w = context;
    const aw_hooks hooks = { say_no, NULL, NULL };
    aw_options options = options_keeping(1);
    aw_payload *payload = NULL;
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    aw_error err = { 0 };

    options.create = true;
    options.lock_timeout = 60000;
    if (w->number % 2 == 0)
        return create_and_write(context);
    if (aw_payload_new(&payload, &err) < 0
        || aw_writer_open("target", &options, &writer, &err) < 0)
        blame_error(w->tally, "aw_writer_open", &err);
    else if (aw_write(writer, payload, &hooks, &result, &err) == 0 || err.code != AW_E_CHECK_FAILED)
        blame_error(w->tally, "a refused write", &err);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return NULL;
}

TEST(unmakers, "G6: a creator that fails does not take away the target that others write to")
{
    for (int round = 0; round < 50; round++) {
        tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER };
        worker workers[WRITERS];
        pthread_t threads[WRITERS];

        for (unsigned i = 0; i < WRITERS; i++) {
            workers[i] = (worker){ &t, i, 1 };
            CHECK(pthread_create(&threads[i], NULL, create_or_fail, &workers[i]) == 0);
        }
        for (unsigned i = 0; i < WRITERS; i++)
            pthread_join(threads[i], NULL);
        CHECK_THAT(atomic_load(&t.bad) == 0, "%u bad, first %s", atomic_load(&t.bad), t.first);
        check_no_litter(1);
        disk_remove("target");
    }
}

/* ---- every call at once ------------------------------------------------- */

enum { CHANGERS = 4, ROUNDS = 100 };

/* What the hooks of one write know: which of their calls says no. */
typedef struct moods {
    tally   *tally;
    unsigned calls, no_at;   /* of the progress hook; 0: never               */
    bool     refuse;         /* says the check                               */
} moods;

static int cancel_some(void *context, const aw_progress *progress, char *reason, size_t size)
{
    moods *m = context;

    (void)progress;
    (void)reason;
    (void)size;
    return ++m->calls == m->no_at ? -1 : 0;
}

/* A check that uses the core itself, as it may: by objects of its own. */
static int read_and_judge(void *context, const char *stage, char *reason, size_t size)
{
    moods *m = context;

    (void)stage;
    (void)reason;
    (void)size;
    read_once(m->tally);
    return m->refuse ? -1 : 0;
}

/* A writer that remembers, as Lua's do, so that MARK must last; one write in four is
 * cancelled, one is refused by its check. */
static void change_once(aw_writer *writer, worker *w, unsigned i, char mark[32])
{
    moods m = { w->tally, 0, i % 4 == 1 ? 1 + i / 4 % 3 : 0, i % 4 == 2 };
    const aw_hooks hooks = { read_and_judge, cancel_some, &m };
    const aw_code expected = m.no_at ? AW_E_CANCELLED : m.refuse ? AW_E_CHECK_FAILED : AW_OK;
    aw_result result = AW_RESULT_INIT;
    aw_error err = { 0 };
    aw_payload *payload = payload_of_write(w->number, i, mark, &err);
    int rc = payload ? aw_write(writer, payload, &hooks, &result, &err) : -1;

    if ((rc < 0 ? err.code : AW_OK) != expected || (rc < 0 && err.committed))
        blame_error(w->tally, "a write with hooks", &err);
    else
        count(rc < 0 ? &w->tally->refused : &w->tally->written);
    if (rc == 0 && result.warnings.count > 0)
        blame(w->tally, "a warning", result.warnings.items[0]);
    if (rc == 0)
        aw_writer_remember(writer, payload);
    else
        aw_payload_free(payload);
    aw_result_clear(&result);
}

static void *run_changer(void *context)
{
    char (*marks)[32] = calloc(ROUNDS, sizeof *marks);
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    worker *w = context;
    aw_error err = { 0 };

    options.lock_timeout = 60000;
    if (!marks || aw_writer_open("target", &options, &writer, &err) < 0)
        blame_error(w->tally, "aw_writer_open", &err);
    for (unsigned i = 0; writer && i < ROUNDS; i++)
        change_once(writer, w, i, marks[i]);
    aw_writer_close(writer);
    free(marks);
    return NULL;
}

/* Rolls back and collects, in turn. There may be nothing to go back to. */
static void *run_undoer(void *context)
{
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    worker *w = context;
    aw_error err;

    options.lock_timeout = 60000;
    if (aw_writer_open("target", &options, &writer, &err) < 0)
        blame_error(w->tally, "aw_writer_open", &err);
    for (unsigned i = 0; writer && i < ROUNDS && !stopped(w->tally); i++) {
        aw_result result = AW_RESULT_INIT;
        size_t removed = 0;

        if (i % 4 == 3 && aw_collect(writer, &removed, &err) < 0)
            blame_error(w->tally, "aw_collect", &err);
        if (i % 4 != 3 && aw_rollback(writer, NULL, NULL, NULL, &result, &err) < 0
            && err.code != AW_E_NOT_FOUND)
            blame_error(w->tally, "aw_rollback", &err);
        aw_result_clear(&result);
    }
    aw_writer_close(writer);
    return NULL;
}

/* One look, by every call that takes no lock. */
static void look_once(aw_writer *writer, worker *w)
{
    aw_inspection inspection = AW_INSPECTION_INIT;
    aw_result result = AW_RESULT_INIT;
    aw_version *versions = NULL;
    size_t version_count = 0;
    char mark[32];
    aw_error err = { 0 };
    aw_payload *payload = payload_of_write(w->number, 0, mark, &err);

    if (!payload || aw_plan(writer, payload, &result, &err) < 0)
        blame_error(w->tally, "aw_plan", &err);
    if (aw_versions(writer, &versions, &version_count, &err) < 0)
        blame_error(w->tally, "aw_versions", &err);
    if (aw_inspect("target", &inspection, &err) < 0)
        blame_error(w->tally, "aw_inspect", &err);
    else if (inspection.fault != AW_SOUND)
        blame(w->tally, "unsound", inspection.message);
    aw_inspection_clear(&inspection);
    free(versions);
    aw_result_clear(&result);
    aw_payload_free(payload);
}

static void *run_looker(void *context)
{
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    worker *w = context;
    aw_error err;

    if (aw_writer_open("target", &options, &writer, &err) < 0)
        blame_error(w->tally, "aw_writer_open", &err);
    while (writer && !stopped(w->tally))
        look_once(writer, w);
    aw_writer_close(writer);
    return NULL;
}

TEST(everything, "G1 G6 G9: threads that write, cancel, refuse, roll back, collect, plan, inspect, read and follow: no error, no torn read, no litter")
{
    static void *(*const rest[])(void *) = {
        run_undoer, run_looker, run_looker, run_reader, run_follower, run_follower
    };
    enum { REST = sizeof rest / sizeof *rest };
    tally t = { .mutex = PTHREAD_MUTEX_INITIALIZER };
    worker workers[CHANGERS + REST];
    pthread_t threads[CHANGERS + REST];
    size_t descriptors;

    first_version();
    descriptors = disk_open_files();
    for (unsigned i = 0; i < CHANGERS + REST; i++) {
        workers[i] = (worker){ &t, i, 1 };
        CHECK(pthread_create(&threads[i], NULL, i < CHANGERS ? run_changer : rest[i - CHANGERS],
                             &workers[i]) == 0);
    }
    for (unsigned i = 0; i < CHANGERS + REST; i++) {
        pthread_join(threads[i], NULL);
        if (i == CHANGERS - 1)
            atomic_store(&t.stop, true);
    }
    CHECK_THAT(atomic_load(&t.bad) == 0, "%u bad, first %s", atomic_load(&t.bad), t.first);
    CHECK(atomic_load(&t.written) == CHANGERS * ROUNDS / 2);
    CHECK(atomic_load(&t.refused) == CHANGERS * ROUNDS / 2);
    CHECK(atomic_load(&t.read) > 0);
    test_note("%u writes, %u refused, %u snapshots, %u told", atomic_load(&t.written),
              atomic_load(&t.refused), atomic_load(&t.read), atomic_load(&t.followed));
    CHECK(disk_open_files() == descriptors);
    check_no_litter(1);
}
