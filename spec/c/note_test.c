/* note_test.c: what the note in "..lock" spares a write, and what it must not.
 *
 * A clean note is only written when the kernel's clock has ticked since the
 * target's names last changed; the tests wait for that where they want one.
 */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const file files[] = {
    F("app.conf", "listen = 8080\n"), F("tls/key", "secret\n"), { NULL, NULL, 0, NULL },
};

static void let_the_clock_tick(void)
{
    struct timespec tick = { 2, 200 * 1000 * 1000 };
    struct stat st;

    CHECK(stat("target", &st) == 0);
    if (st.st_ctim.tv_nsec != 0)
        tick = (struct timespec) { 0, 40 * 1000 * 1000 };
    nanosleep(&tick, NULL);
}

static void publish(unsigned keep, const file *payload)
{
    aw_error err;
    CHECK_OK(write_keeping(keep, payload, NULL, &err), &err);
}

/* The files are live, and a no-op write has noted that all is clean. */
static void publish_and_note(unsigned keep)
{
    publish(keep, files);
    let_the_clock_tick();
    publish(keep, files);
}

static bool noted_as_clean(void)
{
    char *note = disk_read("target/..lock");
    bool clean = note && strstr(note, " clean=1 ");

    free(note);
    return clean;
}

static size_t links_read, files_synced;
static aw_sys_table real;

static ssize_t count_readlinkat(int dir, const char *name, char *text, size_t size)
{
    links_read++;
    return real.readlinkat(dir, name, text, size);
}

static int count_fsync(int fd)
{
    files_synced++;
    return real.fsync(fd);
}

static void start_counting(void)
{
    real = aw_sys;
    links_read = files_synced = 0;
    aw_sys.readlinkat = count_readlinkat;
    aw_sys.fsync = count_fsync;
}

TEST(spares_the_links, "a no-op write on a target that nobody touched reads no visible link")
{
    publish_and_note(1);
    start_counting();
    publish(1, files);
    CHECK_THAT(links_read == 1, "%zu links were read, not only ..data", links_read);
    CHECK_CLEAN("target", files, 1);
}

TEST(not_within_a_tick, "a target changed just now is not noted as clean")
{
    publish(1, files);
    publish(1, files);
    CHECK(!noted_as_clean());
    let_the_clock_tick();
    publish(1, files);
    CHECK(noted_as_clean());
}

TEST(spares_the_links_of_a_change, "a change on a target that nobody touched reads no known link")
{
    publish_and_note(1);
    start_counting();
    publish(1, FILES(F("app.conf", "listen = 9090\n"), F("tls/key", "secret\n")));
    CHECK_THAT(links_read == 1, "%zu links were read, not only ..data", links_read);
}

TEST(heals_a_link, "G5: a visible link deleted after a clean note is made again")
{
    publish_and_note(1);
    CHECK(unlink("target/app.conf") == 0);
    publish(1, files);
    CHECK_CLEAN("target", files, 1);
}

