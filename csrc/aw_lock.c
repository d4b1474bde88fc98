/* aw_lock: see the header. */
#define _GNU_SOURCE /* O_NOFOLLOW */
#include "aw_lock.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

enum {
    NAP_FIRST = 200 * 1000,      /* nanoseconds */
    NAP_LAST = 10 * 1000 * 1000,
    TRIES_MIN = 4
};

int64_t aw_lock_clock(void)
{
    struct timespec now = { 0, 0 };

    (void)aw_sys_clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail on Linux */
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t aw_lock_deadline(int64_t timeout)
{
    return aw_lock_clock() + (timeout > 0 ? timeout + 1 : 0); /* the clock is cut */
}

static int open_lock_file(int target, aw_error *err)
{
    const int flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

    for (;;) {
        int fd = aw_sys_openat(target, AW_NAME_LOCK, flags, 0);

        if (fd >= 0)
            return fd;
        if (errno == ELOOP || errno == EISDIR || errno == ENXIO)
            return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_LOCK, "it is no regular file");
        if (errno != ENOENT)
            return aw_fail_io(err, "openat", AW_NAME_LOCK);
        fd = aw_sys_openat(target, AW_NAME_LOCK, flags | O_CREAT | O_EXCL, 0600);
        if (fd >= 0) {
            if (aw_sys_fchmod(fd, 0600) == 0) /* the umask never matters */
                return fd;
            aw_fail_io(err, "fchmod", AW_NAME_LOCK);
            (void)aw_sys_unlinkat(target, AW_NAME_LOCK, 0); /* who has opened it looks again */
            aw_close_fd(&fd);
            return -1;
        }
        if (errno != EEXIST)
            return aw_fail_io(err, "openat", AW_NAME_LOCK);
    }
}

/* Sleep, for LEFT milliseconds at most if there are any left, and longer each time. */
static void take_nap(struct timespec *nap, int64_t left)
{
    if (left > 0 && nap->tv_nsec > left * 1000000)
        nap->tv_nsec = (long)(left * 1000000);
    (void)aw_sys_sleep(nap); /* a signal only makes it shorter */
    nap->tv_nsec = nap->tv_nsec < NAP_LAST / 2 ? nap->tv_nsec * 2 : NAP_LAST;
}

/* Whether no writer has the lock that was just refused. Given back at once, so that
 * nobody meets it while we nap. */
static bool is_only_asked_for(int fd)
{
    return aw_sys_flock(fd, LOCK_SH | LOCK_NB) == 0 && aw_sys_flock(fd, LOCK_UN) == 0;
}

