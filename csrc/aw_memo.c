/* aw_memo: see the header. */
#define _POSIX_C_SOURCE 200809L
#include "aw_memo.h"

#include "aw_at.h"
#include "aw_sys.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>

/* A payload that was given more files since has others at the same places. */
bool aw_memo_speaks_of(const aw_memo *memo, const char *version, dev_t device)
{
    return memo->payload && memo->payload->count == memo->count && memo->device == device
           && strcmp(memo->version, version) == 0;
}

void aw_memo_drop(aw_memo *memo)
{
    static const aw_memo blank = AW_MEMO_INIT;

    free(memo->prints);
    *memo = blank;
}

void aw_memo_clear(aw_memo *memo)
{
    aw_payload_free(memo->payload);
    aw_memo_drop(memo);
}

aw_clock aw_clock_of(int fd)
{
    switch (aw_sys_file_system_type(fd)) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
        return aw_sys_kernel_at_least(6, 13) ? AW_CLOCK_MULTIGRAIN : AW_CLOCK_TICKING;
    case F2FS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
        return AW_CLOCK_TICKING;
    default:
        return AW_CLOCK_NONE;
    }
}

/* Without nanoseconds a stamp is not multigrain, whatever the file system can: an
 * ext4 with small inodes. What changes a ctime alone, such as a link, is done at once. */
aw_print aw_print_of(const struct stat *st, aw_clock clock)
{
    aw_print print = { st->st_ino, { st->st_mtim.tv_sec, st->st_mtim.tv_nsec }, aw_stamp_of(st) };
    bool told = clock == AW_CLOCK_MULTIGRAIN && print.ctime.nsec != 0;

    if (clock == AW_CLOCK_NONE || !aw_stamp_is_settled(told ? &print.mtime : &print.ctime))
        print.inode = 0;
    return print;
}

bool aw_print_matches(const aw_print *print, const struct stat *st)
{
    return print->inode != 0 && print->inode == st->st_ino
           && print->ctime.sec == st->st_ctim.tv_sec && print->ctime.nsec == st->st_ctim.tv_nsec;
}

static bool same_stamp(const aw_stamp *a, const aw_stamp *b)
{
    return a->sec == b->sec && a->nsec == b->nsec;
}

static aw_print look_at(aw_cursor *cursor, const aw_item *item, const aw_print *known,
                        aw_clock clock)
{
    const char *name = aw_cursor_enter_parent(cursor, item->path, item->length);
    aw_print print = { 0, { 0, 0 }, { 0, 0 } };
    struct stat st;

    if (!name || aw_sys_fstatat(cursor->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return print;
    print = aw_print_of(&st, clock);
    if (print.inode != known->inode || !same_stamp(&print.mtime, &known->mtime))
        print.inode = 0;
    return print;
}

void aw_memo_look_again(aw_memo *memo, int version)
{
    aw_cursor cursor = AW_CURSOR_INIT(version);

    for (size_t i = 0; memo->prints && i < memo->payload->count; i++) {
        aw_print *print = &memo->prints[i];

        if (print->inode != 0)
            *print = look_at(&cursor, &memo->payload->items[i], print, memo->clock);
    }
    aw_cursor_close(&cursor);
}
