-- The sources that publishers vouch for: who may be late, and since when. Part of the library in publish.lua.
--
-- A field of the hash is the name of a source, its value `<until> <since>`: until when it is vouched for, and since when its
-- oldest event waits (0: none does). A good-bye leaves `0 <when>` for a while: nodes remember what Redis loses, and this one
-- was not lost. Only ages come in, so that nobody's clock but this one counts.

-- The hash as name -> { until, since }, how many have not said good-bye, and how many have.
local function all_sources(key)
  local all, read, present, gone = call('HGETALL', key), {}, 0, 0
  for i = 1, #all, 2 do
    local till, since = string.match(all[i + 1], '^(%d+) (%d+)$')
    if till then
      read[all[i]] = { tonumber(till), tonumber(since) }
      if till == '0' then gone = gone + 1 else present = present + 1 end
    end
  end
  return read, present, gone
end

local function write_source(key, name, till, since)
  call('HSET', key, name, integer(till) .. ' ' .. integer(math.max(since, 0)))
  call('PEXPIRE', key, 24 * SOURCES_MS)
end

-- The name for which this is least, of those that `counts` lets through.
local function least(read, counts, of)
  local name, value
  for each, entry in pairs(read) do
    if counts(entry) and (not value or of(entry) < value) then name, value = each, of(entry) end
  end
  return name, value
end

-- Makes room for one more source: the one that ended first goes, if that was an hour ago. Whether there is room.
local function has_room(key, now)
  if call('HLEN', key) < SOURCES then return true end
  local read, present = all_sources(key)
  if present < SOURCES then return true end
  local first, ended = least(read, function(entry) return entry[1] > 0 end, function(entry) return entry[1] end)
  if ended >= now - SOURCES_MS then return false end
  call('HDEL', key, first)
  return true
end

-- A good-bye, to a source that nobody knows as well: a node may remember one that this Redis has lost. The oldest
-- good-byes are forgotten.
local function say_goodbye(key, name, now)
  local read, _, gone = all_sources(key)
  local said = function(entry) return entry[1] == 0 end
  local oldest, when = least(read, said, function(entry) return entry[2] end)
  if oldest and (gone >= SOURCES or when < now - SOURCES_MS) then call('HDEL', key, oldest) end
  write_source(key, name, 0, now)
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
  local now = now_ms()
  if seconds == 0 then
    say_goodbye(key, name, now)
    return 'OK'
  end
  local known = call('HGET', key, name)
  if (not known or sub(known, 1, 2) == '0 ') and not has_room(key, now) then
    return redis.error_reply('SOURCE there are ' .. SOURCES .. ' sources: say good-bye (0 seconds) to one')
  end
  write_source(key, name, now + seconds * 1000, oldest > 0 and now - oldest or 0)
  return 'OK'
end

-- KEYS: the hash of sources. ARGS, of each source that a node remembers and this Redis has lost: its name, for how long it is
-- still vouched for, ms (below 0: it has ended), and the age of its oldest event, ms (0: none waits). What is not here is put
-- back. -> now, then of each: its name, until when it is vouched for (0: it has said good-bye), and since when its oldest
-- event waits (0: none does).
local function sources(keys, args)
  local now = now_ms()
  for i = 1, #args, 3 do
    local name, left, oldest = args[i], tonumber(args[i + 1]), tonumber(args[i + 2])
    if not call('HGET', keys[1], name) and has_room(keys[1], now) then
      write_source(keys[1], name, math.max(now + left, 1), oldest > 0 and now - oldest or 0)
    end
  end
  local reply = { integer(now) }
  for name, entry in pairs((all_sources(keys[1]))) do
    for _, part in ipairs({ name, integer(entry[1]), integer(entry[2]) }) do reply[#reply + 1] = part end
  end
  return reply
end
