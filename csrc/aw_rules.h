/* aw_rules: what an item comes to: its mode and owner, which the comparison and the writing
 * must mean the same by, and where its data are.
 */
#ifndef AW_RULES_H
#define AW_RULES_H

#include "atomicwriter.h"
#include "aw_at.h"
#include "aw_payload.h"

#include <sys/stat.h>
#include <sys/types.h>

/* What "not given" means for one write. */
typedef struct aw_rules {
    const aw_options *options;      /* borrowed                              */
    uid_t             natural_uid;  /* what a file freshly written below the */
    gid_t             natural_gid;  /* target gets                           */
    bool              probed;       /* found out by making one, see below    */
    bool              links_only;   /* where linking is refused, fail        */
    bool              locked;       /* we hold the lock, and may make names  */
    bool              edited;       /* a kept file has been written to since
                                       its version was made, to the same end */
} aw_rules;

/* TARGET is what stat says of it, NULL where it will be made. The natural owner is who we
 * are, with the target's group where its setgid bit says so. */
aw_rules aw_rules_for(const struct stat *target, const aw_options *options);

/* Mode and owner that a file or a directory must have. */
typedef struct aw_wish {
    mode_t mode;
    uid_t  uid;
    gid_t  gid;
    uid_t  chown_uid;  /* for fchown(2): -1 where nobody asked, because a    */
    gid_t  chown_gid;  /* fresh file has the natural owner already           */
} aw_wish;

aw_wish aw_wish_for_item(const aw_rules *rules, const aw_item *item);
aw_wish aw_wish_for_folder(const aw_rules *rules, const aw_folder *folder);

/* Learn the owner of a fresh file from one that is made in TARGET, unnamed if possible: a
 * mount may map owners (NFS root_squash) or give new files the directory's group (grpid). */
void aw_rules_probe(aw_rules *rules, int target);

/* Open what holds ITEM's data when it is not in memory: its source, or its
 * place in the payload's origin, found with ORIGIN. AW_E_INVALID_PAYLOAD for
 * what is no regular file. Returns the descriptor, or -1. */
int aw_item_open(const aw_item *item, aw_cursor *origin, aw_error *err);

#endif
