#!lua name=@PREFIX@
-- Carillon's functions in Redis 7 and later (and Valkey), named after the prefix. Publishers call one of them:
--   FCALL @PREFIX@_publish 1 @PREFIX@:<topic> '<event json>'   ->  <epoch>-<seq>
-- Nodes load this library when they connect. To replace it by hand (after a change of the settings below):
--   carillon redis-function | redis-cli -x FUNCTION LOAD REPLACE
--
-- A topic's log is a stream of the channel's name. It is opened at <now in ms>-0, so that "nothing yet" is a provable
-- place; within that epoch the entries are numbered 1, 2, 3, ... without holes.

local VERSION = 5 -- goes up with every change of this text
local PREFIX = '@PREFIX@'
local AREAS = '@AREAS@' -- comma-separated, like the next
local PRIVATE = '@PRIVATE@' -- areas whose keys are editors' names, in lower case
local LOG_LENGTH = @LOG_LENGTH@ -- events that a log keeps
local LOG_TTL_MS = @LOG_TTL_MS@ -- how long it lives after the last event or follower
local EVENT_BYTES = @EVENT_BYTES@ -- the largest event
local SHARDED = @SHARDED@ -- Redis Cluster: sharded pub/sub
local DUPLICATES_MS = 300000 -- how long a duplicate is recognised
local NODES_MS = 600000 -- how long what nodes say about themselves is kept, when none is left; each entry has its own end
local PIECE = 16 -- entries of a log that are looked at in one go
local DEPTH = 64 -- the deepest nesting; the event itself is level 1

-- Redis lends the libraries of Lua to running functions only, so these are filled at the first call.
local byte, find, gsub, sub, format
local IS_AREA, IS_PRIVATE

local function set_of(list)
  local set = {}
  for name in string.gmatch(list, '[^,]+') do set[name] = true end
  return set
end

local function prepare()
  byte, find, gsub, sub, format = string.byte, string.find, string.gsub, string.sub, string.format
  IS_AREA, IS_PRIVATE = set_of(AREAS), set_of(PRIVATE)
end

@CHECK@
-- Logs -------------------------------------------------------------------------------------------------------------

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function integer(n) return format('%.0f', n) end

-- The end of a log as <epoch>, <seq>; opened where there is none. What was put in its place by hand and is no stream goes
-- when a node follows the topic, for it would stop whoever follows others with it; a publisher is refused.
local function top_of(key, followed)
  local epoch = now_ms()
  if redis.call('EXISTS', key) == 1 then
    local info = redis.pcall('XINFO', 'STREAM', key)
    if info.err then
      if not followed or not find(info.err, 'WRONGTYPE', 1, true) then error(info) end
      redis.call('PEXPIRE', key, 0)
    end
    for i = 1, #info, 2 do
      if info[i] == 'last-generated-id' then
        local _, _, ms, seq = find(info[i + 1], '^(%d+)-(%d+)$')
        if ms ~= '0' then return ms, seq end
      end
    end
  end
  epoch = integer(epoch)
  redis.call('XADD', key, epoch .. '-0', 'event', '')
  redis.call('XTRIM', key, 'MAXLEN', 0)
  return epoch, '0'
end

-- The id that an event of this name got in the last five minutes. Names lie in two hashes that are exchanged, so that
-- neither grows for ever and none is forgotten too early; the member '' says when the first was begun.
local function names_of(channel)
  return PREFIX .. ':ids:{' .. channel .. '}', PREFIX .. ':ids-before:{' .. channel .. '}'
end

local function first_id(channel, name, now)
  local names, before = names_of(channel)
  local begun = redis.call('HGET', names, '')
  if begun and now - tonumber(begun) >= DUPLICATES_MS then
    redis.call('RENAME', names, before)
  end
  for _, hash in ipairs({ names, before }) do
    local known = redis.call('HGET', hash, name)
    if known then
      local _, _, ms, id = find(known, '^(%d+) (.+)$')
      if now - tonumber(ms) <= DUPLICATES_MS then return id end
    end
  end
end

local function remember(channel, name, now, id)
  local names = names_of(channel)
  redis.call('HSETNX', names, '', integer(now))
  redis.call('HSET', names, name, integer(now) .. ' ' .. id)
  redis.call('PEXPIRE', names, 2 * DUPLICATES_MS)
end

local function send(channel, message)
  redis.call(SHARDED and 'SPUBLISH' or 'PUBLISH', channel, message)
end

