-- Lines of the C core that no test reaches, and why. `make coverage` fails where one
-- has no reason here. An entry is told by its text, which must stand once in the
-- file; its first lines may be there only to tell which place is meant.

local memory = "memory runs out just here: the tests of memory fail every allocation of the core, "
    .. "but this one is reached in none of their scenarios"
local binding_memory = "memory runs out in the binding, where no allocation can be made to fail"
local twice = "two independent faults in one write; each alone is tried"
local bound = "a bound that is checked again where it is relied upon: what comes here is shorter"

return {
    { file = "csrc/aw_at.c", why = "needs 10,000 passes, each of which made the tree smaller",
      lines = [[
        if (rc < 0)
            return -1;
    }
    errno = ENOTEMPTY;
    return aw_fail_io(err, "unlinkat", name);
]] },
    { file = "csrc/aw_compare.c", why = "a stranger's directory in a live version, nested deeper "
        .. "than a path may be long; cut for the list of changes alone", lines = [[
        length = sizeof copy - 1;
]] },
    { file = "csrc/aw_compare.c", why = memory, lines = [[
            if (tell_folder(c, node, &payload->folders[f]) < 0)
                return -1;
]] },
    { file = "csrc/aw_compare.c", why = "a writer that remembers, and a file that fails to be read "
        .. "just then: the same in compare() is tried", lines = [[
        if (compare_item(c, &payload->items[i], &file, i, &actions[i]) < 0)
            return -1;
]] },
    { file = "csrc/aw_current.c", why = bound, lines = [[
    if (length >= sizeof parent)
        return -1;
]] },
    { file = "csrc/aw_current.c", why = bound, lines = [[
    if (length + 1 + strlen(base) >= PATH_MAX)
        return -1;
]] },
    { file = "csrc/aw_inspect.c", why = memory, lines = [[
        if (aw_list_add(&i->is.residue, i->scan.retired[n], i->err) < 0)
            return -1;
]] },
    { file = "csrc/aw_memo.c", why = "a file goes between two looks at it; without a print it is "
        .. "read, which is tried", lines = [[
    if (!name || aw_sys_fstatat(cursor->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return print;
]] },
    { file = "csrc/aw_name.c", why = bound, lines = [[
               &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
        return 0;
]] },
    { file = "csrc/aw_payload.c", why = "the binding asks for no more files than there are",
      lines = [[
    if (index >= payload->count || !payload->sealed)
        return false;
]] },
    { file = "csrc/aw_recover.c", why = twice, lines = [[
        if (aw_at_remove_tree(target, retired, err) < 0)
            return -1;
]] },
    { file = "csrc/aw_recover.c", why = twice, lines = [[
        else if (aw_at_remove_tree(target, version, err) < 0)
            return -1;
]] },
    { file = "csrc/aw_snapshot.c", why = memory .. "; and the file must grow meanwhile", lines = [[
        if (!grown)
            free(buffer);
]] },
    { file = "csrc/aw_sys.c", why = "uname fails for a bad address only", lines = [[
    if (uname(&name) < 0)
        return -1;
]] },
    { file = "csrc/aw_txn.c", why = "cannot fail without a target; asked so that nobody "
        .. "need know that", lines = [[
    if (aw_rules_for(-1, &t->writer->options, &rules, t->err) < 0)
        return -1;
]] },
    { file = "csrc/aw_watch.c", why = "inotify never reads as ended; else it would be asked "
        .. "for ever", lines = [[
        if (got == 0)
            return 0;
]] },
    { file = "csrc/aw_write.c", why = memory, lines = [[
    path = malloc(size);
    if (!path)
        return aw_fail_memory(t->err);
]] },
    { file = "csrc/aw_write.c", why = "cannot fail without a target; asked so that nobody "
        .. "need know that", lines = [[
    if (t->target < 0 && aw_rules_for(-1, &t->writer->options, &t->rules, t->err) < 0)
        return -1;
]] },
    { file = "csrc/lua_atomicwriter.c", why = binding_memory, lines = [[
    if (aw_payload_new(&own->payload, err) < 0)
        return -1;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
]] },
    { file = "csrc/lua_atomicwriter.c", why = "only on file systems whose listings do not tell "
        .. "types", lines = [[
            && lstat(lua_pushfstring(L, "%s/%s", path, found->d_name), &about) < 0)
            about.st_mode = 0; /* gone meanwhile, or not for us to know: "other" */
]] },
    { file = "csrc/lua_atomicwriter.c", why = binding_memory, lines = [[
        if (!grown)
            return ENOMEM;
        own->data = grown;
]] },
}
