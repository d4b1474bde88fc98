/* aw_compare: how a payload differs from the live version. Reads only. */
#ifndef AW_COMPARE_H
#define AW_COMPARE_H

#include "atomicwriter.h"
#include "aw_at.h"
#include "aw_current.h"
#include "aw_memo.h"
#include "aw_meter.h"
#include "aw_payload.h"
#include "aw_rules.h"

#include <sys/types.h>

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
 * Where an owner that nobody asked for seems to differ, the guess in RULES is checked once. */
int aw_compare(int target, const aw_live *live, aw_payload *payload, aw_rules *rules,
               const aw_memo *memo, aw_memo *learned, unsigned char *actions, aw_meter *meter,
               aw_result *result, aw_error *err);

/* Refuse, with AW_E_CHECK_FAILED, a staged tree to which a check has added names
 * or from which it has taken some. Does not look into files. */
int aw_compare_names(const aw_payload *payload, int stage, aw_error *err);

#endif
