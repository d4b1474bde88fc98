/* payload_test.c: what a payload may hold, and what is refused before the disk
 * is touched.
 */
#include "aw_path.h"
#include "aw_payload.h"
#include "kit.h"
#include "test.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static int add(aw_payload *payload, const char *path, const aw_entry *entry, aw_error *err)
{
    return aw_payload_add(payload, path, strlen(path), entry, err);
}

static int add_text(aw_payload *payload, const char *path, aw_error *err)
{
    aw_entry entry = AW_ENTRY_INIT;
    entry.data = "x";
    entry.size = 1;
    return add(payload, path, &entry, err);
}

TEST(refused_path, "a refused path is named in the error and leaves the payload as it was")
{
    static const char *const paths[] = { "", ".", "/etc/passwd", "a/../b", "./..data/x", "..lock" };
    aw_payload *payload = payload_of(FILES(F("a", "1"), F("b/c", "2")));

    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        aw_error err;
        CHECK_THAT(add_text(payload, paths[i], &err) < 0, "\"%s\" was taken", paths[i]);
        CHECK(err.code == AW_E_INVALID_PAYLOAD);
        CHECK_TEXT(err.path, paths[i]);
        CHECK(aw_payload_count(payload) == 2);
    }
    aw_payload_free(payload);
}

TEST(modes, "modes are 0 to 0777, and decimal 644 is refused")
{
    static const struct { int mode; bool good; } cases[] = {
        { 0, true }, { 0644, true }, { 0777, true }, { AW_UNSET, true }, { 01000, false },
        { 04755, false }, { 644, false }, { 755, false }, { -2, false }, { INT_MAX, false },
        { INT_MIN, false },
    };
    aw_payload *payload = payload_of(NO_FILES);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        aw_entry entry = AW_ENTRY_INIT;
        char path[32];
        aw_error err;
        entry.mode = cases[i].mode;
        snprintf(path, sizeof path, "f%zu", i);
        CHECK_THAT((add(payload, path, &entry, &err) == 0) == cases[i].good, "mode %d", cases[i].mode);
        if (!cases[i].good) {
            CHECK(err.code == AW_E_INVALID_PAYLOAD);
            CHECK_TEXT(err.path, path);
        }
    }
    aw_payload_free(payload);
}

TEST(owners, "owners are 0 to 4294967294")
{
    static const struct { int64_t id; bool good; } cases[] = {
        { 0, true }, { 65534, true }, { 4294967294, true }, { AW_UNSET, true },
        { 4294967295, false }, { 4294967296, false }, { -2, false }, { INT64_MAX, false },
        { INT64_MIN, false },
    };
    aw_payload *payload = payload_of(NO_FILES);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        aw_entry user = AW_ENTRY_INIT, group = AW_ENTRY_INIT;
        aw_error err;
        user.uid = group.gid = cases[i].id;
        CHECK_THAT((add(payload, "u", &user, &err) == 0) == cases[i].good, "uid %lld",
                   (long long)cases[i].id);
        CHECK(cases[i].good || err.code == AW_E_INVALID_PAYLOAD);
        CHECK_THAT((add(payload, "g", &group, &err) == 0) == cases[i].good, "gid %lld",
                   (long long)cases[i].id);
        CHECK(cases[i].good || err.code == AW_E_INVALID_PAYLOAD);
    }
    aw_payload_free(payload);
}

