/* aw_memory: an arena for names, arrays that grow, aw_list and aw_result.
 *
 * The arena frees everything at once, which is all that a payload or a
 * directory listing needs: ten thousand paths, a few dozen mallocs.
 */
#ifndef AW_MEMORY_H
#define AW_MEMORY_H

#include "atomicwriter.h"

typedef struct aw_arena {
    struct aw_block *blocks;  /* the newest first                            */
    size_t           left;    /* bytes unused at the end of the newest       */
} aw_arena;

#define AW_ARENA_INIT { NULL, 0 }

/* SIZE bytes that live as long as the arena, unaligned; NULL: no memory. */
char *aw_arena_take(aw_arena *arena, size_t size);

/* A copy of LENGTH bytes with a NUL byte behind them. */
char *aw_arena_copy(aw_arena *arena, const char *bytes, size_t length);

void aw_arena_clear(aw_arena *arena);

/* Room for one more element of SIZE bytes in *ARRAY, which holds COUNT and has
 * room for *ROOM. Returns 0, or -1 with *ARRAY as it was. */
int aw_grow(void *array, size_t count, size_t *room, size_t size);

/* Append a copy of STRING, or of LENGTH bytes of TEXT. */
int aw_list_add(aw_list *list, const char *string, aw_error *err);
int aw_list_add_part(aw_list *list, const char *text, size_t length, aw_error *err);

/* Add to RESULT's warnings what ERR says. */
void aw_result_warn(aw_result *result, const aw_error *err);

/* Byte order. */
void aw_list_sort(aw_list *list);

/* Whether the last string comes before the one that was added before it. */
bool aw_list_ends_unsorted(const aw_list *list);

#endif
