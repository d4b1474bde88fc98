/* name.c: names of versions. Each line is a name; "@SECONDS.NANOSECONDS" is the clock.
 *
 * The shape agrees with an oracle; the order of those that are versions is total and
 * that of stamp and number; a name for the clock is a version, greater than every one
 * of them (INV-1), and there is one unless the newest is no real date or time is up.
 */
#define _DEFAULT_SOURCE /* timegm */
#include "aw_name.h"
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 8, STAMP = 22 };

static const char mask[] = "..0000_00_00_00_00_00.";

/* The number of bytes of NAME that are a version's name, or 0. */
static size_t shape(const char *name)
{
    size_t length = strlen(name), digits;
    char stamp[STAMP + 1];

    if (length <= STAMP)
        return 0;
    memcpy(stamp, name, STAMP);
    stamp[STAMP] = '\0';
    for (size_t i = 0; i < STAMP; i++)
        if (strchr("0123456789", stamp[i]) && stamp[i] != '\0')
            stamp[i] = '0';
    digits = strspn(name + STAMP, "0123456789");
    return strcmp(stamp, mask) == 0 && digits >= 1 && digits <= 19 ? STAMP + digits : 0;
}

static bool is_version(const char *name)
{
    return shape(name) > 0 && shape(name) == strlen(name);
}

static int sign(int number)
{
    return (number > 0) - (number < 0);
}

/* By stamp, by number, and then by text. */
static int compare(const char *a, const char *b)
{
    int order = strncmp(a, b, STAMP);
    const char *x = a + STAMP, *y = b + STAMP;

    if (order != 0)
        return sign(order);
    x += strspn(x, "0");
    y += strspn(y, "0");
    if (strlen(x) != strlen(y))
        return strlen(x) < strlen(y) ? -1 : 1;
    order = strcmp(x, y);
    return order != 0 ? sign(order) : sign(strcmp(a, b));
}

static void check_order(char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            REQUIRE(sign(aw_name_compare(names[i], names[j])) == compare(names[i], names[j]));
            REQUIRE(compare(names[i], names[j]) == -compare(names[j], names[i]));
            REQUIRE((compare(names[i], names[j]) == 0) == (strcmp(names[i], names[j]) == 0));
        }
}

/* The stamp of SECONDS since 1970, by counting days. */
static bool stamp_of(long long seconds, char stamp[STAMP + 1])
{
    static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    long long days = seconds / 86400, left = seconds % 86400, values[6];
    long long year = 1970;
    int month = 0;

    for (;; year++) {
        int length = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 366 : 365;

        if (days < length) {
            for (;; month++) {
                int in_month = lengths[month] + (month == 1 && length == 366);

                if (days < in_month)
                    break;
                days -= in_month;
            }
            break;
        }
        days -= length;
    }
    if (year > 9999)
        return false;
    values[0] = year; values[1] = month + 1; values[2] = days + 1;
    values[3] = left / 3600; values[4] = left / 60 % 60; values[5] = left % 60;
    strcpy(stamp, mask);
    for (size_t i = STAMP - 1, field = 6; i-- > 2;) {
        if (stamp[i] == '_' )
            continue;
        if (i == 20 || i == 17 || i == 14 || i == 11 || i == 8 || i == 5)
            field--;
        stamp[i] = (char)('0' + values[field] % 10);
        values[field] /= 10;
    }
    return true;
}

/* Whether the stamp of NAME is one that a clock from 1970 on shows. */
static bool is_real(const char *name)
{
    char stamp[STAMP + 1];
    int64_t time = aw_name_time(name);

    return time >= 0 && stamp_of(time, stamp) && strncmp(stamp, name, STAMP) == 0;
}

static void check_next(char *const *names, size_t count, const struct timespec *now)
{
    const char *newest = "";
    char name[AW_VERSION_MAX], stamp[STAMP + 1];
    int rc;

    for (size_t i = 0; i < count; i++)
        if (newest[0] == '\0' || aw_name_compare(names[i], newest) > 0)
            newest = names[i];
    rc = aw_name_next(now, newest, name);
    if (rc < 0) {
        REQUIRE(!stamp_of(now->tv_sec, stamp) || (newest[0] != '\0' && !is_real(newest))
                || strncmp(newest, "..9999_12_31_23_59_59.", STAMP) == 0);
        return;
    }
    REQUIRE(aw_name_is_version(name) && is_version(name));
    for (size_t i = 0; i < count; i++)
        REQUIRE(compare(name, names[i]) > 0);
    if (stamp_of(now->tv_sec, stamp) && (newest[0] == '\0' || strncmp(stamp, newest, STAMP) > 0)) {
        REQUIRE(strncmp(name, stamp, STAMP) == 0);
        REQUIRE(strtoll(name + STAMP, NULL, 10) == now->tv_nsec);
        REQUIRE(aw_name_time(name) == now->tv_sec);
    }
}

static void read_clock(slice line, struct timespec *now)
{
    slice field;

    line.at++;
    line.size--;
    (void)slice_next(&line, '.', &field); /* there always is a first one */
    now->tv_sec = (time_t)((unsigned long long)slice_number(field, 0) % (1ULL << 38));
    if (slice_next(&line, '.', &field)) /* up to the year 10680 */
        now->tv_nsec = (long)((unsigned long long)slice_number(field, 0) % 1000000000);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    slice rest = { (const char *)bytes, size }, line;
    struct timespec now = { 1764000000, 0 };
    char *names[NAMES_MAX];
    size_t count = 0;

    while (count < NAMES_MAX && slice_next(&rest, '\n', &line)) {
        char *name = slice_copy(line, true);
        size_t length = shape(name);

        if (name[0] == '@')
            read_clock(line, &now);
        REQUIRE(aw_name_is_version(name) == is_version(name));
        REQUIRE(aw_name_is_retired(name) == (length > 0 && strcmp(name + length, "_tmp") == 0));
        if (is_version(name))
            names[count++] = name;
        else
            free(name);
    }
    check_order(names, count);
    check_next(names, count, &now);
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    return 0;
}
