/* power_test.c: G4, power cuts at every call of a durable write, told by the model of
 * power.h. In every state that may come back
 *
 *   - "..data" names the version that was promised last, or the one that is being
 *     written, and all of it is there: paths, data, modes, owners, and nothing else;
 *   - every name that it shows is visible;
 *   - the retained versions are whole, for a rollback may publish them;
 *   - and, for some of the states, the next write succeeds and leaves the target clean,
 *     also when the power goes again while it sweeps.
 *
 * The same holds when a sync fails with EIO: the write fails, or only puts off a removal,
 * nothing of it counts as synced, and the next one makes up for it.
 *
 * Built with POWER_MUTANT, which leaves out one class of syncs, each scenario has to show
 * violations instead.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "power.h"
#include "test.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STEPS_MAX = 6, WHOLE_MAX = 16, NAMES_MAX = 512, CUTS_MAX = 200, MANY = 60 };

/* ---- what was promised -------------------------------------------------- */

/* A version as it was when it was live. */
typedef struct whole {
    char *version;
    char *text;
    bool  durable;   /* promised to stay so                                  */
} whole;

typedef struct step {
    char  *version;  /* live after it                                        */
    size_t end;      /* the cut at which it had returned                     */
    bool   durable;
    bool   failed;   /* it promises nothing, and takes no promise away       */
} step;

typedef struct story {
    char         *initial;         /* live at first, or NULL                 */
    bool          initial_durable;
    step          steps[STEPS_MAX];
    size_t        step_count;
    whole         wholes[WHOLE_MAX];
    size_t        whole_count;
    unsigned      keep;
    bool          again;           /* this is the second cut                 */
    unsigned long judged, healed, violations;
    size_t        cut;             /* that was judged last, and              */
    unsigned long in_cut;          /* how many states of it were             */
    char          first[4096];     /* violation                              */
} story;

/* A mutant only has to be found, and sanitizers look at the code, not at the disk. */
#ifdef __SANITIZE_ADDRESS__
#define QUICK true
#else
#define QUICK (POWER_MUTANT[0] != '\0')
#endif
#define EFFORT (!QUICK \
                    ? (power_effort){ .few = 3000, .pairs = 100, .random = 100 } \
                    : (power_effort){ .few = 100, .random = 10 })

static unsigned long all_states, all_healed, all_violations, all_cuts, all_in_full;

static void violate(story *s, size_t cut, const char *format, ...)
{
    va_list args;
    int length;

    if (s->violations++ > 0)
        return;
    length = snprintf(s->first, sizeof s->first, "cut before call %zu%s: ", cut,
                      s->again ? " of the write after a cut" : "");
    va_start(args, format);
    vsnprintf(s->first + length, sizeof s->first - (size_t)length, format, args);
    va_end(args);
}

/* ---- a version in a state ----------------------------------------------- */

static void describe(const power *p, size_t inode, const char *path, const char *text, FILE *out)
{
    uid_t uid;
    gid_t gid;

    power_owner(p, inode, &uid, &gid);
    fprintf(out, "%s %o %u:%u %s\n", path, (unsigned)power_mode(p, inode), uid, gid, text);
}

static void render(const power *p, size_t dir, const char *path, FILE *out)
{
    const char *names[NAMES_MAX];
    size_t count = power_list(p, dir, names, NAMES_MAX);

    describe(p, dir, path, "/", out);
    for (size_t i = 0; i < count; i++) {
        size_t inode = power_entry(p, dir, names[i]);
        char below[512];

        snprintf(below, sizeof below, "%s/%s", path, names[i]);
        if (power_type_of(p, inode) == POWER_DIRECTORY)
            render(p, inode, below, out);
        else
            describe(p, inode, below, power_text(p, inode), out);
    }
}

static char *text_of(const power *p, size_t dir)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    render(p, dir, "", out);
    fclose(out);
    return text;
}

static const whole *find_whole(const story *s, const char *version)
{
    for (size_t i = 0; i < s->whole_count; i++)
        if (strcmp(s->wholes[i].version, version) == 0)
            return &s->wholes[i];
    return NULL;
}

static void promise(story *s, const char *version)
{
    for (size_t i = 0; i < s->whole_count; i++)
        if (strcmp(s->wholes[i].version, version) == 0)
            s->wholes[i].durable = true;
}

