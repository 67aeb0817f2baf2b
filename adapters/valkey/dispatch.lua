-- Lists of waiting actions (ports.dispatch). `at` names the keys of one hard limit.
-- ring: tenants with work, in turn     work:TENANT: its actions by acceptance (microseconds)
-- turns: left of a tenant's turn       called: a process was called and has not come
-- serving: who serves, and until when at most        taken: somebody took from here lately
local CALLED_MS, RECENT_MS, FEW, SHORT_MS = 1000, 300, 2, 10

local function waits(at) return redis.call('LLEN', at .. 'ring') > 0 end

-- Whether the caller of the script is to call one more process; nobody else is told so for now.
local function rings(at, is_slow)
  if not waits(at) then return 0 end
  redis.call('ZREMRANGEBYSCORE', at .. 'serving', '-inf', now)
  local is_enough = redis.call('ZCARD', at .. 'serving') >= FEW
  if is_enough and not is_slow and redis.call('EXISTS', at .. 'taken') == 1 then return 0 end
  return redis.call('SET', at .. 'called', 1, 'NX', 'PX', CALLED_MS) and 1 or 0
end

local function is_slow(handler)
  local pace = redis.call('HGET', 'ggen:pace', handler)
  return not pace or tonumber(pace) > SHORT_MS
end

-- The next tenant in turn that may act, and its oldest action.
local function pop(at)
  for _ = 1, redis.call('LLEN', at .. 'ring') do
    local account = redis.call('LINDEX', at .. 'ring', 0)
    local allowed, scope = standing(account)
    if allowed ~= 'admitted' and scope == 'all' then return nil end
    if allowed ~= 'admitted' then
      redis.call('LMOVE', at .. 'ring', at .. 'ring', 'LEFT', 'RIGHT')
    else
      local oldest = redis.call('ZPOPMIN', at .. 'work:' .. account)
      local is_empty = redis.call('EXISTS', at .. 'work:' .. account) == 0
      local weight = tonumber(redis.call('HGET', 'ggen:weights', account) or '1')
      local left = tonumber(redis.call('HGET', at .. 'turns', account) or weight) - 1
      if is_empty then
        redis.call('LPOP', at .. 'ring')
        redis.call('HDEL', at .. 'turns', account)
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
