/* name_test.c: the names of versions, which only ever increase (INV-1). */
#define _GNU_SOURCE
#include "aw_name.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

TEST(shape, "a version's name is a stamp, a dot and 1 to 19 digits, nothing else")
{
    static const char *const good[] = {
        "..2026_11_22_15_04_05.483920175", "..2026_11_22_15_04_05.1",
        "..2026_11_22_15_04_05.0", "..2026_11_22_15_04_05.9999999999999999999",
        "..2006_01_02_15_04_05.1182736450",
    };
    static const char *const bad[] = {
        "", "..", "..data", "..data_tmp", "..lock", ".", "2026_11_22_15_04_05.1",
        "..2026_11_22_15_04_05", "..2026_11_22_15_04_05.", "..2026_11_22_15_04_05.x",
        "..2026_11_22_15_04_05.1x", "..2026_11_22_15_04_05.1/", "..2026_11_22_15_04_05.1/a",
        "..2026_11_22_15_04_05.1\n", "../2026_11_22_15_04_05.1", "..2026-11-22_15_04_05.1",
        "..2026_11_22_15_04_05.-1", "..2026_11_22_15_04_05.+1", "..2026_11_22_15_04_05. 1",
        "..2026_11_22_15_04_05.99999999999999999999", "..2026_11_22_15_04_05.1_tmp",
        "..226_11_22_15_04_05.1", "..20261_11_22_15_04_05.1", "..2026_11_22_15_04_5.1",
        "../..", "/..2026_11_22_15_04_05.1", "...2026_11_22_15_04_05.1",
    };

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        CHECK_THAT(aw_name_is_version(good[i]), "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK_THAT(!aw_name_is_version(bad[i]), "%s", bad[i]);
}

TEST(retired, "a version that is being removed is told by its suffix alone")
{
    CHECK(aw_name_is_retired("..2026_11_22_15_04_05.1_tmp"));
    CHECK(!aw_name_is_retired("..2026_11_22_15_04_05.1"));
    CHECK(!aw_name_is_retired("..2026_11_22_15_04_05.1_tmp_tmp"));
    CHECK(!aw_name_is_retired("..2026_11_22_15_04_05.1_tm"));
    CHECK(!aw_name_is_retired("..2026_11_22_15_04_05._tmp"));
    CHECK(!aw_name_is_retired("..data_tmp"));
    CHECK(!aw_name_is_retired("a_tmp"));
}

TEST(order, "versions are ordered by time, then by number, however it is padded")
{
    static const char *const sorted[] = {
        "..2025_12_31_23_59_59.9999999999999999999", "..2026_01_01_00_00_00.0",
        "..2026_01_01_00_00_00.000000001", "..2026_01_01_00_00_00.9", "..2026_01_01_00_00_00.010",
        "..2026_01_01_00_00_00.11", "..2026_01_01_00_00_00.483920175",
        "..2026_01_01_00_00_00.1182736450", "..2026_01_01_00_00_00.9999999999999999999",
        "..2026_01_01_00_00_01.0", "..2026_01_02_00_00_00.5",
    };
    const size_t count = sizeof sorted / sizeof sorted[0];

    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            int found = aw_name_compare(sorted[i], sorted[j]);
            CHECK_THAT((i < j) == (found < 0) && (i > j) == (found > 0), "%s and %s: %d",
                       sorted[i], sorted[j], found);
        }
    CHECK(aw_name_compare("..2026_01_01_00_00_00.1", "..2026_01_01_00_00_00.01") != 0);
}

TEST(times, "a version's time is read from its name, in UTC whatever TZ says")
{
    setenv("TZ", "Pacific/Kiritimati", 1);
    tzset();
    CHECK(aw_name_time("..1970_01_01_00_00_00.1") == 0);
    CHECK(aw_name_time("..2026_11_22_15_04_05.483920175") == 1795359845);
    CHECK(aw_name_time("..2024_02_29_23_59_59.1") == 1709251199);
    unsetenv("TZ");
    tzset();
}

static const char *next(time_t seconds, long nanoseconds, const char *newest)
{
    static char name[AW_VERSION_MAX];
    struct timespec now = { .tv_sec = seconds, .tv_nsec = nanoseconds };
    return aw_name_next(&now, newest, name) == 0 ? name : "(none)";
}

TEST(next_name, "a new name is the time in UTC and the nanoseconds")
{
    CHECK_TEXT(next(1795359845, 483920175, ""), "..2026_11_22_15_04_05.483920175");
    CHECK_TEXT(next(0, 7, ""), "..1970_01_01_00_00_00.000000007");
    CHECK_TEXT(next(1795359845, 5, "..2026_11_22_15_04_04.999999999"),
               "..2026_11_22_15_04_05.000000005");
}

TEST(clock_back, "names increase when the clock stands still or steps back")
{
    CHECK_TEXT(next(1795359845, 5, "..2026_11_22_15_04_05.000000005"),
               "..2026_11_22_15_04_05.000000006");
    CHECK_TEXT(next(0, 0, "..2026_11_22_15_04_05.000000005"), "..2026_11_22_15_04_05.000000006");
    CHECK_TEXT(next(0, 0, "..2026_11_22_15_04_05.999999999"), "..2026_11_22_15_04_05.1000000000");
    CHECK_TEXT(next(1795359845, 5, "..2026_11_22_15_04_05.1182736450"),
               "..2026_11_22_15_04_05.1182736451");
}

TEST(huge_numbers, "names increase past the greatest numbers and dates that are none")
{
    static const char *const hostile[] = {
        "..2026_11_22_15_04_05.9999999999999999999", "..2026_11_22_15_04_05.999999999999999999",
        "..2026_11_22_15_04_05.999999999999999998", "..2026_12_31_23_59_59.9999999999999999999",
        "..2024_02_28_23_59_59.9999999999999999999", "..2026_99_99_99_99_99.1",
        "..2026_99_99_99_99_99.9999999999999999999", "..2026_00_00_00_00_00.9999999999999999999",
        "..9999_12_31_23_59_58.9999999999999999999", "..9998_12_31_23_59_59.1",
    };

    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        char name[AW_VERSION_MAX];
        strcpy(name, hostile[i]);
        for (int step = 0; step < 5; step++) { /* and it must stay so */
            const char *greater = next(1000, 0, name);
            CHECK_THAT(strcmp(greater, "(none)") == 0
                       || (aw_name_is_version(greater) && aw_name_compare(greater, name) > 0),
                       "%s is followed by %s", name, greater);
            if (strcmp(greater, "(none)") == 0)
                break;
            strcpy(name, greater);
        }
    }
    CHECK_TEXT(next(1000, 0, "..2026_11_22_15_04_05.9999999999999999999"),
               "..2026_11_22_15_04_06.000000000");
    CHECK_TEXT(next(1000, 0, "..9999_12_31_23_59_59.9999999999999999999"), "(none)");
}

TEST(long_run, "a million names while the clock stands still only increase")
{
    char name[AW_VERSION_MAX] = "";

    for (int i = 0; i < 1000000; i++) {
        const char *greater = next(1795359845, 999999990, name);
        if (name[0] != '\0')
            CHECK_THAT(aw_name_compare(greater, name) > 0, "%s after %s", greater, name);
        memcpy(name, greater, AW_VERSION_MAX);
    }
}
