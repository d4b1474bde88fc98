/* memory_test.c: memory runs out, at every allocation in turn.
 *
 * This program has malloc and its family itself, in front of glibc's, so that
 * the N-th allocation can fail, once or with all later ones, and what is not
 * freed can be counted. Not with a sanitizer, which has them as well.
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

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) \
    || __has_feature(memory_sanitizer)
#define HAS_SANITIZER
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
#define HAS_SANITIZER
#endif

/* ---- malloc ------------------------------------------------------------ */

/* Volatile: a compiler knows that malloc looks at nothing of the program's. */
static volatile bool     counting, for_ever;
static volatile unsigned allocations, fails_at;
static volatile long     alive;

#ifndef HAS_SANITIZER
#pragma GCC visibility push(default) /* glibc's own callers, such as strdup, too */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void __libc_free(void *block);

static bool fails(void)
{
    if (!counting)
        return false;
    allocations++;
    if (allocations != fails_at && !(for_ever && fails_at > 0 && allocations > fails_at))
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t size)
{
    void *block = fails() ? NULL : __libc_malloc(size);
    alive += block != NULL;
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block = fails() ? NULL : __libc_calloc(count, size);
    alive += block != NULL;
    return block;
}

void *realloc(void *old, size_t size)
{
    void *block = fails() ? NULL : __libc_realloc(old, size);
    alive += block != NULL && old == NULL;
    return block;
}

void free(void *block)
{
    alive -= block != NULL;
    __libc_free(block);
}
#pragma GCC visibility pop
#endif

/* ---- the acts ---------------------------------------------------------- */

static const file old_files[] = { F("a", "1"), F("d/e/f", "2"), F("g", "3"), { 0 } };
static const file new_files[] = { F("a", "!"), F("d/e/f", "2"), F("h", "4"), { 0 } };

static int fill(aw_payload *payload, const file *files, aw_error *err)
{
    for (; files->path; files++) {
        aw_entry entry = AW_ENTRY_INIT;

        entry.data = files->source ? NULL : files->data;
        entry.size = files->source ? 0 : strlen(files->data);
        entry.source = files->source;
        if (aw_payload_add(payload, files->path, strlen(files->path), &entry, err) < 0)
            return -1;
    }
    return 0;
}

static bool goes_on; /* when the call has returned */

static int use_payload(bool plan_only, const file *files, aw_error *err)
{
    aw_options options = options_keeping(1);
    aw_payload *payload = NULL;
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    int rc = aw_payload_new(&payload, err);

    options.durability = AW_DURABLE;
    options.early = options.prepare = goes_on;
    if (rc == 0)
        rc = fill(payload, files, err);
    if (rc == 0)
        rc = aw_writer_open("target", &options, &writer, err);
    if (rc == 0 && plan_only)
        rc = aw_plan(writer, payload, &result, err);
    else if (rc == 0)
        rc = aw_write(writer, payload, NULL, &result, err);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

static int act_write(aw_error *err)
{
    return use_payload(false, new_files, err);
}

static int act_no_op(aw_error *err)
{
    return use_payload(false, old_files, err);
}

static int act_plan(aw_error *err)
{
    return use_payload(true, new_files, err);
}

static const file sourced_files[] = { FS("a", "source", "s"), F("d/e/f", "2"), { 0 } };

static int act_source(aw_error *err)
{
    return use_payload(false, sourced_files, err);
}

/* One of three files changes: the others are linked, and once more into "..next". */
static const file linking_files[] = { F("a", "!"), F("d/e/f", "2"), F("g", "3"), { 0 } };

static int act_going_on(aw_error *err)
{
    int rc;

    goes_on = true;
    run_threads_at_once();
    rc = use_payload(false, linking_files, err);
    goes_on = false;
    return rc;
}

/* So many that lists and arrays have to grow. */
static file many_files[201];

static int act_many(aw_error *err)
{
    return use_payload(false, many_files, err);
}

static int act_rollback(aw_error *err)
{
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    int rc = aw_writer_open("target", &options, &writer, err);

    if (rc == 0)
        rc = aw_rollback(writer, NULL, NULL, NULL, &result, err);
    aw_result_clear(&result);
    aw_writer_close(writer);
    return rc;
}

static int act_versions(aw_error *err)
{
    aw_writer *writer = NULL;
    aw_version *list = NULL;
    size_t count = 0;
    int rc = aw_writer_open("target", NULL, &writer, err);

    if (rc == 0)
        rc = aw_versions(writer, &list, &count, err);
    free(list);
    if (rc == 0)
        rc = aw_collect(writer, &count, err);
    aw_writer_close(writer);
    return rc;
}

static int act_snapshot(aw_error *err)
{
    aw_snapshot *snapshot = NULL;
    aw_list paths = { NULL, 0 };
    char *data = NULL;
    size_t size;
    int rc = aw_snapshot_open("target", &snapshot, err);

    if (rc == 0)
        rc = aw_snapshot_paths(snapshot, &paths, err);
    if (rc == 0 && paths.count != 3)
        rc = -2; /* torn */
    if (rc == 0)
        rc = aw_snapshot_read(snapshot, "d/e/f", &data, &size, err);
    free(data);
    aw_list_clear(&paths);
    aw_snapshot_close(snapshot);
    return rc;
}

static int act_inspect(aw_error *err)
{
    aw_inspection is = AW_INSPECTION_INIT;
    int rc;

    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755);
    disk_symlink("..data/gone", "target/gone");
    rc = aw_inspect("target", &is, err);
    aw_inspection_clear(&is);
    disk_remove("target/..2999_01_01_00_00_00.1");
    disk_remove("target/gone");
    return rc;
}

