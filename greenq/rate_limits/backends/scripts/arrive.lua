-- Note that one of several has arrived.
--
-- Keys: who has arrived, a hash of each one's number in the order of their arrivals.
-- Arguments: the member, how many have to arrive, the time to live in ms.
-- Answers 1 if this member was the last of them, else 0.
--
-- Atomic, because of two who arrive at the same time exactly one is the last. A member that
-- arrives again, because it was delivered again or its answer was lost, has still its number.

local number = redis.call('HGET', KEYS[1], ARGV[1])
if not number then
  number = redis.call('HLEN', KEYS[1]) + 1
  redis.call('HSET', KEYS[1], ARGV[1], number)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return tonumber(number) == tonumber(ARGV[2]) and 1 or 0
