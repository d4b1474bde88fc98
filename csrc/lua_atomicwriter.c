/* lua_atomicwriter: the binding, module atomicwriter.core. The only file that
 * knows Lua; one source for Lua 5.4 and for the Lua 5.1 API of LuaJIT.
 *
 * Every function goes the same way: check the arguments (may raise), gather,
 * call the core (never raises), push the result (may raise: out of memory).
 * A Lua error is a longjmp, so whatever is owned while Lua may raise is owned
 * by a userdata with __gc: a handle for what the user holds, a scratch for
 * what one call holds.
 *
 * Misuse raises at the caller's line. What the world does to us is returned as
 * nil and an error table. lua/atomicwriter.lua documents the functions.
 */
#define _DEFAULT_SOURCE /* d_type */
#include "aw_error.h"

#include <dirent.h>
#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <lauxlib.h>
#include <lua.h>

AW_API int luaopen_atomicwriter_core(lua_State *L);

extern char **environ;

#define PREFIX   "atomicwriter."
#define WRITER   PREFIX "writer"
#define SNAPSHOT PREFIX "snapshot"
#define WATCHER  PREFIX "watcher"
#define SCRATCH  PREFIX "scratch"
#define ERROR    PREFIX "error"

/* ---- what differs between the Lua versions ------------------------------ */

#if LUA_VERSION_NUM < 502
#define lua_rawlen(L, index) lua_objlen(L, index)
#endif

#if LUA_VERSION_NUM < 504
#define lua_newuserdatauv(L, size, values) lua_newuserdata(L, size)
#endif

/* Have the userdata at INDEX keep the table on top of the stack, and pop that. */
static void keep_table(lua_State *L, int index)
{
#if LUA_VERSION_NUM < 502
    lua_setfenv(L, index);
#else
    lua_setiuservalue(L, index, 1);
#endif
}

/* Push that table. */
static void push_kept_table(lua_State *L, int index)
{
#if LUA_VERSION_NUM < 502
    lua_getfenv(L, index);
#else
    lua_getiuservalue(L, index, 1);
#endif
}

/* Have it keep none. */
static void drop_table(lua_State *L, int index)
{
#if LUA_VERSION_NUM < 502
    lua_pushvalue(L, LUA_GLOBALSINDEX); /* Lua 5.1 wants some */
#else
    lua_pushnil(L);
#endif
    keep_table(L, index);
}

static void push_integer(lua_State *L, int64_t value)
{
#if LUA_VERSION_NUM < 503
    lua_pushnumber(L, (lua_Number)value);
#else
    lua_pushinteger(L, (lua_Integer)value);
#endif
}

/* Push what tostring() gives for the value at INDEX. */
static const char *push_text(lua_State *L, int index)
{
#if LUA_VERSION_NUM < 502
    if (luaL_callmeta(L, index, "__tostring")) {
        if (!lua_isstring(L, -1))
            luaL_error(L, "'__tostring' must return a string");
    } else if (lua_isstring(L, index)) {
        lua_pushvalue(L, index);
    } else if (lua_isboolean(L, index)) {
        lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false");
    } else {
        lua_pushfstring(L, "%s: %p", luaL_typename(L, index), lua_topointer(L, index));
    }
    return lua_tostring(L, -1);
#else
    return luaL_tolstring(L, index, NULL);
#endif
}

/* ---- scratch: what one call owns ---------------------------------------- */

typedef struct scratch {
    aw_payload     *payload;
    bool            derived;    /* from the one that the writer has */
    aw_result       result;
    aw_list         paths;
    aw_version     *versions;
    aw_inspection   inspection;
    char           *data;
    struct dirent **names;      /* as scandir() gives it */
    int             name_count;
} scratch;

/* Give everything back; may be called again. Each function calls it at its
 * end, the collector only after a Lua error. */
static void release(scratch *own)
{
    aw_payload_free(own->payload);
    aw_result_clear(&own->result);
    aw_list_clear(&own->paths);
    aw_inspection_clear(&own->inspection);
    free(own->versions);
    free(own->data);
    for (int i = 0; i < own->name_count; i++)
        free(own->names[i]);
    free(own->names);
    own->payload = NULL;
    own->versions = NULL;
    own->data = NULL;
    own->names = NULL;
    own->name_count = 0;
}

static int scratch_gc(lua_State *L)
{
    release(luaL_checkudata(L, 1, SCRATCH));
    return 0;
}

static scratch *new_scratch(lua_State *L)
{
    static const scratch empty = { .result = AW_RESULT_INIT, .inspection = AW_INSPECTION_INIT };
    scratch *own = lua_newuserdatauv(L, sizeof *own, 0);

    *own = empty;
    luaL_getmetatable(L, SCRATCH);
    lua_setmetatable(L, -2);
    return own;
}

/* ---- errors ------------------------------------------------------------- */

static void set_string(lua_State *L, const char *key, const char *value)
{
    lua_pushstring(L, value);
    lua_setfield(L, -2, key);
}

static void set_integer(lua_State *L, const char *key, int64_t value)
{
    push_integer(L, value);
    lua_setfield(L, -2, key);
}

static void set_boolean(lua_State *L, const char *key, bool value)
{
    lua_pushboolean(L, value);
    lua_setfield(L, -2, key);
}

/* Push nil and the error table. The message begins with TARGET, if there is
 * one: the core only knows what lies below it. Returns 2, what was pushed. */
static int push_error(lua_State *L, const char *target, const aw_error *err)
{
    char text[AW_ERROR_TEXT_MAX];

    aw_error_text(err, text, sizeof text);
    lua_pushnil(L);
    lua_createtable(L, 0, 6);
    set_string(L, "code", aw_code_name(err->code));
    if (target && strcmp(target, err->path) != 0)
        lua_pushfstring(L, "%s: %s", target, text);
    else
        lua_pushstring(L, text);
    lua_setfield(L, -2, "message");
    set_boolean(L, "committed", err->committed);
    if (err->path[0] != '\0')
        set_string(L, "path", err->path);
    if (err->op)
        set_string(L, "op", err->op);
    if (err->sys_errno != 0)
        set_integer(L, "errno", err->sys_errno);
    luaL_getmetatable(L, ERROR);
    lua_setmetatable(L, -2);
    return 2;
}

static int error_tostring(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_pushliteral(L, "message");
    lua_rawget(L, 1);
    if (!lua_isstring(L, -1))
        lua_pushliteral(L, ERROR);
    return 1;
}

/* So that "cannot write: " .. err works where it is needed most. */
static int error_concat(lua_State *L)
{
    push_text(L, 1);
    push_text(L, 2);
    lua_concat(L, 2);
    return 1;
}

/* ---- options and entries ------------------------------------------------ */

