/* kit.h: payloads as literals, writers that cannot fail to open, and the one
 * question that most specs end with: is the target clean?
 */
#ifndef KIT_H
#define KIT_H

#include "atomicwriter.h"

#include <stddef.h>

typedef struct file {
    const char *path;
    const char *data;    /* with a source: what it contains                  */
    int         mode;    /* or AW_UNSET                                      */
    const char *source;  /* or NULL                                          */
} file;

/* FILES(F("a", "1"), FM("b/c", "2", 0600)), ended by a NULL path. */
#define F(path, data)          { path, data, AW_UNSET, NULL }
#define FM(path, data, mode)   { path, data, mode, NULL }
#define FS(path, source, data) { path, data, AW_UNSET, source }
#define FILES(...)             ((const file[]) { __VA_ARGS__, { NULL, NULL, 0, NULL } })
#define NO_FILES               ((const file[]) { { NULL, NULL, 0, NULL } })

aw_payload *payload_of(const file *files);

/* Not durable, so that specs are quick, and retaining KEEP versions. */
aw_options options_keeping(unsigned keep);

/* For the directory "target", which is made if it is missing. */
aw_writer *writer_keeping(unsigned keep);

/* One write of FILES with a writer of its own; RESULT may be NULL. */
int write_keeping(unsigned keep, const file *files, aw_result *result, aw_error *err);

/* The same with options of one's own, for an existing "target". */
int write_with(const aw_options *options, const file *files, aw_result *result, aw_error *err);

/* A write of FILES retaining one version, which ends the test if it fails. */
void must_write(const file *files);

/* From now on a thread's work is done in the call that would start it, so that its calls and
 * its allocations are the caller's. */
void run_threads_at_once(void);

/* The same into TARGET, which is made if it is missing. */
void project(const char *target, const file *files);

/* All that a killed writer can leave in "target". */
void leave_residue(void);

/* Skip the test unless we are root. */
void need_root(void);

/* PATH in the live version of "target". The string is static. */
const char *in_live(const char *path);

/* What disk_tree() shows of a version that holds FILES. Freed by the caller. */
char *tree_of(const file *files);

/* What disk_tree() shows of the live version. Freed by the caller. */
char *live_tree(const char *target);

/* What "..data" reads, or NULL. Freed by the caller. */
char *live_name(const char *target);

/* NULL if TARGET shows TREE (see tree_of) and holds nothing that does not
 * belong there, with at most KEEP retained versions; else what is wrong. The
 * string is static. */
const char *unclean(const char *target, const char *tree, size_t keep);

/* The same for FILES; ends the test. */
#define CHECK_CLEAN(target, files, keep) \
    check_clean(__FILE__, __LINE__, target, files, keep)
void check_clean(const char *file_name, int line, const char *target, const file *files,
                 size_t keep);

/* A call that must succeed; ends the test with the error's text. */
#define CHECK_OK(call, err) \
    ((call) == 0 ? (void)0 : check_failed(__FILE__, __LINE__, #call, err))
_Noreturn void check_failed(const char *file_name, int line, const char *call,
                            const aw_error *err);

/* "a b c", for comparing lists at a glance. The string is static. */
const char *joined(const aw_list *list);

#endif
