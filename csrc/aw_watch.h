/* aw_watch: see the public header; nothing else is offered inside. */
#ifndef AW_WATCH_H
#define AW_WATCH_H

#include "atomicwriter.h"

#endif
