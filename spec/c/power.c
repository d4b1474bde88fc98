/* power.c: see power.h. */
#define _GNU_SOURCE
#include "power.h"

#include "aw_sys.h"
#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- facts ------------------------------------------------------------- */

typedef enum fact_kind { DATA, MODE, OWNER, NAME } fact_kind;

/* A value since call AT. For DATA a text, for MODE a mode, for OWNER both ids, for NAME
 * an inode. */
typedef struct value {
    size_t   at;
    uint64_t number;
    char    *text;
} value;

typedef struct fact {
    fact_kind kind;
    size_t    inode;  /* it is about; for NAME the directory                 */
    char     *name;   /* for NAME                                            */
    value    *values;
    size_t    count;
    size_t    now;     /* before the cut, the last value                     */
    size_t    durable; /* the oldest that may come back                      */
    size_t    chosen;  /* by the state; beyond NOW: see below                */
    char     *torn;    /* one more that DATA may come back as, while not durable */
    size_t    next;    /* about the same inode, plus 1; 0: none               */
} fact;

typedef struct inode {
    power_type type;
    char      *text;  /* of a link                                           */
    ino_t      real;  /* on the disk that is recorded                        */
    size_t     facts; /* about it: the last one's index, plus 1              */
} inode;

/* A call that makes something durable. */
typedef struct sync_call {
    size_t at;
    size_t inode;     /* POWER_NONE: everything                              */
    bool   files;     /* of everything, the data and modes of files          */
    bool   others;    /* and all else                                        */
} sync_call;

struct power {
    inode     *inodes;
    size_t     inode_count;
    fact      *facts;
    size_t     fact_count;
    sync_call *syncs;
    size_t     sync_count;
    size_t     calls;
    bool       swapped;    /* since the last write began                     */
    ino_t      target;
    unsigned   syncs_made; /* that failed, too                               */
    unsigned   failing;    /* the one that fails with EIO, from 1 on; 0: none */
    size_t     in_full;    /* cuts of which every state was looked at         */
};

static power       *recording;
static aw_sys_table real;

static void *grown(void *array, size_t count, size_t size)
{
    void *result = array;

    if ((count & (count - 1)) == 0) /* at each power of two */
        result = realloc(array, (count > 0 ? 2 * count : 1) * size);
    if (!result)
        abort();
    return result;
}

static size_t add_inode(power *p, power_type type, const char *text, ino_t on_disk)
{
    p->inodes = grown(p->inodes, p->inode_count, sizeof *p->inodes);
    p->inodes[p->inode_count] = (inode){ type, text ? strdup(text) : NULL, on_disk, 0 };
    return p->inode_count++;
}

/* The newest one of that number: the disk may give it out again. */
static size_t find_inode(const power *p, ino_t on_disk)
{
    for (size_t i = p->inode_count; i-- > POWER_ROOT;)
        if (p->inodes[i].real == on_disk)
            return i;
    return POWER_NONE;
}

static fact *find_fact(const power *p, fact_kind kind, size_t about, const char *name)
{
    fact *f;

    for (size_t i = p->inodes[about].facts; i > 0; i = f->next) {
        f = &p->facts[i - 1];
        if (f->kind == kind && (!name || strcmp(f->name, name) == 0))
            return f;
    }
    return NULL;
}

static void add_value(power *p, fact *f, uint64_t number, const char *text)
{
    f->values = grown(f->values, f->count, sizeof *f->values);
    f->values[f->count++] = (value){ p->calls, number, text ? strdup(text) : NULL };
}

/* A fact begins with what it is before anybody has said anything: no data, no such
 * name. Data that is written anew may be torn, though it is the same; anything else that
 * is the same is no news. */
static void state_fact(power *p, fact_kind kind, size_t about, const char *name,
                       uint64_t number, const char *text)
{
    fact *f = find_fact(p, kind, about, name);

    if (!f) {
        p->facts = grown(p->facts, p->fact_count, sizeof *p->facts);
        f = &p->facts[p->fact_count++];
        *f = (fact){ .kind = kind, .inode = about, .name = name ? strdup(name) : NULL,
                     .next = p->inodes[about].facts };
        p->inodes[about].facts = p->fact_count;
        add_value(p, f, kind == NAME ? POWER_NONE : number, kind == DATA ? "" : NULL);
        f->values[0].at = 0;
    }
    if (kind == DATA || f->values[f->count - 1].number != number)
        add_value(p, f, number, text);
}

