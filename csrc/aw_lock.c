/* aw_lock: see the header. */
#define _GNU_SOURCE /* O_NOFOLLOW */
#include "aw_lock.h"

#include "aw_at.h"
#include "aw_error.h"
#include "aw_name.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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

/* One line of a fixed length, so that a shorter one leaves no rest. */
enum { NOTE_SIZE = 250 };

void aw_lock_read_note(int fd, aw_note *note)
{
    static const aw_note none = AW_NOTE_INIT;
    char text[NOTE_SIZE + 1] = "";
    unsigned long long inode;
    long long version_sec, target_sec;
    int durable, clean, synced, end = 0;

    *note = none;
    if (aw_sys_pread(fd, text, NOTE_SIZE, 0) != NOTE_SIZE)
        return;
    if (sscanf(text, "%63s durable=%1d clean=%1d synced=%1d names=%20lld.%9ld retained=%20lu "
               "inode=%20llu changed=%20lld.%9ld%n",
               note->version, &durable, &clean, &synced, &target_sec,
               &note->target_stamp.nsec, &note->retained, &inode, &version_sec,
               &note->version_stamp.nsec, &end) != 10
        || end == 0 || !aw_name_is_version(note->version)) {
        *note = none;
        return;
    }
    note->inode = inode;
    note->version_stamp.sec = version_sec;
    note->durable = durable == 1;
    note->clean = clean == 1;
    note->synced = synced == 1;
    note->target_stamp.sec = target_sec;
}

void aw_lock_write_note(const aw_lock *lock, const aw_note *note)
{
    char text[NOTE_SIZE];
    int length = snprintf(text, sizeof text,
                          "%s durable=%d clean=%d synced=%d names=%lld.%09ld retained=%lu "
                          "inode=%llu changed=%lld.%09ld",
                          note->version, note->durable, note->clean, note->synced,
                          (long long)note->target_stamp.sec, note->target_stamp.nsec,
                          note->retained, (unsigned long long)note->inode,
                          (long long)note->version_stamp.sec, note->version_stamp.nsec);

    if (!lock->ours)
        return;
    memset(text + length, ' ', sizeof text - (size_t)length);
    text[sizeof text - 1] = '\n';
    (void)aw_sys_pwrite(lock->fd, text, NOTE_SIZE, 0);
}

bool aw_lock_draw_line(const aw_lock *lock, aw_stamp *line)
{
    return lock->ours && aw_sys_fchmod(lock->fd, lock->mode) == 0
           && aw_stamp_draw_line(lock->fd, lock->mode, line);
}
