/* aw_at: directory first, name second.
 *
 * Nothing here takes a path that is resolved anew: a name is one component,
 * opened with O_NOFOLLOW below a descriptor, and a longer path is walked
 * component by component with a cursor. So a directory that somebody swaps for
 * a symbolic link is an error, never a way out of the target (G7).
 *
 * Functions that return -1 with errno rather than filling an aw_error say so:
 * their callers treat some errors as an answer.
 */
#ifndef AW_AT_H
#define AW_AT_H

#include "atomicwriter.h"
#include "aw_meter.h"
#include "aw_payload.h"

#include <stdalign.h>
#include <stdint.h>
#include <sys/types.h>

/* ---- descriptors ------------------------------------------------------- */

/* Hand *FD over: it is -1 afterwards. */
int aw_take_fd(int *fd);

/* Close *FD unless it is -1, and make it -1. Keeps errno. */
void aw_close_fd(int *fd);

/* Open the directory NAME ("." for DIR itself, with an offset of its own). -1
 * with errno: ENOENT, ENOTDIR or ELOOP say that it is none. */
int aw_at_open_dir(int dir, const char *name);

/* Make the directory NAME, 0700 whatever the umask is, and open it. -1 with
 * errno, and nothing is made. */
int aw_at_make_dir(int dir, const char *name);

/* Open the existing file NAME for reading, without waiting for a FIFO's
 * writer. -1 with errno. */
int aw_at_open_file(int dir, const char *name);

/* ---- a place in a tree ------------------------------------------------- */

/* The directory that is worked on. Two descriptors however deep the tree. */
typedef struct aw_cursor {
    int         root;    /* borrowed                                         */
    int         dir;     /* the current directory; equal to root at the top  */
    const char *path;    /* of dir below root, borrowed from who enters      */
    size_t      length;
    size_t      entered; /* directories, so far                              */
} aw_cursor;

#define AW_CURSOR_INIT(root) { (root), (root), "", 0, 0 }

/* Go to the directory PATH of LENGTH bytes, which must outlive the stay; from
 * the current one when it lies below that, else from the root. -1 with errno,
 * at the root. */
int aw_cursor_enter(aw_cursor *cursor, const char *path, size_t length);

/* Go to the directory that holds PATH, and return PATH's last component; NULL
 * with errno. */
const char *aw_cursor_enter_parent(aw_cursor *cursor, const char *path, size_t length);

/* The same for ITEM's path. */
const char *aw_cursor_enter_for(aw_cursor *cursor, const aw_item *item);

void aw_cursor_close(aw_cursor *cursor);

/* ---- listing ----------------------------------------------------------- */

typedef enum aw_type { AW_FILE, AW_DIRECTORY, AW_LINK, AW_OTHER } aw_type;

/* Entries of a directory without "." and "..", in the order of the disk. */
typedef struct aw_listing {
    int      fd;         /* borrowed                                         */
    uint64_t inode;      /* of the entry that was told last                  */
    size_t   at, end;
    alignas(8) char buffer[8 * 1024];
} aw_listing;

/* List FD, which nobody else lists meanwhile: it has one offset. It is where that is, so
 * at the beginning of a directory that was freshly opened. */
void aw_listing_start(aw_listing *listing, int fd);

/* The same from the beginning. -1 with errno. */
int aw_listing_start_again(aw_listing *listing, int fd);

/* 1 with *NAME (valid until the next call) and *TYPE, 0 at the end, -1 with
 * errno. An entry that vanishes meanwhile is left out. */
int aw_listing_next(aw_listing *listing, const char **name, aw_type *type);

/* ---- contents ---------------------------------------------------------- */

/* Read the link NAME into TEXT of SIZE bytes, NUL-terminated. -1 with errno:
 * EINVAL when it is no link, ENAMETOOLONG when the text does not fit. */
int aw_at_read_link(int dir, const char *name, char *text, size_t size);

/* Write all of DATA, whatever the kernel takes at a time. -1 with errno. */
int aw_write_all(int fd, const char *data, size_t size);

/* Read until SIZE bytes are there or the file ends; the number of bytes, or -1
 * with errno. */
ssize_t aw_read_all(int fd, char *buffer, size_t size);

/* What one copy after the other needs. */
typedef struct aw_copier {
    char     *buffer;    /* made when first needed, freed by the caller      */
    uint64_t *bytes;     /* grows by what was copied                         */
    aw_meter *meter;     /* is told of it                                    */
    aw_error *err;
} aw_copier;

/* Copy the rest of FROM, which errors call SHOWN, to the end of TO: by reflink or
 * in the kernel where that works, else through the buffer. Stops early in a file
 * that grows meanwhile. */
int aw_copy_rest(aw_copier *copier, int from, int to, const char *shown);

/* ---- removal ----------------------------------------------------------- */

/* Remove the directory NAME below DIR and all in it. Never crosses into
 * another file system, never follows a link. That it is not there is no error. */
int aw_at_remove_tree(int dir, const char *name, aw_error *err);

#endif
