--- Files into etcd, as one transaction.
--
-- The transaction puts what differs and deletes what is stale. It asks that nobody has changed the
-- keys since they were read. A key that came into being meanwhile cannot be asked about, since
-- etcdctl compares single keys; so each publication also puts a mark, `PREFIX..published`, which
-- the next one compares, and at its end the transaction reads all keys, which shows what somebody
-- else has created in that moment.
--
-- The mark has words that no other publication has: when the connection is lost before the answer
-- has come, they tell whether the transaction was made.
-- @module atomicwriter.cli.etcd.publication

local encoding = require "atomicwriter.cli.etcd.encoding"
local failure = require "atomicwriter.failure"
local feed = require "atomicwriter.cli.etcd.feed"
local process = require "atomicwriter.cli.process"

local concat, format, min, sub = table.concat, string.format, math.min, string.sub

-- What etcd takes unless it was told otherwise: --max-txn-ops, --max-request-bytes.
local MAX_OPS, MAX_BYTES = 128, 1572864
local OWN_OPS = 2 -- the mark, and the read
local OP_BYTES = 16 -- what a request has besides key and value, at most
local RETRY_MIN, RETRY_MAX = 0.2, 2
local ATTEMPT_MIN, ATTEMPT_MAX = 2, 10 -- seconds for a transaction: etcdctl 3.4 would wait for ever

local M = { MAX_OPS = MAX_OPS, MAX_BYTES = MAX_BYTES }

local function fail(code, message)
    return nil, failure.new { code = code, message = message }
end

-- Planning --------------------------------------------------------------------------------------

local function sorted(list)
    table.sort(list)
    return list
end

local KINDS = { "added", "updated", "removed" }

