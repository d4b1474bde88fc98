/* aw_compare: how a payload differs from the live version. Reads only.
 *
 * Here is also what "not given" comes to for a mode or an owner, because the
 * comparison and the writing must mean the same by it.
 */
#ifndef AW_COMPARE_H
#define AW_COMPARE_H

#include "atomicwriter.h"
#include "aw_at.h"
#include "aw_current.h"
#include "aw_memo.h"
#include "aw_meter.h"
#include "aw_payload.h"

#include <sys/types.h>

/* ---- what an item comes to --------------------------------------------- */

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

/* Open what holds ITEM's data when it is not in memory: its source, or its
 * place in the payload's origin, found with ORIGIN. AW_E_INVALID_PAYLOAD for
 * what is no regular file. Returns the descriptor, or -1. */
int aw_item_open(const aw_item *item, aw_cursor *origin, aw_error *err);

/* ---- the difference ---------------------------------------------------- */

typedef enum aw_action {
    AW_ADD,     /* the live version has no such file                         */
    AW_UPDATE,  /* it has another one there                                  */
    AW_KEEP,    /* data, mode, uid, gid are equal                            */
    AW_WRITTEN, /* aw_stage: the new version has a file of its own           */
    AW_LINKED   /* aw_stage: it shares the file with an earlier version      */
} aw_action;

/* Compare PAYLOAD (sealed) with LIVE, which may be no version at all. Fills
 * ACTIONS, one for each item, and of RESULT: changed, added, updated, removed,
 * unchanged. MEMO may be of another version, and is then not believed. LEARNED,
 * AW_MEMO_INIT before, is what there is to remember of LIVE when nothing differs;
 * it borrows PAYLOAD.
 *
 * Where an owner that nobody asked for seems to differ, the guess in RULES is
 * checked once against a file made in TARGET, unnamed if possible: a mount may map owners
 * (NFS root_squash) or give new files the directory's group (grpid). */
int aw_compare(int target, const aw_live *live, aw_payload *payload, aw_rules *rules,
               const aw_memo *memo, aw_memo *learned, unsigned char *actions, aw_meter *meter,
               aw_result *result, aw_error *err);

/* Refuse, with AW_E_CHECK_FAILED, a staged tree to which a check has added names
 * or from which it has taken some. Does not look into files. */
int aw_compare_names(const aw_payload *payload, int stage, aw_error *err);

#endif
