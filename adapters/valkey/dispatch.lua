-- Lists of waiting actions (ports.dispatch). `at` names the keys of one hard limit.
-- ring: tenants with work, in turn     work:TENANT: its actions by acceptance (microseconds)
-- turns: left of a tenant's turn       weights: how long a turn is, where it is not 1
-- round: number of calls in a row      called: of this round, who has not come; gone after a second
-- came: the last round of which a process came
-- serving: who is at short handlers, and until when at most        taken: who took from here lately
-- idle: who has found nothing and stays for a moment, and until when     wake:SERVER: it is woken
local CALLED_MS, RECENT_MS, FEW, SHORT_MS, AT_ONCE, STEPS = 1000, 100, 1, 10, 8, 50
local ANOTHER_MS = 250  -- short handlers have another process for so much that the oldest has waited
local MOST = tonumber(ARGV[#ARGV - 3])  -- but no more than these, of handlers that take no time; 0: any
local STUCK_MS = 2000  -- nor does that bind for long: some of those that serve may be dead

local function waits(at) return redis.call('LLEN', at .. 'ring') > 0 end

-- For how long the oldest action of the tenant whose turn it is has waited.
local function waited_ms(at)
  local account = redis.call('LINDEX', at .. 'ring', 0)
  local oldest = redis.call('ZRANGE', at .. 'work:' .. account, 0, 0, 'WITHSCORES')
  return oldest[2] and math.max(0, now - oldest[2] / 1000) or 0
end

-- How many actions wait, as far as that many processes could be called for them.
local function waiting(at)
  local count = 0
  for _, account in ipairs(redis.call('LRANGE', at .. 'ring', 0, AT_ONCE - 1)) do
    count = count + redis.call('ZCARD', at .. 'work:' .. account)
  end
  return math.min(count, AT_ONCE)
end

-- A process that has found nothing stays for a moment, where few others do.
local function stays(at, server, stays_ms)
  redis.call('ZREMRANGEBYSCORE', at .. 'idle', '-inf', now)
  if waits(at) or redis.call('ZCARD', at .. 'idle') >= FEW then return false end
  redis.call('DEL', at .. 'wake:' .. server)
  redis.call('ZADD', at .. 'idle', now + stays_ms, server)
  return true
end

-- Wake one that stays, rather than call one: it costs no message.
local function wakes(at)
  local idle = redis.call('ZRANGE', at .. 'idle', now, '+inf', 'BYSCORE', 'LIMIT', 0, 1)[1]
  if not idle then return false end
  redis.call('ZREM', at .. 'idle', idle)
  redis.call('ZADD', at .. 'serving', now + CALLED_MS, idle)
  redis.call('RPUSH', at .. 'wake:' .. idle, 1)
  redis.call('PEXPIRE', at .. 'wake:' .. idle, CALLED_MS)
  return true
end

-- How many milliseconds such actions take; one that is not known counts as slow.
local function pace_of(handler)
  return tonumber(redis.call('HGET', 'ggen:pace', handler) or SHORT_MS + 1)
end

-- How many processes the caller of the script is to call, and in which round. Slow handlers have a
-- process each; short ones are served by a few. A new round calls one, and goes on once that came:
-- where every process is busy, one call a second is made, and those of former rounds do nothing.
local function rings(at, pace)
  local is_slow = pace > SHORT_MS
  local round = tonumber(redis.call('GET', at .. 'round') or '0')
  if not waits(at) then return {0, round} end
  redis.call('ZREMRANGEBYSCORE', at .. 'serving', '-inf', now)
  -- A handler that takes a millisecond may wait for it: another process has its core meanwhile.
  local waited = waited_ms(at)
  local enough = FEW + math.floor(waited / ANOTHER_MS)
  if MOST > 0 and waited < STUCK_MS then
    enough = math.min(enough, math.floor(MOST * (1 + pace)))
  end
  local is_enough = redis.call('ZCARD', at .. 'serving') >= enough
    and redis.call('EXISTS', at .. 'taken') == 1
  if is_enough and not is_slow or wakes(at) then return {0, round} end
  local called, count = redis.call('GET', at .. 'called'), 1
  if not called then
    round, called = redis.call('INCR', at .. 'round'), 0
  elseif redis.call('GET', at .. 'came') ~= tostring(round) then
    return {0, round}
  elseif is_slow then
    count = waiting(at) - called
  elseif tonumber(called) > 0 then
    return {0, round}
  end
  if count <= 0 then return {0, round} end
  redis.call('SET', at .. 'called', called + count, 'PX', CALLED_MS)
  return {count, round}
end

-- A process of a round has come; false where a later round was begun meanwhile.
local function came(at, round)
  if round ~= (redis.call('GET', at .. 'round') or '0') then return false end
  redis.call('SET', at .. 'came', round)
  local called = tonumber(redis.call('GET', at .. 'called') or '0')
  redis.call('SET', at .. 'called', math.max(0, called - 1), 'PX', CALLED_MS)
  return true
end

local function note_pace(handler, took_ms)
  if handler == '' then return end
  local pace = redis.call('HGET', 'ggen:pace', handler)
  redis.call('HSET', 'ggen:pace', handler, pace and 0.7 * pace + 0.3 * took_ms or took_ms)
end

-- The next tenant in turn that may act, and its oldest action.
local function pop(at)
  for _ = 1, math.min(STEPS, redis.call('LLEN', at .. 'ring')) do
    local account = redis.call('LINDEX', at .. 'ring', 0)
    local allowed, scope = standing(account)
    if allowed ~= 'admitted' and scope == 'all' then return nil end
    if allowed ~= 'admitted' then
      redis.call('LMOVE', at .. 'ring', at .. 'ring', 'LEFT', 'RIGHT')
    else
      local oldest = redis.call('ZPOPMIN', at .. 'work:' .. account)
      local is_empty = redis.call('EXISTS', at .. 'work:' .. account) == 0
      local weight = tonumber(redis.call('HGET', at .. 'weights', account) or '1')
      local left = tonumber(redis.call('HGET', at .. 'turns', account) or weight) - 1
      if is_empty then
        redis.call('LPOP', at .. 'ring')
        redis.call('HDEL', at .. 'turns', account)
        redis.call('HDEL', at .. 'weights', account)
      elseif left <= 0 then
        redis.call('LMOVE', at .. 'ring', at .. 'ring', 'LEFT', 'RIGHT')
        redis.call('HDEL', at .. 'turns', account)
      else
        redis.call('HSET', at .. 'turns', account, left)
      end
      if oldest[1] then return account, oldest[1] end
    end
  end
  return nil
end
