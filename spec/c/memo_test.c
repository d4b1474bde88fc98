/* memo_test.c: what a writer that stays open knows of its files without reading
 * them (G8). It is to ask the kernel for one stat of each, and nobody who changes a
 * file, however he hides it, may get past that.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES F("app.conf", "listen = 8080\n"), F("tls/key", "secret\n"), \
                FM("tls/cert", "CERTIFICATE\n", 0640)

static const file files[] = { ENTRIES, { NULL, NULL, 0, NULL } };

static aw_sys_table real;
static unsigned     opened, stats, read_calls, lists;

static int count_openat(int dir, const char *name, int flags, mode_t mode)
{
    opened += !(flags & (O_DIRECTORY | O_CREAT | O_PATH)) && strcmp(name, "..lock") != 0;
    return real.openat(dir, name, flags, mode);
}

static int count_fstatat(int dir, const char *name, struct stat *st, int flags)
{
    stats += name[0] != '.' && name[0] != '/';
    return real.fstatat(dir, name, st, flags);
}

static ssize_t count_read(int fd, void *buffer, size_t size)
{
    read_calls++;
    return real.read(fd, buffer, size);
}

static ssize_t count_getdents(int fd, void *buffer, size_t size)
{
    lists++;
    return real.getdents(fd, buffer, size);
}

/* Whatever the disk and the kernel here are, one that is known. */
static long  type = EXT4_SUPER_MAGIC;
static char  release[] = "6.13.0";

static long known_type(int fd)
{
    (void)fd;
    return type;
}

static int known_release(char *buffer, size_t size)
{
    snprintf(buffer, size, "%s", release);
    return 0;
}

static void count_calls(void)
{
    real = aw_sys;
    opened = stats = read_calls = 0;
    aw_sys.openat = count_openat;
    aw_sys.fstatat = count_fstatat;
    aw_sys.read = count_read;
    aw_sys.getdents = count_getdents;
}

static void pretend(long fs_type, const char *kernel)
{
    type = fs_type;
    snprintf(release, sizeof release, "%s", kernel);
    aw_sys.file_system_type = known_type;
    aw_sys.kernel_release = known_release;
}

/* More than the longest tick that is waited for. */
static void let_the_clock_tick(void)
{
    const struct timespec tick = { 0, 30000000 };
    nanosleep(&tick, NULL);
}

static bool multigrain(void)
{
    return aw_sys_kernel_at_least(6, 13);
}

/* Write FILES and hand them over; what is open stays within WRITER. */
static bool write_known(aw_writer *writer, const file *wanted)
{
    aw_payload *payload = payload_of(wanted);
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    bool changed;

    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    changed = result.changed;
    aw_result_clear(&result);
    aw_writer_remember(writer, payload);
    CHECK_CLEAN("target", wanted, 1);
    return changed;
}

/* A writer that has seen its files hold what they should. */
static aw_writer *knowing_writer(void)
{
    aw_writer *writer = writer_keeping(1);

    CHECK(write_known(writer, files));
    let_the_clock_tick();
    CHECK(!write_known(writer, files));
    return writer;
}

TEST(one_stat, "an open writer asks for one stat of a file that does not change, and reads none")
{
    aw_writer *writer = knowing_writer();

    count_calls();
    CHECK(!write_known(writer, files));
    CHECK_THAT(opened == 0 && read_calls == 0 && stats == 3, "%u opened, %u reads, %u stats",
               opened, read_calls, stats);
    aw_writer_close(writer);
}

TEST(no_look, "an open writer does not look at a file that it is to replace")
{
    aw_writer *writer = knowing_writer();

    count_calls();
    CHECK(write_known(writer, FILES(F("app.conf", "listen = 9090\n"), F("tls/key", "secret\n"),
                                    FM("tls/cert", "CERTIFICATE\n", 0640))));
    CHECK_THAT(opened == 0 && stats == 2, "%u opened, %u stats", opened, stats);
    aw_writer_close(writer);
}

TEST(one_of_many, "with multigrain stamps an open writer reads no file that it has linked")
{
    char texts[6][24];
    aw_writer *writer;

    if (!multigrain())
        test_skip("Linux 6.13 has them");
    writer = knowing_writer();
    for (int i = 0; i < 6; i++) {
        snprintf(texts[i], sizeof texts[i], "listen = %d\n", i);
        count_calls();
        CHECK(write_known(writer, FILES(F("app.conf", texts[i]), F("tls/key", "secret\n"),
                                        FM("tls/cert", "CERTIFICATE\n", 0640))));
        CHECK_THAT(opened == 0, "%u files were read", opened);
        aw_sys = real;
    }
    aw_writer_close(writer);
}

