/* fault_test.c: every call to the kernel fails, falls short or is the last one.
 *
 * For each scenario the calls are counted in a run without faults. Then the
 * scenario is set up anew for each point: call N goes wrong in each way that
 * fault_plans() knows, or the process ends before or after it. After each point
 * everything that the header promises is looked at: readers see old or new; all
 * visible names resolve; `committed` says which; a failure before the swap has
 * changed nothing; no descriptor is left open. Then two writes without faults, the
 * same and another, must each leave the target clean: after a kill in both orders,
 * else in either by turns. Where a scenario has a reader, its snapshot, opened
 * before, shows the old version until it is closed. Time is made up, so that each
 * run has the same names. No root is needed.
 */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HISTORY_MAX = 5 };

typedef struct scenario scenario;

struct scenario {
    const file *history[HISTORY_MAX]; /* written first, the last one is live  */
    const file *after;      /* what is live once ACT has succeeded            */
    const file *other;      /* a payload unlike both                          */
    unsigned    keep;       /* of the act                                     */
    int       (*act)(const scenario *s, aw_result *result, aw_error *err);
    void      (*prepare)(void); /* after the history; may be NULL             */
    bool        noted;      /* the live version is noted as clean and durable    */
    bool        remembers;  /* one writer writes all, and knows what is live     */
    bool        ahead;      /* that writer also works on after the call, at once,
                               and has the next version's directory ready     */
    bool        read;       /* a snapshot of the live version is held meanwhile  */
    bool        residue;    /* it leaves something to be swept: a failure need
                               not leave that as it was                       */
    bool        mends;      /* not every visible name resolves before         */
    bool        creates;    /* there is no target before                      */
    aw_code     refused;    /* ACT fails so without a fault, too; or AW_OK    */
    unsigned    stride;     /* only every so-manieth call of a name, the first
                               too; 0: every one                              */

    /* filled by explore() */
    char       *history_trees[HISTORY_MAX];
    char       *after_tree, *other_tree;
    unsigned    calls;      /* of a run without faults                        */
    unsigned    refused_at; /* the number of calls when a hook said no        */
    unsigned    synced_at;  /* the last sync that the write's promise needs   */
};

/* ---- acts -------------------------------------------------------------- */

static aw_options act_options(const scenario *s)
{
    aw_options options = AW_OPTIONS_INIT; /* durable: every sync is a point */

    options.keep = s->keep;
    options.create = s->creates;
    options.early = options.prepare = s->ahead;
    return options;
}

/* Which writes all, where a scenario remembers; else NULL. */
static aw_writer *keeper;

static unsigned asked_at;

static int refuse(void *context, const char *stage, char *reason, size_t size)
{
    (void)context;
    (void)stage;
    asked_at = fault_calls();
    snprintf(reason, size, "no");
    return -1;
}

static int act_write_with(const scenario *s, const aw_hooks *hooks, aw_result *result,
                          aw_error *err)
{
    aw_options options = act_options(s);
    aw_writer *writer = NULL;
    aw_payload *payload = payload_of(s->after);
    int rc = keeper ? 0 : aw_writer_open("target", &options, &writer, err);

    if (rc == 0)
        rc = aw_write(keeper ? keeper : writer, payload, hooks, result, err);
    aw_writer_close(writer);
    if (rc == 0 && s->ahead)
        aw_writer_remember(keeper, payload);
    else
        aw_payload_free(payload);
    return rc;
}

static int act_write(const scenario *s, aw_result *result, aw_error *err)
{
    return act_write_with(s, NULL, result, err);
}

static int act_refused(const scenario *s, aw_result *result, aw_error *err)
{
    const aw_hooks hooks = { refuse, NULL, NULL };
    scenario wanting = *s;

    wanting.after = s->other;
    return act_write_with(&wanting, &hooks, result, err);
}

/* The file with which a write is cancelled: when so many are done in a phase. */
static aw_phase stop_phase;
static size_t stop_files;

static int stop(void *context, const aw_progress *progress, char *reason, size_t size)
{
    (void)context;
    (void)reason;
    (void)size;
    if (progress->phase != stop_phase || progress->files < stop_files)
        return 0;
    asked_at = fault_calls();
    return -1;
}

static int act_cancelled(const scenario *s, aw_result *result, aw_error *err)
{
    const aw_hooks hooks = { NULL, stop, NULL };
    scenario wanting = *s;

    wanting.after = s->other;
    return act_write_with(&wanting, &hooks, result, err);
}

static int act_rollback(const scenario *s, aw_result *result, aw_error *err)
{
    aw_options options = act_options(s);
    aw_writer *writer = NULL;
    int rc = aw_writer_open("target", &options, &writer, err);

    if (rc == 0)
        rc = aw_rollback(writer, NULL, NULL, NULL, result, err);
    aw_writer_close(writer);
    return rc;
}

