"""Which events are being stored, and which are: in Redis, `ingest_idempotency:<source>:<key>`.

A value is `P <fingerprint> <owner>` while an event is on its way (it expires soon, so that a crash swallows none) and
`D <fingerprint> <event id>` once Kafka has it. An event may have several keys; the first that is known decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from ingestcore.stores.in_batches import InBatches
from ingestcore.stores.quick_redis import QuickRedis

PREFIX: Final = "ingest_idempotency:"

_AT_ONCE: Final = 1_000
"""Events of one call of a script: Redis does nothing else meanwhile."""

# Arguments of all three: how many keys each event has, one digit each; then for each event a value and milliseconds.
_CLAIM: Final = """
local counts, out, k = ARGV[1], {}, 1
for i = 1, #counts do
  local last, found = k + counts:byte(i) - 49, false
  for j = k, last do
    found = redis.call('GET', KEYS[j])
    if found then break end
  end
  if not found then
    for j = k, last do redis.call('SET', KEYS[j], ARGV[2 * i], 'PX', ARGV[2 * i + 1]) end
  end
  out[i], k = found or '', last + 1
end
return out
"""

_DONE: Final = """
local counts, k = ARGV[1], 1
for i = 1, #counts do
  local last = k + counts:byte(i) - 49
  for j = k, last do redis.call('SET', KEYS[j], ARGV[2 * i], 'PX', ARGV[2 * i + 1]) end
  k = last + 1
end
"""

_RELEASE: Final = """
local counts, k = ARGV[1], 1
for i = 1, #counts do
  local last = k + counts:byte(i) - 49
  for j = k, last do
    if redis.call('GET', KEYS[j]) == ARGV[2 * i] then redis.call('DEL', KEYS[j]) end
  end
  k = last + 1
end
"""


class Claim(NamedTuple):
    """What an event is known by: 1 to 9 keys, and the fingerprint of its body."""

    keys: tuple[str, ...]
    fingerprint: str


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
    """Of one process. Events that come together are asked for together; everything raises RedisAway."""

    def __init__(self, redis: QuickRedis, lease_seconds: float) -> None:
        """lease_seconds: how long a claim lasts that nobody finishes."""
        self._redis, self._lease_ms = redis, int(lease_seconds * 1000)
        # One lane each: while an answer is awaited many gather, and each question costs more than an event in it.
        self._claims: InBatches[Sequence[_Entry], Sequence[bytes]] = InBatches(self._claim, lanes=1)
        self._ends: InBatches[tuple[str, Sequence[_Entry]], None] = InBatches(self._end, lanes=1)

    async def claim(self, claims: Sequence[Claim], owner: str) -> Sequence[Held | None]:
        """-> of each, None: it is ours now; else who has one of its keys. owner: unique per call."""
        mine = [f"P {fingerprint} {owner}" for _, fingerprint in claims]
        entries = [_Entry(claim.keys, value, self._lease_ms) for claim, value in zip(claims, mine, strict=True)]
        answers = await self._claims.ask(entries)
        return [_held(found, value) if found else None for found, value in zip(answers, mine, strict=True)]

    def done(self, claims: Sequence[tuple[Claim, str]], seconds: float) -> asyncio.Future[None]:
        """Kafka has them: remember each one's event id."""
        milliseconds = int(seconds * 1000)
        entries = [_Entry(keys, f"D {print_} {event_id}", milliseconds) for (keys, print_), event_id in claims]
        return self._ends.ask((_DONE, entries))

    def release(self, claims: Sequence[Claim], owner: str) -> asyncio.Future[None]:
        """They were not stored: whoever posts them again is the first."""
        entries = [_Entry(keys, f"P {fingerprint} {owner}", 0) for keys, fingerprint in claims]
        return self._ends.ask((_RELEASE, entries))

    async def finish(self) -> None:
        await self._ends.finish()

    async def _claim(self, asked: Sequence[Sequence[_Entry]]) -> Sequence[Sequence[bytes]]:
        found = iter(await self._run(_CLAIM, [entry for entries in asked for entry in entries]))
        return [[next(found) for _ in entries] for entries in asked]

    async def _end(self, ends: Sequence[tuple[str, Sequence[_Entry]]]) -> Sequence[None]:
        for script in (_DONE, _RELEASE):
            await self._run(script, [entry for wanted, entries in ends if wanted is script for entry in entries])
        return [None] * len(ends)

    async def _run(self, script: str, entries: Sequence[_Entry]) -> list[bytes]:
        answers: list[bytes] = []
        for first in range(0, len(entries), _AT_ONCE):
            answers += await self._run_once(script, entries[first : first + _AT_ONCE]) or []
        return answers

    async def _run_once(self, script: str, entries: Iterable[_Entry]) -> list[bytes]:
        keys: list[str] = []
        counts: list[str] = []
        arguments: list[str | int | float] = [""]
        for own, value, milliseconds in entries:
            keys += own
            counts.append(str(len(own)))
            arguments += (value, milliseconds)
        arguments[0] = "".join(counts)
        found: list[bytes] = await self._redis.run(script, keys, arguments)
        return found


def _held(found: bytes, mine: str) -> Held | None:
    text = found.decode()
    if text == mine:
        return None
    state, _, rest = text.partition(" ")
    known, _, name = rest.partition(" ")
    return Held(known, name if state == "D" else "")
