-- Add to a counter, unless it would pass a maximum.
--
-- Keys: the counter. Arguments: the amount, the maximum, the time to live in ms.
-- Answers 1 if it was changed, else 0.
--
-- Atomic, because two who both read the last free place would both take it.

local value = tonumber(redis.call('GET', KEYS[1]) or 0) + tonumber(ARGV[1])
if value > tonumber(ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[1], string.format('%d', value), 'PX', ARGV[3])
return 1