static int act_collect(const scenario *s, aw_result *result, aw_error *err)
{
    aw_options options = act_options(s);
    aw_writer *writer = NULL;
    size_t removed = SIZE_MAX;
    int rc = aw_writer_open("target", &options, &writer, err);

    (void)result;
    if (rc == 0)
        rc = aw_collect(writer, &removed, err);
    if (rc < 0 && removed != SIZE_MAX) /* some are left: told, and no failure of the rest */
        rc = 0;
    aw_writer_close(writer);
    return rc;
}

/* ---- time -------------------------------------------------------------- */

enum { PAST = 1000000000 }; /* seconds: 2001, long before any file's own time */

static const int64_t settled = 4000000000; /* long after it */
static int64_t made_up_second, made_up_nsec;

static int made_up_clock(clockid_t clock, struct timespec *now)
{
    (void)clock;
    made_up_nsec += 1000;
    *now = (struct timespec){ made_up_second, made_up_nsec };
    return 0;
}

static void start_clock(void)
{
    made_up_second = PAST;
    made_up_nsec = 0;
    aw_sys.clock_gettime = made_up_clock;
}

/* Until what changes from now on has another time than what has changed. */
static void await_tick(void)
{
    struct timespec first, now;

    clock_gettime(CLOCK_REALTIME_COARSE, &first);
    do
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    while (now.tv_sec == first.tv_sec && now.tv_nsec == first.tv_nsec);
}

/* ---- setting up -------------------------------------------------------- */

static size_t history_count(const scenario *s)
{
    size_t count = 0;

    while (count < HISTORY_MAX && s->history[count])
        count++;
    return count;
}

/* A durable write that changes nothing, so that the next may believe its note. */
static void note_live(const scenario *s, const file *live)
{
    aw_options options = act_options(s);
    char *note;
    aw_error err;

    made_up_second = settled;
    CHECK_OK(write_with(&options, live, NULL, &err), &err);
    made_up_second = PAST;
    await_tick();
    note = disk_read("target/..lock");
    CHECK(note != NULL && strstr(note, " durable=1 clean=1 synced=1 ") != NULL);
    free(note);
}

static int write_with_keeper(const file *files, aw_result *result, aw_error *err)
{
    aw_payload *payload = payload_of(files);
    int rc = aw_write(keeper, payload, NULL, result, err);

    if (rc == 0)
        aw_writer_remember(keeper, payload);
    else
        aw_payload_free(payload);
    return rc;
}

/* A writer that has written and confirmed LIVE. */
static void make_keeper(const scenario *s, const file *live)
{
    aw_options options = act_options(s);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK_OK(aw_writer_open("target", &options, &keeper, &err), &err);
    made_up_second = settled; /* else it would not rely on times */
    if (s->ahead) { /* LIVE is to be a change of one that it knows */
        CHECK_OK(write_with_keeper(s->history[0], &result, &err), &err);
        aw_result_clear(&result);
    }
    for (int i = 0; i < 2; i++) { /* what has been handed over is looked at in the next */
        CHECK_OK(write_with_keeper(live, &result, &err), &err);
        aw_result_clear(&result);
    }
    made_up_second = PAST;
    await_tick();
}

static aw_snapshot *reader;

static void set_up(const scenario *s)
{
    size_t count = history_count(s);
    aw_error err;

    start_clock();
    run_threads_at_once();
    if (!s->creates)
        disk_mkdir("target", 0755);
    for (size_t i = 0; i < count; i++)
        CHECK_OK(write_keeping(s->noted ? s->keep : HISTORY_MAX, s->history[i], NULL, &err),
                 &err);
    if (s->noted)
        note_live(s, s->history[count - 1]);
    if (s->remembers)
        make_keeper(s, s->history[count - 1]);
    if (s->prepare)
        s->prepare();
    if (s->read)
        CHECK_OK(aw_snapshot_open("target", &reader, &err), &err);
}

static void let_go(void)
{
    aw_snapshot_close(reader);
    reader = NULL;
}

static void tear_down(void)
{
    let_go();
    aw_writer_close(keeper);
    keeper = NULL;
    disk_remove("target");
}

/* ---- looking ----------------------------------------------------------- */

static char complaint[2 * PATH_MAX];

static const char *complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(complaint, sizeof complaint, format, args);
    va_end(args);
    return complaint;
}

/* What the reader sees, as text, or NULL if it cannot read. */
static char *reader_view(void)
{
    aw_list paths = { NULL, 0 };
    size_t size = 0;
    char *view = NULL;
    FILE *text = open_memstream(&view, &size);
    aw_error err;
    bool whole = text && aw_snapshot_paths(reader, &paths, &err) == 0;

    for (size_t i = 0; whole && i < paths.count; i++) {
        char *data = NULL;
        size_t length = 0;
        aw_stat st;

        whole = aw_snapshot_read(reader, paths.items[i], &data, &length, &err) == 0
                && aw_snapshot_stat(reader, paths.items[i], &st, &err) == 0
                && fprintf(text, "%s %o %.*s\n", paths.items[i], (unsigned)st.mode, (int)length,
                           data) > 0;
        free(data);
    }
    aw_list_clear(&paths);
    if (text)
        fclose(text);
    if (!whole) {
        free(view);
        view = NULL;
    }
    return view;
}

