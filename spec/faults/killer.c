/* killer [OPTION VALUE…] -- COMMAND…: run COMMAND, and let a signal come at exactly one of
 * its file-system calls.
 *
 *   -n N       the N-th call of those that count (0: none, they are only told)
 *   -s SIGNAL  a number; SIGKILL (9) unless said otherwise
 *   -w WHEN    "before": the signal waits for the call, which SIGKILL keeps from being made;
 *              "after": it comes once the call was made
 *   -b MARK    calls count after the one that names a path which ends with MARK, or after a
 *              write to descriptor 1, which is ">1"; of several -b, each is awaited in turn
 *   -e MARK    and no more from the one that this names
 *   -q SIGNAL  what is sent when the calls end at -e and none was the N-th
 *   -o FILE    the report: "call NAME PATH…" for each that counted up to the N-th, such
 *              a write being "call write >1", and then
 *              "exit STATUS" or "signal NUMBER" of COMMAND, or "hang" when it had to be ended
 *
 * COMMAND alone is traced, by ptrace(2): what it starts runs on by itself. That is why this
 * counts all calls in one sequence, which strace's injection does not, and takes milliseconds.
 * Exits with 0 once COMMAND has ended, with 77 where nothing may be traced, and else with 2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS = 60, MARKS = 4, UNABLE = 77, STOPPED_BY_CALL = SIGTRAP | 0x80 };

/* X(name, arguments that are paths, one bit each) */
#define EVERYWHERE(X) \
    X(openat, 2) X(close, 0) X(read, 0) X(write, 0) X(pread64, 0) X(pwrite64, 0) \
    X(readv, 0) X(writev, 0) X(lseek, 0) X(ftruncate, 0) X(fallocate, 0) \
    X(fstat, 0) X(newfstatat, 2) X(statx, 2) X(faccessat, 2) X(readlinkat, 2) X(getdents64, 0) \
    X(mkdirat, 2) X(mknodat, 2) X(symlinkat, 5) X(linkat, 10) X(renameat2, 10) X(unlinkat, 2) \
    X(fchmod, 0) X(fchmodat, 2) X(fchown, 0) X(fchownat, 2) X(utimensat, 2) \
    X(fsync, 0) X(fdatasync, 0) X(syncfs, 0) X(sync_file_range, 0) \
    X(copy_file_range, 0) X(sendfile, 0) X(ioctl, 0) X(flock, 0) X(fcntl, 0) \
    X(fstatfs, 0) X(statfs, 1) X(getcwd, 0) X(chdir, 1) X(fchdir, 0) X(inotify_add_watch, 2)

#ifdef SYS_open /* the old ones, which newer machines do not have */
#define ON_OLD_MACHINES(X) \
    X(open, 1) X(creat, 1) X(stat, 1) X(lstat, 1) X(access, 1) X(readlink, 1) X(mkdir, 1) \
    X(rmdir, 1) X(symlink, 3) X(link, 3) X(rename, 3) X(renameat, 10) X(unlink, 1) \
    X(chmod, 1) X(chown, 1) X(lchown, 1) X(getdents, 0)
#else
#define ON_OLD_MACHINES(X)
#endif

typedef struct call {
    uint64_t    number;
    unsigned    paths;
    const char *name;
} call;

static const call calls[] = {
#define ROW(name, paths) { SYS_##name, paths, #name },
    EVERYWHERE(ROW)
    ON_OLD_MACHINES(ROW)
#ifdef SYS_faccessat2
    ROW(faccessat2, 2)
#endif
};

static struct {
    unsigned long wanted;
    int           signal, farewell;
    bool          after;
    const char   *begin[MARKS + 1], *end;
    FILE         *report;
} option = { .signal = SIGKILL };

static pid_t child;
static volatile sig_atomic_t hung;

static _Noreturn void give_up(const char *what, int status)
{
    fprintf(stderr, "killer: %s: %s\n", what, strerror(errno));
    exit(status);
}

/* ---- what the child asks for ------------------------------------------- */

/* Its string at ADDRESS, as far as it can be read; no further than a page's end at once. */
static void read_text(uint64_t address, char *text, size_t size)
{
    size_t have = 0;

    while (have + 1 < size) {
        size_t left = 4096 - (size_t)((address + have) % 4096);
        size_t wanted = left < size - 1 - have ? left : size - 1 - have;
        struct iovec to = { text + have, wanted };
        struct iovec from = { (void *)(uintptr_t)(address + have), wanted };
        ssize_t got = process_vm_readv(child, &to, 1, &from, 1, 0);

        if (got <= 0)
            break;
        if (memchr(text + have, '\0', (size_t)got) != NULL)
            return;
        have += (size_t)got;
    }
    text[have] = '\0';
}

