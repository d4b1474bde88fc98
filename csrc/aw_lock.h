/* aw_lock: writers exclude each other by flock on "..lock" (G6).
 *
 * flock, because it goes with the open file: a killed writer's lock is gone,
 * threads of one process exclude each other too, and no other close() drops it
 * (as it would with fcntl locks). On "..lock", not on the target, which any
 * reader could lock.
 *
 * INV-2: only the holder of the lock makes, renames or removes names below the
 * target.
 *
 * "..lock" also holds a note, one line about the live version, for the next
 * writer. It is written once what it says is true, and nothing makes it untrue
 * unseen, so that it needs no sync; losing it costs time, nothing else.
 */
#ifndef AW_LOCK_H
#define AW_LOCK_H

#include "atomicwriter.h"
#include "aw_stamp.h"

/* Now, in whole milliseconds of a clock that never steps. */
int64_t aw_lock_clock(void);

/* When TIMEOUT milliseconds will surely have passed; now for 0. */
int64_t aw_lock_deadline(int64_t timeout);

/* Milliseconds that are waited for whoever only asks whether there is a lock, beyond
 * any deadline. It asks by holding one for an instant; but it may be stopped in
 * that instant, by a CPU quota for instance. */
enum { AW_LOCK_GRACE = 1000 };

/* A lock that is held. */
typedef struct aw_lock {
    int  fd;    /* closing it releases the lock; -1: none                    */
    bool ours;  /* "..lock" was the file's only name when it was locked: it
                   is nobody else's, whom a hard link could have made it of   */
    mode_t mode; /* which an owner may have changed, for others to write too */
} aw_lock;

#define AW_LOCK_INIT { -1, false, 0 }

/* Lock the target directory until DEADLINE (of that clock). Makes "..lock" if
 * need be. AW_E_LOCKED once the time is over, never before, and not while there are only
 * shared locks, with which one asks, for AW_LOCK_GRACE; AW_E_FOREIGN_ENTRY if "..lock" is no
 * regular file. */
int aw_lock_take(int target, int64_t deadline, aw_lock *lock, aw_error *err);

/* flock FD by OPERATION, LOCK_SH or LOCK_EX, until DEADLINE, and for a millisecond
 * at least: whoever only asks gives it back at once. -1 with errno: EWOULDBLOCK when
 * it is held. */
int aw_lock_try(int fd, int operation, int64_t deadline);

typedef struct aw_note {
    char     version[AW_VERSION_MAX]; /* that it speaks of; "": there is none */
    uint64_t inode;          /* of that version's directory, and its ctime:  */
    aw_stamp version_stamp;  /* a copy of it is another                      */
    bool     durable;        /* the version and the link to it were synced,
                                and need not be again by who shares it       */
    bool     clean;          /* the target held nothing but what belongs there */
    bool     synced;         /* and its names were synced                    */
    aw_stamp target_stamp;   /* when they had last changed: its ctime        */
    uint64_t retained;       /* versions besides the live one                */
} aw_note;

#define AW_NOTE_INIT { "", 0, { 0, 0 }, false, false, false, { 0, 0 }, 0 }

/* Read the note; AW_NOTE_INIT if there is none, or none that can be read. */
void aw_lock_read_note(int fd, aw_note *note);

/* Write it, unless the file is not ours. Failing is harmless, and not told. */
void aw_lock_write_note(const aw_lock *lock, const aw_note *note);

/* Draw a line with it (see aw_stamp.h), unless it is not ours. */
bool aw_lock_draw_line(const aw_lock *lock, aw_stamp *line);

#endif
