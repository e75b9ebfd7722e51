"""Which events are being stored, and which are: in Redis, `ingest_idempotency:<source>:<key>`.

A value is `P <fingerprint> <owner>` while an event is on its way (it expires soon, so that a crash swallows none) and
`D <fingerprint> <event id>` once Kafka has it. An event may have several keys; the first that is known decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ingestcore.stores.in_batches import InBatches
from ingestcore.stores.quick_redis import QuickRedis

PREFIX: Final = "ingest_idempotency:"

_CLAIM: Final = """
local out, k, a = {}, 1, 1
while a <= #ARGV do
  local n, found = tonumber(ARGV[a]), false
  for j = k, k + n - 1 do
    found = redis.call('GET', KEYS[j])
    if found then break end
  end
  if not found then
    for j = k, k + n - 1 do redis.call('SET', KEYS[j], ARGV[a + 1], 'PX', ARGV[a + 2]) end
  end
  out[#out + 1] = found or ''
  k, a = k + n, a + 3
end
return out
"""

_DONE: Final = """
local k, a = 1, 1
while a <= #ARGV do
  local n = tonumber(ARGV[a])
  for j = k, k + n - 1 do redis.call('SET', KEYS[j], ARGV[a + 1], 'PX', ARGV[a + 2]) end
  k, a = k + n, a + 3
end
"""

_RELEASE: Final = """
local k, a = 1, 1
while a <= #ARGV do
  local n = tonumber(ARGV[a])
  for j = k, k + n - 1 do
    if redis.call('GET', KEYS[j]) == ARGV[a + 1] then redis.call('DEL', KEYS[j]) end
  end
  k, a = k + n, a + 3
end
"""


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a key. event_id: "" while the event is still on its way."""

    fingerprint: str
    event_id: str

    @property
    def is_done(self) -> bool:
        return self.event_id != ""


class _Entry(NamedTuple):
    keys: tuple[str, ...]
    value: str
    milliseconds: int


class Claims:
    """Of one process. Everything raises RedisAway."""

    def __init__(self, redis: QuickRedis, lease_seconds: float) -> None:
        """lease_seconds: how long a claim lasts that nobody finishes."""
        self._redis, self._lease_ms = redis, int(lease_seconds * 1000)
        self._claims: InBatches[_Entry, str] = InBatches(self._claim)
        self._ends: InBatches[tuple[str, _Entry], None] = InBatches(self._end)

    async def claim(self, keys: tuple[str, ...], fingerprint: str, owner: str) -> Held | None:
        """-> None: they are ours now; else who has one of them. owner: unique per request."""
        mine = f"P {fingerprint} {owner}"
        found = await self._claims.ask(_Entry(keys, mine, self._lease_ms))
        if not found or found == mine:
            return None
        state, _, rest = found.partition(" ")
        known, _, name = rest.partition(" ")
        return Held(known, name if state == "D" else "")

    async def done(self, keys: tuple[str, ...], fingerprint: str, event_id: str, seconds: float) -> None:
        """Kafka has it: remember the answer."""
        await self._ends.ask((_DONE, _Entry(keys, f"D {fingerprint} {event_id}", int(seconds * 1000))))

    async def release(self, keys: tuple[str, ...], fingerprint: str, owner: str) -> None:
        """It was not stored: whoever posts it again is the first."""
        await self._ends.ask((_RELEASE, _Entry(keys, f"P {fingerprint} {owner}", 0)))

    async def finish(self) -> None:
        await self._ends.finish()

    async def _claim(self, entries: Sequence[_Entry]) -> Sequence[str]:
        return [answer.decode() for answer in await self._run(_CLAIM, entries)]

    async def _end(self, ends: Sequence[tuple[str, _Entry]]) -> Sequence[None]:
        for script in (_DONE, _RELEASE):
            entries = [entry for wanted, entry in ends if wanted is script]
            if entries:
                await self._run(script, entries)
        return [None] * len(ends)

    async def _run(self, script: str, entries: Iterable[_Entry]) -> list[bytes]:
        keys: list[str] = []
        arguments: list[str | int | float] = []
        for entry in entries:
            keys += entry.keys
            arguments += (len(entry.keys), entry.value, entry.milliseconds)
        return await self._redis.run(script, keys, arguments) or []
