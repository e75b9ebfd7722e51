"""`ingest.ledger`: what became of every row. One message per commit, stage and origin; the key is the origin's id.

An entry is a fact about one delivery of one input to one stage and balances alone. Facts are never added up blindly:
the audit keys them by (stage, topic id, partition, offset) and knows deliveries apart by `pass_id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from ingestcore.stage import Fate, Origin


@dataclass(frozen=True, slots=True)
class Entry:
    """What one delivery of one input did for one origin, between two commits.

    topic_id, partition, offset  the input; a Source: its name, 0, sequence
    pass_id     of this delivery: a fresh id for each time an input is started anew; the same while it is resumed
    upstream    pass id its producer wrote into the header `pass`, or "" (blocks carry the downloader's)
    sequence    number of this entry within the pass: 0, 1, … (long inputs commit many)
    last        the input is finished by this commit
    fates       fate -> (rows, bytes)
    runs        of a topic whose messages are one row each: the entry speaks of many inputs of the partition, all
                finished, all with the one fate of `fates`. First and last offset of each run, ascending; `offset` is
                the first, `pass_id` that input's
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    pass_id: str
    upstream: str
    sequence: int
    last: bool
    fates: Mapping[Fate, tuple[int, int]]
    runs: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """Value of one ledger message. `instance`: the sink's name for sinks, else the service's."""

    stage: str
    instance: str
    replica: str
    origin: Origin
    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "stage": self.stage,
                "instance": self.instance,
                "replica": self.replica,
                "origin": self.origin._asdict(),
                "entries": [
                    {
                        "topic": e.topic,
                        "topic_id": e.topic_id,
                        "partition": e.partition,
                        "offset": e.offset,
                        "pass": e.pass_id,
                        "upstream": e.upstream,
                        "sequence": e.sequence,
                        "last": e.last,
                        "fates": {fate.value: list(amount) for fate, amount in e.fates.items()},
                        **({"runs": e.runs} if e.runs else {}),
                    }
                    for e in self.entries
                ],
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> LedgerRecord:
        """Raises ValueError: not a ledger record."""
        try:
            stored: dict[str, Any] = orjson.loads(value)
            entries = tuple(
                Entry(
                    topic=e["topic"],
                    topic_id=e["topic_id"],
                    partition=e["partition"],
                    offset=e["offset"],
                    pass_id=e["pass"],
                    upstream=e["upstream"],
                    sequence=e["sequence"],
                    last=e["last"],
                    fates={Fate(fate): (rows, size) for fate, (rows, size) in e["fates"].items()},
                    runs=tuple((first, final) for first, final in e.get("runs", ())),
                )
                for e in stored["entries"]
            )
            origin = Origin(**stored["origin"])
            return cls(stored["stage"], stored["instance"], stored["replica"], origin, entries)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not a ledger record: {error!r}") from error