typedef struct before {
    char  *name;   /* of the live version, or NULL                           */
    char  *tree;   /* it                                                     */
    char  *state;  /* of everything                                          */
    char  *view;   /* the reader's                                           */
    size_t open_files;
} before;

static before look_before(void)
{
    return (before){ live_name("target"), live_tree("target"), disk_state("target"),
                     reader ? reader_view() : NULL, disk_open_files() };
}

static void forget(before *b)
{
    free(b->name);
    free(b->tree);
    free(b->state);
    free(b->view);
}

/* A snapshot's version is there as long as it is open. */
static const char *view_changed(const before *b)
{
    const char *odd = NULL;
    char *view;

    if (!reader)
        return NULL;
    view = reader_view();
    if (!view || !b->view || strcmp(view, b->view) != 0)
        odd = complain("a snapshot shows {%s} instead of {%s}", view ? view : "an error",
                       b->view ? b->view : "an error");
    free(view);
    return odd;
}

/* What a run came to. */
typedef struct outcome {
    bool     killed;
    int      rc;
    aw_error err;
    bool     changed;       /* of the result                                 */
    char     version[AW_VERSION_MAX];
    unsigned hits;
} outcome;

/* Whether TREE is one of those that were ever complete. */
static bool was_whole(const scenario *s, const char *tree)
{
    for (size_t i = 0; i < history_count(s); i++)
        if (strcmp(tree, s->history_trees[i]) == 0)
            return true;
    return strcmp(tree, s->after_tree) == 0 || strcmp(tree, s->other_tree) == 0;
}

/* Every retained version must be complete: it can be rolled back to. */
static const char *torn_version(const scenario *s, const char *live)
{
    const char *odd = NULL;
    struct dirent *entry;
    DIR *dir = opendir("target");

    while (!odd && dir && (entry = readdir(dir)) != NULL) {
        char path[PATH_MAX], *tree;
        size_t length = strlen(entry->d_name);

        if (strncmp(entry->d_name, "..2", 3) != 0 || entry->d_name[length - 1] == 'p'
            || !live || strcmp(entry->d_name, live) > 0)
            continue; /* retired, or unfinished */
        snprintf(path, sizeof path, "target/%s", entry->d_name);
        tree = disk_tree(path);
        if (!was_whole(s, tree))
            odd = complain("%s is torn: {%s}", entry->d_name, tree);
        free(tree);
    }
    if (dir)
        closedir(dir);
    return odd;
}