static bool is_version(const char *name)
{
    size_t length = strlen(name);

    return strncmp(name, "..2", 3) == 0 && strcmp(name + length - 4, "_tmp") != 0;
}

/* Versions of one process differ in their digits' number at most. */
static bool is_older(const char *a, const char *b)
{
    int order = strncmp(a, b, strlen("..YYYY_MM_DD_hh_mm_ss."));

    if (order != 0)
        return order < 0;
    return strlen(a) != strlen(b) ? strlen(a) < strlen(b) : strcmp(a, b) < 0;
}

/* Remember every version that is in the state; those that are new to us are DURABLE. */
static void learn(story *s, const power *p, bool durable)
{
    size_t target = power_entry(p, POWER_ROOT, "target");
    const char *names[NAMES_MAX];
    size_t count = power_list(p, target, names, NAMES_MAX);

    for (size_t i = 0; i < count; i++) {
        if (!is_version(names[i]) || find_whole(s, names[i]))
            continue;
        if (s->whole_count == WHOLE_MAX)
            abort();
        s->wholes[s->whole_count++] =
            (whole){ strdup(names[i]), text_of(p, power_entry(p, target, names[i])), durable };
    }
}

/* ---- judging ------------------------------------------------------------ */

/* Steps that had returned. */
static size_t done_before(const story *s, size_t cut)
{
    size_t count = 0;

    while (count < s->step_count && s->steps[count].end <= cut)
        count++;
    return count;
}

/* The last of DONE steps that has succeeded, or NULL. */
static const step *last_success(const story *s, size_t done)
{
    while (done > 0 && s->steps[done - 1].failed)
        done--;
    return done > 0 ? &s->steps[done - 1] : NULL;
}

static bool is_promised(const story *s, size_t done)
{
    const step *last = last_success(s, done);

    return last ? last->durable : s->initial_durable;
}

/* NULL: there was none. */
static const char *promised(const story *s, size_t done)
{
    const step *last = last_success(s, done);

    return last ? last->version : s->initial;
}

static bool same_name(const char *a, const char *b)
{
    return a && b && strcmp(a, b) == 0;
}

/* What is promised; or the version of a write that has failed since, or that the cut has
 * interrupted. */
static bool may_be_live(const story *s, size_t done, const char *version)
{
    if (same_name(version, promised(s, done)))
        return true;
    if (done < s->step_count && same_name(version, s->steps[done].version))
        return true;
    while (done > 0 && s->steps[done - 1].failed)
        if (same_name(version, s->steps[--done].version))
            return true;
    return false;
}

static void judge_names(story *s, const power *p, size_t cut, size_t target, size_t version)
{
    const char *names[NAMES_MAX];
    size_t count = power_list(p, version, names, NAMES_MAX);

    for (size_t i = 0; i < count; i++) {
        size_t link = power_entry(p, target, names[i]);
        char wanted[512];

        snprintf(wanted, sizeof wanted, "..data/%s", names[i]);
        if (link == POWER_NONE || power_type_of(p, link) != POWER_LINK
            || strcmp(power_text(p, link), wanted) != 0)
            violate(s, cut, "%s is live and not visible", names[i]);
    }
}

static void judge_version(story *s, const power *p, size_t cut, const char *name, size_t dir)
{
    const whole *wanted = find_whole(s, name);
    char *is = text_of(p, dir);

    if (!wanted || strcmp(is, wanted->text) != 0)
        violate(s, cut, "%s is torn: {%s} instead of {%s}", name, is,
                wanted ? wanted->text : "?");
    free(is);
}

static void judge_retained(story *s, const power *p, size_t cut, size_t target,
                           const char *live)
{
    const char *names[NAMES_MAX];
    size_t count = power_list(p, target, names, NAMES_MAX);

    for (size_t i = 0; i < count; i++) {
        const whole *known = find_whole(s, names[i]);

        if (is_version(names[i]) && is_older(names[i], live) && (!known || known->durable))
            judge_version(s, p, cut, names[i], power_entry(p, target, names[i]));
    }
}

