/* aw_memo: see the header. */
#define _POSIX_C_SOURCE 200809L
#include "aw_memo.h"

#include "aw_at.h"
#include "aw_sys.h"

#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>

/* A payload that was changed since says something else. */
bool aw_memo_speaks_of(const aw_memo *memo, const char *version, dev_t device)
{
    return memo->payload && memo->payload->count == memo->count
           && memo->payload->replaced == memo->replaced && memo->device == device
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
aw_print aw_print_of(const struct stat *st, aw_clock clock, const aw_stamp *now)
{
    aw_print print = { st->st_ino, aw_stamp_of_data(st), aw_stamp_of(st) };
    bool told = clock == AW_CLOCK_MULTIGRAIN && print.ctime.nsec != 0;

    if (clock == AW_CLOCK_NONE || !aw_stamp_is_settled(told ? &print.mtime : &print.ctime, now))
        print.inode = 0;
    return print;
}

void aw_memo_set_line(aw_memo *memo, const aw_stamp *line)
{
    memo->to = *line;
    if (line->nsec == 0) {
        free(memo->prints);
        memo->prints = NULL;
    }
}

bool aw_memo_knows(const aw_memo *memo, size_t index, const struct stat *st)
{
    const aw_print *print = &memo->prints[index];
    aw_stamp mtime = aw_stamp_of_data(st), ctime = aw_stamp_of(st);

    if (print->inode == 0 || print->inode != st->st_ino)
        return false;
    if (aw_stamp_compare(&ctime, &print->ctime) == 0)
        return true;
    return aw_stamp_compare(&mtime, &print->mtime) == 0
           && aw_stamp_compare(&ctime, &memo->from) >= 0
           && aw_stamp_compare(&ctime, &memo->to) < 0;
}

static uint64_t mix(uint64_t sketch, uint64_t word)
{
    const uint64_t odd = 0x9e3779b97f4a7c15;

    sketch = (sketch ^ word) * odd;
    return sketch ^ sketch >> 29;
}

bool aw_memo_sketch(int version, const aw_payload *payload, aw_look_fn look, void *context,
                    uint64_t *sketch)
{
    aw_cursor cursor = AW_CURSOR_INIT(version);
    bool good = true;

    *sketch = 0;
    for (size_t i = 0; good && i < payload->folder_count; i++) {
        const aw_folder *folder = &payload->folders[i];
        aw_stamp stamp;
        struct stat st;

        good = aw_cursor_enter(&cursor, folder->path, folder->length) == 0
               && aw_sys_fstat(cursor.dir, &st) == 0
               && (!look || look(context, i, cursor.dir, &st));
        if (!good)
            break;
        stamp = aw_stamp_of(&st);
        *sketch = mix(*sketch, st.st_ino);
        *sketch = mix(*sketch, (uint64_t)stamp.sec);
        *sketch = mix(*sketch, (uint64_t)stamp.nsec);
    }
    aw_cursor_close(&cursor);
    return good;
}
