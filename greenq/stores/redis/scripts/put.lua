-- Store a value and tell those who wait for it.
--
-- Keys: the value, the mailboxes of those who wait.
-- Arguments: the value, its time to live in ms, the key as those who wait know it.
-- Answers nothing.
--
-- Atomic, because one who looks and finds nothing puts its mailbox there in the same step
-- (look.lua): in between a value could come and tell nobody.

redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
for _, mailbox in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('PUBLISH', mailbox, ARGV[3])
end
redis.call('DEL', KEYS[2])
