/* aw_versions: see the public header; nothing else is offered inside. */
#ifndef AW_VERSIONS_H
#define AW_VERSIONS_H

#include "atomicwriter.h"

#endif
