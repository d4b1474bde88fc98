/* aw_write: see the public header; nothing else is offered inside. */
#ifndef AW_WRITE_H
#define AW_WRITE_H

#include "atomicwriter.h"

#endif
