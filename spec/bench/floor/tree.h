/* The files that the floor works on, and the steps that its works share.
 *
 * All names are known beforehand, nothing is checked, and what fails ends the
 * program: this is the least that the kernel must be asked for. */
#ifndef FLOOR_TREE_H
#define FLOOR_TREE_H

#include <stdbool.h>
#include <stddef.h>

enum { SIZE = 1024, PER_DIRECTORY = 100, NAME = 48 };

typedef enum durability {
    NOT_DURABLE,
    FSYNC_EACH,   /* each file when it has been written                      */
    FLUSH_FIRST,  /* write-back begins with each file, all are synced at last */
    SYNCFS        /* the whole file system, once                             */
} durability;

typedef struct tree {
    int    target;                   /* the directory with "..data"          */
    size_t count;                    /* of files                             */
    char (*names)[NAME];             /* of files, in their directory         */
    char (*paths)[NAME];             /* of files, in the version             */
    char (*directories)[NAME];
    size_t directory_count;          /* 0: all files at the top              */
    int   *open;                     /* with FLUSH_FIRST, files yet to sync  */
    durability how;
} tree;

/* The live version and the one that takes its place, and the data to write. */
typedef struct turn {
    const char *old, *new, *text;
} turn;

/* End the program, saying WHAT failed, unless all is GOOD. */
void need(bool good, const char *what);

void tree_init(tree *t, size_t count, bool flat, durability how);
void tree_clear(tree *t);

/* The visible names, which point into "..data": they are there before and after. */
void tree_show(const tree *t);
void tree_hide(const tree *t);

/* The directory of file I in the version AT. Files come in order, so *BELOW, -1 at
 * first, is kept from one to the next; tree_leave() closes it. */
int  tree_enter(const tree *t, int at, size_t i, int *below);
void tree_leave(int *below);

int  version_open(const tree *t, const char *version);
int  version_make(const tree *t, const char *version);
void version_remove(const tree *t, const char *version);

/* Write the file I, NAME in the directory DIR, as durably as T says. */
void file_write(const tree *t, int dir, size_t i, const char *name, const char *text);

/* Sync what is left to sync of the version AT and of its target: all files were
 * written, or but the one with the index ONLY. */
enum { ALL = -1 };
void version_sync(const tree *t, int at, long only);

/* Rename over "..data", and remove the old version, if any. */
void version_publish(const tree *t, const turn *now);

#endif
