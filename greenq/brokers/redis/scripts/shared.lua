-- What the scripts share; put in front of each of them (see scripts.py).
--
-- An id that ends with "!<number>" has that priority, lower first; any other has 0.
-- An empty id in a ready list is a bell: it ends the waits on the list and is dropped by
-- the next fetch. It is only rung while the list is empty (nobody waits on a longer one),
-- and whoever pushes to the left drops it first, so it is always the first of its list.

-- On a cluster each script is given one more key after its own, which never exists, so that
-- a node that has only a part of the queue refuses the whole script (see cluster.py).

-- Lua's stack holds 8000 values.
local CHUNK = 4000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A command on one key with any number of values.
local function call_many(command, key, values)
  for first = 1, #values, CHUNK do
    redis.call(command, key, unpack(values, first, math.min(first + CHUNK - 1, #values)))
  end
end

-- To be called first by what empties a queue. A server whose memory is full refuses what
-- needs some, but not in a script that has written before: else nobody could take a message
-- or keep a lease there, and it would stay full.
local function go_on_when_full(workers)
  redis.call('ZREM', workers, '')
end

local function ring(ready)
  if redis.call('LLEN', ready) == 0 then
    redis.call('LPUSH', ready, '')
  end
end

local function drop_bell(ready)
  if redis.call('LINDEX', ready, 0) == '' then
    redis.call('LPOP', ready)
  end
end

-- The name of a priority other than 0 as it stands in keys; nil for 0.
local function priority_of(id)
  local digits = string.match(id, '!(-?%d+)$')
  if not digits or #digits > 11 or tonumber(digits) == 0 then
    return nil
  end
  return string.format('%d', tonumber(digits))
end

-- Push ids to the list of their priority. Rings for those that nobody waits on.
local function push(command, ready, priorities, ids)
  local own, others = {}, nil
  for _, id in ipairs(ids) do
    local priority = priority_of(id)
    if not priority then
      own[#own + 1] = id
    else
      others = others or {}
      others[priority] = others[priority] or {}
      table.insert(others[priority], id)
    end
  end
  if #own > 0 then
    if command == 'LPUSH' then
      drop_bell(ready)
    end
    call_many(command, ready, own)
  end
  if others then
    for priority, members in pairs(others) do
      redis.call('ZADD', priorities, priority, priority)
      call_many(command, ready .. '~ready.' .. priority, members)
    end
    ring(ready)
  end
end

-- Store one message. due is '' for now, '+<ms>' from now, or a Unix time in ms.
local function place(ready, messages, priorities, delayed, id, payload, due, now)
  redis.call('HSET', messages, id, payload)
  if due ~= '' then
    local at = tonumber(due)
    if string.sub(due, 1, 1) == '+' then
      at = now + at
    end
    if at > now then
      local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
      redis.call('ZADD', delayed, at, id)
      if not first[2] or at < tonumber(first[2]) then
        ring(ready)
      end
      return
    end
  end
  push('RPUSH', ready, priorities, {id})
end

-- Drop dead letters, 4000 at most. Keys: dead, then the hashes. Answers how many there were.
local function drop_dead(keys, ids)
  if #ids == 0 then
    return 0
  end
  for number = 2, #keys do
    redis.call('HDEL', keys[number], unpack(ids))
  end
  return redis.call('ZREM', keys[1], unpack(ids))
end