static void judge_state(const power *p, size_t cut, story *s)
{
    size_t done = done_before(s, cut), target, data, version;
    const char *live;

    target = power_entry(p, POWER_ROOT, "target");
    data = target != POWER_NONE ? power_entry(p, target, "..data") : (size_t)POWER_NONE;
    if (data == POWER_NONE) {
        if (promised(s, done))
            violate(s, cut, "nothing is live, %s was promised", promised(s, done));
        return;
    }
    live = power_text(p, data);
    if (!may_be_live(s, done, live)) {
        violate(s, cut, "%s is live, %s was promised", live, promised(s, done));
        return;
    }
    version = power_entry(p, target, live);
    if (version == POWER_NONE) {
        violate(s, cut, "%s is live and not there", live);
        return;
    }
    judge_version(s, p, cut, live, version);
    judge_names(s, p, cut, target, version);
    judge_retained(s, p, cut, target, live);
}

/* ---- the next write ------------------------------------------------------ */

#define OTHER FILES(F("a", "other"), F("new/er", "!"), F("d/x", "other"))

static void judge(const power *p, size_t cut, void *context);

static int no_sync(int fd)
{
    (void)fd;
    return 0;
}

static int write_other(const story *s, aw_error *err)
{
    aw_options options = AW_OPTIONS_INIT;

    options.keep = s->keep;
    options.create = true;
    return write_with(&options, OTHER, NULL, err);
}

/* The power goes again in the write that repairs. */
static void cut_again(const story *s, const char *live, story *second)
{
    const power_effort effort = { .stride = 1, .few = 20, .random = 2 };
    power *p = power_record(true);
    size_t first = power_now(p);
    aw_error err;

    *second = (story){ .again = true, .initial_durable = true, .keep = s->keep };
    second->initial = live ? strdup(live) : NULL;
    power_newest(p, first);
    if (live)
        learn(second, p, true);
    if (write_other(s, &err) < 0)
        violate(second, 0, "the next write fails: %s", err.detail);
    power_stop(p);
    second->steps[0] = (step){ live_name("target"), power_now(p), true, false };
    second->step_count = 1;
    power_newest(p, power_now(p));
    learn(second, p, true);
    all_states += power_enumerate(p, first, power_now(p), &effort, judge, second);
    power_free(p);
}

static void end_story(story *s)
{
    for (size_t i = 0; i < s->step_count; i++)
        free(s->steps[i].version);
    for (size_t i = 0; i < s->whole_count; i++) {
        free(s->wholes[i].version);
        free(s->wholes[i].text);
    }
    free(s->initial);
}

/* A reader of the state sees the version LIVE, or that there is none. */
static void read_state(story *s, size_t cut, const char *live)
{
    aw_snapshot *snapshot = NULL;
    aw_list paths = { NULL, 0 };
    aw_error err;

    if (aw_snapshot_open("target", &snapshot, &err) < 0) {
        if (live)
            violate(s, cut, "no snapshot of %s: %s", live, err.detail);
        return;
    }
    if (!same_name(aw_snapshot_version(snapshot), live))
        violate(s, cut, "a snapshot is of %s", aw_snapshot_version(snapshot));
    if (aw_snapshot_paths(snapshot, &paths, &err) < 0)
        violate(s, cut, "a snapshot cannot be listed: %s", err.detail);
    for (size_t i = 0; i < paths.count; i++) {
        char *data = NULL;
        size_t size;

        if (aw_snapshot_read(snapshot, paths.items[i], &data, &size, &err) < 0)
            violate(s, cut, "a snapshot has no %s", paths.items[i]);
        free(data);
    }
    aw_list_clear(&paths);
    aw_snapshot_close(snapshot);
}

/* Have the disk as it is in the state, read, and write. */
static void heal(const power *p, size_t cut, story *s)
{
    char *tree = tree_of(OTHER), *live;
    aw_sys_table kernel = aw_sys;
    const char *odd = NULL;
    aw_error err;

    disk_mkdir("again", 0755);
    if (chdir("again") < 0)
        abort();
    power_make(p);
    live = disk_exists("target") ? live_name("target") : NULL;
    read_state(s, cut, live);
    aw_sys.fsync = aw_sys.syncfs = aw_sys.start_writeback = no_sync;
    if (s->healed++ % 8 == 0) {
        story second;

        cut_again(s, live, &second);
        if (second.violations > 0)
            violate(s, cut, "%s", second.first);
        end_story(&second);
    } else if (write_other(s, &err) < 0) {
        violate(s, cut, "the next write fails: %s", err.detail);
    }
    odd = unclean("target", tree, s->keep);
    if (odd)
        violate(s, cut, "after the next write: %s", odd);
    aw_sys = kernel;
    free(live);
    free(tree);
    if (chdir("..") < 0)
        abort();
    disk_remove("again");
}

