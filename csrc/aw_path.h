/* aw_path: payload paths as text. Pure: no kernel, no allocation. */
#ifndef AW_PATH_H
#define AW_PATH_H

#include "atomicwriter.h"

enum {
    AW_COMPONENT_MAX = 255,   /* bytes of one name, without a NUL            */
    AW_PATH_BYTES_MAX = 4096  /* bytes of a payload path, without a NUL      */
};

/* Clean PATH of LENGTH bytes into CLEAN (room for LENGTH + 1 bytes), as Go's
 * path.Clean would but without ever resolving "..", which is refused like
 * everything else that aw_payload_add() lists. CLEAN is NUL-terminated. */
int aw_path_clean(const char *path, size_t length, char *clean, size_t *clean_length,
                  aw_error *err);

/* Tree order: like byte order, but "/" sorts before every other byte, so that a
 * directory is followed at once by all that lies below it. */
int aw_path_compare(const char *a, size_t a_length, const char *b, size_t b_length);

/* Whether PATH lies below DIRECTORY; everything lies below "". */
bool aw_path_below(const char *path, size_t length, const char *directory,
                   size_t directory_length);

/* The length of PATH's directory ("" for a top-level name). */
size_t aw_path_parent(const char *path, size_t length);

/* PATH's last component. */
const char *aw_path_base(const char *path, size_t length);

/* The length of PATH's first component: its visible name. */
size_t aw_path_first(const char *path, size_t length);

#endif
