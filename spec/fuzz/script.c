/* script.c: a fuzz target whose code under test, and oracle, are Lua.
 *
 * Built once for each spec/fuzz/FUZZ_SCRIPT.lua, which returns a function of the bytes
 * and of `limit`; it raises when something does not hold. Calling limit(N) lets the
 * code that follows run for N instructions, after which it is raised "too long"; the
 * whole state may have MEMORY_MAX bytes, after which Lua raises "not enough memory".
 *
 * The interpreter is not instrumented, and need not be: the fuzzer is shown which
 * lines of Lua follow which, as counters of its own. Run from the checkout's root.
 */
#include "fuzz.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>

#define PATH "spec/fuzz/" FUZZ_SCRIPT ".lua"

enum { COUNTERS = 1 << 14, EVERY = 1000, MEMORY_MAX = 64 << 20 };

/* libFuzzer reads them and sets them to zero before each run. */
__attribute__((section("__libfuzzer_extra_counters"), used)) static uint8_t counters[COUNTERS];

static lua_State *state;
static unsigned   last_line;
static long long  left; /* instructions */
static size_t     used; /* bytes */

static void *allocate(void *context, void *block, size_t old_size, size_t size)
{
    void *made = NULL;

    (void)context;
    if (!block)
        old_size = 0; /* then it is the kind of object */
    if (size == 0)
        free(block);
    else if (size <= old_size || used - old_size + size <= MEMORY_MAX)
        made = realloc(block, size);
    if (size == 0 || made)
        used = used - old_size + size;
    return made;
}

static void hook(lua_State *L, lua_Debug *event)
{
    if (event->event == LUA_HOOKLINE) {
        unsigned line = (unsigned)event->currentline;

        counters[(last_line * 613 + line) % COUNTERS]++;
        last_line = line;
        return;
    }
    left -= EVERY;
    if (left < 0)
        luaL_error(L, "too long");
}

static int set_limit(lua_State *L)
{
    left = luaL_checkinteger(L, 1);
    return 0;
}

static int explain(lua_State *L)
{
    luaL_traceback(L, L, luaL_tolstring(L, 1, NULL), 1);
    return 1;
}

static void fail(void)
{
    fprintf(stderr, "%s: %s\n", PATH, lua_tostring(state, -1));
    abort();
}

/* Leaves the handler of errors, the script's function and `limit` on the stack. */
static void start(void)
{
    state = lua_newstate(allocate, NULL);
    if (!state)
        abort();
    luaL_openlibs(state);
    lua_pushcfunction(state, explain);
    if (luaL_dostring(state, "package.path = 'lua/?.lua;lua/?/init.lua;./?.lua;' .. package.path")
        || luaL_dofile(state, PATH))
        fail();
    lua_pushcfunction(state, set_limit);
    lua_sethook(state, hook, LUA_MASKLINE | LUA_MASKCOUNT, EVERY);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    if (!state)
        start();
    lua_pushvalue(state, 2);
    lua_pushlstring(state, (const char *)bytes, size);
    lua_pushvalue(state, 3);
    left = 100 * 1000 * 1000;
    last_line = 0;
    if (lua_pcall(state, 2, 0, 1) != LUA_OK)
        fail();
    return 0;
}
