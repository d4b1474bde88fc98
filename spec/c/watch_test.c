/* watch_test.c: telling of new live versions (G10 for those who follow). */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

static aw_watcher *watch(const char *target)
{
    aw_watcher *watcher = NULL;
    aw_error err;

    CHECK_OK(aw_watch_open(target, &watcher, &err), &err);
    return watcher;
}

/* Milliseconds of a clock that never steps. */
static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

/* A new version without files; quicker than a write. The name in NAME. */
static void swap(unsigned number, char name[AW_VERSION_MAX])
{
    char path[PATH_MAX];

    snprintf(name, AW_VERSION_MAX, "..2026_11_22_15_04_05.%u", number);
    snprintf(path, sizeof path, "target/%s", name);
    if (mkdir(path, 0755) < 0 || symlink(name, "target/..data_tmp") < 0
        || rename("target/..data_tmp", "target/..data") < 0)
        abort();
}

static void check_told(aw_watcher *watcher, int64_t timeout, const char *expected)
{
    char version[AW_VERSION_MAX] = "(none)";
    aw_error err;
    int told = aw_watch_wait(watcher, timeout, version, &err);

    CHECK_THAT(told >= 0, "%s", aw_code_name(err.code));
    CHECK_TEXT(told ? version : NULL, expected);
}

static void check_gone(aw_watcher *watcher, int64_t timeout)
{
    char version[AW_VERSION_MAX] = "(none)";
    aw_error err = { 0 };
    int told = aw_watch_wait(watcher, timeout, version, &err);

    CHECK_THAT(told < 0, "told %d \"%s\"", told, version);
    CHECK_THAT(err.code == AW_E_NO_TARGET && !err.committed, "%s", aw_code_name(err.code));
}

/* ---- telling ----------------------------------------------------------- */

TEST(tells, "a watcher tells each new version once, and not the one that was live when it began")
{
    aw_watcher *watcher;
    char *name;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    check_told(watcher, 0, NULL);
    project("target", FILES(F("a", "2")));
    name = live_name("target");
    check_told(watcher, 0, name);
    check_told(watcher, 0, NULL);
    free(name);
    project("target", FILES(F("a", "3")));
    project("target", FILES(F("a", "4"), F("b", "")));
    name = live_name("target");
    check_told(watcher, -1, name);
    check_told(watcher, 0, NULL);
    project("target", FILES(F("a", "4"), F("b", ""))); /* no change */
    check_told(watcher, 0, NULL);
    free(name);
    aw_watch_close(watcher);
    aw_watch_close(NULL);
}

TEST(first, "a watcher on a target without a live version tells the first one")
{
    aw_watcher *watcher;
    char *name;

    disk_mkdir("target", 0755);
    watcher = watch("target");
    check_told(watcher, 0, NULL);
    project("target", FILES(F("a", "1")));
    name = live_name("target");
    check_told(watcher, 1000, name);
    free(name);
    aw_watch_close(watcher);
}

TEST(readable, "a watcher's descriptor is readable when there may be something to tell")
{
    aw_watcher *watcher;
    struct pollfd poll_fd = { .events = POLLIN };
    char *name;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    poll_fd.fd = aw_watch_fd(watcher);
    CHECK(poll(&poll_fd, 1, 0) == 0);
    project("target", FILES(F("a", "2")));
    CHECK(poll(&poll_fd, 1, 1000) == 1);
    name = live_name("target");
    check_told(watcher, 0, name);
    CHECK(poll(&poll_fd, 1, 0) == 0);
    free(name);
    aw_watch_close(watcher);
}

TEST(others, "files that come and go beside the layout are nothing to tell")
{
    aw_watcher *watcher;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    disk_write("target/foreign", "x", 0644);
    CHECK(rename("target/foreign", "target/foreign2") == 0);
    CHECK(unlink("target/foreign2") == 0 && unlink("target/a") == 0);
    check_told(watcher, 20, NULL);
    aw_watch_close(watcher);
}

/* ---- threads ----------------------------------------------------------- */

enum { SWAPS = 1000 };

typedef struct follower {
    aw_watcher *watcher;
    atomic_uint seen;       /* versions told so far                          */
    atomic_bool bad;
    char        last[AW_VERSION_MAX];
    char        until[AW_VERSION_MAX]; /* the version after which to stop    */
} follower;

static void *follow(void *context)
{
    follower *f = context;
    aw_error err;

    while (strcmp(f->last, f->until) != 0) {
        if (aw_watch_wait(f->watcher, 10000, f->last, &err) != 1) {
            atomic_store(&f->bad, true);
            break;
        }
        atomic_fetch_add(&f->seen, 1);
    }
    return NULL;
}

