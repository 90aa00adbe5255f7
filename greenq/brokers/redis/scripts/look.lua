-- Look at dead letters: at a page of them, or at those with given ids.
--
-- Keys: dead, dead messages, dead reasons, dead deliveries.
-- Arguments: the longest payload to answer in bytes, the bytes of payloads after which a page
--   ends; then either 'ids' and ids, or 'oldest' or 'newest' (which comes first), how many at
--   most, the latest time of death or '', time of death and id after which to go on or ''.
-- Answers six lists and a number: ids, times of death, reasons, lengths of payloads, payloads
--   (nil where there is none, or it is too long), deliveries; 1 if the page is not the last.
--
-- Atomic, because a letter that is sent back in between would be shown without its message.

local dead, dead_messages, dead_reasons, dead_deliveries = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local longest, budget, order = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]

-- As the server compares members; Lua's "<" goes by the locale.
local function is_below(one, other)
  for position = 1, math.min(#one, #other) do
    local byte, other_byte = string.byte(one, position), string.byte(other, position)
    if byte ~= other_byte then
      return byte < other_byte
    end
  end
  return #one < #other
end

-- How many letters stand before this place. The letter that stood there may be gone, and many
-- may have died in the same millisecond, so its place is searched for by halves.
local function rank(time, id)
  local low = redis.call('ZCOUNT', dead, '-inf', '(' .. time)
  local high = redis.call('ZCOUNT', dead, '-inf', time)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_below(redis.call('ZRANGE', dead, middle, middle)[1], id) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local ids, times, more = {}, {}, 0
if order == 'ids' then
  for position = 4, #ARGV do
    local time = redis.call('ZSCORE', dead, ARGV[position])
    if time then
      ids[#ids + 1] = ARGV[position]
      times[#times + 1] = time
    end
  end
else
  local limit, latest, after_time, after_id = tonumber(ARGV[4]), ARGV[5], ARGV[6], ARGV[7]
  local first, last = 0, nil
  if latest == '' then
    last = redis.call('ZCARD', dead) - 1
  else
    last = redis.call('ZCOUNT', dead, '-inf', latest) - 1
  end
  if order == 'oldest' then
    if after_time ~= '' then
      -- "\0" at its end makes it the next possible id.
      first = rank(after_time, after_id .. '\0')
    end
    if last - first >= limit then
      last = first + limit - 1
      more = 1
    end
  else
    if after_time ~= '' then
      last = math.min(last, rank(after_time, after_id) - 1)
    end
    if last - first >= limit then
      first = last - limit + 1
      more = 1
    end
  end
  if first <= last then
    local found = redis.call('ZRANGE', dead, first, last, 'WITHSCORES')
    for position = 1, #found, 2 do
      ids[#ids + 1] = found[position]
      times[#times + 1] = found[position + 1]
    end
  end
  if order == 'newest' then
    for position = 1, math.floor(#ids / 2) do
      local other = #ids + 1 - position
      ids[position], ids[other] = ids[other], ids[position]
      times[position], times[other] = times[other], times[position]
    end
  end
end

local lengths, wanted, size = {}, {}, 0
for position, id in ipairs(ids) do
  local length = redis.call('HSTRLEN', dead_messages, id)
  if length <= longest then
    size = size + length
  end
  if order ~= 'ids' and position > 1 and size > budget then
    more = 1
    break
  end
  lengths[position] = length
  wanted[position] = id
end
if #wanted == 0 then
  return {{}, {}, {}, {}, {}, {}, 0}
end
local payloads = {}
for position, id in ipairs(wanted) do
  payloads[position] = lengths[position] <= longest and redis.call('HGET', dead_messages, id)
end
return {wanted, times, redis.call('HMGET', dead_reasons, unpack(wanted)), lengths, payloads,
  redis.call('HMGET', dead_deliveries, unpack(wanted)), more}
