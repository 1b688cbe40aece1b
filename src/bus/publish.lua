#!lua name=@PREFIX@
-- Carillon's functions in Redis 7 and later (and Valkey), named after the prefix. Publishers call one of them:
--   FCALL @PREFIX@_publish 1 @PREFIX@:<topic> '<event json>'   ->  <epoch>-<seq>
-- This is the library of one configuration, whose settings stand below. Nodes load it when they connect, and replace it when
-- theirs has a higher settings.generation. To replace it by hand:
--   carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE
--
-- A topic's log has the channel's name. It is opened as a string, the time in ms, which is its epoch: "nothing yet" is a
-- provable place, and a short one. The first event makes it a stream whose entries are numbered <epoch>-1, -2, -3, ...
-- without holes.

local VERSION = 22 -- goes up with every change of this text
local GENERATION = @GENERATION@ -- of the settings below: a higher one replaces a lower one, before VERSION counts
local PREFIX = '@PREFIX@'
local AREAS = '@AREAS@' -- comma-separated, like the next
local PRIVATE = '@PRIVATE@' -- areas whose keys are editors' names
local FOLD_SUBJECT = @FOLD_SUBJECT@ -- whether these are in lower case, because their case does not count
local LOG_LENGTH = @LOG_LENGTH@ -- events that a log keeps
local LOG_TTL_MS = @LOG_TTL_MS@ -- how long it lives after the last event or follower, at least
local EVENT_BYTES = @EVENT_BYTES@ -- the largest event
local SHARDED = @SHARDED@ -- Redis Cluster: sharded pub/sub
local DUPLICATES_MS = 300000 -- how long a duplicate is recognised
local MARK_AHEAD_MS = 30000 -- how far ahead of Redis' clock a mark of live events is written at most
local NODES_MS = 600000 -- how long what nodes say about themselves is kept, when none is left; each entry has its own end
local SOURCES = 64 -- names of sources
local SOURCES_MS = 3600000 -- how long one is remembered that is no longer vouched for, where others need room
local PIECE = 16 -- entries of a log that are looked at in one go
local DEPTH = 64 -- the deepest nesting; the event itself is level 1

-- A life and about a half: written when less than one is left, so that not every look and event writes it.
local LOG_LIFE
local KEPT -- LOG_LENGTH in digits

-- Redis lends its own and the libraries of Lua to running functions only, so these are filled at the first call.
local byte, find, gsub, sub, format, decode, decode_reduced, set_depth
local IS_AREA, IS_PRIVATE
local call, try
local TORN = 'TRYAGAIN this topic is moving to another master of the cluster, and not all of its keys are there yet'
local SEND = SHARDED and 'SPUBLISH' or 'PUBLISH'
local COMPANION = '^' .. PREFIX .. ':ids[a-z-]*:{'

local function set_of(list)
  local set = {}
  for name in string.gmatch(list, '[^,]+') do set[name] = true end
  return set
end

local function integer(n) return format('%.0f', n) end

local function prepare()
  call, try = redis.call, redis.pcall
  byte, find, gsub, sub, format = string.byte, string.find, string.gsub, string.sub, string.format
  local function reader()
    local strict = cjson.new()
    strict.decode_invalid_numbers(false)
    strict.decode_max_depth(DEPTH)
    return strict
  end
  decode = reader().decode
  -- With a depth that changes. Who is killed (FUNCTION KILL) leaves it changed.
  local reduced = reader()
  decode_reduced, set_depth = reduced.decode, reduced.decode_max_depth
  KEPT = integer(LOG_LENGTH)
  LOG_LIFE = integer(LOG_TTL_MS + math.floor(LOG_TTL_MS / 2000) * 1000)
  IS_PRIVATE = set_of(PRIVATE)
  IS_AREA = set_of(AREAS)
end

@CHECK@
-- Logs -------------------------------------------------------------------------------------------------------------

-- Redis' clock, ms; it never goes back. Who was told of a time would otherwise not be told of what happens until it is that
-- late again. Where the machine's clock is set back, this one goes on from where it was. (Another master has its own.)
local latest, behind = 0, 0
-- The same in digits, and of which five minutes it is: to write a number takes longer than to look something up in Redis.
local digits, period, period_digits
local function now_ms()
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000) + behind
  if now < latest then now, behind = latest, behind + latest - now end
  if now ~= latest then
    latest, digits = now, integer(now)
    local reached = math.floor(now / DUPLICATES_MS)
    if reached ~= period then period, period_digits = reached, integer(reached) end
  end
  return now
end

