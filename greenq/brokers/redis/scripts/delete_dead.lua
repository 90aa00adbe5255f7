-- Delete dead letters.
--
-- Keys: dead, dead messages, dead reasons, dead deliveries.
-- Arguments: either '' and ids (4000 at most), or the latest time of death and how many at most
--   (4000 or fewer), the oldest first.
-- Answers how many there were.
--
-- Atomic, because a letter must never be listed without its message and its reason.

if ARGV[1] == '' then
  return drop_dead(KEYS, {unpack(ARGV, 2)})
end
return drop_dead(KEYS, redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, tonumber(ARGV[2])))