TEST(spaced, "each of 1000 spaced swaps is told, in order")
{
    follower f = { 0 };
    pthread_t thread;
    double start;

    disk_mkdir("target", 0755);
    f.watcher = watch("target");
    snprintf(f.until, sizeof f.until, "..2026_11_22_15_04_05.%u", SWAPS);
    CHECK(pthread_create(&thread, NULL, follow, &f) == 0);
    for (unsigned i = 1; i <= SWAPS; i++) {
        char name[AW_VERSION_MAX];
        swap(i, name);
        start = now();
        while (atomic_load(&f.seen) < i && !atomic_load(&f.bad) && now() - start < 5000)
            usleep(20);
        if (atomic_load(&f.seen) != i)
            break;
    }
    pthread_join(thread, NULL);
    CHECK(!atomic_load(&f.bad) && atomic_load(&f.seen) == SWAPS);
    aw_watch_close(f.watcher);
}

TEST(fast, "the last of 1000 fast swaps is told")
{
    follower f = { 0 };
    pthread_t thread;

    disk_mkdir("target", 0755);
    f.watcher = watch("target");
    snprintf(f.until, sizeof f.until, "..2026_11_22_15_04_05.%u", SWAPS);
    CHECK(pthread_create(&thread, NULL, follow, &f) == 0);
    for (unsigned i = 1; i <= SWAPS; i++) {
        char name[AW_VERSION_MAX];
        swap(i, name);
    }
    pthread_join(thread, NULL);
    CHECK(!atomic_load(&f.bad) && atomic_load(&f.seen) >= 1);
    CHECK_TEXT(f.last, f.until);
    aw_watch_close(f.watcher);
}

TEST(overflow, "an overflow of the queue loses no version")
{
    aw_watcher *watcher;
    char name[AW_VERSION_MAX], text[32] = "";
    unsigned limit = 16384;
    FILE *setting = fopen("/proc/sys/fs/inotify/max_queued_events", "re");

    if (setting && fgets(text, sizeof text, setting))
        limit = (unsigned)strtoul(text, NULL, 10);
    if (setting)
        fclose(setting);
    if (limit > 100000)
        test_skip("the queue is too long to be filled");
    disk_mkdir("target", 0755);
    watcher = watch("target");
    for (unsigned i = 0; i < limit / 2 + 10; i++) {
        if (symlink("x", "target/foreign") < 0 || unlink("target/foreign") < 0)
            abort();
    }
    swap(1, name); /* this has no event of its own any more */
    check_told(watcher, 0, name);
    check_told(watcher, 0, NULL);
    swap(2, name);
    check_told(watcher, 1000, name);
    aw_watch_close(watcher);
}

static ssize_t (*real_read)(int fd, void *buffer, size_t size);
static bool overflowed;

/* What the kernel says when its queue was full, and nothing else. */
static ssize_t read_overflow(int fd, void *buffer, size_t size)
{
    struct inotify_event event = { .wd = -1, .mask = IN_Q_OVERFLOW };
    ssize_t got = real_read(fd, buffer, size);

    if (got <= 0 || overflowed)
        return got;
    overflowed = true;
    memcpy(buffer, &event, sizeof event);
    return sizeof event;
}

TEST(overflow_alone, "an overflow event alone makes the watcher look")
{
    aw_watcher *watcher;
    char name[AW_VERSION_MAX];

    disk_mkdir("target", 0755);
    watcher = watch("target");
    real_read = aw_sys.read;
    aw_sys.read = read_overflow;
    swap(1, name);
    check_told(watcher, 0, name);
    CHECK(overflowed);
    aw_watch_close(watcher);
}

/* ---- time -------------------------------------------------------------- */

TEST(timeout, "the timeout is never early")
{
    static const int64_t timeouts[] = { 0, 1, 2, 5, 10, 33, 100 };
    aw_watcher *watcher;
    char version[AW_VERSION_MAX];
    aw_error err;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    for (int round = 0; round < 5; round++)
        for (size_t i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
            double start = now(), took;
            CHECK(aw_watch_wait(watcher, timeouts[i], version, &err) == 0);
            took = now() - start;
            CHECK_THAT(took >= (double)timeouts[i], "after %.3f of %d ms", took, (int)timeouts[i]);
            CHECK_THAT(took < (double)timeouts[i] + 500, "after %.3f of %d ms", took,
                       (int)timeouts[i]);
        }
    aw_watch_close(watcher);
}

static struct timespec fake_time;

static int fake_clock(clockid_t clock, struct timespec *time)
{
    (void)clock;
    *time = fake_time;
    return 0;
}