static int act_watch(aw_error *err)
{
    aw_watcher *watcher = NULL;
    char version[AW_VERSION_MAX];
    int rc = aw_watch_open("target", &watcher, err);

    if (rc == 0)
        rc = aw_watch_wait(watcher, 0, version, err);
    aw_watch_close(watcher);
    return rc;
}

/* ---- exploring --------------------------------------------------------- */

static void set_up(void)
{
    aw_error err;

    disk_mkdir("target", 0755);
    CHECK_OK(write_keeping(3, new_files, NULL, &err), &err);
    CHECK_OK(write_keeping(3, old_files, NULL, &err), &err);
}

/* Whether allocation number AT was reached. */
static bool run_point(int (*act)(aw_error *err), unsigned at, bool sticky)
{
    char *name, *before, *after, *live;
    size_t open_files;
    aw_error err = { 0 };
    const char *odd;
    long blocks;
    int rc;

    set_up();
    name = live_name("target");
    before = disk_state("target");
    open_files = disk_open_files();
    allocations = 0;
    fails_at = at;
    for_ever = sticky;
    blocks = alive;
    counting = true;
    rc = act(&err);
    counting = false;
    CHECK_THAT(alive == blocks, "allocation %u fails: %ld blocks are not freed", at, alive - blocks);
    CHECK_THAT(disk_open_files() == open_files, "allocation %u fails: a descriptor leaks", at);
    CHECK_THAT(rc != -2, "allocation %u fails: a torn listing", at);
    live = live_name("target");
    if (rc < 0) {
        CHECK_THAT(err.code == AW_E_IO && err.sys_errno == ENOMEM, "allocation %u fails: %s", at,
                   aw_code_name(err.code));
        CHECK_THAT(err.committed == (strcmp(live, name) != 0), "allocation %u fails: committed %d",
                   at, err.committed);
    }
    if (rc < 0 && !err.committed) {
        after = disk_state("target");
        CHECK_TEXT(after, before);
        free(after);
    }
    CHECK_OK(write_keeping(1, many_files, NULL, &err), &err);
    after = tree_of(many_files);
    odd = unclean("target", after, 1);
    CHECK_THAT(!odd, "allocation %u fails, after the next write: %s", at, odd);
    free(after);
    free(name);
    free(live);
    free(before);
    disk_remove("target");
    return allocations >= at;
}

/* Valgrind takes our malloc's place, a sanitizer has its own. */
static bool malloc_is_ours(void)
{
    void *volatile block;
    unsigned seen;

    allocations = fails_at = 0;
    counting = true;
    block = malloc(1);
    counting = false;
    seen = allocations;
    free(block);
    return seen == 1;
}

static void explore(int (*act)(aw_error *err))
{
    static char names[200][24];
    unsigned points = 0;

    if (!malloc_is_ours())
        test_skip("somebody else has malloc");
    for (size_t i = 0; i < 200; i++) {
        snprintf(names[i], sizeof names[i], "m%zu/n%zu", i % 40, i);
        many_files[i] = (file)F(names[i], "many");
    }
    disk_write("source", "s", 0644);
    run_point(act, 0, false); /* what libc allocates once and for all */
    for (unsigned at = 1; run_point(act, at, false); at++, points += 2)
        run_point(act, at, true);
    test_note("%u points", points);
    CHECK(points > 0);
}

TEST(writing, "G2: memory that runs out in a write is an error, changes nothing and leaks nothing")
{
    explore(act_write);
}

TEST(no_op, "G2: so it is in a write that changes nothing")
{
    explore(act_no_op);
}

TEST(going_on, "G2: and in a write that works on in a thread, whose own failures are no errors")
{
    explore(act_going_on);
}

TEST(many, "G2: and in a write of many files")
{
    explore(act_many);
}

TEST(sources, "G2: and in a write that copies a source")
{
    explore(act_source);
}

TEST(planning, "memory that runs out in a plan is an error and leaks nothing")
{
    explore(act_plan);
}

TEST(rolling_back, "G2: and in a rollback")
{
    explore(act_rollback);
}

TEST(versions, "and in listing and collecting versions")
{
    explore(act_versions);
}

TEST(snapshots, "G9: and in a snapshot, which never lists in part")
{
    explore(act_snapshot);
}

TEST(watching, "and in a watcher")
{
    explore(act_watch);
}

TEST(inspecting, "and in looking at a target")
{
    explore(act_inspect);
}
