/* at_test.c: aw_at by itself, where what it promises does not show in a write. */
#define _GNU_SOURCE
#include "aw_at.h"
#include "aw_sys.h"
#include "disk.h"
#include "kit.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MEBIBYTE = 1 << 20, SIZE = 8 * MEBIBYTE, STEPS_MAX = 100 };

static ssize_t (*real_copy)(int from, int to, size_t size);
static ssize_t (*real_read)(int fd, void *buffer, size_t size);
static unsigned steps;

/* As quick as it is copied, so that the copy never comes to the end by itself. */
static void let_grow(int fd, ssize_t by)
{
    struct stat st;

    if (++steps < STEPS_MAX && by > 0
        && (fstat(fd, &st) < 0 || truncate("source", st.st_size + by) < 0))
        abort();
}

static ssize_t copy_and_grow(int from, int to, size_t size)
{
    ssize_t copied = real_copy(from, to, size);

    let_grow(from, copied);
    return copied;
}

static ssize_t read_and_grow(int fd, void *buffer, size_t size)
{
    ssize_t got = real_read(fd, buffer, size);

    let_grow(fd, got);
    return got;
}

static int no_clone(int from, int to)
{
    (void)from;
    (void)to;
    errno = EOPNOTSUPP;
    return -1;
}

static ssize_t no_copy(int from, int to, size_t size)
{
    (void)size;
    return no_clone(from, to);
}

static void copy_what_grows(void)
{
    uint64_t bytes = 0;
    aw_meter meter = AW_METER_INIT(NULL);
    aw_error err;
    aw_copier copier = { NULL, &bytes, &meter, &err };
    int from, to;

    disk_write("source", "", 0644);
    CHECK(truncate("source", SIZE) == 0);
    from = open("source", O_RDONLY | O_CLOEXEC);
    to = open("copy", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    CHECK(from >= 0 && to >= 0);
    steps = 0;
    CHECK_OK(aw_copy_rest(&copier, from, to, "source"), &err);
    CHECK_THAT(steps > 1 && steps < STEPS_MAX, "%u steps", steps);
    CHECK_THAT(bytes >= SIZE && bytes <= SIZE + 5 * MEBIBYTE, "%llu bytes",
               (unsigned long long)bytes);
    CHECK(lseek(to, 0, SEEK_END) == (off_t)bytes);
    free(copier.buffer);
    close(from);
    close(to);
}

TEST(growing, "a file that grows for ever is not copied for ever, whatever way it is copied")
{
    real_copy = aw_sys.copy_file_range;
    real_read = aw_sys.read;
    aw_sys.clone_file = no_clone;
    aw_sys.copy_file_range = copy_and_grow;
    copy_what_grows();
    aw_sys.copy_file_range = no_copy;
    aw_sys.read = read_and_grow;
    copy_what_grows();
}
