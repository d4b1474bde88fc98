/* fault.c: see fault.h. */
#define _GNU_SOURCE
#include "fault.h"

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

enum { LOG_MAX = 100000 };

static fault_plan    plan;
static unsigned      calls, hits;
static unsigned char calls_log[LOG_MAX + 1];
static fault_call    sticky = CALL_COUNT;
static aw_sys_table  kernel;
static bool          armed;

/* Count one call. Whether the plan means it. */
static bool is_meant(fault_call call)
{
    calls++;
    if (calls <= LOG_MAX)
        calls_log[calls] = (unsigned char)call;
    if (calls == plan.at && plan.kind == FAULT_STICKY)
        sticky = call;
    return calls == plan.at || (plan.kind == FAULT_STICKY && call == sticky)
           || (plan.kind == FAULT_EVERY && call == plan.call) || plan.kind == FAULT_ALWAYS_SHORT;
}

/* Whether the call must fail instead of being made; errno is set then. */
static bool fails(bool meant)
{
    if (!meant)
        return false;
    if (plan.kind == FAULT_EXIT_BEFORE)
        _exit(FAULT_EXIT_STATUS);
    if (plan.kind != FAULT_FAIL && plan.kind != FAULT_STICKY && plan.kind != FAULT_EVERY)
        return false;
    hits++;
    errno = plan.code;
    return true;
}

static void after(bool meant)
{
    if (meant && plan.kind == FAULT_EXIT_AFTER)
        _exit(FAULT_EXIT_STATUS);
}

/* ---- every call -------------------------------------------------------- */

/* How a call of TYPE says that it failed. */
#define FAILURE(type) ((type)_Generic((type)0, char *: (intptr_t)0, default: (intptr_t)-1))

