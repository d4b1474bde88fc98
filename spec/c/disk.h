/* disk.h: what the specs do to directories and see in them, with plain system
 * calls: nothing of the code under test has a part in it.
 *
 * Paths are relative to the working directory. Strings that are returned are
 * freed by the caller. What cannot fail in a healthy test aborts.
 */
#ifndef DISK_H
#define DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Make PATH with the contents TEXT and the mode MODE, or replace its contents
 * in place. */
void disk_write(const char *path, const char *text, mode_t mode);

/* The contents of the file PATH, or NULL. */
char *disk_read(const char *path);

/* The text of the link PATH, or NULL. */
char *disk_link(const char *path);

/* Whether there is an entry PATH, a dangling link too. */
bool disk_exists(const char *path);

void disk_mkdir(const char *path, mode_t mode);
void disk_symlink(const char *text, const char *path);

/* 0 when there is none. */
ino_t disk_inode(const char *path);

/* -1 when there is none. */
int disk_mode(const char *path);

/* Remove PATH and all below it, whatever it is. */
void disk_remove(const char *path);

/* Names in the directory PATH that begin with PREFIX. */
size_t disk_count(const char *path, const char *prefix);

/* Descriptors that this process has open. */
size_t disk_open_files(void);

/* What a reader of the directory PATH sees: a line per entry, in byte order,
 * "path mode contents" or "path/ mode", long contents as size and hash;
 * "(none)" when there is no such directory. */
char *disk_tree(const char *path);

/* Everything that is there: a line per entry with inode, type, mode, owner,
 * links, size, mtime, and contents or link text, except:
 * the mtime of PATH itself, and the entry "..lock" (its mere presence counts
 * as nothing, too): these may change in a write that fails. */
char *disk_state(const char *path);

/* The same with everything, "..lock", ctimes and the mtime of PATH too. */
char *disk_full_state(const char *path);

#endif