TEST(sees_a_foreign_link, "G7: a foreign link put there after a clean note is an error")
{
    aw_error err;

    publish_and_note(1);
    CHECK(unlink("target/app.conf") == 0);
    CHECK(symlink("/etc/passwd", "target/app.conf") == 0);
    CHECK(write_keeping(1, files, NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
    CHECK_TEXT(err.path, "app.conf");
}

TEST(sweeps_residue, "G5: residue left after a clean note is swept by a no-op write")
{
    publish_and_note(1);
    CHECK(symlink("..2999_01_01_00_00_00.1", "target/..data_tmp") == 0);
    CHECK(mkdir("target/..2999_01_01_00_00_00.1", 0755) == 0);
    CHECK(symlink("..data/gone", "target/gone") == 0);
    publish(1, files);
    CHECK_CLEAN("target", files, 1);
}

TEST(sees_drift, "G8: drift in the live version is seen in spite of a clean note")
{
    publish_and_note(1);
    disk_write("target/..data/stray", "", 0644);
    publish(1, files);
    CHECK_CLEAN("target", files, 1);
}

TEST(changes_after_note, "a change after a clean note is published as any other")
{
    const file *other = FILES(F("app.conf", "listen = 9090\n"), F("new", "x"));

    publish_and_note(1);
    publish(1, other);
    CHECK_CLEAN("target", other, 1);
}

TEST(foreign_before_change, "a foreign file stops a change after a clean note, too")
{
    const file *other = FILES(F("app.conf", "listen = 9090\n"), F("new", "x"));
    aw_error err;

    publish_and_note(1);
    disk_write("target/new", "", 0644);
    let_the_clock_tick();
    publish(1, files); /* the note is clean again: the file is in nobody's way yet */
    CHECK(write_keeping(1, other, NULL, &err) < 0);
    CHECK(err.code == AW_E_FOREIGN_ENTRY);
    CHECK_TEXT(err.path, "new");
}

TEST(keeps_fewer, "a writer that retains fewer prunes in spite of a clean note")
{
    publish(3, FILES(F("app.conf", "1")));
    publish(3, FILES(F("app.conf", "2")));
    publish_and_note(3);
    CHECK(noted_as_clean());
    publish(0, files);
    CHECK_CLEAN("target", files, 0);
}

TEST(ignores_garbage, "a note that cannot be read is no note")
{
    char garbage[200 + 1];

    publish_and_note(1);
    memset(garbage, '7', sizeof garbage - 1);
    garbage[sizeof garbage - 1] = '\0';
    disk_write("target/..lock", garbage, 0600);
    CHECK(unlink("target/app.conf") == 0);
    publish(1, files);
    CHECK_CLEAN("target", files, 1);
}

/* One durable write of FILES; how many times it synced. */
static size_t durable_syncs(void)
{
    aw_options options = AW_OPTIONS_INIT;
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    aw_error err;

    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    start_counting();
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    aw_sys = real;
    CHECK(!result.changed);
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return files_synced;
}

static int reads_seen;

/* Remove a visible link, and wait, while the write has already read the names. */
static ssize_t meddle_and_read(int fd, void *buffer, size_t size)
{
    if (!reads_seen++) {
        unlink("target/app.conf");
        let_the_clock_tick();
    }
    return real.read(fd, buffer, size);
}

TEST(meddled_meanwhile, "G5: what changes while a no-op write runs is not noted as clean")
{
    publish(1, files);
    let_the_clock_tick();
    real = aw_sys;
    reads_seen = 0;
    aw_sys.read = meddle_and_read;
    publish(1, files);
    aw_sys = real;
    CHECK(!noted_as_clean());
    publish(1, files);
    CHECK_CLEAN("target", files, 1);
}

TEST(a_copy_is_another, "G4: a copied target's note is not believed")
{
    struct stat st;

    publish(1, files);
    let_the_clock_tick();
    CHECK(durable_syncs() > 0);
    CHECK(system("cp -a target copy && rm -r target && mv copy target") == 0);
    CHECK(stat("target/..lock", &st) == 0 && st.st_size > 0);
    CHECK(durable_syncs() == 2 + 2 + 2);
}

TEST(names_unsynced, "G4: a link brought back by a write without durability is synced by a durable one")
{
    publish(1, files);
    let_the_clock_tick();
    CHECK(durable_syncs() > 0);
    CHECK(unlink("target/app.conf") == 0);
    publish(1, files);
    let_the_clock_tick();
    publish(1, files);
    CHECK(noted_as_clean());
    CHECK(durable_syncs() == 1); /* the target */
}

TEST(vouches_once, "G4: a durable no-op syncs what was written without durability, once")
{
    publish(1, files);
    let_the_clock_tick();
    CHECK(durable_syncs() == 2 + 2 + 2); /* files, directories, target and its parent */
    CHECK(durable_syncs() == 0);
}

TEST(edited_in_place, "G4: a kept file that somebody has written to is synced by a durable write")
{
    publish(1, files);
    let_the_clock_tick();
    CHECK(durable_syncs() > 0);
    CHECK(durable_syncs() == 0);
    disk_write("target/app.conf", "listen = 8080\n", 0644); /* in place, to the same end */
    CHECK(durable_syncs() >= 2 + 2);
}

/* ---- what an open writer remembers -------------------------------------- */

static void write_open(aw_writer *writer, const file *payload, bool changed)
{
    aw_payload *set = payload_of(payload);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    CHECK_OK(aw_write(writer, set, NULL, &result, &err), &err);
    CHECK_THAT(result.changed == changed, "changed is %d", result.changed);
    aw_result_clear(&result);
    aw_writer_remember(writer, set);
    CHECK_CLEAN("target", payload, 1);
}

TEST(remembers, "G8: what an open writer remembers of its data hides no drift from it")
{
    const file *other = FILES(F("app.conf", "listen = 9090\n"), F("tls/key", "secret\n"));
    aw_writer *writer = writer_keeping(1);

    write_open(writer, files, true);
    disk_write("target/app.conf", "listen = 6666\n", 0644);
    write_open(writer, files, true);
    disk_write("target/app.conf", "listen = 9090\n", 0644); /* what is to be written next */
    write_open(writer, other, true); /* nobody who watches was told of it */
    write_open(writer, other, false);
    disk_write("target/tls/key", "stolen\n", 0644);
    write_open(writer, other, true);
    publish(1, files); /* another writer */
    write_open(writer, files, false);
    aw_writer_close(writer);
}

TEST(remembers_other_names, "G8: a file that is to change and has been renamed is told, and what is in its place")
{
    const file *other = FILES(F("app.conf", "listen = 9090\n"), F("tls/key", "secret\n"));
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(other);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    write_open(writer, files, true);
    CHECK(rename("target/..data/app.conf", "target/..data/renamed") == 0);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK_TEXT(joined(&result.added), "app.conf");
    CHECK_TEXT(joined(&result.removed), "renamed");
    CHECK_CLEAN("target", other, 1);
    aw_result_clear(&result);
    aw_writer_remember(writer, payload);
    CHECK(unlink("target/..data/app.conf") == 0);
    disk_mkdir("target/..data/app.conf", 0755);
    payload = payload_of(files);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    CHECK_TEXT(joined(&result.added), "app.conf");
    CHECK_CLEAN("target", files, 1);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

TEST(remembers_names, "G8: what an open writer remembers of its directories hides no drift from it")
{
    aw_writer *writer = writer_keeping(1);

    write_open(writer, files, true);
    for (int i = 0; i < 3; i++) {
        let_the_clock_tick();
        write_open(writer, files, false);
    }
    disk_write("target/..data/tls/stray", "", 0644);
    write_open(writer, files, true);
    let_the_clock_tick();
    write_open(writer, files, false);
    write_open(writer, files, false);
    CHECK(unlink("target/..data/tls/key") == 0);
    write_open(writer, files, true);
    let_the_clock_tick();
    write_open(writer, files, false);
    write_open(writer, files, false);
    CHECK(chmod("target/..data/tls", 0700) == 0);
    write_open(writer, files, true);
    let_the_clock_tick();
    write_open(writer, files, false);
    write_open(writer, FILES(F("app.conf", "listen = 8080\n")), true); /* fewer names */
    aw_writer_close(writer);
}

static size_t listings;

static ssize_t count_getdents(int fd, void *buffer, size_t size)
{
    listings++;
    return real.getdents(fd, buffer, size);
}

TEST(spares_the_listing, "an open writer lists no directory that is as it left it")
{
    aw_writer *writer = writer_keeping(1);

    write_open(writer, files, true);
    let_the_clock_tick();
    write_open(writer, files, false);
    real = aw_sys;
    listings = 0;
    aw_sys.getdents = count_getdents;
    {
        aw_payload *set = payload_of(files);
        aw_result result = AW_RESULT_INIT;
        aw_error err;

        CHECK_OK(aw_write(writer, set, NULL, &result, &err), &err);
        aw_result_clear(&result);
        aw_writer_remember(writer, set);
    }
    CHECK_THAT(listings == 0, "%zu listings", listings);
    aw_writer_close(writer);
}
