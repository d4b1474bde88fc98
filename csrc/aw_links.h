/* aw_links: the visible names, "..data_tmp", and the swap.
 *
 * A visible name leads through "..data", so that it need never change while
 * its first component exists. New names are made before the swap (they dangle
 * until then), stale ones go after it (they dangle from then on).
 */
#ifndef AW_LINKS_H
#define AW_LINKS_H

#include "atomicwriter.h"
#include "aw_current.h"
#include "aw_payload.h"

/* What this write has made so far, to be undone if it fails. */
typedef struct aw_links {
    int          target;   /* borrowed                                       */
    const char **made;     /* visible names                                  */
    size_t       count, room;
    bool         staged;   /* "..data_tmp" is there                          */
    aw_arena     arena;
} aw_links;

#define AW_LINKS_INIT(target) { (target), NULL, 0, 0, false, AW_ARENA_INIT }

/* AW_E_FOREIGN_ENTRY for a name that PAYLOAD needs and somebody else has. Where
 * KNOWN is not NULL, it is the payload's actions, and the target is clean: then
 * the names that the live version shows need not be looked at. */
int aw_links_check(int target, const aw_scan *scan, const aw_payload *payload,
                   const unsigned char *known, aw_error *err);

/* (10) Make the visible names of PAYLOAD that SCAN has not. SCAN's sketch follows, here and
 * below, its lists do not. */
int aw_links_add(aw_links *links, aw_scan *scan, const aw_payload *payload, aw_error *err);

/* (10) Make "..data_tmp", a link to VERSION. */
int aw_links_stage(aw_links *links, const char *version, aw_error *err);

/* (11) Rename it over "..data": the point of no return. */
int aw_links_swap(aw_links *links, aw_error *err);

/* Remove what was made, quietly: what stays is swept by the next write. */
void aw_links_undo(aw_links *links);

/* (13) Remove the visible names in SCAN that PAYLOAD does not have. A failure
 * becomes one of RESULT's warnings. */
void aw_links_drop_stale(int target, aw_scan *scan, const aw_payload *payload,
                         aw_result *result);

/* Free the list; what was made stays. */
void aw_links_clear(aw_links *links);

#endif
