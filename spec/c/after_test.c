/* after_test.c: what goes on after a call, and what a writer that stays open spares
 * because of it. Whatever others do to the target between two calls, or at any call
 * to the kernel in the middle of one, the next write finds, as a fresh writer would.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REST F("d/e/f", "deep\n"), F("tls/key", "secret\n"), FM("tls/cert", "CERTIFICATE\n", 0640)

static const file first[] = { F("app.conf", "listen = 1\n"), REST, { NULL, NULL, 0, NULL } };
static const file second[] = { F("app.conf", "listen = 2\n"), REST, { NULL, NULL, 0, NULL } };
static const file third[] = { F("app.conf", "listen = 3\n"), REST, { NULL, NULL, 0, NULL } };
static const file fourth[] = { F("app.conf", "listen = 4\n"), F("a/b", "new\n"),
                               F("tls/key", "secret\n"), { NULL, NULL, 0, NULL } };

static unsigned long long dice;

static unsigned roll(unsigned sides)
{
    dice = dice * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(dice >> 33) % sides;
}

/* ---- writers that go on -------------------------------------------------- */

static aw_writer *open_with(const aw_options *options)
{
    aw_writer *writer = NULL;
    aw_error err;

    if (!disk_exists("target"))
        disk_mkdir("target", 0755);
    CHECK_OK(aw_writer_open("target", options, &writer, &err), &err);
    return writer;
}

/* Write FILES and hand them over. RESULT may be NULL. */
static int try_write(aw_writer *writer, const file *wanted, aw_result *result, aw_error *err)
{
    aw_payload *payload = payload_of(wanted);
    aw_result own = AW_RESULT_INIT;
    int rc = aw_write(writer, payload, NULL, result ? result : &own, err);

    if (rc == 0)
        aw_writer_remember(writer, payload);
    else
        aw_payload_free(payload);
    aw_result_clear(&own);
    return rc;
}

static bool must(aw_writer *writer, const file *wanted)
{
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    bool changed;

    CHECK_OK(try_write(writer, wanted, &result, &err), &err);
    changed = result.changed;
    CHECK_THAT(result.warnings.count == 0, "warned: %s", joined(&result.warnings));
    aw_result_clear(&result);
    return changed;
}

/* As if the live version's files had been written an hour ago. */
static void age(const file *files)
{
    for (; files->path != NULL; files++) {
        const struct timespec times[2] = { { 0, UTIME_OMIT }, { time(NULL) - 3600, 0 } };

        CHECK(utimensat(AT_FDCWD, in_live(files->path), times, 0) == 0);
    }
}

static void need_lines(void)
{
    if (!aw_sys_kernel_at_least(6, 13))
        test_skip("stamps are multigrain from Linux 6.13 on");
}

/* One that has written twice, has seen all files, and has made the next directory. */
static aw_writer *prepared_writer(const aw_options *options)
{
    aw_writer *writer = open_with(options);

    must(writer, first);
    age(first);
    must(writer, first);
    must(writer, second);
    aw_writer_settle(writer);
    return writer;
}

/* ---- what a fresh writer and an inspection say ---------------------------- */

static char complaint[PATH_MAX];

static const char *inspected(size_t others)
{
    aw_inspection seen = AW_INSPECTION_INIT;
    const char *odd = NULL;
    aw_error err;

    CHECK_OK(aw_inspect("target", &seen, &err), &err);
    if (seen.fault != AW_SOUND)
        odd = "..data is not sound";
    else if (seen.residue.count > 0)
        odd = "there is residue";
    else if (seen.dangling.count > 0)
        odd = "a visible name dangles";
    else if (seen.missing.count > 0)
        odd = "a visible name is missing";
    else if (seen.foreign.count > 0)
        odd = "a foreign name is in the way";
    else if (seen.others != others)
        odd = "there are foreign names";
    if (odd) {
        snprintf(complaint, sizeof complaint, "%s: %s%s%s%s", odd, joined(&seen.residue),
                 seen.dangling.count ? seen.dangling.items[0] : "",
                 seen.missing.count ? seen.missing.items[0] : "",
                 seen.foreign.count ? seen.foreign.items[0] : "");
        odd = complaint;
    }
    aw_inspection_clear(&seen);
    return odd;
}

/* NULL, or what a fresh writer with OPTIONS would say to FILES. */
static const char *foretold(const aw_options *options, const file *wanted)
{
    aw_payload *payload = payload_of(wanted);
    aw_result result = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    const char *odd = NULL;
    aw_error err;

    CHECK_OK(aw_writer_open("target", options, &writer, &err), &err);
    if (aw_plan(writer, payload, &result, &err) < 0) {
        aw_error_text(&err, complaint, sizeof complaint);
        odd = complaint;
    } else if (result.changed) {
        snprintf(complaint, sizeof complaint, "a fresh writer would add %s",
                 joined(&result.added));
        snprintf(complaint + strlen(complaint), sizeof complaint - strlen(complaint),
                 ", update %s", joined(&result.updated));
        snprintf(complaint + strlen(complaint), sizeof complaint - strlen(complaint),
                 ", remove %s", joined(&result.removed));
        odd = complaint;
    }
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return odd;
}

static const char *wrong(const aw_options *options, const file *wanted, size_t others)
{
    const char *odd = foretold(options, wanted);

    return odd ? odd : inspected(others);
}

/* ---- what others do ------------------------------------------------------ */

static const char *next_path(const char *path)
{
    static char full[PATH_MAX];

    snprintf(full, sizeof full, "target/..next/%s", path);
    return full;
}

