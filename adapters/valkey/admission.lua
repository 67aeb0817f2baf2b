-- Admission of one signal, in one atomic step (ports.memory.Slots.admit).
-- KEYS: lease, governor, looks, seen     ARGV: account, action, type, sku or "", sha256,
--       month, first look in (ms), seconds to remember the answer, entitlement or "",
--       generation of the key that signed it or "" for a message of a topic, and who asks
--       (see STANDING)
-- Returns {lease, verdict, entitlement, sku, plan, policy version, era, version in force}. Nothing is
-- taken unless it is "admitted".
local account, action, kind, asked_sku, sha256, month, asked, key_of =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[9], ARGV[10]

local allowed, scope, lease = standing(account)
if allowed ~= 'admitted' then
  redis.call('HINCRBY', 'ggen:refused:' .. scope, account, 1)  -- in the moment of the refusal
  return {lease, allowed}
end
local era = string.match(lease, '^[^:]*')

local function terms(id)
  local t = redis.call('HMGET', KEYS[2], id .. ':plan', id .. ':version',
    id .. ':concurrent', id .. ':monthly')
  return t[1], t[2], tonumber(t[3]), tonumber(t[4])
end
local function sku_of(id)  -- booted by release 0.1.0, its id is its SKU
  return redis.call('HGET', KEYS[2], id .. ':sku') or id
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local look_ms = now_ms + tonumber(ARGV[7])

-- A repeated signal may still have to be stored: its slot must be as young as a new one, or the
-- reaper would take it away under the delivery that is landing.
local function duplicate(id, sku, plan, version)
  redis.call('ZADD', KEYS[3], 'XX', 'GT', look_ms, account .. '/' .. id .. '/' .. action)
  redis.call('HSET', KEYS[4], 'at', now_ms)
  redis.call('EXPIRE', KEYS[4], tonumber(ARGV[8]))
  return {lease, 'duplicate', id, sku, plan, version, era}
end

local state = redis.call('HGET', KEYS[2], 'state')
if state and key_of ~= '' and key_of ~= (redis.call('HGET', KEYS[2], 'generation') or '1') then
  return {lease, 'bad-signature'}
end

local seen = redis.call('HMGET', KEYS[4], 'sha256', 'sku', 'plan', 'version', 'entitlement')
if seen[1] then
  local id = seen[5] or seen[2]
  if seen[1] ~= sha256 then return {lease, 'conflict', id, seen[2], seen[3], seen[4]} end
  return duplicate(id, seen[2], seen[3], seen[4])
end

if not state then return {lease, 'unknown-tenant'} end
if state ~= 'stable' then return {lease, 'draining'} end

local route = redis.call('HGET', KEYS[2], 'route:' .. kind)
if not route then return {lease, 'not-permitted'} end
local id, sku, found, resting = nil, nil, 0, {}
for candidate in string.gmatch(route, '%S+') do
  local its_sku = sku_of(candidate)
  if (asked == '' or asked == candidate) and (asked_sku == '' or asked_sku == its_sku) then
    local its_state = redis.call('HGET', KEYS[2], candidate .. ':state') or 'active'
    if its_state == 'active' then id, sku, found = candidate, its_sku, found + 1
    else resting[its_state] = true end
  end
end
if found == 0 and resting.draining then return {lease, 'draining'} end
if found == 0 and resting.suspended then return {lease, 'entitlement-suspended'} end
if found == 0 then return {lease, 'not-permitted'} end
if found > 1 then return {lease, 'ambiguous'} end

local plan, version, concurrent, monthly = terms(id)
local place = account .. '/' .. id
local inflight, load = 'ggen:inflight:' .. place, 'ggen:load:' .. place
local pushed_back = 'ggen:pushed_back:' .. account
local used = 'ggen:used:' .. place .. '/' .. month
-- Restored after a loss: the slot is there, only its answer was forgotten.
if redis.call('SISMEMBER', inflight, action) == 1 then return duplicate(id, sku, plan, version) end
if redis.call('SCARD', inflight) >= concurrent then
  redis.call('HINCRBY', load, 'refused', 1)
  redis.call('EXPIRE', load, 3600)
  redis.call('ZADD', 'ggen:pressed', 'NX', now_ms, place)
  if key_of == '' then
    redis.call('HINCRBY', load, 'pushed_back', 1)
    redis.call('ZADD', pushed_back, now_ms, action)
    redis.call('EXPIRE', pushed_back, 120)
  end
  return {lease, 'concurrency-exceeded', id, sku}
end
if tonumber(redis.call('GET', used) or '0') >= monthly then return {lease, 'quota-exceeded', id, sku} end

redis.call('SADD', inflight, action)
redis.call('ZADD', KEYS[3], look_ms, place .. '/' .. action)
redis.call('HINCRBY', load, 'admitted', 1)
redis.call('EXPIRE', load, 3600)
if key_of == '' then redis.call('ZREM', pushed_back, action) end
redis.call('INCR', used)
redis.call('INCR', 'ggen:admitted')  -- what an outage let through, if anything (ports.health)
redis.call('EXPIRE', used, 5529600)  -- 64 days: outlives its month
redis.call('HSET', KEYS[4], 'sha256', sha256, 'entitlement', id, 'sku', sku,
  'plan', plan, 'version', version,  'month', month, 'at', now_ms)
redis.call('EXPIRE', KEYS[4], tonumber(ARGV[8]))

-- The version in force for this plan, where it is another one that was not refused (ports.broadcasts).
local told = redis.call('HGET', 'ggen:policies', sku .. '~' .. plan) or ''
local in_force, digest = string.match(told, '^%S+ (%S+) (%S+)')
local refused = redis.call('HGET', KEYS[2], id .. ':refused')
if in_force == version or digest == refused then in_force = nil end
return {lease, 'admitted', id, sku, plan, version, era, in_force or ''}