/* A reader stores the value at INDEX in *OUT. If it cannot, it returns the
 * reason, a phrase to follow the name of the field; it may be on the stack. */
typedef const char *(*reader)(lua_State *L, int index, void *out);

typedef struct field {
    const char *name;
    reader      read;
    size_t      offset;  /* of OUT in the record */
} field;

/* The string at INDEX; NULL if it is none, or holds a NUL byte. */
static const char *string_at(lua_State *L, int index)
{
    const char *string = lua_type(L, index) == LUA_TSTRING ? lua_tostring(L, index) : NULL;

    return string && strlen(string) == lua_rawlen(L, index) ? string : NULL;
}

/* The table on top of the stack into RECORD. Returns NULL, or what is wrong;
 * WHAT is what to call a field. No metamethods, so nothing but that raises. */
static const char *read_fields(lua_State *L, const field *fields, const char *what, void *record)
{
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        const char *name = string_at(L, -2), *wrong;
        const field *known = fields;

        while (name && known->name && strcmp(known->name, name) != 0)
            known++;
        if (!name || !known->name)
            return lua_pushfstring(L, "unknown %s '%s'", what, push_text(L, -2));
        wrong = known->read(L, -1, (char *)record + known->offset);
        if (wrong)
            return lua_pushfstring(L, "%s '%s' %s", what, name, wrong);
    }
    return NULL;
}

static bool is_whole(lua_Number number, lua_Number max)
{
    return number >= 0 && number <= max && (lua_Number)(int64_t)number == number;
}

/* The number at INDEX, -1 if there is none: strings are not numbers here. */
static lua_Number number_at(lua_State *L, int index)
{
    return lua_type(L, index) == LUA_TNUMBER ? lua_tonumber(L, index) : -1;
}

static const char *read_id(lua_State *L, int index, void *out)
{
    lua_Number number = number_at(L, index);

    if (!is_whole(number, 4294967294.0))
        return "must be a whole number from 0 to 4294967294";
    *(int64_t *)out = (int64_t)number;
    return NULL;
}

static const char *read_count(lua_State *L, int index, void *out)
{
    lua_Number number = number_at(L, index);

    if (!is_whole(number, 1000000))
        return "must be a whole number from 0 to 1000000";
    *(unsigned *)out = (unsigned)number;
    return NULL;
}

/* Octal digits in a string, or a number. */
static const char *read_mode(lua_State *L, int index, void *out)
{
    lua_Number number = number_at(L, index);
    int mode = 0;

    if (lua_type(L, index) == LUA_TSTRING) {
        const char *digits = lua_tostring(L, index), *end = digits;

        for (; *end >= '0' && *end <= '7' && mode <= 0777; end++)
            mode = mode * 8 + (*end - '0');
        if (end == digits || mode > 0777 || (size_t)(end - digits) != lua_rawlen(L, index))
            return "must be octal digits up to \"0777\", such as \"0644\"";
    } else if (is_whole(number, 0777)) {
        mode = (int)number;
    } else if (is_whole(number, 777)) { /* octal digits without the quotes? */
        return lua_pushfstring(L, "is %d, not within 0 to 511: write \"0%d\" for octal",
                               (int)number, (int)number);
    } else {
        return "must be octal digits such as \"0644\", or a number within 0 to 511";
    }
    *(int *)out = mode;
    return NULL;
}

/* The owner must be able to list a version, or nobody could replace it. */
static const char *read_dir_mode(lua_State *L, int index, void *out)
{
    const char *wrong = read_mode(L, index, out);

    if (!wrong && (*(int *)out & 0500) != 0500)
        wrong = "must let the owner read and enter, as \"0700\" or \"0755\" do";
    return wrong;
}

/* Seconds, fractions too, as milliseconds, rounded up. */
static const char *read_seconds(lua_State *L, int index, void *out)
{
    const lua_Number years = 1e12; /* thirty of them: no sum overflows */
    lua_Number ms = number_at(L, index) * 1000;
    int64_t whole;

    if (!(ms >= 0))
        return "must be a number of seconds, 0 or more";
    whole = (int64_t)(ms < years ? ms : years);
    *(int64_t *)out = (lua_Number)whole < ms ? whole + 1 : whole;
    return NULL;
}

static const char *read_boolean(lua_State *L, int index, void *out)
{
    if (!lua_isboolean(L, index))
        return "must be true or false";
    *(bool *)out = lua_toboolean(L, index) != 0;
    return NULL;
}

static const char *read_durability(lua_State *L, int index, void *out)
{
    const char *word = string_at(L, index);

    if (!word || (strcmp(word, "full") != 0 && strcmp(word, "none") != 0))
        return "must be \"full\" or \"none\"";
    *(aw_durability *)out = word[0] == 'f' ? AW_DURABLE : AW_NOT_DURABLE;
    return NULL;
}

static const char *read_version(lua_State *L, int index, void *out)
{
    *(const char **)out = string_at(L, index);
    return *(const char **)out ? NULL : "must be the name of a version";
}

static const char *read_data(lua_State *L, int index, void *out)
{
    aw_entry *entry = out;

    if (lua_type(L, index) != LUA_TSTRING)
        return "must be a string";
    entry->data = lua_tolstring(L, index, &entry->size);
    return NULL;
}

static const char *read_source(lua_State *L, int index, void *out)
{
    const char *path = string_at(L, index);

    if (!path)
        return "must be the path of a file";
    *(const char **)out = path;
    return NULL;
}

/* Only that there is one: who calls it takes it from the table. */
static const char *read_function(lua_State *L, int index, void *out)
{
    *(bool *)out = true;
    return lua_isfunction(L, index) ? NULL : "must be a function";
}

static const field writer_options[] = {
    { "default_mode", read_mode, offsetof(aw_options, default_mode) },
    { "dir_mode", read_dir_mode, offsetof(aw_options, dir_mode) },
    { "uid", read_id, offsetof(aw_options, uid) },
    { "gid", read_id, offsetof(aw_options, gid) },
    { "keep", read_count, offsetof(aw_options, keep) },
    { "durability", read_durability, offsetof(aw_options, durability) },
    { "lock_timeout", read_seconds, offsetof(aw_options, lock_timeout) },
    { "reuse", read_boolean, offsetof(aw_options, reuse) },
    { "create", read_boolean, offsetof(aw_options, create) },
    { "early", read_boolean, offsetof(aw_options, early) },
    { "prepare", read_boolean, offsetof(aw_options, prepare) },
    { NULL, NULL, 0 },
};

/* The options of a call. The strings are the table's. */
typedef struct call_options {
    bool        check, progress;
    const char *expect;
} call_options;

static const field write_options[] = {
    { "check", read_function, offsetof(call_options, check) },
    { "progress", read_function, offsetof(call_options, progress) },
    { NULL, NULL, 0 },
};

