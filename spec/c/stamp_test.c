/* stamp_test.c: lines, by which a ctime tells what was before from what came after. What rests
 * on them (G5, G8) is skipped where the kernel's stamps cannot draw any.
 */
#include "aw_stamp.h"
#include "aw_sys.h"
#include "test.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static aw_sys_table real;
static struct timespec given[2]; /* the ctimes that fstat answers, in turn */
static int asked, chmods, failing; /* failing: the number of the call that does, or 0 */

static int answer_fstat(int fd, struct stat *st)
{
    (void)fd;
    memset(st, 0, sizeof *st);
    st->st_ctim = given[asked++];
    if (failing == (asked == 1 ? 1 : 3)) {
        errno = EIO;
        return -1;
    }
    return 0;
}

static int answer_fchmod(int fd, mode_t mode)
{
    (void)fd;
    CHECK(mode == 0600);
    chmods++;
    if (failing == 2) {
        errno = EPERM;
        return -1;
    }
    return 0;
}

static bool draw(long first_sec, long first_nsec, long second_sec, long second_nsec, aw_stamp *line)
{
    bool drawn;

    given[0].tv_sec = first_sec, given[0].tv_nsec = first_nsec;
    given[1].tv_sec = second_sec, given[1].tv_nsec = second_nsec;
    asked = chmods = 0;
    real = aw_sys;
    aw_sys.fstat = answer_fstat;
    aw_sys.fchmod = answer_fchmod;
    drawn = aw_stamp_draw_line(7, 0600, line);
    aw_sys = real;
    return drawn;
}

TEST(drawn, "a line is the later of two stamps, between which the inode was changed")
{
    aw_stamp line;

    CHECK(draw(100, 5, 100, 6, &line) && line.sec == 100 && line.nsec == 6);
    CHECK(asked == 2 && chmods == 1);
    CHECK(draw(100, 999999999, 101, 1, &line) && line.sec == 101 && line.nsec == 1);
}

TEST(ticking, "where stamps only tick, there is none")
{
    aw_stamp line;

    CHECK(!draw(100, 5, 100, 5, &line));
    CHECK(!draw(100, 5, 100, 4, &line)); /* the clock was set back */
    CHECK(!draw(100, 5, 99, 6, &line));
}

TEST(whole_seconds, "nor where stamps have no nanoseconds")
{
    aw_stamp line;

    CHECK(!draw(100, 0, 101, 0, &line));
}

TEST(failing_calls, "nor where the inode cannot be asked or changed")
{
    aw_stamp line;

    for (failing = 1; failing <= 3; failing++)
        CHECK_THAT(!draw(100, 5, 100, 6, &line), "call %d", failing);
    failing = 0;
}

TEST(settled, "a stamp is settled when a tick has passed: 20 ms, or 2 s where it has no fraction")
{
    const aw_stamp fine = { .sec = 100, .nsec = 1 }, coarse = { .sec = 100, .nsec = 0 };
    aw_stamp now = { .sec = 100, .nsec = 20000001 };

    CHECK(!aw_stamp_is_settled(&fine, &now));
    now.nsec++;
    CHECK(aw_stamp_is_settled(&fine, &now));
    CHECK(!aw_stamp_is_settled(&coarse, &now));
    now.sec = 102;
    now.nsec = 100000000;
    CHECK(!aw_stamp_is_settled(&coarse, &now));
    now.nsec++;
    CHECK(aw_stamp_is_settled(&coarse, &now));
    now.sec = 99;
    CHECK(!aw_stamp_is_settled(&fine, &now)); /* from the future */
}
