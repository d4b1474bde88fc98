/* aw_after: what is left to do when a write has gone live: (14), the next version's
 * directory, and the line behind it all. By the caller, or by a thread that the lock is
 * handed to, so that others wait for it as for any writer (G6), and a process that ends
 * meanwhile leaves what the next write sweeps (G5).
 *
 * The thread has the transaction, and uses nothing of the writer but its options and path.
 * What it found comes to the writer when it is waited for: before the lock is taken again,
 * or the writer closed.
 */
#ifndef AW_AFTER_H
#define AW_AFTER_H

#include "atomicwriter.h"
#include "aw_txn.h"

/* (14) Drop the versions that are not to be kept. */
void aw_after_prune(aw_txn *t);

/* Go on with T, a write that has succeeded and been learned from. Now: T is still to be
 * finished, and false is returned. Or in a thread: T is the thread's, true. */
bool aw_after_go_on(aw_txn *t);

/* Put into RESULT what the writer's threads have warned of, and nobody was told yet. */
void aw_after_tell(aw_writer *writer, aw_result *result);

/* Wait for it, and take away what was made ahead of time, quietly: if another writer has the
 * lock, that one sweeps it. For a writer that is being closed. */
void aw_after_end(aw_writer *writer);

/* Wait for the writer's thread, if there is one. */
void aw_after_wait(aw_writer *writer);

#endif