static const field rollback_options[] = {
    { "check", read_function, offsetof(call_options, check) },
    { "progress", read_function, offsetof(call_options, progress) },
    { "expect", read_version, offsetof(call_options, expect) },
    { NULL, NULL, 0 },
};

static const field entry_fields[] = {
    { "data", read_data, 0 },
    { "source", read_source, offsetof(aw_entry, source) },
    { "mode", read_mode, offsetof(aw_entry, mode) },
    { "uid", read_id, offsetof(aw_entry, uid) },
    { "gid", read_id, offsetof(aw_entry, gid) },
    { NULL, NULL, 0 },
};

/* The options at argument INDEX, if any, into RECORD; raises what is wrong. */
static void check_options(lua_State *L, int index, const field *fields, void *record)
{
    const char *wrong;

    if (lua_isnoneornil(L, index))
        return;
    luaL_checktype(L, index, LUA_TTABLE);
    lua_pushvalue(L, index);
    wrong = read_fields(L, fields, "option", record);
    if (wrong)
        luaL_argerror(L, index, wrong);
    lua_pop(L, 1);
}

/* Put the data of the entry on top of the stack into the table at HELD, at NUMBER.
 * The string "data" stands next to that: to push one anew may run finalizers. */
static void hold_data(lua_State *L, int held, int number)
{
    lua_pushvalue(L, lua_type(L, -1) == LUA_TTABLE ? held + 1 : -1);
    if (lua_type(L, -2) == LUA_TTABLE)
        lua_rawget(L, -2);
    lua_rawseti(L, held, number);
}

static int count_entries(lua_State *L, int index)
{
    int count = 0;

    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1))
        count++;
    return count;
}

/* The value on top of the stack. NULL, or what is wrong with it. */
static const char *read_entry(lua_State *L, aw_entry *entry)
{
    const char *wrong = NULL;

    if (lua_type(L, -1) == LUA_TTABLE)
        wrong = read_fields(L, entry_fields, "field", entry);
    else if (lua_type(L, -1) == LUA_TSTRING)
        entry->data = lua_tolstring(L, -1, &entry->size);
    else
        wrong = lua_pushfstring(L, "must be a string or a table, not a %s", luaL_typename(L, -1));
    if (!wrong && !entry->data == !entry->source)
        wrong = entry->data ? "has both data and a source" : "needs data or a source";
    return wrong;
}

/* The table at INDEX into OWN->payload. Allocates nothing in Lua unless it
 * fails, so no finalizer runs and the core can borrow the strings. If HELD is
 * not 0 they are also put into the table there, which has room for ROOM. Returns 0,
 * -1, or 1 when there is too little room. */
static int gather(lua_State *L, int index, int held, int room, scratch *own, aw_error *err)
{
    int count = 0;

    if (aw_payload_new(&own->payload, err) < 0)
        return -1;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        aw_entry entry = AW_ENTRY_INIT;
        const char *path, *wrong, *key_type = luaL_typename(L, -2);
        size_t length;

        if (lua_type(L, -2) != LUA_TSTRING) /* lua_tolstring() would confuse lua_next() */
            return aw_fail(err, AW_E_INVALID_PAYLOAD, push_text(L, -2),
                           "a path must be a string, not a %s", key_type);
        path = lua_tolstring(L, -2, &length);
        wrong = read_entry(L, &entry);
        if (wrong)
            return aw_fail_at(err, AW_E_INVALID_PAYLOAD, path, length, "%s", wrong);
        if (held != 0 && count == room) {
            lua_pop(L, 2);
            return 1;
        }
        count++;
        if (held != 0 && entry.data)
            hold_data(L, held, count);
        if (aw_payload_add(own->payload, path, length, &entry, err) < 0)
            return -1;
    }
    return 0;
}

/* The table at INDEX has the same paths as KNOWN in the same order, as the same table does,
 * or one that was made in the same way: then what it says is KNOWN itself, or else comes
 * into OWN->payload, with the data that differ in the table at HELD, which has room for
 * them. Allocates nothing in Lua. NULL if it has others, or an entry that is wrong: then it
 * may have. */
static aw_payload *recognise(lua_State *L, int index, int held, aw_payload *known, scratch *own)
{
    size_t count = 0;
    aw_error ignored; /* who gathers it meets it again */
    int top = lua_gettop(L);

    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1), count++) {
        aw_entry entry = AW_ENTRY_INIT;
        const char *path;
        size_t length;

        path = lua_type(L, -2) == LUA_TSTRING ? lua_tolstring(L, -2, &length) : NULL;
        if (!path || read_entry(L, &entry))
            break;
        if (aw_payload_has(known, count, path, length, &entry))
            continue;
        if (!aw_payload_is_at(known, count, path, length)
            || (!own->payload && aw_payload_derive(known, &own->payload, &ignored) < 0)
            || aw_payload_replace(own->payload, count, &entry, &ignored) < 0)
            break;
        if (entry.data)
            hold_data(L, held, (int)count + 1);
    }
    own->derived = own->payload != NULL;
    if (lua_gettop(L) == top && count == aw_payload_count(known))
        return own->derived ? own->payload : known;
    lua_settop(L, top);
    aw_payload_free(own->payload);
    own->payload = NULL;
    own->derived = false;
    return NULL;
}

/* ---- handles: writer, snapshot, watcher --------------------------------- */

typedef struct handle {
    aw_writer   *writer;   /* one of these three, as the kind says; */
    aw_snapshot *snapshot; /* NULL once closed                      */
    aw_watcher  *watcher;
    aw_payload  *known;    /* the writer's, of its last write, or NULL */
    int          room;     /* for the data of that, in the table    */
    bool         busy;     /* the writer runs one of its hooks      */
    int64_t      patience; /* its lock_timeout, in milliseconds     */
    char         version[AW_VERSION_MAX]; /* of the snapshot, or "" */
    char         target[]; /* as the user wrote it                  */
} handle;

#define BUSY "writer is busy: called from its own check or progress function"

static bool is_open(const handle *self)
{
    return self->writer || self->snapshot || self->watcher;
}

static void close_handle(handle *self)
{
    aw_writer_close(self->writer);
    aw_snapshot_close(self->snapshot);
    aw_watch_close(self->watcher);
    self->writer = NULL;
    self->known = NULL;
    self->snapshot = NULL;
    self->watcher = NULL;
}

