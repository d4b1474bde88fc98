/* aw_memory: see the header. */
#define _POSIX_C_SOURCE 200809L
#include "aw_memory.h"

#include "aw_error.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK_SIZE = 16 * 1024 };

struct aw_block {
    struct aw_block *next;
    size_t           size;
    char             bytes[];
};

char *aw_arena_take(aw_arena *arena, size_t size)
{
    struct aw_block *block = arena->blocks;

    if (size > arena->left) {
        size_t room = size > BLOCK_SIZE ? size : BLOCK_SIZE;

        block = malloc(sizeof *block + room);
        if (!block)
            return NULL;
        block->size = room;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->left = room;
    }
    arena->left -= size;
    return block ? block->bytes + (block->size - arena->left - size) : NULL;
}

char *aw_arena_copy(aw_arena *arena, const char *bytes, size_t length)
{
    char *copy = aw_arena_take(arena, length + 1);

    if (copy) {
        memcpy(copy, bytes, length);
        copy[length] = '\0';
    }
    return copy;
}

void aw_arena_clear(aw_arena *arena)
{
    while (arena->blocks) {
        struct aw_block *block = arena->blocks;

        arena->blocks = block->next;
        free(block);
    }
    arena->left = 0;
}

int aw_grow(void *array, size_t count, size_t *room, size_t size)
{
    void *old, *grown;
    size_t wanted;

    if (count < *room)
        return 0;
    wanted = *room ? *room * 2 : 16;
    memcpy(&old, array, sizeof old);
    grown = realloc(old, wanted * size);
    if (!grown)
        return -1;
    memcpy(array, &grown, sizeof grown);
    *room = wanted;
    return 0;
}

/* ---- aw_list ----------------------------------------------------------- */

/* The room is not kept: it is 0, or 16, or the next power of two. */
static bool is_full(size_t count)
{
    return count == 0 || (count >= 16 && (count & (count - 1)) == 0);
}

int aw_list_add_part(aw_list *list, const char *text, size_t length, aw_error *err)
{
    size_t room = list->count;
    char *copy;

    if (is_full(list->count)
        && aw_grow(&list->items, list->count, &room, sizeof *list->items) < 0)
        return aw_fail_memory(err);
    copy = malloc(length + 1);
    if (!copy)
        return aw_fail_memory(err);
    memcpy(copy, text, length);
    copy[length] = '\0';
    list->items[list->count++] = copy;
    return 0;
}

int aw_list_add(aw_list *list, const char *string, aw_error *err)
{
    return aw_list_add_part(list, string, strlen(string), err);
}

static int by_bytes(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

void aw_list_sort(aw_list *list)
{
    if (list->count > 1)
        qsort(list->items, list->count, sizeof *list->items, by_bytes);
}

bool aw_list_ends_unsorted(const aw_list *list)
{
    size_t count = list->count;

    return count > 1 && strcmp(list->items[count - 2], list->items[count - 1]) > 0;
}

void aw_list_clear(aw_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

/* ---- aw_result --------------------------------------------------------- */

void aw_result_warn(aw_result *result, const aw_error *err)
{
    char text[AW_ERROR_TEXT_MAX];
    aw_error ignored;

    aw_error_text(err, text, sizeof text);
    (void)aw_list_add(&result->warnings, text, &ignored); /* no memory to warn with */
}

void aw_result_clear(aw_result *result)
{
    static const aw_result empty = AW_RESULT_INIT;

    free(result->version);
    free(result->previous);
    aw_list_clear(&result->added);
    aw_list_clear(&result->updated);
    aw_list_clear(&result->removed);
    aw_list_clear(&result->warnings);
    *result = empty;
}