static uint64_t both_ids(uid_t uid, gid_t gid)
{
    return (uint64_t)uid << 32 | gid;
}

/* An inode that nobody has given a mode or an owner yet has what MADE says. */
static void state_inode(power *p, size_t about, mode_t made, const struct stat *st)
{
    state_fact(p, MODE, about, NULL, made, NULL);
    state_fact(p, MODE, about, NULL, st->st_mode & 07777, NULL);
    state_fact(p, OWNER, about, NULL, both_ids(st->st_uid, st->st_gid), NULL);
}

/* ---- the disk as it is ------------------------------------------------- */

static void load_directory(power *p, size_t at, const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL) {
        char below[PATH_MAX], *text = NULL;
        struct stat st;
        size_t made;

        snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0
            || lstat(below, &st) < 0)
            continue;
        made = find_inode(p, st.st_ino);
        if (made == POWER_NONE && S_ISLNK(st.st_mode)) {
            text = disk_link(below);
            made = add_inode(p, POWER_LINK, text, st.st_ino);
        } else if (made == POWER_NONE) {
            made = add_inode(p, S_ISDIR(st.st_mode) ? POWER_DIRECTORY : POWER_FILE, NULL,
                             st.st_ino);
            state_inode(p, made, S_ISDIR(st.st_mode) ? 0700 : 0600, &st);
            if (S_ISREG(st.st_mode)) {
                text = disk_read(below);
                state_fact(p, DATA, made, NULL, 0, text);
            }
        }
        free(text);
        state_fact(p, NAME, at, entry->d_name, made, NULL);
        if (S_ISDIR(st.st_mode))
            load_directory(p, made, below);
    }
    if (dir)
        closedir(dir);
}

/* ---- recording --------------------------------------------------------- */

static size_t inode_of(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 ? find_inode(recording, st.st_ino) : (size_t)POWER_NONE;
}

/* The directory that NAME at DIR is in, and its last component; only the target has a
 * path of several. POWER_NONE: outside. */
static size_t directory_of(int dir, const char **name)
{
    const char *slash = strrchr(*name, '/');
    char parent[PATH_MAX];
    struct stat st;

    if (!slash)
        return dir == AT_FDCWD ? (size_t)POWER_ROOT : inode_of(dir);
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - *name), *name);
    *name = slash + 1;
    return stat(parent, &st) == 0 ? find_inode(recording, st.st_ino) : (size_t)POWER_NONE;
}

static void record_name(int dir, const char *name, size_t leads_to)
{
    size_t at = directory_of(dir, &name);

    if (at != POWER_NONE)
        state_fact(recording, NAME, at, name, leads_to, NULL);
}

/* What has just been made at NAME. */
static void record_new(int dir, const char *name, power_type type, const char *text)
{
    struct stat st;
    size_t made;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        abort();
    made = add_inode(recording, type, text, st.st_ino);
    if (type != POWER_LINK)
        state_inode(recording, made, st.st_mode & 07777, &st);
    record_name(dir, name, made);
}

static void record_data(int fd)
{
    size_t about = inode_of(fd);
    char path[64], *text;

    if (about == POWER_NONE)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    text = disk_read(path);
    state_fact(recording, DATA, about, NULL, 0, text ? text : "");
    free(text);
}

static void record_sync(size_t about, bool files, bool others)
{
    power *p = recording;

    p->syncs = grown(p->syncs, p->sync_count, sizeof *p->syncs);
    p->syncs[p->sync_count++] = (sync_call){ p->calls, about, files, others };
}

/* One more call, which ERRNO does not notice. */
#define RECORD(succeeded, what) \
    do { \
        int kept = errno; \
        recording->calls++; \
        if (succeeded) \
            what; \
        errno = kept; \
    } while (0)

static int record_openat(int dir, const char *name, int flags, mode_t mode)
{
    struct stat st;
    bool made = (flags & O_CREAT) && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0;
    int fd = real.openat(dir, name, flags, mode);

    if (made)
        RECORD(fd >= 0, record_new(dir, name, POWER_FILE, NULL));
    return fd;
}