/* Every name of the live version must resolve. */
static const char *unresolved(const char *live)
{
    char path[PATH_MAX], shown[PATH_MAX];
    const char *odd = NULL;
    struct dirent *entry;
    struct stat st;
    DIR *dir;

    snprintf(path, sizeof path, "target/%s", live);
    dir = opendir(path);
    while (!odd && dir && (entry = readdir(dir)) != NULL) {
        snprintf(shown, sizeof shown, "target/%s", entry->d_name);
        if (entry->d_name[0] != '.' && stat(shown, &st) < 0)
            odd = complain("%s is live and does not resolve", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return odd;
}

/* The state without what a failure may leave where nothing was. With what was made ahead of
 * time the links of files go. */
static bool nothing_came(const scenario *s, const before *b, const char *state)
{
    if (s->ahead)
        return !unclean("target", b->tree, HISTORY_MAX);
    if (strcmp(state, b->state) == 0)
        return true;
    return s->creates && strchr(state, '\n') == state + strlen(state) - 1 /* an empty target, */
           && disk_exists("target/..lock"); /* which is anybody's by now */
}

/* Whether the fault may have struck what undoes or sweeps, so that the next
 * write must finish it. A full disk is no such fault. */
static bool may_leave_litter(const scenario *s, fault_plan plan, const outcome *o)
{
    bool full = plan.kind == FAULT_SCARCE && (plan.code == ENOSPC || plan.code == EDQUOT);

    return s->residue || (o->hits > 1 && !full) || (s->refused != AW_OK && plan.at > s->refused_at)
           || o->err.committed;
}

/* A failed sync must not be noted as a success. Those after the swap's own are
 * for pruning, and the note is not about them. */
static const char *false_note(const scenario *s, fault_plan plan, const char *live)
{
    fault_call call = fault_call_at(plan.at);
    char *note, name[AW_VERSION_MAX] = "";
    const char *odd = NULL;
    int noted = 0;

    if (plan.at > s->synced_at || (call != CALL_fsync && call != CALL_syncfs))
        return NULL;
    note = disk_read("target/..lock");
    if (note && live && sscanf(note, "%63s durable=%d", name, &noted) == 2 && noted
        && strcmp(name, live) == 0)
        odd = complain("%s is noted as durable though a sync failed", live);
    free(note);
    return odd;
}

static const char *look_after(const scenario *s, fault_plan plan, const before *b,
                              const outcome *o)
{
    char *name = live_name("target"), *tree = live_tree("target"), *state = NULL;
    bool fails = fault_is_failure(&plan) && plan.code != EINTR;
    bool new = (name == NULL) != (b->name == NULL) || (name && strcmp(name, b->name) != 0);
    const char *odd = NULL;

    if (strcmp(tree, new ? s->after_tree : b->tree) != 0)
        odd = complain("readers see {%s} instead of {%s}", tree, new ? s->after_tree : b->tree);
    else if (!o->killed && o->rc < 0 && o->err.committed != new)
        odd = complain("committed is %d, readers see the %s", o->err.committed, new ? "new" : "old");
    else if (!o->killed && o->rc < 0 && (o->err.code == AW_OK || o->err.code > AW_E_IO))
        odd = complain("an error without a code");
    else if (!o->killed && o->rc < 0 && (o->err.code == AW_E_IO) != (o->err.sys_errno != 0))
        odd = complain("code %s with errno %d", aw_code_name(o->err.code), o->err.sys_errno);
    else if (!o->killed && o->rc == 0 && strcmp(tree, s->after_tree) != 0)
        odd = complain("success, but readers see {%s}", tree);
    else if (!o->killed && o->rc == 0 && o->version[0] && strcmp(o->version, name) != 0)
        odd = complain("the result says %s, ..data says %s", o->version, name);
    else if (!o->killed && o->rc == 0 && o->changed != new)
        odd = complain("the result says changed %d, ..data says %d", o->changed, new);
    else if (!o->killed && !fails && (o->rc < 0) != (s->refused != AW_OK))
        odd = complain("what is no failure made it fail");
    else if (s->refused != AW_OK && !o->killed && plan.at > s->refused_at
             && o->err.code != s->refused)
        odd = complain("undoing replaced the error by %s", aw_code_name(o->err.code));
    if (!odd && name && (!s->mends || (!o->killed && o->rc == 0)))
        odd = unresolved(name);
    if (!odd)
        odd = torn_version(s, name);
    if (!odd && !o->killed && fails && (new || !(s->noted || s->remembers))) /* not noted before */
        odd = false_note(s, plan, name);
    if (!odd && !o->killed && o->rc < 0 && !may_leave_litter(s, plan, o)) {
        state = disk_state("target");
        if (!nothing_came(s, b, state))
            odd = complain("the failure changed the target from {%s} to {%s}", b->state, state);
    }
    if (!odd && disk_open_files() != b->open_files
        && !(s->ahead && disk_open_files() + 1 == b->open_files)) /* "..next", which has gone */
        odd = complain("%zu descriptors are open, %zu were", disk_open_files(), b->open_files);
    free(name);
    free(tree);
    free(state);
    return odd;
}

/* A write without faults must succeed and leave the target clean. MAY_WARN: of what the
 * one before has met when it had told its result. */
static const char *heal(const scenario *s, const file *files, const char *tree, bool may_warn)
{
    aw_result result = AW_RESULT_INIT;
    const char *odd = NULL;
    size_t keep = s->keep + (reader != NULL); /* its version may stay, too */
    char *live;
    aw_error err;

    if (!disk_exists("target"))
        disk_mkdir("target", 0755);
    if ((keeper ? write_with_keeper(files, &result, &err)
                : write_keeping(s->keep, files, &result, &err)) < 0) {
        char text[AW_ERROR_TEXT_MAX];
        odd = complain("the next write: %s", aw_error_text(&err, text, sizeof text));
    } else if (result.warnings.count > 0 && !may_warn) {
        odd = complain("the next write warns: %s", result.warnings.items[0]);
    }
    aw_result_clear(&result);
    if (!odd)
        odd = unclean("target", tree, keep);
    if (odd && odd != complaint)
        odd = complain("after the next write: %s", odd);
    live = live_name("target");
    if (!odd)
        odd = torn_version(s, live);
    free(live);
    return odd;
}

/* ---- running ----------------------------------------------------------- */

static unsigned points, violations, all_points;

static outcome act(const scenario *s, fault_plan plan)
{
    aw_result result = AW_RESULT_INIT;
    outcome o = { 0 };

    fault_arm(plan);
    o.rc = s->act(s, &result, &o.err);
    fault_disarm();
    o.hits = fault_hits();
    if (o.rc == 0) {
        o.changed = result.changed;
        snprintf(o.version, sizeof o.version, "%s", result.version ? result.version : "");
    }
    aw_result_clear(&result);
    return o;
}

static outcome act_and_die(const scenario *s, fault_plan plan)
{
    outcome o = { .killed = true };
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        act(s, plan);
        _exit(0);
    }
    waitpid(child, &status, 0);
    o.rc = status;
    return o;
}

/* Two writes after the fault: the same and another, or the other way round. */
static const char *heal_twice(const scenario *s, const before *b, bool other_first)
{
    const char *odd = other_first ? heal(s, s->other, s->other_tree, s->ahead)
                                  : heal(s, s->after, s->after_tree, s->ahead);

    if (!odd)
        odd = view_changed(b);
    let_go();
    if (odd)
        return odd;
    return other_first ? heal(s, s->after, s->after_tree, false)
                       : heal(s, s->other, s->other_tree, false);
}

static const char *run_point(const scenario *s, fault_plan plan, bool other_first)
{
    const char *odd;
    before b;
    outcome o;

    set_up(s);
    b = look_before();
    if (plan.kind == FAULT_EXIT_BEFORE || plan.kind == FAULT_EXIT_AFTER)
        o = act_and_die(s, plan);
    else
        o = act(s, plan);
    odd = o.killed && (!WIFEXITED(o.rc) || (WEXITSTATUS(o.rc) != FAULT_EXIT_STATUS && o.rc != 0))
              ? complain("the process ended with status %d", o.rc) : look_after(s, plan, &b, &o);
    if (!odd)
        odd = view_changed(&b);
    if (!odd)
        odd = heal_twice(s, &b, other_first);
    forget(&b);
    tear_down();
    return odd;
}

static void try_point(const scenario *s, fault_plan plan, fault_call call, bool other_first)
{
    const char *odd = run_point(s, plan, other_first);

    points++;
    if (odd) {
        violations++;
        if (violations <= 10)
            test_note("call %u of %u, %s: %.3000s", plan.at, s->calls,
                      fault_describe(&plan, call), odd);
    }
}

/* A sanitizer makes all slow, forks most of all, and sees nothing of a child that is
 * killed. It looks at the ways out, which one failure of a call and many share. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { KILL_STRIDE = 10, ALL_KINDS = false };
#else
enum { KILL_STRIDE = 1, ALL_KINDS = true };
#endif

static void try_call(const scenario *s, unsigned at, fault_call call)
{
    fault_plan plans[FAULT_PLANS_MAX];
    size_t count = fault_plans(at, call, plans);

    for (size_t i = 0; i < count; i++)
        if (ALL_KINDS || plans[i].kind != FAULT_SCARCE)
            try_point(s, plans[i], call, (at + i) % 2 != 0);
    for (int other_first = 0; other_first < 2 && at % KILL_STRIDE == 0; other_first++) {
        try_point(s, (fault_plan){ .at = at, .kind = FAULT_EXIT_BEFORE }, call, other_first);
        try_point(s, (fault_plan){ .at = at, .kind = FAULT_EXIT_AFTER }, call, other_first);
    }
}

/* The sync after the swap, which follows the last link that is made; where
 * there is no swap, the last one. */
static unsigned last_needed_sync(const fault_call *trace, unsigned calls)
{
    unsigned linked = calls, swapped, synced;

    while (linked > 0 && trace[linked] != CALL_symlinkat)
        linked--;
    for (swapped = linked + 1; swapped <= calls && trace[swapped] != CALL_renameat; swapped++) {
    }
    for (synced = swapped + 1; synced <= calls; synced++)
        if (linked > 0 && trace[synced] == CALL_fsync)
            return synced;
    for (synced = calls; synced > 0 && trace[synced] != CALL_fsync; synced--) {
    }
    return synced;
}

/* Run without faults; learn the calls. */
static fault_call *rehearse(scenario *s)
{
    fault_call *trace;
    const char *odd;
    before b;
    outcome o;

    set_up(s);
    b = look_before();
    asked_at = 0;
    o = act(s, (fault_plan){ .kind = FAULT_NONE });
    CHECK_THAT((o.rc < 0) == (s->refused != AW_OK) && (o.rc == 0 || o.err.code == s->refused),
               "without a fault: %s", aw_code_name(o.err.code));
    s->calls = fault_calls();
    s->refused_at = asked_at;
    trace = calloc(s->calls + 1, sizeof *trace);
    CHECK(trace != NULL);
    for (unsigned at = 1; at <= s->calls; at++)
        trace[at] = fault_call_at(at);
    s->synced_at = last_needed_sync(trace, s->calls);
    odd = unclean("target", s->after_tree, s->keep + s->read);
    CHECK_THAT(s->refused != AW_OK || !odd, "without a fault: %s", odd);
    forget(&b);
    tear_down();
    return trace;
}

static void explore(scenario s)
{
    unsigned first_points = points, first_violations = violations, seen[CALL_COUNT] = { 0 };
    fault_call *trace;

    for (size_t i = 0; i < history_count(&s); i++)
        s.history_trees[i] = tree_of(s.history[i]);
    s.after_tree = tree_of(s.after);
    s.other_tree = tree_of(s.other);
    trace = rehearse(&s);
    for (unsigned at = 1; at <= s.calls; at++)
        if (s.stride == 0 || seen[trace[at]]++ % s.stride == 0)
            try_call(&s, at, trace[at]);
    try_point(&s, (fault_plan){ .at = 1, .kind = FAULT_ALWAYS_SHORT }, trace[1], false);
    test_note("fault: %u calls, %u points, %u violations", s.calls, points - first_points,
              violations - first_violations);
    all_points += points - first_points;
    for (size_t i = 0; i < history_count(&s); i++)
        free(s.history_trees[i]);
    free(s.after_tree);
    free(s.other_tree);
    free(trace);
    CHECK_THAT(violations == first_violations, "%u violations", violations - first_violations);
}

/* ---- the scenarios ----------------------------------------------------- */

#define OLD   FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "3"), F("old", "4"))
#define NEW   FILES(F("a", "one"), FM("d/x", "two", 0600), F("d/e/y", "three"), F("new", "four"))
#define OTHER FILES(F("a", "other"), F("z/z", ""), F("d/x", "2"))

TEST(first, "G2 G3 G5: faults in a first write")
{
    explore((scenario){ .after = NEW, .other = OTHER, .keep = 1, .act = act_write });
}

TEST(creating, "G2 G3 G5: faults in a first write that makes the target")
{
    explore((scenario){ .after = NEW, .other = OTHER, .keep = 1, .act = act_write,
                        .creates = true });
}

TEST(rewrite, "G2 G3 G5: faults in a full rewrite")
{
    explore((scenario){ .history = { OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_write });
}

TEST(one_changed, "G2 G3 G5: faults in a write that changes one of many files")
{
    explore((scenario){
        .history = { OLD }, .other = OTHER, .keep = 1, .act = act_write,
        .after = FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "!"), F("old", "4")) });
}