/* Whether this state is of the sample that is written to: some of each cut, fewer and
 * fewer, and every so-manieth of all. */
static bool is_sampled(story *s, size_t cut)
{
    unsigned long count = s->in_cut = s->cut == cut ? s->in_cut + 1 : 1;

    s->cut = cut;
    while (count % 5 == 0)
        count /= 5;
    return (count == 1 && (!QUICK || cut % 8 == 0)) || s->judged % 4999 == 0;
}

/* Nothing is promised of what was written without durability, nor while something is. */
static void judge(const power *p, size_t cut, void *context)
{
    story *s = context;
    size_t done = done_before(s, cut);
    bool between = done > 0 && s->steps[done - 1].end == cut;

    if (!is_promised(s, done)
        || (done < s->step_count && !s->steps[done].durable && !between))
        return;
    judge_state(p, cut, s);
    s->judged++;
    if (POWER_MUTANT[0] != '\0' && s->violations > 0)
        return; /* it is found */
    if (!s->again && is_sampled(s, cut))
        heal(p, cut, s);
}

/* ---- acts ---------------------------------------------------------------- */

typedef struct act {
    const file *files;  /* NULL: the end, unless it is a rollback            */
    bool        durable;
    bool        rollback;
} act;

#define FULL(files) { files, true, false }
#define NONE(files) { files, false, false }
#define BACK        { NULL, true, true }
#define ACTS(...)   ((const act[]) { __VA_ARGS__, { NULL, false, false } })

static int64_t owner = AW_UNSET; /* of what is written, with its group     */

/* Where one writer makes all acts, and works on after each. */
static bool       goes_on;
static aw_writer *kept;

/* What the thread does comes at once, when the call has as good as returned. */
static const power *recording;
static size_t       returned;

static int run_at_once(pthread_t *thread, void *(*run)(void *), void *argument)
{
    (void)thread;
    returned = power_now(recording);
    (void)run(argument);
    return 0;
}

static int join_nothing(pthread_t thread)
{
    (void)thread;
    return 0;
}

static int attempt_with_kept(const act *a, const aw_options *options, aw_result *result,
                             aw_error *err)
{
    aw_payload *payload = payload_of(a->files);
    int rc;

    if (!kept)
        CHECK_OK(aw_writer_open("target", options, &kept, err), err);
    rc = aw_write(kept, payload, NULL, result, err);
    if (rc == 0)
        aw_writer_remember(kept, payload);
    else
        aw_payload_free(payload);
    return rc;
}

static int attempt(const act *a, unsigned keep, aw_result *result, aw_error *err)
{
    aw_options options = AW_OPTIONS_INIT;
    aw_writer *writer = NULL;
    aw_payload *payload = NULL;
    int rc;

    returned = 0;
    options.early = options.prepare = goes_on;

    options.keep = keep;
    options.create = true;
    options.uid = options.gid = owner;
    options.durability = a->durable ? AW_DURABLE : AW_NOT_DURABLE;
    if (goes_on)
        return attempt_with_kept(a, &options, result, err);
    CHECK_OK(aw_writer_open("target", &options, &writer, err), err);
    if (a->rollback) {
        rc = aw_rollback(writer, NULL, NULL, NULL, result, err);
    } else {
        payload = payload_of(a->files);
        rc = aw_write(writer, payload, NULL, result, err);
    }
    aw_payload_free(payload);
    aw_writer_close(writer);
    return rc;
}

static void perform(const act *a, unsigned keep)
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK_OK(attempt(a, keep, &result, &err), &err);
    CHECK_THAT(result.warnings.count == 0, "%s", result.warnings.items[0]);
    aw_result_clear(&result);
    if (!a->rollback)
        CHECK_CLEAN("target", a->files, keep);
}

/* What is live now is how far the story is. */
static void end_step(story *s, power *p, bool is_durable, bool has_failed)
{
    step *made = &s->steps[s->step_count++];

    *made = (step){ disk_exists("target") ? live_name("target") : NULL,
                    returned > 0 ? returned : power_now(p), is_durable, has_failed };
    power_newest(p, made->end);
    learn(s, p, is_durable && !has_failed);
    if (is_durable && !has_failed) /* it may have been there, and is vouched for now */
        promise(s, made->version);
}