-- What was learned of a topic in earlier calls: `good` (its name was checked), `ids` (the names of its hashes of ids),
-- `begun` (the last five minutes of which it has one), `top` (the last entry of its stream) and `next` (what XADD takes for
-- the entry after it). It saves questions, and decides nothing by itself: keys may have gone, or come from another master,
-- so Redis' answer in the same call counts.
local REMEMBERED = 16384
local young, old, count = {}, {}, 0

local function topic_of(channel)
  local topic = young[channel]
  if topic then return topic end
  topic = old[channel] or {}
  if count == REMEMBERED then old, young, count = young, {}, 0 end
  young[channel], count = topic, count + 1
  return topic
end

-- The place that a log has reached, as <epoch>-<seq>, and whether it is still a string; nil where there is no log; nil,
-- nil and Redis' error where something else was put in its place. XINFO is asked only where the last entry is not the
-- one that is known: somebody may have removed it (XDEL, XTRIM), and the log has reached it all the same.
local function top_of(channel)
  local topic = young[channel] or old[channel]
  if topic and topic.top then
    local last = try('XREVRANGE', channel, '+', '-', 'COUNT', '1')[1]
    if last and last[1] == topic.top then return topic.top end
  end
  local epoch = try('GETRANGE', channel, '0', '-1') -- in digits: Redis takes long to write numbers
  if epoch == '' then return nil end
  if type(epoch) == 'string' then
    if #epoch < 20 and find(epoch, '^[1-9]%d*$') then return epoch .. '-0', true end
    return nil, nil, { err = 'WRONGTYPE ' .. channel .. ' holds a string that is no log: DEL it' }
  end
  -- Any other error than that it is no string: a right that is missing.
  if not find(epoch.err, '^WRONGTYPE') then return nil, nil, epoch end
  local info = try('XINFO', 'STREAM', channel)
  if info.err then return nil, nil, info end
  for i = 1, #info, 2 do
    -- No log begins at 0-0: a stream that is there was made by hand, and nothing was ever in it.
    if info[i] == 'last-generated-id' and info[i + 1] ~= '0-0' then
      local top = info[i + 1]
      topic = topic_of(channel)
      topic.top, topic.next = top, sub(top, 1, find(top, '-', 1, true)) .. '*'
      return top
    end
  end
end

-- Redis' words where a right is missing.
local function without(command, channel)
  return "NOPERM this user has no permissions to run the '" .. command:lower() .. "' command on what belongs to " .. channel
end

-- An error where the user may not do this, before anything is written that needs it.
local function demand(command, channel, ...)
  if not redis.acl_check_cmd(command, ...) then error{ err = without(command, channel) } end
end

-- The epoch of a log that is opened now: a later one than the topic is known to have had.
local function new_epoch(topic)
  local before = topic and topic.next and tonumber(sub(topic.next, 1, -3)) or 0
  return integer(math.max(now_ms(), before + 1))
end

local function ends_soon(channel) return call('PTTL', channel) < LOG_TTL_MS end
local function renew(channel) call('PEXPIRE', channel, LOG_LIFE) end

-- Appends an event; its id. The log is opened where there is none, and becomes a stream where it was a string.
local function append(channel, topic, json)
  local stray
  if topic.next then
    local id = try('XADD', channel, 'NOMKSTREAM', 'MAXLEN', KEPT, topic.next, 'event', json)
    if type(id) == 'string' then
      topic.top = id
      if sub(id, -2) ~= '-0' then return id end
      -- A stream of an earlier epoch, put back by hand, took it as entry 0, which is no event. A new epoch tells everybody.
      stray = true
    end
  end
  local entry
  if stray then
    entry = new_epoch(topic) .. '-1'
  else
    local top, quiet, wrong = top_of(channel)
    if wrong then error(wrong) end
    demand('PEXPIRE', channel, channel, '1')
    if quiet then
      demand('XADD', channel, channel, '*', 'event', '')
      call('DEL', channel)
    end
    entry = quiet and sub(top, 1, -2) .. '1' or top and topic.next or new_epoch(topic) .. '-1'
  end
  local id = call('XADD', channel, 'MAXLEN', KEPT, entry, 'event', json)
  topic.top, topic.next = id, sub(id, 1, find(id, '-', 1, true)) .. '*'
  -- A new stream has no end yet.
  renew(channel)
  return id
end

-- Ids of events lie in two hashes in turn, one for each five minutes, so that neither grows for ever and none is
-- forgotten too early; the member '' says which five minutes a hash is of. Earlier releases wrote a time there.
local function hashes_of(channel, topic, parity)
  local ids = topic.ids
  if not ids then
    ids = { [0] = PREFIX .. ':ids:{' .. channel .. '}', PREFIX .. ':ids-before:{' .. channel .. '}' }
    topic.ids = ids
  end
  return ids[parity], ids[1 - parity]
