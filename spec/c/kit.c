/* kit.c: see kit.h. */
#define _GNU_SOURCE
#include "kit.h"

#include "aw_sys.h"
#include "disk.h"
#include "test.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* How to sync depends on what others have to write: nobody here has anything. */
static int64_t nothing_dirty(void)
{
    return 0;
}

__attribute__((constructor)) static void forget_others(void)
{
    aw_sys.dirty_memory = nothing_dirty;
}

static int run_at_once(pthread_t *thread, void *(*run)(void *), void *argument)
{
    (void)thread;
    (void)run(argument);
    return 0;
}

static int join_nothing(pthread_t thread)
{
    (void)thread;
    return 0;
}

void run_threads_at_once(void)
{
    aw_sys.thread_start = run_at_once;
    aw_sys.thread_join = join_nothing;
}

void check_failed(const char *file_name, int line, const char *call, const aw_error *err)
{
    char text[AW_ERROR_TEXT_MAX];
    test_fail(file_name, line, "%s: %s: %s", call, aw_code_name(err->code),
              aw_error_text(err, text, sizeof text));
}

aw_payload *payload_of(const file *files)
{
    aw_payload *payload = NULL;
    aw_error err;

    CHECK_OK(aw_payload_new(&payload, &err), &err);
    for (; files->path != NULL; files++) {
        aw_entry entry = AW_ENTRY_INIT;

        entry.mode = files->mode;
        if (files->source != NULL) {
            entry.source = files->source;
        } else {
            entry.data = files->data;
            entry.size = strlen(files->data);
        }
        CHECK_OK(aw_payload_add(payload, files->path, strlen(files->path), &entry, &err), &err);
    }
    return payload;
}

aw_options options_keeping(unsigned keep)
{
    aw_options options = AW_OPTIONS_INIT;

    options.keep = keep;
    options.durability = AW_NOT_DURABLE;
    return options;
}

aw_writer *writer_keeping(unsigned keep)
{
    aw_options options = options_keeping(keep);
    aw_writer *writer = NULL;
    aw_error err;

    if (!disk_exists("target"))
        disk_mkdir("target", 0755);
    CHECK_OK(aw_writer_open("target", &options, &writer, &err), &err);
    return writer;
}

int write_keeping(unsigned keep, const file *files, aw_result *result, aw_error *err)
{
    aw_writer *writer = writer_keeping(keep);
    aw_payload *payload = payload_of(files);
    aw_result own = AW_RESULT_INIT;
    int rc = aw_write(writer, payload, NULL, result ? result : &own, err);

    aw_result_clear(&own);
    aw_payload_free(payload);
    aw_writer_close(writer);
    return rc;
}

int write_with(const aw_options *options, const file *files, aw_result *result, aw_error *err)
{
    aw_payload *payload = payload_of(files);
    aw_result own = AW_RESULT_INIT;
    aw_writer *writer = NULL;
    int rc = aw_writer_open("target", options, &writer, err);

    if (rc == 0)
        rc = aw_write(writer, payload, NULL, result ? result : &own, err);
    aw_result_clear(&own);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

void must_write(const file *files)
{
    aw_error err;
    CHECK_OK(write_keeping(1, files, NULL, &err), &err);
}

void project(const char *target, const file *files)
{
    aw_options options = options_keeping(1);
    aw_writer *writer = NULL;
    aw_payload *payload = payload_of(files);
    aw_result result = AW_RESULT_INIT;
    aw_error err;

    options.create = true;
    CHECK_OK(aw_writer_open(target, &options, &writer, &err), &err);
    CHECK_OK(aw_write(writer, payload, NULL, &result, &err), &err);
    aw_result_clear(&result);
    aw_payload_free(payload);
    aw_writer_close(writer);
}

/* ---- situations -------------------------------------------------------- */

void leave_residue(void)
{
    disk_symlink("..2999_01_01_00_00_00.1", "target/..data_tmp");
    disk_mkdir("target/..2999_01_01_00_00_00.1", 0700);
    disk_write("target/..2999_01_01_00_00_00.1/half", "ha", 0600);
    disk_mkdir("target/..2999_01_01_00_00_00.1/d", 0555);
    disk_mkdir("target/..2001_01_01_00_00_00.1_tmp", 0755);
    disk_write("target/..2001_01_01_00_00_00.1_tmp/rest", "", 0644);
    disk_symlink("..data/gone", "target/gone");
    disk_symlink("..data/half", "target/half");
}

void need_root(void)
{
    if (geteuid() != 0)
        test_skip("needs root");
}

const char *in_live(const char *path)
{
    static char full[PATH_MAX];
    char *name = live_name("target");

    snprintf(full, sizeof full, "target/%s/%s", name ? name : "(none)", path);
    free(name);
    return full;
}

/* ---- views ------------------------------------------------------------- */

/* Make the directories that PATH needs below ROOT, and PATH's name in FULL. */
static void make_parents(const char *root, const char *path, char full[PATH_MAX])
{
    snprintf(full, PATH_MAX, "%s/%s", root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        if (!disk_exists(full))
            disk_mkdir(full, 0755);
        *slash = '/';
    }
}

char *tree_of(const file *files)
{
    static const char root[] = "expected";
    char *tree;

    disk_mkdir(root, 0755);
    for (; files->path != NULL; files++) {
        char full[PATH_MAX];
        make_parents(root, files->path, full);
        disk_write(full, files->data, files->mode == AW_UNSET ? 0644 : (mode_t)files->mode);
    }
    tree = disk_tree(root);
    disk_remove(root);
    return tree;
}

char *live_tree(const char *target)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/..data", target);
    return disk_tree(path);
}

