-- Erasing logs, for people who must delete what was published. Part of the library in publish.lua.
--
-- Who follows the topic is told by a message with the place at which the log begins anew, and no event. A log that is merely
-- deleted would be noticed seconds later, by the next comparison with what Redis has.

-- Erases a log and the ids of its events; how many events it had, false where there was nothing.
local function erase(channel)
  local topic = topic_of(channel)
  local one, other = hashes_of(channel, topic, 0)
  local top, quiet, wrong = top_of(channel)
  local events = 0
  if top and not quiet then
    local info = call('XINFO', 'STREAM', channel)
    for i = 1, #info, 2 do
      if info[i] == 'length' then events = info[i + 1] end
    end
  end
  local ids = call('DEL', one) + call('DEL', other)
  if not top and not wrong then return ids > 0 and 0 end
  call('DEL', channel)
  -- Later than any place that somebody may still hold.
  local before = top and tonumber(string.match(top, '^%d+')) or 0
  local epoch = integer(math.max(tonumber(new_epoch(topic)), before + 1))
  topic.top, topic.next, topic.begun = nil, epoch .. '-*', nil
  call('SET', channel, epoch, 'PX', LOG_LIFE)
  send(channel, epoch .. '-0 ')
  return events
end

-- KEYS: channels of topics. -> of each, how many events were erased; nil where there was nothing. All is checked first.
local function forget(keys)
  local channels, problem = channels_of(keys)
  if problem then return redis.error_reply('TOPIC ' .. problem) end
  if #channels == 0 then
    return redis.error_reply('ERR usage: FCALL ' .. PREFIX .. '_forget 1 ' .. PREFIX .. ':<topic>')
  end
  for i = 1, SHARDED and #channels or 0 do
    if is_torn(channels[i]) then return redis.error_reply(TORN) end
  end
  local reply = {}
  for i, channel in ipairs(channels) do reply[i] = erase(channel) end
  return reply
end
