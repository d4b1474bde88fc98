/* replay.c: main() for a fuzz target without libFuzzer.
 *
 *     TARGET DIRECTORY    run every file in DIRECTORY, a corpus
 *     TARGET FILE         run one, such as a crash that the fuzzer has found
 *
 * Also every beginning of each file and, so that something is wrong in most
 * places, each file with one byte changed, for as long as there are few: these
 * must not abort either. The target is one test in the count of the last line; whatever
 * fails ends the program, and the line before it names the file.
 */
#define _POSIX_C_SOURCE 200809L
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIZE_MAX_READ = 1 << 20, VARIANTS_MAX = 400 };

static unsigned long runs;

static void run(const uint8_t *bytes, size_t size)
{
    uint8_t *exact = malloc(size + (size == 0)); /* so that ASan sees the end */

    if (!exact)
        abort();
    memcpy(exact, bytes, size);
    (void)LLVMFuzzerTestOneInput(exact, size); /* always 0 */
    free(exact);
    runs++;
}

static void run_variants(uint8_t *bytes, size_t size)
{
    size_t step = size / VARIANTS_MAX + 1;

    run(bytes, size);
    for (size_t i = 0; i < size; i += step) {
        uint8_t kept = bytes[i];

        run(bytes, i);
        bytes[i] = (uint8_t)(kept ^ (1u << i % 8));
        run(bytes, size);
        bytes[i] = kept;
    }
}

static void run_file(const char *path)
{
    static uint8_t bytes[SIZE_MAX_READ];
    FILE *file = fopen(path, "rb");
    size_t size;

    if (!file) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        exit(2);
    }
    size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    printf("# %s\n", path); /* the last one, if it aborts */
    fflush(stdout);
    run_variants(bytes, size);
}

static int is_shown(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int count;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY|FILE\n", argv[0]);
        return 2;
    }
    count = scandir(argv[1], &entries, is_shown, alphasort);
    if (count < 0) {
        run_file(argv[1]);
        count = 1;
    } else {
        for (int i = 0; i < count; i++) {
            char path[PATH_MAX];

            snprintf(path, sizeof path, "%s/%s", argv[1], entries[i]->d_name);
            run_file(path);
            free(entries[i]);
        }
        free(entries);
    }
    printf("# fuzz: %s: %lu inputs, 0 violations\n", strrchr(argv[0], '/') + 1, runs);
    printf("%d passed, 0 failed\n", count > 0);
    return 0;
}
