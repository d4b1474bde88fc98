/* source_test.c: entries that are copied from a file. */
#define _GNU_SOURCE
#include "disk.h"
#include "fault.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *numbered_lines(size_t size)
{
    char *text = malloc(size + 1);

    if (!text)
        abort();
    for (size_t i = 0; i < size; i++)
        text[i] = (char)('a' + i * i / 7 % 26);
    text[size] = '\0';
    return text;
}

TEST(sources, "a source is copied, compared with what is there, and reused when it is the same")
{
    char *big = numbered_lines(3000000), *other = numbered_lines(3000000);
    const file *files = FILES(FS("big", "source", big), FS("d/small", "small", "s"),
                              FS("empty", "nothing", ""));
    aw_result result = AW_RESULT_INIT;
    aw_error err;
    ino_t inode;

    disk_write("source", big, 0600); /* whose mode does not matter */
    disk_write("small", "s", 0777);
    disk_write("nothing", "", 0644);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK_CLEAN("target", files, 0);
    CHECK(result.bytes == 3000001);
    aw_result_clear(&result);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK(!result.changed && result.unchanged == 3);
    aw_result_clear(&result);
    inode = disk_inode(in_live("d/small"));
    other[2999999] = '!';
    disk_write("source", other, 0600);
    CHECK_OK(write_keeping(1, files, &result, &err), &err);
    CHECK(result.changed && result.linked == 2);
    CHECK_TEXT(joined(&result.updated), "big");
    CHECK(disk_inode(in_live("d/small")) == inode);
    CHECK_CLEAN("target", FILES(FS("big", "source", other), FS("d/small", "small", "s"),
                                FS("empty", "nothing", "")), 1);
    aw_result_clear(&result);
    free(big);
    free(other);
}

TEST(source_is_copied, "a source is copied, never shared: to change it later changes no version")
{
    char *text;

    disk_write("source", "before", 0644);
    must_write(FILES(FS("a", "source", "")));
    disk_write("source", "AFTER!", 0644);
    text = disk_read("target/a");
    CHECK_TEXT(text, "before");
    CHECK(disk_inode("source") != disk_inode(in_live("a")));
    free(text);
}

TEST(source_proc, "a source below /proc, whose size reads 0, is copied whole")
{
    char *shown;
    FILE *proc;
    char expected[4096];
    size_t size;
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    proc = fopen("/proc/version", "re");
    if (!proc)
        test_skip("no /proc here");
    size = fread(expected, 1, sizeof expected - 1, proc);
    expected[size] = '\0';
    fclose(proc);
    must_write(FILES(FS("version", "/proc/version", "")));
    shown = disk_read("target/version");
    CHECK_TEXT(shown, expected);
    CHECK(size > 0);
    CHECK_OK(write_keeping(1, FILES(FS("version", "/proc/version", "")), &result, &err), &err);
    CHECK(!result.changed);
    aw_result_clear(&result);
    free(shown);
}

TEST(source_methods, "a source is copied whole whichever ways of copying the kernel refuses")
{
    static const int codes[] = { ENOSYS, EXDEV, EOPNOTSUPP, EINVAL, EPERM, EBADF, ETXTBSY };
    char *big = numbered_lines(700001);

    disk_write("source", big, 0644);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fault_plan plan = { .kind = FAULT_EVERY, .code = codes[i], .call = CALL_copy_file_range };
        aw_error err;
        int rc;

        disk_mkdir("target", 0755);
        fault_arm(plan);
        rc = write_keeping(0, FILES(FS("big", "source", big)), NULL, &err);
        fault_disarm();
        CHECK_OK(rc, &err);
        CHECK_CLEAN("target", FILES(FS("big", "source", big)), 0);
        disk_remove("target");
    }
    free(big);
}

TEST(source_link, "a source may be a link, such as another target's visible name")
{
    char *text;

    project("other", FILES(F("cert", "pem")));
    must_write(FILES(FS("cert", "other/cert", "")));
    text = disk_read("target/cert");
    CHECK_TEXT(text, "pem");
    free(text);
}

TEST(source_refused, "a source that is missing, a directory or a FIFO is refused, nothing is touched")
{
    static const char *const sources[] = { "missing", "directory", "fifo", "/dev/zero", "loop" };

    disk_mkdir("directory", 0755);
    CHECK(mkfifo("fifo", 0644) == 0);
    disk_symlink("loop", "loop");
    must_write(FILES(F("a", "1")));
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        char *before = disk_state("target"), *after;
        aw_error err;

        CHECK_THAT(write_keeping(1, FILES(F("a", "2"), FS("b", sources[i], "")), NULL, &err) < 0,
                   "%s was taken", sources[i]);
        CHECK(!err.committed);
        CHECK_THAT(strstr(err.path, sources[i]) || strcmp(err.path, "b") == 0, "%s", err.path);
        if (i == 1 || i == 2 || i == 3)
            CHECK(err.code == AW_E_INVALID_PAYLOAD);
        CHECK(write_keeping(1, FILES(FS("a", sources[i], "")), NULL, &err) < 0);
        after = disk_state("target");
        CHECK_TEXT(after, before);
        free(before);
        free(after);
    }
    must_write(FILES(F("a", "3")));
    CHECK_CLEAN("target", FILES(F("a", "3")), 1);
}

