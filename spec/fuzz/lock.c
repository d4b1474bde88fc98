/* lock.c: what stands in a target that anybody may have written: the note in "..lock"
 * and the texts of links. The bytes are what the kernel gives for each of them, a NUL
 * byte and all.
 *
 * A note that is believed is about a version and survives being written and read again;
 * one that is not of its full length is none. "..data" is believed when it is a version's
 * name (name.c holds those against an oracle), a visible link when it reads "..data/NAME".
 */
#include "aw_current.h"
#include "aw_lock.h"
#include "aw_name.h"
#include "aw_sys.h"
#include "fuzz.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

enum { NOTE_SIZE = 250, DIR = 40, LOCK = 41 };

/* What the replaced calls give and take. */
static slice stored, text;
static char written[2 * NOTE_SIZE];
static size_t written_size;

static ssize_t give(slice from, void *buffer, size_t size)
{
    if (from.size < size)
        size = from.size;
    if (size > 0)
        memcpy(buffer, from.at, size);
    return (ssize_t)size;
}

static ssize_t fake_pread(int fd, void *buffer, size_t size, off_t at)
{
    REQUIRE(fd == LOCK && at == 0);
    return give(stored, buffer, size);
}

static ssize_t fake_pwrite(int fd, const void *data, size_t size, off_t at)
{
    REQUIRE(fd == LOCK && at == 0 && size <= sizeof written);
    memcpy(written, data, size);
    written_size = size;
    return (ssize_t)size;
}

static ssize_t fake_readlinkat(int dir, const char *name, char *buffer, size_t size)
{
    REQUIRE(dir == DIR && name[0] != '\0');
    if (text.size == 0) { /* a link is never empty */
        errno = ENOENT;
        return -1;
    }
    return give(text, buffer, size);
}

static bool same_note(const aw_note *a, const aw_note *b)
{
    return strcmp(a->version, b->version) == 0 && a->inode == b->inode
           && a->version_stamp.sec == b->version_stamp.sec
           && a->version_stamp.nsec == b->version_stamp.nsec && a->durable == b->durable
           && a->clean == b->clean && a->synced == b->synced && a->retained == b->retained
           && a->target_stamp.sec == b->target_stamp.sec
           && a->target_stamp.nsec == b->target_stamp.nsec;
}

static void check_note(slice bytes)
{
    static const aw_note none = AW_NOTE_INIT;
    const aw_lock held = { LOCK, true, 0600 };
    aw_note note, again;

    stored = bytes;
    aw_lock_read_note(LOCK, &note);
    if (bytes.size < NOTE_SIZE)
        REQUIRE(note.version[0] == '\0');
    if (note.version[0] == '\0') {
        REQUIRE(same_note(&note, &none));
        return;
    }
    REQUIRE(aw_name_is_version(note.version));
    REQUIRE(memcmp(note.version, bytes.at, strlen(note.version)) == 0
            || strchr(" \t\n\v\f\r", bytes.at[0]));
    written_size = 0;
    aw_lock_write_note(&held, &note);
    REQUIRE(written_size == NOTE_SIZE && written[NOTE_SIZE - 1] == '\n');
    REQUIRE(memchr(written, '\n', NOTE_SIZE) == written + NOTE_SIZE - 1);
    stored = (slice) { written, written_size };
    aw_lock_read_note(LOCK, &again);
    REQUIRE(same_note(&note, &again));
}

static void check_note_in_full(slice bytes)
{
    char full[NOTE_SIZE];

    memset(full, ' ', sizeof full);
    memcpy(full, bytes.at, bytes.size < NOTE_SIZE ? bytes.size : NOTE_SIZE - 1);
    full[NOTE_SIZE - 1] = '\n';
    check_note((slice) { full, NOTE_SIZE });
}

static void check_data_link(void)
{
    bool longer = text.size >= AW_VERSION_MAX;
    char name[AW_VERSION_MAX] = "untouched", plain[AW_VERSION_MAX] = "";
    aw_error err;
    int rc = aw_live_name(DIR, name, &err);

    if (!longer && text.size > 0)
        memcpy(plain, text.at, text.size);
    if (text.size == 0) {
        REQUIRE(rc == 0 && name[0] == '\0');
    } else if (!longer && aw_name_is_version(plain)) {
        REQUIRE(rc == 0 && strcmp(name, plain) == 0 && !strchr(name, '/'));
    } else {
        REQUIRE(rc < 0 && err.code == AW_E_FOREIGN_ENTRY && !err.committed);
        REQUIRE(strcmp(name, "untouched") == 0);
    }
}

/* NAME is what the text would have to lead to. */
static void check_visible_link(void)
{
    static const char prefix[] = "..data/";
    const size_t start = sizeof prefix - 1;
    char name[NAME_MAX + 1] = "x";
    bool ours = false;
    aw_found found = { name, true, 0 };
    aw_error err;

    if (text.size > start && text.size - start <= NAME_MAX) {
        memcpy(name, text.at + start, text.size - start);
        name[text.size - start] = '\0';
        ours = memcmp(text.at, prefix, start) == 0;
    }
    if (text.size == 0)
        REQUIRE(aw_found_whose(DIR, &found, &err) == AW_GONE);
    if (text.size == 0 || name[0] == '\0')
        return;
    REQUIRE(aw_found_whose(DIR, &found, &err) == (ours ? AW_OURS : AW_THEIRS));
    found.link = false;
    REQUIRE(aw_found_whose(DIR, &found, &err) == AW_THEIRS);
    found.link = true;
    found.name = "no other name";
    ours = ours && strcmp(name, found.name) == 0;
    REQUIRE(aw_found_whose(DIR, &found, &err) == (ours ? AW_OURS : AW_THEIRS));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    slice input = { size > 0 ? (const char *)bytes : "", size };
    aw_sys_table kept = aw_sys;

    aw_sys.pread = fake_pread;
    aw_sys.pwrite = fake_pwrite;
    aw_sys.readlinkat = fake_readlinkat;
    check_note(input);
    check_note_in_full(input);
    text = input;
    if (size > 0 && memchr(bytes, '\0', size)) /* no link has one */
        text.size = strlen(input.at);
    check_data_link();
    check_visible_link();
    aw_sys = kept;
    return 0;
}
