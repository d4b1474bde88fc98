/* floor: the least that the kernel must be asked for, in plain C.
 *
 * What a write has to do, with only the necessary system calls and no checks,
 * in the layout that atomicwriter makes. It knows all names, compares with
 * nothing, and trusts that nothing fails but by ending the program. The time
 * of the same work done by atomicwriter, divided by this one, is the price of
 * all that it promises.
 *
 *     floor rewrite N     mkdir a version; open, write, fchmod, close each file;
 *                         symlink and rename it over ..data; remove the old one
 *     floor onechanged N  the same, but link all files except one from the old
 *     floor unchanged N   open, read, compare, close each file
 *
 *     floor MODE N [DIR [LAYOUT [REPETITIONS]]]
 *
 * DIR is a directory to work in, "." by default; it is left as it was. LAYOUT:
 * "flat", all files in the version's top directory, or "dirs", a hundred in each
 * directory. Files have 1 KiB. One microsecond count a repetition is printed, in
 * the order of running, then their median; a first repetition is not counted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 1024, PER_DIRECTORY = 100, NAME = 32 };

static size_t count;             /* of files                                 */
static bool   flat;
static char (*names)[NAME];      /* of files in their directory              */
static char (*directories)[NAME];
static size_t directory_count;   /* 0 when flat                              */
static char   data[2][SIZE + 1]; /* two contents, used in turn               */

