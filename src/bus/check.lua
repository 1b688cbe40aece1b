-- The verdict on events and topics, the same as in src/protocol/event.rs and topic.rs: strict, because what passes here
-- is taken for an event by every node. Part of the library in publish.lua, which lends it byte, find, gsub, sub, format
-- and decode, Redis' own JSON reader with strict settings.
--
-- That reader does the work, because it is C. What it lets pass all the same is looked for: bytes that are not UTF-8,
-- control characters in strings, `1.` and `-.5`, numbers out of range, values that are no object. Each look is one
-- anchored pattern or one gsub, which are fast (one range in a set three times as fast as two), and is taken only where there
-- is a reason to.

-- UTF-8 (RFC 3629) -------------------------------------------------------------------------------------------------

local TAIL = '[\128-\191]'

-- The place of a byte that is not part of a good sequence, or nil. Good sequences become these blanks: removed, they would
-- let the halves of a bad one meet.
local function bad_sequence(s, two, three, four)
  if not find(s, '^[^\194-\223]*$') then s = gsub(s, '[\194-\223]' .. TAIL, two) end
  if not find(s, '^[^\224-\239]*$') then
    local long = find(s, '\224', 1, true) and find(s, '\224[\128-\159]')
    local half = find(s, '\237', 1, true) and find(s, '\237[\160-\191]') -- of a surrogate pair
    if long or half then return long or half end
    s = gsub(s, '[\224-\239]' .. TAIL .. TAIL, three)
  end
  if not find(s, '^[^\240-\244]*$') then
    local long = find(s, '\240', 1, true) and find(s, '\240[\128-\143]')
    local far = find(s, '\244', 1, true) and find(s, '\244[\144-\191]') -- beyond U+10FFFF
    if long or far then return long or far end
    s = gsub(s, '[\240-\244]' .. TAIL .. TAIL .. TAIL, four)
  end
  if find(s, '^[\1-\127]*$') then return nil end
  return find(s, '[\128-\255]')
end

-- Whether three quarters of it seem to be ASCII.
local function is_mostly_ascii(s)
  local more = 0
  for at = 1, #s, 101 do more = more + (byte(s, at) < 128 and 1 or -1) end
  return more * 202 > #s
end

-- The place of a byte that is not UTF-8, or nil. The shorter the text becomes, the faster it is looked through; only where
-- something is wrong, places matter.
local function bad_utf8(s)
  if find(s, '^[\1-\127]*$') then return nil end
  local short = is_mostly_ascii(s) and gsub(s, '[%z\1-\127]+', ' ') or s
  return bad_sequence(short, ' ', ' ', ' ') and bad_sequence(s, '  ', '   ', '    ')
end

-- JSON (RFC 8259) --------------------------------------------------------------------------------------------------

local EXPECTED = { ['object key string'] = 'a name', ['comma or object end'] = 'a comma or }', ['the end'] = 'nothing more',
  ['comma or array end'] = 'a comma or ]' }

-- What Redis' reader says, in our words.
local function in_words(said)
  local _, _, expected, at = find(said, '^Expected (.-) but found .- at character (%d+)$')
  if expected then return format('%s was expected at byte %d', EXPECTED[expected] or expected, at) end
  if find(said, 'nested', 1, true) then return 'nested more than ' .. DEPTH .. ' levels deep' end
  return said
end

-- Up to so many bytes, a look whether there is a number at all saves more than it costs.
local SHORT = 1024

local function has(s, character, from) return find(s, character, from or 1, true) end

-- The place of the last quotation mark, or 0. Halving what it may be in is faster than any pattern.
local function last_quote(s)
  local last, beyond = find(s, '"', 1, true) or 0, #s + 1
  while beyond - last > 1 do
    local middle = last + math.floor((beyond - last) / 2)
    local found = find(s, '"', middle, true)
    if found then last = found else beyond = middle end
  end
  return last
end

-- Whether there is a run of 200 digits or more from here on, which a look at every hundredth byte finds.
local function has_long_number(rest, from)
  for at = from + 99, #rest - 100, 100 do
    local c, d = byte(rest, at), byte(rest, at + 100)
    if c >= 48 and c <= 57 and d >= 48 and d <= 57 and select(2, find(rest, '^%d+', at)) >= at + 100 then return true end
  end
end

-- Whether an infinite number is in it, which is what Redis' reader makes of one out of range. Where there is none, `members`
-- grows by the members of all objects.
local members
local function is_out_of_range(value)
  for _, part in next, value do
    local kind = type(part)
    if kind == 'number' and part - part ~= 0 or kind == 'table' and is_out_of_range(part) then return true end
  end
  if type((next(value))) == 'string' then
    for _ in next, value do members = members + 1 end
  end
end

-- How many colons are there.
local function colons(rest)
  local count, at = 0, find(rest, ':', 1, true)
  while at do count, at = count + 1, find(rest, ':', at + 1, true) end
  return count
