-- Put the messages of dead letters at the end of their queue.
--
-- Keys: ready, messages, priorities, dead, dead messages, dead reasons, dead deliveries.
-- Arguments: for each letter its id, a new id, and its payload: '=' for "as it is stored", else
--   '+' and the bytes.
-- Answers how many went. A letter that is gone, or whose payload is, is passed over.
--
-- Atomic, because a message must be dead or ready, never both and never neither; and of two
-- who send back the same letter only one may find it.

local ready, messages, priorities, dead, dead_messages = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]

local gone, back = {}, {}
for position = 1, #ARGV, 3 do
  local id, new_id, payload = ARGV[position], ARGV[position + 1], ARGV[position + 2]
  if redis.call('ZSCORE', dead, id) then
    if payload == '=' then
      payload = redis.call('HGET', dead_messages, id)
    else
      payload = string.sub(payload, 2)
    end
    if payload then
      redis.call('HSET', messages, new_id, payload)
      gone[#gone + 1] = id
      back[#back + 1] = new_id
    end
  end
end
if #back > 0 then
  push('RPUSH', ready, priorities, back)
end
return drop_dead({unpack(KEYS, 4)}, gone)
