/* aw_current: what is there. Reads only.
 *
 * Three views: the live version (aw_live), the names in the target (aw_scan),
 * the tree of one version (aw_tree). And whether the target may be one at all.
 */
#ifndef AW_CURRENT_H
#define AW_CURRENT_H

#include "atomicwriter.h"
#include "aw_at.h"
#include "aw_memory.h"
#include "aw_payload.h"

#include <sys/stat.h>

/* ---- where a target lies ----------------------------------------------- */

/* Refuse the directory TARGET (absolute; open as FD, or -1 when it is yet to be
 * made) if it is or lies in a version of another target: its readers would see
 * what is written, at once and by halves.
 *
 * It does so when a component of its real path is named like a version, or like
 * one on its way out, and has a "..data" beside it. Whatever "..data" is: whose
 * volume is broken wants the versions as they are. Without one, a directory just
 * has such a name. Where the kernel does not tell, as without /proc, nothing is
 * refused, and no failure of it is told. */
int aw_refuse_version(int fd, const char *target, aw_error *err);

/* ---- the live version -------------------------------------------------- */

typedef struct aw_live {
    char name[AW_VERSION_MAX]; /* what "..data" names; "" without a "..data"  */
    int  fd;                   /* that directory; -1 when it leads nowhere    */
    struct stat st;            /* of that, when it was opened                 */
} aw_live;

#define AW_LIVE_INIT { .fd = -1 }

/* Read "..data" and open what it names. Trusts only a link to one
 * version-shaped name that is a real directory (G7): anything else is
 * AW_E_FOREIGN_ENTRY. That there is none is no error. */
int aw_live_open(int target, aw_live *live, aw_error *err);

void aw_live_close(aw_live *live);

/* Only the name: "" without a "..data". */
int aw_live_name(int target, char name[AW_VERSION_MAX], aw_error *err);

/* ---- the names in the target ------------------------------------------- */

typedef struct aw_found {
    const char *name;
    bool        link;    /* a symbolic one, and so perhaps ours              */
    uint64_t    inode;
} aw_found;

typedef struct aw_scan {
    const char **versions;  /* directories shaped like one, newest first     */
    size_t       version_count, version_room;
    const char **retired;   /* half-removed versions                         */
    size_t       retired_count, retired_room;
    aw_found    *found;     /* all other names but "..data" and "..lock",
                               sorted                                        */
    size_t       found_count, found_room;
    uint64_t     next;      /* the inode of the directory "..next"; 0: none  */
    bool         data_tmp;  /* "..data_tmp" is there                         */
    aw_type      data_tmp_type;
    uint64_t     sketch;    /* of all names and types that are there, and of
                               some, which they are: a sum, so that one who makes or
                               removes a name can keep it                    */
    aw_arena     arena;
} aw_scan;

#define AW_SCAN_INIT \
    { NULL, 0, 0, NULL, 0, 0, NULL, 0, 0, 0, false, AW_LINK, 0, AW_ARENA_INIT }

/* Read the target once. SCAN is AW_SCAN_INIT before, and cleared by the caller
 * after a failure too. */
int aw_scan_target(int target, aw_scan *scan, aw_error *err);

/* Who makes a name in the target, or removes one, tells the sketch. */
void aw_scan_came(aw_scan *scan, const char *name, aw_type type);
void aw_scan_went(aw_scan *scan, const char *name, aw_type type);

/* The same of what somebody may put another one in the place of: a visible name, which is
 * a link, or "..next". */
void aw_scan_one_came(aw_scan *scan, const char *name, aw_type type, uint64_t inode);
void aw_scan_one_went(aw_scan *scan, const char *name, aw_type type, uint64_t inode);

/* Whether the names in the target are those that the sketch is of. */
bool aw_scan_is_right(int target, const aw_scan *scan);

void aw_scan_clear(aw_scan *scan);

/* NAME, or NULL. Names that begin with ".." are not looked for here. */
const aw_found *aw_scan_find(const aw_scan *scan, const char *name, size_t length);

/* Ours is a visible name, a link that reads exactly "..data/NAME". Who holds no lock
 * may find that a writer has dropped it since it was found. */
typedef enum aw_whose { AW_WHOSE_FAILED = -1, AW_THEIRS, AW_OURS, AW_GONE } aw_whose;

aw_whose aw_found_whose(int target, const aw_found *found, aw_error *err);

/* ---- the tree of a version --------------------------------------------- */

typedef struct aw_node {
    const char *path;       /* below the version                             */
    size_t      length;
    int         type;       /* an aw_type                                    */
    bool        unreadable; /* a directory that we may not list: drift       */
    int         mode;       /* of a directory, as the two below              */
    int64_t     uid;
    int64_t     gid;
} aw_node;

typedef struct aw_tree {
    aw_node *nodes;         /* in tree order; the first is the version, ""   */
    size_t   count, room;
    aw_arena arena;
} aw_tree;

#define AW_TREE_INIT { NULL, 0, 0, AW_ARENA_INIT }

/* List the version directory ROOT. TREE as SCAN above. */
int aw_tree_read(int root, aw_tree *tree, aw_error *err);

void aw_tree_clear(aw_tree *tree);

#endif
