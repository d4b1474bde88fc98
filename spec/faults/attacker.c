/* attacker TARGET VICTIM DECOY SECONDS SEED: somebody with the right to make names in
 * TARGET who wants a writer there to touch what lies elsewhere.
 *
 * For SECONDS it swaps what a writer uses for things that lead into VICTIM: versions
 * (live, old and half-made ones), directories and files in them, the writer's own names,
 * the visible names; each for a symbolic link, a hard link, a FIFO, a device, a socket, a
 * file or a directory. TARGET itself is swapped for a symbolic link to DECOY and back.
 * The order of the attacks depends on SEED alone; at what moment of a write they hit, on
 * the machine.
 *
 * It works with descriptors and follows no link: else it would be itself that reaches
 * VICTIM. What is swapped takes a name that begins with STASH meanwhile, in the same
 * directory. Now and then it puts TARGET right, so that writers do not refuse it for the
 * rest of the time. At the end TARGET is a directory again, and each kind of attack is told with
 * how often it succeeded: "attack KIND COUNT".
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define STASH ".stash."

static const char *target_path, *victim, *decoy;
static uint64_t state;
static volatile sig_atomic_t stopped;

/* ---- chance and time --------------------------------------------------- */

/* xorshift64: any seed but 0 will do. */
static unsigned below(unsigned limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 20) % limit);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* From nothing to a millisecond: a writer's calls take microseconds, its writes
 * milliseconds. */
