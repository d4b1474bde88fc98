/* aw_sys: see the header. The one file that calls the kernel. */
#define _GNU_SOURCE
#include "aw_sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#endif
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

/* ---- the kernel's calls, in the shape of the table --------------------- */

static int sys_openat(int dir, const char *name, int flags, mode_t mode)
{
    return openat(dir, name, flags | O_CLOEXEC, mode);
}

static int sys_linkat(int from_dir, const char *from, int to_dir, const char *to)
{
    return linkat(from_dir, from, to_dir, to, 0);
}

/* glibc asks newfstatat(fd, ""), which the kernel takes half as long again for.
 * Where struct stat is the kernel's own, the call of that name will do. */
static int sys_fstat(int fd, struct stat *st)
{
#if defined(__x86_64__) && !defined(__ILP32__) && defined(SYS_fstat)
    return (int)syscall(SYS_fstat, fd, st);
#else
    return fstat(fd, st);
#endif
}

static ssize_t sys_getdents(int fd, void *buffer, size_t size)
{
    return syscall(SYS_getdents64, fd, buffer, size);
}

static ssize_t sys_copy_file_range(int from, int to, size_t size)
{
    return copy_file_range(from, NULL, to, NULL, size, 0);
}

static int sys_clone_file(int from, int to)
{
    return ioctl(to, FICLONE, from);
}

static int sys_start_writeback(int fd)
{
    return sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
}

static int sys_inotify_init(void)
{
    return inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
}

static int sys_poll(struct pollfd *fds, unsigned count, int timeout)
{
    return poll(fds, count, timeout);
}

static int sys_sleep(const struct timespec *time)
{
    return clock_nanosleep(CLOCK_MONOTONIC, 0, time, NULL);
}

/* A directory that the umask has shut cannot be opened for fchmod(2), and a
 * chmod by name would follow whatever link somebody puts in its place. */
static int sys_chmod_opath(int fd, mode_t mode)
{
    char path[32];

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return chmod(path, mode);
}

/* Where FD is, from the root on; -1 without /proc. */
static int sys_fd_path(int fd, char *path, size_t size)
{
    char link[32];
    ssize_t length;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, size);
    if (length < 0)
        return -1;
    if ((size_t)length >= size) {
        errno = ENAMETOOLONG;
        return -1;
    }
    path[length] = '\0';
    return 0;
}

static int sys_kernel_release(char *buffer, size_t size)
{
    struct utsname name;

    if (uname(&name) < 0)
        return -1;
    snprintf(buffer, size, "%s", name.release);
    return 0;
}

/* The magic number of statfs(2), or -1. */
static long sys_file_system_type(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) < 0 ? -1 : (long)fs.f_type;
}

/* The number behind NAME, in KiB. */
static int64_t meminfo_field(const char *text, const char *name)
{
    const char *found = strstr(text, name);

    return found ? strtoll(found + strlen(name), NULL, 10) : 0;
}

/* Bytes of the whole system that are still to be written to disks; -1 without /proc. */
static int64_t sys_dirty_memory(void)
{
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    char text[4096];
    ssize_t got = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

    if (fd >= 0)
        close(fd);
    if (got <= 0)
        return -1;
    text[got] = '\0';
    return 1024 * (meminfo_field(text, "\nDirty:") + meminfo_field(text, "\nWriteback:"));
}

static bool sys_is_one_thread(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
    return __libc_single_threaded;
#else
    return false;
#endif
}

/* A thread that no signal of the program's reaches. -1 with errno. */
static int sys_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    int code;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(thread, NULL, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = code;
    return code == 0 ? 0 : -1;
}

static int sys_thread_join(pthread_t thread)
{
    return pthread_join(thread, NULL) == 0 ? 0 : -1;
}

#ifndef AW_TEST
const
#endif
aw_sys_table aw_sys = {
    .openat = sys_openat,
    .mkdirat = mkdirat,
    .symlinkat = symlinkat,
    .linkat = sys_linkat,
    .renameat = renameat,
    .unlinkat = unlinkat,
    .readlinkat = readlinkat,
    .fstat = sys_fstat,
    .fstatat = fstatat,
    .lseek = lseek,
    .getdents = sys_getdents,
    .read = read,
    .write = write,
    .pread = pread,
    .pwrite = pwrite,
    .copy_file_range = sys_copy_file_range,
    .clone_file = sys_clone_file,
    .fchmod = fchmod,
    .chmod_opath = sys_chmod_opath,
    .fchown = fchown,
    .fsync = fsync,
    .syncfs = syncfs,
    .start_writeback = sys_start_writeback,
    .flock = flock,
    .inotify_init = sys_inotify_init,
    .inotify_add_watch = inotify_add_watch,
    .close = close,
    .poll = sys_poll,
    .clock_gettime = clock_gettime,
    .sleep = sys_sleep,
    .getcwd = getcwd,
    .geteuid = geteuid,
    .getegid = getegid,
    .fd_path = sys_fd_path,
    .kernel_release = sys_kernel_release,
    .file_system_type = sys_file_system_type,
    .dirty_memory = sys_dirty_memory,
    .getpid = getpid,
    .is_one_thread = sys_is_one_thread,
    .thread_start = sys_thread_start,
    .thread_join = sys_thread_join,
};

bool aw_sys_kernel_at_least(unsigned long major, unsigned long minor)
{
    char release[128], *dot;
    unsigned long is_major, is_minor;

    if (aw_sys_kernel_release(release, sizeof release) < 0)
        return false;
    is_major = strtoul(release, &dot, 10);
    is_minor = *dot == '.' ? strtoul(dot + 1, NULL, 10) : 0;
    return is_major > major || (is_major == major && is_minor >= minor);
}

/* ---- the calls that the core makes ------------------------------------- */

#define RESTARTED(type, name, parameters, arguments) \
    type aw_sys_##name parameters \
    { \
        type result; \
        do \
            result = aw_sys.name arguments; \
        while (result < 0 && errno == EINTR); \
        return result; \
    }
AW_SYS_CALLS(RESTARTED)

#define PLAIN(type, name, parameters, arguments) \
    type aw_sys_##name parameters { return aw_sys.name arguments; }
AW_SYS_PLAIN_CALLS(PLAIN)