/* A path below the version that was made last. */
static const char *newest_path(const char *path)
{
    static char full[PATH_MAX], name[256];
    struct dirent *entry;
    DIR *dir = opendir("target");

    name[0] = '\0';
    while (dir && (entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, "..2", 3) == 0 && !strstr(entry->d_name, "_tmp")
            && strcmp(entry->d_name, name) > 0)
            snprintf(name, sizeof name, "%s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    snprintf(full, sizeof full, "target/%s/%s", name, path);
    return full;
}

static bool put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0)
        close(fd);
    return done;
}

static bool drop_name(void)        { return unlink("target/app.conf") == 0; }
static bool drop_data(void)        { return unlink("target/..data") == 0; }

static bool relink(const char *name, const char *text)
{
    return symlink(text, "target/other") == 0 && rename("target/other", name) == 0;
}

static bool replace_name(void)     { return relink("target/app.conf", "/etc/passwd"); }
static bool replace_other(void)    { return relink("target/tls", "..data/d"); }

static bool replace_anew(void)
{
    return unlink("target/tls") == 0 && symlink("/etc/ssl", "target/tls") == 0;
}

static bool replace_by_file(void)
{
    return unlink("target/tls") == 0 && put("target/tls", "mine\n");
}

static bool foreign_comes(void)    { return put("target/notes.txt", "mine\n"); }

static bool foreign_goes(void)
{
    return put("target/notes.txt", "mine\n") && unlink("target/notes.txt") == 0;
}

static bool stray_comes(void)      { return symlink("..data/stray", "target/stray") == 0; }
static bool version_comes(void)    { return mkdir("target/..2999_01_01_00_00_00.1", 0755) == 0; }
static bool old_version_comes(void){ return mkdir("target/..2001_01_01_00_00_00.1", 0755) == 0; }
static bool retired_comes(void)    { return mkdir("target/..2001_01_01_00_00_00.1_tmp", 0755) == 0; }
static bool staged_comes(void)     { return symlink("nothing", "target/..data_tmp") == 0; }
static bool extra_in_live(void)    { return put(in_live("extra"), "x"); }
static bool extra_below_live(void) { return put(in_live("d/e/extra"), "x"); }
static bool folder_in_live(void)   { return mkdir(in_live("d/extra"), 0755) == 0; }
static bool gone_from_live(void)   { return unlink(in_live("tls/key")) == 0; }
static bool top_gone_from_live(void) { return unlink(in_live("app.conf")) == 0; }
static bool mode_in_live(void)     { return chmod(in_live("tls/key"), 0600) == 0; }
static bool folder_mode_in_live(void) { return chmod(in_live("d"), 0711) == 0; }
static bool mode_of_live(void)     { return chmod(in_live("."), 0711) == 0; }

static bool owner_in_live(void)
{
    return geteuid() == 0 && chown(in_live("tls/key"), 1234, 1234) == 0;
}

static bool renamed_in_live(void)
{
    char from[PATH_MAX];

    snprintf(from, sizeof from, "%s", in_live("tls/key"));
    return rename(from, in_live("tls/kex")) == 0;
}

/* On tmpfs the directory gets the stamp of the inode that is linked. */
static bool linked_into_live(void)
{
    char from[PATH_MAX];

    snprintf(from, sizeof from, "%s", in_live("tls/key"));
    return link(from, in_live("extra")) == 0;
}

static bool folder_renamed_in_live(void)
{
    char from[PATH_MAX];

    snprintf(from, sizeof from, "%s", in_live("d/e"));
    return rename(from, in_live("d/g")) == 0;
}

/* Another inode with the same data, and one with others of the same size and mtime. */
static bool replaced_in_live(const char *text)
{
    char path[PATH_MAX];
    struct timespec times[2];
    struct stat st;

    snprintf(path, sizeof path, "%s", in_live("tls/key"));
    if (stat(path, &st) < 0 || !put("other", text) || chmod("other", st.st_mode & 07777) < 0)
        return false;
    times[0] = st.st_atim;
    times[1] = st.st_mtim;
    return utimensat(AT_FDCWD, "other", times, 0) == 0 && rename("other", path) == 0;
}

static bool same_again_in_live(void)  { return replaced_in_live("secret\n"); }
static bool other_inode_in_live(void) { return replaced_in_live("SECRET\n"); }

/* In place, with the mtime that it had. */
static bool forge(const char *path)
{
    struct timespec times[2] = { { 0, UTIME_OMIT }, { 0, 0 } };
    int fd = open(path, O_RDWR);
    struct stat st;
    char byte = 0;
    bool done = fd >= 0 && fstat(fd, &st) == 0 && pread(fd, &byte, 1, 0) == 1;

    times[1] = st.st_mtim;
    byte ^= 0x20;
    done = done && pwrite(fd, &byte, 1, 0) == 1 && futimens(fd, times) == 0;
    if (fd >= 0)
        close(fd);
    return done;
}

static bool forge_written(void)    { return forge(in_live("app.conf")); }
static bool forge_linked(void)     { return forge(in_live("tls/key")); }
static bool forge_next(void)       { return forge(next_path("tls/key")); }

static bool edit_linked(void)
{
    int fd = open(in_live("tls/key"), O_WRONLY);
    bool done = fd >= 0 && pwrite(fd, "SECRET\n", 7, 0) == 7;

    if (fd >= 0)
        close(fd);
    return done;
}

static bool forge_through_link(void)
{
    return link(in_live("tls/key"), "elsewhere") == 0 && forge("elsewhere")
           && unlink("elsewhere") == 0;
}

static bool extra_in_next(void)    { return put(next_path("extra"), "x"); }
static bool extra_below_next(void) { return put(next_path("d/e/extra"), "x"); }
static bool gone_from_next(void)   { return unlink(next_path("tls/key")) == 0; }
static bool mode_of_next(void)     { return chmod(next_path("d"), 0711) == 0; }

static bool replaced_in_next(void)
{
    return put("other", "SECRET\n") && rename("other", next_path("tls/key")) == 0;
}

