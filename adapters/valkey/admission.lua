-- Admission of one signal, in one atomic step (ports.memory.Slots.admit).
-- KEYS: lease, governor, looks, seen     ARGV: account, action, type, sku or "", sha256,
--       month, first look in (ms), seconds to remember the answer
--       and who asks (see STANDING)
-- Returns {lease, verdict, sku, plan, policy version, era}. Nothing is taken unless it is "admitted".
local account, action, kind, asked, sha256, month =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local allowed, scope, lease = standing(account)
if allowed ~= 'admitted' then
  redis.call('HINCRBY', 'ggen:refused:' .. scope, account, 1)  -- in the moment of the refusal
  return {lease, allowed}
end
local era = string.match(lease, '^[^:]*')

local function terms(sku)
  local t = redis.call('HMGET', KEYS[2], sku .. ':plan', sku .. ':version',
    sku .. ':concurrent', sku .. ':monthly')
  return t[1], t[2], tonumber(t[3]), tonumber(t[4])
end

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local look_ms = now_ms + tonumber(ARGV[7])

-- A repeated signal may still have to be stored: its slot must be as young as a new one, or the
-- reaper would take it away under the delivery that is landing.
local function duplicate(sku, plan, version)
  redis.call('ZADD', KEYS[3], 'XX', 'GT', look_ms, account .. '/' .. sku .. '/' .. action)
  redis.call('HSET', KEYS[4], 'at', now_ms)
  redis.call('EXPIRE', KEYS[4], tonumber(ARGV[8]))
  return {lease, 'duplicate', sku, plan, version, era}
end

local seen = redis.call('HMGET', KEYS[4], 'sha256', 'sku', 'plan', 'version')
if seen[1] then
  if seen[1] ~= sha256 then return {lease, 'conflict', seen[2], seen[3], seen[4]} end
  return duplicate(seen[2], seen[3], seen[4])
end

local state = redis.call('HGET', KEYS[2], 'state')
if not state then return {lease, 'unknown-tenant'} end
if state ~= 'stable' then return {lease, 'draining'} end

local route = redis.call('HGET', KEYS[2], 'route:' .. kind)
if not route then return {lease, 'not-permitted'} end
local sku, found = nil, 0
for candidate in string.gmatch(route, '%S+') do
  if asked == '' or asked == candidate then sku, found = candidate, found + 1 end
end
if found == 0 then return {lease, 'not-permitted'} end
if found > 1 then return {lease, 'ambiguous'} end

local plan, version, concurrent, monthly = terms(sku)
local inflight = 'ggen:inflight:' .. account .. '/' .. sku
local used = 'ggen:used:' .. account .. '/' .. sku .. '/' .. month
-- Restored after a loss: the slot is there, only its answer was forgotten.
if redis.call('SISMEMBER', inflight, action) == 1 then return duplicate(sku, plan, version) end
if redis.call('SCARD', inflight) >= concurrent then return {lease, 'concurrency-exceeded', sku} end
if tonumber(redis.call('GET', used) or '0') >= monthly then return {lease, 'quota-exceeded', sku} end

redis.call('SADD', inflight, action)
redis.call('ZADD', KEYS[3], look_ms, account .. '/' .. sku .. '/' .. action)
redis.call('INCR', used)
redis.call('EXPIRE', used, 5529600)  -- 64 days: outlives its month
redis.call('HSET', KEYS[4], 'sha256', sha256, 'sku', sku, 'plan', plan, 'version', version,
  'month', month, 'at', now_ms)
redis.call('EXPIRE', KEYS[4], tonumber(ARGV[8]))
return {lease, 'admitted', sku, plan, version, era}
