"""The claim log: who writes which records of a partition, decided before anything is written.

One log per topic id and partition, outside the tables: `_ingest/claims/<topic id>/<partition>/`.

    00000007.json        entry 7: the offsets it claims and the layout of their files
    00000007.done        its files are complete; lists them
    packs/00000000.json  entries 0-255, all done, in one object, and
    packs/00000000.ids   the ids of their dead letters: a log of weeks is read in seconds

An entry is put only if it does not exist, and only by a writer that has read all entries before it and claims none of
their offsets. So entries never overlap, whoever writes them: an owner that was frozen, replaced and woken, or one that
an operator sent back to the start. The files of an entry follow from the entry and the records alone; they too are put
only if they do not exist, so any number of writers may finish the same entry. A recreated topic has another id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any, Final, TypeVar

import orjson

from ingestcore.stage import Gap
from ingestcore.stores.objects import Missing, ObjectStore, Refused, Unavailable
from services.parquet_sink.claim import LETTERS, PACK_ENTRIES, Claim, Layout, decode_ids, encode_pack
from services.parquet_sink.offsets import OffsetOwners, Offsets

T = TypeVar("T")
R = TypeVar("R")

_DIGITS: Final = 8
_READERS: Final = 16
_FEW: Final = 32
"""So few entries are read sooner than threads are started."""
_PUT_ATTEMPTS: Final = 5


class ClaimLog:
    """One log as this process knows it. Not thread-safe. Every method may raise Unavailable or Refused.

    folder  key prefix, ends with `/`
    """

    def __init__(self, store: ObjectStore, bucket: str, folder: str) -> None:
        self._store, self._bucket, self._folder = store, bucket, folder
        self.claims: list[Claim] = []
        self._owners = OffsetOwners()
        self._open: set[int] = set()
        self._packed: set[int] = set()

    # -- reading
    def load(self) -> None:
        """Read the whole log: packs, then the entries after them. Raises Gap: an entry is missing."""
        self._load_packs()
        packed = len(self.claims)
        # Names of one folder are listed in order by every store; the entries packed need not be listed again.
        after = f"{self._key(packed - 1, 'json')}" if packed else ""
        listed = self._store.list(self._bucket, self._folder, start_after=after)
        names = {name for entry in listed if "/" not in (name := entry.key.removeprefix(self._folder))}
        entries = sorted(n for n in _numbers(names, "json") if n >= packed)
        for expected, sequence in enumerate(entries, packed):
            if expected != sequence:
                raise Gap(
                    f"claim log s3://{self._bucket}/{self._folder}: entry {expected:08}.json is missing while later "
                    "ones are there; restore it, else what it claimed would be written again"
                )
        for claim in side_by_side(self._read, entries):
            self._enter(claim)
        self._open -= _numbers(names, "done")
        self.read_on()
        for block in range(packed // PACK_ENTRIES, len(self.claims) // PACK_ENTRIES):
            self._pack(block)

    def _load_packs(self) -> None:
        folder = f"{self._folder}packs/"
        names = {entry.key.removeprefix(folder) for entry in self._store.list(self._bucket, folder)}
        blocks = [n for position, n in enumerate(sorted(_numbers(names, "json"))) if n == position]
        for claims in side_by_side(self._read_pack, blocks):
            for claim in claims:
                self._enter(claim)
        self._open.clear()
        self._packed = set(blocks)

    def _read_pack(self, block: int) -> list[Claim]:
        key = self._pack_key(block)
        return Claim.decode_pack(block, self._store.get(self._bucket, key), f"s3://{self._bucket}/{key}")

    def _pack(self, block: int) -> None:
        """Gather a block of entries once all are done. They never change, so anybody writes the same."""
        claims = self.claims[block * PACK_ENTRIES : (block + 1) * PACK_ENTRIES]
        if block in self._packed or len(claims) < PACK_ENTRIES or any(c.sequence in self._open for c in claims):
            return
        if any(claim.layout.source == LETTERS for claim in claims):
            self._ids_of_block(block)
        put_once(self._store, self._bucket, self._pack_key(block), encode_pack(claims))
        self._packed.add(block)

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

    def ids_of(self, claims: Sequence[Claim]) -> Iterator[bytes]:
        """-> ids of the dead letters in these done claims, 16 bytes each, some claims at a time. Those of a whole block
        are put into one object beside its pack."""
        blocks, others = list[int](), list[Claim]()
        for n, group in groupby(claims, key=lambda claim: claim.sequence // PACK_ENTRIES):
            members = list(group)
            if len(members) == PACK_ENTRIES:
                blocks.append(n)
            else:
                others += members
        yield from map(self._ids_of_block, blocks)
        yield from side_by_side(lambda claim: decode_ids(self.facts(claim)), others)

    def _ids_of_block(self, block: int) -> bytes:
        key = f"{self._folder}packs/{block:08}.ids"
        try:
            return self._store.get(self._bucket, key)
        except Missing:
            claims = self.claims[block * PACK_ENTRIES : (block + 1) * PACK_ENTRIES]
            ids = b"".join(side_by_side(lambda claim: decode_ids(self.facts(claim)), claims))
            put_once(self._store, self._bucket, key, ids)
            return ids

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
        self._pack(claim.sequence // PACK_ENTRIES)

    def name(self, claim: Claim) -> str:
        """-> where a claim stands, for messages."""
        return f"s3://{self._bucket}/{self._key(claim.sequence, 'json')}"

    def _key(self, sequence: int, kind: str) -> str:
        return f"{self._folder}{sequence:08}.{kind}"

    def _pack_key(self, block: int) -> str:
        return f"{self._folder}packs/{block:08}.json"


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