static bool next_gone(void)
{
    if (!disk_exists("target/..next"))
        return false;
    disk_remove("target/..next");
    return true;
}

static bool next_is_file(void)
{
    return next_gone() && put("target/..next", "x");
}

static bool next_is_link(void)
{
    return next_gone() && symlink("/etc", "target/..next") == 0;
}

static bool next_is_another(void)
{
    return rename("target/..next", "moved") == 0 && mkdir("target/..next", 0755) == 0
           && put("target/..next/evil", "x");
}

static bool extra_in_stage(void)   { return put(newest_path("extra"), "x"); }
static bool gone_from_stage(void)  { return unlink(newest_path("app.conf")) == 0; }
static bool gone_below_stage(void) { return unlink(newest_path("tls/key")) == 0; }
static bool extra_below_stage(void){ return put(newest_path("tls/extra"), "x"); }

static bool target_replaced(void)
{
    if (rename("target", "old") < 0)
        return false;
    return mkdir("target", 0755) == 0;
}

static bool lock_gone(void)        { return unlink("target/..lock") == 0; }

/* A write of the same files, and of others, by another process. */
static bool by_another(const file *wanted, unsigned keep)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        aw_error err;
        aw_sys.thread_start = NULL;
        _exit(write_keeping(keep, wanted, NULL, &err) == 0 ? 0 : 1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static bool another_same(void)     { return by_another(second, 1); }
static bool another_other(void)    { return by_another(fourth, 1); }

static bool another_there_and_back(void)
{
    return by_another(fourth, 1) && by_another(second, 1);
}

typedef struct drift {
    const char *what;
    bool      (*act)(void);
    size_t      others;   /* foreign names that it leaves, and that may stay  */
    bool        refused;  /* the next write must say so                       */
    bool        rests;    /* in the middle of a write it may stay unseen, as the
                             header says                                    */
} drift;

static const drift drifts[] = {
    { "a visible name is deleted", drop_name, 0, false, false },
    { "..data is deleted", drop_data, 0, false, false },
    { "a visible name leads elsewhere", replace_name, 0, true, false },
    { "a visible name leads to another of ours", replace_other, 0, true, false },
    { "a visible name is made anew", replace_anew, 0, true, false },
    { "a visible name is a file", replace_by_file, 0, true, false },
    { "a foreign name comes", foreign_comes, 1, false, false },
    { "a foreign name comes and goes", foreign_goes, 0, false, false },
    { "a stray link of ours comes", stray_comes, 0, false, false },
    { "an unfinished version comes", version_comes, 0, false, false },
    { "an old version comes", old_version_comes, 0, false, false },
    { "a half-removed version comes", retired_comes, 0, false, false },
    { "..data_tmp comes", staged_comes, 0, false, false },
    { "a file comes into the live version", extra_in_live, 0, false, false },
    { "a file comes below the live version", extra_below_live, 0, false, false },
    { "a directory comes into the live version", folder_in_live, 0, false, false },
    { "a file goes from the live version", gone_from_live, 0, false, false },
    { "a file at the top goes from the live version", top_gone_from_live, 0, false, false },
    { "a mode drifts", mode_in_live, 0, false, false },
    { "a directory's mode drifts", folder_mode_in_live, 0, false, false },
    { "the version's mode drifts", mode_of_live, 0, false, false },
    { "an owner drifts", owner_in_live, 0, false, false },
    { "a file is renamed", renamed_in_live, 0, false, false },
    { "a file is linked into the live version", linked_into_live, 0, false, false },
    { "a directory is renamed", folder_renamed_in_live, 0, false, false },
    { "another inode has the same data", same_again_in_live, 0, false, false },
    { "another inode has data of the same size", other_inode_in_live, 0, false, false },
    { "a written file is forged", forge_written, 0, false, true },
    { "a linked file is forged", forge_linked, 0, false, true },
    { "a linked file is edited", edit_linked, 0, false, false },
    { "a linked file is forged through another link", forge_through_link, 0, false, true },
    { "a file is forged in ..next", forge_next, 0, false, true },
    { "a file comes into ..next", extra_in_next, 0, false, true },
    { "a file comes below ..next", extra_below_next, 0, false, true },
    { "a file goes from ..next", gone_from_next, 0, false, false },
    { "a directory's mode drifts in ..next", mode_of_next, 0, false, false },
    { "another inode is in ..next", replaced_in_next, 0, false, false },
    { "..next goes", next_gone, 0, false, false },
    { "..next is a file", next_is_file, 1, false, false },
    { "..next is a link", next_is_link, 1, false, false },
    { "..next is another directory", next_is_another, 0, false, false },
    { "a file comes into the newest version", extra_in_stage, 0, false, true },
    { "a file comes below the newest version", extra_below_stage, 0, false, true },
    { "a file goes from the newest version", gone_from_stage, 0, false, false },
    { "a file goes from below the newest version", gone_below_stage, 0, false, false },
    { "the target is another directory", target_replaced, 0, false, false },
    { "..lock is deleted", lock_gone, 0, false, false },
    { "another process writes the same", another_same, 0, false, false },
    { "another process writes others", another_other, 0, false, false },
    { "another process writes others, and the same again", another_there_and_back, 0, false,
      false },
};
enum { DRIFTS = sizeof drifts / sizeof *drifts };

/* What the specs of drift may have left beside the target. */
static void begin_anew(void)
{
    static const char *const left[] = { "target", "old", "moved", "other", "elsewhere" };

    for (size_t i = 0; i < sizeof left / sizeof *left; i++)
        disk_remove(left[i]);
}

/* Of the kinds of writers that there are, number KIND: early, prepare, both, neither. */
enum { KINDS = 4 };

static aw_options options_of_kind(int kind)
{
    aw_options options = options_keeping(1);

    options.early = kind & 1;
    options.prepare = kind & 2;
    return options;
}

TEST(below_setgid, "G8: below a setgid target a prepared write's files have the target's group, too")
{
    aw_options options = options_of_kind(2);
    aw_writer *writer;
    struct stat st;

    need_root();
    need_lines();
    disk_mkdir("target", 0755);
    CHECK(chown("target", 0, 777) == 0 && chmod("target", 02755) == 0);
    writer = prepared_writer(&options);
    must(writer, third);
    CHECK(stat(in_live("app.conf"), &st) == 0 && st.st_gid == 777);
    aw_writer_settle(writer);
    must(writer, fourth);
    CHECK(stat(in_live("a/b"), &st) == 0 && st.st_gid == 777);
    CHECK(!must(writer, fourth));
    aw_writer_close(writer);
}

/* A no-op write first, or a change at once. Both must find it. */
static void find_after(const drift *d, int kind, bool changes)
{
    const aw_options options = options_of_kind(kind);
    const file *wanted = changes ? third : second;
    aw_writer *writer;
    const char *odd;
    aw_error err;
    int rc;

    begin_anew();
    writer = prepared_writer(&options);
    if (!d->act()) {
        aw_writer_close(writer);
        return;
    }
    rc = try_write(writer, wanted, NULL, &err);
    aw_writer_settle(writer);
    if (d->refused) {
        CHECK_THAT(rc < 0 && err.code == AW_E_FOREIGN_ENTRY, "%s, kind %d: the write %s", d->what,
                   kind, rc == 0 ? "succeeded" : "failed otherwise");
    } else {
        CHECK_THAT(rc == 0, "%s, kind %d: the write failed: %s", d->what, kind, err.detail);
        odd = wrong(&options, wanted, d->others);
        CHECK_THAT(!odd, "%s, kind %d, %s: %s", d->what, kind, changes ? "change" : "no-op", odd);
        must(writer, fourth);
        aw_writer_settle(writer);
        odd = wrong(&options, fourth, d->others);
        CHECK_THAT(!odd, "%s, kind %d, then: %s", d->what, kind, odd);
    }
    aw_writer_close(writer);
}

TEST(finds_drift, "G5, G7, G8: an open writer finds whatever others do right after a write")
{
    need_lines();
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t i = 0; i < DRIFTS; i++) {
            find_after(&drifts[i], kind, false);
            find_after(&drifts[i], kind, true);
        }
    }
}

