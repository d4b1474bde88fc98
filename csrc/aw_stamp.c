/* aw_stamp: see the header. */
#define _GNU_SOURCE /* CLOCK_REALTIME_COARSE */
#include "aw_stamp.h"

#include "aw_sys.h"

aw_stamp aw_stamp_of(const struct stat *st)
{
    return (aw_stamp) { st->st_ctim.tv_sec, st->st_ctim.tv_nsec };
}

aw_stamp aw_stamp_of_data(const struct stat *st)
{
    return (aw_stamp) { st->st_mtim.tv_sec, st->st_mtim.tv_nsec };
}

int aw_stamp_compare(const aw_stamp *a, const aw_stamp *b)
{
    if (a->sec != b->sec)
        return a->sec < b->sec ? -1 : 1;
    return (a->nsec > b->nsec) - (a->nsec < b->nsec);
}

static aw_stamp read_clock(clockid_t clock)
{
    struct timespec now = { 0, 0 };

    (void)aw_sys_clock_gettime(clock, &now); /* cannot fail on Linux */
    return (aw_stamp) { now.tv_sec, now.tv_nsec };
}

aw_stamp aw_stamp_now(void)
{
    return read_clock(CLOCK_REALTIME_COARSE);
}

aw_stamp aw_stamp_clock(void)
{
    return read_clock(CLOCK_REALTIME);
}

bool aw_stamp_is_settled(const aw_stamp *stamp, const aw_stamp *now)
{
    const int64_t second = 1000000000;
    const int64_t tick = stamp->nsec != 0 ? second / 50 : 2 * second + second / 10;

    if (now->sec - stamp->sec > 3600) /* so that the next line has no overflow */
        return true;
    if (now->sec < stamp->sec)
        return false;
    return (now->sec - stamp->sec) * second + (now->nsec - stamp->nsec) > tick;
}

/* Where the second stamp is no greater, stamps only tick. Where it is because a tick has
 * passed in between, that will do as well. */
bool aw_stamp_draw_line(int fd, mode_t mode, aw_stamp *line)
{
    struct stat asked, drawn;
    aw_stamp before;

    if (aw_sys_fstat(fd, &asked) < 0 || aw_sys_fchmod(fd, mode) < 0
        || aw_sys_fstat(fd, &drawn) < 0)
        return false;
    before = aw_stamp_of(&asked);
    *line = aw_stamp_of(&drawn);
    return line->nsec != 0 && aw_stamp_compare(line, &before) > 0;
}
