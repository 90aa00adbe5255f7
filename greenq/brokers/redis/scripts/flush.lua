-- Drop all messages of a queue, but for those that other workers are running.
--
-- Keys: ready, messages, priorities, delayed, deliveries, evidence, workers, dead, dead messages,
--   dead reasons, dead deliveries.
-- Arguments: the worker that asks; what it holds itself is dropped.
-- Answers nothing.
--
-- Atomic, because a message that is fetched in between would lose its payload.

local ready, messages, priorities, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local deliveries, evidence, workers = KEYS[5], KEYS[6], KEYS[7]
local own = ARGV[1] .. '.'

local kept = {}
for _, holder in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  local held = ready .. '~held.' .. holder
  if string.sub(holder, 1, #own) == own then
    redis.call('UNLINK', held)
  else
    for _, id in ipairs(redis.call('SMEMBERS', held)) do
      local payload = redis.call('HGET', messages, id)
      if payload then
        kept[#kept + 1] = id
        kept[#kept + 1] = payload
      end
    end
  end
end
for _, priority in ipairs(redis.call('ZRANGE', priorities, 0, -1)) do
  redis.call('UNLINK', ready .. '~ready.' .. priority)
end
redis.call('UNLINK', ready, messages, priorities, delayed, deliveries, evidence, unpack(KEYS, 8, 11))
call_many('HSET', messages, kept)
return false
