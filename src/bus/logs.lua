-- What nodes read of logs, and where they end. Part of the library in publish.lua.

-- The end of a log, and whether it is a string; nil where there is none and none is to be opened. What was put in its place
-- by hand goes, for it would stop whoever follows the topic.
local function end_of(key, opens)
  local top, quiet, wrong = top_of(key)
  if wrong and not find(wrong.err, 'WRONGTYPE', 1, true) then error(wrong) end
  if top then
    if ends_soon(key) then renew(key) end
    return top, quiet
  elseif opens then
    local epoch = new_epoch(young[key] or old[key])
    call('SET', key, epoch, 'PX', LOG_LIFE)
    return epoch .. '-0', true
  end
end

-- KEYS: logs. -> lineage, now, the end of each, false where there is none. Not no-writes: a demoted master must refuse
-- instead of telling the past.
local function ends(keys, opens)
  local reply = { lineage(), integer(now_ms()) }
  for i, key in ipairs(keys) do reply[i + 2] = end_of(key, opens) or false end
  return reply
end

-- Refused while Redis is full, so that following adds no key then.
local function open(keys) return ends(keys, true) end

-- ARGS: 'look' opens nothing; nodes of earlier releases do not say it, and need a log opened.
local function heads(keys, args) return ends(keys, args[1] ~= 'look') end

-- KEYS: a log. ARGS: a position, and how many bytes there is room for (at least one entry is given). -> lineage, now, the
-- end (false where there is no log), then id and event (false where there is none) of each entry; none where there are
-- no more. Nodes of earlier releases name no room: they get all entries, and a log is opened for them.
local function history(keys, args)
  local top, quiet = end_of(keys[1], not args[2])
  local reply = { lineage(), integer(now_ms()), top or false }
  if not top or quiet then return reply end
  local _, _, epoch = find(args[1], '^(%d+)-')
  local from = find(top, epoch .. '-', 1, true) == 1 and '(' .. args[1] or '-'
  local room = tonumber(args[2]) or math.huge
  repeat
    local entries = call('XRANGE', keys[1], from, '+', 'COUNT', PIECE)
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

-- KEYS: channels of topics. -> now, then the position of each, as sessions resume with it: for pages that a server renders,
-- which ask before they read what they show.
local function positions(keys)
  local channels, problem = channels_of(keys)
  if problem then return redis.error_reply('TOPIC ' .. problem) end
  local known, why = lineage()
  if known == '' then
    return redis.error_reply('ERR functions may not use INFO here (' .. why .. '): ask a node, GET /positions')
  end
  local reply = ends(channels, true)
  -- A position has the beginning of the lineage, as src/protocol/position.rs cuts it.
  local history_of = sub(table.remove(reply, 1), 1, 16)
  for i = 2, #reply do reply[i] = history_of .. '.' .. reply[i] end
  return reply
end
