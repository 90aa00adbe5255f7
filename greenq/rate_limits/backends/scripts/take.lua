-- Take one of a limited number of slots, with a lease.
--
-- Keys: the holders, a sorted set by the end of their leases in Unix ms.
-- Arguments: the holder, the number of slots, the lease in ms.
-- Answers 1 if the holder has a slot now, else 0.
--
-- Atomic, because two who both see the last free slot would both take it. A holder that asks
-- again, because its answer was lost, has still one slot.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1])
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('PEXPIREAT', KEYS[1], string.format('%d', tonumber(last[2])))
return 1
