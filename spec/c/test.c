/* test.c: see test.h. */
#define _GNU_SOURCE
#include "test.h"

#include "aw_sys.h"
#include "disk.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECONDS_PER_TEST = 300 };

static test       *first, **last = &first;
static test       *running;
static jmp_buf     back;
static char        message[4096];
static bool        failed, skipped;
static char        directory[4096];
const char        *test_dir = directory;

void test_add(test *added)
{
    *last = added;
    last = &added->next;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    char    reason[3072];
    va_list args;

    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    snprintf(message, sizeof message, "%s:%d: %s", file, line, reason);
    failed = true;
    longjmp(back, 1);
}

void test_skip(const char *reason)
{
    snprintf(message, sizeof message, "%s", reason);
    skipped = true;
    longjmp(back, 1);
}

void test_note(const char *format, ...)
{
    va_list args;

    fputs("# ", stdout);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* The line of TEXT that begins at AT. */
static int line_length(const char *at)
{
    size_t length = strcspn(at, "\n");
    return length > 200 ? 200 : (int)length;
}

void test_same_text(const char *file, int line, const char *what,
                    const char *is, const char *expected)
{
    size_t at = 0, start = 0;

    if (is == NULL || expected == NULL) {
        if (is != expected)
            test_fail(file, line, "%s is %s, expected %s", what, is ? is : "NULL",
                      expected ? expected : "NULL");
        return;
    }
    if (strcmp(is, expected) == 0)
        return;
    for (; is[at] != '\0' && is[at] == expected[at]; at++)
        if (is[at] == '\n')
            start = at + 1;
    test_fail(file, line, "%s is \"%.*s\", expected \"%.*s\"", what,
              line_length(is + start), is + start,
              line_length(expected + start), expected + start);
}

/* A test hangs: say which one, without stdio, and give up. */
static void too_long(int number)
{
    static const char head[] = "not ok - ", tail[] = " (it hangs)\n";
    (void)number;
    if (write(1, head, sizeof head - 1) < 0
        || write(1, running->sentence, strlen(running->sentence)) < 0
        || write(1, tail, sizeof tail - 1) < 0)
        _exit(2);
    _exit(1);
}

/* In memory if there is such a place: it is fastest, with the same results. */
static const char *base_directory(void)
{
    const char *wanted = getenv("TEST_DIR"), *base = getenv("TMPDIR");

    if (wanted != NULL)
        return wanted;
    if (access("/dev/shm", W_OK | X_OK) == 0)
        return "/dev/shm";
    return base != NULL ? base : "/tmp";
}

static void enter_fresh_directory(void)
{
    snprintf(directory, sizeof directory, "%s/aw-test-XXXXXX", base_directory());
    if (mkdtemp(directory) == NULL || chdir(directory) < 0) {
        perror(directory);
        exit(2);
    }
}

static void run(test *one, aw_sys_table kernel)
{
    mode_t mask = umask(022);

    running = one;
    failed = skipped = false;
    enter_fresh_directory();
    alarm(SECONDS_PER_TEST);
    if (setjmp(back) == 0)
        one->run();
    alarm(0);
    aw_sys = kernel;
    umask(mask);
    if (chdir("/") < 0)
        perror("chdir");
    if (getenv("TEST_KEEP") != NULL)
        test_note("kept %s", directory);
    else
        disk_remove(directory);
    if (failed)
        printf("not ok - %s (%s)\n", one->sentence, message);
    else if (skipped)
        printf("ok - %s # skipped: %s\n", one->sentence, message);
    else
        printf("ok - %s\n", one->sentence);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const aw_sys_table kernel = aw_sys;
    int good = 0, bad = 0;

    signal(SIGALRM, too_long);
    for (test *one = first; one != NULL; one = one->next) {
        if (argc > 1 && strstr(one->sentence, argv[1]) == NULL)
            continue;
        run(one, kernel);
        *(failed ? &bad : &good) += 1;
    }
    printf("%d passed, %d failed\n", good, bad);
    return bad > 0;
}
