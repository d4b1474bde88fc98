/* test.h: a tiny harness for the C specs.
 *
 *     TEST(keeps_old, "G2: a full disk leaves the target as it was")
 *     {
 *         CHECK(write_files(…) < 0);
 *     }
 *
 * A program is one *_test.c with test.c, which has main(). Each test runs in a
 * fresh directory, its working directory, and is one line of output:
 *
 *     ok - SENTENCE
 *     ok - SENTENCE # skipped: REASON
 *     not ok - SENTENCE (FILE:LINE: WHAT)
 *
 * The last line reads "N passed, N failed"; the exit status is 0 or 1.
 * An argument runs only the tests whose sentence contains it. TEST_DIR is where
 * the directories are made, instead of /dev/shm; TEST_KEEP keeps them. A failed
 * CHECK ends its test. What a test changes in the process (the table of system
 * calls, umask) is put back for it. A test that hangs is killed and reported.
 *
 * Only the thread that runs the test may CHECK; others count their failures.
 */
#ifndef TEST_H
#define TEST_H

#include <stdbool.h>

typedef struct test {
    const char  *sentence;
    void       (*run)(void);
    struct test *next;
} test;

#define TEST(id, sentence) \
    static void id(void); \
    static test test_##id = { sentence, id, 0 }; \
    __attribute__((constructor)) static void add_##id(void) { test_add(&test_##id); } \
    static void id(void)

void test_add(test *added);

/* The fresh directory of the running test, absolute. */
extern const char *test_dir;

/* End the test: it failed because of what the printf format says. */
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* End the test without a verdict. */
_Noreturn void test_skip(const char *reason);

/* A line of output that belongs to the running test: "# …". */
void test_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Both strings equal; on failure the first line that differs is shown. */
void test_same_text(const char *file, int line, const char *what,
                    const char *is, const char *expected);

#define CHECK(condition) \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, "%s", #condition))

/* As CHECK, with a message in place of the condition's text. */
#define CHECK_THAT(condition, ...) \
    ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, __VA_ARGS__))

#define CHECK_TEXT(is, expected) \
    test_same_text(__FILE__, __LINE__, #is, is, expected)

#endif