/* Time passes, and now and then an event comes that is nothing to tell. */
static int fake_poll(struct pollfd *fds, unsigned count, int timeout)
{
    long step = timeout > 7 ? 7 : timeout;
    (void)fds;
    (void)count;
    fake_time.tv_nsec += step * 1000000 + 1000;
    if (fake_time.tv_nsec >= 1000000000) {
        fake_time.tv_nsec -= 1000000000;
        fake_time.tv_sec++;
    }
    return timeout > 7;
}

TEST(timeout_exact, "the timeout is kept to the nanosecond, also when other events come in between")
{
    aw_watcher *watcher;
    char version[AW_VERSION_MAX];
    aw_error err;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    aw_sys.clock_gettime = fake_clock;
    aw_sys.poll = fake_poll;
    for (long start = 0; start < 1000000000; start += 37137137) {
        double took;
        fake_time = (struct timespec){ 1000, start };
        CHECK(aw_watch_wait(watcher, 25, version, &err) == 0);
        took = (double)(fake_time.tv_sec - 1000) * 1e3 + (double)(fake_time.tv_nsec - start) / 1e6;
        CHECK_THAT(took >= 25 && took < 30, "after %.6f of 25 ms", took);
    }
    aw_watch_close(watcher);
}

static void on_signal(int number)
{
    (void)number;
}

TEST(interrupted, "a signal ends the wait with EINTR, and the watcher goes on")
{
    struct sigaction action = { .sa_handler = on_signal };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
    struct itimerspec soon = { .it_value = { 0, 30000000 } };
    timer_t timer;
    aw_watcher *watcher;
    char version[AW_VERSION_MAX], name[AW_VERSION_MAX];
    aw_error err;

    disk_mkdir("target", 0755);
    watcher = watch("target");
    sigaction(SIGUSR1, &action, NULL);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    CHECK(timer_settime(timer, 0, &soon, NULL) == 0);
    CHECK(aw_watch_wait(watcher, 5000, version, &err) < 0);
    CHECK(err.code == AW_E_IO && err.sys_errno == EINTR && !err.committed);
    timer_delete(timer);
    swap(1, name);
    check_told(watcher, 1000, name);
    aw_watch_close(watcher);
}

/* ---- the target's end -------------------------------------------------- */

TEST(removed, "a target that is removed is no_target, from then on")
{
    aw_watcher *watcher;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    disk_remove("target");
    check_gone(watcher, 2000);
    check_gone(watcher, 0);
    disk_mkdir("target", 0755); /* another one */
    check_gone(watcher, 0);
    aw_watch_close(watcher);
}

TEST(removed_while_read, "a target is told as removed although a reader still holds a snapshot of it")
{
    aw_watcher *watcher;
    aw_snapshot *snapshot = NULL;
    aw_error err;

    project("target", FILES(F("a", "1")));
    CHECK_OK(aw_snapshot_open("target", &snapshot, &err), &err);
    watcher = watch("target");
    disk_remove("target");
    check_gone(watcher, 5000);
    aw_watch_close(watcher);
    aw_snapshot_close(snapshot);
}

TEST(renamed, "a target that is renamed away is no_target, from then on")
{
    aw_watcher *watcher;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    CHECK(rename("target", "elsewhere") == 0);
    check_gone(watcher, 2000);
    check_gone(watcher, -1);
    aw_watch_close(watcher);
}

static void *remove_later(void *context)
{
    (void)context;
    usleep(50000);
    disk_remove("target");
    return NULL;
}

TEST(removed_while_waiting, "a waiter is woken when the target is removed")
{
    aw_watcher *watcher;
    pthread_t thread;
    char version[AW_VERSION_MAX];
    aw_error err = { 0 };
    double start;
    int told;

    project("target", FILES(F("a", "1")));
    watcher = watch("target");
    start = now();
    CHECK(pthread_create(&thread, NULL, remove_later, NULL) == 0);
    told = aw_watch_wait(watcher, 5000, version, &err);
    pthread_join(thread, NULL);
    CHECK_THAT(told < 0 && err.code == AW_E_NO_TARGET, "told %d", told);
    CHECK_THAT(now() - start < 4000, "only after %.0f ms", now() - start);
    aw_watch_close(watcher);
}

/* ---- errors ------------------------------------------------------------ */

