/* floor: the least that the kernel must be asked for, in plain C.
 *
 * What a write has to do, with only the necessary system calls and no checks,
 * in the layout that atomicwriter makes. It knows all names, compares with
 * nothing, and trusts that nothing fails but by ending the program. The time
 * of the same work done by atomicwriter, divided by this one, is the price of
 * all that it promises.
 *
 *     floor rewrite N      mkdir a version; open, write, close each file; symlink
 *                          and rename it over ..data; remove the old one
 *     floor onechanged N   the same, but link all files except one from the old
 *     floor statchanged N  the same, with a look at each file before it is linked
 *     floor unchanged N    open, read, compare, close each file
 *     floor verified N     the same with fstat, to compare mode and owner
 *     floor stat N         one statx of each file, in a directory that is open
 *     floor perfile N      without versions: write a temporary file beside each,
 *                          rename it over the old one
 *     floor perfileone N   the same for one file of N
 *
 * With "+fsync" after the work each file is synced when it is written, then the
 * directories, then the target before and after the rename. With "+flush" the
 * files are synced last, their write-back having begun early; "+syncfs" syncs the
 * file system instead of the files and directories.
 *
 *     floor WORK N [DIR [LAYOUT [REPETITIONS]]]
 *
 * DIR is a directory to work in, "." by default; it is left as it was. LAYOUT:
 * "flat", all files in the version's top directory, or "dirs", a hundred in each
 * directory. Files have 1 KiB. Without REPETITIONS they are read from standard
 * input, a number a line, until it ends: so two programs can take turns. A line is
 * printed for each such number: the microseconds that each repetition took, in the
 * order of running. A first repetition is not counted.
 */
#define _GNU_SOURCE
#include "works.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum work { REWRITE, ONECHANGED, STATCHANGED, UNCHANGED, VERIFIED, STAT, PERFILE, PERFILEONE, WORKS };

static const char *const work_names[WORKS] = {
    "rewrite", "onechanged", "statchanged", "unchanged", "verified", "stat", "perfile",
    "perfileone"
};

static const char *const durability_names[] = { "", "+fsync", "+flush", "+syncfs" };

static const char *const versions[] = { "..floor.0", "..floor.1" };

typedef struct floor_state {
    tree      tree;
    enum work work;
    char      data[2][SIZE + 1]; /* two contents, used in turn               */
    size_t    live;              /* the index of the live version, mostly    */
    size_t    written;           /* the index of the data last written       */
    int       at;                /* the version that STAT looks at           */
} floor_state;

static double microseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void do_work(floor_state *s, const turn *now)
{
    switch (s->work) {
    case REWRITE:     rewrite(&s->tree, now);           break;
    case ONECHANGED:  change_one(&s->tree, now, false); break;
    case STATCHANGED: change_one(&s->tree, now, true);  break;
    case UNCHANGED:   compare(&s->tree, now);           break;
    case VERIFIED:    verify(&s->tree, now);            break;
    case STAT:        look(&s->tree, s->at);            break;
    case PERFILE:     replace_each(&s->tree, now);      break;
    case PERFILEONE:  replace_one(&s->tree, now);       break;
    case WORKS:       break;
    }
}

/* With FLUSH_FIRST all files are open at once. */
static void allow_open_files(void)
{
    struct rlimit limit;

    need(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    need(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
}

/* Once; returns the time that it took. */
static double repeat(floor_state *s)
{
    bool moves = s->work <= STATCHANGED;
    bool writes = s->work < UNCHANGED || s->work >= PERFILE;
    turn now = { versions[s->live], versions[1 - s->live], NULL };
    double start;

    if (writes)
        s->written = 1 - s->written;
    now.text = s->data[s->written];
    start = microseconds();
    do_work(s, &now);
    start = microseconds() - start;
    if (moves)
        s->live = 1 - s->live;
    return start;
}

static void repeat_all(floor_state *s, unsigned long repetitions)
{
    for (unsigned long i = 0; i < repetitions; i++)
        printf(i == 0 ? "%.3f" : " %.3f", repeat(s));
    putchar('\n');
    fflush(stdout);
}

static void prepare(floor_state *s)
{
    turn first = { NULL, versions[0], s->data[0] };
    durability how = s->tree.how;

    memset(s->data[0], 'a', SIZE);
    memset(s->data[1], 'b', SIZE);
    s->tree.how = NOT_DURABLE;
    tree_show(&s->tree);
    rewrite(&s->tree, &first);
    s->tree.how = how;
    s->at = version_open(&s->tree, versions[0]);
    (void)repeat(s);
}

static void clean_up(floor_state *s)
{
    close(s->at);
    s->tree.how = NOT_DURABLE;
    version_remove(&s->tree, versions[s->live]);
    unlinkat(s->tree.target, "..data", 0);
    tree_hide(&s->tree);
    close(s->tree.target);
    tree_clear(&s->tree);
}

/* The index of TEXT's beginning, or of its rest, in NAMES; COUNT if there is none. */
static size_t find(const char *text, size_t length, const char *const *names, size_t count)
{
    size_t i = 0;

    while (i < count && (strlen(names[i]) != length || memcmp(names[i], text, length) != 0))
        i++;
    return i;
}

static int usage(void)
{
    fputs("usage: floor WORK N [DIR [flat|dirs [REPETITIONS]]]\n"
          "WORK: unchanged, verified, stat, perfile[+fsync], perfileone[+fsync],\n"
          "      rewrite, onechanged or statchanged[+fsync|+flush|+syncfs]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    static floor_state state;
    const char *name = argc > 2 ? argv[1] : "";
    size_t length = strcspn(name, "+"), count = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    size_t work = find(name, length, work_names, WORKS);
    size_t how = find(name + length, strlen(name + length), durability_names, 4);
    char target[] = "floor-XXXXXX", line[32];

    if (count == 0 || work == WORKS || how == 4 || argc > 6
        || (work >= PERFILE && how > FSYNC_EACH))
        return usage();
    state.work = (enum work)work;
    need(argc <= 3 || chdir(argv[3]) == 0, argc > 3 ? argv[3] : "");
    umask(022);
    if (how == FLUSH_FIRST)
        allow_open_files();
    tree_init(&state.tree, count, argc <= 4 || strcmp(argv[4], "flat") == 0, (durability)how);
    need(mkdtemp(target) != NULL, "mkdtemp");
    state.tree.target = open(target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    need(state.tree.target >= 0, target);

    prepare(&state);
    if (argc > 5)
        repeat_all(&state, strtoul(argv[5], NULL, 10));
    else
        while (fgets(line, sizeof line, stdin))
            repeat_all(&state, strtoul(line, NULL, 10));
    clean_up(&state);
    rmdir(target);
    return 0;
}