TEST(type_change, "G2 G3 G5: faults in a change from file to directory and back")
{
    explore((scenario){
        .history = { FILES(F("a", "file"), F("b/c/d", "deep"), F("s", "")) },
        .after = FILES(F("a/b", "below"), F("b", "top"), F("s", "")),
        .other = OTHER, .keep = 0, .act = act_write });
}

TEST(shrink, "G2 G3 G5: faults in a write of nothing after something")
{
    explore((scenario){ .history = { OLD }, .after = NO_FILES, .other = OTHER, .keep = 1,
                        .act = act_write });
}

TEST(no_op, "G2 G3 G5: faults in a write that changes nothing")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = OLD, .other = NEW, .keep = 1,
                        .act = act_write });
}

static void lose_link(void)
{
    CHECK(unlink("target/old") == 0);
}

TEST(noted_no_op, "G2 G3 G5: faults in a write that believes the note that nothing has changed")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = OLD, .other = NEW, .keep = 1,
                        .act = act_write, .noted = true });
}

TEST(noted_rewrite, "G2 G3 G5: faults in a rewrite of what is noted to be clean")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_write, .noted = true, .stride = 5 });
}

TEST(remembered, "G2 G3 G5 G8: faults in what a writer writes that remembers what is live")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = OLD, .other = NEW, .keep = 1,
                        .act = act_write, .remembers = true, .stride = 2 });
    /* Who is killed leaves NEW to a writer that knows OLD, of which "a" is wanted again. */
    explore((scenario){ .history = { OLD }, .after = NEW, .other = FILES(F("a", "1"), F("z/z", "")),
                        .keep = 1, .act = act_write, .remembers = true, .stride = 4 });
}

