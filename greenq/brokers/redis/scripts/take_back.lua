-- Return what lost workers hold to the front of the queue, and end their leases.
--
-- Keys: ready, priorities, deliveries, evidence, workers.
-- Arguments: a worker's id, or '' for all whose lease has run out; 1 to count it as a
--   delivery, 0 not to; 1 if there is evidence against some of what it held, on this queue or
--   another, 0 if not; how the worker died; then the ids of those here. With evidence nothing is
--   noted of the others, without it all are noted as lost unwitnessed.
-- Answers how many messages were taken back.
--
-- Atomic, because from the moment in which a message is ready again its old holder's
-- verdict on it must be refused; and whoever fetches it then must see what was noted.

local ready, priorities, deliveries, evidence, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local worker, is_counted, has_evidence, cause = ARGV[1], ARGV[2] == '1', ARGV[3] == '1', ARGV[4]

local is_charged = {}
for position = 5, #ARGV do
  is_charged[ARGV[position]] = true
end

local function note(id)
  local charges, unwitnessed, last = 0, 0, ''
  local noted = redis.call('HGET', evidence, id)
  if noted then
    charges, unwitnessed, last = string.match(noted, '^(%d+) (%d+) (.*)$')
  end
  if not has_evidence then
    unwitnessed = unwitnessed + 1
  elseif is_charged[id] then
    charges, last = charges + 1, cause
  else
    return
  end
  redis.call('HSET', evidence, id, string.format('%d %d %s', charges, unwitnessed, last))
end

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
    if is_counted then
      for _, id in ipairs(ids) do
        redis.call('HINCRBY', deliveries, id, 1)
        note(id)
      end
    end
  end
  redis.call('DEL', held)
  redis.call('ZREM', workers, holder)
  taken = taken + #ids
end
return taken