static int record_mkdirat(int dir, const char *name, mode_t mode)
{
    int rc = real.mkdirat(dir, name, mode);

    RECORD(rc == 0, record_new(dir, name, POWER_DIRECTORY, NULL));
    return rc;
}

static int record_symlinkat(const char *text, int dir, const char *name)
{
    int rc = real.symlinkat(text, dir, name);

    RECORD(rc == 0, record_new(dir, name, POWER_LINK, text));
    return rc;
}

static int record_linkat(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc = real.linkat(from_dir, from, to_dir, to);
    struct stat st;

    RECORD(rc == 0 && fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0,
           record_name(to_dir, to, find_inode(recording, st.st_ino)));
    return rc;
}

static int record_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    int rc = real.renameat(from_dir, from, to_dir, to);
    struct stat st;

    RECORD(rc == 0 && fstatat(to_dir, to, &st, AT_SYMLINK_NOFOLLOW) == 0, {
        record_name(to_dir, to, find_inode(recording, st.st_ino));
        record_name(from_dir, from, POWER_NONE);
    });
    if (rc == 0 && strcmp(to, "..data") == 0)
        recording->swapped = true;
    return rc;
}

static int record_unlinkat(int dir, const char *name, int flags)
{
    int rc = real.unlinkat(dir, name, flags);

    RECORD(rc == 0, record_name(dir, name, POWER_NONE));
    return rc;
}

static ssize_t record_write(int fd, const void *data, size_t size)
{
    ssize_t put = real.write(fd, data, size);

    RECORD(put > 0, record_data(fd));
    return put;
}

static ssize_t record_copy(int from, int to, size_t size)
{
    ssize_t put = real.copy_file_range(from, to, size);

    RECORD(put > 0, record_data(to));
    return put;
}

static int record_clone(int from, int to)
{
    int rc = real.clone_file(from, to);

    RECORD(rc == 0, record_data(to));
    return rc;
}

static int record_chmod(int fd, mode_t mode)
{
    int rc = real.fchmod(fd, mode);

    RECORD(rc == 0 && inode_of(fd) != POWER_NONE,
           state_fact(recording, MODE, inode_of(fd), NULL, mode, NULL));
    return rc;
}

/* One id alone may be given; the disk then knows both. */
static int record_chown(int fd, uid_t uid, gid_t gid)
{
    int rc = real.fchown(fd, uid, gid);
    struct stat st;

    RECORD(rc == 0 && inode_of(fd) != POWER_NONE && fstat(fd, &st) == 0,
           state_fact(recording, OWNER, inode_of(fd), NULL, both_ids(st.st_uid, st.st_gid), NULL));
    return rc;
}

static bool mutant(const char *name)
{
    return strcmp(POWER_MUTANT, name) == 0;
}

/* Whether this sync is one that the mutant leaves out. */
static bool is_left_out(int fd)
{
    struct stat st;
    bool target;

    if (fstat(fd, &st) < 0)
        return true;
    if (S_ISREG(st.st_mode))
        return mutant("no-file-sync");
    target = st.st_ino == recording->target;
    if (!target)
        return mutant("no-directory-sync");
    return mutant(recording->swapped ? "no-target-sync-after" : "no-target-sync-before");
}

/* Whether this sync is the one that is to fail. It has synced nothing then. */
static bool is_to_fail(void)
{
    recording->syncs_made++;
    if (recording->syncs_made != recording->failing)
        return false;
    errno = EIO;
    return true;
}

/* The disk is not what is tested: nothing is really synced. */
static int record_fsync(int fd)
{
    if (is_to_fail())
        return -1;
    RECORD(!is_left_out(fd), record_sync(inode_of(fd), true, true));
    return 0;
}

static int record_syncfs(int fd)
{
    (void)fd;
    if (is_to_fail())
        return -1;
    RECORD(true, record_sync(POWER_NONE, !mutant("no-file-sync"), !mutant("no-directory-sync")));
    return 0;
}

static int no_writeback(int fd)
{
    (void)fd;
    return 0; /* promises nothing */
}

/* A write begins by taking the lock. */
static int record_flock(int fd, int operation)
{
    struct stat st;

    recording->swapped = false;
    if (stat("target", &st) == 0)
        recording->target = st.st_ino;
    return real.flock(fd, operation);
}

