/* aw_ahead: the next version's directory, made ahead of time: "..next".
 *
 * Most writes change few of many files, and spend their time on linking the rest. A
 * directory with all of them linked can be made before anybody asks for it. It is a fresh
 * one each time, never a version that somebody may still be reading, and nobody else's
 * business: 0700, with a name that every writer takes for residue. Who made it holds it
 * open, and uses it only while the live version and the directory itself are what they
 * were: by the names that the writer remembers, by the prints of the files, and by a sketch
 * of both trees' directories.
 */
#ifndef AW_AHEAD_H
#define AW_AHEAD_H

#include "atomicwriter.h"
#include "aw_compare.h"
#include "aw_lock.h"
#include "aw_payload.h"
#include "aw_stage.h"

typedef struct aw_ahead {
    int      fd;                  /* "..next", with a lease on it; -1: none  */
    uint64_t inode;               /* its                                     */
    char     of[AW_VERSION_MAX];  /* the version that it has the files of    */
    uint64_t folders;             /* a sketch of its directories             */
    int      pid;                 /* who made it; a forked child has not     */
} aw_ahead;

#define AW_AHEAD_INIT { -1, 0, "", 0, 0 }

/* Make it from VERSION, the live one, open at LIVE, in TARGET, where there is none, under
 * LOCK. DURABLE: its directories are synced. The files have to be durable already. On failure
 * nothing is left but what the next write sweeps. */
int aw_ahead_make(int target, const aw_lock *lock, int live, const char *version,
                  const aw_rules *rules, bool durable, aw_ahead *ahead, aw_error *err);

/* Whether it still is what it was, as VERSION is, whose directories are those of PAYLOAD. */
bool aw_ahead_is_ready(const aw_ahead *ahead, const char *version, const aw_payload *payload);

/* (6) Make it STAGE, with a name greater than NEWEST. */
int aw_ahead_use(aw_ahead *ahead, aw_stage *stage, int target, const char *newest, aw_error *err);

/* Close it. Its name stays. */
void aw_ahead_close(aw_ahead *ahead);

#endif