static int wait_for_lock(int fd, int64_t deadline, aw_error *err)
{
    struct timespec nap = { 0, NAP_FIRST };

    for (;;) {
        int64_t left;

        if (aw_sys_flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return aw_fail_io(err, "flock", AW_NAME_LOCK);
        left = deadline - aw_lock_clock();
        if (left <= 0 && is_only_asked_for(fd))
            left += AW_LOCK_GRACE;
        if (left <= 0)
            return aw_fail(err, AW_E_LOCKED, AW_NAME_LOCK, "another writer holds the lock");
        take_nap(&nap, left);
    }
}

/* 1 when what was locked is what "..lock" names, 0 when it was replaced. It is ours if it has no
 * other name, all at one instant. G7: a hard link may have made somebody else's file "..lock",
 * and a count of one alone may be theirs, if "..lock" has gone since it was opened. */
static int is_still_there(int target, int fd, aw_lock *lock, aw_error *err)
{
    struct stat locked, named;
    bool same;

    if (aw_sys_fstat(fd, &locked) < 0)
        return aw_fail_io(err, "fstat", AW_NAME_LOCK);
    if (!S_ISREG(locked.st_mode))
        return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_LOCK, "it is no regular file");
    if (aw_sys_fstatat(target, AW_NAME_LOCK, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : aw_fail_io(err, "fstatat", AW_NAME_LOCK);
    same = locked.st_dev == named.st_dev && locked.st_ino == named.st_ino;
    lock->ours = same && named.st_nlink == 1;
    lock->mode = named.st_mode & 07777;
    return same;
}

int aw_lock_take(int target, int64_t deadline, aw_lock *lock, aw_error *err)
{
    enum { ATTEMPTS_MAX = 1000 };

    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        int opened = open_lock_file(target, err), there;

        if (opened < 0)
            return -1;
        there = wait_for_lock(opened, deadline, err);
        if (there == 0)
            there = is_still_there(target, opened, lock, err);
        if (there == 1) {
            lock->fd = aw_take_fd(&opened);
            return 0;
        }
        aw_close_fd(&opened);
        if (there < 0)
            return -1;
    }
    return aw_fail(err, AW_E_FOREIGN_ENTRY, AW_NAME_LOCK,
                   "it is replaced again and again, and writers never do that");
}

int aw_lock_try(int fd, int operation, int64_t deadline)
{
    struct timespec nap = { 0, NAP_FIRST };

    for (int tries = 1;; tries++) {
        int64_t left;

        if (aw_sys_flock(fd, operation | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK)
            return -1;
        left = deadline - aw_lock_clock();
        if (left <= 0 && tries >= TRIES_MIN) {
            errno = EWOULDBLOCK;
            return -1;
        }
        take_nap(&nap, left);
    }
}

/* ---- the note ---------------------------------------------------------- */

/* One line of a fixed length, so that a shorter one leaves no rest: the version's name, then
 * fields. By hand: printf and scanf take as long as a file of the payload. */
enum { NOTE_SIZE = 250 };

static const char *const labels[] = {
    " durable=", " clean=", " synced=", " names=", ".", " retained=", " inode=", " changed=", "."
};

enum { FIELDS = sizeof labels / sizeof *labels, LABELS_SIZE = 59, DIGITS_MAX = 3 * 1 + 6 * 20 };

_Static_assert(AW_VERSION_MAX - 1 + LABELS_SIZE + DIGITS_MAX < NOTE_SIZE, "any note has room");

static const char *take_field(const char *at, const char *label, uint64_t *number)
{
    size_t length = strlen(label);
    char *end;

    if (strncmp(at, label, length) != 0 || at[length] < '0' || at[length] > '9')
        return NULL;
    *number = strtoull(at + length, &end, 10);
    return end;
}

void aw_lock_read_note(int fd, aw_note *note)
{
    static const aw_note none = AW_NOTE_INIT;
    char text[NOTE_SIZE + 1] = "";
    uint64_t fields[FIELDS];
    const char *at;
    size_t length;

    *note = none;
    if (aw_sys_pread(fd, text, NOTE_SIZE, 0) != NOTE_SIZE)
        return;
    length = strcspn(text, " ");
    at = text + length;
    for (size_t i = 0; at && i < FIELDS; i++)
        at = take_field(at, labels[i], &fields[i]);
    if (!at || length >= sizeof note->version)
        return;
    memcpy(note->version, text, length);
    note->version[length] = '\0';
    if (!aw_name_is_version(note->version)) {
        *note = none;
        return;
    }
    note->durable = fields[0] == 1;
    note->clean = fields[1] == 1;
    note->synced = fields[2] == 1;
    note->target_stamp = (aw_stamp) { (int64_t)fields[3], (long)fields[4] };
    note->retained = fields[5];
    note->inode = fields[6];
    note->version_stamp = (aw_stamp) { (int64_t)fields[7], (long)fields[8] };
}

/* LABEL and NUMBER, to AT. Returns the end. */
static char *put_field(char *at, const char *label, uint64_t number)
{
    char digits[20], *first = digits + sizeof digits;
    size_t length = strlen(label);

    do
        *--first = (char)('0' + number % 10);
    while ((number /= 10) > 0);
    memcpy(at, label, length);
    memcpy(at + length, first, (size_t)(digits + sizeof digits - first));
    return at + length + (digits + sizeof digits - first);
}

void aw_lock_write_note(const aw_lock *lock, const aw_note *note)
{
    const uint64_t fields[FIELDS] = {
        note->durable, note->clean, note->synced, (uint64_t)note->target_stamp.sec,
        (uint64_t)note->target_stamp.nsec, note->retained, note->inode,
        (uint64_t)note->version_stamp.sec, (uint64_t)note->version_stamp.nsec
    };
    size_t length = strlen(note->version);
    char text[NOTE_SIZE], *at = text + length;

    if (!lock->ours)
        return;
    memset(text, ' ', sizeof text - 1);
    text[sizeof text - 1] = '\n';
    memcpy(text, note->version, length);
    for (size_t i = 0; i < FIELDS; i++)
        at = put_field(at, labels[i], fields[i]);
    (void)aw_sys_pwrite(lock->fd, text, NOTE_SIZE, 0);
}

bool aw_lock_draw_line(const aw_lock *lock, aw_stamp *line)
{
    return lock->ours && aw_sys_fchmod(lock->fd, lock->mode) == 0
           && aw_stamp_draw_line(lock->fd, lock->mode, line);
}