TEST(same_payload, "a payload that is the writer's already is written again")
{
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    for (int i = 0; i < 4; i++) {
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        CHECK(result.changed == (i == 0));
        aw_result_clear(&result);
        aw_writer_remember(writer, payload);
    }
    CHECK_CLEAN("target", files, 1);
    aw_writer_close(writer);
}

TEST(not_written, "a payload that was not the last one written is freed, and not believed")
{
    aw_writer *writer = knowing_writer();

    aw_writer_remember(writer, payload_of(FILES(F("app.conf", "never written\n"))));
    CHECK(write_known(writer, FILES(F("app.conf", "never written\n"))));
    aw_writer_remember(writer, NULL);
    CHECK(!write_known(writer, FILES(F("app.conf", "never written\n"))));
    aw_writer_close(writer);
}

TEST(another_writer, "what an open writer knows is of one version, and of no later one")
{
    aw_writer *writer = knowing_writer();

    CHECK_OK(write_keeping(1, FILES(F("app.conf", "another\n")), NULL, NULL), NULL);
    CHECK(write_known(writer, files));
    aw_writer_close(writer);
}

/* ---- getting past it ---------------------------------------------------- */

static const char *live_file(const char *name)
{
    return in_live(name);
}

static struct timespec mtime_of(const char *path)
{
    struct stat st;

    CHECK(stat(path, &st) == 0);
    return st.st_mtim;
}

/* Another text of the same size, in place, and the mtime it had. */
static void forge(const char *path)
{
    struct timespec times[2] = { { 0, UTIME_OMIT }, mtime_of(path) };
    int fd = open(path, O_WRONLY);

    CHECK(fd >= 0 && pwrite(fd, "L", 1, 0) == 1 && futimens(fd, times) == 0);
    close(fd);
}

static void edit(void)
{
    disk_write(live_file("app.conf"), "LISTEN = 8080\n", 0644);
}

static void edit_and_set_back(void)
{
    forge(live_file("app.conf"));
}

static void replace(void)
{
    struct timespec times[2] = { { 0, UTIME_OMIT }, mtime_of(live_file("app.conf")) };
    char path[4096];

    disk_write("other", "LISTEN = 8080\n", 0644);
    CHECK(utimensat(AT_FDCWD, "other", times, 0) == 0);
    snprintf(path, sizeof path, "%s", live_file("app.conf"));
    CHECK(rename("other", path) == 0);
}

static void edit_through_a_link(void)
{
    unlink("elsewhere");
    CHECK(link(live_file("app.conf"), "elsewhere") == 0);
    forge("elsewhere");
}

static void edit_through_a_link_that_goes(void)
{
    edit_through_a_link();
    CHECK(unlink("elsewhere") == 0);
}

static void edit_through_a_mapping(void)
{
    int fd = open(live_file("app.conf"), O_RDWR);
    char *mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    CHECK(mapped != MAP_FAILED);
    memcpy(mapped, "L", 1);
    CHECK(munmap(mapped, 4096) == 0 && fsync(fd) == 0);
    close(fd);
}

static void change_mode(void)
{
    CHECK(chmod(live_file("app.conf"), 0600) == 0);
}

static void change_owner(void)
{
    CHECK(chown(live_file("app.conf"), 1, 1) == 0);
}

static void make_it_a_link(void)
{
    char path[4096];

    snprintf(path, sizeof path, "%s", live_file("app.conf"));
    CHECK(rename(path, "moved") == 0 && symlink("../../moved", path) == 0);
}

#define OTHERS FILES(ENTRIES, F("another", "file\n"))

/* FOOL must be noticed: right after the writer has looked, later, again, and after it
 * has linked the file. */
static void notices(void (*fool)(void))
{
    aw_writer *writer = knowing_writer();

    for (int i = 0; i < 20; i++) {
        fool();
        CHECK_THAT(write_known(writer, files), "not noticed, attempt %d", i);
        if (i % 3 == 0)
            let_the_clock_tick();
        CHECK(!write_known(writer, files));
        if (i % 2 == 0)
            CHECK(!write_known(writer, files));
        if (i % 4 == 3) {
            CHECK(write_known(writer, OTHERS));
            unlink("moved");
            fool();
            CHECK_THAT(write_known(writer, OTHERS), "not noticed once it was linked, %d", i);
            CHECK(write_known(writer, files));
        }
        unlink("moved");
    }
    aw_writer_close(writer);
}

