-- Store messages, all of them or none.
--
-- Keys, for each queue: ready, messages, priorities, delayed.
-- Arguments, for each queue: how many are plain (priority 0, not delayed), how many are
--   not; id and payload of each plain one; id, payload and due of each other one.
-- Answers how many were stored.
--
-- Atomic, because an id without its payload, or half of a batch, must never be seen.

local now = now_ms()
local at, stored = 1, 0
for key = 1, #KEYS - 3, 4 do
  local ready, messages, priorities, delayed = KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]
  local plain, others = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  at = at + 2
  if plain == 1 then
    redis.call('HSET', messages, ARGV[at], ARGV[at + 1])
    redis.call('RPUSH', ready, ARGV[at])
    at = at + 2
  elseif plain > 1 then
    local ids = {}
    for number = 1, plain do
      ids[number] = ARGV[at + 2 * (number - 1)]
    end
    local last = at + 2 * plain - 1
    for first = at, last, CHUNK do
      redis.call('HSET', messages, unpack(ARGV, first, math.min(first + CHUNK - 1, last)))
    end
    call_many('RPUSH', ready, ids)
    at = last + 1
  end
  for _ = 1, others do
    place(ready, messages, priorities, delayed, ARGV[at], ARGV[at + 1], ARGV[at + 2], now)
    at = at + 3
  end
  stored = stored + plain + others
end
return stored
