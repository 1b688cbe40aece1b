-- What nodes keep in Redis for each other: probes, the marks of live events, and the board on which they say how they are.
-- Part of the library in publish.lua.

-- KEYS: a probe channel. ARGS: what to send back through it. -> lineage, now, the library's version and generation.
local function probe(keys, args)
  local now = integer(now_ms())
  send(keys[1], now .. ' ' .. args[1])
  return { lineage(), now, VERSION, GENERATION }
end

-- Redis' clock by itself: what a probe carries while writes are refused.
local function clock() return integer(now_ms()) end

-- KEYS: the hash of marks. -> now, area, mark, ...
-- None lies further ahead than nodes write them. One that does is of another master, whose clock was ahead: until this one had
-- reached it, everybody who comes back would be told to refetch, each time.
local function all_marks(key, now)
  local reply = call('HGETALL', key)
  local furthest = now + MARK_AHEAD_MS
  for i = 2, #reply, 2 do
    if tonumber(reply[i]) > furthest then
      reply[i] = integer(furthest)
      call('HSET', key, reply[i - 1], reply[i])
    end
  end
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