#define MANY(a, b) FILES(F("a", a), FM("d/x", "2", 0600), F("d/e/y", b), F("f/g", ""), F("old", "4"))

TEST(ahead, "G2 G3 G5 G8: faults in a write that takes what was made ahead of time")
{
    explore((scenario){ .history = { MANY("0", "3"), MANY("1", "3") }, .after = MANY("1", "!"),
                        .other = OTHER, .keep = 1, .act = act_write, .remembers = true,
                        .ahead = true });
    explore((scenario){ .history = { MANY("0", "3"), MANY("1", "3") }, .after = MANY("1", "!"),
                        .other = MANY("2", "!"), .keep = 0, .act = act_write, .remembers = true,
                        .ahead = true, .stride = 3 });
}

TEST(ahead_and_others, "G2 G3 G5 G8: faults where names come and go in what was made ahead of time")
{
    explore((scenario){ .history = { MANY("0", "3"), MANY("1", "3") },
                        .after = FILES(F("a/b", "1"), FM("d/x", "2", 0600), F("d/e/y", "3"),
                                       F("f/g", ""), F("new/z", "4")),
                        .other = MANY("1", "!"), .keep = 1, .act = act_write, .remembers = true,
                        .ahead = true, .stride = 2 });
}

TEST(not_ahead, "G2 G3 G5 G8: faults in a write that cannot take what was made ahead of time")
{
    explore((scenario){ .history = { MANY("0", "3"), MANY("1", "3") }, .after = NEW,
                        .other = MANY("1", "3"), .keep = 1, .act = act_write, .remembers = true,
                        .ahead = true, .stride = 2 });
    explore((scenario){ .history = { MANY("0", "3"), MANY("1", "3") }, .after = MANY("1", "3"),
                        .other = MANY("1", "!"), .keep = 1, .act = act_write, .remembers = true,
                        .ahead = true });
}

TEST(no_op_heals, "G5: faults in a write that only brings a visible link back")
{
    explore((scenario){ .history = { OLD }, .after = OLD, .other = NEW, .keep = 1,
                        .act = act_write, .prepare = lose_link, .mends = true });
}

