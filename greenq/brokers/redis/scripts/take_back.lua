-- Return what lost workers hold to the front of the queue, and end their leases.
--
-- Keys: ready, priorities, deliveries, workers.
-- Arguments: a worker's id, or '' for all whose lease has run out; 1 to count it as a
--   delivery, 0 not to.
-- Answers how many messages were taken back.
--
-- Atomic, because from the moment in which a message is ready again its old holder's
-- verdict on it must be refused.

local ready, priorities, deliveries, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local worker, is_charged = ARGV[1], ARGV[2] == '1'

go_on_when_full(workers)
local holders = {}
if worker == '' then
  holders = redis.call('ZRANGEBYSCORE', workers, '-inf', '(' .. string.format('%d', now_ms()))
else
  for _, holder in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
    if string.sub(holder, 1, #worker + 1) == worker .. '.' then
      holders[#holders + 1] = holder
    end
  end
end

local taken = 0
for _, holder in ipairs(holders) do
  local held = ready .. '~held.' .. holder
  local ids = redis.call('SMEMBERS', held)
  if #ids > 0 then
    -- Ids of one producer sort in the order in which they were made.
    table.sort(ids, function(one, other) return one > other end)
    push('LPUSH', ready, priorities, ids)
    if is_charged then
      for _, id in ipairs(ids) do
        redis.call('HINCRBY', deliveries, id, 1)
      end
    end
  end
  redis.call('DEL', held)
  redis.call('ZREM', workers, holder)
  taken = taken + #ids
end
return taken
