-- The verdict on events and topics, the same as in src/protocol/event.rs and topic.rs: strict, because what passes here
-- is taken for an event by every node. Part of the library in publish.lua, which lends it byte, find, gsub, sub, format.

-- UTF-8 (RFC 3629) -------------------------------------------------------------------------------------------------

-- The position of the first byte that is not UTF-8, or nil.
local function bad_utf8(s)
  local at = find(s, '[\128-\255]')
  while at do
    local a, b, c, d = byte(s, at, at + 3)
    local function tail(x) return x and x >= 128 and x < 192 end
    local size
    if a >= 194 and a <= 223 and tail(b) then size = 2
    elseif a >= 224 and a <= 239 and tail(b) and tail(c)
      and (a ~= 224 or b >= 160) and (a ~= 237 or b < 160) then size = 3
    elseif a >= 240 and a <= 244 and tail(b) and tail(c) and tail(d)
      and (a ~= 240 or b >= 144) and (a ~= 244 or b < 144) then size = 4
    else return at end
    at = find(s, '[\128-\255]', at + size)
  end
end

-- JSON (RFC 8259), strictly: cjson would let pass NaN, 0x1F, [1,] and lone surrogates ------------------------------

local ESCAPED = { b = '\b', f = '\f', n = '\n', r = '\r', t = '\t', ['"'] = '"', ['\\'] = '\\', ['/'] = '/' }

local function wrong(at, what) error({ json = what .. ' at byte ' .. at }) end

local function space(s, at)
  local _, last = find(s, '^[ \t\r\n]*', at)
  return last + 1
end

local function hex4(s, at)
  local _, _, digits = find(s, '^(%x%x%x%x)', at)
  if not digits then wrong(at, 'an escape without four hexadecimal digits') end
  return tonumber(digits, 16)
end

