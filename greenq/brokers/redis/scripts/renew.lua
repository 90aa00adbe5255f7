-- Renew a worker's leases, one for each queue that it consumes.
--
-- Keys, for each queue: workers, dead.
-- Arguments: the length of a lease in ms, how long dead letters are kept in ms, 1 to
--   take a lease and 0 to renew one; then the holder of each queue.
-- Answers for each queue a sum of: 1 if the lease was lost, 2 if another holder's has run
--   out, 4 if dead letters are to be dropped.
--
-- Atomic, because a lease that somebody else takes back in between must not come to life
-- again: what it held is given to others.

local lease_ms, kept_ms, takes = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local now = now_ms()
local answers = {}
for key = 1, #KEYS - 1, 2 do
  local workers, dead = KEYS[key], KEYS[key + 1]
  local holder = ARGV[3 + (key + 1) / 2]
  local answer = 0
  go_on_when_full(workers)
  if takes or redis.call('ZSCORE', workers, holder) then
    redis.call('ZADD', workers, now + lease_ms, holder)
  else
    answer = 1
  end
  if #redis.call('ZRANGEBYSCORE', workers, '-inf', '(' .. string.format('%d', now), 'LIMIT', 0, 1) > 0 then
    answer = answer + 2
  end
  if #redis.call('ZRANGEBYSCORE', dead, '-inf', '(' .. string.format('%d', now - kept_ms), 'LIMIT', 0, 1) > 0 then
    answer = answer + 4
  end
  answers[#answers + 1] = answer
end
return answers