/* Go through the states from the cut FIRST on, and end P and S. */
static void enumerate(power *p, story *s, size_t first, power_effort effort)
{
    all_cuts += (power_now(p) - first) / effort.stride + 1;
    all_states += power_enumerate(p, first, power_now(p), &effort, judge, s);
    all_in_full += power_in_full(p);
    all_healed += s->healed;
    all_violations += s->violations;
}

static void check_violations(unsigned long violations, const char *first)
{
    if (POWER_MUTANT[0] == '\0')
        CHECK_THAT(violations == 0, "%s", first);
    else
        CHECK_THAT(violations > 0, "nothing was found");
}

/* Go through ACTS from what is in the working directory on, whose "target", if there is
 * one, counts as synced or, unless DURABLE, never synced. */
static void go(const act *acts, unsigned keep, bool durable)
{
    power *p = power_record(durable);
    story s = { .initial_durable = durable, .keep = keep };
    size_t first = power_now(p);
    power_effort effort = EFFORT;

    recording = p;
    power_newest(p, first);
    if (disk_exists("target")) {
        s.initial = live_name("target");
        learn(&s, p, durable);
    }
    for (; acts->files || acts->rollback; acts++) {
        perform(acts, keep);
        end_step(&s, p, acts->durable, false);
    }
    power_stop(p);
    effort.stride = 1 + (power_now(p) - first) / CUTS_MAX;
    enumerate(p, &s, first, effort);
    test_note("%zu cuts in full, %lu states judged, %lu written to again, %lu violations",
              power_in_full(p), s.judged, s.healed, s.violations);
    check_violations(s.violations, s.first);
    end_story(&s);
    power_free(p);
}

/* ---- syncs that fail ------------------------------------------------------ */

/* ACTS, of which sync number FAILING of the last one fails; then that act again. False
 * when it makes fewer syncs. */
static bool fail_and_go_on(const act *acts, unsigned keep, unsigned failing, story *s)
{
    power_effort effort = { .few = 100, .random = 10 };
    aw_result result = AW_RESULT_INIT;
    power *p = power_record(true);
    size_t first;
    aw_error err;
    bool failed;
    int rc;

    *s = (story){ .initial_durable = true, .keep = keep };
    power_newest(p, power_now(p));
    for (; acts[1].files || acts[1].rollback; acts++) {
        perform(acts, keep);
        end_step(s, p, acts->durable, false);
    }
    first = power_now(p);
    power_fail_sync(p, failing);
    rc = attempt(acts, keep, &result, &err);
    failed = power_has_failed(p);
    if (failed) {
        /* only the sync before a removal is no failure: it puts the removal off */
        if (rc == 0)
            CHECK_THAT(result.warnings.count > 0, "sync %u failed, and nobody was told", failing);
        else
            CHECK_THAT(err.sys_errno == EIO, "sync %u failed, and errno is %d", failing,
                       err.sys_errno);
        end_step(s, p, true, rc < 0);
        aw_result_clear(&result);
        perform(acts, keep);
        end_step(s, p, true, false);
    }
    aw_result_clear(&result);
    power_stop(p);
    effort.stride = 1 + (power_now(p) - first) / (QUICK ? 5 : 40);
    if (failed)
        enumerate(p, s, first, effort);
    power_free(p);
    return failed;
}

/* As go(), by one writer that works on after each call. */
static void go_on(const act *acts, unsigned keep)
{
    goes_on = true;
    kept = NULL; /* a test that failed may have left its own */
    aw_sys.thread_start = run_at_once;
    aw_sys.thread_join = join_nothing;
    go(acts, keep, true);
    aw_writer_close(kept);
    kept = NULL;
    goes_on = false;
    returned = 0;
}

/* Every sync of the last act fails, each in a run of its own. */
static void go_with_errors(const act *acts, unsigned keep)
{
    unsigned long judged = 0, violations = 0;
    unsigned failing = 0;
    char found[sizeof ((story *)NULL)->first] = "";
    bool failed;

    do {
        story s;

        disk_mkdir("failing", 0755);
        if (chdir("failing") < 0)
            abort();
        failed = fail_and_go_on(acts, keep, ++failing, &s);
        if (s.violations > 0 && violations == 0)
            memcpy(found, s.first, sizeof found);
        violations += s.violations;
        judged += s.judged;
        end_story(&s);
        if (chdir("..") < 0)
            abort();
        disk_remove("failing");
    } while (failed);
    CHECK(failing > 2);
    test_note("%u failing syncs, %lu states judged, %lu violations", failing - 1, judged,
              violations);
    /* what a mutant leaves out, some of these do not have: that all is found, go() shows */
    CHECK_THAT(violations == 0 || POWER_MUTANT[0] != '\0', "%s", found);
}

