"""`ingest.blocks`: raw bytes of an object, cut at record ends. The value is the bytes; facts ride in headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from ingestcore.messages.objects import ObjectFacts

SEGMENT_BYTES = 4 << 20
"""`contentHash` of a row is the SHA-256 of the 4 MiB-aligned segment (of the decompressed object) it starts in."""


@dataclass(frozen=True, slots=True)
class Block:
    """Headers of one block.

    columns     header names in file order; empty: the dataset's dialect has no header
    number      0, 1, … within the object and pass
    first_row   1-based ordinal of its first record after header and skipped rows
    first_byte  offset of its first byte in the decompressed object
    last        nothing of this object follows
    segments    (segment number, SHA-256 hex) of each segment in which a record of this block starts, ascending
    """

    object: ObjectFacts
    columns: tuple[str, ...]
    number: int
    first_row: int
    first_byte: int
    last: bool
    segments: tuple[tuple[int, str], ...]

    def headers(self) -> dict[str, str]:
        return {
            "object": self.object.encode(),
            "dataset": self.object.dataset,
            "columns": orjson.dumps(self.columns).decode(),
            "block": str(self.number),
            "row": str(self.first_row),
            "byte": str(self.first_byte),
            "last": "1" if self.last else "0",
            "segments": orjson.dumps(self.segments).decode(),
        }

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Block:
        """Raises ValueError: a header is missing or unreadable."""
        try:
            return cls(
                object=ObjectFacts.decode(headers["object"]),
                columns=tuple(orjson.loads(headers["columns"])),
                number=int(headers["block"]),
                first_row=int(headers["row"]),
                first_byte=int(headers["byte"]),
                last=headers["last"] == "1",
                segments=tuple((int(n), str(digest)) for n, digest in orjson.loads(headers["segments"])),
            )
        except (KeyError, TypeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"not the headers of a block: {error!r}") from error

    def key(self) -> bytes:
        """-> object id + block number: the record key."""
        return bytes.fromhex(self.object.id) + self.number.to_bytes(4, "big")

    def partition(self, partitions: int) -> int:
        """Blocks of one object go round all partitions, so that one large object keeps every parser busy."""
        return (int(self.object.id[:8], 16) + self.number) % partitions
