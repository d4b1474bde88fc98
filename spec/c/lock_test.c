/* lock_test.c: writers exclude each other (G6). */
#define _GNU_SOURCE
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

TEST(locked, "G6: a held lock is locked after the timeout, never before")
{
    static const int64_t timeouts[] = { 0, 1, 2, 3, 10, 50, 51, 200 };
    aw_options options = options_keeping(1);
    char *before, *after;
    int fd;

    must_write(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    before = disk_full_state("target");
    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        double start, took;
        aw_error err;

        options.lock_timeout = timeouts[i];
        start = now();
        CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0);
        took = now() - start;
        CHECK(err.code == AW_E_LOCKED && !err.committed);
        CHECK_THAT(took >= (double)timeouts[i], "after %.3f of %d ms", took, (int)timeouts[i]);
        CHECK_THAT(took < (double)timeouts[i] + 500, "after %.3f of %d ms", took, (int)timeouts[i]);
    }
    after = disk_full_state("target");
    CHECK_TEXT(after, before);
    close(fd);
    must_write(FILES(F("a", "2")));
    free(before);
    free(after);
}

/* A clock of which a test says how late it is. */
static struct timespec fake_time;

static int fake_clock(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = fake_time;
    return 0;
}

static int fake_sleep(const struct timespec *time)
{
    fake_time.tv_sec += time->tv_sec;
    fake_time.tv_nsec += time->tv_nsec + 1000;
    while (fake_time.tv_nsec >= 1000000000) {
        fake_time.tv_nsec -= 1000000000;
        fake_time.tv_sec++;
    }
    return 0;
}

TEST(locked_exactly, "G6: the lock's timeout is kept to the nanosecond, whatever the time is")
{
    aw_options options = options_keeping(1);
    int fd;

    must_write(FILES(F("a", "1")));
    fd = open("target/..lock", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    aw_sys.clock_gettime = fake_clock;
    aw_sys.sleep = fake_sleep;
    options.lock_timeout = 25;
    for (long start = 0; start < 1000000000; start += 37137137) {
        double took;
        aw_error err;

        fake_time = (struct timespec){ 1000, start };
        CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0);
        CHECK(err.code == AW_E_LOCKED);
        took = (double)(fake_time.tv_sec - 1000) * 1e3
               + (double)(fake_time.tv_nsec - start) / 1e6;
        CHECK_THAT(took >= 25, "after %.6f of 25 ms", took);
        CHECK_THAT(took < 40, "after %.6f of 25 ms", took);
    }
    close(fd);
}

/* Somebody who asks for ..lock, and is stopped before the answer is given back. */
static int asker;
static long asks_for; /* milliseconds */
static unsigned in_the_way;

/* While the writer naps it holds nothing that another could meet. */
static int sleep_while_asked(const struct timespec *time)
{
    int other;

    fake_sleep(time);
    if (asker >= 0 && fake_time.tv_sec * 1000 + fake_time.tv_nsec / 1000000 >= asks_for) {
        close(asker);
        asker = -1;
        other = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (other < 0 || flock(other, LOCK_EX | LOCK_NB) < 0)
            in_the_way++;
        close(other);
    }
    return 0;
}

/* The milliseconds until a write with that TIMEOUT came to an end. */
static long write_while_asked(int64_t timeout, long milliseconds, aw_code code)
{
    aw_options options = options_keeping(1);
    aw_error err;
    int rc;

    asker = open("target/..lock", O_RDONLY | O_CLOEXEC);
    CHECK(asker >= 0 && flock(asker, LOCK_SH) == 0);
    asks_for = milliseconds;
    fake_time = (struct timespec){ 0, 0 };
    options.lock_timeout = timeout;
    rc = write_with(&options, FILES(F("a", "2")), NULL, &err);
    CHECK_THAT(rc == 0 ? code == AW_OK : err.code == code, "asked for %ld ms: %s", milliseconds,
               rc == 0 ? "ok" : aw_code_name(err.code));
    if (asker >= 0)
        close(asker);
    CHECK(in_the_way == 0);
    return fake_time.tv_sec * 1000 + fake_time.tv_nsec / 1000000;
}

TEST(only_asked, "G6: whoever only asks for the lock makes no writer fail within a second")
{
    static const int64_t timeouts[] = { 0, 1, 25, 300 };

    must_write(FILES(F("a", "1")));
    aw_sys.clock_gettime = fake_clock;
    aw_sys.sleep = sleep_while_asked;
    for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
        const long timeout = (long)timeouts[i];
        long took;

        took = write_while_asked(timeout, timeout + 900, AW_OK);
        CHECK_THAT(took >= timeout + 900 && took < timeout + 950, "after %ld ms", took);
        took = write_while_asked(timeout, timeout + 5000, AW_E_LOCKED);
        CHECK_THAT(took >= timeout + 1000 && took < timeout + 1050, "after %ld ms", took);
    }
}

static int writer_fd;

/* A writer takes the lock that was asked for. */
static int sleep_until_locked(const struct timespec *time)
{
    fake_sleep(time);
    if (asker >= 0) {
        close(asker);
        asker = -1;
        writer_fd = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (writer_fd < 0 || flock(writer_fd, LOCK_EX | LOCK_NB) < 0)
            abort();
    }
    return 0;
}

