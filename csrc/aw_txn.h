/* aw_txn: one write from beginning to end: what it has opened and made so far.
 *
 * Here are its first steps, (1) to (3), and its only way out, which undoes in
 * the reverse order of doing unless the swap has happened. The steps between
 * are aw_write's.
 */
#ifndef AW_TXN_H
#define AW_TXN_H

#include "atomicwriter.h"
#include "aw_ahead.h"
#include "aw_compare.h"
#include "aw_current.h"
#include "aw_links.h"
#include "aw_lock.h"
#include "aw_meter.h"
#include "aw_payload.h"
#include "aw_stage.h"

#include <sys/types.h>

/* Versions that a writer remembers; where there are more, it looks. */
enum { AW_NAMES_MAX = 8 };

/* The names in the target, as the writer left them, with versions that it need not look
 * for: while the target and the live version have these ctimes. */
typedef struct aw_names {
    aw_stamp stamp;      /* of the target                                    */
    aw_stamp version;    /* of the live version, which has all that is shown */
    uint64_t sketch;
    bool     synced;     /* by a write that changed nothing                  */
    size_t   count;      /* of versions, newest first, the live one too      */
    char     versions[AW_NAMES_MAX][AW_VERSION_MAX];
} aw_names;

struct aw_writer {
    char      *target;   /* absolute                                         */
    aw_options options;
    dev_t      dev;      /* the directory that was last found to lie in no   */
    ino_t      ino;      /* version of another target; 0: none yet           */
    aw_memo    memo;     /* with the payload that aw_writer_remember() gave  */
    aw_memo    learned;  /* by the last write, whose payload is the caller's */
    uint64_t   writes;   /* that have succeeded                              */
    aw_names   names;
    bool       no_lines; /* can be drawn here, it turned out                 */
    aw_ahead   ahead;    /* the next version's directory, if there is one    */
    struct aw_after *after; /* the last write, which a thread goes on with   */
    aw_list    warnings; /* of that thread, for the next result              */
};

typedef struct aw_txn {
    aw_writer       *writer;
    aw_payload      *payload;
    const aw_hooks  *hooks;         /* or NULL                                */
    aw_meter         meter;
    int              target;
    struct stat      seen;          /* of the target, once it was locked      */
    aw_lock          lock;
    bool             may_create;    /* the target, if it is missing           */
    bool             made_target;   /* by this write                          */
    aw_live          live;
    aw_note          note;          /* about the live version                 */
    bool             untouched;     /* see aw_txn_read_live()                 */
    bool             synced;        /* ... and its names are synced           */
    bool             remembered;    /* ... and the writer knows them          */
    bool             names_stay;    /* no visible name comes or goes          */
    aw_stamp         linking;       /* when linking began                     */
    unsigned char   *touched;       /* folders that differ from those of what */
                                    /* was made ahead of time; NULL: all do   */
    bool             draws_lines;   /* it pays, and says something            */
    bool             leaves_pruning;/* (14), for after the call               */
    bool             prepares;      /* the next version's directory           */
    bool             gave_up_next;  /* it was of use to the writer, and is not */
    bool             untidy;        /* it has warned, before it went on       */
    aw_stamp         line;          /* the last thing that was done is before */
    bool             no_lines;      /* ... if there is a line                 */
    aw_names         names;         /* as they are then                       */
    aw_ahead         ahead;         /* made for the next write                */
    bool             sketched;      /* the new version's directories were,    */
    uint64_t         folders;       /* before anybody saw them                */
    aw_stamp         made;          /* its own ctime then                     */
    aw_stamp         surveyed;      /* the target's ctime before its names    */
    bool             sure;          /* were read; later changes give another  */
    aw_scan          scan;
    char             newest[AW_VERSION_MAX]; /* the greatest name seen; or "" */
    aw_rules         rules;
    unsigned char   *actions;
    aw_memo          learned;       /* about the version that is live at the end */
    aw_stage         stage;
    aw_links         links;
    bool             target_synced; /* with the new version, ..data_tmp too   */
    bool             committed;
    bool             in_doubt;      /* perhaps committed: undo nothing        */
    int            (*choose)(struct aw_txn *t, const char *wanted);
                                    /* of a rollback: makes its payload       */
    const char      *wanted;        /* by a rollback: a version, or NULL      */
    const char      *expected;      /* to be live then; or NULL               */
    int              origin;        /* the version rolled back to             */
    aw_tree          origin_tree;   /* its folders' names live here           */
    aw_result        result;
    aw_error        *err;
} aw_txn;

/* PAYLOAD is NULL where it is not the caller's; HOOKS may be. */
void aw_txn_begin(aw_txn *t, aw_writer *writer, aw_payload *payload, const aw_hooks *hooks,
                  aw_error *err);

bool aw_txn_is_durable(const aw_txn *t);

/* (1) Seal the payload; see that its paths fit and its sources can be read. */
int aw_txn_check_payload(aw_txn *t);

/* Open the target, which must not lie in a version of another. TARGET is -1 if it
 * is missing and may be created. */
int aw_txn_open_target(aw_txn *t);

/* (2) Open the target, lock it, and make sure that the path still leads there. */
int aw_txn_take_lock(aw_txn *t);

/* (3) Read the live version, and what the last writer noted about it: when it
 * left the target clean and nobody has changed a name there since, UNTOUCHED is
 * set, and there is nothing to sweep or to prune. */
int aw_txn_read_live(aw_txn *t);

/* Read the target's names: SCAN, NEWEST. */
int aw_txn_survey(aw_txn *t);

/* The same from what the writer remembers; SCAN then has the versions, and no other names. */
int aw_txn_recall_names(aw_txn *t);

/* Without a lock the version may be replaced, and removed, while it is looked
 * at: then whatever was found does not count. */
bool aw_txn_was_replaced(const aw_txn *t);

/* Note that VERSION, the live one in the directory FD, is durable. */
void aw_txn_note_durable(aw_txn *t, const char *version, int fd);

/* Note that the target is clean, with RETAINED versions besides the live one:
 * if it is, if its names are still those that were surveyed, and if a later
 * change to them is sure to show in its ctime. */
void aw_txn_note_clean(aw_txn *t, size_t retained);

/* When all is done: draw LINE, behind which others' changes begin. Then, if the names in
 * the target are those that SCAN's sketch is of, with what was retained in its list, fill
 * NAMES, and note that for whoever comes next. False where no line can be drawn. */
bool aw_txn_settle(aw_txn *t);

/* What was made ahead of time will not be used, nor are the names known that went with it. */
void aw_txn_give_up_next(aw_txn *t);

/* Undo if RC is a failure before the swap; give up everything; hand out the
 * result if RC is 0. Returns RC, with err->committed set as it is. */
int aw_txn_finish(aw_txn *t, int rc, aw_result *result);

#endif
