"""The scripts that charge: all or nothing, in the server.

Their keys and arguments are those of `Ledger`, in `service/store/ledger.py`, which alone runs them.
Numbers in Lua are doubles; sums are taken by HINCRBY on integers, and are compared only with
budgets of up to 1e15 micros, where doubles are exact.
"""

from service.store.script import Script

_CHARGE = """
local function charge(argv)
  local ad_id, advertiser_id, price = argv[1], argv[2], tonumber(argv[6])

  local held = redis.call('HGET', KEYS[1], ad_id)
  if held then return {'duplicate', held} end

  local ad = redis.call('HGET', KEYS[3], ad_id)
  if not ad then return {'budget_exhausted'} end

  local limits, is_limited = {}, false
  local function covers(amount, key, id)
    if type(amount) ~= 'string' then
      limits[#limits + 1] = ''
      return true
    end
    -- a decimal of at most 6 places: the nearest double, times 1e6, rounds to the exact micros
    local limit = math.floor(tonumber(amount) * 1000000 + 0.5)
    limits[#limits + 1] = string.format('%.0f', limit)
    is_limited = true
    return tonumber(redis.call('HGET', key, id) or '0') + price <= limit
  end
  local function can_pay(raw, total_key, day_key, id)
    local budget = raw and cjson.decode(raw).budget or {}
    return covers(budget.total, total_key, id) and covers(budget.daily, day_key, id)
  end
  if not can_pay(ad, KEYS[5], KEYS[6], ad_id)
    or not can_pay(redis.call('HGET', KEYS[4], advertiser_id), KEYS[7], KEYS[8], advertiser_id)
  then return {'budget_exhausted'} end

  redis.call('HINCRBY', KEYS[5], ad_id, argv[6])
  redis.call('HINCRBY', KEYS[6], ad_id, argv[6])
  redis.call('HINCRBY', KEYS[7], advertiser_id, argv[6])
  redis.call('HINCRBY', KEYS[8], advertiser_id, argv[6])
  local record = table.concat({argv[4], argv[5], argv[6], argv[10], argv[11]}, '\\31')
  redis.call('HSET', KEYS[1], ad_id, record)
  redis.call('EXPIRE', KEYS[1], argv[12])
  local entry = {
    'charge_id', argv[4], 'response_id', argv[3], 'ad_id', ad_id, 'advertiser_id', advertiser_id,
    'event', argv[5], 'price', argv[6], 'bid', argv[7], 'position', argv[8], 'day', argv[9],
    'at', argv[10],
  }
  if is_limited then
    entry[#entry + 1] = 'limits'
    entry[#entry + 1] = table.concat(limits, ',')
  end
  redis.call('XADD', KEYS[2], '*', unpack(entry))
  local whose = '\\31' .. ad_id .. '\\31' .. advertiser_id
  local count = redis.call('HINCRBY', KEYS[9], argv[13] .. whose, 1)
  redis.call('HINCRBY', KEYS[9], 'spend' .. whose, argv[6])
  redis.call('HINCRBY', KEYS[10], 'spend\\31' .. ad_id .. '\\31' .. argv[14], argv[6])
  if count == 1 then  -- perhaps the day's first charge
    for _, counts in ipairs({KEYS[9], KEYS[10]}) do
      if redis.call('TTL', counts) == -1 then redis.call('EXPIRE', counts, argv[15]) end
    end
  end
  return {'charged'}
end
"""

CHARGE = Script(f"{_CHARGE}return charge(ARGV)")
"""Makes one charge, whose outcome it returns."""

CHARGE_ALL = f"""{_CHARGE}
local states = {{}}
for _, argv in ipairs(cjson.decode(ARGV[1])) do
  if not KEYS[11] or redis.call('SREM', KEYS[11], argv[1]) == 1 then
    states[#states + 1] = {{argv[1], charge(argv)[1]}}
  end
end
return states
"""
"""Makes several charges for one answer; given an 11th key, those for the ads in that set.

Returns the ad and what became of its charge, of each that it tried.
"""