/* ---- scenarios ----------------------------------------------------------- */

#define ONE FILES(F("a", "1"), FM("d/x", "2", 0600), F("d/e/y", "3"), F("old/z", "4"))
#define TWO FILES(F("a", "1"), FM("d/x", "!", 0600), F("d/e/y", "3"), F("new", "4"))
#define THREE FILES(F("a", "3"), FM("d/x", "!", 0640), F("d/e/y", ""), F("new", "5"))

TEST(first, "G4: a power cut in the first write, which makes the target")
{
    go(ACTS(FULL(ONE)), 1, true);
}

TEST(rewrite, "G4: a power cut while every file changes")
{
    go(ACTS(FULL(FILES(F("a", "1"), F("d/x", "1"))), FULL(FILES(F("a", "2"), F("d/x", "2")))), 1,
       true);
}

TEST(some, "G4: a power cut while some files change and others are linked")
{
    go(ACTS(FULL(ONE), FULL(TWO), FULL(THREE), FULL(ONE)), 1, true);
}

TEST(linked, "G4: a power cut around a write that links what was never synced")
{
    go(ACTS(NONE(ONE), FULL(TWO), FULL(THREE)), 1, true);
}

TEST(in_turn, "G4: a power cut around durable writes with one without durability between")
{
    go(ACTS(FULL(ONE), NONE(TWO), FULL(THREE)), 0, true);
}

TEST(vouched, "G4: a power cut after a write that changes nothing that was never synced")
{
    go(ACTS(NONE(ONE), FULL(ONE), FULL(TWO)), 1, true);
}

static void make_kubelets_volume(void)
{
    disk_mkdir("target", 0755);
    disk_mkdir("target/..2026_01_01_00_00_00.123456789", 0755);
    disk_write("target/..2026_01_01_00_00_00.123456789/a", "1", 0644);
    disk_write("target/..2026_01_01_00_00_00.123456789/b", "2", 0644);
    disk_symlink("..2026_01_01_00_00_00.123456789", "target/..data");
    disk_symlink("..data/a", "target/a");
    disk_symlink("..data/b", "target/b");
}

TEST(taken_over, "G4: a power cut around writes to a volume that somebody else has made")
{
    make_kubelets_volume();
    go(ACTS(FULL(FILES(F("a", "1"), F("b", "changed"))), FULL(TWO)), 0, false);
}

TEST(confirmed, "G4: a power cut after a volume of somebody else's was found to be right")
{
    make_kubelets_volume();
    go(ACTS(FULL(FILES(F("a", "1"), F("b", "2"))), FULL(TWO)), 0, false);
}

TEST(type_change, "G4: a power cut while files become directories and back")
{
    go(ACTS(FULL(FILES(F("a/b", "1"), F("c", "1"))), FULL(FILES(F("a", "2"), F("c/d/e", "2"))),
            FULL(FILES(F("a/b", "3"), F("c", "3")))), 1, true);
}

TEST(empty, "G4: a power cut while all files go, and come back")
{
    go(ACTS(FULL(ONE), FULL(NO_FILES), FULL(TWO)), 1, true);
}

TEST(modes, "G4: a power cut while modes change alone")
{
    go(ACTS(FULL(FILES(FM("a", "1", 0600), F("d/b", "2"))),
            FULL(FILES(FM("a", "1", 0640), F("d/b", "2")))), 1, true);
}

TEST(owners, "G4 G8: a power cut while files are given away")
{
    need_root();
    owner = 12345;
    go(ACTS(FULL(ONE), FULL(TWO)), 1, true);
    owner = AW_UNSET;
}

TEST(rolled_back, "G4: a power cut in a rollback")
{
    go(ACTS(FULL(ONE), FULL(TWO), BACK), 2, true);
}

TEST(rolled_back_to_undurable, "G4: a power cut in a rollback to what was never synced")
{
    go(ACTS(NONE(ONE), FULL(OTHER), BACK, FULL(TWO)), 1, true);
}

TEST(pruned, "G4: a power cut while versions are dropped")
{
    go(ACTS(FULL(ONE), FULL(TWO), FULL(THREE)), 0, true);
}

