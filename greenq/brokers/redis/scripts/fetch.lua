-- Move what is due to the ready lists, then reserve the first messages.
--
-- Keys: ready, messages, priorities, delayed, held (by this holder), deliveries, evidence,
--   workers.
-- Arguments: the holder, the length of its lease in ms, how many messages at most, the
--   longest payload in bytes.
-- Answers nil if the holder's lease was lost; else
--   1. ids, in the order in which they are to run
--   2. payloads: nil where there is none, its length where it is too long
--   3. how often each was taken back from a lost worker; empty if none ever was
--   4. 1 if more is ready, else 0
--   5. milliseconds until the next delayed message is due; -1 if there is none
--   6. what is noted against each; empty if there is nothing against any in the queue
--
-- Atomic, because a message must always be in exactly one place: delayed, ready or held;
-- and because two workers must never get the same one.

local ready, messages, priorities, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local held, deliveries, evidence, workers = KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local holder, lease_ms, count, longest = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()

local lease_until = redis.call('ZSCORE', workers, holder)
if not lease_until then
  return false
end
go_on_when_full(workers)
if tonumber(lease_until) - now < lease_ms / 2 then
  redis.call('ZADD', workers, now + lease_ms, holder)
end

-- Bounded, so that a million that fall due together do not stop the server.
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 1000)
if #due > 0 then
  redis.call('ZREM', delayed, unpack(due))
  push('RPUSH', ready, priorities, due)
end

local ids
local others = redis.call('ZRANGE', priorities, 0, -1)
if #others == 0 then
  drop_bell(ready)
  ids = redis.call('LPOP', ready, count) or {}
else
  ids = {}
  local function take(list)
    local wanted = count - #ids
    local taken = wanted > 0 and redis.call('LPOP', list, wanted) or {}
    for _, id in ipairs(taken) do
      ids[#ids + 1] = id
    end
  end
  local function take_other(priority)
    local list = ready .. '~ready.' .. priority
    take(list)
    if redis.call('EXISTS', list) == 0 then
      redis.call('ZREM', priorities, priority)
    end
  end
  drop_bell(ready)
  local position = 1
  while position <= #others and tonumber(others[position]) < 0 do
    take_other(others[position])
    position = position + 1
  end
  take(ready)
  while position <= #others do
    take_other(others[position])
    position = position + 1
  end
end

local payloads, counts, noted = {}, {}, {}
if #ids > 0 then
  redis.call('SADD', held, unpack(ids))
  -- greenq's own ids have a "~" (126) in the 13th place, and its producers have checked the
  -- length. Only payloads of others are measured before they are read.
  local wanted, too_long = ids, nil
  for position, id in ipairs(ids) do
    if string.byte(id, 13) ~= 126 then
      local length = redis.call('HSTRLEN', messages, id)
      if length > longest then
        too_long = too_long or {}
        too_long[position] = length
      end
    end
  end
  if too_long then
    wanted = {}
    for position, id in ipairs(ids) do
      wanted[position] = too_long[position] and '' or id
    end
  end
  payloads = redis.call('HMGET', messages, unpack(wanted))
  if too_long then
    for position, length in pairs(too_long) do
      payloads[position] = length
    end
  end
  if redis.call('EXISTS', deliveries) == 1 then
    counts = redis.call('HMGET', deliveries, unpack(ids))
    -- There is nothing against what was never taken back.
    if redis.call('EXISTS', evidence) == 1 then
      noted = redis.call('HMGET', evidence, unpack(ids))
    end
  end
end

local more = 0
if redis.call('EXISTS', ready) == 1 or (#others > 0 and redis.call('EXISTS', priorities) == 1) then
  more = 1
end
local next_due = -1
local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if first[2] then
  next_due = math.max(0, tonumber(first[2]) - now)
end
return {ids, payloads, counts, more, next_due, noted}
