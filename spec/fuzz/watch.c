/* watch.c: a watcher on top of any events and any "..data".
 *
 * The bytes are steps, each a kind, a length of one byte and so many bytes:
 *
 *     E LENGTH BYTES    the inotify queue has these, in one read(2)
 *     L LENGTH BYTES    "..data" reads this; of length 0: it is gone
 *     R                 the target is replaced by another directory
 *     W                 aw_watch_wait() without waiting
 *
 * Well-formed events are what the kernel sends; that a queue of other bytes is read no
 * further than it goes is more than anybody needs, and free. Each wait tells what a
 * model tells, which holds the live version next to the one told last.
 */
#define _XOPEN_SOURCE 700 /* S_IFDIR */
#include "aw_name.h"
#include "aw_sys.h"
#include "aw_watch.h"
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>

enum { STEPS_MAX = 64, EVENTS_MAX = 8, TARGET = 40, QUEUE = 41 };

static struct {
    slice    link;              /* what "..data" reads                       */
    slice    events[EVENTS_MAX];
    size_t   event_count, event_next;
    ino_t    inode;
    unsigned opened, closed;
} disk;

static int fake_openat(int dir, const char *name, int flags, mode_t mode)
{
    (void)dir;
    (void)flags;
    (void)mode;
    REQUIRE(name[0] == '/');
    disk.opened++;
    return TARGET;
}

static int fake_close(int fd)
{
    REQUIRE(fd == TARGET || fd == QUEUE);
    disk.closed++;
    return 0;
}

static int fake_fstat(int fd, struct stat *st)
{
    REQUIRE(fd == TARGET);
    memset(st, 0, sizeof *st);
    st->st_ino = disk.inode;
    st->st_mode = S_IFDIR | 0755;
    return 0;
}

static ssize_t fake_readlinkat(int dir, const char *name, char *buffer, size_t size)
{
    REQUIRE(dir == TARGET && strcmp(name, AW_NAME_DATA) == 0);
    if (disk.link.size == 0) {
        errno = ENOENT;
        return -1;
    }
    if (size > disk.link.size)
        size = disk.link.size;
    memcpy(buffer, disk.link.at, size);
    return (ssize_t)size;
}

static int fake_inotify_init(void)
{
    disk.opened++;
    return QUEUE;
}

static int fake_add_watch(int fd, const char *path, uint32_t mask)
{
    REQUIRE(fd == QUEUE && path[0] == '/' && mask != 0);
    return 1;
}

static ssize_t fake_read(int fd, void *buffer, size_t size)
{
    slice event;

    REQUIRE(fd == QUEUE);
    if (disk.event_next == disk.event_count) {
        errno = EAGAIN;
        return -1;
    }
    event = disk.events[disk.event_next++];
    if (size > event.size)
        size = event.size;
    memcpy(buffer, event.at, size);
    return (ssize_t)size;
}

static void replace_calls(void)
{
    aw_sys.openat = fake_openat;
    aw_sys.close = fake_close;
    aw_sys.fstat = fake_fstat;
    aw_sys.readlinkat = fake_readlinkat;
    aw_sys.inotify_init = fake_inotify_init;
    aw_sys.inotify_add_watch = fake_add_watch;
    aw_sys.read = fake_read;
}

/* ---- the model --------------------------------------------------------- */

static struct {
    char seen[AW_VERSION_MAX];
    bool gone;
} model;

/* Whether "..data" is missing or a version's name, which is then in NAME. */
static bool live(char name[AW_VERSION_MAX])
{
    name[0] = '\0';
    if (disk.link.size == 0)
        return true;
    if (disk.link.size >= AW_VERSION_MAX)
        return false;
    memcpy(name, disk.link.at, disk.link.size);
    name[disk.link.size] = '\0';
    return aw_name_is_version(name);
}

/* Whether an event of whole length in BYTES is about the target's end. */
static bool tells_end(slice bytes)
{
    struct inotify_event event;

    for (size_t at = 0; at < bytes.size && bytes.size - at >= sizeof event;) {
        memcpy(&event, bytes.at + at, sizeof event);
        if (event.mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT | IN_IGNORED))
            return true;
        at += sizeof event + event.len;
    }
    return false;
}

static void check_wait(aw_watcher *watcher)
{
    char version[AW_VERSION_MAX] = "untouched", name[AW_VERSION_MAX];
    aw_error err;
    int rc;

    for (size_t i = 0; i < disk.event_count; i++)
        model.gone |= tells_end(disk.events[i]);
    rc = aw_watch_wait(watcher, 0, version, &err);
    model.gone |= disk.inode != 1;
    if (model.gone) {
        REQUIRE(rc < 0 && err.code == AW_E_NO_TARGET);
    } else if (!live(name)) {
        REQUIRE(rc < 0 && err.code == AW_E_FOREIGN_ENTRY);
    } else if (name[0] == '\0' || strcmp(name, model.seen) == 0) {
        REQUIRE(rc == 0);
    } else {
        REQUIRE(rc == 1 && strcmp(version, name) == 0);
        strcpy(model.seen, name);
    }
    if (rc != 1)
        REQUIRE(strcmp(version, "untouched") == 0);
    disk.event_count = disk.event_next = 0;
}

/* ---- steps ------------------------------------------------------------- */

static slice take(slice *rest)
{
    slice taken = { rest->at, 0 };

    if (rest->size == 0)
        return taken;
    taken.at = rest->at + 1;
    taken.size = (unsigned char)rest->at[0];
    if (taken.size > rest->size - 1)
        taken.size = rest->size - 1;
    rest->at += 1 + taken.size;
    rest->size -= 1 + taken.size;
    return taken;
}

/* False when the bytes are at their end. */
static bool step(aw_watcher *watcher, slice *rest)
{
    char kind;

    if (rest->size == 0)
        return false;
    kind = *rest->at++;
    rest->size--;
    if (kind == 'E') {
        slice event = take(rest);

        if (disk.event_count < EVENTS_MAX && event.size > 0)
            disk.events[disk.event_count++] = event;
    } else if (kind == 'L') {
        disk.link = take(rest);
        if (disk.link.size > 0) /* no link has a NUL byte */
            disk.link.size = strnlen(disk.link.at, disk.link.size);
    } else if (kind == 'R') {
        disk.inode = 2;
    } else if (kind == 'W') {
        check_wait(watcher);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    slice rest = { (const char *)bytes, size };
    aw_sys_table kept = aw_sys;
    aw_watcher *watcher = NULL;
    aw_error err;

    memset(&disk, 0, sizeof disk);
    memset(&model, 0, sizeof model);
    disk.inode = 1;
    replace_calls();
    REQUIRE(aw_watch_open("/target", &watcher, &err) == 0);
    for (int i = 0; i < STEPS_MAX && step(watcher, &rest); i++)
        continue;
    check_wait(watcher);
    aw_watch_close(watcher);
    REQUIRE(disk.opened == disk.closed);
    aw_sys = kept;
    return 0;
}