/* Push a closed handle for the target that is argument 1. */
static handle *new_handle(lua_State *L, const char *kind)
{
    const char *target;
    size_t length;
    handle *self;

    luaL_checktype(L, 1, LUA_TSTRING);
    target = lua_tolstring(L, 1, &length);
    luaL_argcheck(L, strlen(target) == length, 1, "the target holds a NUL byte");
    self = lua_newuserdatauv(L, sizeof *self + length + 1, 1);
    memset(self, 0, sizeof *self);
    memcpy(self->target, target, length + 1);
    luaL_getmetatable(L, kind);
    lua_setmetatable(L, -2);
    return self;
}

/* Argument 1, open and not in the middle of a write. */
static handle *check_open(lua_State *L, const char *kind)
{
    handle *self = luaL_checkudata(L, 1, kind);

    if (self->busy)
        luaL_error(L, BUSY);
    if (!is_open(self))
        luaL_error(L, "%s is closed", kind + sizeof PREFIX - 1);
    return self;
}

/* Push the scratch of a call, the last allocation before the core is entered,
 * and look again: allocating runs finalizers, and one may have closed argument 1. */
static scratch *begin_call(lua_State *L, const char *kind)
{
    scratch *own = new_scratch(L);

    check_open(L, kind);
    return own;
}

/* The next four are closures over their kind. */

static handle *check_own_kind(lua_State *L)
{
    return luaL_checkudata(L, 1, lua_tostring(L, lua_upvalueindex(1)));
}

static int handle_close(lua_State *L)
{
    handle *self = check_own_kind(L);

    if (self->busy)
        return luaL_error(L, BUSY);
    if (self->known)
        drop_table(L, 1);
    close_handle(self);
    return 0;
}

static int handle_gc(lua_State *L)
{
    handle *self = check_own_kind(L);

    if (!self->busy) /* os.exit() in a hook: the core still stands on it */
        close_handle(self);
    return 0;
}

static int handle_tostring(lua_State *L)
{
    const handle *self = check_own_kind(L);

    lua_pushfstring(L, "%s (%s%s)", lua_tostring(L, lua_upvalueindex(1)), self->target,
                    is_open(self) ? "" : ", closed");
    return 1;
}

/* Fields stay readable after close. Upvalue 2 is the table of methods. */
static int handle_index(lua_State *L)
{
    const handle *self = check_own_kind(L);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";

    if (strcmp(key, "target") == 0) {
        lua_pushstring(L, self->target);
    } else if (strcmp(key, "version") == 0 && self->version[0] != '\0') {
        lua_pushstring(L, self->version);
    } else {
        lua_pushvalue(L, 2);
        lua_rawget(L, lua_upvalueindex(2));
    }
    return 1;
}

/* ---- hooks: functions of the caller's that a write calls ----------------- */

typedef struct hooks {
    call_options wanted;
    aw_hooks     core;     /* for the core; its context is this            */
    lua_State   *L;
    int          base;     /* stack index of what push_hooks() pushes      */
    bool         agreed;   /* what the caller's function says, with a      */
    char        *reason;   /* REASON of up to SIZE bytes if it is no       */
    size_t       size;
    const char  *stage;    /* what the check is asked about                */
    const char  *phase;    /* what the progress function is told           */
    aw_progress  progress;
    int64_t      next;     /* in the same phase not told again before      */
} hooks;

/* A wait in the core goes on whatever signals come, and Lua's handler for ^C only
 * leaves a hook behind. So waits are cut into slices, and the hook runs between.
 * Progress is told as often. */
enum { SLICE = 100, WATCH_SLICE = 1000 }; /* milliseconds */

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Ask the check (1) about the stage in the hooks (2). */
static int ask(lua_State *L)
{
    hooks *calls = lua_touserdata(L, 2);

    lua_pushvalue(L, 1);
    lua_pushstring(L, calls->stage);
    if (lua_pcall(L, 1, 2, 0) != 0)
        snprintf(calls->reason, calls->size, "%s", push_text(L, -1));
    else if (lua_isboolean(L, -2) && lua_toboolean(L, -2))
        calls->agreed = true;
    else if (lua_toboolean(L, -2)) /* such as os.execute() of Lua 5.1: 256 */
        snprintf(calls->reason, calls->size, "the check returned a %s, neither true nor false",
                 luaL_typename(L, -2));
    else if (!lua_isnil(L, -1))
        snprintf(calls->reason, calls->size, "%s", push_text(L, -1));
    return 0;
}

/* Tell the progress function (1) what is in the hooks (2). */
static int tell(lua_State *L)
{
    hooks *calls = lua_touserdata(L, 2);

    lua_pushvalue(L, 1);
    lua_createtable(L, 0, 4);
    set_string(L, "phase", calls->phase);
    set_integer(L, "files", (int64_t)calls->progress.files);
    set_integer(L, "total", (int64_t)calls->progress.total);
    set_integer(L, "bytes", (int64_t)calls->progress.bytes);
    if (lua_pcall(L, 1, 2, 0) != 0)
        snprintf(calls->reason, calls->size, "%s", push_text(L, -1));
    else if (!lua_isboolean(L, -2) || lua_toboolean(L, -2))
        calls->agreed = true;
    else if (!lua_isnil(L, -1))
        snprintf(calls->reason, calls->size, "%s", push_text(L, -1));
    return 0;
}

/* What stands where, from hooks.base on: a function of ours, the caller's after it. */
enum { ASK, TELL = 2, HOOKS = 4, HELD = 5, HOOKS_SLOTS = 7 };

/* Push what the hooks of a call take: for each value that the options may hold its
 * name, which take_value() replaces. HELD is that of "expect", or of what
 * take_payload() keeps. */
static void push_hooks(lua_State *L, hooks *calls)
{
    luaL_checkstack(L, 20 + HOOKS_SLOTS, NULL);
    calls->base = lua_gettop(L) + 1;
    lua_pushcfunction(L, ask);
    lua_pushliteral(L, "check");
    lua_pushcfunction(L, tell);
    lua_pushliteral(L, "progress");
    lua_pushlightuserdata(L, calls);
    lua_pushliteral(L, "expect");
    lua_pushliteral(L, "data");
}

/* The value in the options at INDEX that stands at AT by name. Nothing of the
 * caller's can take it out of the table afterwards and have it collected. */
static void take_value(lua_State *L, int index, int at)
{
    lua_pushvalue(L, at);
    lua_rawget(L, index);
    lua_replace(L, at);
}

/* Call the function of ours at AT. Called by the core, so it must return: allocate
 * nothing outside lua_pcall. */
static int call_hook(hooks *calls, int at, char *reason, size_t size)
{
    lua_State *L = calls->L;
    int top = lua_gettop(L);

    calls->agreed = false;
    calls->reason = reason;
    calls->size = size;
    lua_pushvalue(L, calls->base + at);
    lua_pushvalue(L, calls->base + at + 1);
    lua_pushvalue(L, calls->base + HOOKS);
    if (lua_pcall(L, 2, 0, 0) != 0) {
        const char *text = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "no reason";

        calls->agreed = false;
        snprintf(reason, size, "%s raised an error that cannot be shown: %s",
                 at == ASK ? "the check" : "the progress function", text);
    }
    lua_settop(L, top);
    return calls->agreed ? 0 : -1;
}