TEST(data_or_source, "an entry has data or a source, not both, and no size without data")
{
    aw_payload *payload = payload_of(NO_FILES);
    aw_entry entry = AW_ENTRY_INIT;
    aw_error err;

    entry.data = "x";
    entry.source = "/etc/hostname";
    CHECK(add(payload, "a", &entry, &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    entry = (aw_entry)AW_ENTRY_INIT;
    entry.source = "";
    CHECK(add(payload, "a", &entry, &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    entry = (aw_entry)AW_ENTRY_INIT;
    entry.size = 3;
    CHECK(add(payload, "a", &entry, &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    CHECK(aw_payload_count(payload) == 0);
    aw_payload_free(payload);
}

static bool clashes(const file *files, const char *path)
{
    aw_payload *payload = payload_of(files);
    aw_error err;
    bool refused = aw_payload_seal(payload, &err) < 0;

    if (refused) {
        CHECK(err.code == AW_E_INVALID_PAYLOAD);
        CHECK_TEXT(err.path, path);
    }
    aw_payload_free(payload);
    return refused;
}

TEST(clash, "two keys of one cleaned path, and a key that is another's directory, are refused")
{
    CHECK(clashes(FILES(F("a", "1"), F("a", "2")), "a"));
    CHECK(clashes(FILES(F("a/b", "1"), F("x", ""), F("a//b", "2")), "a/b"));
    CHECK(clashes(FILES(F("./a", "1"), F("a/", "2")), "a"));
    CHECK(clashes(FILES(F("a", "1"), F("a/b", "2")), "a"));
    CHECK(clashes(FILES(F("a/b/c/d", "1"), F("a/b", "2")), "a/b"));
    CHECK(clashes(FILES(F("a", ""), F("a-b", ""), F("a.b", ""), F("a b", ""), F("a/b", "")), "a"));
    CHECK(!clashes(FILES(F("a/b", "1"), F("a/c", "2"), F("ab", "3"), F("a-b/c", "4")), ""));
    CHECK(!clashes(NO_FILES, ""));
}

TEST(clash_among_many, "a clash is found among thousands of keys, whatever the order")
{
    aw_payload *payload = payload_of(NO_FILES);
    aw_error err;

    for (int i = 0; i < 5000; i++) {
        char path[64];
        snprintf(path, sizeof path, "d%d/e%d/f%d", i * 7919 % 100, i * 104729 % 50, i);
        CHECK_OK(add_text(payload, path, &err), &err);
    }
    CHECK_OK(aw_payload_seal(payload, &err), &err);
    CHECK_OK(add_text(payload, "d57/e37", &err), &err);
    CHECK(aw_payload_seal(payload, &err) < 0);
    CHECK_TEXT(err.path, "d57/e37");
    CHECK(aw_payload_count(payload) == 5001);
    aw_payload_free(payload);
}

TEST(too_deep, "a path too long to be opened below the target is refused by name")
{
    aw_payload *payload = payload_of(NO_FILES);
    char path[4097];
    aw_error err;

    for (size_t i = 0; i < 4000; i++)
        path[i] = i % 10 == 9 ? '/' : 'x';
    path[4000] = '\0';
    path[3999] = 'x';
    CHECK_OK(add_text(payload, "short", &err), &err);
    CHECK_OK(add_text(payload, path, &err), &err);
    CHECK_OK(aw_payload_seal(payload, &err), &err);
    CHECK_OK(aw_payload_fits(payload, 10, &err), &err);
    CHECK(aw_payload_fits(payload, 100, &err) < 0);
    CHECK(err.code == AW_E_INVALID_PAYLOAD);
    CHECK_TEXT(err.path, path);
    aw_payload_free(payload);
}

TEST(shows, "a name is visible when it is the first component of a path")
{
    aw_payload *payload = payload_of(FILES(F("a/b", ""), F("a-b", ""), F("a/c", ""), F("z", ""),
                                           F("m/n/o", ""), F("\xff", "")));
    aw_error err;

    CHECK_OK(aw_payload_seal(payload, &err), &err);
    CHECK(aw_payload_shows(payload, "a"));
    CHECK(aw_payload_shows(payload, "a-b"));
    CHECK(aw_payload_shows(payload, "z"));
    CHECK(aw_payload_shows(payload, "m"));
    CHECK(aw_payload_shows(payload, "\xff"));
    CHECK(!aw_payload_shows(payload, "n"));
    CHECK(!aw_payload_shows(payload, "b"));
    CHECK(!aw_payload_shows(payload, "a-"));
    CHECK(!aw_payload_shows(payload, ""));
    aw_payload_free(payload);
}

TEST(copies, "paths are copied, so the caller's may change once they are added")
{
    aw_payload *payload = payload_of(NO_FILES);
    char path[] = "first";
    aw_error err;

    CHECK_OK(add_text(payload, path, &err), &err);
    memcpy(path, "other", 5);
    CHECK_OK(aw_payload_seal(payload, &err), &err);
    CHECK(aw_payload_shows(payload, "first") && !aw_payload_shows(payload, "other"));
    aw_payload_free(payload);
    aw_payload_free(NULL);
}

/* ---- deriving ----------------------------------------------------------- */

static aw_payload *derived_from(const aw_payload *payload)
{
    aw_payload *derived = NULL;
    aw_error err;

    CHECK_OK(aw_payload_derive(payload, &derived, &err), &err);
    return derived;
}

static bool has_text(const aw_payload *payload, size_t index, const char *path, const char *text)
{
    aw_entry entry = AW_ENTRY_INIT;

    entry.data = text;
    entry.size = strlen(text);
    return aw_payload_has(payload, index, path, strlen(path), &entry);
}

static void replace_text(aw_payload *payload, size_t index, const char *text)
{
    aw_entry entry = AW_ENTRY_INIT;
    aw_error err;

    entry.data = text;
    entry.size = strlen(text);
    CHECK_OK(aw_payload_replace(payload, index, &entry, &err), &err);
}

TEST(derived, "a derived payload differs where it was told to, whichever is freed first")
{
    for (int first = 0; first < 2; first++) {
        aw_payload *base = payload_of(FILES(F("b/x", "1"), F("a", "2"), FS("s", "/dev/null", "")));
        aw_payload *derived, *again;
        aw_error err;

        CHECK_OK(aw_payload_seal(base, &err), &err);
        derived = derived_from(base);
        replace_text(derived, 0, "other");
        CHECK(has_text(base, 0, "b/x", "1") && has_text(derived, 0, "b/x", "other"));
        CHECK(has_text(derived, 1, "a", "2") && aw_payload_same_paths(base, derived));
        again = derived_from(derived);
        aw_payload_free(first ? base : derived);
        replace_text(again, 1, "third");
        aw_payload_free(first ? derived : base);
        CHECK(has_text(again, 0, "b/x", "other") && has_text(again, 1, "a", "third"));
        CHECK(aw_payload_shows(again, "b") && aw_payload_shows(again, "s"));
        aw_payload_free(again);
    }
}

TEST(derived_and_added, "who was derived may be given more files, and who was derived from may not")
{
    aw_payload *base = payload_of(FILES(F("b/x", "1"), F("a", "2")));
    aw_payload *derived, *again;
    aw_error err;

    CHECK_OK(aw_payload_seal(base, &err), &err);
    derived = derived_from(base);
    CHECK(add_text(base, "late", &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    CHECK_OK(add_text(derived, "c/d", &err), &err);
    CHECK_OK(aw_payload_seal(derived, &err), &err);
    CHECK(!aw_payload_same_paths(base, derived) && aw_payload_shows(derived, "c"));
    again = derived_from(derived);
    aw_payload_free(derived);
    aw_payload_free(base);
    CHECK(aw_payload_shows(again, "c") && aw_payload_shows(again, "a"));
    CHECK_OK(aw_payload_seal(again, &err), &err);
    aw_payload_free(again);
}

TEST(refused_entry, "an entry that is wrong is refused, and the old one stays")
{
    aw_payload *base = payload_of(FILES(F("a", "1"))), *derived;
    aw_entry entry = AW_ENTRY_INIT;
    aw_error err;

    CHECK_OK(aw_payload_seal(base, &err), &err);
    derived = derived_from(base);
    entry.mode = 01000;
    CHECK(aw_payload_replace(derived, 0, &entry, &err) < 0 && err.code == AW_E_INVALID_PAYLOAD);
    CHECK_TEXT(err.path, "a");
    CHECK(has_text(derived, 0, "a", "1"));
    aw_payload_free(derived);
    aw_payload_free(base);
}
