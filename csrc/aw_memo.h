/* aw_memo: what an open writer knows of the version that it wrote or confirmed last.
 *
 * The payload that is in it, which the caller has handed over, and of each file
 * what the kernel said of it when it was seen to hold that data: its print. Every
 * change, to data, mode, owner or links and through whichever name, gives a file
 * another ctime, and nobody can set that. So a file that has the same print has the
 * same data, and one stat takes the place of open, read and close.
 *
 * A new link to a file, and the removal of an old one, change its ctime too. Those of a
 * write lie between two lines (see aw_stamp.h): when it began to link, and when it was done
 * with everything. A file with a ctime from between them, and with inode and mtime as they
 * were, is the one that was linked; that of who edits it and sets its mtime back just then
 * would pass. Where no line can be drawn, or where functions of the caller's ran meanwhile,
 * what was linked has no print.
 *
 * A print is only taken where that holds. The kernel stamps with a clock that
 * ticks, and would hide a second change within a tick: either the tick has passed,
 * or stamps are multigrain (Linux 6.13: once somebody has asked, the next change
 * gets a stamp of its own). It stamps when a write(2) begins, before the data change; so
 * a file that was written to within the last tick has none either. Remote file systems
 * and FUSE may answer from a cache, and there are no prints on any that is not known.
 *
 * Not seen is who writes in place to a file of the live version through a shared mapping,
 * on a disk one that he has had before; or in one call for longer than a tick, while it is
 * read.
 */
#ifndef AW_MEMO_H
#define AW_MEMO_H

#include "atomicwriter.h"
#include "aw_payload.h"
#include "aw_stamp.h"

#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

/* What the ctimes of a file system tell. */
typedef enum aw_clock {
    AW_CLOCK_UNKNOWN,   /* nobody has looked yet                             */
    AW_CLOCK_NONE,      /* nothing: no prints                                */
    AW_CLOCK_TICKING,   /* a change, once the tick has passed                */
    AW_CLOCK_MULTIGRAIN /* every change after a stat                         */
} aw_clock;

typedef struct aw_print {
    uint64_t inode;  /* 0: there is no print                                 */
    aw_stamp mtime;
    aw_stamp ctime;
} aw_print;

typedef struct aw_memo {
    char        version[AW_VERSION_MAX]; /* that it speaks of; "": of none   */
    dev_t       device;                  /* where that is, and               */
    aw_clock    clock;                   /* what its ctimes tell             */
    aw_payload *payload;                 /* what is in it, or NULL           */
    size_t      count;                   /* of its items, when it was written */
    unsigned    replaced;                /* its count of those, then         */
    aw_print   *prints;                  /* of each item; NULL: none         */
    aw_stamp    from, to;                /* of the links since; to is 0: none */
    bool        as_known;                /* the names below the live version are
                                            those that were remembered       */
    bool        listed;                  /* its directories were seen to hold
                                            these names, and no others, when
                                            they looked like this:           */
    uint64_t    folders;                 /* a sketch of inodes and ctimes    */
} aw_memo;

#define AW_MEMO_INIT \
    { "", 0, AW_CLOCK_UNKNOWN, NULL, 0, 0, NULL, { 0, 0 }, { 0, 0 }, false, false, 0 }

/* Whether MEMO says what is in VERSION, on DEVICE. */
bool aw_memo_speaks_of(const aw_memo *memo, const char *version, dev_t device);

/* Give back what MEMO holds, its payload too, and make it AW_MEMO_INIT. */
void aw_memo_clear(aw_memo *memo);

/* The same for one whose payload is the caller's. */
void aw_memo_drop(aw_memo *memo);

/* Those of the file system that FD is on. */
aw_clock aw_clock_of(int fd);

/* The print of a file that ST is of, with inode 0 where none can be taken. ST must
 * be from before its data was read, and NOW from before that. */
aw_print aw_print_of(const struct stat *st, aw_clock clock, const aw_stamp *now);

/* All that the write which made its version did to stamps is before LINE; where that is 0,
 * nobody knows, and there are no prints. */
void aw_memo_set_line(aw_memo *memo, const aw_stamp *line);

/* Whether ST is of the file that item INDEX is in, as it was when it had these data. */
bool aw_memo_knows(const aw_memo *memo, size_t index, const struct stat *st);

/* Sees one of the directories, a payload's folder INDEX, open at FD, and ST of it. */
typedef bool (*aw_look_fn)(void *context, size_t index, int fd, const struct stat *st);

/* A sketch of the directories that PAYLOAD (sealed) says below VERSION, as they are now: of
 * their inodes and ctimes. Each is shown to LOOK, with CONTEXT. False when one cannot be
 * entered or LOOK says so; LOOK may be NULL. */
bool aw_memo_sketch(int version, const aw_payload *payload, aw_look_fn look, void *context,
                    uint64_t *sketch);

#endif
