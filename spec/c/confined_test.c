/* confined_test.c: nothing outside the target, and nothing of others in it (G7). */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

TEST(hostile_data, "G7: a ..data that is no link to one version is a clear error, and nothing moves")
{
    static const char *const links[] = {
        "../victim", ".", "..", "/", "victim", "../target", "..data", "..lock",
        "..2026_11_22_15_04_05.1/", "..2026_11_22_15_04_05.1/d", "./..2026_11_22_15_04_05.1",
        "../target/..2026_11_22_15_04_05.1", "..2026_11_22_15_04_05.1_tmp", "..data_tmp",
        "..2026_11_22_15_04_05.1111111111111111111111111111111111111111111111111111111111",
    };

    disk_mkdir("victim", 0755);
    disk_write("victim/file", "precious", 0600);
    for (size_t i = 0; i < sizeof links / sizeof links[0]; i++) {
        char *before, *after;
        aw_error err;

        disk_mkdir("target", 0755);
        disk_mkdir("target/..2026_11_22_15_04_05.1", 0755);
        disk_mkdir("target/..2026_11_22_15_04_05.1/d", 0755);
        disk_symlink(links[i], "target/..data");
        before = disk_state(".");
        for (int keep = 0; keep < 2; keep++) {
            CHECK_THAT(write_keeping((unsigned)keep, FILES(F("a", "1")), NULL, &err) < 0,
                       "\"%s\" was trusted", links[i]);
            CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
            CHECK_TEXT(err.path, "..data");
        }
        CHECK(unlink("target/..lock") == 0 || errno == ENOENT);
        after = disk_state(".");
        /* the target's own mtime may differ, because of ..lock */
        CHECK(strlen(after) == strlen(before));
        disk_remove("target");
        free(before);
        free(after);
    }
    CHECK(disk_exists("victim/file"));
}

