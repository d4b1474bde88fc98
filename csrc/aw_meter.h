/* aw_meter: tells the caller's progress hook how far a write has come, and takes
 * its no. No kernel calls, no allocation. Without a hook it only counts.
 */
#ifndef AW_METER_H
#define AW_METER_H

#include "atomicwriter.h"

typedef struct aw_meter {
    const aw_hooks *hooks;   /* borrowed; or NULL                            */
    aw_progress     now;
    uint64_t        untold;  /* bytes since the hook was last called         */
} aw_meter;

#define AW_METER_INIT(hooks) { (hooks), { AW_COMPARING, 0, 0, 0 }, 0 }

/* Whether there is a hook to call. */
bool aw_meter_calls(const aw_meter *meter);

/* The functions below return 0, or -1 with AW_E_CANCELLED. */

/* A phase begins, with TOTAL files to do. */
int aw_meter_begin(aw_meter *meter, aw_phase phase, size_t total, aw_error *err);

/* COUNT more files are done; 0 to be asked and nothing more. */
int aw_meter_files(aw_meter *meter, size_t count, aw_error *err);

/* So many BYTES more were read or written. The hook is called once a MiB or more
 * is untold. */
int aw_meter_bytes(aw_meter *meter, size_t bytes, aw_error *err);

#endif
