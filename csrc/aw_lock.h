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
 * "..lock" also holds one line: the version last known to be durable. It is
 * written once that version and the link to it are synced, so that it is true
 * whenever it is there, and spares the next write from syncing again what it
 * shares with that version. Losing it costs time, nothing else.
 */
#ifndef AW_LOCK_H
#define AW_LOCK_H

#include "atomicwriter.h"

/* Now, in whole milliseconds of a clock that never steps. */
int64_t aw_lock_clock(void);

/* When TIMEOUT milliseconds will surely have passed; now for 0. */
int64_t aw_lock_deadline(int64_t timeout);

/* Lock the target directory until DEADLINE (of that clock). Makes "..lock" if
 * need be. *FD is the lock; closing it releases it. AW_E_LOCKED once the time
 * is over, never before; AW_E_FOREIGN_ENTRY if "..lock" is no regular file. */
int aw_lock_take(int target, int64_t deadline, int *fd, aw_error *err);

/* Whether the note says that VERSION is durable. */
bool aw_lock_says_durable(int fd, const char *version);

/* Say that VERSION is. Failing is harmless. */
void aw_lock_note_durable(int fd, const char *version);

#endif