TEST(data_no_link, "G7: a ..data that is a directory or a file is a clear error")
{
    aw_error err;

    disk_mkdir("target", 0755);
    disk_mkdir("target/..data", 0755);
    disk_write("target/..data/x", "", 0644);
    CHECK(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
    CHECK_TEXT(err.path, "..data");
    CHECK(disk_exists("target/..data/x"));
    disk_remove("target/..data");
    disk_write("target/..data", "", 0644);
    CHECK(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
}

TEST(version_link, "G7: a version that is a link to elsewhere is never followed nor emptied")
{
    static const char *const live[] = { "..2026_11_22_15_04_05.1", "..2026_11_22_15_04_06.1" };
    aw_error err;

    disk_mkdir("victim", 0755);
    disk_write("victim/a", "precious", 0644);
    for (int i = 0; i < 2; i++) {
        disk_mkdir("target", 0755);
        disk_symlink("../victim", "target/..2026_11_22_15_04_05.1");
        disk_mkdir("target/..2026_11_22_15_04_06.1", 0755);
        disk_symlink(live[i], "target/..data");
        if (write_keeping(0, FILES(F("a", "1")), NULL, &err) < 0)
            CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        else
            (void)write_keeping(0, FILES(F("a", "2")), NULL, &err);
        disk_remove("target");
        CHECK(disk_exists("victim/a"));
    }
}

TEST(residue_links, "G7: sweeping removes links in residue, not what they lead to")
{
    disk_mkdir("victim", 0755);
    disk_write("victim/a", "precious", 0644);
    must_write(FILES(F("a", "1")));
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755);
    disk_symlink("../../victim", "target/..2999_01_01_00_00_00.1/out");
    disk_symlink("../../victim/a", "target/..2999_01_01_00_00_00.1/file");
    disk_symlink("../victim", "target/..data_tmp");
    must_write(FILES(F("a", "2")));
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
    CHECK(disk_exists("victim/a"));
}

TEST(foreign_needed, "G7: a foreign entry at a name that the payload needs is refused before anything is written")
{
    static const char *const links[] = {
        "elsewhere", "..data/other", "..data", "../target/..data/a", "./..data/a", "..data//a",
        "..data/a/", "/etc/passwd",
    };
    char *before, *after;
    aw_error err;

    must_write(FILES(F("b", "1")));
    for (size_t i = 0; i < 2 + sizeof links / sizeof links[0]; i++) {
        if (i == 0)
            disk_write("target/a", "foreign", 0644);
        else if (i == 1)
            disk_mkdir("target/a", 0755);
        else
            disk_symlink(links[i - 2], "target/a");
        before = disk_full_state("target/..data");
        CHECK_THAT(write_keeping(1, FILES(F("a", "1"), F("b", "2")), NULL, &err) < 0, "case %zu", i);
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        CHECK_TEXT(err.path, "a");
        CHECK(write_keeping(1, FILES(F("a/b/c", "1")), NULL, &err) < 0);
        CHECK(err.code == AW_E_FOREIGN_ENTRY);
        CHECK_TEXT(err.path, "a");
        after = disk_full_state("target/..data");
        CHECK_TEXT(after, before);
        CHECK(disk_count("target", "..2") == 1);
        disk_remove("target/a");
        free(before);
        free(after);
    }
}

TEST(foreign_left, "G7: foreign entries at names that nobody needs are left alone")
{
    char *text;

    must_write(FILES(F("a", "1")));
    disk_write("target/file", "foreign", 0640);
    disk_mkdir("target/directory", 0755);
    disk_write("target/directory/x", "", 0644);
    disk_symlink("nowhere", "target/dangling");
    disk_symlink("..data/other", "target/not-its-name");
    must_write(FILES(F("a", "2"), F("b", "3")));
    must_write(NO_FILES);
    text = disk_read("target/file");
    CHECK_TEXT(text, "foreign");
    CHECK(disk_mode("target/file") == 0640);
    CHECK(disk_exists("target/directory/x") && disk_exists("target/dangling"));
    CHECK(disk_exists("target/not-its-name"));
    CHECK(!disk_exists("target/a") && !disk_exists("target/b"));
    free(text);
}

TEST(taken_over, "G7: a visible link that somebody replaced by a file is not deleted with its key")
{
    must_write(FILES(F("a", "1"), F("b", "2")));
    CHECK(unlink("target/a") == 0);
    disk_write("target/a", "mine now", 0644);
    must_write(FILES(F("b", "3")));
    CHECK(disk_exists("target/a"));
}

TEST(lock_link, "G7: a ..lock that is a link, a directory or a FIFO is a clear error and not followed")
{
    aw_error err;

    disk_write("victim", "precious", 0644);
    for (int i = 0; i < 3; i++) {
        disk_mkdir("target", 0755);
        if (i == 0)
            disk_symlink("../victim", "target/..lock");
        else if (i == 1)
            disk_mkdir("target/..lock", 0755);
        else
            CHECK(mkfifo("target/..lock", 0600) == 0);
        CHECK_THAT(write_keeping(1, FILES(F("a", "1")), NULL, &err) < 0, "case %d", i);
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        CHECK_TEXT(err.path, "..lock");
        disk_remove("target");
    }
    CHECK(disk_mode("victim") == 0644);
}

static int (*real_renameat)(int from_dir, const char *from, int to_dir, const char *to);

static int renameat_without_lock(int from_dir, const char *from, int to_dir, const char *to)
{
    (void)unlink("target/..lock");
    return real_renameat(from_dir, from, to_dir, to);
}

/* The victim is "..lock" until the end, or until the swap. */
static void write_with_the_victims_lock(const char *data)
{
    aw_options options = options_keeping(1);
    char *before = disk_full_state("victim"), *after;
    aw_error err;

    options.durability = AW_DURABLE; /* each write of these leaves a note */
    CHECK_OK(write_with(&options, FILES(F("a", data)), NULL, &err), &err);
    after = disk_full_state("victim");
    CHECK_THAT((strstr(after, "precious") != NULL), "%s", after);
    if (aw_sys.renameat != renameat_without_lock) /* which changes the link count */
        CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(lock_hard_link, "G7: a ..lock that is another file's second name is locked, and never written to")
{
    disk_mkdir("target", 0755);
    disk_mkdir("victim", 0755);
    disk_write("victim/file", "precious", 0600);
    CHECK(link("victim/file", "target/..lock") == 0);
    write_with_the_victims_lock("1");
    write_with_the_victims_lock("2");
    write_with_the_victims_lock("2");
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
    real_renameat = aw_sys.renameat;
    aw_sys.renameat = renameat_without_lock;
    write_with_the_victims_lock("3");
    aw_sys.renameat = real_renameat;
    CHECK(!disk_exists("target/..lock"));
    write_with_the_victims_lock("4");
    CHECK_CLEAN("target", FILES(F("a", "4")), 1);
}

/* ---- where the target lies --------------------------------------------- */

typedef enum operation { WRITE, PLAN, ROLLBACK, COLLECT } operation;

static int try_operation(operation which, const char *target, aw_error *err)
{
    aw_options options = options_keeping(1);
    aw_payload *payload = payload_of(FILES(F("b", "2")));
    aw_result result = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    size_t removed;
    int rc = -1;

    options.create = true;
    CHECK_OK(aw_writer_open(target, &options, &writer, err), err);
    if (which == WRITE)
        rc = aw_write(writer, payload, NULL, &result, err);
    else if (which == PLAN)
        rc = aw_plan(writer, payload, &result, err);
    else if (which == ROLLBACK)
        rc = aw_rollback(writer, NULL, NULL, NULL, &result, err);
    else
        rc = aw_collect(writer, &removed, err);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

/* All of them are refused, because TARGET is or lies in VERSION of "target". */
static void check_refused(const char *target, const char *relation, const char *version)
{
    char *expected, *path, *before = disk_full_state("."), *after;
    bool there = access(target, F_OK) == 0;

    CHECK(asprintf(&path, "%s/%s", test_dir, target) > 0);
    CHECK(asprintf(&expected, "it %s the version %s of %s/target", relation, version, test_dir) > 0);
    for (operation which = WRITE; which <= (there ? COLLECT : PLAN); which++) {
        aw_error err;

        CHECK_THAT(try_operation(which, target, &err) < 0, "%s, operation %d", target, which);
        CHECK_THAT(err.code == AW_E_FOREIGN_ENTRY && !err.committed, "%s, operation %d: %s",
                   target, which, aw_code_name(err.code));
        CHECK_TEXT(err.detail, expected);
        CHECK_TEXT(err.path, path);
    }
    after = disk_full_state(".");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
    free(expected);
    free(path);
}

TEST(inside_a_version, "G7: a target that is or lies in a version of another is refused, and untouched")
{
    static const char unfinished[] = "..2999_01_01_00_00_00.1";
    static const char retired[] = "..2001_01_01_00_00_00.1_tmp";
    char *old, *live, *path;

    must_write(FILES(F("a", "1")));
    old = live_name("target");
    must_write(FILES(F("a", "1"), F("d/e/x", "1")));
    live = live_name("target");
    leave_residue();
    disk_symlink("target/d", "link");
    check_refused("target/..data", "is", live);
    check_refused("target/..data/d", "lies inside", live);
    check_refused("target/d", "lies inside", live);
    check_refused("target/d/e", "lies inside", live);
    check_refused("link/e", "lies inside", live);
    check_refused("target/d/new", "lies inside", live);
    check_refused("target/..data/d/../new", "lies inside", live);
    check_refused("target/..2998_01_01_00_00_00.1", "is", "..2998_01_01_00_00_00.1");
    CHECK(asprintf(&path, "target/%s", old) > 0);
    check_refused(path, "is", old);
    free(path);
    CHECK(asprintf(&path, "target/%s", unfinished) > 0);
    check_refused(path, "is", unfinished);
    free(path);
    CHECK(asprintf(&path, "target/%s", retired) > 0);
    check_refused(path, "is", retired);
    free(path);
    CHECK(rename("target/..data", "moved") == 0); /* who repairs it wants them as they were */
    disk_symlink("..2000_01_01_00_00_00.1", "target/..data");
    CHECK(asprintf(&path, "target/%s", live) > 0);
    check_refused(path, "is", live);
    free(path);
    free(old);
    free(live);
}

TEST(like_a_version, "a directory that is merely named like a version, with no ..data beside, is a target")
{
    static const char *const targets[] = {
        "..2026_11_22_15_04_05.1", "..2026_11_22_15_04_05.1/below", "..2026_11_22_15_04_05.1_tmp",
        "..2026_11_22_15_04_05.x", "..data", /* the last one, for it is beside the others */
    };

    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        aw_error err;

        CHECK_OK(try_operation(PLAN, targets[i], &err), &err);
        CHECK_OK(try_operation(WRITE, targets[i], &err), &err);
        CHECK_CLEAN(targets[i], FILES(F("b", "2")), 0);
        CHECK_OK(try_operation(WRITE, targets[i], &err), &err); /* now ..data is in it */
        CHECK_OK(try_operation(COLLECT, targets[i], &err), &err);
    }
}

TEST(turned_into_a_version, "G7: an open writer notices that its path leads into a version from now on")
{
    aw_payload *payload = payload_of(FILES(F("b", "2")));
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_result result = AW_RESULT_INIT;
    char *before, *after;
    aw_error err;

    must_write(FILES(F("d/x", "1")));
    disk_mkdir("free", 0755);
    disk_symlink("free", "link");
    CHECK_OK(aw_writer_open("link", &options, &writer, &err), &err);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        aw_result_clear(&result);
    }
    CHECK(unlink("link") == 0);
    disk_symlink("target/d", "link");
    before = disk_full_state("target");
    for (int i = 0; i < 2; i++) {
        CHECK(aw_write(writer, payload, NULL, &result, &err) < 0);
        CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    CHECK(unlink("link") == 0);
    disk_symlink("free", "link");
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    free(before);
    free(after);
}

static size_t paths_asked;
static int (*real_fd_path)(int fd, char *path, size_t size);

static int count_fd_path(int fd, char *path, size_t size)
{
    paths_asked++;
    return real_fd_path(fd, path, size);
}

TEST(asked_once, "an open writer asks once where its target lies")
{
    aw_payload *payload = payload_of(FILES(F("a", "1")));
    aw_writer *writer = writer_keeping(1);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    real_fd_path = aw_sys.fd_path;
    aw_sys.fd_path = count_fd_path;
    for (int i = 0; i < 3; i++) {
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        aw_result_clear(&result);
    }
    CHECK(paths_asked == 1);
    aw_writer_close(writer);
    aw_payload_free(payload);
}

TEST(beside_a_version, "G7: a directory of somebody else's beside the versions is a target")
{
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_mkdir("target/..other", 0755);
    CHECK_OK(try_operation(WRITE, "target/other", &err), &err);
    CHECK_OK(try_operation(WRITE, "target/..other", &err), &err);
    CHECK_CLEAN("target/other", FILES(F("b", "2")), 0);
}

/* ---- races ------------------------------------------------------------- */

static int (*real_symlinkat)(const char *text, int dir, const char *name);

/* Somebody is quicker by a moment. */
static int symlinkat_too_late(const char *text, int dir, const char *name)
{
    if (strcmp(name, "a") == 0)
        disk_write("target/a", "somebody's", 0644);
    return real_symlinkat(text, dir, name);
}

TEST(taken_meanwhile, "G7: a name that somebody takes while the write runs is refused, and stays theirs")
{
    char *text;
    aw_error err;

    must_write(FILES(F("b", "1")));
    real_symlinkat = aw_sys.symlinkat;
    aw_sys.symlinkat = symlinkat_too_late;
    CHECK(write_keeping(1, FILES(F("a", "1"), F("b", "2")), NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY && !err.committed);
    CHECK_TEXT(err.path, "a");
    text = disk_read("target/a");
    CHECK_TEXT(text, "somebody's");
    free(text);
    CHECK(unlink("target/a") == 0);
    CHECK_CLEAN("target", FILES(F("b", "1")), 0);
}

static int (*real_openat)(int dir, const char *name, int flags, mode_t mode);
static int swaps;

/* A version's directory turns into a link to the victim before it is opened. */
static int openat_of_a_link(int dir, const char *name, int flags, mode_t mode)
{
    if ((strcmp(name, "d") == 0 || strncmp(name, "..2", 3) == 0) && swaps > 0 && --swaps == 0) {
        char moved[300];
        snprintf(moved, sizeof moved, "%s-moved", name);
        if (renameat(dir, name, dir, moved) < 0
            || symlinkat(strcmp(name, "d") == 0 ? "../../victim" : "../victim", dir, name) < 0)
            swaps = -1;
    }
    return real_openat(dir, name, flags, mode);
}

TEST(swapped_for_links, "G7: a directory that is swapped for a link to elsewhere at any moment leads nowhere")
{
    char *before, *after;

    disk_mkdir("victim", 0755);
    disk_write("victim/x", "precious", 0644);
    disk_mkdir("victim/d", 0755);
    disk_write("victim/d/x", "precious", 0644);
    before = disk_full_state("victim");
    for (int moment = 1; moment < 40; moment++) {
        aw_error err;

        disk_mkdir("target", 0755);
        must_write(FILES(F("d/x", "1"), F("y", "1")));
        must_write(FILES(F("d/x", "2"), F("y", "1")));
        real_openat = aw_sys.openat;
        aw_sys.openat = openat_of_a_link;
        swaps = moment;
        (void)write_keeping(0, FILES(F("d/x", "3"), F("y", "1")), NULL, &err);
        aw_sys.openat = real_openat;
        after = disk_full_state("victim");
        CHECK_TEXT(after, before);
        free(after);
        disk_remove("target");
    }
    free(before);
}

TEST(mounts, "G7: what is mounted in residue is not emptied")
{
    pid_t child;
    int status = -1;

    need_root();
    disk_mkdir("victim", 0755);
    disk_write("victim/x", "precious", 0644);
    must_write(FILES(F("a", "1")));
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0755);
    disk_mkdir("target/..2999_01_01_00_00_00.1/mount", 0755);
    child = fork(); /* with a mount table of its own */
    if (child == 0) {
        aw_error err;
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0
            || mount("tmpfs", "target/..2999_01_01_00_00_00.1/mount", "tmpfs", 0, NULL) < 0)
            _exit(77);
        disk_write("target/..2999_01_01_00_00_00.1/mount/x", "precious", 0644);
        (void)write_keeping(1, FILES(F("a", "2")), NULL, &err);
        (void)write_keeping(1, FILES(F("a", "3")), NULL, &err);
        _exit(disk_exists("target/..2999_01_01_00_00_00.1/mount/x")
              || disk_exists("target/..2999_01_01_00_00_00.1_tmp/mount/x") ? 0 : 1);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        test_skip("mounting is not allowed here");
    CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %d", status);
}