static const call *find_call(uint64_t number)
{
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
        if (calls[i].number == number)
            return &calls[i];
    return NULL;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* The call that the child is about to make, in words: "NAME PATH…"; and whether it names MARK,
 * which may be NULL. */
typedef struct request {
    char text[1024];
    bool counts;        /* a file-system call                                */
} request;

static bool describe(const struct __ptrace_syscall_info *info, const char *mark, request *asked)
{
    const call *made = find_call(info->entry.nr);
    bool marked = false;

    asked->counts = made != NULL;
    if (made == NULL)
        return false;
    snprintf(asked->text, sizeof asked->text, "%s", made->name);
    for (unsigned i = 0; i < 4; i++) {
        char path[256];
        size_t length = strlen(asked->text);

        if ((made->paths & 1u << i) == 0)
            continue;
        read_text(info->entry.args[i], path, sizeof path);
        marked = marked || (mark != NULL && ends_with(path, mark));
        snprintf(asked->text + length, sizeof asked->text - length, " %s", path);
    }
    if (info->entry.nr == SYS_write && info->entry.args[0] == 1) {
        strcat(asked->text, " >1");
        marked = mark != NULL && strcmp(mark, ">1") == 0;
    }
    return marked;
}

/* ---- running it -------------------------------------------------------- */

static void too_long(int number)
{
    (void)number;
    hung = 1;
    kill(child, SIGKILL);
}

static void start(char **words)
{
    child = fork();
    if (child < 0)
        give_up("fork", 2);
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            give_up("ptrace", UNABLE);
        raise(SIGSTOP);
        execvp(words[0], words);
        give_up(words[0], 2);
    }
}

/* Let it run to its next stop, with SIGNAL for it. Returns false when it has ended. */
static bool go_on(int signal, int *status)
{
    /* ESRCH: SIGKILL has been quicker */
    (void)ptrace(PTRACE_SYSCALL, child, NULL, (void *)(intptr_t)signal);
    while (waitpid(child, status, 0) < 0)
        if (errno != EINTR)
            give_up("waitpid", 2);
    return WIFSTOPPED(*status);
}

typedef struct progress {
    const char  **begin;    /* the next mark to wait for: NULL when calls count   */
    bool          over;     /* and no more                                        */
    bool          due;      /* the signal, at the exit of the call that it is in  */
    unsigned long count;
} progress;

static void meet_mark(progress *p)
{
    if (*p->begin != NULL) {
        p->begin++;
        return;
    }
    p->over = true;
    if (option.farewell != 0)
        kill(child, option.farewell);
}

static void enter_call(progress *p, const struct __ptrace_syscall_info *info)
{
    bool counting = *p->begin == NULL;
    request asked;
    bool marked = describe(info, counting ? option.end : *p->begin, &asked);

    if (p->over || !asked.counts)
        return;
    if (marked) {
        meet_mark(p);
        return;
    }
    if (!counting)
        return;
    p->count++;
    fprintf(option.report, "call %s\n", asked.text);
    if (p->count == option.wanted) {
        p->over = true;
        p->due = option.after;
        if (!option.after)
            kill(child, option.signal);
    }
}

static void at_call(progress *p)
{
    struct __ptrace_syscall_info info;

    /* the size, in the place of an address, is how this request is made */
    if (ptrace(PTRACE_GET_SYSCALL_INFO, child, (void *)sizeof info, &info) < 0)
        return;   /* it was killed meanwhile */
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        enter_call(p, &info);
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT && p->due) {
        p->due = false;
        kill(child, option.signal);
    }
}

static int run_to_the_end(void)
{
    progress p = { .begin = option.begin };
    int status, signal = 0;

    if (waitpid(child, &status, 0) < 0 || !WIFSTOPPED(status))
        exit(UNABLE);
    if (ptrace(PTRACE_SETOPTIONS, child, NULL,
               (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC)) < 0)
        give_up("ptrace", UNABLE);
    while (go_on(signal, &status)) {
        signal = 0;
        if (WSTOPSIG(status) == STOPPED_BY_CALL)
            at_call(&p);
        else if (WSTOPSIG(status) != SIGTRAP) /* that is an exec */
            signal = WSTOPSIG(status);
    }
    return status;
}

static void parse(int argc, char **argv)
{
    int letter, marks = 0;

    while ((letter = getopt(argc, argv, "+n:s:w:b:e:q:o:")) != -1) {
        switch (letter) {
        case 'n': option.wanted = strtoul(optarg, NULL, 10); break;
        case 's': option.signal = atoi(optarg); break;
        case 'w': option.after = strcmp(optarg, "after") == 0; break;
        case 'b': if (marks < MARKS) option.begin[marks++] = optarg; break;
        case 'e': option.end = optarg; break;
        case 'q': option.farewell = atoi(optarg); break;
        case 'o': option.report = fopen(optarg, "we"); break;
        default: exit(2);
        }
    }
    if (option.report == NULL || optind >= argc) {
        fputs("killer: a report and a command are needed\n", stderr);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    int status;

    parse(argc, argv);
    start(argv + optind);
    signal(SIGALRM, too_long);
    alarm(SECONDS);
    status = run_to_the_end();
    if (hung)
        fputs("hang\n", option.report);
    else if (WIFEXITED(status))
        fprintf(option.report, "exit %d\n", WEXITSTATUS(status));
    else
        fprintf(option.report, "signal %d\n", WTERMSIG(status));
    return fclose(option.report) == 0 ? 0 : 2;
}