local function lineage()
  local _, _, id = find(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  return id or ''
end

-- The functions ----------------------------------------------------------------------------------------------------

local function publish(keys, args)
  if #keys ~= 1 or #args ~= 1 then
    return redis.error_reply('ERR usage: FCALL ' .. PREFIX .. '_publish 1 ' .. PREFIX .. ':<topic> <event json>')
  end
  local channel, json = keys[1], args[1]
  local problem = check_topic(channel)
  if problem then return redis.error_reply('TOPIC ' .. problem) end
  local event
  event, problem = check_event(json)
  if problem then return redis.error_reply('EVENT ' .. problem) end
  local source = event.source or ''
  local name, now = event.id and #source .. ':' .. source .. event.id, now_ms()
  local first = name and first_id(channel, name, now)
  if first then return first end
  json = gsub(json, '[\r\n]', ' ')
  local epoch = top_of(channel)
  local id = redis.call('XADD', channel, 'MAXLEN', LOG_LENGTH, epoch .. '-*', 'event', json)
  redis.call('PEXPIRE', channel, LOG_TTL_MS)
  if name then remember(channel, name, now, id) end
  send(channel, id .. ' ' .. json)
  return id
end

-- KEYS: logs. -> lineage, now, the end of each. Not no-writes: a demoted master must refuse instead of telling the past.
local function heads(keys)
  local reply = { lineage(), integer(now_ms()) }
  for _, key in ipairs(keys) do
    local epoch, seq = top_of(key, true)
    redis.call('PEXPIRE', key, LOG_TTL_MS)
    reply[#reply + 1] = epoch .. '-' .. seq
  end
  return reply
end

-- KEYS: a log. ARGS: a position, and how many bytes there is room for (at least one entry is given; without it, all are).
-- -> lineage, now, the end, then id and event (false where there is none) of each entry; none where there are no more.
local function history(keys, args)
  local reply = heads({ keys[1] })
  local _, _, epoch = find(args[1], '^(%d+)-')
  local from = find(reply[3], epoch .. '-', 1, true) == 1 and '(' .. args[1] or '-'
  local room = tonumber(args[2]) or math.huge
  repeat
    local entries = redis.call('XRANGE', keys[1], from, '+', 'COUNT', PIECE)
    for _, entry in ipairs(entries) do
      local fields = entry[2]
      local event = #fields == 2 and fields[1] == 'event' and fields[2]
      room = room - #entry[1] - (event and #event or 0)
      if room < 0 and #reply > 3 then return reply end
      reply[#reply + 1] = entry[1]
      reply[#reply + 1] = event
      from = '(' .. entry[1]
    end
  until #entries < PIECE
  return reply
end

-- KEYS: a probe channel. ARGS: what to send back through it. -> lineage, now.
local function probe(keys, args)
  local now = integer(now_ms())
  send(keys[1], now .. ' ' .. args[1])
  return { lineage(), now }
end

-- KEYS: the hash of marks. -> now, area, mark, ...
local function all_marks(key, now)
  local reply = redis.call('HGETALL', key)
  table.insert(reply, 1, integer(now))
  return reply
end

local function marks(keys) return all_marks(keys[1], now_ms()) end

-- KEYS: the hash of marks. ARGS: how far ahead, areas.
local function mark(keys, args)
  local now = now_ms()
  local ahead = now + tonumber(args[1])
  for i = 2, #args do
    if ahead > tonumber(redis.call('HGET', keys[1], args[i]) or 0) then
      redis.call('HSET', keys[1], args[i], integer(ahead))
    end
  end
  return all_marks(keys[1], now)
end

-- KEYS: the hash of nodes. ARGS: node, for how long, its state.
local function announce(keys, args)
  local now = now_ms()
  redis.call('HSET', keys[1], args[1], integer(now + tonumber(args[2])) .. ' ' .. args[3])
  redis.call('PEXPIRE', keys[1], NODES_MS)
  return 'OK'
end

-- KEYS: the hash of nodes. -> node, state, ... of those that announced themselves lately.
local function nodes(keys)
  local now, all, reply = now_ms(), redis.call('HGETALL', keys[1]), {}
  for i = 1, #all, 2 do
    local _, _, till, state = find(all[i + 1], '^(%d+) (.*)$')
    if till and tonumber(till) > now then
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = state
    else
      redis.call('HDEL', keys[1], all[i])
    end
  end
  return reply
end

local function settings()
  return { 'version', tostring(VERSION), 'areas', AREAS, 'private', PRIVATE, 'log_length', integer(LOG_LENGTH),
    'log_ttl_ms', integer(LOG_TTL_MS), 'event_bytes', integer(EVENT_BYTES), 'sharded', tostring(SHARDED) }
end

local function register(name, callback, ...)
  redis.register_function{ function_name = PREFIX .. name, flags = { ... }, callback = function(keys, args)
    if not IS_AREA then prepare() end
    return callback(keys, args)
  end }
end

register('_publish', publish)
register('_probe', probe) -- refused where publish is refused, which is how a node knows
register('_heads', heads, 'allow-oom')
register('_history', history, 'allow-oom')
register('_marks', marks, 'allow-oom')
register('_mark', mark, 'allow-oom')
register('_announce', announce, 'allow-oom')
register('_nodes', nodes, 'allow-oom')
register('_settings', settings, 'no-writes')
