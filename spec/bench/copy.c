/* copy FROM TO: copy each file of one directory into another, through a buffer in memory.
 *
 * The plainest way there is: read and write, a MiB at a time. */
#define _GNU_SOURCE /* O_DIRECTORY */
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BUFFER = 1024 * 1024 };

static char buffer[BUFFER];

static void need(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void copy(int from, int to, const char *name)
{
    int in = openat(from, name, O_RDONLY | O_CLOEXEC);
    int out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    ssize_t got;

    need(in >= 0 && out >= 0, name);
    while ((got = read(in, buffer, BUFFER)) > 0)
        need(write(out, buffer, (size_t)got) == got, "write");
    need(got == 0, "read");
    close(in);
    need(close(out) == 0, "close");
}

int main(int argc, char **argv)
{
    DIR *from = argc == 3 ? opendir(argv[1]) : NULL;
    int to = from ? open(argv[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    struct dirent *entry;

    need(from && to >= 0, "usage: copy FROM TO");
    while ((entry = readdir(from))) {
        if (entry->d_name[0] != '.')
            copy(dirfd(from), to, entry->d_name);
    }
    closedir(from);
    close(to);
    return 0;
}
