-- Count a queue's messages.
--
-- Keys: ready, priorities, delayed, workers, dead.
-- Answers five numbers: ready, held, delayed, dead, and the time in Unix ms.
--
-- Atomic, because a message that moves in between would be counted twice or not at all,
-- and whoever waits for an empty queue would be told a lie.

local ready, priorities, delayed, workers, dead = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local waiting = redis.call('LLEN', ready)
if redis.call('LINDEX', ready, 0) == '' then
  waiting = waiting - 1
end
for _, priority in ipairs(redis.call('ZRANGE', priorities, 0, -1)) do
  waiting = waiting + redis.call('LLEN', ready .. '~ready.' .. priority)
end
local held = 0
for _, holder in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  held = held + redis.call('SCARD', ready .. '~held.' .. holder)
end
return {waiting, held, redis.call('ZCARD', delayed), redis.call('ZCARD', dead), now_ms()}
