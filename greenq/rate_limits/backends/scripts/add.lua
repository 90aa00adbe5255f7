-- Set a counter that does not exist.
--
-- Keys: the counter. Arguments: its value, its time to live in ms.
-- Answers 1 if it was set, 0 if it existed. One command; as a script, because it must not be
-- done a second time when its answer was lost.

if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 1
end
return 0
