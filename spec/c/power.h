/* power.h: a model of what a disk may hold after a power cut.
 *
 * Between power_record() and power_stop() every call of the core that changes
 * something on disk is made, and noted. What may differ after a cut is a set of
 * facts, each with the values it has had:
 *
 *     the data of a file          durable by a sync of the file
 *     the mode, and the owner,    durable by a sync of it
 *         of an inode
 *     one name in a directory     durable by a sync of the directory
 *
 * syncfs makes all of them durable. An inode may have many names: what is synced
 * through one is synced for all. After a cut before call N a fact has the value it
 * had when it was synced last, or any later one; which, depends on the model:
 *
 *     weak     each fact on its own. Data may also be torn, or zeros.
 *     ordered  names and modes come back as they were at one point in time (a journal),
 *              at which any sync puts an end; data each on its own
 *
 * A state is one choice for every fact. Where a cut has few, all are gone through.
 * Elsewhere the two in which all that may be lost is lost or kept, those in which one
 * fact or two differ from them, and random ones.
 *
 * A name that is renamed over has its old or its new value, never none. The name that it
 * had goes on its own: two names may lead to the same directory. The text of a symbolic
 * link comes back with its name: nothing could sync it.
 *
 * With POWER_MUTANT, a switch of the compiler, one class of syncs is not made:
 * "no-file-sync", "no-directory-sync", "no-target-sync-before" or
 * "no-target-sync-after" (the swap). The model must find that.
 */
#ifndef POWER_H
#define POWER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifndef POWER_MUTANT
#define POWER_MUTANT ""
#endif

typedef enum power_type { POWER_FILE, POWER_DIRECTORY, POWER_LINK } power_type;

typedef struct power power; /* a recording */

/* Begin to record. What is in the working directory now counts as durable, or, unless
 * DURABLE, as never synced. */
power *power_record(bool durable);

/* The number of calls so far: the cut after them. */
size_t power_now(const power *p);

/* Let the NUMBER-th sync from now on (1: the next) fail with EIO, and sync nothing. */
void power_fail_sync(power *p, unsigned number);
bool power_has_failed(const power *p);

/* The table of calls is the kernel's again. */
void power_stop(power *p);

void power_free(power *p);

/* ---- a state ----------------------------------------------------------- */

/* All that was done before call CUT, as if nothing were lost. */
void power_newest(power *p, size_t cut);

/* To be used inside of a power_judge function, or after power_newest(). Inodes are
 * numbers; POWER_ROOT is the working directory. */
enum { POWER_NONE = 0, POWER_ROOT = 1 };

/* What NAME in DIR leads to, or POWER_NONE. */
size_t power_entry(const power *p, size_t dir, const char *name);

/* The entries of DIR in byte order: their names in NAMES, at most MAX. */
size_t power_list(const power *p, size_t dir, const char **names, size_t max);

power_type power_type_of(const power *p, size_t inode);
mode_t power_mode(const power *p, size_t inode);
void power_owner(const power *p, size_t inode, uid_t *uid, gid_t *gid);

/* The contents of a file or the text of a link. The string is the model's. */
const char *power_text(const power *p, size_t inode);

/* Make the state in the working directory, which is empty. */
void power_make(const power *p);

/* ---- all of them ------------------------------------------------------- */

/* Called for each state after a cut before call CUT. */
typedef void (*power_judge)(const power *p, size_t cut, void *context);

/* How much of all that there is. */
typedef struct power_effort {
    size_t   stride;  /* every so-manieth cut                                */
    size_t   few;     /* a cut with at most so many states: each of them; else: */
    size_t   pairs;   /* two facts differ where at most so many may          */
    unsigned random;  /* random states                                       */
} power_effort;

/* Go through the cuts FROM to TO. Returns the number of states. */
unsigned long power_enumerate(power *p, size_t from, size_t to, const power_effort *effort,
                              power_judge judge, void *context);

/* Of how many cuts that was every state there is. */
size_t power_in_full(const power *p);

#endif