TEST(retained, "G4: a power cut while one of many retained versions is dropped")
{
    go(ACTS(FULL(ONE), FULL(TWO), FULL(THREE), FULL(ONE), FULL(TWO)), 3, true);
}

TEST(sources, "G4: a power cut while sources are copied")
{
    disk_write("source", "streamed", 0644);
    go(ACTS(FULL(FILES(FS("d/s", "source", "streamed"), F("a", "1"))),
            FULL(FILES(FS("d/s", "source", "streamed"), FS("t", "source", "streamed")))), 1, true);
}

TEST(deep, "G4: a power cut while directories are made far down")
{
    go(ACTS(FULL(FILES(F("a/b/c/d/e/f", "1"), F("a/b/x", "1"))),
            FULL(FILES(F("a/b/c/d/e/f", "1"), F("a/b/c/g/h", "2")))), 1, true);
}

TEST(residue, "G4: a power cut while a write sweeps what a killed one left")
{
    must_write(ONE);
    leave_residue();
    go(ACTS(FULL(TWO), FULL(THREE)), 1, true);
}

#define SAME(one, two) FILES(F("a", one), FM("d/x", "2", 0600), F("d/e/y", two), F("old/z", "4"))

TEST(ahead, "G4: a power cut around writes that take what a thread has made ahead of time")
{
    go_on(ACTS(FULL(SAME("1", "3")), FULL(SAME("1", "!")), FULL(SAME("2", "!")), FULL(TWO)), 1);
}

#define BEFORE FILES(F("a", "1"), F("d/x", "2"), F("d/e/y", "3"), F("f/g", ""), F("old/z", "4"))
#define AFTER  FILES(F("a/b", "1"), F("d/x", "2"), F("d/e/y", "3"), F("f/g", ""), F("new", "4"))

TEST(ahead_and_others, "G4: so it is where files and directories come and go in what was made")
{
    go_on(ACTS(FULL(BEFORE), FULL(AFTER), FULL(BEFORE)), 1);
}

TEST(ahead_keeping_none, "G4: so it is where the thread drops every version that was live")
{
    go_on(ACTS(FULL(SAME("1", "3")), FULL(SAME("1", "!")), FULL(SAME("1", "!")),
               FULL(SAME("", "!"))), 0);
}

static void fill(file *files, const char *one, const char *two)
{
    static char names[MANY][16];

    for (size_t i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "d%zu/f%zu", i % 4, i);
        files[i] = (file)F(names[i], i % 10 ? one : two);
    }
}

TEST(many, "G4: a power cut while so many files change that all is synced at once")
{
    static file some[MANY + 1], others[MANY + 1];

    fill(some, "1", "1");
    fill(others, "2", "1");
    go(ACTS(FULL(some), FULL(others)), 0, true);
}

TEST(failing_first, "G4: a sync of the first write that fails is an error, and not counted as done")
{
    go_with_errors(ACTS(FULL(ONE)), 1);
}

TEST(failing_later, "G4: so it is in a write that links some files, and drops a version")
{
    go_with_errors(ACTS(FULL(ONE), FULL(TWO)), 0);
}

TEST(failing_linked, "G4: so it is where what is linked was never synced")
{
    go_with_errors(ACTS(FULL(ONE), NONE(TWO), FULL(THREE)), 1);
}

TEST(failing_vouching, "G4: so it is where nothing changes and what is there was never synced")
{
    go_with_errors(ACTS(FULL(ONE), NONE(TWO), FULL(TWO)), 1);
}

TEST(failing_rollback, "G4: so it is in a rollback")
{
    go_with_errors(ACTS(FULL(ONE), FULL(TWO), BACK), 1);
}

TEST(failing_many, "G4: so it is where all is synced at once")
{
    static file some[MANY + 1], others[MANY + 1];

    fill(some, "1", "1");
    fill(others, "2", "1");
    go_with_errors(ACTS(FULL(some), FULL(others)), 0);
}

TEST(total, POWER_MUTANT[0] == '\0'
            ? "G4: all power cuts together" : "all power cuts together, " POWER_MUTANT)
{
    printf("# power%s%s: %lu cuts, %lu of them in full, %lu states, %lu written to again, "
           "%lu violations\n", POWER_MUTANT[0] != '\0' ? " with " : "", POWER_MUTANT, all_cuts,
           all_in_full, all_states, all_healed, all_violations);
    CHECK(all_states > 10000);
    CHECK((all_violations > 0) == (POWER_MUTANT[0] != '\0'));
}