--- What has to be done so that STATE, what is there, becomes FILES.
-- @tparam table state `files`, `mods` and `revision` as a feed has them
-- @tparam table files path to data
-- @treturn table plan: the sorted lists `added`, `updated`, `removed`, and `unchanged`, a number
function M.plan(state, files)
    local plan = { added = {}, updated = {}, removed = {}, unchanged = 0 }
    for path, data in pairs(files) do
        local old = state.files[path]
        if old == data then
            plan.unchanged = plan.unchanged + 1
        else
            local list = old == nil and plan.added or plan.updated
            list[#list + 1] = path
        end
    end
    for path in pairs(state.files) do
        if files[path] == nil then plan.removed[#plan.removed + 1] = path end
    end
    for _, name in ipairs(KINDS) do sorted(plan[name]) end
    plan.changed = #plan.added + #plan.updated + #plan.removed > 0
    return plan
end

--- What two plans for the same files, one carried out after the other, have changed together.
-- @tparam table first
-- @tparam table second is changed, and returned
-- @treturn table plan
function M.join(first, second)
    local kinds = {}
    for _, plan in ipairs { second, first } do -- what there was at first says what it was
        for _, name in ipairs(KINDS) do
            for _, path in ipairs(plan[name]) do kinds[path] = name end
        end
    end
    local files = second.unchanged + #second.added + #second.updated
    for _, name in ipairs(KINDS) do second[name] = {} end
    for path, name in pairs(kinds) do table.insert(second[name], path) end
    for _, name in ipairs(KINDS) do sorted(second[name]) end
    second.unchanged = files - #second.added - #second.updated
    return second
end

--- How large the transaction for a plan is, as etcd counts.
-- @tparam string prefix
-- @tparam table plan
-- @tparam table files
-- @treturn number operations
-- @treturn number bytes, a few more perhaps than there are
function M.size(prefix, plan, files)
    local ops, bytes = OWN_OPS, 512
    for _, list in ipairs { plan.added, plan.updated, plan.removed } do
        ops = ops + #list
        for _, path in ipairs(list) do
            -- A comparison names the key once more.
            bytes = bytes + 2 * (#prefix + #path + OP_BYTES) + #(files[path] or "")
        end
    end
    return ops, bytes
end

local ADVICE_OPS = "publish fewer changes at once, split them over several prefixes, or start etcd "
    .. "with --max-txn-ops %d or more"
local ADVICE_BYTES = "publish less at once, split it over several prefixes, or start etcd with "
    .. "--max-request-bytes %d or more, up to 2 MiB, which etcdctl can send"

--- Why a transaction of this size passes etcd's limits, where it was not told otherwise.
-- @tparam number ops
-- @tparam number bytes
-- @treturn ?string
function M.excess(ops, bytes)
    if ops > MAX_OPS then
        return format("%d operations (%d changes) are more than etcd takes in one transaction, %d "
            .. "by default: " .. ADVICE_OPS, ops, ops - OWN_OPS, MAX_OPS, ops)
    elseif bytes > MAX_BYTES then
        return format("%d bytes are more than etcd takes in one transaction, %d by default: "
            .. ADVICE_BYTES, bytes, MAX_BYTES, bytes)
    end
    return nil
end

-- The text of a transaction ---------------------------------------------------------------------

local function compare(key, mod)
    return format('mod(%s) = "%s"', encoding.quote(key), encoding.number(mod or 0))
end

-- The comparisons: the mark, then what changes, then, unless BARE, as far as there is room, all the
-- rest. There is room for as many as there are operations: etcd has one limit for both.
local function comparisons(prefix, state, plan, bare)
    local lines, seen = {}, {}
    local room = math.max(MAX_OPS, OWN_OPS + #plan.updated + #plan.removed + #plan.added)
    local function add(path)
        if seen[path] or #lines >= room then return end
        seen[path] = true
        lines[#lines + 1] = compare(prefix .. path, state.mods[path])
    end
    add(feed.MARK)
    for _, list in ipairs { plan.updated, plan.removed, plan.added } do
        for _, path in ipairs(list) do add(path) end
    end
    local rest = {}
    for path in pairs(bare and {} or state.mods) do rest[#rest + 1] = path end
    for _, path in ipairs(sorted(rest)) do add(path) end
    return lines
end

--- The transaction, as etcdctl reads it.
-- @tparam string prefix
-- @tparam table state
-- @tparam table plan
-- @tparam table files
-- @tparam string mark
-- @tparam[opt] boolean bare compare no key that does not change
-- @treturn string
function M.transaction(prefix, state, plan, files, mark, bare)
    local lines = comparisons(prefix, state, plan, bare)
    lines[#lines + 1] = ""
    local function put(path, data)
        lines[#lines + 1] = format("put -- %s %s", encoding.quote(prefix .. path),
            encoding.quote(data))
    end
    for _, list in ipairs { plan.added, plan.updated } do
        for _, path in ipairs(list) do put(path, files[path]) end
    end
    for _, path in ipairs(plan.removed) do
        lines[#lines + 1] = "del -- " .. encoding.quote(prefix .. path)
    end
    put(feed.MARK, mark)
    lines[#lines + 1] = "get --prefix --keys-only -- " .. encoding.quote(prefix)
    return concat(lines, "\n") .. "\n\n\n" -- no requests for the case that a comparison fails
end

-- Publishing ------------------------------------------------------------------------------------

local Publication = {}
Publication.__index = Publication

-- What is below the prefix, at REVISION or now.
local function read(self, revision)
    local words = { "get", "--prefix" }
    if revision then words[3] = "--rev=" .. encoding.number(revision) end
    words[#words + 1] = "--"
    words[#words + 1] = self.prefix
    local output, err = self.client:run(words, { signals = self._signals })
    if not output then return nil, err end
    return feed.parse(self.prefix, output)
end

local function newest(state)
    local revision = 0
    for _, mod in pairs(state.mods) do revision = math.max(revision, mod) end
    return revision
end

-- That something was changed after the revision that is expected, or may have been; or nil; or nil
-- and an error. What was deleted since leaves no trace but in the keys of that revision, for as
-- long as etcd has them.
local function surprise(self, state, expected)
    if expected > state.revision then
        return format("revision %.0f is expected, and etcd has only come to %.0f", expected,
            state.revision)
    end
    local found = newest(state)
    if found > expected then
        return format("revision %.0f is expected, but %s was changed at %.0f", expected,
            self.prefix, found)
    end
    if expected == 0 then return nil end
    local before, err = read(self, expected)
    if not before and err.kind == "compacted" then
        return format("revision %.0f is expected, and was compacted: whether a key was deleted "
            .. "since cannot be told; look at what is there, and expect %.0f", expected,
            state.revision)
    elseif not before then
        return nil, err
    end
    for path in pairs(before.mods) do
        if not state.mods[path] then
            return format("revision %.0f is expected, but %s was deleted since", expected,
                self.prefix .. path)
        end
    end
    return nil
end

-- Whether somebody else has put or deleted keys between our read and our transaction, and left a
-- mixture: what the transaction read at its end is not what we wanted.
local function is_mixed(answer, prefix, state, files)
    local responses = answer.responses
    local last = responses[#responses]
    last = last.Response or last
    local range = last.ResponseRange or last.response_range or {}
    local count = 0
    for _, pair in ipairs(range.kvs or {}) do
        local path = sub(encoding.decode_base64(pair.key), #prefix + 1)
        if path ~= feed.MARK then -- one below counts: somebody publishes there
            count = count + 1
            local is_ours = pair.mod_revision == answer.header.revision
            if files[path] == nil or not is_ours and pair.mod_revision ~= state.mods[path] then
                return true
            end
        end
    end
    local wanted = 0
    for _ in pairs(files) do wanted = wanted + 1 end
    return count ~= wanted
end

-- Send the transaction. Returns the revision and whether others have interfered; false where a
-- comparison has failed; nil and an error.
local function send(self, state, plan, files)
    local left = self._deadline - process.now()
    local output, err = self.client:run({ "txn" }, {
        input = M.transaction(self.prefix, state, plan, files, self._mark, self._bare),
        discreet = true, signals = self._signals,
        timeout = math.max(ATTEMPT_MIN, min(ATTEMPT_MAX, left)),
    })
    if not output then return nil, err end
    local answer = encoding.decode_json(output)
    if not answer then return fail("etcd", "etcdctl printed no JSON that we know") end
    if not answer.succeeded then return false end
    return answer.header.revision, is_mixed(answer, self.prefix, state, files)
end

-- What etcd refuses as a whole, and surely has not done.
local REFUSALS = { too_many = true, too_large = true, refused = true, invalid = true }

-- What etcd refuses for its size. Then we do without the comparisons that need not be.
local LIMITS = { too_many = true, too_large = true }

-- What to do where the transaction is too large.
local function advise(self, err, plan, files)
    local ops, bytes = M.size(self.prefix, plan, files)
    if err.kind == "too_many" then
        err.message = format("%s; it has %d: " .. ADVICE_OPS, err.message, ops, ops)
    elseif err.kind == "too_large" then
        err.message = format("%s; it has %d bytes: " .. ADVICE_BYTES, err.message, bytes, bytes)
    end
end

-- Why PLAN must not be carried out, or nil: it would delete what nobody has published here. Who
-- names a revision with --expect knows what is there.
local function objection(self, state, plan, expected)
    if state.nested then
        return format("%s is published by itself: publish there, or delete %s%s first",
            self.prefix .. sub(state.nested, 1, -#feed.MARK - 1), self.prefix, state.nested)
    elseif #plan.removed > 0 and not state.mark and not expected then
        return format("%d keys below %s, such as %s, were not put there by publish and would be "
            .. "deleted; to do that, give --expect %.0f", #plan.removed, self.prefix,
            self.prefix .. plan.removed[1], state.revision)
    end
    return nil
end

-- What was published is not what is there now: somebody else has written at the same time. With
-- --expect that is told, without it all is published once more, with a mark that tells this from
-- the first time.
local function repeated(self, revision, expected)
    self._live, self._unanswered = revision, false
    if expected then return fail("conflict", "somebody else has written at the same time") end
    self._mark = self._mark .. "+"
    self._before = self._before and M.join(self._before, self._plan) or self._plan
    return true
end

-- One attempt: read, plan, send. Returns the result; nil and an error; or nothing where somebody
-- else was faster, and it has to be tried again.
local function attempt(self, files, expected)
    local state, err = read(self)
    if not state then return nil, err end
    local plan = M.plan(state, files)
    plan.revision = newest(state)
    if state.mark == self._mark then -- an attempt of ours that was not answered
        if not plan.changed then
            self._plan.revision = state.mods[feed.MARK]
            return self._plan
        end
        local fine, conflict = repeated(self, state.mods[feed.MARK], expected)
        if not fine then return nil, conflict end
    elseif expected then
        local why, unknown = surprise(self, state, expected)
        if unknown then return nil, unknown end
        if why then return fail("conflict", why) end
    end
    if self._live then plan.changed = true end
    if not plan.changed then return plan end
    plan.obstacle = objection(self, state, plan, expected)
    if self._dry_run then
        plan.obstacle = plan.obstacle or M.excess(M.size(self.prefix, plan, files))
        return plan
    end
    if plan.obstacle then return fail("conflict", plan.obstacle) end
    self._plan = plan
    local revision, more = send(self, state, plan, files)
    if revision == nil and LIMITS[more.kind] and not self._bare then
        self._bare = true
        revision, more = send(self, state, plan, files)
    end
    if revision == nil then
        if not REFUSALS[more.kind] then self._unanswered = true end
        advise(self, more, plan, files)
        return nil, more
    elseif not revision then
        return nil
    elseif more then
        return nil, select(2, repeated(self, revision, expected))
    end
    if self._before then M.join(self._before, plan) end
    plan.revision = revision
    return plan
end

--- Publish FILES: afterwards they, and nothing else, are below the prefix.
-- @tparam table files path to data
-- @tparam table opts `expect`: the revision since which nothing below the prefix may have changed;
--  `timeout`: seconds to go on trying while etcd does not answer; `dry_run`
-- @treturn[1] table result: `changed`, `added`, `updated`, `removed`, `unchanged`, `revision`; in a
--  dry run `obstacle`: why it would be refused, if so
-- @treturn[2] nil
-- @treturn[2] table error: `conflict` when something was changed since, or what others have put
--  would be deleted. Its message says what is known of whether it was published
function Publication:publish(files, opts)
    local deadline, delay, told = process.now() + opts.timeout, RETRY_MIN, false
    self._dry_run, self._deadline = opts.dry_run, deadline
    while true do
        local result, err = attempt(self, files, opts.expect)
        if result then return result end
        local signals = self._signals
        local stopped = signals and signals.stop -- which ends etcdctl, too
        if stopped then return fail("cancelled", "interrupted: " .. self:outcome()) end
        local is_over = process.now() >= deadline
        if is_over and not err then
            err = select(2, fail("conflict", "others publish all the time"))
        end
        if err and (is_over or err.kind ~= "silent") then
            err.message = err.message .. "; " .. self:outcome()
            return nil, err
        end
        if err and self._console and not told then
            told = true
            self._console:warn(tostring(err) .. "; still trying")
        end
        process.wait(function() return signals and signals.stop end,
            delay * (0.5 + process.random()))
        delay = min(delay * 2, RETRY_MAX)
    end
end

--- What is known of a publication that has failed, in words.
-- @treturn string
function Publication:outcome()
    if self._live then
        return format("published as revision %.0f, mixed with what others have written", self._live)
    end
    return self._unanswered and "it is not known whether it was published"
        or "nothing was published"
end

--- Prepare to publish. Nothing is read yet.
-- @tparam table client of `atomicwriter.cli.etcd.client`
-- @tparam string prefix
-- @tparam ?table signals
-- @tparam ?table console is told when etcd does not answer at first
-- @treturn Publication
function M.new(client, prefix, signals, console)
    return setmetatable({
        client = client, prefix = prefix, _signals = signals, _console = console,
        _mark = format("%s %06x%06x", os.date("!%Y-%m-%dT%H:%M:%SZ"),
            math.floor(process.random() * 16777216), math.floor(process.random() * 16777216)),
    }, Publication)
end

return M
