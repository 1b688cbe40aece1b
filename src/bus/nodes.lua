-- What nodes keep in Redis for each other: probes, the marks of live events, and the board on which they say how they are;
-- and the sources that publishers vouch for. Part of the library in publish.lua.

-- KEYS: a probe channel. ARGS: what to send back through it. -> lineage, now, the library's version.
local function probe(keys, args)
  local now = integer(now_ms())
  send(keys[1], now .. ' ' .. args[1])
  return { lineage(), now, VERSION }
end

-- KEYS: the hash of marks. -> now, area, mark, ...
local function all_marks(key, now)
  local reply = call('HGETALL', key)
  table.insert(reply, 1, integer(now))
  return reply
end

local function marks(keys) return all_marks(keys[1], now_ms()) end

-- KEYS: the hash of marks. ARGS: how far ahead, areas.
local function mark(keys, args)
  local now = now_ms()
  local ahead = now + tonumber(args[1])
  for i = 2, #args do
    if ahead > tonumber(call('HGET', keys[1], args[i]) or 0) then
      call('HSET', keys[1], args[i], integer(ahead))
    end
  end
  return all_marks(keys[1], now)
end

-- KEYS: the hash of nodes. ARGS: node, for how long, its state.
local function announce(keys, args)
  local now = now_ms()
  call('HSET', keys[1], args[1], integer(now + tonumber(args[2])) .. ' ' .. args[3])
  call('PEXPIRE', keys[1], NODES_MS)
  return 'OK'
end

-- KEYS: the hash of nodes. -> node, state, ... of those that announced themselves lately.
local function nodes(keys)
  local now, all, reply = now_ms(), call('HGETALL', keys[1]), {}
  for i = 1, #all, 2 do
    local _, _, till, state = find(all[i + 1], '^(%d+) (.*)$')
    if till and tonumber(till) > now then
      reply[#reply + 1] = all[i]
      reply[#reply + 1] = state
    else
      call('HDEL', keys[1], all[i])
    end
  end
  return reply
end

-- KEYS: the hash of sources. ARGS: a name, for how many seconds it is vouched for (5 to 300; 0 says good-bye), perhaps the
-- age of the oldest event that waits to be published, ms.
local function source(keys, args)
  local key, name, seconds, oldest = keys[1], args[1], tonumber(args[2]), tonumber(args[3] or 0)
  if #keys ~= 1 or not name or #args > 3 then
    return redis.error_reply('ERR usage: FCALL ' .. PREFIX .. '_source 1 ' .. PREFIX .. ':sources <name> <seconds> [<oldest ms>]')
  elseif key ~= PREFIX .. ':sources' then
    return redis.error_reply('SOURCE the key of sources is ' .. PREFIX .. ':sources')
  elseif #name > 64 or not find(name, '^[%w._:/@-]+$') then
    return redis.error_reply('SOURCE the name of a source has 1 to 64 letters, digits and . _ : / @ -')
  elseif not seconds or seconds ~= 0 and not (seconds >= 5 and seconds <= 300) then
    return redis.error_reply('SOURCE a source is vouched for 5 to 300 seconds; 0 says good-bye')
  elseif not oldest or not (oldest >= 0 and oldest < 1e15) then
    return redis.error_reply('SOURCE the age of the oldest event that waits is a number of milliseconds')
  end
  if seconds == 0 then
    call('HDEL', key, name)
    return 'OK'
  end
  local now = now_ms()
  if not call('HGET', key, name) and call('HLEN', key) >= SOURCES then
    -- Room is made by the one that ended first, if that was an hour ago.
    local all, ended, first = call('HGETALL', key), now - SOURCES_MS, nil
    for i = 1, #all, 2 do
      local till = tonumber(string.match(all[i + 1], '^%d+')) or 0
      if till < ended then ended, first = till, all[i] end
    end
    if not first then return redis.error_reply('SOURCE there are ' .. SOURCES .. ' sources: say good-bye (0 seconds) to one') end
    call('HDEL', key, first)
  end
  local since = oldest > 0 and now - oldest or 0
  call('HSET', key, name, integer(now + seconds * 1000) .. ' ' .. integer(math.max(since, 0)))
  call('PEXPIRE', key, 24 * SOURCES_MS)
  return 'OK'
end

-- KEYS: the hash of sources. -> now, then name, until when it is vouched for, and since when its oldest event waits (0: none
-- does) of each.
local function sources(keys)
  local all, reply = call('HGETALL', keys[1]), { integer(now_ms()) }
  for i = 1, #all, 2 do
    local till, since = string.match(all[i + 1], '^(%d+) (%d+)$')
    if till then
      for _, part in ipairs({ all[i], till, since }) do reply[#reply + 1] = part end
    end
  end
  return reply
end