/* ---- in the middle of a write --------------------------------------------- */

static aw_sys_table kernel;
static unsigned     calls, act_at;
static const drift *acting;
static bool         acted, in_hook;

static void count_call(void)
{
    if (in_hook || ++calls != act_at)
        return;
    in_hook = true;
    acted = acting->act();
    in_hook = false;
}

#define WATCHED(type, name, parameters, arguments) \
    static type watched_##name parameters \
    { \
        count_call(); \
        return kernel.name arguments; \
    }
AW_SYS_CALLS(WATCHED)

static void watch_calls(void)
{
    kernel = aw_sys;
#define WATCH(type, name, parameters, arguments) aw_sys.name = watched_##name;
    AW_SYS_CALLS(WATCH)
    run_threads_at_once();
    calls = 0;
}

/* The change to THIRD with D done before call AT. Returns the number of calls. */
static unsigned find_within(const drift *d, int kind, unsigned at, unsigned *missed)
{
    const aw_options options = options_of_kind(kind);
    aw_writer *writer;
    const char *odd;
    aw_error err;
    unsigned made;
    int rc;

    begin_anew();
    writer = prepared_writer(&options);
    acting = d;
    act_at = at;
    acted = false;
    watch_calls();
    (void)try_write(writer, third, NULL, &err);
    made = calls;
    act_at = 0;
    aw_writer_settle(writer);
    aw_sys = kernel;
    if (acted) {
        rc = try_write(writer, third, NULL, &err);
        aw_writer_settle(writer);
        odd = rc < 0 && d->refused ? NULL : rc < 0 ? err.detail
                                                 : wrong(&options, third, d->others);
        if (odd) {
            ++*missed;
            test_note("%s before call %u of %u, kind %d: %s", d->what, at, made, kind, odd);
        }
    }
    aw_writer_close(writer);
    return made;
}

TEST(finds_drift_within, "G5, G7, G8: the write after finds what others do in the middle of one")
{
    unsigned missed = 0;

    need_lines();
    for (size_t i = 0; i < DRIFTS; i++) {
        if (drifts[i].rests || drifts[i].act == target_replaced || drifts[i].act == another_same
            || drifts[i].act == another_other || drifts[i].act == another_there_and_back)
            continue;
        for (int kind = 0; kind < KINDS; kind += KINDS - 1) {
            unsigned made = 2;

            for (unsigned at = 1 + (unsigned)i % 2; at <= made; at += 2)
                made = find_within(&drifts[i], kind, at, &missed);
        }
    }
    CHECK_THAT(missed == 0, "%u times it did not", missed);
}

/* ---- what stays, and who sweeps it ----------------------------------------- */

static const file without_d[] = { F("app.conf", "listen = 2\n"), F("tls/key", "secret\n"),
                                  FM("tls/cert", "CERTIFICATE\n", 0640),
                                  { NULL, NULL, 0, NULL } };

/* The next unlinkat of NAME fails with EIO. */
static const char *stuck;
static int         stuck_flags; /* with these; -1: any                          */
static unsigned    failures;

static int sticking_unlinkat(int dir, const char *name, int flags)
{
    if (stuck && (stuck_flags < 0 || flags == stuck_flags) && strcmp(name, stuck) == 0) {
        failures++;
        stuck = NULL;
        errno = EIO;
        return -1;
    }
    return kernel.unlinkat(dir, name, flags);
}