static int call_check(void *context, const char *stage, char *reason, size_t size)
{
    hooks *calls = context;

    calls->stage = stage;
    return call_hook(calls, ASK, reason, size);
}

static int tell_progress(hooks *calls, const char *phase, const aw_progress *progress,
                         char *reason, size_t size)
{
    int rc;

    calls->phase = phase;
    calls->progress = *progress;
    rc = call_hook(calls, TELL, reason, size);
    calls->next = now_ms() + SLICE;
    return rc;
}

/* The core calls at every file: too often for Lua. */
static int call_progress(void *context, const aw_progress *progress, char *reason, size_t size)
{
    static const char *const names[] = {
        [AW_COMPARING] = "compare", [AW_WRITING] = "write", [AW_SYNCING] = "sync",
    };
    hooks *calls = context;
    const char *phase = names[progress->phase];

    if (phase == calls->phase && now_ms() < calls->next)
        return 0;
    return tell_progress(calls, phase, progress, reason, size);
}

/* The hooks of one call, for its options at INDEX, which may be FIELDS. */
static void begin_hooks(lua_State *L, int index, const field *fields, hooks *calls)
{
    calls->L = L;
    push_hooks(L, calls);
    /* From here to the last value nothing allocates, so no finalizer of the caller's
     * changes the options. */
    check_options(L, index, fields, &calls->wanted);
    if (calls->wanted.check)
        take_value(L, index, calls->base + ASK + 1);
    if (calls->wanted.progress)
        take_value(L, index, calls->base + TELL + 1);
    if (calls->wanted.expect)
        take_value(L, index, calls->base + HELD);
    calls->core.check = calls->wanted.check ? call_check : NULL;
    calls->core.progress = calls->wanted.progress ? call_progress : NULL;
    calls->core.context = calls;
}

/* ---- writer ------------------------------------------------------------- */

static int do_nothing(lua_State *L)
{
    (void)L;
    return 0;
}

/* A signal handler of the program, such as ^C in lua, can only leave a hook
 * behind. A call lets it run; it may raise, or close what the caller uses. */
static void let_hook_run(lua_State *L)
{
    lua_pushcfunction(L, do_nothing);
    lua_call(L, 0, 0);
}

/* new(target [, options]) */
static int writer_new(lua_State *L)
{
    aw_options options = AW_OPTIONS_INIT;
    handle *self;
    aw_error err;

    luaL_checktype(L, 1, LUA_TSTRING);
    lua_settop(L, 2);
    self = new_handle(L, WRITER);
    check_options(L, 2, writer_options, &options);
    self->patience = options.lock_timeout;
    if (aw_writer_open(self->target, &options, &self->writer, &err) < 0)
        return push_error(L, self->target, &err);
    return 1;
}

/* Wait for the lock until END, but no longer than a slice. */
static void set_patience(handle *self, int64_t end)
{
    int64_t left = end - now_ms();

    aw_writer_set_lock_timeout(self->writer, left < SLICE ? (left > 0 ? left : 0) : SLICE);
}

/* The time until which a call that begins now waits for the lock. */
static int64_t begin_waiting(handle *self)
{
    int64_t end = now_ms() + self->patience + (self->patience > 0); /* the clock is cut */

    set_patience(self, end);
    return end;
}

/* Whether the progress function, if there is one, lets the waiting go on. */
static bool may_wait(handle *self, hooks *calls, aw_error *err)
{
    static const aw_progress nothing = { AW_COMPARING, 0, 0, 0 };
    char reason[AW_ERROR_DETAIL_MAX] = "";
    int rc;

    if (!calls || !calls->wanted.progress)
        return true;
    self->busy = true;
    rc = tell_progress(calls, "lock", &nothing, reason, sizeof reason);
    self->busy = false;
    if (rc < 0)
        aw_fail_cancelled(err, reason);
    return rc == 0;
}

/* Whether a call that failed has only waited for a slice, and is to go on until
 * END. May raise, see let_hook_run(). OWN and CALLS may be NULL. */
static bool goes_on_waiting(lua_State *L, scratch *own, hooks *calls, int64_t end, aw_error *err)
{
    handle *self;

    if (err->code != AW_E_LOCKED || now_ms() >= end)
        return false;
    if (own)
        release(own);
    let_hook_run(L);
    self = check_open(L, WRITER);
    if (!may_wait(self, calls, err))
        return false;
    set_patience(self, end);
    return true;
}

