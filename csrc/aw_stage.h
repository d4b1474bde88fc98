/* aw_stage: the new version while nobody sees it.
 *
 * made (6) -> filled (7) -> synced (9) -> live, or discarded at any point.
 * All modes and owners are set before anybody but the check can look at it:
 * its own directory is 0700 until it is filled.
 */
#ifndef AW_STAGE_H
#define AW_STAGE_H

#include "atomicwriter.h"
#include "aw_compare.h"
#include "aw_meter.h"
#include "aw_payload.h"

typedef struct aw_stage {
    int  target;                /* borrowed                                  */
    int  fd;                    /* the version's directory; -1: not made     */
    char name[AW_VERSION_MAX];
} aw_stage;

#define AW_STAGE_INIT { -1, -1, "" }

/* Give it a name greater than NEWEST. */
int aw_stage_name(aw_stage *stage, int target, const char *newest, aw_error *err);

/* (6) Make a directory with such a name. */
int aw_stage_make(aw_stage *stage, int target, const char *newest, aw_error *err);

/* (7) Fill it: link from LIVE (a version's directory, or -1) what ACTIONS say
 * is kept, and from the payload's origin what comes from there; write the
 * rest. Each action becomes AW_WRITTEN or AW_LINKED. Of RESULT fills linked and
 * bytes. */
int aw_stage_fill(aw_stage *stage, const aw_payload *payload, int live,
                  const aw_rules *rules, unsigned char *actions, aw_meter *meter,
                  aw_result *result, aw_error *err);

/* (7) The same where STAGE has all files of BEFORE linked already, in directories that can
 * be written to: change it into PAYLOAD. TOUCHED, one for each of PAYLOAD's folders and 0
 * before, says which have changed. */
int aw_stage_amend(aw_stage *stage, const aw_payload *before, const aw_payload *payload,
                   const aw_rules *rules, unsigned char *actions, unsigned char *touched,
                   aw_meter *meter, aw_result *result, aw_error *err);

/* Whether what is to be synced, as below, is better synced by one call, with all else on the
 * file system, by what that costs there and what others have still to write. BYTES are ours. */
bool aw_stage_syncs_at_once(int root, const aw_payload *payload, const unsigned char *actions,
                            unsigned which, uint64_t bytes);

/* (9) Make what PAYLOAD describes durable below ROOT, the stage or the live
 * version: each file whose action has a bit in WHICH, and every directory, or those that
 * are TOUCHED if that is not NULL, children first; or, AT_ONCE, the whole file system. */
int aw_stage_sync(int root, const aw_payload *payload, const unsigned char *actions,
                  unsigned which, const unsigned char *touched, bool at_once, aw_meter *meter,
                  aw_error *err);

#define AW_BIT(action) (1u << (action))

/* Whether its name still leads to it. */
bool aw_stage_is_there(const aw_stage *stage);

/* Remove it again, quietly: what stays is swept by the next write. */
void aw_stage_discard(aw_stage *stage);

/* fsync a directory. A file system that knows no such thing is no failure. */
int aw_sync_directory(int fd, const char *name, aw_error *err);

#endif
