"""
What Redis does in one step, so that no other replica comes in between.

KEYS are an entry's three names: value, lease, and the value kept for errors.  The lease holds its owner's token.
Invalidating deletes the lease too: a load that began before it finds its token gone and stores nothing.
"""

from ..connections import Script

OURS = -1
"""What `CLAIM` answers to the new owner."""

CLAIM = Script(
    "cache.claim",
    """
    -- ARGV: token, lease in ms, whether to pass over the value
    if ARGV[3] == '0' then
      local value = redis.pcall('GET', KEYS[1])
      if type(value) == 'string' then return value end
    end
    if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return -1 end
    local left = redis.call('PTTL', KEYS[2])
    if left >= 0 then return left end
    redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
    return -1
    """,
)
"""Return the value; else take the lease and return -1; else how many ms its owner has left."""

FULFIL = Script(
    "cache.fulfil",
    """
    -- ARGV: token, value, ms to keep it, ms to keep it for errors (0: not)
    if redis.pcall('GET', KEYS[2]) ~= ARGV[1] then return 0 end
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    if ARGV[4] ~= '0' then redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[4]) end
    redis.call('DEL', KEYS[2])
    return 1
    """,
)
"""Store the value and end the lease, if it is still the owner's; tell whether it was."""

RENEW = Script(
    "cache.renew",
    "if redis.pcall('GET', KEYS[2]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[2], ARGV[2]) end return 0",
)
RELEASE = Script(
    "cache.release",
    "if redis.pcall('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[2]) end return 0",
)
PUT = Script(
    "cache.put",
    "redis.call('DEL', KEYS[2], KEYS[3]) redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) return 1",
)
"""Store a value whoever is loading one, which then is not stored."""


def names_of(key: str) -> tuple[str, str, str]:
    """Return the names of *key*'s value, lease, and value kept for errors."""
    # In front: at the end they could be another key's name.
    return key, f"lease:{key}", f"stale:{key}"
