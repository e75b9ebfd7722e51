"""Token buckets: in Redis, shared by all replicas, and local while Redis is away. `ingest_rate:<tenant>:<source>`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from ingestcore.stores.in_batches import InBatches
from ingestcore.stores.quick_redis import QuickRedis, RedisAway

PREFIX: Final = "ingest_rate:"

# A bucket is `<tokens> <microseconds>`: what it held when it was last looked at, by Redis' own clock.
_TAKE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local out = {}
for i = 1, #KEYS do
  local rate, burst, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local tokens, at = string.match(redis.call('GET', KEYS[i]) or '', '^(%S+) (%d+)$')
  if tokens then
    tokens = math.min(burst, tonumber(tokens) + math.max(0, now - tonumber(at)) * rate / 1000000)
  else
    tokens = burst
  end
  local granted = 0
  if tokens >= cost then tokens, granted = tokens - cost, 1 end
  local life = math.ceil(burst / rate * 1000) + 1000
  redis.call('SET', KEYS[i], string.format('%.6f %.0f', tokens, now), 'PX', life)
  out[#out + 1] = granted
  out[#out + 1] = string.format('%.6f', tokens)
end
return out
"""


class Bucket(NamedTuple):
    """per_second: tokens that come back; burst: what it holds."""

    name: str
    per_second: float
    burst: int


class Grant(NamedTuple):
    """left: tokens in the bucket after it."""

    granted: bool
    left: float

    def wait_seconds(self, bucket: Bucket, cost: int) -> float:
        """-> until so many tokens are there."""
        return max(0.0, (min(cost, bucket.burst) - self.left) / bucket.per_second)


class LocalBuckets:
    """The same in memory. clock: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, float]] = {}

    def take(self, bucket: Bucket, cost: int) -> Grant:
        now = self._clock()
        tokens, at = self._held.get(bucket.name, (float(bucket.burst), now))
        tokens = min(bucket.burst, tokens + (now - at) * bucket.per_second)
        granted = tokens >= cost
        left = tokens - cost if granted else tokens
        self._held[bucket.name] = left, now
        return Grant(granted, left)


class SharedBuckets:
    """In Redis; each process for itself while that is away."""

    def __init__(self, redis: QuickRedis) -> None:
        self._redis, self._local = redis, LocalBuckets()
        self._asked: InBatches[tuple[Bucket, int], Grant] = InBatches(self._take)

    async def take(self, bucket: Bucket, cost: int) -> Grant:
        try:
            return await self._asked.ask((bucket, cost))
        except RedisAway:
            return self._local.take(bucket, cost)

    async def _take(self, asked: Sequence[tuple[Bucket, int]]) -> Sequence[Grant]:
        keys = [PREFIX + bucket.name for bucket, _ in asked]
        numbers: list[str | int | float] = []
        for bucket, cost in asked:
            numbers += (bucket.per_second, bucket.burst, cost)
        found = await self._redis.run(_TAKE, keys, numbers)
        return [Grant(bool(found[n]), float(found[n + 1])) for n in range(0, len(found), 2)]
