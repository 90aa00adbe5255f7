-- Add to a counter, unless it, or the sum of several, would pass a maximum.
--
-- Keys: the counter, then those of the sum.
-- Arguments: the amount, the maximum, the time to live in ms.
-- Answers 1 if it was changed, else 0.
--
-- Atomic, because the sum must not change between looking at it and adding to it.

local amount, maximum = tonumber(ARGV[1]), tonumber(ARGV[2])
local value = tonumber(redis.call('GET', KEYS[1]) or 0) + amount
local sum = amount
for each = 2, #KEYS do
  sum = sum + tonumber(redis.call('GET', KEYS[each]) or 0)
end
if value > maximum or sum > maximum then
  return 0
end
redis.call('SET', KEYS[1], string.format('%d', value), 'PX', ARGV[3])
return 1