static void push_list(lua_State *L, const aw_list *list)
{
    lua_createtable(L, (int)list->count, 0);
    for (size_t i = 0; i < list->count; i++) {
        lua_pushstring(L, list->items[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
}

static void set_list(lua_State *L, const char *key, const aw_list *list)
{
    push_list(L, list);
    lua_setfield(L, -2, key);
}

static int push_result(lua_State *L, scratch *own)
{
    const aw_result *result = &own->result;

    lua_createtable(L, 0, 10);
    set_boolean(L, "changed", result->changed);
    if (result->version)
        set_string(L, "version", result->version);
    if (result->previous)
        set_string(L, "previous", result->previous);
    set_list(L, "added", &result->added);
    set_list(L, "updated", &result->updated);
    set_list(L, "removed", &result->removed);
    set_list(L, "warnings", &result->warnings);
    set_integer(L, "unchanged", (int64_t)result->unchanged);
    set_integer(L, "linked", (int64_t)result->linked);
    set_integer(L, "bytes", (int64_t)result->bytes);
    release(own);
    return 1;
}

static int fail(lua_State *L, const handle *self, scratch *own, const aw_error *err)
{
    release(own);
    return push_error(L, self->target, err);
}

/* What the table at INDEX says: the payload that the writer has, where it is that, or
 * else OWN's, with its data also in the table at HELD, for the writer to keep. From
 * here to the first hook Lua allocates nothing: the table stays as it is. NULL, with
 * ERR filled, or raises. */
static aw_payload *take_payload(lua_State *L, int index, int held, handle *self, scratch *own,
                                aw_error *err)
{
    int room = self->room, rc; /* as many as last time, very likely */
    aw_payload *payload;

    lua_createtable(L, room, 0);
    lua_replace(L, held);
    check_open(L, WRITER); /* a finalizer may have closed it */
    payload = self->known ? recognise(L, index, held, self->known, own) : NULL;
    if (payload)
        return payload;
    check_open(L, WRITER); /* what is wrong was put in words, and that allocates */
    while ((rc = gather(L, index, held, room, own, err)) > 0) {
        release(own);
        room = count_entries(L, index);
        lua_createtable(L, room, 0); /* a finalizer may add entries: then once more */
        lua_replace(L, held);
        check_open(L, WRITER);
    }
    return rc < 0 ? NULL : own->payload;
}

/* Put the data at HELD, of PAYLOAD's entries that differ, in the place of those that the
 * handle keeps. */
static void keep_data(lua_State *L, const aw_payload *payload, int held)
{
    int count = (int)aw_payload_count(payload);

    push_kept_table(L, 1);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, held, i);
        if (lua_isnil(L, -1))
            lua_pop(L, 1);
        else
            lua_rawseti(L, -2, i);
    }
    lua_pop(L, 1);
}

/* The writer takes over what it has written; the handle keeps the data, at HELD. */
static void remember(lua_State *L, handle *self, aw_payload *payload, scratch *own, int held)
{
    aw_writer_remember(self->writer, payload);
    if (payload != own->payload)
        return;
    own->payload = NULL;
    self->known = payload;
    if (own->derived) {
        keep_data(L, payload, held);
        return;
    }
    self->room = (int)aw_payload_count(payload);
    lua_pushvalue(L, held);
    keep_table(L, 1);
}

/* writer:write(payload [, { check = function, progress = function }]) */
static int writer_write(lua_State *L)
{
    handle *self = check_open(L, WRITER);
    hooks calls = { .L = NULL };
    aw_payload *payload;
    int64_t end;
    scratch *own;
    aw_error err;
    int rc, held;

    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 3);
    begin_hooks(L, 3, write_options, &calls);
    held = calls.base + HELD;
    own = begin_call(L, WRITER);

    end = begin_waiting(self);
    do {
        payload = take_payload(L, 2, held, self, own, &err);
        if (!payload)
            return fail(L, self, own, &err);
        self->busy = true;
        rc = aw_write(self->writer, payload, &calls.core, &own->result, &err);
        self->busy = false;
    } while (rc < 0 && goes_on_waiting(L, own, &calls, end, &err));
    if (rc < 0)
        return fail(L, self, own, &err);
    remember(L, self, payload, own, held);
    return push_result(L, own);
}

/* writer:plan(payload) */
static int writer_plan(lua_State *L)
{
    handle *self = check_open(L, WRITER);
    scratch *own;
    aw_error err;

    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checkstack(L, 20, NULL);
    own = begin_call(L, WRITER);
    if (gather(L, 2, 0, 0, own, &err) < 0
        || aw_plan(self->writer, own->payload, &own->result, &err) < 0)
        return fail(L, self, own, &err);
    return push_result(L, own);
}

/* Argument INDEX, a name to be looked up. A NUL byte in it is not found. */
static const char *check_name(lua_State *L, int index, bool *sane, aw_error *err)
{
    const char *name;
    size_t length;

    luaL_checktype(L, index, LUA_TSTRING);
    name = lua_tolstring(L, index, &length);
    *sane = strlen(name) == length;
    if (!*sane)
        aw_fail_at(err, AW_E_NOT_FOUND, name, length, "no name holds a NUL byte");
    return name;
}

/* writer:rollback([version [, { check = function, progress = function, expect = }]]) */
static int writer_rollback(lua_State *L)
{
    handle *self = check_open(L, WRITER);
    hooks calls = { .L = NULL };
    const char *version = NULL;
    bool sane = true;
    scratch *own;
    int64_t end;
    aw_error err;
    int rc;

    lua_settop(L, 3);
    if (!lua_isnil(L, 2))
        version = check_name(L, 2, &sane, &err);
    begin_hooks(L, 3, rollback_options, &calls);
    own = begin_call(L, WRITER);
    if (!sane)
        return fail(L, self, own, &err);
    end = begin_waiting(self);
    do {
        self->busy = true;
        rc = aw_rollback(self->writer, version, calls.wanted.expect, &calls.core, &own->result,
                         &err);
        self->busy = false;
    } while (rc < 0 && goes_on_waiting(L, own, &calls, end, &err));
    return rc < 0 ? fail(L, self, own, &err) : push_result(L, own);
}

/* Push a table with the fields of VERSION. */
static void push_version(lua_State *L, const aw_version *version)
{
    lua_createtable(L, 0, 4);
    set_string(L, "name", version->name);
    set_integer(L, "time", version->time);
    set_boolean(L, "live", version->live);
}

/* writer:versions() */
static int writer_versions(lua_State *L)
{
    handle *self = check_open(L, WRITER);
    scratch *own = begin_call(L, WRITER);
    size_t count = 0;
    aw_error err;

    if (aw_versions(self->writer, &own->versions, &count, &err) < 0)
        return fail(L, self, own, &err);
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        push_version(L, &own->versions[i]);
        lua_rawseti(L, -2, (int)i + 1);
    }
    release(own);
    return 1;
}

/* writer:collect() */
static int writer_collect(lua_State *L)
{
    handle *self = check_open(L, WRITER);
    int64_t end = begin_waiting(self);
    size_t removed = SIZE_MAX;
    aw_error err;
    int rc;

    do
        rc = aw_collect(self->writer, &removed, &err);
    while (rc < 0 && goes_on_waiting(L, NULL, NULL, end, &err));
    if (removed == SIZE_MAX)
        return push_error(L, self->target, &err);
    push_integer(L, (int64_t)removed);
    if (rc == 0)
        return 1;
    push_error(L, self->target, &err); /* some stay: the number, and why */
    lua_remove(L, -2);
    return 2;
}

/* writer:settle() */
static int writer_settle(lua_State *L)
{
    handle *self = check_open(L, WRITER);

    aw_writer_settle(self->writer);
    return 0;
}

/* ---- snapshot ----------------------------------------------------------- */

/* open(target) */
static int snapshot_open(lua_State *L)
{
    handle *self = new_handle(L, SNAPSHOT);
    aw_error err;

    if (aw_snapshot_open(self->target, &self->snapshot, &err) < 0)
        return push_error(L, self->target, &err);
    snprintf(self->version, sizeof self->version, "%s", aw_snapshot_version(self->snapshot));
    return 1;
}

/* snapshot:read(path) */
static int snapshot_read(lua_State *L)
{
    handle *self = check_open(L, SNAPSHOT);
    size_t size = 0;
    aw_error err;
    bool sane;
    const char *path = check_name(L, 2, &sane, &err);
    scratch *own = begin_call(L, SNAPSHOT);

    if (!sane || aw_snapshot_read(self->snapshot, path, &own->data, &size, &err) < 0)
        return fail(L, self, own, &err);
    lua_pushlstring(L, own->data, size);
    release(own);
    return 1;
}