TEST(rollback, "G2 G3 G5: faults in a rollback")
{
    explore((scenario){ .history = { NEW, OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_rollback });
}

TEST(prune_all, "G2 G3 G5: faults in a write that prunes all of four versions")
{
    explore((scenario){ .history = { OLD, OTHER, NEW, OLD }, .after = NEW, .other = OTHER,
                        .keep = 0, .act = act_write });
}

TEST(prune_some, "G2 G3 G5: faults in a write that keeps one of three versions")
{
    explore((scenario){ .history = { OLD, OTHER, OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_write });
}

TEST(collect, "G2 G3 G5: faults in collecting versions")
{
    explore((scenario){ .history = { OLD, NEW, OLD }, .after = OLD, .other = OTHER, .keep = 3,
                        .act = act_collect });
}

static char source_text[20001];

static void write_sources(void)
{
    disk_write("source", source_text, 0644);
    disk_write("small", "s", 0644);
}

TEST(sources, "G2 G3 G5: faults in a write that copies sources")
{
    memset(source_text, 'x', sizeof source_text - 1);
    write_sources();
    explore((scenario){
        .history = { FILES(FS("s/one", "small", "s"), F("big", "small yet")) },
        .after = FILES(FS("s/one", "small", "s"), FS("big", "source", source_text)),
        .other = OTHER, .keep = 1, .act = act_write, .prepare = write_sources });
}

static int no_copying(int from, int to, size_t size)
{
    (void)from;
    (void)to;
    (void)size;
    errno = ENOSYS;
    return -1;
}

static ssize_t no_copy_file_range(int from, int to, size_t size)
{
    return no_copying(from, to, size);
}

static int no_clone(int from, int to)
{
    return no_copying(from, to, 0);
}

TEST(read_and_write, "G2 G3 G5: faults in a write that copies sources by reading and writing")
{
    memset(source_text, 'x', sizeof source_text - 1);
    write_sources();
    aw_sys.copy_file_range = no_copy_file_range;
    aw_sys.clone_file = no_clone;
    explore((scenario){
        .history = { OLD }, .after = FILES(FS("big", "source", source_text), F("a", "1")),
        .other = OTHER, .keep = 0, .act = act_write, .prepare = write_sources });
}

static int no_link(int from_dir, const char *from, int to_dir, const char *to)
{
    (void)from_dir;
    (void)from;
    (void)to_dir;
    (void)to;
    errno = EPERM;
    return -1;
}

TEST(no_links, "G2 G3 G5: faults in a write, and in a rollback, where hard links are refused")
{
    aw_sys.linkat = no_link;
    explore((scenario){
        .history = { OLD }, .other = OTHER, .keep = 1, .act = act_write,
        .after = FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "!"), F("old", "4")) });
    explore((scenario){ .history = { NEW, OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_rollback });
}

TEST(refused, "G2 G5: faults in undoing what a check refused")
{
    explore((scenario){ .history = { NEW, OLD }, .after = OLD, .other = OTHER, .keep = 1,
                        .act = act_refused, .refused = AW_E_CHECK_FAILED });
}

TEST(cancelled, "G2 G5: faults in undoing what was cancelled while it was written, or synced")
{
    stop_phase = AW_WRITING;
    stop_files = 2;
    explore((scenario){ .history = { NEW, OLD }, .after = OLD, .other = OTHER, .keep = 1,
                        .act = act_cancelled, .refused = AW_E_CANCELLED });
    stop_phase = AW_SYNCING;
    explore((scenario){ .history = { NEW, OLD }, .after = OLD, .other = OTHER, .keep = 1,
                        .act = act_cancelled, .refused = AW_E_CANCELLED });
}

TEST(read_rewrite, "G2 G3 G5 G9: faults in a rewrite under a reader, whose version must go and may not")
{
    explore((scenario){ .history = { NEW, OLD }, .after = NEW, .other = OTHER, .keep = 0,
                        .act = act_write, .read = true });
}

TEST(read_type_change, "G2 G3 G5 G9: faults in a change from file to directory under a reader")
{
    explore((scenario){
        .history = { FILES(F("a", "file"), F("b/c/d", "deep"), F("s", "")) },
        .after = FILES(F("a/b", "below"), F("b", "top"), F("s", "")),
        .other = OTHER, .keep = 0, .act = act_write, .read = true });
}

TEST(read_rollback, "G2 G3 G5 G9: faults in a rollback under a reader")
{
    explore((scenario){ .history = { NEW, OLD }, .after = NEW, .other = OTHER, .keep = 0,
                        .act = act_rollback, .read = true });
}

static void leave_more(void)
{
    leave_residue();
    disk_symlink("..data/new", "target/new"); /* a name that NEW needs */
}

TEST(sweeping, "G5: faults in a write that sweeps what a killed one left")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_write, .prepare = leave_more, .residue = true });
}

TEST(sweeping_no_op, "G5: faults in a write that only sweeps")
{
    explore((scenario){ .history = { OTHER, OLD }, .after = OLD, .other = NEW, .keep = 1,
                        .act = act_write, .prepare = leave_more, .residue = true });
}

