-- Go on under another holder's name, and return what nobody knows of.
--
-- After a fetch whose answer was lost: what it reserved is in the set, but in no process.
--
-- Keys: ready, priorities, workers, held by the old holder, held by the new one.
-- Arguments: the old holder, the new one, the length of a lease in ms, then the ids that
--   are known to be in the process.
-- Answers how many messages were returned.
--
-- Atomic, because a message must always be held by one holder; and a fetch that is still
-- under way, to a server that was stopped, must find that its holder has no lease.

local ready, priorities, workers, old_held, new_held = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local is_known = {}
for position = 4, #ARGV do
  is_known[ARGV[position]] = true
end
local known, unknown = {}, {}
for _, id in ipairs(redis.call('SMEMBERS', old_held)) do
  local list = is_known[id] and known or unknown
  list[#list + 1] = id
end
redis.call('DEL', old_held)
call_many('SADD', new_held, known)
-- Ids of one producer sort in the order in which they were made.
table.sort(unknown, function(one, other) return one > other end)
push('LPUSH', ready, priorities, unknown)
redis.call('ZREM', workers, ARGV[1])
redis.call('ZADD', workers, now_ms() + tonumber(ARGV[3]), ARGV[2])
return #unknown
