-- Subtract from a counter, unless it would fall below a minimum or does not exist.
--
-- Keys: the counter. Arguments: the amount, the minimum, the time to live in ms.
-- Answers 1 if it was changed, else 0.
--
-- Atomic, because of two who arrive at a barrier at the same time exactly one is the last.

local value = redis.call('GET', KEYS[1])
if not value or tonumber(value) - tonumber(ARGV[1]) < tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], string.format('%d', tonumber(value) - tonumber(ARGV[1])), 'PX', ARGV[3])
return 1
