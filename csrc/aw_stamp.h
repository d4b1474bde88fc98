/* aw_stamp: times as the kernel stamps them on files, and what they prove.
 *
 * Every change to a file or a directory stamps a ctime, which nobody can set. But the
 * kernel stamps with a clock that ticks, up to a hundredth of a second apart: two changes
 * within a tick have the same stamp, and the second does not show. There are two ways to
 * know that a later change will: wait for the tick to pass; or, where stamps are multigrain
 * (Linux 6.13), draw a line.
 *
 * A line stands on a floor of the kernel's: once some inode had to be given a stamp finer
 * than a tick, because its last one had been asked for within the same tick, no inode on
 * any file system gets a lesser one. So: change an inode, ask for its stamp, and change it
 * again. That stamp is greater than all there were before, and no later one is less.
 */
#ifndef AW_STAMP_H
#define AW_STAMP_H

#include "atomicwriter.h"

#include <sys/stat.h>

typedef struct aw_stamp {
    int64_t sec;
    long    nsec;
} aw_stamp;

/* The ctime, and the mtime, in ST. */
aw_stamp aw_stamp_of(const struct stat *st);
aw_stamp aw_stamp_of_data(const struct stat *st);

/* Less than 0, 0, or greater, as A is earlier than B, the same, or later. */
int aw_stamp_compare(const aw_stamp *a, const aw_stamp *b);

/* The time by the clock that the kernel stamps with: no later change gets less, unless the
 * clock is set back. */
aw_stamp aw_stamp_now(void);

/* The time of day, for the next; it does not tick. */
aw_stamp aw_stamp_clock(void);

/* Whether a change after NOW gives another stamp than STAMP, since a tick has passed. Where
 * there are no nanoseconds at all, ticks may last two seconds. */
bool aw_stamp_is_settled(const aw_stamp *stamp, const aw_stamp *now);

/* Draw a line at *LINE by stamping FD, a file or directory of ours whose mode is MODE, and which
 * was the last to be changed: every change before has a lesser stamp, every later one the
 * same or a greater. False where the kernel's stamps do not say so. */
bool aw_stamp_draw_line(int fd, mode_t mode, aw_stamp *line);

#endif
