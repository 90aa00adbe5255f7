-- Store values and tell those who wait for them.
--
-- Keys, for each value: it, the mailboxes of those who wait for it.
-- Arguments, for each value: it, its time to live in ms.
-- Answers nothing.
--
-- Atomic, because one who looks and finds nothing puts its mailbox there in the same step
-- (look.lua): in between a value could come and tell nobody. Several in one step, because a
-- step of its own costs a worker more than many a job.

for each = 1, #KEYS, 2 do
  redis.call('SET', KEYS[each], ARGV[each], 'PX', ARGV[each + 1])
  local mailboxes = redis.call('SMEMBERS', KEYS[each + 1])
  if #mailboxes > 0 then
    for _, mailbox in ipairs(mailboxes) do
      redis.call('PUBLISH', mailbox, KEYS[each])
    end
    redis.call('DEL', KEYS[each + 1])
  end
end
