/* fuzz.h: what the fuzz targets have in common.
 *
 * A target is one file that defines LLVMFuzzerTestOneInput(): it feeds the bytes to
 * the code under test, compares with an oracle that is slow and obvious, and aborts
 * through REQUIRE() when they differ. Built by clang with libFuzzer it looks for bytes
 * that do so (`make fuzz`, `make check-fuzz`); built with replay.c by any compiler it
 * runs the files of its corpus, as one more C test.
 *
 * Corpora are text wherever that will do, so that people can read and write them:
 * most targets take the bytes line by line.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define REQUIRE(condition) \
    ((condition) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #condition))

/* Say what does not hold, and abort. */
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

/* Some bytes of the input; not NUL-terminated. */
typedef struct slice {
    const char *at;
    size_t      size;
} slice;

/* Take the bytes up to the next SEPARATOR off *REST. False: there are none left. */
bool slice_next(slice *rest, char separator, slice *part);

/* The number that PART begins with; FALLBACK if it is empty. */
long long slice_number(slice part, long long fallback);

/* A copy in memory of exactly its size, a NUL byte included when TERMINATED: one byte
 * beyond it is found by AddressSanitizer. Freed by the caller. */
char *slice_copy(slice part, bool terminated);

#endif
