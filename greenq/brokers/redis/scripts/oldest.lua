-- Look at the messages that have waited the longest.
--
-- Keys: ready, messages, priorities, delayed.
-- Argument: the longest payload to answer in bytes.
-- Answers the payload of the first message of each ready list; then the time in Unix ms, and
--   when the first delayed message fell due, '' if none has.
--
-- Atomic, because a message that is fetched in between has no payload where it was looked for.
-- Looks at one message a list, however many there are.

local ready, messages, priorities, delayed, longest = KEYS[1], KEYS[2], KEYS[3], KEYS[4], tonumber(ARGV[1])

local first = redis.call('LINDEX', ready, 0)
if first == '' then
  first = redis.call('LINDEX', ready, 1)
end
local ids = {first or nil}
for _, priority in ipairs(redis.call('ZRANGE', priorities, 0, -1)) do
  ids[#ids + 1] = redis.call('LINDEX', ready .. '~ready.' .. priority, 0) or nil
end
local payloads = {}
for _, id in ipairs(ids) do
  if redis.call('HSTRLEN', messages, id) <= longest then
    payloads[#payloads + 1] = redis.call('HGET', messages, id) or nil
  end
end
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
return {payloads, now, due[2] or ''}
