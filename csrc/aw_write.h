/* aw_write: see the public header. Inside it offers the algorithm to whoever
 * makes a payload in another way. */
#ifndef AW_WRITE_H
#define AW_WRITE_H

#include "atomicwriter.h"
#include "aw_txn.h"

/* Take T through all steps. The caller begins and finishes it. */
int aw_publish(aw_txn *t);

#endif