#define FOOL(name, what) TEST(fool_##name, "G8: an open writer notices " what) { notices(name); }

FOOL(edit, "an edit that keeps the size")
FOOL(edit_and_set_back, "an edit that keeps the size and sets the mtime back")
FOOL(replace, "another inode with the same size and mtime")
FOOL(edit_through_a_link, "an edit through a hard link")
FOOL(edit_through_a_link_that_goes, "an edit through a hard link that is gone again")
FOOL(change_mode, "another mode")
FOOL(make_it_a_link, "a link to the same file elsewhere")

FOOL(edit_through_a_mapping, "stores through a shared mapping")

TEST(fool_change_owner, "G8: an open writer notices another owner")
{
    need_root();
    notices(change_owner);
}

TEST(names, "G8: an open writer notices names that came to its directories, or went, long ago")
{
    aw_writer *writer = knowing_writer();

    for (int i = 0; i < 3; i++) {
        let_the_clock_tick();
        CHECK(!write_known(writer, files));
        if (i == 0)
            disk_write(live_file("tls/stray"), "", 0644);
        else if (i == 1)
            CHECK(unlink(live_file("tls/key")) == 0);
        else
            CHECK(chmod(live_file("tls"), 0700) == 0);
        let_the_clock_tick();
        CHECK(write_known(writer, files));
        let_the_clock_tick();
        CHECK(!write_known(writer, files));
    }
    aw_writer_close(writer);
}

/* ---- in the middle of a write -------------------------------------------- */

static void (*meddle)(void);

static int meddle_after_linking(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc = real.linkat(from_dir, from, to_dir, to);

    if (strcmp(from, "app.conf") == 0)
        meddle();
    return rc;
}

static int meddle_in_check(void *context, const char *stage, char *reason, size_t size)
{
    (void)context;
    (void)stage;
    (void)reason;
    (void)size;
    meddle();
    return 0;
}

static void notices_later(const aw_hooks *hooks, void (*what)(void))
{
    aw_writer *writer = knowing_writer();
    aw_payload *payload = payload_of(OTHERS);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    meddle = what;
    CHECK_OK(aw_write(writer, payload, hooks, &result, &err), &err);
    aw_result_clear(&result);
    aw_writer_remember(writer, payload);
    CHECK(write_known(writer, OTHERS));
    aw_writer_close(writer);
}

TEST(meddled, "G8: an edit while the file is being linked is noticed by the next write")
{
    real = aw_sys;
    aw_sys.linkat = meddle_after_linking;
    notices_later(NULL, edit);
}

static int meddle_in_progress(void *context, const aw_progress *progress, char *reason,
                              size_t size)
{
    return progress->phase == AW_WRITING && progress->files == progress->total
           ? meddle_in_check(context, NULL, reason, size) : 0;
}

TEST(check_meddled, "G8: what a check does to a live file is noticed by the next write")
{
    const aw_hooks hooks = { meddle_in_check, NULL, NULL };

    notices_later(&hooks, edit_and_set_back);
}

TEST(progress_meddled, "G8: and what a progress function does to it")
{
    const aw_hooks hooks = { NULL, meddle_in_progress, NULL };

    notices_later(&hooks, edit_and_set_back);
}

/* ---- what the stamps are worth -------------------------------------------- */

TEST(ticking, "G8: before multigrain stamps a file with a recent ctime is read again")
{
    aw_writer *writer;

    pretend(EXT4_SUPER_MAGIC, "6.12.9");
    writer = knowing_writer();
    count_calls();
    CHECK(!write_known(writer, files));
    CHECK(opened == 0 && stats == 3);
    aw_sys = real;
    CHECK(chmod(live_file("app.conf"), 0600) == 0 && chmod(live_file("app.conf"), 0644) == 0);
    CHECK(!write_known(writer, files)); /* seen within the tick: no print of it */
    count_calls();
    CHECK(!write_known(writer, files));
    CHECK_THAT(opened == 1, "%u files were read", opened);
    aw_sys = real;
    let_the_clock_tick();
    CHECK(!write_known(writer, files)); /* now there is one */
    count_calls();
    CHECK(!write_known(writer, files));
    CHECK_THAT(opened == 0, "%u files were read", opened);
    aw_writer_close(writer);
}