end

local OUT_OF_RANGE = 'a number out of range'

-- What is wrong with the numbers of an object, or nil; second, whether one of them may be out of range. `rest`: its JSON, from here
-- on without strings. A number of less than 200 digits with an exponent of two is never out of range; of others, it is looked
-- what the reader has made of them.
local function bad_number(rest, from, object)
  if #rest < SHORT and find(rest, '^[^%d-]*$', from) then return nil end
  if (has(rest, '.', from) or has(rest, '-', from)) and find(rest, '[.-]%D', from) then
    return 'a number without a digit behind its point or minus sign'
  end
  local large = (has(rest, 'e', from) or has(rest, 'E', from)) and find(rest, '[eE]%+?%d%d%d', from)
  if not large and not has_long_number(rest, from) then return nil end
  members = 0
  return is_out_of_range(object) and OUT_OF_RANGE, true
end

-- Of members of one name, the reader keeps the last. Where it has kept fewer than there are, a number out of range may have been
-- among the others. `rest`: the whole JSON without strings.
local function bad_number_left_out(rest)
  if colons(rest) == members then return nil end
  for number in string.gmatch(rest, '%d[%d.eE+-]*') do
    if tonumber(number) == math.huge then return OUT_OF_RANGE end
  end
end

-- Line breaks as blanks, two at once where there are many.
local function on_one_line(s)
  for _, line_break in ipairs{ '\r\n', '\n\n', '\r\r', '\n', '\r' } do
    if has(s, line_break) then s = gsub(s, line_break, #line_break == 2 and '  ' or ' ') end
  end
  return s
end

-- The same for JSON with strings. Behind the last one there is nothing to cut out, which counts where much stands there.
local function bad_number_beside_strings(s, object)
  local last = (#s < SHORT or has(s, '"', -SHORT)) and #s or last_quote(s)
  local rest = gsub(last == #s and s or sub(s, 1, last), '%b""', '')
  local problem, may_be = bad_number(rest, 1, object)
  if not problem and last < #s then
    local may_be_behind
    problem, may_be_behind = bad_number(s, last + 1, object)
    may_be = may_be or may_be_behind
  end
  return problem or may_be and bad_number_left_out(rest .. sub(s, last + 1)) or nil
end

-- What lists that hold this are reduced to: a value that is no name, joins nothing beside it, neither a number nor an escape (brackets
-- in strings are reduced as well), and has as many quotation marks.
local REDUCED = { ['{}'] = ' 0 ', ['""'] = ' [""] ' }
local function reduced(inside) return REDUCED[inside] or find(inside, '^%d?$') and ' 0 ' end

-- Lists with one list or nothing in each: at their beginning, all that opens, and behind that all that closes.
local LISTS = '%f[[]%[+["{%d]?["}]?%]+'

local function brackets(s) return select(2, gsub(s, '[][{}]', '')) end

-- Whether to reduce lists pays, by the first piece of a text: most of its brackets go, and more than three at once.
local function pays(piece, known)
  local reduced_piece, count = gsub(piece, LISTS, known)
  local before, after = brackets(piece), brackets(reduced_piece)
  return before * 2 > #piece and after * 3 < before and before - after > count * 3
end

-- Lists are what Redis' reader takes longest for. So where there are many, those that hold one list and nothing else are reduced
-- before it reads: [[[]]] to 0, and [[[[]] to [[0. That is JSON where the text is, if it is not too deep. Second, how many
-- levels have gone at most.
local function without_lists(s)
  if not has(s, '[[') then return s, 0 end
  local most = 0
  local function shorten(lists)
    local _, _, opened, inside, closed = find(lists, '^(%[+)([^]]*)(%]+)$')
    local value, whole = reduced(inside), math.min(#opened, #closed)
    if value then
      most = math.max(most, inside == '{}' and whole + 1 or whole)
      lists = sub(opened, whole + 1) .. value .. sub(closed, whole + 1)
    end
    return lists
  end
  local known = setmetatable({}, { __index = function(known, lists)
    known[lists] = shorten(lists)
    return known[lists]
  end })
  if not pays(sub(s, 1, 4096), known) then return s, 0 end
  local shorter = gsub(s, LISTS, known)
  if #shorter * 6 > #s * 5 then return s, 0 end -- What follows is of another kind.
  return shorter, most
end

-- What Redis' reader makes of this, or nil and what is wrong.
local function read(s)
  local shorter, levels = s, 0
  if #s >= SHORT then shorter, levels = without_lists(s) end
  local good, value
  if levels > 0 and levels < DEPTH then
    set_depth(DEPTH - levels)
    good, value = pcall(decode_reduced, shorter)
  end
  -- What was deep may have gone, a mistake has its place in the whole text, and an id is what was written.
  if not good or type(value) == 'table' and (has(tostring(value.id), ' 0 ') or has(tostring(value.source), ' 0 ')) then
    good, value = pcall(decode, s)
  end
  if not good then return nil, in_words(value) end
  return value
end

-- The object that this text is, or nil and what is wrong; third, the text on one line. `plain`: there is nothing in it but
-- printable ASCII.
local function read_object(s, plain)
  local blanks = not plain and not find(s, '^[ -\255]*$')
  if blanks and has(s, '\0') then return nil, 'a zero byte' end
  local object, wrong = read(s)
  if wrong then return nil, wrong end
  if byte(s) ~= 123 and not find(s, '^[ \t\r\n]*{') then return nil, 'it does not start with {' end
  local bare = has(s, '\\') and gsub(s, '\\.', '') or s
  if blanks then
    -- The strings alone; what follows the last one is cut off, because every try to find another there would be long.
    local inside = gsub(sub(bare, 1, last_quote(bare)), '[^"]*("[^"]*")', '%1')
    if not find(inside, '^[ -\255]*$') then return nil, 'a control character in a string' end
    s = on_one_line(s)
  end
  local problem = bad_number_beside_strings(bare, object)
  if problem then return nil, problem end
  return object, nil, s
end

-- Events and topics ------------------------------------------------------------------------------------------------

-- <noun>.<verb>; further parts are the reverse-DNS names of other CloudEvents producers.
local function is_type(s)
  return type(s) == 'string' and #s <= 255 and find(s, '^[a-z][a-z0-9_.-]*$') and find(s, '.', 1, true)
    and not find(s, '..', 1, true) and byte(s, -1) ~= 46
end

-- Good types that were met, because publishers have few; not more than so many.
local TYPES = 256
local good_types, types = {}, 0
local function is_good_type(s)
  if good_types[s] then return true end
  if not is_type(s) then return false end
  if types == TYPES then good_types, types = {}, 0 end
  good_types[s], types = true, types + 1
  return true
end

-- The members of an event and the event on one line, or nil, nil and what is wrong.
local function check_event(s)
  if #s > EVENT_BYTES then
    return nil, nil, format('the event has %d bytes, at most %d are allowed: send what changed, not the content', #s, EVENT_BYTES)
  end
  local plain = find(s, '^[ -~]*$')
  if not plain then
    local bad = bad_utf8(s)
    if bad then return nil, nil, 'the event is not valid UTF-8 at byte ' .. bad - 1 end
  end
  local event, problem, line = read_object(s, plain)
  if problem then return nil, nil, 'the event is not a JSON object: ' .. problem end
  if not is_good_type(event.type) then
    return nil, nil, 'the event needs a "type" of the form <noun>.<verb> in lower case, for example "comment.created"'
  end
  local id, source = event.id, event.source
  if id ~= nil and (type(id) ~= 'string' or id == '') then
    return nil, nil, 'the event\'s "id" must be a non-empty string'
  end
  if source ~= nil and (type(source) ~= 'string' or source == '') then
    return nil, nil, 'the event\'s "source" must be a non-empty string'
  end
  return event, line
end

local function encode(characters)
  return (gsub(characters, '.', function(c) return format('%%%02X', byte(c)) end))
end

-- The name in an editor's key, decoded.
local function name_in(key)
  return (gsub(key, '%%(%x%x)', function(code) return string.char(tonumber(code, 16)) end))
end

-- The one spelling of an editor's key in a private area: only what must be encoded is, with capital letters A to F. Where
-- names are folded, nodes do it by Unicode, and A to Z is what can be refused here.
local function own_key(name)
  if FOLD_SUBJECT then name = gsub(name, '%u', string.lower) end
  return (gsub(name, '[ %%*,{}]', encode))
end

-- What is wrong with the key of a private area, or nil; `shown`: the topic, for the answer.
local function check_own_key(area, key, shown)
  local name = name_in(key)
  local wrong = bad_utf8(name) and 'is not valid UTF-8'
    or (find(name, '[%z\1-\31\127]') or find(name, '\194[\128-\159]')) and 'has a control character'
  if wrong then return format('"%s" is in a private area, and no editor is called so: the name %s', shown, wrong) end
  local right = own_key(name)
  if right ~= key then
    return format('"%s" is in a private area, whose keys have one spelling%s: write "%s:%s"', shown,
      FOLD_SUBJECT and ', in lower case' or '', area, right)
  end
end

-- What is wrong with the topic of this channel, or nil.
local function check_topic(channel)
  if sub(channel, 1, #PREFIX + 1) ~= PREFIX .. ':' then
    return format('%q is not a channel of a topic: it starts with %s:', channel, PREFIX)
  end
  local topic = sub(channel, #PREFIX + 2)
  -- A node's own, on which it sends itself an event now and then. No area is called so.
  if #topic <= 72 and find(topic, '^_canary%-[%w._-]+$') then return nil end
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
  if IS_PRIVATE[area] then return check_own_key(area, key, shown) end
end