end

-- The id that an event of this name got in the last five minutes; second, of which five minutes the present hash is.
local function first_id(name, now, present, before)
  local found = call('HMGET', present, name, '')
  local known = found[1] or call('HGET', before, name)
  if known then
    local _, _, ms, id = find(known, '^(%d+) (.+)$')
    if now - tonumber(ms) <= DUPLICATES_MS then return id end
  end
  return nil, found[2]
end

-- While a slot moves, a log may be here and its ids there, or the other way round. Then nobody can tell a duplicate, and a
-- hash that is begun anew would be in the way of the one that comes (MIGRATE: BUSYKEY). Redis refuses to look at several
-- keys of such a slot where one is missing, which is how it is known.
local function is_torn(channel)
  local one, other = hashes_of(channel, topic_of(channel), 0)
  local there = try('EXISTS', channel, one, other)
  -- In the words of Redis 7 and Valkey, and of Redis 8.
  return type(there) == 'table' and (find(there.err, 'non local key', 1, true) or find(there.err, 'during rehashing', 1, true))
end

-- Whether a hash is of earlier five minutes. (`found` is longer where an earlier release wrote a time.)
local function is_of_before(found, which) return found and found ~= which and #found < 12 end

-- `at` and `which`: the time and the five minutes, in digits.
local function remember(name, id, at, which, present, found)
  local value = at .. ' ' .. id
  if found == which then
    call('HSET', present, name, value)
    return
  end
  if is_of_before(found, which) then call('DEL', present) end
  call('HSET', present, '', which, name, value)
  call('PEXPIREAT', present, integer((which + 2) * DUPLICATES_MS))
end

local function send(channel, message) call(SEND, channel, message) end

-- The history of this master; '' and Redis' words where functions may not ask for it: then nodes do by themselves.
local function lineage()
  local info = try('INFO', 'replication')
  if type(info) == 'table' then return '', info.err end
  local _, _, id = find(info, 'master_replid:(%x+)')
  return id or '', 'INFO has no master_replid'
end

-- The functions ----------------------------------------------------------------------------------------------------

-- What comes after an event is recorded must not be refused: the event would be there unannounced, and once more for each
-- time that somebody repeats it. So a missing right is missed before; nil, or the error. `renews`: whether the log will be;
-- `which`: the five minutes in digits, where an event has a name.
local function lacks(channel, topic, renews, which)
  local may, command = redis.acl_check_cmd, nil
  if renews and not may('PEXPIRE', channel, '1') then command = 'pexpire' end
  if not may(SEND, channel, '') then command = SHARDED and 'spublish' or 'publish' end
  if which then
    local present = hashes_of(channel, topic, 0)
    if not may('HSET', present, '', '') then command = 'hset' end
    if topic.begun ~= which and not may('PEXPIREAT', present, '1') then command = 'pexpireat' end
  end
  return command and without(command, channel)
end

-- Records an event and announces it; its id. `now`, `at` and `which`: the time, and it and the five minutes in digits; nil
-- where events have no names.
local function record(channel, topic, name, json, now, at, which)
  if not name then
    local id = append(channel, topic, json)
    send(channel, id .. ' ' .. json)
    return id
  end
  local present, before = hashes_of(channel, topic, which % 2)
  local first, found = first_id(name, now, present, before)
  if first then return first end
  if found ~= which then demand('PEXPIREAT', channel, present, '1') end
  if is_of_before(found, which) then demand('DEL', channel, present) end
  local id = append(channel, topic, json)
  remember(name, id, at, which, present, found)
  topic.begun = which
  send(channel, id .. ' ' .. json)
  return id
end

