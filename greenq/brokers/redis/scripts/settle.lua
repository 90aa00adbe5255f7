-- Write what became of messages, and what follows from them.
--
-- Keys: ready, messages, priorities, delayed, held (by this holder), deliveries, evidence,
--   dead, dead messages, dead reasons, dead deliveries, workers; then ready, messages,
--   priorities, delayed of each other queue that something follows on.
-- Arguments: the holder; then four lists, each with its length first:
--   ids of those that are done
--   id and new id of those that go back, the one fetched last first
--   id, reason and payload of the dead; the payload is '=' for "as it is stored", else '+'
--     and the bytes
--   owner's id, number of the queue (0 is this one), id, payload and due of what follows
-- Answers 1 if the holder has its lease, else 0; then the ids that it does not hold.
--   Nothing is done about them, and what follows from them is not stored. Nobody takes a
--   message from a holder and leaves it its lease, so with a lease they were settled before.
--
-- Atomic, because a retry that is stored without its ack would run twice, and an ack
-- without its retry would lose it; and because the holder must not change in between.

local ready, messages, priorities, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local held, deliveries, evidence, dead, dead_messages = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local dead_reasons, dead_deliveries, workers, holder = KEYS[10], KEYS[11], KEYS[12], ARGV[1]

local at = 2
local function next_value()
  at = at + 1
  return ARGV[at - 1]
end
local function next_list(width)
  local values = {}
  for position = 1, tonumber(next_value()) * width do
    values[position] = next_value()
  end
  return values
end
local done, back, died, following = next_list(1), next_list(2), next_list(3), next_list(5)

-- Who does not hold what.
local asked = {}
for _, id in ipairs(done) do asked[#asked + 1] = id end
for position = 1, #back, 2 do asked[#asked + 1] = back[position] end
for position = 1, #died, 3 do asked[#asked + 1] = died[position] end
local refused, is_refused = {}, {}
for first = 1, #asked, CHUNK do
  local last = math.min(first + CHUNK - 1, #asked)
  for position, is_held in ipairs(redis.call('SMISMEMBER', held, unpack(asked, first, last))) do
    if is_held == 0 then
      local id = asked[first + position - 1]
      refused[#refused + 1] = id
      is_refused[id] = true
    end
  end
end
if #refused > 0 then
  local left = {}
  for _, id in ipairs(done) do
    if not is_refused[id] then left[#left + 1] = id end
  end
  done = left
end

go_on_when_full(workers)
local now
if #died > 0 or #following > 0 then
  now = now_ms()
end

local has_deliveries = (#died > 0 or #done > 0 or #back > 0) and redis.call('EXISTS', deliveries) == 1
for position = 1, #died, 3 do
  local id, reason, payload = died[position], died[position + 1], died[position + 2]
  if not is_refused[id] then
    if payload == '=' then
      payload = redis.call('HGET', messages, id)
    else
      payload = string.sub(payload, 2)
    end
    if payload then
      redis.call('HSET', dead_messages, id, payload)
    end
    redis.call('HSET', dead_reasons, id, reason)
    if has_deliveries then
      local count = redis.call('HGET', deliveries, id)
      if count then
        redis.call('HSET', dead_deliveries, id, count)
      end
    end
    redis.call('ZADD', dead, now, id)
    done[#done + 1] = id
  end
end

-- Under a new id: this verdict may be written a second time, late, and the same holder may
-- have the message again by then.
local returned = {}
for position = 1, #back, 2 do
  local id, new_id = back[position], back[position + 1]
  if not is_refused[id] then
    local payload = redis.call('HGET', messages, id)
    if payload then
      redis.call('HSET', messages, new_id, payload)
    end
    local count = has_deliveries and redis.call('HGET', deliveries, id)
    if count then
      redis.call('HSET', deliveries, new_id, count)
      local noted = redis.call('HGET', evidence, id)
      if noted then
        redis.call('HSET', evidence, new_id, noted)
      end
    end
    returned[#returned + 1] = new_id
    done[#done + 1] = id
  end
end

if #done > 0 then
  call_many('SREM', held, done)
  call_many('HDEL', messages, done)
  if has_deliveries then
    call_many('HDEL', deliveries, done)
    call_many('HDEL', evidence, done)
  end
end

if #returned > 0 then
  push('LPUSH', ready, priorities, returned)
end

for position = 1, #following, 5 do
  if not is_refused[following[position]] then
    local key = 0
    local queue = tonumber(following[position + 1])
    if queue > 0 then
      key = 12 + 4 * (queue - 1)
    end
    place(KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], KEYS[key + 4],
      following[position + 2], following[position + 3], following[position + 4], now)
  end
end
local has_lease = 1
if #refused > 0 and not redis.call('ZSCORE', workers, holder) then
  has_lease = 0
end
table.insert(refused, 1, has_lease)
return refused