static void sync_all(power *p)
{
    p->calls++;
    record_sync(POWER_NONE, true, true);
}

power *power_record(bool durable)
{
    power *p = calloc(1, sizeof *p);
    struct stat st;

    if (!p || stat(".", &st) < 0)
        abort();
    (void)add_inode(p, POWER_FILE, NULL, 0); /* POWER_NONE */
    (void)add_inode(p, POWER_DIRECTORY, NULL, st.st_ino);
    recording = p;
    load_directory(p, POWER_ROOT, ".");
    if (durable)
        sync_all(p);
    real = aw_sys;
    aw_sys.openat = record_openat;
    aw_sys.mkdirat = record_mkdirat;
    aw_sys.symlinkat = record_symlinkat;
    aw_sys.linkat = record_linkat;
    aw_sys.renameat = record_renameat;
    aw_sys.unlinkat = record_unlinkat;
    aw_sys.write = record_write;
    aw_sys.copy_file_range = record_copy;
    aw_sys.clone_file = record_clone;
    aw_sys.fchmod = record_chmod;
    aw_sys.chmod_opath = record_chmod;
    aw_sys.fchown = record_chown;
    aw_sys.fsync = record_fsync;
    aw_sys.syncfs = record_syncfs;
    aw_sys.start_writeback = no_writeback;
    aw_sys.flock = record_flock;
    return p;
}

size_t power_now(const power *p)
{
    return p->calls + 1;
}

void power_fail_sync(power *p, unsigned number)
{
    p->failing = p->syncs_made + number;
}

bool power_has_failed(const power *p)
{
    return p->failing > 0 && p->syncs_made >= p->failing;
}

void power_stop(power *p)
{
    (void)p;
    aw_sys = real;
    recording = NULL;
}

void power_free(power *p)
{
    for (size_t i = 0; i < p->fact_count; i++) {
        for (size_t j = 0; j < p->facts[i].count; j++)
            free(p->facts[i].values[j].text);
        free(p->facts[i].values);
        free(p->facts[i].name);
        free(p->facts[i].torn);
    }
    for (size_t i = 0; i < p->inode_count; i++)
        free(p->inodes[i].text);
    free(p->facts);
    free(p->inodes);
    free(p->syncs);
    free(p);
}

/* ---- a state ----------------------------------------------------------- */

static bool may_be_torn(const fact *f)
{
    return f->kind == DATA && f->now > f->durable;
}

/* Beyond NOW, data that is not durable may also be torn. */
static size_t choices(const fact *f)
{
    return f->now - f->durable + 1 + may_be_torn(f);
}

static const value *chosen(const fact *f)
{
    return &f->values[f->chosen];
}