static void let_stick(const char *name)
{
    kernel = aw_sys;
    stuck = name;
    stuck_flags = -1;
    failures = 0;
    aw_sys.unlinkat = sticking_unlinkat;
}

TEST(stale_name, "G3, G5: a stale name that could not be dropped is told, and swept by the next write")
{
    for (int kind = 0; kind < KINDS; kind++) {
        const aw_options options = options_of_kind(kind);
        aw_result result = AW_RESULT_INIT;
        aw_writer *writer;
        const char *odd;
        aw_error err;

        begin_anew();
        writer = prepared_writer(&options);
        let_stick("d");
        stuck_flags = 0; /* the link, not the directory */
        CHECK_OK(try_write(writer, without_d, &result, &err), &err);
        aw_writer_settle(writer);
        CHECK(failures == 1 && result.warnings.count == 1);
        aw_result_clear(&result);
        must(writer, without_d);
        odd = wrong(&options, without_d, 0);
        CHECK_THAT(!odd, "kind %d: %s", kind, odd);
        aw_writer_close(writer);
        aw_sys = kernel;
    }
}

TEST(closed, "a writer that is closed takes ..next with it, unless it is another's")
{
    const aw_options options = options_of_kind(KINDS - 1);
    aw_writer *writer, *other;

    need_lines();
    begin_anew();
    writer = prepared_writer(&options);
    CHECK(disk_exists("target/..next"));
    aw_writer_close(writer);
    CHECK(!disk_exists("target/..next"));
    writer = prepared_writer(&options);
    other = prepared_writer(&options);
    CHECK(disk_exists("target/..next"));
    aw_writer_close(writer); /* its own is gone */
    CHECK(disk_exists("target/..next"));
    aw_writer_close(other);
    CHECK(!disk_exists("target/..next"));
}

TEST(paths_change, "files that come and go are linked ahead, too: nothing that stays is linked anew")
{
    const file *more = FILES(F("app.conf", "listen = 2\n"), F("a/b", "new\n"), F("zz", "new\n"),
                             F("d/e/f", "deep\n"), F("tls/key", "secret\n"),
                             FM("tls/cert", "CERTIFICATE\n", 0640));
    const aw_options options = options_of_kind(KINDS - 1);
    const file *sets[] = { more, second, fourth, second };
    const char *odd;
    aw_writer *writer;

    need_lines();
    begin_anew();
    run_threads_at_once();
    writer = prepared_writer(&options);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        must(writer, sets[i]);
        odd = wrong(&options, sets[i], 0);
        CHECK_THAT(!odd, "set %zu: %s", i, odd);
    }
    aw_writer_close(writer);
}

/* What goes from the live version and from the payload differs in neither. */
TEST(gone_from_both, "G5: a name is dropped whose file somebody has removed when it was not wanted any more")
{
    static const file smaller[] = { REST, { NULL, NULL, 0, NULL } };
    static const file other[] = { F("d/e/f", "changed\n"), F("tls/key", "secret\n"),
                                  FM("tls/cert", "CERTIFICATE\n", 0640), { NULL, NULL, 0, NULL } };

    for (int i = 0; i < 2 * KINDS; i++) {
        const aw_options options = options_of_kind(i / 2);
        const file *wanted = i % 2 ? other : smaller;
        aw_writer *writer;
        const char *odd;

        begin_anew();
        writer = prepared_writer(&options);
        CHECK(top_gone_from_live());
        CHECK(must(writer, wanted) == (i % 2));
        odd = wrong(&options, wanted, 0);
        CHECK_THAT(!odd, "kind %d, %s: %s", i / 2, i % 2 ? "change" : "no-op", odd);
        aw_writer_close(writer);
    }
}