static void need(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void make_names(void)
{
    directory_count = flat ? 0 : (count + PER_DIRECTORY - 1) / PER_DIRECTORY;
    names = calloc(count, sizeof *names);
    directories = calloc(directory_count + 1, sizeof *directories);
    need(names && directories, "calloc");
    for (size_t i = 0; i < count; i++)
        snprintf(names[i], NAME, "f%05zu", i);
    for (size_t i = 0; i < directory_count; i++)
        snprintf(directories[i], NAME, "d%03zu", i);
    memset(data[0], 'a', SIZE);
    memset(data[1], 'b', SIZE);
}

/* The directory of the version AT that holds file I; files come in order, so
 * *OPEN is kept from one to the next. */
static int enter(int at, size_t i, int *open_one)
{
    if (flat)
        return at;
    if (i % PER_DIRECTORY == 0) {
        if (*open_one >= 0)
            close(*open_one);
        *open_one = openat(at, directories[i / PER_DIRECTORY], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        need(*open_one >= 0, "openat");
    }
    return *open_one;
}

static void leave(int *open_one)
{
    if (*open_one >= 0)
        close(*open_one);
    *open_one = -1;
}

static void write_file(int dir, const char *name, const char *text)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    need(fd >= 0 && write(fd, text, SIZE) == SIZE && fchmod(fd, 0644) == 0 && close(fd) == 0,
         "write");
}

static int make_version(int target, const char *version)
{
    int at;

    need(mkdirat(target, version, 0755) == 0, "mkdirat");
    at = openat(target, version, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(at >= 0, "openat");
    for (size_t d = 0; d < directory_count; d++)
        need(mkdirat(at, directories[d], 0755) == 0, "mkdirat");
    return at;
}

static void remove_version(int target, const char *version)
{
    int at = openat(target, version, O_RDONLY | O_DIRECTORY | O_CLOEXEC), below = -1;

    need(at >= 0, "openat");
    for (size_t i = 0; i < count; i++)
        need(unlinkat(enter(at, i, &below), names[i], 0) == 0, "unlinkat");
    leave(&below);
    for (size_t d = 0; d < directory_count; d++)
        need(unlinkat(at, directories[d], AT_REMOVEDIR) == 0, "unlinkat");
    close(at);
    need(unlinkat(target, version, AT_REMOVEDIR) == 0, "unlinkat");
}

static void swap(int target, const char *version)
{
    need(symlinkat(version, target, "..data_tmp") == 0, "symlinkat");
    need(renameat(target, "..data_tmp", target, "..data") == 0, "renameat");
}

/* ---- the three kinds of work ------------------------------------------- */

static void rewrite(int target, const char *old, const char *new, const char *text)
{
    int at = make_version(target, new), below = -1;

    for (size_t i = 0; i < count; i++)
        write_file(enter(at, i, &below), names[i], text);
    leave(&below);
    close(at);
    swap(target, new);
    if (old)
        remove_version(target, old);
}

static void change_one(int target, const char *old, const char *new, const char *text)
{
    int at = make_version(target, new), below = -1, old_below = -1;
    int from = openat(target, old, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    need(from >= 0, "openat");
    for (size_t i = 0; i < count; i++) {
        int dir = enter(at, i, &below), old_dir = enter(from, i, &old_below);

        if (i == count / 2)
            write_file(dir, names[i], text);
        else
            need(linkat(old_dir, names[i], dir, names[i], 0) == 0, "linkat");
    }
    leave(&below);
    leave(&old_below);
    close(at);
    close(from);
    swap(target, new);
    remove_version(target, old);
}

static void compare(int target, const char *live, const char *text)
{
    char seen[SIZE + 1];
    int at = openat(target, live, O_RDONLY | O_DIRECTORY | O_CLOEXEC), below = -1;

    need(at >= 0, "openat");
    for (size_t i = 0; i < count; i++) {
        int fd = openat(enter(at, i, &below), names[i], O_RDONLY | O_CLOEXEC);

        /* one byte more than there should be shows that it is no longer */
        need(fd >= 0 && read(fd, seen, sizeof seen) == SIZE, "read");
        if (memcmp(seen, text, SIZE) != 0)
            exit(1);
        close(fd);
    }
    leave(&below);
    close(at);
}

/* ---- measuring --------------------------------------------------------- */

static double microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int by_value(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
    static const char *const versions[] = { "..floor.0", "..floor.1" };
    const char *mode = argc > 2 ? argv[1] : "";
    char target_name[] = "floor-XXXXXX";
    size_t repetitions = argc > 5 ? strtoul(argv[5], NULL, 10) : 11;
    double *took;
    int target;

    count = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    flat = argc <= 4 || strcmp(argv[4], "flat") == 0;
    if (count == 0 || repetitions == 0
        || (strcmp(mode, "rewrite") && strcmp(mode, "onechanged") && strcmp(mode, "unchanged"))) {
        fputs("usage: floor rewrite|onechanged|unchanged N [DIR [flat|dirs [REPETITIONS]]]\n",
              stderr);
        return 2;
    }
    need(argc <= 3 || chdir(argv[3]) == 0, argc > 3 ? argv[3] : "");
    umask(022);
    make_names();
    took = calloc(repetitions, sizeof *took);
    need(took && mkdtemp(target_name), "mkdtemp");
    target = open(target_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(target >= 0, target_name);

    rewrite(target, NULL, versions[0], data[0]);
    for (size_t i = 0, turn = 0; i <= repetitions; i++) {
        const char *old = versions[turn % 2], *new = versions[(turn + 1) % 2];
        double start = microseconds();

        if (mode[0] == 'r')
            rewrite(target, old, new, data[++turn % 2]);
        else if (mode[0] == 'o')
            change_one(target, old, new, data[++turn % 2]);
        else
            compare(target, old, data[0]);
        if (i > 0)
            took[i - 1] = microseconds() - start;
    }
    unlinkat(target, "..data", 0);
    for (int i = 0; i < 2; i++)
        if (faccessat(target, versions[i], F_OK, 0) == 0)
            remove_version(target, versions[i]);
    close(target);
    rmdir(target_name);

    for (size_t i = 0; i < repetitions; i++)
        printf("%.2f\n", took[i]);
    qsort(took, repetitions, sizeof *took, by_value);
    printf("median %.2f\n", took[repetitions / 2]);
    free(took);
    free(names);
    free(directories);
    return 0;
}