-- From behind the opening quote to behind the closing one; second, whether there are escapes.
local function text(s, at)
  local escapes = false
  while true do
    at = find(s, '[%z\1-\31"\\]', at)
    if not at then wrong(#s + 1, 'a string without an end') end
    local c = byte(s, at)
    if c == 34 then return at + 1, escapes end
    if c ~= 92 then wrong(at, 'a control character in a string') end
    escapes = true
    local e = sub(s, at + 1, at + 1)
    if ESCAPED[e] then
      at = at + 2
    elseif e == 'u' then
      local unit = hex4(s, at + 2)
      at = at + 6
      if unit >= 0xDC00 and unit <= 0xDFFF then wrong(at - 6, 'half a surrogate pair') end
      if unit >= 0xD800 and unit <= 0xDBFF then
        if sub(s, at, at + 1) ~= '\\u' then wrong(at - 6, 'half a surrogate pair') end
        local low = hex4(s, at + 2)
        if low < 0xDC00 or low > 0xDFFF then wrong(at - 6, 'half a surrogate pair') end
        at = at + 6
      end
    else
      wrong(at, 'an unknown escape')
    end
  end
end

local function utf8(code)
  if code < 0x80 then return string.char(code) end
  if code < 0x800 then return string.char(192 + math.floor(code / 64), 128 + code % 64) end
  local last = string.char(128 + math.floor(code / 64) % 64, 128 + code % 64)
  if code < 0x10000 then return string.char(224 + math.floor(code / 4096)) .. last end
  return string.char(240 + math.floor(code / 262144), 128 + math.floor(code / 4096) % 64) .. last
end

-- What a checked string with escapes means.
local function unescape(s)
  local out, at = {}, 1
  while true do
    local slash = find(s, '\\', at, true)
    if not slash then break end
    out[#out + 1] = sub(s, at, slash - 1)
    local e = sub(s, slash + 1, slash + 1)
    if e ~= 'u' then
      out[#out + 1] = ESCAPED[e]
      at = slash + 2
    else
      local code = hex4(s, slash + 2)
      at = slash + 6
      if code >= 0xD800 and code <= 0xDBFF then
        code = 0x10000 + (code - 0xD800) * 1024 + hex4(s, at + 2) - 0xDC00
        at = at + 6
      end
      out[#out + 1] = utf8(code)
    end
  end
  out[#out + 1] = sub(s, at)
  return table.concat(out)
end

local function number(s, at)
  local _, last = find(s, '^-?%d+', at)
  if not last then wrong(at, 'not a value') end
  if find(s, '^-?0%d', at) then wrong(at, 'a number with a leading zero') end
  local _, fraction = find(s, '^%.%d+', last + 1)
  last = fraction or last
  local _, exponent = find(s, '^[eE][+-]?%d+', last + 1)
  if (exponent or last - at > 300) and math.abs(tonumber(sub(s, at, exponent or last))) == math.huge then
    wrong(at, 'a number out of range')
  end
  return (exponent or last) + 1
end

local LITERALS = { [116] = 'true', [102] = 'false', [110] = 'null' }
local value

local function array(s, at, depth)
  if depth > DEPTH then wrong(at, 'nested more than ' .. DEPTH .. ' levels deep') end
  at = space(s, at + 1)
  if byte(s, at) == 93 then return at + 1 end
  while true do
    at = space(s, value(s, at, depth))
    local c = byte(s, at)
    if c == 93 then return at + 1 end
    if c ~= 44 then wrong(at, 'no comma or ] in an array') end
    at = space(s, at + 1)
  end
end

-- `seen(name, from, to, escapes)` is called for each member that is a string, and `seen(name)` for others.
local function object(s, at, depth, seen)
  if depth > DEPTH then wrong(at, 'nested more than ' .. DEPTH .. ' levels deep') end
  at = space(s, at + 1)
  if byte(s, at) == 125 then return at + 1 end
  while true do
    if byte(s, at) ~= 34 then wrong(at, 'no name in an object') end
    local from = at + 1
    local stop, escapes = text(s, from)
    at = space(s, stop)
    if byte(s, at) ~= 58 then wrong(at, 'no colon after a name') end
    at = space(s, at + 1)
    if seen then
      local name = sub(s, from, stop - 2)
      if escapes then name = unescape(name) end
      if byte(s, at) == 34 then
        local first = at + 1
        at, escapes = text(s, first)
        seen(name, first, at - 2, escapes)
      else
        at = value(s, at, depth)
        seen(name)
      end
    else
      at = value(s, at, depth)
    end
    at = space(s, at)
    local c = byte(s, at)
    if c == 125 then return at + 1 end
    if c ~= 44 then wrong(at, 'no comma or } in an object') end
    at = space(s, at + 1)
  end
end

-- From the start of a value to behind it.
value = function(s, at, depth)
  local c = byte(s, at)
  if c == 34 then
    return (text(s, at + 1))
  elseif c == 123 then
    return object(s, at, depth + 1)
  elseif c == 91 then
    return array(s, at, depth + 1)
  elseif LITERALS[c] then
    local literal = LITERALS[c]
    if sub(s, at, at + #literal - 1) ~= literal then wrong(at, 'not a value') end
    return at + #literal
  end
  return number(s, at)
end

-- Events and topics ------------------------------------------------------------------------------------------------

-- <noun>.<verb>; further parts are the reverse-DNS names of other CloudEvents producers.
local function is_type(s)
  return s and #s <= 255 and find(s, '^[a-z][a-z0-9_.-]*$') and find(s, '.', 1, true)
    and not find(s, '..', 1, true) and sub(s, -1) ~= '.'
end

-- The attributes `type`, `id` and `source`, or nil and what is wrong.
local function check_event(s)
  if #s > EVENT_BYTES then
    return nil, format('the event has %d bytes, at most %d are allowed: send what changed, not the content', #s, EVENT_BYTES)
  end
  local bad = bad_utf8(s)
  if bad then return nil, 'the event is not valid UTF-8 at byte ' .. bad - 1 end
  local found = {}
  local function seen(name, from, to, escapes)
    if name == 'type' or name == 'id' or name == 'source' then
      local content = from and sub(s, from, to) or false
      found[name] = content and escapes and unescape(content) or content
    end
  end
  local good, problem = pcall(function()
    local at = space(s, 1)
    if byte(s, at) ~= 123 then wrong(at, 'it does not start with {') end
    at = space(s, object(s, at, 1, seen))
    if at <= #s then wrong(at, 'something follows it') end
  end)
  if not good then
    return nil, 'the event is not a JSON object: ' .. (type(problem) == 'table' and problem.json or tostring(problem))
  end
  if not is_type(found.type) then
    return nil, 'the event needs a "type" of the form <noun>.<verb> in lower case, for example "comment.created"'
  end
  for _, name in ipairs({ 'id', 'source' }) do
    if found[name] == false or found[name] == '' then
      return nil, 'the event\'s "' .. name .. '" must be a non-empty string'
    end
  end
  return found
end

local function encode(characters)
  return (gsub(characters, '.', function(c) return format('%%%02X', byte(c)) end))
end

-- The key of an editor's private topic, as far as it can be said here: A-Z in lower case, reserved characters encoded.
local function own_key(key)
  key = gsub(key, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end)
  key = gsub(key, '%u', function(c) return string.char(byte(c) + 32) end)
  key = gsub(key, '[%z\1-\32%%*,{}\127]', encode)
  return (gsub(key, '\194[\128-\159]', encode))
end

-- What is wrong with the topic of this channel, or nil.
local function check_topic(channel)
  if sub(channel, 1, #PREFIX + 1) ~= PREFIX .. ':' then
    return format('%q is not a channel of a topic: it starts with %s:', channel, PREFIX)
  end
  local topic = sub(channel, #PREFIX + 2)
  local shown = gsub(topic, '[%z\1-\31\127-\255]', '?')
  local colon = find(topic, ':', 1, true)
  local area = colon and sub(topic, 1, colon - 1) or topic
  if not IS_AREA[area] then
    return format('area "%s" is not one of the configured areas (%s)', gsub(area, '[%z\1-\31\127-\255]', '?'),
      (gsub(AREAS, ',', ', ')))
  end
  if not colon then return nil end
  local key = sub(topic, colon + 1)
  if key == '' or #key > 200 then return format('the key of "%s" must have 1 to 200 bytes', shown) end
  if bad_utf8(key) then return format('the key of "%s" is not valid UTF-8', shown) end
  local reserved = find(key, '[%z\1-\32*,{}\127]')
  local control = find(key, '\194[\128-\159]')
  if control and (not reserved or control < reserved) then
    return format('the key of "%s" has a control character: percent-encode it as %s', shown, encode(sub(key, control, control + 1)))
  elseif reserved then
    local c = sub(key, reserved, reserved)
    return format('the key of "%s" has a "%s": percent-encode it as %s', shown, gsub(c, '%c', '?'), encode(c))
  end
  if find(gsub(key, '%%%x%x', ''), '%', 1, true) then
    return format('the key of "%s" has a %% that is not followed by two hexadecimal digits: write %%25 for a percent sign', shown)
  end
  if IS_PRIVATE[area] and own_key(key) ~= key then
    return format('"%s" is in a private area, whose keys are lower-cased: write "%s:%s"', shown, area, own_key(key))
  end
end
