/* aw_name: the names that begin with "..". Pure: no kernel, no allocation.
 *
 * A version is ".." + UTC "YYYY_MM_DD_hh_mm_ss" + "." + 1 to 19 digits; a
 * kubelet's digits are a random number of up to ten, ours are nanoseconds.
 * Order: by time, then by the digits as a number.
 *
 * INV-1: our names only ever increase. A version directory that is newer than
 * what "..data" names has therefore never been live: a killed writer left it.
 */
#ifndef AW_NAME_H
#define AW_NAME_H

#include "atomicwriter.h"

#include <time.h>

#define AW_NAME_DATA     "..data"
#define AW_NAME_DATA_TMP "..data_tmp"
#define AW_NAME_LOCK     "..lock"
#define AW_NAME_NEXT     "..next" /* see aw_ahead */

/* What a version is called while it is being removed. Like "..data_tmp" it
 * exists only inside a write, and the next one sweeps it. */
#define AW_NAME_RETIRED_SUFFIX "_tmp"

/* Whether NAME is shaped like a version. */
bool aw_name_is_version(const char *name);

/* Whether NAME is a version's name with AW_NAME_RETIRED_SUFFIX. */
bool aw_name_is_retired(const char *name);

/* Order of two versions' names: negative, 0 or positive. */
int aw_name_compare(const char *a, const char *b);

/* Seconds since 1970 UTC. */
int64_t aw_name_time(const char *version);

/* A name for NOW that is greater than NEWEST ("" for none), also when the
 * clock was set back. Returns -1 if there is none: NEWEST is at the end of the
 * year 9999 or is no real date. */
int aw_name_next(const struct timespec *now, const char *newest, char name[AW_VERSION_MAX]);

#endif