-- The channels of topics among the keys, or nil and what is wrong with one. The hashes of ids may stand among them too:
-- on a cluster, a caller that names them is told to wait while some of these keys have moved and others have not.
local function channels_of(keys)
  local only = #keys == 1 and young[keys[1]]
  if only and only.good then return keys end
  local channels = {}
  for _, key in ipairs(keys) do
    local topic = young[key]
    if topic and topic.good then
      channels[#channels + 1] = key
    elseif not find(key, COMPANION) then
      local problem = check_topic(key)
      if problem then return nil, problem end
      topic_of(key).good = true
      channels[#channels + 1] = key
    end
  end
  return channels
end

-- Which event this is, for duplicates. Most have the source of the one before.
local last_source, begin
local function name_of(source, id)
  if source ~= last_source then last_source, begin = source, #source .. ':' .. source end
  return begin .. id
end

-- An event on one line, and which one it is (nil where it has no id); nil, nil and what is wrong with it.
local function read_event(json)
  local event, line, problem = check_event(json)
  if problem then return nil, nil, 'EVENT ' .. problem end
  return line, event.id and name_of(event.source or '', event.id)
end

-- The time, and in digits: it, and its five minutes.
local function times()
  local now = now_ms()
  return now, digits, period_digits
end

-- Whether a log must be renewed; second, an error where this user may not record there. Nothing is written yet.
local function look_at(channel, topic, which)
  local renews = ends_soon(channel)
  return renews, lacks(channel, topic, renews or not topic.next, which)
end

-- The error that a topic's keys would give: something else was put there. One event for one topic finds out by itself.
local function obstacle(channel, topic, which)
  local top, _, wrong = top_of(channel)
  if wrong then return wrong.err end
  if not top then
    local there = try('XREVRANGE', channel, '+', '-', 'COUNT', '1') -- an empty string is no log, and not nothing
    if there.err then return there.err end
  end
  for parity = 0, which and 1 or -1 do
    local found = try('HGET', hashes_of(channel, topic, parity), '')
    if type(found) == 'table' then return found.err end
  end
end

-- One event for one topic, as most calls bring. The general way makes lists, which would cost a fifteenth more.
local function publish_one(channel, json)
  local line, name, problem = read_event(json)
  if not problem and SHARDED and name and is_torn(channel) then problem = TORN end
  if problem then return redis.error_reply(problem) end
  local now, at, which
  if name then now, at, which = times() end
  local topic = topic_of(channel)
  local renews, refusal = look_at(channel, topic, which)
  if refusal then return redis.error_reply(refusal) end
  local id = record(channel, topic, name, line, now, at, which)
  if renews then renew(channel) end
  return id
end

-- KEYS: channels of topics. ARGS: an event, or several for one topic. -> its id; a list of ids, in order, where there are
-- several topics or events. All is checked before anything is published.
local function publish(keys, args)
  local channels, problem = channels_of(keys)
  if problem then return redis.error_reply('TOPIC ' .. problem) end
  if #channels == 0 or #args == 0 or #channels > 1 and #args > 1 then
    return redis.error_reply('ERR usage: FCALL ' .. PREFIX .. '_publish 1 ' .. PREFIX .. ':<topic> <event json>')
  end
  if #channels == 1 and #args == 1 then return publish_one(channels[1], args[1]) end
  local names, named = {}, false
  for i = 1, #args do
    args[i], names[i], problem = read_event(args[i])
    if problem then return redis.error_reply(problem) end
    named = named or names[i]
  end
  for i = 1, SHARDED and named and #channels or 0 do
    if is_torn(channels[i]) then return redis.error_reply(TORN) end
  end
  local now, at, which
  if named then now, at, which = times() end
  local renews = {}
  for n, channel in ipairs(channels) do
    local refusal
    renews[n], refusal = look_at(channel, topic_of(channel), which)
    refusal = refusal or obstacle(channel, topic_of(channel), which)
    if refusal then return redis.error_reply(refusal) end
  end
  local ids = {}
  for n, channel in ipairs(channels) do
    local topic = topic_of(channel)
    for i = 1, #args do ids[#ids + 1] = record(channel, topic, names[i], args[i], now, at, which) end
    if renews[n] then renew(channel) end
  end
  return ids
end

@LOGS@
@FORGET@
@NODES@
@SOURCES@
local function settings()
  return { 'version', tostring(VERSION), 'areas', AREAS, 'private', PRIVATE, 'fold_subject', tostring(FOLD_SUBJECT),
    'log_length', integer(LOG_LENGTH), 'log_ttl_ms', integer(LOG_TTL_MS), 'event_bytes', integer(EVENT_BYTES),
    'sharded', tostring(SHARDED), 'generation', integer(GENERATION) }
end

local function register(name, callback, ...)
  redis.register_function{ function_name = PREFIX .. name, flags = { ... }, callback = function(keys, args)
    if not IS_AREA then prepare() end
    return callback(keys, args)
  end }
end

register('_publish', publish)
register('_probe', probe) -- refused where publish is refused, which is how a node knows
register('_clock', clock, 'no-writes')
register('_open', open)
register('_positions', positions)
register('_forget', forget, 'allow-oom')
register('_source', source, 'allow-oom')
register('_sources', sources, 'allow-oom')
register('_heads', heads, 'allow-oom')
register('_history', history, 'allow-oom')
register('_marks', marks, 'allow-oom')
register('_mark', mark, 'allow-oom')
register('_announce', announce, 'allow-oom')
register('_nodes', nodes, 'allow-oom')
register('_settings', settings, 'no-writes')
