"""The claim log: who writes which records of a partition, decided before anything is written.

One log per topic id and partition, outside the tables: `_ingest/claims/<topic id>/<partition>/`.

    00000007.json   entry 7: the offsets it claims and the layout of their files
    00000007.done   its files are complete; lists them

An entry is put only if it does not exist, and only by a writer that has read all entries before it and claims none of
their offsets. So entries never overlap, whoever writes them: an owner that was frozen, replaced and woken, or one that
an operator sent back to the start. The files of an entry follow from the entry and the records alone; they too are put
only if they do not exist, so any number of writers may finish the same entry. A recreated topic has another id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeVar

import orjson

from ingestcore.stage import Gap, NewerFormat
from ingestcore.stores.objects import Missing, ObjectStore, Refused, Unavailable
from services.parquet_sink.offsets import OffsetOwners, Offsets

T = TypeVar("T")
R = TypeVar("R")

LAYOUT_FORMAT: Final = 1
"""Version of what a claim says and of the files it leads to."""

_READERS: Final = 16
_FEW: Final = 32
"""So few entries are read sooner than threads are started."""
_PUT_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """How the files of a claim are made, whatever the settings are by the time they are made.

    uri         of the sink; batch_size: rows per row group
    sink        its name; source: the logical topic, `normalized` or `dlq`
    """

    uri: str
    batch_size: int
    sink: str
    source: str
    format: int = LAYOUT_FORMAT


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry. `offsets` names every record: transaction markers, inputs of no interest to the sink and inputs that
    were dead-lettered instead lie in between and belong to nobody."""

    sequence: int
    offsets: Offsets
    layout: Layout

    def encode(self) -> bytes:
        return orjson.dumps(
            {
                "first": self.offsets.first,
                "last": self.offsets.last,
                "offsets": self.offsets.runs,
                "layout": asdict(self.layout),
            }
        )

    @classmethod
    def decode(cls, sequence: int, data: bytes, where: str) -> Claim:
        """Raises NewerFormat; Refused: not a claim (somebody else wrote here)."""
        try:
            stored: dict[str, Any] = orjson.loads(data)
            version = int(stored["layout"]["format"])
            if version > LAYOUT_FORMAT:
                raise NewerFormat(f"{where} has format {version}, this service reads up to {LAYOUT_FORMAT}: upgrade it")
            return cls(sequence, Offsets.stored(stored["offsets"]), Layout(**stored["layout"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(
                f"{where} is not a claim ({error!r}): restore it from the bucket's versions or a backup; rows are "
                "written twice if it is merely deleted"
            ) from error


class ClaimLog:
    """One log as this process knows it. Not thread-safe. Every method may raise Unavailable or Refused.

    folder  key prefix, ends with `/`
    """

    def __init__(self, store: ObjectStore, bucket: str, folder: str) -> None:
        self._store, self._bucket, self._folder = store, bucket, folder
        self.claims: list[Claim] = []
        self._owners = OffsetOwners()
        self._open: set[int] = set()

    # -- reading
    def load(self) -> None:
        """Read the whole log: one listing, then the entries side by side. Raises Gap: an entry is missing."""
        names = {entry.key.removeprefix(self._folder) for entry in self._store.list(self._bucket, self._folder)}
        entries = sorted(int(name[:-5]) for name in names if name.endswith(".json"))
        for position, sequence in enumerate(entries):
            if position != sequence:
                raise Gap(
                    f"claim log s3://{self._bucket}/{self._folder}: entry {position:08}.json is missing while later "
                    "ones are there; restore it, else what it claimed would be written again"
                )
        for claim in side_by_side(self._read, entries[len(self.claims) :]):
            self._enter(claim)
        self._open -= {int(name[:-5]) for name in names if name.endswith(".done")}
        self.read_on()

    def read_on(self) -> None:
        """Read the entries put since."""
        while True:
            try:
                claim = self._read(len(self.claims))
            except Missing:
                return
            self._enter(claim)

    def _read(self, sequence: int) -> Claim:
        key = self._key(sequence, "json")
        return Claim.decode(sequence, self._store.get(self._bucket, key), f"s3://{self._bucket}/{key}")

    def _enter(self, claim: Claim) -> None:
        other = self._owners.add(claim.sequence, claim.offsets)
        if other is not None:
            raise Refused(
                f"claim log s3://{self._bucket}/{self._folder}: entries {other} and {claim.sequence} claim the same "
                "offsets; the store does not honour `If-None-Match: *`, or entries were edited"
            )
        self.claims.append(claim)
        self._open.add(claim.sequence)

    # -- asking
    def covering(self, offset: int) -> Claim | None:
        """-> the claim an offset belongs to; None: free, as far as this process has read."""
        owner = self._owners.of(offset)
        return None if owner is None else self.claims[owner]

    def is_done(self, claim: Claim) -> bool:
        """Are its files complete? Asks the store once more when not known to be."""
        if claim.sequence in self._open:
            try:
                self._store.get(self._bucket, self._key(claim.sequence, "done"))
            except Missing:
                return False
            self._open.discard(claim.sequence)
        return True

    def unfinished(self) -> list[Claim]:
        """-> claims whose files nobody has reported complete, oldest first."""
        return [claim for n in sorted(self._open) if not self.is_done(claim := self.claims[n])]

    def facts(self, claim: Claim) -> dict[str, Any]:
        """What `finish` recorded. An empty object (an operator accepted a loss) reads as no facts."""
        data = self._store.get(self._bucket, self._key(claim.sequence, "done"))
        return dict(orjson.loads(data)) if data.strip() else {}

    # -- writing
    def add(self, offsets: Iterable[int], layout: Layout) -> Claim | None:
        """Claim free offsets. -> the claim; None: another writer's entry came first and has been read, look again.

        Raises ValueError: an offset belongs to an entry already read.
        """
        claim = Claim(len(self.claims), Offsets.of(offsets), layout)
        taken = next((o for o in claim.offsets if self._owners.of(o) is not None), None)
        if taken is not None:
            raise ValueError(f"offset {taken} is claimed already")
        if not put_once(self._store, self._bucket, self._key(claim.sequence, "json"), claim.encode()):
            self.read_on()
            # Ours after all: the answer to an earlier attempt of the same put was lost.
            return claim if self.claims[claim.sequence :][:1] == [claim] else None
        self._enter(claim)
        return claim

    def finish(self, claim: Claim, facts: dict[str, Any]) -> None:
        """Say that the files of a claim are complete. The first one to say so is believed."""
        put_once(self._store, self._bucket, self._key(claim.sequence, "done"), orjson.dumps(facts))
        self._open.discard(claim.sequence)

    def name(self, claim: Claim) -> str:
        """-> where a claim stands, for messages."""
        return f"s3://{self._bucket}/{self._key(claim.sequence, 'json')}"

    def _key(self, sequence: int, kind: str) -> str:
        return f"{self._folder}{sequence:08}.{kind}"


def side_by_side(read: Callable[[T], R], wanted: Sequence[T]) -> Iterator[R]:
    """-> what many small reads give, in order."""
    if len(wanted) <= _FEW:
        yield from map(read, wanted)
        return
    with ThreadPoolExecutor(_READERS, "claims") as readers:
        yield from readers.map(read, wanted)


def put_once(store: ObjectStore, bucket: str, key: str, data: Any) -> bool:
    """`put_new`, and the key is there afterwards for certain. -> written by this call?

    A refused conditional write need not mean that the key exists: two at once can be answered with a conflict, and the
    other one fail after that.
    """
    for _ in range(_PUT_ATTEMPTS):
        if store.put_new(bucket, key, data):
            return True
        if any(entry.key == key for entry in store.list(bucket, key)):
            return False
    raise Unavailable(f"s3://{bucket}/{key} is refused as existing and does not exist: trying again")
