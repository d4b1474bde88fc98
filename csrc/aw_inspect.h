/* aw_inspect: see the public header; nothing else is offered inside. */
#ifndef AW_INSPECT_H
#define AW_INSPECT_H

#include "atomicwriter.h"

#endif
