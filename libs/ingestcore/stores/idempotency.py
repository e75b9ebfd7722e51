"""Which events are being stored, and which are: in Redis, `ingest_idempotency:<source>:<key>`.

A value is `P <fingerprint> <owner>` while an event is on its way (it expires soon, so that a crash swallows none) and
`D <fingerprint> <event id>` once Kafka has it. An event may have several keys; the first that is known decides.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from ingestcore.stores.in_batches import InBatches
from ingestcore.stores.quick_redis import QuickRedis

PREFIX: Final = "ingest_idempotency:"

_AT_ONCE: Final = 1_000
"""Events of one call of a script: Redis does nothing else meanwhile."""

_PAUSE_SECONDS: Final = 0.02
"""What is done is told after this long: no answer waits for it, and a crash before it only has a repeat stored twice,
of which the normalizer drops one."""

# Arguments of all three: how many keys each event has, one digit each; milliseconds; then for each event a value.
_CLAIM: Final = """
local counts, out, k = ARGV[1], {}, 1
for i = 1, #counts do
  local last, found = k + counts:byte(i) - 49, false
  for j = k, last do
    found = redis.call('GET', KEYS[j])
    if found then break end
  end
  if not found then
    for j = k, last do redis.call('SET', KEYS[j], ARGV[i + 2], 'PX', ARGV[2]) end
  end
  out[i], k = found or '', last + 1
end
return out
"""

_DONE: Final = """
local counts, k = ARGV[1], 1
for i = 1, #counts do
  local last = k + counts:byte(i) - 49
  for j = k, last do redis.call('SET', KEYS[j], ARGV[i + 2], 'PX', ARGV[2]) end
  k = last + 1
end
"""

_RELEASE: Final = """
local counts, k = ARGV[1], 1
for i = 1, #counts do
  local last = k + counts:byte(i) - 49
  for j = k, last do
    if redis.call('GET', KEYS[j]) == ARGV[i + 2] then redis.call('DEL', KEYS[j]) end
  end
  k = last + 1
end
"""


class Claim(Protocol):
    """What an event is known by: 1 to 9 keys, and the fingerprint of its body."""

    @property
    def keys(self) -> Sequence[str]: ...

    @property
    def fingerprint(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Held:
    """What is known of a key. event_id: "" while the event is still on its way."""

    fingerprint: str
    event_id: str

    @property
    def is_done(self) -> bool:
        return self.event_id != ""


class _Ask(NamedTuple):
    """Events that came together. values: what each one's keys are set to, or must hold."""

    script: str
    claims: Sequence[Claim]
    values: Sequence[str]
    milliseconds: int = 0


class Claims:
    """Of one process. Events that come together are asked for together; everything raises RedisAway."""

    def __init__(self, redis: QuickRedis, lease_seconds: float) -> None:
        """lease_seconds: how long a claim lasts that nobody finishes."""
        self._redis, self._lease_ms = redis, int(lease_seconds * 1000)
        # One lane each: while an answer is awaited many gather, and each question costs more than an event in it.
        self._claims: InBatches[_Ask, Sequence[bytes]] = InBatches(self._run, lanes=1)
        self._ends: InBatches[_Ask, Sequence[bytes]] = InBatches(self._run, lanes=1, pause_seconds=_PAUSE_SECONDS)

    async def claim(self, claims: Sequence[Claim], owner: str) -> Sequence[Held | None]:
        """-> of each, None: it is ours now; else who has one of its keys. owner: unique per call."""
        mine = [f"P {claim.fingerprint} {owner}" for claim in claims]
        answers = await self._claims.ask(_Ask(_CLAIM, claims, mine, self._lease_ms))
        return [_held(found, value) if found else None for found, value in zip(answers, mine, strict=True)]

    def done(self, claims: Sequence[Claim], event_ids: Sequence[str], seconds: float) -> asyncio.Future[Any]:
        """Kafka has them: remember each one's event id."""
        told = [f"D {claim.fingerprint} {event_id}" for claim, event_id in zip(claims, event_ids, strict=True)]
        return self._ends.ask(_Ask(_DONE, claims, told, int(seconds * 1000)))

    def release(self, claims: Sequence[Claim], owner: str) -> asyncio.Future[Any]:
        """They were not stored: whoever posts them again is the first."""
        return self._ends.ask(_Ask(_RELEASE, claims, [f"P {claim.fingerprint} {owner}" for claim in claims]))

    async def finish(self) -> None:
        await self._ends.finish()

    async def _run(self, asked: Sequence[_Ask]) -> Sequence[Sequence[bytes]]:
        """What is of one kind goes to Redis as one, in pieces of a bearable size."""
        answers: list[Sequence[bytes]] = [()] * len(asked)
        for kind in dict.fromkeys((ask.script, ask.milliseconds) for ask in asked):
            places = [place for place, ask in enumerate(asked) if (ask.script, ask.milliseconds) == kind]
            claims = [claim for place in places for claim in asked[place].claims]
            values = [value for place in places for value in asked[place].values]
            found: list[bytes] = []
            for first in range(0, len(claims), _AT_ONCE):
                end = first + _AT_ONCE
                found += await self._call(*kind, claims[first:end], values[first:end])
            if found:
                told = iter(found)
                for place in places:
                    answers[place] = list(itertools.islice(told, len(asked[place].claims)))
        return answers

    async def _call(
        self, script: str, milliseconds: int, claims: Sequence[Claim], values: Sequence[str]
    ) -> Sequence[bytes]:
        keys = [key for claim in claims for key in claim.keys]
        counts = "".join([str(len(claim.keys)) for claim in claims])
        return await self._redis.run(script, keys, [counts, milliseconds, *values]) or ()


def _held(found: bytes, mine: str) -> Held | None:
    text = found.decode()
    if text == mine:
        return None
    state, _, rest = text.partition(" ")
    known, _, name = rest.partition(" ")
    return Held(known, name if state == "D" else "")
