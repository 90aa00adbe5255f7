-- Drop dead letters that were kept long enough, a bounded number of them.
--
-- Keys: dead, dead messages, dead reasons, dead deliveries.
-- Arguments: how long they are kept in ms, how many at most (4000 or fewer).
-- Answers how many were dropped.
--
-- Atomic, because a letter must never be listed without its message and its reason.

local dead = KEYS[1]
local before = now_ms() - tonumber(ARGV[1])
local ids = redis.call('ZRANGEBYSCORE', dead, '-inf', '(' .. string.format('%d', before), 'LIMIT', 0, tonumber(ARGV[2]))
return drop_dead(KEYS, ids)