TEST(at_once, "with multigrain stamps a file need not rest before it is known")
{
    aw_writer *writer;

    if (!multigrain())
        test_skip("Linux 6.13 has them");
    writer = knowing_writer();
    CHECK(chmod(live_file("app.conf"), 0600) == 0 && chmod(live_file("app.conf"), 0644) == 0);
    CHECK(!write_known(writer, files)); /* reads it */
    count_calls();
    CHECK(!write_known(writer, files));
    CHECK_THAT(opened == 0, "%u files were read", opened);
    aw_writer_close(writer);
}

TEST(just_written, "G8: a file that somebody has just written to is read again: it may go on")
{
    aw_writer *writer = knowing_writer();

    disk_write(live_file("app.conf"), "listen = 8080\n", 0644); /* to the same end */
    CHECK(!write_known(writer, files));
    count_calls();
    CHECK(!write_known(writer, files));
    CHECK_THAT(opened == 1, "%u files were read", opened);
    aw_writer_close(writer);
}

TEST(grown, "a payload that is given more files, though it is the writer's, is seen as it is")
{
    const aw_entry entry = { "first", 5, NULL, AW_UNSET, AW_UNSET, AW_UNSET };
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    for (int i = 0; i < 3; i++) {
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        aw_result_clear(&result);
        aw_writer_remember(writer, payload);
        let_the_clock_tick();
    }
    CHECK_OK(aw_payload_add(payload, "a", 1, &entry, &err), &err);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK_TEXT(joined(&result.added), "a");
    CHECK(result.updated.count == 0);
    aw_result_clear(&result);
    aw_writer_remember(writer, payload);
    CHECK_CLEAN("target", FILES(ENTRIES, F("a", "first")), 1);
    aw_writer_close(writer);
}

TEST(replaced, "a payload that an entry was replaced in, though it is the writer's, is seen as it is")
{
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(files);
    aw_entry entry = AW_ENTRY_INIT;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    for (int i = 0; i < 3; i++) {
        CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
        aw_result_clear(&result);
        aw_writer_remember(writer, payload);
        let_the_clock_tick();
    }
    entry.data = "listen = 9090\n";
    entry.size = strlen(entry.data);
    CHECK_OK(aw_payload_replace(payload, 0, &entry, &err), &err);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK_TEXT(joined(&result.updated), "app.conf");
    aw_result_clear(&result);
    aw_writer_remember(writer, payload);
    CHECK_CLEAN("target", FILES(F("app.conf", "listen = 9090\n"), F("tls/key", "secret\n"),
                                FM("tls/cert", "CERTIFICATE\n", 0640)), 1);
    aw_writer_close(writer);
}

TEST(has, "a payload says what was added to it, once it was used")
{
    const aw_entry nothing = AW_ENTRY_INIT;
    aw_entry other = AW_ENTRY_INIT;
    aw_payload *payload = payload_of(FILES(F("b", ""), F("a", "1")));
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    aw_writer *writer = writer_keeping(1);

    CHECK(!aw_payload_has(payload, 0, "b", 1, &nothing));
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK(aw_payload_has(payload, 0, "b", 1, &nothing));
    CHECK(!aw_payload_has(payload, 1, "b", 1, &nothing));
    CHECK(!aw_payload_has(payload, 2, "b", 1, &nothing));
    other.mode = 0600;
    CHECK(!aw_payload_has(payload, 0, "b", 1, &other));
    other = nothing;
    other.source = "/dev/null";
    CHECK(!aw_payload_has(payload, 0, "b", 1, &other));
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

TEST(unknown, "G8: where stats may come from a cache, each file is read")
{
    static const long types[] = { NFS_SUPER_MAGIC, 0x65735546 /* FUSE */, -1 };

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        aw_writer *writer;

        pretend(types[i], "6.13.0");
        disk_mkdir("target", 0755);
        writer = knowing_writer();
        count_calls();
        lists = 0;
        CHECK(!write_known(writer, files));
        CHECK_THAT(opened == 3 && lists > 2, "%u files were read, %u lists", opened, lists);
        aw_sys = real;
        aw_writer_close(writer);
        disk_remove("target");
    }
}
