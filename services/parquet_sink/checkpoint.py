"""What a long claim log amounts to: the offsets its first entries claim, all of them done. Pure.

A checkpoint is a summary, never the truth: it holds for whoever reads it at any time, since entries are never changed
or removed, and a log is the same log without it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ingestcore.stage import NewerFormat
from ingestcore.stores.objects import Refused
from services.parquet_sink.offsets import ManyOffsets, Offsets

CHECKPOINT_FORMAT: Final = 1

ID_BYTES: Final = 16
"""Of a dead letter."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The first `entries` entries of a log.

    covered  the offsets they claim, from `floor` on
    repeats  those of them that hold a dead letter which is in the range's files once already
    floor    where the topic's log began: nothing below it is delivered any more, and nothing below it is kept here
    ids      of the dead letters written, one after the other: a letter may come again at any offset
    """

    entries: int
    floor: int
    covered: ManyOffsets
    repeats: ManyOffsets
    ids: bytes

    @classmethod
    def none(cls) -> Checkpoint:
        return cls(0, 0, ManyOffsets.none(), ManyOffsets.none(), b"")

    def plus(
        self, entries: int, claimed: Iterable[Offsets], repeats: Iterable[Offsets], ids: Iterable[bytes], floor: int
    ) -> Checkpoint:
        """-> of so many entries, given what the further ones claim and wrote."""
        floor = max(floor, self.floor)
        covered, repeated = self.covered.plus(claimed), self.repeats.plus(repeats)
        return Checkpoint(entries, floor, covered.since(floor), repeated.since(floor), b"".join((self.ids, *ids)))

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "format": CHECKPOINT_FORMAT,
                "entries": self.entries,
                "floor": self.floor,
                "covered": _text(self.covered.encode()),
                "repeats": _text(self.repeats.encode()),
                "ids": _text(self.ids),
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Checkpoint:
        """Raises NewerFormat; Refused: not a checkpoint (somebody else wrote here)."""
        try:
            stored: dict[str, Any] = orjson.loads(data)
            if int(stored["format"]) > CHECKPOINT_FORMAT:
                raise NewerFormat(
                    f"{where} has format {stored['format']}, this service reads up to {CHECKPOINT_FORMAT}: upgrade it"
                )
            covered, repeats, ids = (base64.b64decode(stored[name]) for name in ("covered", "repeats", "ids"))
            if len(ids) % ID_BYTES:
                raise ValueError(f"{len(ids)} bytes of ids")
            return cls(
                int(stored["entries"]),
                int(stored["floor"]),
                ManyOffsets.decode(covered),
                ManyOffsets.decode(repeats),
                ids,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(
                f"{where} is not a checkpoint ({error!r}): delete it, the entries of the log are read instead"
            ) from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
