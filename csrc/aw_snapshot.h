/* aw_snapshot: see the public header. Inside it offers what every opener of a
 * target shares. */
#ifndef AW_SNAPSHOT_H
#define AW_SNAPSHOT_H

#include "atomicwriter.h"

/* PATH from the root on, so that a later chdir does not matter; no link is
 * resolved. *ABSOLUTE is freed by the caller. */
int aw_target_absolute(const char *path, char **absolute, aw_error *err);

/* Open the directory TARGET, following links, for it is the user's own path.
 * AW_E_NO_TARGET if there is none, and errno ENOENT or ENOTDIR then says which.
 * Returns the descriptor, or -1. */
int aw_target_open(const char *target, aw_error *err);

#endif