/* snapshot:paths() */
static int snapshot_paths(lua_State *L)
{
    handle *self = check_open(L, SNAPSHOT);
    scratch *own = begin_call(L, SNAPSHOT);
    aw_error err;

    if (aw_snapshot_paths(self->snapshot, &own->paths, &err) < 0)
        return fail(L, self, own, &err);
    push_list(L, &own->paths);
    release(own);
    return 1;
}

/* snapshot:stat(path) */
static int snapshot_stat(lua_State *L)
{
    handle *self = check_open(L, SNAPSHOT);
    aw_stat about;
    aw_error err;
    bool sane;
    const char *path = check_name(L, 2, &sane, &err);

    if (!sane || aw_snapshot_stat(self->snapshot, path, &about, &err) < 0)
        return push_error(L, self->target, &err);
    lua_createtable(L, 0, 6);
    set_string(L, "type", about.directory ? "directory" : "file");
    set_integer(L, "mode", about.mode);
    set_integer(L, "uid", about.uid);
    set_integer(L, "gid", about.gid);
    set_integer(L, "size", (int64_t)about.size);
    set_integer(L, "mtime", about.mtime);
    return 1;
}

/* snapshot:is_current() */
static int snapshot_is_current(lua_State *L)
{
    handle *self = check_open(L, SNAPSHOT);
    bool current = false;
    aw_error err;

    if (aw_snapshot_is_current(self->snapshot, &current, &err) < 0)
        return push_error(L, self->target, &err);
    lua_pushboolean(L, current);
    return 1;
}

/* ---- watcher ------------------------------------------------------------ */

/* watch(target) */
static int watcher_open(lua_State *L)
{
    handle *self = new_handle(L, WATCHER);
    aw_error err;

    if (aw_watch_open(self->target, &self->watcher, &err) < 0)
        return push_error(L, self->target, &err);
    return 1;
}

/* watcher:wait([seconds]) */
static int watcher_wait(lua_State *L)
{
    handle *self = check_open(L, WATCHER);
    int64_t left = INT64_MAX, end = INT64_MAX;
    char version[AW_VERSION_MAX];
    aw_error err;
    int rc;

    if (!lua_isnoneornil(L, 2)) {
        const char *wrong = read_seconds(L, 2, &left);

        luaL_argcheck(L, !wrong, 2, wrong);
        end = now_ms() + left + (left > 0); /* the clock is cut */
    }
    for (;;) {
        rc = aw_watch_wait(self->watcher, left < WATCH_SLICE ? left : WATCH_SLICE, version, &err);
        left = end - now_ms();
        if (rc > 0 || (rc == 0 && left <= 0)
            || (rc < 0 && (err.code != AW_E_IO || err.sys_errno != EINTR)))
            break;
        let_hook_run(L);
        self = check_open(L, WATCHER);
        left = left > 0 ? left : 0;
    }
    if (rc < 0)
        return push_error(L, self->target, &err);
    if (rc == 0) {
        lua_pushnil(L);
        lua_pushliteral(L, "timeout");
        return 2;
    }
    lua_pushstring(L, version);
    return 1;
}

/* watcher:fd() */
static int watcher_fd(lua_State *L)
{
    push_integer(L, aw_watch_fd(check_open(L, WATCHER)->watcher));
    return 1;
}

/* ---- inspecting --------------------------------------------------------- */

static void set_inspected(lua_State *L, const aw_inspection *is)
{
    lua_createtable(L, (int)is->version_count, 0);
    for (size_t i = 0; i < is->version_count; i++) {
        push_version(L, &is->versions[i].version);
        set_boolean(L, "leased", is->versions[i].leased);
        lua_rawseti(L, -2, (int)i + 1);
    }
    lua_setfield(L, -2, "versions");
}

/* inspect(target) */
static int inspect(lua_State *L)
{
    static const char *const faults[] = {
        [AW_MISSING] = "missing", [AW_DANGLING] = "dangling", [AW_FOREIGN] = "foreign",
    };
    bool sane;
    aw_error err;
    const char *target = check_name(L, 1, &sane, &err);
    scratch *own = new_scratch(L);
    const aw_inspection *is = &own->inspection;

    luaL_argcheck(L, sane, 1, "the target holds a NUL byte");
    if (aw_inspect(target, &own->inspection, &err) < 0)
        return push_error(L, target, &err);
    lua_createtable(L, 0, 12);
    set_string(L, "target", is->target);
    if (is->live)
        set_string(L, "live", is->live);
    if (is->fault != AW_SOUND)
        set_string(L, "fault", faults[is->fault]);
    if (is->message)
        set_string(L, "message", is->message);
    set_inspected(L, is);
    set_list(L, "residue", &is->residue);
    set_list(L, "dangling", &is->dangling);
    set_list(L, "missing", &is->missing);
    set_list(L, "foreign", &is->foreign);
    set_integer(L, "others", (int64_t)is->others);
    if (is->locked >= 0)
        set_boolean(L, "locked", is->locked > 0);
    release(own);
    return 1;
}

/* ---- for the builders, not for users ------------------------------------ */

/* environ() -> the environment as a table of name to value */
static int core_environ(lua_State *L)
{
    size_t count = 0;

    lua_newtable(L);
    while (environ && environ[count])
        count++;
    while (count-- > 0) { /* backwards: of two the first counts, as in getenv() */
        const char *entry = environ[count], *equals = strchr(entry, '=');

        if (equals && equals != entry) {
            lua_pushlstring(L, entry, (size_t)(equals - entry));
            lua_pushstring(L, equals + 1);
            lua_rawset(L, -3);
        }
    }
    return 1;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static const char *type_name(mode_t mode)
{
    return S_ISREG(mode) ? "file" : S_ISDIR(mode) ? "directory" : S_ISLNK(mode) ? "link" : "other";
}

/* list_directory(path) -> array of { name=, type= } by name, links not followed */
static int core_list_directory(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    int count, listed = 0;
    scratch *own;
    aw_error err;

    lua_settop(L, 1);
    own = new_scratch(L);
    count = scandir(path, &own->names, NULL, by_name);
    if (count < 0) {
        aw_fail_io(&err, "opendir", path);
        return push_error(L, NULL, &err);
    }
    own->name_count = count;
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        const struct dirent *found = own->names[i];
        struct stat about;

        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        about.st_mode = (mode_t)DTTOIF(found->d_type);
        if (found->d_type == DT_UNKNOWN
            && lstat(lua_pushfstring(L, "%s/%s", path, found->d_name), &about) < 0)
            about.st_mode = 0; /* gone meanwhile, or not for us to know: "other" */
        lua_settop(L, 3);
        lua_createtable(L, 0, 2);
        set_string(L, "name", found->d_name);
        set_string(L, "type", type_name(about.st_mode));
        lua_rawseti(L, 3, ++listed);
    }
    release(own);
    return 1;
}