size_t power_entry(const power *p, size_t dir, const char *name)
{
    const fact *f = find_fact(p, NAME, dir, name);

    return f ? (size_t)chosen(f)->number : (size_t)POWER_NONE;
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

size_t power_list(const power *p, size_t dir, const char **names, size_t max)
{
    size_t count = 0;
    const fact *f;

    for (size_t i = p->inodes[dir].facts; i > 0; i = f->next) {
        f = &p->facts[i - 1];
        if (f->kind == NAME && chosen(f)->number != POWER_NONE && count < max)
            names[count++] = f->name;
    }
    qsort(names, count, sizeof *names, by_name);
    return count;
}

power_type power_type_of(const power *p, size_t which)
{
    return p->inodes[which].type;
}

mode_t power_mode(const power *p, size_t which)
{
    const fact *f = find_fact(p, MODE, which, NULL);

    return f ? (mode_t)chosen(f)->number : 0;
}

void power_owner(const power *p, size_t which, uid_t *uid, gid_t *gid)
{
    const fact *f = find_fact(p, OWNER, which, NULL);
    uint64_t ids = f ? chosen(f)->number : 0;

    *uid = (uid_t)(ids >> 32);
    *gid = (gid_t)ids;
}

const char *power_text(const power *p, size_t which)
{
    const fact *f = find_fact(p, DATA, which, NULL);

    if (p->inodes[which].type == POWER_LINK)
        return p->inodes[which].text;
    if (!f)
        return "";
    return f->chosen > f->now ? f->torn : chosen(f)->text;
}

/* The owner first: giving a file away takes bits of its mode. */
static void dress(const power *p, size_t which, const char *path)
{
    uid_t uid;
    gid_t gid;

    power_owner(p, which, &uid, &gid);
    if (chown(path, uid, gid) < 0 || chmod(path, power_mode(p, which)) < 0)
        abort();
}

static void make_directory(const power *p, size_t dir, const char *path, const char **places)
{
    const fact *f;

    for (size_t i = p->inodes[dir].facts; i > 0; i = f->next) {
        size_t leads_to;
        char below[PATH_MAX];

        f = &p->facts[i - 1];
        leads_to = f->kind == NAME ? (size_t)chosen(f)->number : (size_t)POWER_NONE;
        if (leads_to == POWER_NONE)
            continue;
        snprintf(below, sizeof below, "%s/%s", path, f->name);
        if (p->inodes[leads_to].type == POWER_LINK) {
            disk_symlink(power_text(p, leads_to), below);
        } else if (p->inodes[leads_to].type == POWER_DIRECTORY) {
            disk_mkdir(below, 0700);
            make_directory(p, leads_to, below, places);
            dress(p, leads_to, below);
        } else if (places[leads_to]) {
            if (link(places[leads_to], below) < 0)
                abort();
        } else {
            disk_write(below, power_text(p, leads_to), 0600);
            dress(p, leads_to, below);
            places[leads_to] = strdup(below);
        }
    }
}

void power_make(const power *p)
{
    const char **places = calloc(p->inode_count, sizeof *places);

    if (!places)
        abort();
    make_directory(p, POWER_ROOT, ".", places);
    for (size_t i = 0; i < p->inode_count; i++)
        free((char *)places[i]);
    free(places);
}

/* ---- all states of a cut ----------------------------------------------- */

typedef struct search {
    power        *p;
    size_t        cut;
    fact        **open;      /* facts that may come back as one or another */
    size_t        open_count;
    power_effort  effort;
    power_judge   judge;
    void         *context;
    unsigned long states;
    uint64_t      seed;
} search;

static uint64_t next_random(search *s)
{
    s->seed ^= s->seed << 13;
    s->seed ^= s->seed >> 7;
    s->seed ^= s->seed << 17;
    return s->seed;
}

static bool is_file(const power *p, const fact *f)
{
    return f->kind == DATA || (f->kind != NAME && p->inodes[f->inode].type == POWER_FILE);
}

static bool syncs(const power *p, const sync_call *sync, const fact *f)
{
    return sync->inode == POWER_NONE ? (is_file(p, f) ? sync->files : sync->others)
                                     : sync->inode == f->inode;
}

static size_t value_at(const fact *f, size_t call)
{
    size_t i = 0;

    while (i + 1 < f->count && f->values[i + 1].at < call)
        i++;
    return i;
}

/* Half of it, or zeros in its place. */
static void tear(fact *f, bool zeros)
{
    const char *text = f->values[f->now].text;
    size_t size = strlen(text);

    free(f->torn);
    f->torn = strdup(text);
    if (zeros) /* as far as a string can show it */
        memset(f->torn, '0', size);
    else
        f->torn[size / 2] = '\0';
}

/* The facts as they are before call CUT. */
static void go_to(search *s, size_t cut)
{
    power *p = s->p;

    s->cut = cut;
    s->open_count = 0;
    for (size_t i = 0; i < p->fact_count; i++) {
        fact *f = &p->facts[i];

        f->now = f->chosen = value_at(f, cut);
        f->durable = 0;
        for (size_t j = p->sync_count; j-- > 0;) {
            if (p->syncs[j].at < cut && syncs(p, &p->syncs[j], f)) {
                f->durable = value_at(f, p->syncs[j].at);
                break;
            }
        }
        if (may_be_torn(f))
            tear(f, i % 2 == 0);
        if (choices(f) > 1)
            s->open[s->open_count++] = f;
    }
}

static void judge(search *s)
{
    s->states++;
    s->judge(s->p, s->cut, s->context);
}

static void choose_all(search *s, bool newest)
{
    for (size_t i = 0; i < s->open_count; i++)
        s->open[i]->chosen = newest ? s->open[i]->now : s->open[i]->durable;
}

/* Every state in which one fact that may differ is another than usual, FROM on; with
 * MORE, also those in which a second one is. */
static void differ(search *s, size_t from, bool more)
{
    for (size_t i = from; i < s->open_count; i++) {
        fact *f = s->open[i];
        size_t usual = f->chosen;

        for (size_t c = 0; c < choices(f); c++) {
            f->chosen = f->durable + c;
            if (f->chosen == usual)
                continue;
            judge(s);
            if (more)
                differ(s, i + 1, false);
        }
        f->chosen = usual;
    }
}

static void choose_others(search *s, bool newest)
{
    choose_all(s, newest);
    judge(s);
    differ(s, 0, s->open_count <= s->effort.pairs);
}

/* Whether a cut has so few states that all can be looked at. */
static bool has_few(const search *s)
{
    size_t states = 1;

    for (size_t i = 0; i < s->open_count && states <= s->effort.few; i++)
        states *= choices(s->open[i]);
    return states <= s->effort.few;
}

/* Every combination from fact FROM on. */
static void choose_every(search *s, size_t from)
{
    fact *f = from < s->open_count ? s->open[from] : NULL;

    if (!f) {
        judge(s);
        return;
    }
    for (size_t c = 0; c < choices(f); c++) {
        f->chosen = f->durable + c;
        choose_every(s, from + 1);
    }
}

static void choose_at_random(search *s)
{
    for (size_t i = 0; i < s->open_count; i++)
        s->open[i]->chosen = s->open[i]->durable + next_random(s) % choices(s->open[i]);
    judge(s);
}

/* A journal: names and modes as they were before call POINT. */
static void go_back_to(search *s, size_t point)
{
    for (size_t i = 0; i < s->open_count; i++) {
        fact *f = s->open[i];
        size_t then = value_at(f, point);

        if (f->kind != DATA)
            f->chosen = then > f->durable ? then : f->durable;
    }
}

static void choose_data(search *s, bool newest)
{
    for (size_t i = 0; i < s->open_count; i++)
        if (s->open[i]->kind == DATA)
            s->open[i]->chosen = newest ? s->open[i]->now : s->open[i]->durable;
    judge(s);
    for (size_t i = 0; i < s->open_count; i++) {
        fact *f = s->open[i];
        size_t usual = f->chosen;

        if (f->kind != DATA)
            continue;
        f->chosen = f->durable + next_random(s) % choices(f);
        judge(s);
        f->chosen = usual;
    }
}

/* Journals reach at least to the last sync, and at most to the cut. */
static void choose_ordered(search *s)
{
    enum { POINTS_MAX = 40 };
    size_t last = 0, step;

    for (size_t i = 0; i < s->p->sync_count; i++)
        if (s->p->syncs[i].at < s->cut && s->p->syncs[i].at > last)
            last = s->p->syncs[i].at;
    step = (s->cut - last) / POINTS_MAX + 1;
    for (size_t point = last; point <= s->cut; point += step) {
        go_back_to(s, point);
        choose_data(s, true);
        choose_data(s, false);
    }
}

size_t power_in_full(const power *p)
{
    return p->in_full;
}

void power_newest(power *p, size_t cut)
{
    for (size_t i = 0; i < p->fact_count; i++)
        p->facts[i].now = p->facts[i].chosen = value_at(&p->facts[i], cut);
}

unsigned long power_enumerate(power *p, size_t from, size_t to, const power_effort *effort,
                              power_judge judged_by, void *context)
{
    search s = { .p = p, .effort = *effort, .judge = judged_by, .context = context,
                 .seed = 88172645463325252 };

    s.open = calloc(p->fact_count + 1, sizeof *s.open);
    if (!s.open)
        abort();
    for (size_t cut = from; cut <= to; cut += effort->stride) {
        go_to(&s, cut);
        p->in_full += has_few(&s);
        if (has_few(&s)) { /* a journal's states are among them */
            choose_every(&s, 0);
            continue;
        }
        choose_others(&s, true);
        choose_others(&s, false);
        choose_ordered(&s);
        for (unsigned i = 0; i < effort->random; i++)
            choose_at_random(&s);
    }
    free(s.open);
    return s.states;
}
