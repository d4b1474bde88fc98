/* heap: a Lua module that says how many bytes of malloc's are in use.
 *
 *     local heap = require "bench.heap"
 *     heap()   --> bytes, of all arenas and of what was mapped alone
 *
 * All that the C core keeps comes from malloc; so does all of Lua 5.4, and of LuaJIT what
 * collectgarbage("count") does not tell. */
#include <lauxlib.h>
#include <lua.h>
#include <malloc.h>

__attribute__((visibility("default"))) int luaopen_bench_heap(lua_State *L);

static int in_use(lua_State *L)
{
    struct mallinfo2 all = mallinfo2();

    lua_pushnumber(L, (lua_Number)all.uordblks + (lua_Number)all.hblkhd);
    return 1;
}

int luaopen_bench_heap(lua_State *L)
{
    lua_pushcfunction(L, in_use);
    return 1;
}