TEST(many, "G2 G3 G5: faults in a write of so many files that one call syncs them all")
{
    enum { COUNT = 60 };
    static char names[COUNT][16];
    static file files[COUNT + 1];

    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "d%zu/f%02zu", i % 3, i);
        files[i] = (file)F(names[i], "contents");
    }
    explore((scenario){ .history = { OLD }, .after = files, .other = OTHER, .keep = 0,
                        .act = act_write, .stride = 3 });
}

/* ---- where the target lies --------------------------------------------- */

/* The next scenarios' target lies in a directory named like a version, so that
 * it is looked whether that is one. */
static void enter_likeness(void)
{
    disk_mkdir("..2026_11_22_15_04_05.1", 0755);
    CHECK(chdir("..2026_11_22_15_04_05.1") == 0);
}

TEST(likeness, "G2 G3 G5: faults in a write below a directory that is named like a version")
{
    enter_likeness();
    explore((scenario){ .history = { OLD }, .after = NEW, .other = OTHER, .keep = 1,
                        .act = act_write });
    explore((scenario){ .after = NEW, .other = OTHER, .keep = 1, .act = act_write,
                        .creates = true });
}

/* The number of the first CALL from number AT on in what was counted last. */
static unsigned next_call(fault_call call, unsigned at)
{
    while (at <= fault_calls() && fault_call_at(at) != call)
        at++;
    CHECK_THAT(at <= fault_calls(), "%s is not called", fault_call_name(call));
    return at;
}

static void try_unknown_place(scenario s)
{
    static const int codes[] = { ENOENT, EACCES, ENAMETOOLONG, ENOMEM, EIO };
    const size_t places = s.creates ? 3 : 2;
    unsigned at[3];

    set_up(&s);
    CHECK(act(&s, (fault_plan){ .kind = FAULT_NONE }).rc == 0);
    at[0] = next_call(CALL_fd_path, 1);
    at[1] = next_call(CALL_fstatat, at[0]);
    at[2] = at[0] - 1; /* the parent's openat */
    CHECK(!s.creates || fault_call_at(at[2]) == CALL_openat);
    disk_remove("target");
    for (size_t i = 0; i < places * sizeof codes / sizeof codes[0]; i++) {
        unsigned here = at[i % places];
        int code = codes[i / places];
        outcome o;

        set_up(&s);
        o = act(&s, (fault_plan){ .at = here, .kind = FAULT_FAIL, .code = code });
        CHECK_THAT(o.rc == 0 && o.changed && o.hits == 1, "%s: %s",
                   fault_call_name(fault_call_at(here)), strerrorname_np(code));
        CHECK_CLEAN("target", s.after, 1);
        disk_remove("target");
    }
}

TEST(unknown_place, "a write is as good where the kernel does not tell where its target lies")
{
    enter_likeness();
    try_unknown_place((scenario){ .history = { OLD }, .after = NEW, .keep = 1, .act = act_write });
    try_unknown_place((scenario){ .after = NEW, .keep = 1, .act = act_write, .creates = true });
}

static int act_inside(const scenario *s, aw_result *result, aw_error *err)
{
    aw_options options = act_options(s);
    aw_writer *writer = NULL;
    aw_payload *payload = payload_of(s->after);
    int rc = aw_writer_open("target/d", &options, &writer, err);

    if (rc == 0)
        rc = aw_write(writer, payload, NULL, result, err);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

TEST(inside_a_version, "G7: a write into another target's version changes nothing, whatever else fails")
{
    const scenario s = { .history = { OLD }, .after = OTHER, .keep = 1, .act = act_inside };
    fault_call trace[32];
    char *state, *after;
    size_t descriptors;
    unsigned calls;

    set_up(&s);
    state = disk_full_state("target");
    descriptors = disk_open_files();
    CHECK(act(&s, (fault_plan){ .kind = FAULT_NONE }).err.code == AW_E_FOREIGN_ENTRY);
    calls = fault_calls();
    CHECK(calls < 32);
    for (unsigned at = 1; at <= calls; at++)
        trace[at] = fault_call_at(at);
    for (unsigned at = 1; at <= calls; at++) {
        if (trace[at] == CALL_fd_path || trace[at] == CALL_fstatat)
            continue; /* without an answer it is not refused */
        for (const int *code = fault_codes(trace[at]); *code != 0; code++) {
            outcome o = act(&s, (fault_plan){ .at = at, .kind = FAULT_FAIL, .code = *code });

            CHECK_THAT(o.rc < 0 && !o.err.committed && o.hits == 1, "%s: %s",
                       fault_call_name(trace[at]), strerrorname_np(*code));
            CHECK(o.err.code == (trace[at] == CALL_openat || trace[at] == CALL_getcwd
                                 || trace[at] == CALL_fstat ? AW_E_IO : AW_E_FOREIGN_ENTRY));
            CHECK(disk_open_files() == descriptors);
        }
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, state);
    free(state);
    free(after);
}

TEST(total, "all faults together")
{
    test_note("fault: %u points, %u violations", all_points, violations);
    CHECK(all_points == points);
}
