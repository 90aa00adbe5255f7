-- Look for a value; if there is none yet, ask to be told when it comes.
--
-- Keys: the value, the mailboxes of those who wait.
-- Arguments: the mailbox, how long it is remembered in ms.
-- Answers the value, or nothing.
--
-- Atomic, because of put.lua.

local value = redis.call('GET', KEYS[1])
if not value then
  redis.call('SADD', KEYS[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
return value
