/* aw_name: see the header. */
#define _GNU_SOURCE /* timegm */
#include "aw_name.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char shape[] = "..dddd_dd_dd_dd_dd_dd.";

enum {
    STAMP_LENGTH = sizeof shape - 1,
    DIGITS_MAX = 19
};

/* The number of bytes of NAME that have the shape of a version, or 0. */
static size_t version_length(const char *name)
{
    size_t digits = 0;

    for (size_t i = 0; i < STAMP_LENGTH; i++) {
        bool digit = name[i] >= '0' && name[i] <= '9';

        if (shape[i] == 'd' ? !digit : name[i] != shape[i])
            return 0;
    }
    while (name[STAMP_LENGTH + digits] >= '0' && name[STAMP_LENGTH + digits] <= '9')
        digits++;
    return digits > 0 && digits <= DIGITS_MAX ? STAMP_LENGTH + digits : 0;
}

bool aw_name_is_version(const char *name)
{
    size_t length = version_length(name);

    return length > 0 && name[length] == '\0';
}

bool aw_name_is_retired(const char *name)
{
    size_t length = version_length(name);

    return length > 0 && strcmp(name + length, AW_NAME_RETIRED_SUFFIX) == 0;
}

static unsigned long long digits_of(const char *version)
{
    return strtoull(version + STAMP_LENGTH, NULL, 10); /* 19 digits fit */
}

int aw_name_compare(const char *a, const char *b)
{
    int order = strncmp(a, b, STAMP_LENGTH);
    unsigned long long x, y;

    if (order != 0)
        return order;
    x = digits_of(a);
    y = digits_of(b);
    if (x != y)
        return x < y ? -1 : 1;
    return strcmp(a, b);
}

int64_t aw_name_time(const char *version)
{
    struct tm tm = { 0 };

    if (sscanf(version, "..%4d_%2d_%2d_%2d_%2d_%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return 0;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    return (int64_t)timegm(&tm);
}

static int format(time_t seconds, unsigned long long digits, char name[AW_VERSION_MAX])
{
    struct tm tm;

    if (!gmtime_r(&seconds, &tm))
        return -1;
    snprintf(name, AW_VERSION_MAX, "..%04d_%02d_%02d_%02d_%02d_%02d.%09llu",
             tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec,
             digits);
    return aw_name_is_version(name) ? 0 : -1;
}

int aw_name_next(const struct timespec *now, const char *newest, char name[AW_VERSION_MAX])
{
    static const unsigned long long last_digits = 999999999999999999ULL;

    if (format(now->tv_sec, (unsigned long long)now->tv_nsec, name) < 0)
        return -1;
    if (newest[0] == '\0' || aw_name_compare(name, newest) > 0)
        return 0;
    if (digits_of(newest) < last_digits)
        snprintf(name, AW_VERSION_MAX, "%.*s%09llu", (int)STAMP_LENGTH, newest,
                 digits_of(newest) + 1);
    else if (format((time_t)aw_name_time(newest) + 1, 0, name) < 0)
        return -1;
    return aw_name_compare(name, newest) > 0 ? 0 : -1;
}
