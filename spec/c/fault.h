/* fault.h: faults in the table of system calls.
 *
 * While armed, every call that the core makes through aw_sys is counted; the
 * first one is number 1. A plan says what happens to which:
 *
 *     fault_arm((fault_plan) { .at = 7, .kind = FAULT_FAIL, .code = ENOSPC });
 *     …
 *     fault_disarm();
 *
 * Opening counts as three calls, for the errnos differ: for reading, for writing
 * what is there, and making anew.
 *
 * Syncing calls succeed without doing anything, so that a spec is as quick on a
 * disk as in memory: what the disk does is not what is tested here. One thread
 * only.
 */
#ifndef FAULT_H
#define FAULT_H

#include "aw_sys.h"

typedef enum fault_call {
#define FAULT_NAME(type, name, parameters, arguments) CALL_##name,
    AW_SYS_CALLS(FAULT_NAME)
    AW_SYS_PLAIN_CALLS(FAULT_NAME)
#undef FAULT_NAME
    CALL_openat_writing, /* openat without O_CREAT, but not read-only          */
    CALL_openat_making,  /* openat with O_CREAT or O_TMPFILE                   */
    CALL_COUNT
} fault_call;

typedef enum fault_kind {
    FAULT_NONE,        /* count only                                         */
    FAULT_FAIL,        /* call AT fails with CODE, and is not made; a close
                          closes all the same                                */
    FAULT_STICKY,      /* so do all later ones of the same name              */
    FAULT_SCARCE,      /* so do all later ones, of any name, that can really
                          fail with CODE: a full disk, one turned read-only  */
    FAULT_DEAD,        /* so do all later ones that can fail at all: a disk
                          that is gone                                       */
    FAULT_EVERY,       /* all calls named CALL fail with CODE                */
    FAULT_SHORT,       /* call AT transfers less than was asked for          */
    FAULT_ALWAYS_SHORT,/* and so do all                                      */
    FAULT_EXIT_BEFORE, /* the process ends, call AT is not made              */
    FAULT_EXIT_AFTER   /* the process ends, call AT was made                 */
} fault_kind;

enum { FAULT_EXIT_STATUS = 86 };

typedef struct fault_plan {
    unsigned   at;
    fault_kind kind;
    int        code;
    fault_call call;   /* for FAULT_EVERY                                    */
} fault_plan;

/* From now on, count from 1 and follow PLAN. */
void fault_arm(fault_plan plan);

/* Back to the kernel's own calls. */
void fault_disarm(void);

/* Since fault_arm(): the calls made, and how many were hit by the plan. */
unsigned fault_calls(void);
unsigned fault_hits(void);

/* The name of call number AT in what was counted last; AT <= fault_calls(). */
fault_call fault_call_at(unsigned at);

const char *fault_call_name(fault_call call);

/* The errnos that CALL can really return, 0-terminated, most likely first; EINTR
 * and what means "it is not there" or "it is there already" are not among them. */
const int *fault_codes(fault_call call);

/* Whether PLAN makes calls fail that would have succeeded. */
bool fault_is_failure(const fault_plan *plan);

/* All plans in which call AT, a CALL, goes wrong and the process goes on: it fails
 * once with each code, sticky with the first two, scarce with each that can be a
 * lasting state, dead; is interrupted; falls short. Returns their number. */
enum { FAULT_PLANS_MAX = 32 };
size_t fault_plans(unsigned at, fault_call call, fault_plan plans[FAULT_PLANS_MAX]);

/* "openat fails once with ENOSPC", for a message. The string is static. */
const char *fault_describe(const fault_plan *plan, fault_call call);

#endif