TEST(asked_then_locked, "G6: a writer that has waited for who asks does not wait for a writer, too")
{
    long took;

    must_write(FILES(F("a", "1")));
    aw_sys.clock_gettime = fake_clock;
    aw_sys.sleep = sleep_until_locked;
    took = write_while_asked(0, 0, AW_E_LOCKED);
    CHECK_THAT(took < 50, "after %ld ms", took);
    close(writer_fd);
    must_write(FILES(F("a", "2")));
}

TEST(lock_released, "G6: a writer waits for the lock and gets it when it is released")
{
    pid_t child;
    int ready[2];
    char byte;
    double start;

    must_write(FILES(F("a", "1")));
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        int fd = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        usleep(150000);
        _exit(0);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    start = now();
    must_write(FILES(F("a", "2")));
    CHECK(now() - start > 20);
    waitpid(child, NULL, 0);
    close(ready[0]);
    close(ready[1]);
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}

TEST(killed_holder, "G6: a killed holder of the lock blocks nobody")
{
    aw_options options = options_keeping(1);
    pid_t child;
    int ready[2];
    char byte;
    aw_error err;

    must_write(FILES(F("a", "1")));
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        int fd = open("target/..lock", O_RDWR | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    options.lock_timeout = 0;
    CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0 && err.code == AW_E_LOCKED);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    CHECK_OK(write_with(&options, FILES(F("a", "2")), NULL, &err), &err);
    close(ready[0]);
    close(ready[1]);
}

static bool moved;

static int move_target_then_lock(int fd, int operation)
{
    if (!moved && operation != LOCK_UN) {
        moved = true;
        if (rename("target", "moved") < 0)
            abort();
        disk_mkdir("target", 0755);
    }
    return flock(fd, operation);
}

TEST(moved_target, "G6: a target that is replaced while its lock is waited for is not written to")
{
    char *before, *after;
    aw_error err;

    must_write(FILES(F("a", "1")));
    before = disk_full_state("target/..data");
    moved = false;
    aw_sys.flock = move_target_then_lock;
    if (write_keeping(1, FILES(F("a", "2")), NULL, &err) == 0)
        CHECK_CLEAN("target", FILES(F("a", "2")), 0);
    else
        CHECK(err.code == AW_E_NO_TARGET && !err.committed);
    CHECK(moved);
    after = disk_full_state("moved/..data");
    CHECK_TEXT(after, before);
    CHECK(disk_count("moved", "..2") == 1);
    free(before);
    free(after);
}

static unsigned moves;

static int move_target_always(int fd, int operation)
{
    char name[32];

    snprintf(name, sizeof name, "moved-%u", moves++);
    if (rename("target", name) < 0)
        abort();
    disk_mkdir("target", 0755);
    return flock(fd, operation);
}

TEST(moved_for_ever, "G6: a target that is replaced again and again is an error in the end")
{
    aw_error err;

    must_write(FILES(F("a", "1")));
    aw_sys.flock = move_target_always;
    CHECK(write_keeping(1, FILES(F("a", "2")), NULL, &err) < 0);
    CHECK(err.code == AW_E_NO_TARGET && !err.committed);
    CHECK(moves > 3);
    CHECK(!disk_exists("target/..data"));
}

static int unlink_lock_always(int fd, int operation)
{
    moves++;
    if (unlink("target/..lock") < 0)
        abort();
    return flock(fd, operation);
}

TEST(unlinked_for_ever, "G6: a ..lock that is unlinked again and again is an error in the end")
{
    aw_error err;

    must_write(FILES(F("a", "1")));
    moves = 0;
    aw_sys.flock = unlink_lock_always;
    CHECK(write_keeping(1, FILES(F("a", "2")), NULL, &err) < 0);
    CHECK(!err.committed && moves > 3);
    CHECK_CLEAN("target", FILES(F("a", "1")), 0);
}

static int unlink_lock_once(int fd, int operation)
{
    if (moves++ == 0 && unlink("target/..lock") < 0)
        abort();
    return flock(fd, operation);
}

TEST(unlinked_once, "G6: a ..lock that somebody unlinks is made anew, and that one is locked")
{
    must_write(FILES(F("a", "1")));
    moves = 0;
    aw_sys.flock = unlink_lock_once;
    must_write(FILES(F("a", "2")));
    CHECK(disk_exists("target/..lock"));
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}

static int holder;

/* Another writer makes a new ..lock and holds it. */
static int replace_lock_once(int fd, int operation)
{
    if (moves++ == 0) {
        if (unlink("target/..lock") < 0)
            abort();
        holder = open("target/..lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (holder < 0 || flock(holder, LOCK_EX) < 0)
            abort();
    }
    return flock(fd, operation);
}

TEST(replaced, "G6: what counts is the file that ..lock names once it is locked")
{
    aw_options options = options_keeping(1);
    aw_error err;

    must_write(FILES(F("a", "1")));
    options.lock_timeout = 0;
    moves = 0;
    aw_sys.flock = replace_lock_once;
    CHECK(write_with(&options, FILES(F("a", "2")), NULL, &err) < 0);
    CHECK(err.code == AW_E_LOCKED && !err.committed);
    close(holder);
    must_write(FILES(F("a", "2")));
    CHECK_CLEAN("target", FILES(F("a", "2")), 1);
}