/* A user or a group: asked for by NAME, or by ID if that is NULL; both are filled. */
typedef struct account {
    const char *name;
    int64_t     id;
    bool        known;
} account;

/* 0, or an errno. The answer's name is in BUFFER. */
typedef int (*finder)(account *sought, char *buffer, size_t size);

static int find_user(account *sought, char *buffer, size_t size)
{
    struct passwd entry, *found = NULL;
    int code = sought->name ? getpwnam_r(sought->name, &entry, buffer, size, &found)
                            : getpwuid_r((uid_t)sought->id, &entry, buffer, size, &found);

    if (found)
        *sought = (account) { entry.pw_name, entry.pw_uid, true };
    return code;
}

static int find_group(account *sought, char *buffer, size_t size)
{
    struct group entry, *found = NULL;
    int code = sought->name ? getgrnam_r(sought->name, &entry, buffer, size, &found)
                            : getgrgid_r((gid_t)sought->id, &entry, buffer, size, &found);

    if (found)
        *sought = (account) { entry.gr_name, entry.gr_gid, true };
    return code;
}

/* FIND in a buffer that grows as needed: a group may have thousands of members.
 * 0, known or not, or an errno. */
static int find_account(scratch *own, finder find, account *sought)
{
    const size_t last = (size_t)64 << 20;
    int code = ERANGE;

    for (size_t size = 1024; code == ERANGE && size <= last; size *= 2) {
        char *grown = realloc(own->data, size);

        if (!grown)
            return ENOMEM;
        own->data = grown;
        do
            code = find(sought, grown, size);
        while (code == EINTR);
    }
    return code == ENOENT || code == ESRCH ? 0 : code; /* other words for "unknown" */
}

/* Nil and the error, or nil alone for what is unknown; else 0. */
static int push_no_account(lua_State *L, scratch *own, int code, const account *sought)
{
    aw_error err;

    if (code == 0 && sought->known)
        return 0;
    release(own);
    if (code == 0) {
        lua_pushnil(L);
        return 1;
    }
    errno = code;
    aw_fail_io(&err, "account lookup", NULL);
    return push_error(L, NULL, &err);
}

/* The number of the user or group that argument 1 names, as FIND does. */
static int push_id(lua_State *L, finder find)
{
    account sought = { NULL, 0, false };
    scratch *own;
    int code = 0, pushed;

    luaL_checktype(L, 1, LUA_TSTRING);
    own = new_scratch(L);
    sought.name = string_at(L, 1);
    if (sought.name)
        code = find_account(own, find, &sought);
    pushed = push_no_account(L, own, code, &sought);
    if (pushed > 0)
        return pushed;
    release(own);
    push_integer(L, sought.id);
    return 1;
}

/* The name of the user or group with the number that is argument 1. */
static int push_name(lua_State *L, finder find)
{
    account sought = { NULL, 0, false };
    const char *wrong = read_id(L, 1, &sought.id);
    scratch *own;
    int pushed;

    luaL_argcheck(L, !wrong, 1, wrong);
    own = new_scratch(L);
    pushed = push_no_account(L, own, find_account(own, find, &sought), &sought);
    if (pushed > 0)
        return pushed;
    lua_pushstring(L, sought.name); /* in the scratch still */
    release(own);
    return 1;
}

/* user_id(name), group_id(name) -> number, or nil if unknown, or nil and an error */
static int core_user_id(lua_State *L)
{
    return push_id(L, find_user);
}

static int core_group_id(lua_State *L)
{
    return push_id(L, find_group);
}

/* user_name(uid), group_name(gid) -> string, or as above */
static int core_user_name(lua_State *L)
{
    return push_name(L, find_user);
}

static int core_group_name(lua_State *L)
{
    return push_name(L, find_group);
}

/* ---- the module --------------------------------------------------------- */

static const luaL_Reg writer_methods[] = {
    { "write", writer_write },       { "plan", writer_plan },
    { "rollback", writer_rollback }, { "versions", writer_versions },
    { "collect", writer_collect },   { "settle", writer_settle },     { NULL, NULL },
};

static const luaL_Reg snapshot_methods[] = {
    { "read", snapshot_read }, { "paths", snapshot_paths },
    { "stat", snapshot_stat }, { "is_current", snapshot_is_current },
    { NULL, NULL },
};

static const luaL_Reg watcher_methods[] = {
    { "wait", watcher_wait }, { "fd", watcher_fd }, { NULL, NULL },
};

static const luaL_Reg functions[] = {
    { "new", writer_new },
    { "open", snapshot_open },
    { "watch", watcher_open },
    { "inspect", inspect },
    { "environ", core_environ },
    { "list_directory", core_list_directory },
    { "user_id", core_user_id },
    { "group_id", core_group_id },
    { "user_name", core_user_name },
    { "group_name", core_group_name },
    { NULL, NULL },
};

static void set_functions(lua_State *L, const luaL_Reg *list)
{
    for (; list->name; list++) {
        lua_pushcfunction(L, list->func);
        lua_setfield(L, -2, list->name);
    }
}

/* TABLE[NAME] = a closure over KIND, TABLE being on top of the stack. */
static void set_closure(lua_State *L, const char *name, lua_CFunction function, const char *kind)
{
    lua_pushstring(L, kind);
    lua_pushcclosure(L, function, 1);
    lua_setfield(L, -2, name);
}

static void make_class(lua_State *L, const char *kind, const luaL_Reg *methods)
{
    luaL_newmetatable(L, kind);
    set_string(L, "__name", kind);
    set_closure(L, "__gc", handle_gc, kind);
    set_closure(L, "__close", handle_close, kind);
    set_closure(L, "__tostring", handle_tostring, kind);
    lua_pushstring(L, kind);
    lua_newtable(L);
    set_functions(L, methods);
    set_closure(L, "close", handle_close, kind);
    lua_pushcclosure(L, handle_index, 2);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

int luaopen_atomicwriter_core(lua_State *L)
{
    make_class(L, WRITER, writer_methods);
    make_class(L, SNAPSHOT, snapshot_methods);
    make_class(L, WATCHER, watcher_methods);

    luaL_newmetatable(L, SCRATCH);
    lua_pushcfunction(L, scratch_gc);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);

    luaL_newmetatable(L, ERROR);
    set_string(L, "__name", ERROR);
    lua_pushcfunction(L, error_tostring);
    lua_setfield(L, -2, "__tostring");
    lua_pushcfunction(L, error_concat);
    lua_setfield(L, -2, "__concat");
    lua_pop(L, 1);

    lua_newtable(L);
    set_functions(L, functions);
    set_string(L, "_VERSION", AW_VERSION_STRING);
    return 1;
}
