/* aw_sys: the only door to the kernel, and the seam for fault injection.
 *
 * Each call below is one entry of a table. The rest of the core calls
 * aw_sys_NAME(), which goes through the table and starts again after EINTR
 * (not for close: Linux has closed the descriptor by then; not for poll: the
 * caller wants to know). In the library the table is constant. A build with
 * -DAW_TEST has it writable: a spec replaces entries before it starts threads.
 *
 * Results are the kernel's: -1 with errno, or what the call returns.
 */
#ifndef AW_SYS_H
#define AW_SYS_H

#include "atomicwriter.h"

#include <poll.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

/* X(result type, name, parameters, arguments) */
#define AW_SYS_CALLS(X) \
    X(int, openat, (int dir, const char *name, int flags, mode_t mode), (dir, name, flags, mode)) \
    X(int, mkdirat, (int dir, const char *name, mode_t mode), (dir, name, mode)) \
    X(int, symlinkat, (const char *text, int dir, const char *name), (text, dir, name)) \
    X(int, linkat, (int from_dir, const char *from, int to_dir, const char *to), \
      (from_dir, from, to_dir, to)) \
    X(int, renameat, (int from_dir, const char *from, int to_dir, const char *to), \
      (from_dir, from, to_dir, to)) \
    X(int, unlinkat, (int dir, const char *name, int flags), (dir, name, flags)) \
    X(ssize_t, readlinkat, (int dir, const char *name, char *text, size_t size), \
      (dir, name, text, size)) \
    X(int, fstat, (int fd, struct stat *st), (fd, st)) \
    X(int, fstatat, (int dir, const char *name, struct stat *st, int flags), \
      (dir, name, st, flags)) \
    X(off_t, lseek, (int fd, off_t to, int whence), (fd, to, whence)) \
    X(ssize_t, getdents, (int fd, void *buffer, size_t size), (fd, buffer, size)) \
    X(ssize_t, read, (int fd, void *buffer, size_t size), (fd, buffer, size)) \
    X(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size)) \
    X(ssize_t, pread, (int fd, void *buffer, size_t size, off_t at), (fd, buffer, size, at)) \
    X(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at)) \
    X(ssize_t, copy_file_range, (int from, int to, size_t size), (from, to, size)) \
    X(int, clone_file, (int from, int to), (from, to)) \
    X(int, fchmod, (int fd, mode_t mode), (fd, mode)) \
    X(int, chmod_opath, (int fd, mode_t mode), (fd, mode)) \
    X(int, fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid)) \
    X(int, fsync, (int fd), (fd)) \
    X(int, syncfs, (int fd), (fd)) \
    X(int, start_writeback, (int fd), (fd)) \
    X(int, flock, (int fd, int operation), (fd, operation)) \
    X(int, inotify_init, (void), ()) \
    X(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask))

/* Called as they are: no EINTR, or it means something to the caller. is_one_thread: whether
 * the process is sure to have no other thread. */
#define AW_SYS_PLAIN_CALLS(X) \
    X(int, close, (int fd), (fd)) \
    X(int, poll, (struct pollfd *fds, unsigned count, int timeout), (fds, count, timeout)) \
    X(int, clock_gettime, (clockid_t clock, struct timespec *now), (clock, now)) \
    X(int, sleep, (const struct timespec *time), (time)) \
    X(char *, getcwd, (char *buffer, size_t size), (buffer, size)) \
    X(uid_t, geteuid, (void), ()) \
    X(gid_t, getegid, (void), ()) \
    X(int, fd_path, (int fd, char *path, size_t size), (fd, path, size)) \
    X(int, kernel_release, (char *buffer, size_t size), (buffer, size)) \
    X(long, file_system_type, (int fd), (fd)) \
    X(int64_t, dirty_memory, (void), ()) \
    X(int, getpid, (void), ()) \
    X(bool, is_one_thread, (void), ()) \
    X(int, thread_start, (pthread_t *thread, void *(*run)(void *), void *argument), \
      (thread, run, argument)) \
    X(int, thread_join, (pthread_t thread), (thread))

#define AW_SYS_FIELD(type, name, parameters, arguments) type (*name) parameters;
typedef struct aw_sys_table {
    AW_SYS_CALLS(AW_SYS_FIELD)
    AW_SYS_PLAIN_CALLS(AW_SYS_FIELD)
} aw_sys_table;
#undef AW_SYS_FIELD

#ifdef AW_TEST
extern aw_sys_table aw_sys;
#else
extern const aw_sys_table aw_sys;
#endif

#define AW_SYS_PROTOTYPE(type, name, parameters, arguments) type aw_sys_##name parameters;
AW_SYS_CALLS(AW_SYS_PROTOTYPE)
AW_SYS_PLAIN_CALLS(AW_SYS_PROTOTYPE)
#undef AW_SYS_PROTOTYPE

/* Whether the kernel's release is MAJOR.MINOR or later. */
bool aw_sys_kernel_at_least(unsigned long major, unsigned long minor);

#endif
