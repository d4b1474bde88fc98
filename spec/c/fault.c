/* fault.c: see fault.h. */
#define _GNU_SOURCE
#include "fault.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_MAX = 100000 };

static fault_plan    plan;
static unsigned      calls, hits;
static unsigned char calls_log[LOG_MAX + 1];
static fault_call    sticky = CALL_COUNT;
static aw_sys_table  kernel;
static bool          armed;

static bool is_opening(fault_call call)
{
    return call == CALL_openat || call == CALL_openat_writing || call == CALL_openat_making;
}

static bool same_name(fault_call a, fault_call b)
{
    return a == b || (is_opening(a) && is_opening(b));
}

static bool can_fail_with(fault_call call, int code)
{
    const int *codes = fault_codes(call);

    while (*codes != 0 && *codes != code)
        codes++;
    return *codes != 0;
}

/* Removing makes room. On btrfs it may need some first, which fails once. */
static bool is_scarce_for(fault_call call)
{
    return can_fail_with(call, plan.code)
           && !(call == CALL_unlinkat && (plan.code == ENOSPC || plan.code == EDQUOT));
}

/* Count one call. Whether the plan means it. */
static bool is_meant(fault_call call)
{
    calls++;
    if (calls <= LOG_MAX)
        calls_log[calls] = (unsigned char)call;
    if (calls == plan.at && plan.kind == FAULT_STICKY)
        sticky = call;
    switch (plan.kind) {
    case FAULT_STICKY: return same_name(call, sticky);
    case FAULT_SCARCE: return calls >= plan.at && (calls == plan.at || is_scarce_for(call));
    case FAULT_DEAD: return calls >= plan.at && fault_codes(call)[0] != 0;
    case FAULT_EVERY: return same_name(call, plan.call);
    case FAULT_ALWAYS_SHORT: return true;
    default: return calls == plan.at;
    }
}

/* Whether the call must fail instead of being made; errno is set then. */
static bool fails(bool meant)
{
    if (!meant)
        return false;
    if (plan.kind == FAULT_EXIT_BEFORE)
        _exit(FAULT_EXIT_STATUS);
    if (!fault_is_failure(&plan))
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

static int opening(int dir, const char *name, int flags, mode_t mode)
{
    bool meant = is_meant(flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? CALL_openat_making
                          : (flags & O_ACCMODE) != O_RDONLY ? CALL_openat_writing : CALL_openat);
    int result;

    if (fails(meant))
        return -1;
    result = kernel.openat(dir, name, flags, mode);
    after(meant);
    return result;
}

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
    aw_sys.openat = opening;
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
        "openat (writing)", "openat (making)"
    };
    return call < CALL_COUNT ? names[call] : "(none)";
}

/* From the manual pages, and from what file systems add to them: ESTALE is NFS's;
 * btrfs refuses to remove for want of room; EMLINK is a directory's number of
 * sub directories, or a file's of links; EXDEV comes from overlays and project
 * quotas within one mount. What a file system cannot do at all, such as flock,
 * does not come and go: that is for specs of its own. */