/* By a process that ends without a word. */
static void in_a_child_that_dies(void (*act)(void))
{
    pid_t child = fork();
    int status = -1;

    if (child == 0) {
        act();
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static aw_durability durability;

static void prepare_and_do_nothing_twice(void)
{
    aw_options options = options_of_kind(3);
    aw_writer *writer;

    options.durability = durability;
    writer = prepared_writer(&options);
    must(writer, second);
    must(writer, second);
}

TEST(no_note, "G5: ..next of a process that has ended is swept by a write that changes nothing")
{
    for (int i = 0; i < 2; i++) {
        aw_options options = options_keeping(1);
        aw_error err;

        begin_anew();
        durability = options.durability = i == 0 ? AW_DURABLE : AW_NOT_DURABLE;
        in_a_child_that_dies(prepare_and_do_nothing_twice);
        CHECK(!aw_sys_kernel_at_least(6, 13) || disk_exists("target/..next"));
        CHECK_OK(write_with(&options, second, NULL, &err), &err);
        CHECK_CLEAN("target", second, 1);
    }
}

static unsigned synced;

static int count_fsync(int fd)
{
    synced++;
    return kernel.fsync(fd);
}

TEST(synced_once, "a durable writer that remembers the target's names syncs them once")
{
    for (int kind = 0; kind < KINDS; kind++) {
        aw_options options = options_of_kind(kind);
        aw_writer *writer;

        need_lines();
        begin_anew();
        options.durability = AW_DURABLE;
        writer = prepared_writer(&options);
        kernel = aw_sys;
        aw_sys.fsync = count_fsync;
        for (int i = 0; i < 3; i++) {
            synced = 0;
            CHECK(!must(writer, second));
            CHECK_THAT(synced == (i == 0), "kind %d, no-op %d: %u", kind, i, synced);
        }
        aw_sys = kernel;
        aw_writer_close(writer);
    }
}

TEST(half_swept, "G5: what a rollback could not remove of ..next is swept by the next write")
{
    const aw_options options = options_of_kind(3);
    aw_writer *writer = prepared_writer(&options);
    aw_result result = AW_RESULT_INIT;
    char *live = live_name("target");
    const char *odd;
    aw_error err;

    need_lines();
    let_stick("key"); /* in ..next */
    CHECK_OK(aw_rollback(writer, live, NULL, NULL, &result, &err), &err);
    CHECK(!result.changed && failures == 1 && result.warnings.count == 1);
    aw_result_clear(&result);
    must(writer, second);
    CHECK(!disk_exists("target/..next"));
    odd = wrong(&options, second, 0);
    CHECK_THAT(!odd, "%s", odd);
    aw_writer_close(writer);
    free(live);
}

TEST(shared_lock, "a mode that the owner has given to ..lock stays")
{
    aw_writer *writer = writer_keeping(1);

    must(writer, first);
    CHECK(chmod("target/..lock", 0660) == 0);
    must(writer, second);
    must(writer, third);
    CHECK(disk_mode("target/..lock") == 0660);
    aw_writer_close(writer);
}

TEST(told_by_a_rollback, "G3: a thread's warning is one of the next result's, a rollback's too")
{
    const aw_options options = options_of_kind(1);
    aw_writer *writer = prepared_writer(&options);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    let_stick("app.conf"); /* of the version that is dropped */
    must(writer, third);
    aw_writer_settle(writer);
    CHECK(failures == 1);
    CHECK_OK(aw_rollback(writer, NULL, NULL, NULL, &result, &err), &err);
    CHECK(result.warnings.count == 1);
    aw_result_clear(&result);
    must(writer, third);
    aw_writer_close(writer);
    CHECK_CLEAN("target", third, 1);
}

static int no_mkdirat(int dir, const char *name, mode_t mode)
{
    (void)dir;
    (void)name;
    (void)mode;
    errno = ENOSPC;
    return -1;
}

TEST(failed, "G2: a write that fails leaves no ..next that will not be used")
{
    static const file others[] = { F("app.conf", "1\n"), F("d/e/f", "2\n"), F("tls/key", "3\n"),
                                   { NULL, NULL, 0, NULL } };
    const aw_options options = options_of_kind(3);
    aw_writer *writer = prepared_writer(&options);
    aw_error err;

    kernel = aw_sys;
    aw_sys.mkdirat = no_mkdirat;
    CHECK(try_write(writer, others, NULL, &err) < 0 && err.sys_errno == ENOSPC);
    aw_sys = kernel;
    CHECK(!disk_exists("target/..next"));
    must(writer, others);
    aw_writer_settle(writer);
    CHECK(!wrong(&options, others, 0));
    aw_writer_close(writer);
}

/* ---- threads and processes --------------------------------------------------- */

/* In a thread of its own every call takes its time, so that others come in between. */
static pthread_t main_thread;

static void dawdle(void)
{
    const struct timespec nap = { 0, 200000 };

    if (!pthread_equal(pthread_self(), main_thread))
        nanosleep(&nap, NULL);
}

#define SLOW(type, name, parameters, arguments) \
    static type slow_##name parameters \
    { \
        dawdle(); \
        return kernel.name arguments; \
    }
AW_SYS_CALLS(SLOW)

static void slow_down(void)
{
    main_thread = pthread_self();
    kernel = aw_sys;
#define SLOW_DOWN(type, name, parameters, arguments) aw_sys.name = slow_##name;
    AW_SYS_CALLS(SLOW_DOWN)
}

TEST(closed_meanwhile, "G5: a writer may be closed while its thread works; what it made is swept")
{
    slow_down();
    for (int kind = 0; kind < KINDS; kind++) {
        const aw_options options = options_of_kind(kind);
        aw_writer *writer;
        aw_error err;

        begin_anew();
        writer = open_with(&options);
        must(writer, first);
        must(writer, second);
        aw_writer_close(writer);
        CHECK_OK(write_keeping(1, second, NULL, &err), &err);
        CHECK_CLEAN("target", second, 1);
    }
}

/* Waits until it is told to end. */
static pid_t fork_meanwhile(aw_writer *writer, bool writes, int *tell)
{
    int ends[2];
    pid_t child;

    CHECK(pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        aw_error err;
        char byte;

        close(ends[1]);
        main_thread = pthread_self();
        if (writes && try_write(writer, third, NULL, &err) < 0)
            _exit(1);
        aw_writer_close(writer);
        _exit(read(ends[0], &byte, 1) == 0 ? 0 : 2);
    }
    close(ends[0]);
    *tell = ends[1];
    return child;
}

TEST(forked_meanwhile, "G6: a child forked while the thread works has neither the thread nor the lock")
{
#ifdef __SANITIZE_THREAD__
    test_skip("ThreadSanitizer allows no thread in a child that was forked so");
#endif
    slow_down();
    for (int kind = 1; kind < KINDS; kind++) {
        for (int writes = 0; writes < 2; writes++) {
            aw_options options = options_of_kind(kind);
            aw_writer *writer, *other;
            int tell, status;
            const char *odd;
            pid_t child;

            begin_anew();
            writer = open_with(&options);
            must(writer, first);
            must(writer, second);
            child = fork_meanwhile(writer, writes, &tell);
            CHECK(child > 0);
            aw_writer_settle(writer);
            if (!writes) { /* the child waits, and nobody for it */
                options.lock_timeout = 0;
                other = open_with(&options);
                must(other, fourth);
                aw_writer_close(other);
            }
            must(writer, second);
            close(tell);
            CHECK(waitpid(child, &status, 0) == child && status == 0);
            must(writer, second);
            aw_writer_settle(writer);
            odd = wrong(&options, second, 0);
            CHECK_THAT(!odd, "kind %d, %s: %s", kind, writes ? "it writes" : "it waits", odd);
            aw_writer_close(writer);
        }
    }
}

static int no_thread(pthread_t *thread, void *(*run)(void *), void *argument)
{
    (void)thread;
    (void)run;
    (void)argument;
    errno = EAGAIN;
    return -1;
}

/* A thread that comes to nothing before it is waited for. */
static void *(*waiting)(void *);
static void *waits_with;

static int start_late(pthread_t *thread, void *(*run)(void *), void *argument)
{
    (void)thread;
    waiting = run;
    waits_with = argument;
    return 0;
}

static int join_late(pthread_t thread)
{
    (void)thread;
    (void)waiting(waits_with);
    return 0;
}

TEST(forked_copies, "G6: a forked child gives back what it has of its parent's thread, the lock too")
{
    const aw_options options = options_of_kind(KINDS - 1);
    size_t before = disk_open_files(), open;
    aw_writer *writer;
    int status;
    pid_t child;

    kernel = aw_sys;
    begin_anew();
    writer = open_with(&options);
    aw_sys.thread_start = start_late;
    aw_sys.thread_join = join_late;
    must(writer, first);
    open = disk_open_files() - before;
    CHECK(open > 0);
    child = fork();
    if (child == 0) {
        before = disk_open_files(); /* who watches us may have some here */
        aw_writer_settle(writer);
        _exit(before - disk_open_files() == open ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK_THAT(WEXITSTATUS(status) == 0, "the child has kept some");
    aw_writer_close(writer);
    aw_sys = kernel;
}

TEST(no_threads, "where no thread can be started, the call does all of it")
{
    for (int kind = 0; kind < KINDS; kind++) {
        const aw_options options = options_of_kind(kind);
        aw_writer *writer;

        begin_anew();
        aw_sys.thread_start = no_thread;
        writer = prepared_writer(&options);
        CHECK(!(kind & 2) || !aw_sys_kernel_at_least(6, 13) || disk_exists("target/..next"));
        must(writer, third);
        CHECK_CLEAN("target", third, 1);
        aw_writer_close(writer);
    }
}

TEST(leased, "G9: the thread leaves a version that somebody reads, and the next one drops it")
{
    aw_options options = options_of_kind(3);
    aw_snapshot *snapshot = NULL;
    aw_writer *writer;
    char *data = NULL;
    size_t size;
    aw_error err;

    options.keep = 0;
    writer = prepared_writer(&options);
    CHECK_OK(aw_snapshot_open("target", &snapshot, &err), &err);
    must(writer, third);
    must(writer, fourth);
    aw_writer_settle(writer);
    CHECK_OK(aw_snapshot_read(snapshot, "d/e/f", &data, &size, &err), &err);
    free(data);
    aw_snapshot_close(snapshot);
    must(writer, third);
    aw_writer_settle(writer);
    CHECK_CLEAN("target", third, 0);
    aw_writer_close(writer);
}

static const file *const in_turn[] = { first, second, third, fourth };

static void write_for_ever(int kind)
{
    aw_options options = options_of_kind(kind);
    aw_writer *writer = NULL;
    aw_error err;

    options.lock_timeout = 60000;
    if (aw_writer_open("target", &options, &writer, &err) < 0)
        _exit(1);
    for (unsigned i = 0;; i++) {
        if (try_write(writer, in_turn[i * 7 / 3 % 4], NULL, &err) < 0)
            _exit(1);
    }
}

TEST(killed, "G1, G5: a process killed at any time, its thread with it, leaves what is swept")
{
    const aw_options options = options_of_kind(0);

    must_write(first);
    dice = 1;
    for (int i = 0; i < 60; i++) {
        pid_t child = fork();
        struct timespec nap = { 0, (long)roll(6000) * 1000 };
        aw_writer *writer;
        const char *odd;
        int status;

        if (child == 0)
            write_for_ever(1 + i % 3);
        nanosleep(&nap, NULL);
        kill(child, SIGKILL);
        CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        CHECK(foretold(&options, first) == NULL || foretold(&options, second) == NULL
              || foretold(&options, third) == NULL || foretold(&options, fourth) == NULL);
        writer = open_with(&options);
        must(writer, first); /* that may be live already */
        odd = wrong(&options, first, 0);
        CHECK_THAT(!odd, "%s", odd);
        CHECK(!disk_exists("target/..next"));
        aw_writer_close(writer);
    }
}

TEST(two_processes, "G6: two processes, whose writers work on after their calls, take turns")
{
    enum { WRITES = 100 };
    const aw_options options = options_of_kind(3);
    pid_t children[2];
    const char *odd;

    disk_mkdir("target", 0755);
    for (int who = 0; who < 2; who++) {
        children[who] = fork();
        if (children[who] == 0) {
            aw_writer *writer = open_with(&options);
            aw_error err;

            for (unsigned i = 0; i < WRITES; i++) {
                if (try_write(writer, in_turn[(i / 3 + (unsigned)who) % 4], NULL, &err) < 0)
                    _exit(1);
            }
            aw_writer_close(writer);
            _exit(0);
        }
    }
    for (int who = 0; who < 2; who++) {
        int status;

        CHECK(waitpid(children[who], &status, 0) == children[who] && status == 0);
    }
    must_write(second);
    odd = wrong(&options, second, 0);
    CHECK_THAT(!odd, "%s", odd);
    CHECK_CLEAN("target", second, 1);
}

/* ---- anything, in any order ------------------------------------------------- */

static const char *const paths[] = { "app.conf", "d/e/f", "tls/key", "tls/cert", "a", "a/b", "a/b/c",
                                     "d/e/g/h", "d/x", "z" };
enum { PATHS = sizeof paths / sizeof *paths, ALWAYS = 3 };

static const char *random_text(void)
{
    static const char *const texts[] = { "one\n", "two\n", "six\n", "", "a longer one\n" };

    return texts[roll(5)];
}

static int random_mode(void)
{
    static const int modes[] = { AW_UNSET, AW_UNSET, 0600, 0444, 0200 };

    return modes[roll(5)];
}

/* A file is not also a directory. */
static bool clashes(const file *files, size_t count, const char *path)
{
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(files[i].path);

        if (strncmp(files[i].path, path, length) == 0 && path[length] == '/')
            return true;
    }
    return false;
}

static void choose_files(file *files)
{
    size_t count = 0;

    for (size_t i = 0; i < PATHS; i++) {
        if ((i < ALWAYS || roll(3) > 0) && !clashes(files, count, paths[i]))
            files[count++] = (file){ paths[i], random_text(), random_mode(), NULL };
    }
    files[count] = (file){ NULL, NULL, 0, NULL };
}

static size_t count_files(const file *files)
{
    size_t count = 0;

    while (files[count].path)
        count++;
    return count;
}

/* One or two of FILES, and of DERIVED, if there is one. */
static void change_some(file *files, aw_payload *derived)
{
    for (unsigned i = roll(2) + 1; i-- > 0;) {
        unsigned index = roll((unsigned)count_files(files));
        aw_entry entry = AW_ENTRY_INIT;
        aw_error err;

        files[index].data = random_text();
        files[index].mode = random_mode();
        entry.data = files[index].data;
        entry.size = strlen(entry.data);
        entry.mode = files[index].mode;
        if (derived)
            CHECK_OK(aw_payload_replace(derived, index, &entry, &err), &err);
    }
}

/* What a payload for the next write is made from: the last one, where its paths stay. */
static aw_payload *next_payload(file *files, aw_payload *last)
{
    aw_payload *made = NULL;
    aw_error err;

    switch (roll(5)) {
    case 0:
        choose_files(files);
        break;
    case 1:
        break;
    case 2:
        change_some(files, NULL);
        break;
    default:
        if (last)
            CHECK_OK(aw_payload_derive(last, &made, &err), &err);
        change_some(files, made);
    }
    return made ? made : payload_of(files);
}

/* What the writer may be asked in between. */
static void ask(aw_writer *writer, const file *files)
{
    aw_result result = AW_RESULT_INIT;
    aw_payload *payload;
    aw_version *list = NULL;
    size_t count;
    aw_error err;

    switch (roll(12)) {
    case 0:
        (void)aw_rollback(writer, NULL, NULL, NULL, &result, &err); /* there may be none */
        break;
    case 1:
        CHECK_OK(aw_collect(writer, &count, &err), &err);
        break;
    case 2:
        CHECK_OK(aw_versions(writer, &list, &count, &err), &err);
        break;
    case 3:
        payload = payload_of(files);
        CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
        aw_payload_free(payload);
        break;
    default:
        break;
    }
    free(list);
    aw_result_clear(&result);
}

static const drift *drift_at_random(bool settled)
{
    const drift *d = &drifts[roll(DRIFTS)];

    disk_remove("old");
    disk_remove("moved");
    disk_remove("other");
    disk_remove("elsewhere");
    if (!settled && (d->rests || d->act == drop_data || d->act == next_gone
                     || d->act == next_is_file || d->act == next_is_link))
        return NULL;
    return d->act() ? d : NULL;
}

/* What is in the way, or would be told of every time. */
static void tidy_up(void)
{
    unlink("target/notes.txt");
    unlink("target/..next"); /* not a directory */
}

static void go_at_random(unsigned long long seed, unsigned rounds)
{
    static const int dir_modes[] = { 0755, 0555, 0700 };
    aw_options options = options_of_kind((int)(seed % KINDS));
    file files[PATHS + 1];
    aw_payload *last = NULL;
    aw_writer *writer;

    dice = seed;
    options.keep = roll(3);
    options.dir_mode = dir_modes[roll(3)];
    if (geteuid() == 0 && roll(4) == 0)
        options.uid = options.gid = 4321;
    begin_anew();
    choose_files(files);
    writer = open_with(&options);
    for (unsigned round = 0; round < rounds; round++) {
        bool settled = roll(3) > 0;
        const drift *d = NULL;
        aw_payload *payload;
        aw_result result = AW_RESULT_INIT;
        const char *odd;
        aw_error err;
        int rc;

        if (settled)
            aw_writer_settle(writer);
        if (round > 0 && roll(2) == 0)
            age(files);
        if (round > 0 && roll(3) == 0)
            d = drift_at_random(settled);
        else if (round > 0)
            ask(writer, files);
        if (round > 0 && settled && roll(6) == 0)
            unlink(in_live(files[roll((unsigned)count_files(files))].path));
        payload = next_payload(files, last);
        rc = aw_write(writer, payload, NULL, &result, &err);
        if (rc < 0 && d && d->refused) {
            unlink("target/app.conf");
            unlink("target/tls");
            rc = aw_write(writer, payload, NULL, &result, &err);
        }
        CHECK_THAT(rc == 0, "seed %llu, round %u, %s: %s: %s", seed, round, d ? d->what : "",
                   err.path, err.detail);
        aw_result_clear(&result);
        aw_writer_remember(writer, payload);
        last = payload;
        if (roll(3) > 0)
            aw_writer_settle(writer);
        tidy_up();
        odd = foretold(&options, files);
        CHECK_THAT(!odd, "seed %llu, round %u, %s: %s", seed, round, d ? d->what : "", odd);
        odd = inspected(0);
        CHECK_THAT(!odd, "seed %llu, round %u, %s: %s", seed, round, d ? d->what : "", odd);
    }
    aw_writer_close(writer);
}

TEST(at_random, "G5, G8: whatever is done between its writes, a fresh writer finds nothing to do")
{
    const char *seed = getenv("SEED"), *runs = getenv("RUNS");
    unsigned long long first_seed = seed ? strtoull(seed, NULL, 10) : 1;

    for (int i = 0; i < (runs ? atoi(runs) : 40); i++)
        go_at_random(first_seed + (unsigned)i, 40);
}