TEST(errors, "no target is no_target, a hostile ..data is foreign, when opened and later")
{
    aw_watcher *watcher = NULL;
    char version[AW_VERSION_MAX];
    aw_error err;

    CHECK(aw_watch_open("missing", &watcher, &err) < 0 && err.code == AW_E_NO_TARGET);
    disk_write("file", "", 0644);
    CHECK(aw_watch_open("file", &watcher, &err) < 0 && err.code == AW_E_NO_TARGET);
    disk_mkdir("target", 0755);
    disk_symlink("../x", "target/..data");
    CHECK(aw_watch_open("target", &watcher, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    CHECK(watcher == NULL);
    CHECK(unlink("target/..data") == 0);
    watcher = watch("target");
    disk_symlink("../x", "target/..data");
    CHECK(aw_watch_wait(watcher, 0, version, &err) < 0 && err.code == AW_E_FOREIGN_ENTRY);
    CHECK(unlink("target/..data") == 0);
    swap(1, version);
    check_told(watcher, 1000, "..2026_11_22_15_04_05.1");
    aw_watch_close(watcher);
}

TEST(vanishing, "a ..data that vanishes for a while is nothing to tell, its return neither")
{
    aw_watcher *watcher;
    char name[AW_VERSION_MAX];

    disk_mkdir("target", 0755);
    swap(1, name);
    watcher = watch("target");
    CHECK(rename("target/..data", "target/aside") == 0);
    check_told(watcher, 0, NULL);
    CHECK(rename("target/aside", "target/..data") == 0);
    check_told(watcher, 0, NULL);
    swap(2, name);
    check_told(watcher, 0, name);
    aw_watch_close(watcher);
}

/* ---- faults ------------------------------------------------------------ */

/* The calls of opening a watcher, or of a wait that tells a version. */
static unsigned rehearse(bool open, fault_call trace[100])
{
    char name[AW_VERSION_MAX], told[AW_VERSION_MAX];
    aw_watcher *watcher = open ? NULL : watch("target");
    unsigned calls;
    aw_error err;

    swap(1 + open, name);
    fault_arm((fault_plan){ .kind = FAULT_NONE });
    if (open)
        CHECK_OK(aw_watch_open("target", &watcher, &err), &err);
    else
        CHECK(aw_watch_wait(watcher, 0, told, &err) == 1);
    fault_disarm();
    aw_watch_close(watcher);
    calls = fault_calls();
    CHECK(calls < 100);
    for (unsigned at = 1; at <= calls; at++)
        trace[at] = fault_call_at(at);
    return calls;
}

static void try_opening(fault_plan plan, fault_call call)
{
    bool fails = fault_is_failure(&plan) && plan.code != EINTR;
    aw_watcher *watcher = NULL;
    aw_error err;
    int rc;

    fault_arm(plan);
    rc = aw_watch_open("target", &watcher, &err);
    fault_disarm();
    CHECK_THAT(rc == 0 || fails, "call %u: %s", plan.at, fault_describe(&plan, call));
    CHECK((rc == 0) == (watcher != NULL));
    CHECK(rc == 0 || (err.code != AW_OK && !err.committed));
    if (rc == 0)
        check_told(watcher, 0, NULL);
    aw_watch_close(watcher);
}

/* What a wait with a fault does not tell the next one does, and never twice. */
static void try_waiting(fault_plan plan, fault_call call, unsigned number)
{
    char name[AW_VERSION_MAX], told[AW_VERSION_MAX] = "";
    aw_watcher *watcher = watch("target");
    aw_error err;
    int rc;

    swap(number, name);
    fault_arm(plan);
    rc = aw_watch_wait(watcher, 0, told, &err);
    fault_disarm();
    CHECK_THAT(rc == 1 ? strcmp(told, name) == 0 : rc == -1 && err.code != AW_OK,
               "call %u: %s: %d, \"%s\"", plan.at, fault_describe(&plan, call), rc, told);
    CHECK_THAT(rc == 1 || (fault_is_failure(&plan) && plan.code != EINTR), "call %u: %s", plan.at,
               fault_describe(&plan, call));
    check_told(watcher, 0, rc == 1 ? NULL : name);
    aw_watch_close(watcher);
}

TEST(faults, "a fault in opening a watcher or in a wait is an error, loses no version, and leaks nothing")
{
    unsigned calls[2], points = 0;
    fault_call trace[2][100];
    size_t descriptors;

    disk_mkdir("target", 0755);
    for (int open = 0; open < 2; open++)
        calls[open] = rehearse(open, trace[open]);
    descriptors = disk_open_files();
    for (int open = 0; open < 2; open++) {
        for (unsigned at = 1; at <= calls[open]; at++) {
            fault_plan plans[FAULT_PLANS_MAX];
            size_t count = fault_plans(at, trace[open][at], plans);

            for (size_t i = 0; i < count; i++, points++) {
                if (open)
                    try_opening(plans[i], trace[open][at]);
                else
                    try_waiting(plans[i], trace[open][at], 10 + points);
                CHECK_THAT(disk_open_files() == descriptors, "call %u: %s: a descriptor leaks", at,
                           fault_describe(&plans[i], trace[open][at]));
            }
        }
    }
    test_note("fault: %u calls, %u points, 0 violations", calls[0] + calls[1], points);
}