const int *fault_codes(fault_call call)
{
    static const int open_codes[] =
        { EACCES, EMFILE, EIO, ENFILE, ENOMEM, ELOOP, ESTALE, 0 };
    static const int writing_codes[] =
        { EACCES, EMFILE, EIO, ENFILE, ENOMEM, EROFS, ELOOP, ESTALE, 0 };
    static const int making_codes[] =
        { ENOSPC, EACCES, EMFILE, EIO, ENFILE, ENOMEM, EROFS, EDQUOT, ESTALE, 0 };
    static const int make_codes[] =
        { ENOSPC, EDQUOT, EACCES, EIO, EROFS, ENOMEM, EMLINK, ESTALE, 0 };
    static const int rename_codes[] =
        { ENOSPC, EDQUOT, EACCES, EIO, EROFS, ENOMEM, EMLINK, EXDEV, EBUSY, ESTALE, 0 };
    static const int link_codes[] =
        { ENOSPC, EIO, EXDEV, EPERM, EMLINK, ENOTSUP, EACCES, EDQUOT, EROFS, ENOMEM, ESTALE, 0 };
    static const int remove_codes[] =
        { EIO, EACCES, EROFS, EBUSY, ENOMEM, EPERM, ENOSPC, EDQUOT, ESTALE, 0 };
    static const int look_codes[] = { EIO, ENOMEM, EACCES, ESTALE, 0 };
    static const int stat_codes[] = { EIO, ENOMEM, ESTALE, 0 };
    static const int write_codes[] = { ENOSPC, EDQUOT, EIO, EROFS, ENOMEM, ESTALE, EFBIG, 0 };
    static const int copy_codes[] =
        { ENOSPC, EIO, EXDEV, ENOSYS, EOPNOTSUPP, EINVAL, EPERM, EDQUOT, ENOMEM, ESTALE, 0 };
    static const int clone_codes[] =
        { EOPNOTSUPP, EXDEV, ENOSPC, EIO, EINVAL, ENOTTY, EPERM, EDQUOT, ENOMEM, 0 };
    static const int change_codes[] =
        { EPERM, EIO, EROFS, EDQUOT, ENOSPC, EACCES, ENOMEM, ESTALE, 0 };
    static const int sync_codes[] = { EIO, ENOSPC, EDQUOT, ESTALE, 0 };
    static const int lock_codes[] = { ENOLCK, EIO, ENOMEM, ESTALE, 0 };
    static const int notify_codes[] = { EMFILE, ENFILE, ENOMEM, 0 };
    static const int watch_codes[] = { ENOSPC, ENOMEM, EACCES, ELOOP, EIO, ESTALE, 0 };
    static const int close_codes[] = { EIO, ENOSPC, EDQUOT, ESTALE, 0 };
    static const int poll_codes[] = { ENOMEM, 0 };
    static const int cwd_codes[] = { ENOENT, ENOMEM, EACCES, 0 };
    static const int path_codes[] = { ENOENT, EACCES, ENAMETOOLONG, ENOMEM, 0 };
    static const int release_codes[] = { EFAULT, 0 };
    static const int type_codes[] = { EIO, ENOSYS, ENOMEM, ESTALE, 0 };
    static const int memory_codes[] = { ENOENT, EACCES, 0 };
    static const int start_codes[] = { EAGAIN, ENOMEM, 0 };
    static const int never_fails[] = { 0 };

    switch (call) {
    case CALL_openat: return open_codes;
    case CALL_openat_writing: return writing_codes;
    case CALL_openat_making: return making_codes;
    case CALL_mkdirat: case CALL_symlinkat: return make_codes;
    case CALL_renameat: return rename_codes;
    case CALL_linkat: return link_codes;
    case CALL_unlinkat: return remove_codes;
    case CALL_readlinkat: case CALL_fstatat: return look_codes;
    case CALL_fstat: case CALL_lseek: case CALL_getdents: case CALL_read: case CALL_pread: return stat_codes;
    case CALL_write: case CALL_pwrite: return write_codes;
    case CALL_copy_file_range: return copy_codes;
    case CALL_clone_file: return clone_codes;
    case CALL_fchmod: case CALL_fchown: case CALL_chmod_opath: return change_codes;
    case CALL_fsync: case CALL_syncfs: case CALL_start_writeback: return sync_codes;
    case CALL_flock: return lock_codes;
    case CALL_inotify_init: return notify_codes;
    case CALL_inotify_add_watch: return watch_codes;
    case CALL_close: return close_codes;
    case CALL_poll: return poll_codes;
    case CALL_getcwd: return cwd_codes;
    case CALL_fd_path: return path_codes;
    case CALL_kernel_release: return release_codes;
    case CALL_file_system_type: return type_codes;
    case CALL_dirty_memory: return memory_codes;
    case CALL_thread_start: return start_codes;
    case CALL_clock_gettime: case CALL_sleep: case CALL_geteuid: case CALL_getegid:
    case CALL_getpid: case CALL_is_one_thread: case CALL_thread_join:
        return never_fails;
    default:
        test_fail(__FILE__, __LINE__, "no errnos are listed for %s", fault_call_name(call));
    }
}

/* ---- plans ------------------------------------------------------------- */

static bool can_be_short(fault_call call)
{
    return call == CALL_read || call == CALL_write || call == CALL_pread || call == CALL_pwrite
           || call == CALL_copy_file_range || call == CALL_getdents;
}

/* What aw_sys starts again; and close, which Linux ends by EINTR once it is done. */
static bool is_restarted(fault_call call)
{
    switch (call) {
#define RESTARTED(type, name, parameters, arguments) case CALL_##name:
    AW_SYS_CALLS(RESTARTED)
#undef RESTARTED
    case CALL_openat_writing: case CALL_openat_making: case CALL_close:
        return true;
    default:
        return false;
    }
}

bool fault_is_failure(const fault_plan *one)
{
    switch (one->kind) {
    case FAULT_FAIL: case FAULT_STICKY: case FAULT_SCARCE: case FAULT_DEAD: case FAULT_EVERY:
        return true;
    default:
        return false;
    }
}

size_t fault_plans(unsigned at, fault_call call, fault_plan plans[FAULT_PLANS_MAX])
{
    static const int lasting[] = { ENOSPC, EMFILE, EACCES, EROFS, ESTALE };
    const int *codes = fault_codes(call);
    size_t count = 0;

#define PLAN(how, why) \
    (plans[count++] = (fault_plan){ .at = at, .kind = FAULT_##how, .code = why })
    for (size_t i = 0; codes[i] != 0; i++)
        PLAN(FAIL, codes[i]);
    for (size_t i = 0; i < 2 && codes[i] != 0; i++)
        PLAN(STICKY, codes[i]);
    for (size_t i = 0; i < sizeof lasting / sizeof lasting[0]; i++)
        if (can_fail_with(call, lasting[i]))
            PLAN(SCARCE, lasting[i]);
    if (codes[0] != 0)
        PLAN(DEAD, EIO);
    if (is_restarted(call))
        PLAN(FAIL, EINTR);
    if (can_be_short(call))
        PLAN(SHORT, 0);
#undef PLAN
    return count;
}

const char *fault_describe(const fault_plan *one, fault_call call)
{
    static const char *const kinds[] = {
        [FAULT_NONE] = "succeeds", [FAULT_FAIL] = "fails once", [FAULT_STICKY] = "fails for ever",
        [FAULT_SCARCE] = "fails like all that can", [FAULT_DEAD] = "fails like all that follow",
        [FAULT_EVERY] = "fails", [FAULT_SHORT] = "falls short",
        [FAULT_ALWAYS_SHORT] = "falls short, as all do", [FAULT_EXIT_BEFORE] = "is not reached",
        [FAULT_EXIT_AFTER] = "is the last"
    };
    static char text[128];

    snprintf(text, sizeof text, "%s %s%s%s", fault_call_name(call), kinds[one->kind],
             one->code ? ": " : "", one->code ? strerrorname_np(one->code) : "");
    return text;
}
