/* aw_rules: see the header. */
#define _GNU_SOURCE /* O_TMPFILE */
#include "aw_rules.h"

#include "aw_error.h"
#include "aw_name.h"
#include "aw_sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

aw_rules aw_rules_for(const struct stat *target, const aw_options *options)
{
    bool group = target && (target->st_mode & S_ISGID);
    aw_rules rules = { .options = options, .natural_uid = aw_sys_geteuid(), .probed = !target };

    rules.natural_gid = group ? target->st_gid : aw_sys_getegid();
    return rules;
}

static aw_wish wish(const aw_rules *rules, int mode, int default_mode, int64_t uid, int64_t gid)
{
    aw_wish result;

    if (uid == AW_UNSET)
        uid = rules->options->uid;
    if (gid == AW_UNSET)
        gid = rules->options->gid;
    result.mode = (mode_t)(mode == AW_UNSET ? default_mode : mode);
    result.uid = uid == AW_UNSET ? rules->natural_uid : (uid_t)uid;
    result.gid = gid == AW_UNSET ? rules->natural_gid : (gid_t)gid;
    result.chown_uid = (uid_t)uid; /* AW_UNSET is also chown's "leave it" */
    result.chown_gid = (gid_t)gid;
    return result;
}

aw_wish aw_wish_for_item(const aw_rules *rules, const aw_item *item)
{
    return wish(rules, item->mode, rules->options->default_mode, item->uid, item->gid);
}

aw_wish aw_wish_for_folder(const aw_rules *rules, const aw_folder *folder)
{
    return wish(rules, folder->mode, rules->options->dir_mode, folder->uid, folder->gid);
}

/* From one without a name; or, where the file system has no such files (NFS), and nobody else
 * writes, from "..data_tmp". */
void aw_rules_probe(aw_rules *rules, int target)
{
    int fd = aw_sys_openat(target, ".", O_TMPFILE | O_WRONLY, 0600);
    struct stat st;

    rules->probed = true;
    if (fd < 0 && rules->locked) {
        fd = aw_sys_openat(target, AW_NAME_DATA_TMP, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW,
                           0600);
        if (fd >= 0)
            (void)aw_sys_unlinkat(target, AW_NAME_DATA_TMP, 0); /* else (10) fails, and tells */
    }
    if (fd >= 0 && aw_sys_fstat(fd, &st) == 0) {
        rules->natural_uid = st.st_uid;
        rules->natural_gid = st.st_gid;
    }
    aw_close_fd(&fd);
}

int aw_item_open(const aw_item *item, aw_cursor *origin, aw_error *err)
{
    const char *shown = item->source ? item->source : item->path;
    struct stat st;
    int fd = -1;

    if (item->source) {
        fd = aw_sys_openat(AT_FDCWD, item->source, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    } else {
        const char *name = aw_cursor_enter_for(origin, item);

        if (name)
            fd = aw_at_open_file(origin->dir, name);
    }
    if (fd < 0) {
        aw_fail_io(err, "openat", shown);
        if (item->source)
            snprintf(err->detail, sizeof err->detail, "the source of '%.400s' cannot be opened",
                     item->path);
        return -1;
    }
    if (aw_sys_fstat(fd, &st) < 0) {
        aw_fail_io(err, "fstat", shown);
        aw_close_fd(&fd);
    } else if (!S_ISREG(st.st_mode)) {
        aw_fail(err, AW_E_INVALID_PAYLOAD, item->path,
                "invalid source '%.400s': it is no regular file", shown);
        aw_close_fd(&fd);
    }
    return fd;
}
