/* Publish two files from C, and read one back through a snapshot.
 *
 * Build it against an installed library, or in a checkout after `make`:
 *
 *   cc write.c $(pkg-config --cflags --libs atomicwriter)
 *   cc -Icsrc examples/c/write.c build/libatomicwriter.a -pthread
 *
 * Usage: ./a.out TARGET      the directory is made if it is missing
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <atomicwriter.h>

/* Add PATH with the contents TEXT, which must live until the write is over. */
static int add_text(aw_payload *payload, const char *path, const char *text, int mode,
                    aw_error *err)
{
    aw_entry entry = AW_ENTRY_INIT;

    entry.data = text;
    entry.size = strlen(text);
    entry.mode = mode;
    return aw_payload_add(payload, path, strlen(path), &entry, err);
}

static int publish(const char *target, aw_error *err)
{
    aw_options options = AW_OPTIONS_INIT;
    aw_result result = AW_RESULT_INIT;
    aw_payload *payload = NULL;
    aw_writer *writer = NULL;
    int rc = -1;

    options.create = true;
    if (aw_payload_new(&payload, err) < 0
        || add_text(payload, "app.conf", "listen = 8080\n", AW_UNSET, err) < 0
        || add_text(payload, "tls/key.pem", "only an example\n", 0600, err) < 0
        || aw_writer_open(target, &options, &writer, err) < 0
        || aw_write(writer, payload, NULL, &result, err) < 0)
        goto out;

    printf("%s %s: %zu added, %zu updated, %zu removed, %zu unchanged\n",
           result.changed ? "published" : "already live:", result.version, result.added.count,
           result.updated.count, result.removed.count, result.unchanged);
    for (size_t i = 0; i < result.warnings.count; i++)
        fprintf(stderr, "warning: %s\n", result.warnings.items[i]);
    rc = 0;
out:
    aw_result_clear(&result);
    aw_writer_close(writer);
    aw_payload_free(payload);
    return rc;
}

static int read_back(const char *target, aw_error *err)
{
    aw_snapshot *snapshot = NULL;
    char *data = NULL;
    size_t size = 0;
    int rc = -1;

    if (aw_snapshot_open(target, &snapshot, err) < 0
        || aw_snapshot_read(snapshot, "app.conf", &data, &size, err) < 0)
        goto out;

    printf("app.conf of %s: ", aw_snapshot_version(snapshot));
    fwrite(data, 1, size, stdout);
    rc = 0;
out:
    free(data);
    aw_snapshot_close(snapshot);
    return rc;
}

int main(int argc, char **argv)
{
    aw_error err;
    char text[AW_ERROR_TEXT_MAX];

    if (argc != 2) {
        fprintf(stderr, "usage: %s TARGET\n", argv[0]);
        return 1;
    }
    if (publish(argv[1], &err) < 0 || read_back(argv[1], &err) < 0) {
        fprintf(stderr, "%s: %s\n", argv[0], aw_error_text(&err, text, sizeof text));
        return 1;
    }
    return 0;
}