#define COUNTED(type, name, parameters, arguments) \
    static type counted_##name parameters \
    { \
        bool meant = is_meant(CALL_##name); \
        type result; \
        if (fails(meant)) \
            return FAILURE(type); \
        result = kernel.name arguments; \
        after(meant); \
        return result; \
    }
AW_SYS_CALLS(COUNTED)
AW_SYS_PLAIN_CALLS(COUNTED)

/* ---- and what is special about some ------------------------------------ */

static size_t shortened(bool meant, size_t size)
{
    if (!meant || (plan.kind != FAULT_SHORT && plan.kind != FAULT_ALWAYS_SHORT) || size < 2)
        return size;
    hits++;
    return plan.kind == FAULT_SHORT ? size / 2 : (size > 1000 ? 1000 : 1 + size / 3);
}

static ssize_t short_read(int fd, void *buffer, size_t size)
{
    bool meant = is_meant(CALL_read);
    ssize_t result;

    if (fails(meant))
        return -1;
    result = kernel.read(fd, buffer, shortened(meant, size));
    after(meant);
    return result;
}

static ssize_t short_write(int fd, const void *data, size_t size)
{
    bool meant = is_meant(CALL_write);
    ssize_t result;

    if (fails(meant))
        return -1;
    result = kernel.write(fd, data, shortened(meant, size));
    after(meant);
    return result;
}

static ssize_t short_copy(int from, int to, size_t size)
{
    bool meant = is_meant(CALL_copy_file_range);
    ssize_t result;

    if (fails(meant))
        return -1;
    /* The size asked for is far above any file's. */
    result = kernel.copy_file_range(from, to, shortened(meant, size < 5000 ? size : 5000));
    after(meant);
    return result;
}

static ssize_t short_pread(int fd, void *buffer, size_t size, off_t at)
{
    bool meant = is_meant(CALL_pread);
    ssize_t result;

    if (fails(meant))
        return -1;
    result = kernel.pread(fd, buffer, shortened(meant, size), at);
    after(meant);
    return result;
}

static ssize_t short_pwrite(int fd, const void *data, size_t size, off_t at)
{
    bool meant = is_meant(CALL_pwrite);
    ssize_t result;

    if (fails(meant))
        return -1;
    result = kernel.pwrite(fd, data, shortened(meant, size), at);
    after(meant);
    return result;
}

/* Fewer entries at a time. One fits into 280 bytes, however long its name. */
static ssize_t short_getdents(int fd, void *buffer, size_t size)
{
    bool meant = is_meant(CALL_getdents);
    ssize_t result;

    if (fails(meant))
        return -1;
    result = kernel.getdents(fd, buffer, shortened(meant, size) < size ? 280 : size);
    after(meant);
    return result;
}

/* A close that fails has closed all the same. */
static int closing(int fd)
{
    bool meant = is_meant(CALL_close);
    int result;

    if (meant && plan.kind == FAULT_EXIT_BEFORE)
        _exit(FAULT_EXIT_STATUS);
    result = kernel.close(fd);
    after(meant);
    return fails(meant) ? -1 : result;
}

static int no_fsync(int fd)
{
    bool meant = is_meant(CALL_fsync);
    (void)fd;
    if (fails(meant))
        return -1;
    after(meant);
    return 0;
}

static int no_syncfs(int fd)
{
    bool meant = is_meant(CALL_syncfs);
    (void)fd;
    if (fails(meant))
        return -1;
    after(meant);
    return 0;
}

static int no_writeback(int fd)
{
    bool meant = is_meant(CALL_start_writeback);
    (void)fd;
    if (fails(meant))
        return -1;
    after(meant);
    return 0;
}

/* ---- arming ------------------------------------------------------------ */

void fault_arm(fault_plan wanted)
{
    if (!armed)
        kernel = aw_sys;
    armed = true;
    plan = wanted;
    calls = hits = 0;
    sticky = CALL_COUNT;
#define REPLACE(type, name, parameters, arguments) aw_sys.name = counted_##name;
    AW_SYS_CALLS(REPLACE)
    AW_SYS_PLAIN_CALLS(REPLACE)
#undef REPLACE
    aw_sys.read = short_read;
    aw_sys.write = short_write;
    aw_sys.pread = short_pread;
    aw_sys.pwrite = short_pwrite;
    aw_sys.copy_file_range = short_copy;
    aw_sys.getdents = short_getdents;
    aw_sys.close = closing;
    aw_sys.fsync = no_fsync;
    aw_sys.syncfs = no_syncfs;
    aw_sys.start_writeback = no_writeback;
}

void fault_disarm(void)
{
    if (armed)
        aw_sys = kernel;
    armed = false;
}

unsigned fault_calls(void)
{
    return calls;
}

unsigned fault_hits(void)
{
    return hits;
}

/* ---- about calls ------------------------------------------------------- */

fault_call fault_call_at(unsigned at)
{
    return at <= LOG_MAX ? (fault_call)calls_log[at] : CALL_COUNT;
}

const char *fault_call_name(fault_call call)
{
    static const char *const names[] = {
#define NAME(type, name, parameters, arguments) #name,
        AW_SYS_CALLS(NAME)
        AW_SYS_PLAIN_CALLS(NAME)
#undef NAME
    };
    return call < CALL_COUNT ? names[call] : "(none)";
}

const int *fault_codes(fault_call call)
{
    static const int open_codes[] = { ENOSPC, EACCES, EMFILE, EIO, ENOMEM, EROFS, EDQUOT, 0 };
    static const int make_codes[] = { ENOSPC, EDQUOT, EACCES, EIO, EROFS, ENOMEM, 0 };
    static const int link_codes[] = { ENOSPC, EIO, EXDEV, EPERM, EMLINK, ENOTSUP, EACCES, 0 };
    static const int remove_codes[] = { EIO, EACCES, EROFS, EBUSY, ENOMEM, 0 };
    static const int look_codes[] = { EIO, ENOMEM, EACCES, 0 };
    static const int list_codes[] = { EIO, ENOMEM, 0 };
    static const int stat_codes[] = { EIO, ENOMEM, 0 };
    static const int read_codes[] = { EIO, 0 };
    static const int write_codes[] = { ENOSPC, EDQUOT, EIO, 0 };
    static const int copy_codes[] = { ENOSPC, EIO, EXDEV, ENOSYS, EOPNOTSUPP, EINVAL, 0 };
    static const int clone_codes[] = { EOPNOTSUPP, EXDEV, ENOSPC, EIO, 0 };
    static const int change_codes[] = { EPERM, EIO, EROFS, EDQUOT, 0 };
    static const int sync_codes[] = { EIO, ENOSPC, EDQUOT, 0 };
    static const int lock_codes[] = { ENOLCK, EIO, 0 };
    static const int watch_codes[] = { EMFILE, ENOSPC, ENOMEM, 0 };
    static const int close_codes[] = { EIO, ENOSPC, 0 };
    static const int poll_codes[] = { ENOMEM, 0 };
    static const int cwd_codes[] = { ENOENT, ENOMEM, 0 };
    static const int path_codes[] = { ENOENT, EACCES, ENAMETOOLONG, ENOMEM, 0 };
    static const int release_codes[] = { EFAULT, 0 };
    static const int never_fails[] = { 0 };

    switch (call) {
    case CALL_openat: return open_codes;
    case CALL_mkdirat: case CALL_symlinkat: case CALL_renameat: return make_codes;
    case CALL_linkat: return link_codes;
    case CALL_unlinkat: return remove_codes;
    case CALL_readlinkat: case CALL_fstatat: return look_codes;
    case CALL_fstat: return stat_codes;
    case CALL_getdents: return list_codes;
    case CALL_read: case CALL_pread: return read_codes;
    case CALL_write: case CALL_pwrite: return write_codes;
    case CALL_copy_file_range: return copy_codes;
    case CALL_clone_file: return clone_codes;
    case CALL_fchmod: case CALL_fchown: return change_codes;
    case CALL_fsync: case CALL_syncfs: case CALL_start_writeback: return sync_codes;
    case CALL_flock: return lock_codes;
    case CALL_inotify_init: case CALL_inotify_add_watch: return watch_codes;
    case CALL_close: return close_codes;
    case CALL_poll: return poll_codes;
    case CALL_getcwd: return cwd_codes;
    case CALL_fd_path: return path_codes;
    case CALL_kernel_release: return release_codes;
    case CALL_clock_gettime: case CALL_sleep: case CALL_geteuid: case CALL_getegid:
        return never_fails;
    default: return read_codes; /* statfs, and what is new in the table */
    }
}

bool fault_can_be_short(fault_call call)
{
    return call == CALL_read || call == CALL_write || call == CALL_pread || call == CALL_pwrite
           || call == CALL_copy_file_range || call == CALL_getdents;
}

bool fault_is_restarted(fault_call call)
{
    switch (call) {
#define RESTARTED(type, name, parameters, arguments) case CALL_##name:
    AW_SYS_CALLS(RESTARTED)
#undef RESTARTED
        return true;
    default:
        return false;
    }
}
