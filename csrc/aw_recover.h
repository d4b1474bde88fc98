/* aw_recover: what a killed writer left, and versions that are not kept.
 *
 * What can be left, by where the writer was killed:
 *
 *   (6)-(11) a version newer than the live one (INV-1), visible names that
 *            dangle, "..data_tmp"
 *   (11)-(13) visible names that dangle, more versions than keep
 *   (14)     a version under its retired name, half-removed
 *
 * INV-3: a version is renamed to its retired name, and that is synced, before
 * anything in it is removed, by whoever removes it. A directory with a version's
 * name is therefore whole, and may be rolled back to.
 */
#ifndef AW_RECOVER_H
#define AW_RECOVER_H

#include "atomicwriter.h"
#include "aw_current.h"
#include "aw_payload.h"

/* (4) Sweep, before anything is made. PAYLOAD's own visible names are left for
 * aw_links_add(); NULL for none. DURABLE: who has left it may have been killed, or
 * have failed, before the swap or the retired name was synced; that comes first.
 * Afterwards SCAN holds only what is still there. A failure is one of RESULT's
 * warnings, unless the write could not go on with it. */
int aw_recover_sweep(int target, aw_scan *scan, const aw_live *live,
                     const aw_payload *payload, bool durable, aw_result *result,
                     aw_error *err);

/* Remove "..next", if SCAN has it, which nobody reads. */
void aw_recover_drop_next(int target, aw_scan *scan, aw_result *result);

/* What is pruned, and how. */
typedef struct aw_pruning {
    int               target;
    const char       *live;       /* is kept                                 */
    unsigned          keep;       /* versions besides                        */
    size_t            leased_max; /* and so many, the newest, that readers lease */
    bool              durable;    /* sync in between, as INV-3 says          */
    const aw_live    *was;        /* live before, and open; or NULL          */
    const aw_payload *guess;      /* whose files a version may well hold: that
                                     spares listing it; or NULL              */
} aw_pruning;

/* (14) Remove the retained versions in SCAN that are not to be kept. Failures are warnings.
 * Returns the number removed; those are no longer in SCAN. */
size_t aw_recover_prune(const aw_pruning *how, aw_scan *scan, aw_result *result);

#endif