char *live_name(const char *target)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/..data", target);
    return disk_link(path);
}

/* ---- cleanliness ------------------------------------------------------- */

static char complaint[2 * PATH_MAX];

static const char *complain(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(complaint, sizeof complaint, format, args);
    va_end(args);
    return complaint;
}

/* As a version's name reads: stamp and number. */
static bool version_shaped(const char *name)
{
    int end = 0;
    unsigned year, month, day, hour, minute, second;
    unsigned long long digits;

    return sscanf(name, "..%4u_%2u_%2u_%2u_%2u_%2u.%llu%n", &year, &month, &day, &hour, &minute,
                  &second, &digits, &end) == 7
           && name[end] == '\0';
}

static bool newer(const char *a, const char *b)
{
    const size_t stamp = strlen("..2026_11_22_15_04_05.");
    int order = strncmp(a, b, stamp);

    return order != 0 ? order > 0
                      : strtoull(a + stamp, NULL, 10) > strtoull(b + stamp, NULL, 10);
}

/* Who made the directory PATH ahead of time still wants it. */
static bool is_held(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0;

    if (fd >= 0)
        close(fd);
    return held;
}

static const char *odd_entry(const char *target, const char *name, const char *live,
                             size_t *retained)
{
    char path[PATH_MAX], link[PATH_MAX], shown[PATH_MAX];
    struct stat st;
    ssize_t length;

    snprintf(path, sizeof path, "%s/%s", target, name);
    if (lstat(path, &st) < 0)
        return complain("%s vanished", name);
    if (strcmp(name, "..data") == 0)
        return NULL;
    if (strcmp(name, "..lock") == 0)
        return S_ISREG(st.st_mode) && (st.st_mode & 07777) == 0600
                   ? NULL : complain("..lock has mode %o", st.st_mode);
    if (version_shaped(name)) {
        if (!S_ISDIR(st.st_mode))
            return complain("%s is no directory", name);
        if (strcmp(name, live) == 0)
            return NULL;
        *retained += 1;
        return newer(name, live) ? complain("%s is newer than the live version", name) : NULL;
    }
    if (strcmp(name, "..next") == 0 && S_ISDIR(st.st_mode) && is_held(path))
        return NULL;
    if (strncmp(name, "..", 2) == 0)
        return complain("%s was left behind", name);
    length = readlink(path, link, sizeof link - 1);
    if (length < 0)
        return complain("%s is no link", name);
    link[length] = '\0';
    snprintf(shown, sizeof shown, "..data/%s", name);
    if (strcmp(link, shown) != 0)
        return complain("%s leads to %s", name, link);
    return stat(path, &st) < 0 ? complain("%s leads nowhere", name) : NULL;
}

/* Every name of the live version must be visible. */
static const char *invisible(const char *target)
{
    char path[PATH_MAX];
    const char *odd = NULL;
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof path, "%s/..data/", target);
    dir = opendir(path);
    if (!dir)
        return complain("..data cannot be listed");
    while (!odd && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", target, entry->d_name);
        if (!disk_exists(path))
            odd = complain("%s is not visible", entry->d_name);
    }
    closedir(dir);
    return odd;
}

const char *unclean(const char *target, const char *tree, size_t keep)
{
    char *live = live_name(target), *seen = live_tree(target);
    const char *odd = NULL;
    size_t retained = 0;
    struct dirent *entry;
    DIR *dir = opendir(target);

    if (!dir || !live || !version_shaped(live))
        odd = complain("..data is %s", live ? live : "missing");
    else if (strcmp(seen, tree) != 0)
        odd = complain("readers see {%s} instead of {%s}", seen, tree);
    while (!odd && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            odd = odd_entry(target, entry->d_name, live, &retained);
    if (dir)
        closedir(dir);
    if (!odd && retained > keep)
        odd = complain("%zu versions are retained, %zu wanted", retained, keep);
    if (!odd)
        odd = invisible(target);
    free(live);
    free(seen);
    return odd;
}

void check_clean(const char *file_name, int line, const char *target, const file *files,
                 size_t keep)
{
    char *tree = tree_of(files);
    const char *odd = unclean(target, tree, keep);

    free(tree);
    if (odd)
        test_fail(file_name, line, "%s: %s", target, odd);
}

const char *joined(const aw_list *list)
{
    static char text[8192];
    size_t used = 0;

    text[0] = '\0';
    for (size_t i = 0; i < list->count && used < sizeof text; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s", i > 0 ? " " : "",
                                 list->items[i]);
    return text;
}
