-- Read the messages that a dead worker holds.
--
-- Keys: ready, messages, workers.
-- Arguments: the worker's id, the longest payload to answer in bytes.
-- Answers ids; payloads: nil where there is none, its length where it is too long.
--
-- Atomic, because what is taken back in between, and settled by whoever fetches it, would be an id
-- without its payload.

local ready, messages, workers = KEYS[1], KEYS[2], KEYS[3]
local worker, longest = ARGV[1], tonumber(ARGV[2])

local ids, payloads = {}, {}
for _, holder in ipairs(redis.call('ZRANGE', workers, 0, -1)) do
  if string.sub(holder, 1, #worker + 1) == worker .. '.' then
    for _, id in ipairs(redis.call('SMEMBERS', ready .. '~held.' .. holder)) do
      local length = redis.call('HSTRLEN', messages, id)
      ids[#ids + 1] = id
      payloads[#ids] = length > longest and length or redis.call('HGET', messages, id)
    end
  end
end
return {ids, payloads}
