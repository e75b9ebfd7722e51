"""The claim log: who writes which records of a partition, decided before anything is written.

One log per topic id and partition, outside the tables, below `_ingest/`.

    claims/<topic id>/<partition>/00000007.json       entry 7: the offsets it claims and the layout of their files
    claims/<topic id>/<partition>/00000007.done       its files are complete; lists them
    checkpoints/<topic id>/<partition>/99999935.json  what entries 0-63 amount to, all done; 64 counted down from
                                                      99,999,999, so that the newest is listed first

An entry is put only if it does not exist, and only by a writer that has read all entries before it and claims none of
their offsets. So entries never overlap, whoever writes them: an owner that was frozen, replaced and woken, or one that
an operator sent back to the start. The files of an entry follow from the entry and the records alone; they too are put
only if they do not exist, so any number of writers may finish the same entry. A recreated topic has another id.

Entries and marks stay for ever, though a checkpoint covers them: a writer that was frozen long ago must still find the
name of its next entry taken. Checkpoints may be deleted at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import orjson
import structlog

from ingestcore.stage import Gap
from ingestcore.stores.objects import Missing, ObjectStore, Refused, Unavailable
from services.parquet_sink.checkpoint import Checkpoint
from services.parquet_sink.claim import LETTERS, Claim, Layout, decode_ids
from services.parquet_sink.offsets import OffsetOwners, Offsets

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger(__name__)

CHECKPOINT_ENTRIES: Final = 64
"""Entries done since a checkpoint that make the next one: half an hour at one in thirty seconds."""

_DIGITS: Final = 8
_READERS: Final = 16
_FEW: Final = 4
"""So few entries are read one by one. Of a far store each takes tens of milliseconds, and a new owner reads them all
before it goes on."""
_PUT_ATTEMPTS: Final = 5


class ClaimLog:
    """One log as this process knows it. Not thread-safe. Every method may raise Unavailable or Refused.

    root       key prefix of claims and checkpoints, ends with `/`; place: `<topic id>/<partition>`
    log_start  first offset the topic's partition holds now; asked when a checkpoint is made, may raise Retriable
    """

    def __init__(
        self, store: ObjectStore, bucket: str, root: str, place: str, log_start: Callable[[], int] = lambda: 0
    ) -> None:
        self._store, self._bucket, self._log_start = store, bucket, log_start
        self._folder, self._checkpoints = f"{root}claims/{place}/", f"{root}checkpoints/{place}/"
        self._begin(Checkpoint.none())

    def _begin(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.claims: list[Claim] = []
        """The entries after the checkpoint."""
        self._owners = OffsetOwners()
        self._open: set[int] = set()
        self._facts: dict[int, dict[str, Any]] = {}

    @property
    def entries(self) -> int:
        """All there are, as far as this process has read."""
        return self.checkpoint.entries + len(self.claims)

    # -- reading
    def load(self) -> None:
        """Read the newest checkpoint and the entries after it. Raises Gap: an entry is missing."""
        self._begin(self._newest_checkpoint())
        self._read_entries()
        self._checkpoint_if_due()

    def _newest_checkpoint(self) -> Checkpoint:
        for entry in self._store.list(self._bucket, self._checkpoints):
            try:
                data = self._store.get(self._bucket, entry.key)
            except Missing:  # removed since it was listed
                continue
            return Checkpoint.decode(data, f"s3://{self._bucket}/{entry.key}")
        return Checkpoint.none()

    def _read_entries(self) -> None:
        first = self.entries
        after = self._key(first - 1, "json") if first else ""
        # Names of one folder are listed in order by every store.
        names = {e.key.removeprefix(self._folder) for e in self._store.list(self._bucket, self._folder, after)}
        entries = sorted(n for n in _numbers(names, "json") if n >= first)
        for expected, sequence in enumerate(entries, first):
            if expected != sequence:
                raise Gap(
                    f"claim log s3://{self._bucket}/{self._folder}: entry {expected:08}.json is missing while later "
                    "ones are there; restore it, else what it claimed would be written again"
                )
        for claim in side_by_side(self._read, entries):
            self._enter(claim)
        self._open -= _numbers(names, "done")
        self.read_on()

    def read_on(self) -> None:
        """Read the entries put since."""
        while True:
            try:
                claim = self._read(self.entries)
            except Missing:
                return
            self._enter(claim)

    def _read(self, sequence: int) -> Claim:
        key = self._key(sequence, "json")
        return Claim.decode(sequence, self._store.get(self._bucket, key), f"s3://{self._bucket}/{key}")

    def _enter(self, claim: Claim) -> None:
        other = self._owners.add(claim.sequence, claim.offsets)
        if other is not None or self.checkpoint.covered.overlap(claim.offsets):
            earlier = f"entry {other}" if other is not None else f"an entry before {self.checkpoint.entries}"
            raise Refused(
                f"claim log s3://{self._bucket}/{self._folder}: {earlier} and entry {claim.sequence} claim the same "
                "offsets; the store does not honour `If-None-Match: *`, or entries were edited"
            )
        self.claims.append(claim)
        self._open.add(claim.sequence)

    # -- asking
    def known_at(self, offset: int) -> Checkpoint:
        """-> a checkpoint that can speak of this offset. Where the topic's log has gone back behind what checkpoints
        keep (it was restored from a backup), all entries are read again."""
        if offset < self.checkpoint.floor:
            log.warning("an offset came back below the log's start, reading all claims", offset=offset)
            self._begin(Checkpoint.none())
            self._read_entries()
        return self.checkpoint

    def covering(self, offset: int) -> Claim | None:
        """-> the claim after the checkpoint that an offset belongs to; None: free, as far as this process has read."""
        owner = self._owners.of(offset)
        return None if owner is None else self.claims[owner - self.checkpoint.entries]

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
        first = self.checkpoint.entries
        return [claim for n in sorted(self._open) if not self.is_done(claim := self.claims[n - first])]

    def facts(self, sequence: int) -> dict[str, Any]:
        """What `finish` recorded of a done claim. An empty object (an operator accepted a loss) reads as no facts."""
        if sequence not in self._facts:
            data = self._store.get(self._bucket, self._key(sequence, "done"))
            self._facts[sequence] = dict(orjson.loads(data)) if data.strip() else {}
        return self._facts[sequence]

    def repeats(self, claim: Claim) -> Offsets:
        """-> offsets of a done claim whose letters are in its files once already."""
        return Offsets.stored(self.facts(claim.sequence).get("repeats", ()))

    def ids_since(self, sequence: int) -> Iterator[bytes]:
        """-> ids of the dead letters in done claims from this entry on, 16 bytes each, some claims at a time."""
        if sequence == 0:
            yield self.checkpoint.ids
            sequence = self.checkpoint.entries
        wanted = [n for n in range(sequence, self.entries) if n not in self._open]
        yield from side_by_side(lambda n: decode_ids(self.facts(n)), wanted)

    # -- writing
    def add(self, offsets: Iterable[int], layout: Layout) -> Claim | None:
        """Claim free offsets. -> the claim; None: another writer's entry came first and has been read, look again.

        Raises ValueError: an offset belongs to an entry already read.
        """
        claim = Claim(self.entries, Offsets.of(offsets), layout)
        taken = next((o for o in claim.offsets if self._owners.of(o) is not None), None)
        if taken is not None or self.checkpoint.covered.overlap(claim.offsets):
            raise ValueError(f"offset {claim.offsets.first if taken is None else taken} is claimed already")
        if not put_once(self._store, self._bucket, self._key(claim.sequence, "json"), claim.encode()):
            self.read_on()
            # Ours after all: the answer to an earlier attempt of the same put was lost.
            return claim if claim in self.claims else None
        self._enter(claim)
        return claim

    def finish(self, claim: Claim, facts: dict[str, Any]) -> None:
        """Say that the files of a claim are complete. The first one to say so is believed."""
        if put_once(self._store, self._bucket, self._key(claim.sequence, "done"), orjson.dumps(facts)):
            self._facts[claim.sequence] = facts
        self._open.discard(claim.sequence)
        self._checkpoint_if_due()

    def _checkpoint_if_due(self) -> None:
        """Sum up the entries before the first that is not done, once they are many. Whoever gets there first writes
        it; two that are made for the same entries differ at most in what has left the topic since."""
        end = min(self._open, default=self.entries)
        if end - self.checkpoint.entries < CHECKPOINT_ENTRIES:
            return
        summed = self.claims[: end - self.checkpoint.entries]
        letters = [claim for claim in summed if claim.layout.source == LETTERS]
        # Read side by side, then found in memory.
        ids = list(side_by_side(lambda claim: decode_ids(self.facts(claim.sequence)), letters))
        checkpoint = self.checkpoint.plus(
            end, (claim.offsets for claim in summed), map(self.repeats, letters), ids, self._log_start()
        )
        put_once(self._store, self._bucket, self._checkpoint_key(end), checkpoint.encode())
        self._stand_on(checkpoint)

    def _stand_on(self, checkpoint: Checkpoint) -> None:
        """Let go of what the checkpoint says."""
        later = self.claims[checkpoint.entries - self.checkpoint.entries :]
        self.checkpoint, self.claims, self._owners = checkpoint, later, OffsetOwners()
        for claim in later:
            self._owners.add(claim.sequence, claim.offsets)
        self._facts = {n: facts for n, facts in self._facts.items() if n >= checkpoint.entries}

    def name(self, claim: Claim) -> str:
        """-> where a claim stands, for messages."""
        return f"s3://{self._bucket}/{self._key(claim.sequence, 'json')}"

    def _key(self, sequence: int, kind: str) -> str:
        return f"{self._folder}{sequence:08}.{kind}"

    def _checkpoint_key(self, entries: int) -> str:
        return f"{self._checkpoints}{10**_DIGITS - 1 - entries:08}.json"


def _numbers(names: Iterable[str], kind: str) -> set[int]:
    """-> sequence numbers in file names of one kind; foreign files do not count."""
    stems = (name.removesuffix(f".{kind}") for name in names if name.endswith(f".{kind}"))
    return {int(stem) for stem in stems if len(stem) == _DIGITS and stem.isdigit()}


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