static void linger(void)
{
    static const long most[] = { 1, 10000, 100000, 1000000 };
    struct timespec nap = { 0, (long)below((unsigned)most[below(4)]) };

    nanosleep(&nap, NULL);
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/* ---- directories and names --------------------------------------------- */

static int open_directory(int dir, const char *name)
{
    return openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static bool is_own(const char *name)
{
    return strncmp(name, STASH, sizeof STASH - 1) == 0;
}

/* Any entry of DIR, or of those that begin with PREFIX. */
static bool choose_name(int dir, const char *prefix, char name[NAME_MAX + 1])
{
    int fd = open_directory(dir, ".");
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    unsigned seen = 0;

    if (!listing)
        return false;
    while ((entry = readdir(listing)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0
            || is_own(entry->d_name) || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
            continue;
        if (below(++seen) == 0)
            snprintf(name, NAME_MAX + 1, "%s", entry->d_name);
    }
    closedir(listing);
    return seen > 0;
}

/* One of the versions in the target, or a directory in it: DEPTH levels down at most. */
static int open_somewhere(int target, unsigned depth)
{
    int dir = open_directory(target, ".");

    for (unsigned level = 0; dir >= 0 && level < depth; level++) {
        char name[NAME_MAX + 1];
        int next = choose_name(dir, level == 0 ? "..2" : "", name) ? open_directory(dir, name)
                                                                    : -1;

        if (next < 0 && level > 0)
            break;
        close(dir);
        dir = next;
    }
    return dir;
}

/* ---- what is put in a writer's way ------------------------------------- */

typedef enum lure {
    TO_VICTIM, TO_VICTIM_FILE, HARD_LINK, FIFO, DEVICE, SOCKET, PLAIN_FILE, DIRECTORY, LURES
} lure;

static const char *const lure_names[LURES] = {
    "link", "link-to-file", "hard-link", "fifo", "device", "socket", "file", "directory"
};
static unsigned long lured[LURES];

static void join(char path[PATH_MAX], const char *directory, const char *name)
{
    snprintf(path, PATH_MAX, "%s/%s", directory, name);
}

static int make_file(int dir, const char *name)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int make_lure(int dir, const char *name, lure which)
{
    static const char *const inside[] = { "", "dir", "dir/sub", "version" };
    char path[PATH_MAX];

    switch (which) {
    case TO_VICTIM:
        join(path, victim, inside[below(4)]);
        return symlinkat(path, dir, name);
    case TO_VICTIM_FILE:
        join(path, victim, "precious");
        return symlinkat(path, dir, name);
    case HARD_LINK:
        join(path, victim, below(2) ? "precious" : "lock");
        return linkat(AT_FDCWD, path, dir, name, 0);
    case FIFO: return mkfifoat(dir, name, 0666);
    case DEVICE: return mknodat(dir, name, S_IFCHR | 0666, makedev(1, 5)); /* zeros, no end */
    case SOCKET: return mknodat(dir, name, S_IFSOCK | 0666, 0);
    case PLAIN_FILE: return make_file(dir, name);
    case DIRECTORY: return mkdirat(dir, name, 0777);
    default: return -1;
    }
}

/* Put a lure at NAME for a while, and then what was there again. When it is KEPT, the
 * lure stays and what was there is lost; a directory stays under its other name. */
static bool swap_name(int dir, const char *name, lure which, bool kept)
{
    static unsigned count;
    char stash[NAME_MAX + 1];
    bool done;

    snprintf(stash, sizeof stash, STASH "%d.%u", (int)getpid(), count++);
    if (make_lure(dir, stash, which) < 0)
        return false;
    done = renameat2(dir, stash, dir, name, RENAME_EXCHANGE) == 0;
    if (done) {
        lured[which]++;
        linger();
        if (!kept)
            (void)renameat2(dir, stash, dir, name, RENAME_EXCHANGE);
    } else if (errno == ENOENT && renameat(dir, stash, dir, name) == 0) {
        lured[which]++;
        linger();
        renameat(dir, name, dir, stash);
        done = true;
    }
    if (unlinkat(dir, stash, 0) < 0)
        (void)unlinkat(dir, stash, AT_REMOVEDIR); /* a full one is put right by the spec */
    return done;
}

/* ---- the attacks ------------------------------------------------------- */

static bool attack_version(int target)
{
    char name[NAME_MAX + 1];

    return choose_name(target, "..2", name) && swap_name(target, name, TO_VICTIM, below(8) == 0);
}

/* In a version, at any depth: whatever is there, a half-made file too. */
static bool attack_entry(int target)
{
    int dir = open_somewhere(target, 1 + below(3));
    char name[NAME_MAX + 1];
    bool done = dir >= 0 && choose_name(dir, "", name)
                && swap_name(dir, name, (lure)below(LURES), below(4) == 0);

    if (dir >= 0)
        close(dir);
    return done;
}

/* Where a writer is about to make something. */
static bool attack_next_name(int target)
{
    static const char *const names[] = { "a", "b", "dir", "sub", "deep", "x" };
    int dir = open_somewhere(target, 1 + below(3));
    bool done = dir >= 0 && swap_name(dir, names[below(6)], (lure)below(LURES), below(4) == 0);

    if (dir >= 0)
        close(dir);
    return done;
}

static bool attack_reserved(int target)
{
    static const char *const names[] = { "..data", "..data_tmp", "..lock" };

    return swap_name(target, names[below(3)], (lure)below(LURES), false);
}

static bool attack_visible(int target)
{
    static const char *const names[] = { "a", "b", "dir", "changing" };

    return swap_name(target, names[below(4)], (lure)below(LURES), false);
}

/* What looks like a version, or one half removed, and leads elsewhere. */
static bool attack_planted(int target)
{
    static const char *const names[] = {
        "..2001_01_01_00_00_00.1", "..2099_01_01_00_00_00.1",
        "..2001_01_01_00_00_00.2_tmp", "..2099_01_01_00_00_00.2_tmp"
    };
    const char *name = names[below(4)];

    if (make_lure(target, name, TO_VICTIM) < 0)
        return false;
    linger();
    (void)unlinkat(target, name, 0);
    return true;
}

/* Two versions change places, or a version and a directory in it. */
static bool attack_order(int target)
{
    char one[NAME_MAX + 1], other[NAME_MAX + 1];

    return choose_name(target, "..2", one) && choose_name(target, "..2", other)
           && strcmp(one, other) != 0
           && renameat2(target, one, target, other, RENAME_EXCHANGE) == 0;
}

/* A reader's right is enough for this one. */
static bool attack_locks(int target)
{
    char name[NAME_MAX + 1];
    int dir = choose_name(target, "..2", name) ? open_directory(target, name) : -1;
    bool done;

    if (dir < 0)
        return false;
    done = flock(dir, (below(2) ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0;
    linger();
    close(dir);
    return done;
}

/* Another directory where the target was, at once and back. */
static bool attack_target(int target)
{
    char aside[PATH_MAX];
    bool done;

    (void)target;
    snprintf(aside, sizeof aside, "%s.aside", target_path);
    if (symlink(decoy, aside) < 0)
        return false;
    done = renameat2(AT_FDCWD, aside, AT_FDCWD, target_path, RENAME_EXCHANGE) == 0;
    if (done) {
        linger();
        while (renameat2(AT_FDCWD, aside, AT_FDCWD, target_path, RENAME_EXCHANGE) < 0)
            ;
    }
    unlink(aside);
    return done;
}

/* The same with a moment between, in which there is no target. */
static bool attack_path(int target)
{
    char aside[PATH_MAX];

    (void)target;
    snprintf(aside, sizeof aside, "%s.aside", target_path);
    if (rename(target_path, aside) < 0)
        return false;
    if (symlink(decoy, target_path) == 0) {
        linger();
        unlink(target_path);
    }
    while (rename(aside, target_path) < 0)
        ;
    return true;
}

/* ---- putting right ----------------------------------------------------- */

static void remove_all(int dir, const char *name)
{
    char inside[NAME_MAX + 1];
    int fd;

    if (unlinkat(dir, name, 0) == 0 || (fd = open_directory(dir, name)) < 0)
        return;
    while (choose_name(fd, "", inside) && faccessat(fd, inside, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        remove_all(fd, inside);
        if (faccessat(fd, inside, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            break; /* another's */
    }
    close(fd);
    (void)unlinkat(dir, name, AT_REMOVEDIR);
}

/* Whether a writer has made NAME, or would sweep it. */
static bool is_in_order(int target, const char *name)
{
    char text[PATH_MAX] = "", expected[PATH_MAX];
    struct stat st;

    if (fstatat(target, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return true;
    (void)!readlinkat(target, name, text, sizeof text - 1);
    snprintf(expected, sizeof expected, "..data/%s", name);
    if (strcmp(name, "..lock") == 0)
        return S_ISREG(st.st_mode) && st.st_nlink == 1;
    if (strcmp(name, "..data_tmp") == 0)
        return S_ISLNK(st.st_mode);
    if (strcmp(name, "..data") == 0)
        return strncmp(text, "..2", 3) == 0;
    return strncmp(name, "..2", 3) == 0 ? S_ISDIR(st.st_mode) : strcmp(text, expected) == 0;
}

/* A writer refuses a target with foreign entries: it would have peace for the rest of the
 * time. A version that is left under a stash's name becomes an old one, to be pruned. */
static void put_right(int target)
{
    static unsigned count;
    int fd = open_directory(target, ".");
    DIR *listing = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;

    if (!listing)
        return;
    while ((entry = readdir(listing)) != NULL) {
        char version[64];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0
            || is_in_order(target, entry->d_name))
            continue;
        snprintf(version, sizeof version, "..2001_01_01_00_00_01.%u", count++);
        if (!is_own(entry->d_name) || entry->d_type != DT_DIR
            || renameat(target, entry->d_name, target, version) < 0)
            remove_all(target, entry->d_name);
    }
    closedir(listing);
}

/* ---- all of them ------------------------------------------------------- */

static const struct attack {
    const char *name;
    bool      (*try)(int target);
    unsigned    weight;
} attacks[] = {
    { "version", attack_version, 4 },   { "entry", attack_entry, 6 },
    { "next-name", attack_next_name, 4 }, { "reserved", attack_reserved, 4 },
    { "visible", attack_visible, 3 },   { "planted", attack_planted, 2 },
    { "order", attack_order, 1 },       { "locks", attack_locks, 2 },
    { "target", attack_target, 2 },     { "path", attack_path, 1 },
};
enum { ATTACKS = sizeof attacks / sizeof *attacks };
static unsigned long succeeded[ATTACKS];

static unsigned choose_attack(void)
{
    unsigned total = 0, at;

    for (unsigned i = 0; i < ATTACKS; i++)
        total += attacks[i].weight;
    at = below(total);
    for (unsigned i = 0;; i++) {
        if (at < attacks[i].weight)
            return i;
        at -= attacks[i].weight;
    }
}

int main(int argc, char **argv)
{
    double end;
    int target;

    if (argc != 6) {
        fprintf(stderr, "usage: attacker TARGET VICTIM DECOY SECONDS SEED\n");
        return 2;
    }
    target_path = argv[1];
    victim = argv[2];
    decoy = argv[3];
    end = now() + atof(argv[4]);
    state = strtoull(argv[5], NULL, 10) * 2654435761u + 1;
    signal(SIGTERM, stop);
    umask(0);
    target = open_directory(AT_FDCWD, target_path);
    if (target < 0) {
        perror(target_path);
        return 1;
    }
    while (!stopped && now() < end) {
        unsigned i = choose_attack();

        succeeded[i] += attacks[i].try(target);
        if (below(4) == 0)
            put_right(target);
        if (below(4) == 0)
            linger(); /* let a write through now and then */
    }
    for (unsigned i = 0; i < ATTACKS; i++)
        printf("attack %s %lu\n", attacks[i].name, succeeded[i]);
    for (unsigned i = 0; i < LURES; i++)
        printf("lure %s %lu\n", lure_names[i], lured[i]);
    return 0;
}