static int clone_by_hand(int from, int to)
{
    char buffer[65536];
    ssize_t got;

    while ((got = read(from, buffer, sizeof buffer)) > 0)
        if (write(to, buffer, (size_t)got) != got)
            abort();
    return 0;
}

TEST(cloned, "a source is shared with the file system's own means where it has them, and counted")
{
    char *big = numbered_lines(500000);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    disk_write("source", big, 0644);
    aw_sys.clone_file = clone_by_hand;
    CHECK_OK(write_keeping(0, FILES(FS("big", "source", big)), &result, &err), &err);
    CHECK(result.bytes == 500000);
    CHECK_CLEAN("target", FILES(FS("big", "source", big)), 0);
    aw_result_clear(&result);
    free(big);
}

static ssize_t (*real_copy)(int from, int to, size_t size);
static bool changed;

static ssize_t copy_what_changes(int from, int to, size_t size)
{
    ssize_t copied = real_copy(from, to, size);
    int fd = open("source", O_WRONLY | O_APPEND | O_CLOEXEC);

    if (fd < 0 || (!changed && write(fd, "more", 4) != 4))
        abort();
    changed = true;
    close(fd);
    return copied;
}

static int no_clone(int from, int to)
{
    (void)from;
    (void)to;
    errno = EOPNOTSUPP;
    return -1;
}

TEST(torn_source, "G2: a source that changes while it is copied is an error, and nothing is published")
{
    char *before, *after;
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_write("source", "contents", 0644);
    before = disk_state("target");
    real_copy = aw_sys.copy_file_range;
    aw_sys.copy_file_range = copy_what_changes;
    aw_sys.clone_file = no_clone;
    CHECK(write_keeping(0, FILES(FS("a", "source", "")), NULL, &err) < 0);
    CHECK(!err.committed);
    CHECK_TEXT(err.path, "source");
    after = disk_state("target");
    CHECK_TEXT(after, before);
    free(before);
    free(after);
}

TEST(planned_source, "plan counts the bytes of a source that would be copied")
{
    aw_writer *writer = writer_keeping(1);
    aw_payload *payload = payload_of(FILES(FS("s", "source", ""), F("a", "1"), F("b", "23")));
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    must_write(FILES(F("a", "1")));
    disk_write("source", "contents", 0644);
    CHECK_OK(aw_plan(writer, payload, &result, &err), &err);
    CHECK(result.changed && result.bytes == 8 + 2 && result.linked == 1);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

/* ---- memory ------------------------------------------------------------ */

static long peak_kilobytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_maxrss : -1;
}

static ssize_t no_copy(int from, int to, size_t size)
{
    (void)size;
    return no_clone(from, to);
}

/* Write and write again; the status says by how many MiB the peak has grown. */
static int growth_of_a_child(const file *files)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        long before = peak_kilobytes();
        aw_error err;
        if (write_keeping(0, files, NULL, &err) < 0 || write_keeping(0, files, NULL, &err) < 0)
            _exit(255);
        _exit((int)((peak_kilobytes() - before) / 1024));
    }
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

TEST(constant_memory, "a large source never is in memory as a whole, whatever way it is copied")
{
    enum { MEBIBYTES = 64 };
    const file *files = FILES(FS("big", "source", ""));
    char *text = numbered_lines(1 << 20);
    struct stat st;
    int fd = open("source", O_WRONLY | O_CREAT | O_CLOEXEC, 0644), grown;

    CHECK(fd >= 0);
    for (int i = 0; i < MEBIBYTES; i++)
        CHECK(write(fd, text, 1 << 20) == 1 << 20);
    close(fd);
    free(text);
    aw_sys.clone_file = no_clone;
    grown = growth_of_a_child(files);
    CHECK_THAT(grown < 16, "the peak grew by %d MiB", grown);
    disk_remove("target");
    aw_sys.copy_file_range = no_copy;
    grown = growth_of_a_child(files);
    CHECK_THAT(grown < 16, "by reading and writing the peak grew by %d MiB", grown);
    CHECK(stat("target/big", &st) == 0 && st.st_size == (off_t)MEBIBYTES << 20);
}
