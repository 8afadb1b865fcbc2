"""
What Redis does in one step, so that no other run comes in between.

KEYS[1] is a record, a hash: token and until (the owner and the end of its lease, in ms on the server's clock), fence,
print (the payload's), state (running, free, done), result, and a field for each step that `ONCE` has got through.
"""

from ..connections import Script

_NOW = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) "

BEGIN = Script(
    "idempotency.begin",
    _NOW
    + """
    -- ARGV: token, fingerprint, lease in ms, ms to keep
    local r = redis.call('HMGET', KEYS[1], 'token', 'print', 'state', 'until', 'fence', 'result')
    if r[2] and r[2] ~= ARGV[2] then return {'other'} end
    if r[3] == 'done' then return {'done', r[6]} end
    local running, mine = r[3] == 'running', r[1] == ARGV[1]
    local left = running and tonumber(r[4]) - now or 0
    if running and not mine and left > 0 then return {'running', left} end
    local fence = r[5]
    if not mine then
      -- By the clock, so that fences rise over the end of records and the loss of data.
      fence = string.format('%.0f', math.max((tonumber(r[5]) or 0) + 1, t[1] * 1000000 + t[2]))
    end
    redis.call('HSET', KEYS[1], 'token', ARGV[1], 'print', ARGV[2], 'state', 'running',
      'until', string.format('%.0f', now + ARGV[3]), 'fence', fence)
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return {'owned', fence, running and not mine and 1 or 0}
    """,
)

RENEW = Script(
    "idempotency.renew",
    _NOW
    + """
    -- ARGV: token, fingerprint, lease in ms, ms to keep, fence (0 as for FINISH)
    local r = redis.call('HMGET', KEYS[1], 'token', 'state')
    local lost = redis.call('EXISTS', KEYS[1]) == 0
    if lost and ARGV[5] == '0' then return 0 end
    if not lost and not (r[1] == ARGV[1] and r[2] == 'running') then return 0 end
    -- A server that has lost the record has given it to nobody else either.
    if lost then
      redis.call('HSET', KEYS[1], 'token', ARGV[1], 'print', ARGV[2], 'state', 'running', 'fence', ARGV[5])
    end
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', now + ARGV[3]))
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return 1
    """,
)

FINISH = Script(
    "idempotency.finish",
    """
    -- ARGV: token, fingerprint, ms to keep, fence (0 where a record that is gone may have been another run's), result
    local r = redis.call('HMGET', KEYS[1], 'token', 'print', 'state', 'result', 'fence')
    local lost = redis.call('EXISTS', KEYS[1]) == 0
    if lost and ARGV[4] == '0' then return {'lost'} end
    if not lost and not (r[1] == ARGV[1] and r[3] ~= 'free') then
      if r[3] == 'done' and r[2] == ARGV[2] then return {'done', r[4]} end
      return {'lost'}
    end
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'token', ARGV[1], 'print', ARGV[2], 'state', 'done', 'fence', r[5] or ARGV[4],
      'result', ARGV[5])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return {'stored'}
    """,
)

RELEASE = Script(
    "idempotency.release",
    """
    -- ARGV: token, ms to keep
    local r = redis.call('HMGET', KEYS[1], 'token', 'state')
    if not (r[1] == ARGV[1] and r[2] == 'running') then return 0 end
    redis.call('HDEL', KEYS[1], 'token', 'until')
    redis.call('HSET', KEYS[1], 'state', 'free')
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
    return 1
    """,
)

_ONCE = """
    -- KEYS and ARGV behind the first ones are the effect's
    local r = redis.call('HMGET', KEYS[1], 'token', 'state', 'step:' .. ARGV[2])
    if not (r[1] == ARGV[1] and r[2] == 'running') then return {'lost'} end
    if r[3] then return {'known', cmsgpack.unpack(r[3])} end
    local function effect(KEYS, ARGV)
EFFECT
    end
    local reply = effect({unpack(KEYS, 2)}, {unpack(ARGV, 3)})
    if type(reply) == 'table' and reply.err then return reply end
    redis.call('HSET', KEYS[1], 'step:' .. ARGV[2], cmsgpack.pack(reply))
    return {'run', reply}
"""


def once(effect: str) -> Script:
    """Return *effect*, Lua that may use KEYS and ARGV of its own, as a step that is done by an owner, and once."""
    return Script("idempotency.once", _ONCE.replace("EFFECT", effect))
