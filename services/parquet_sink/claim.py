"""One entry of the claim log, alone or packed with others. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from ingestcore.stage import NewerFormat
from ingestcore.stores.objects import Refused
from services.parquet_sink.offsets import Offsets

LAYOUT_FORMAT: Final = 1
"""Version of what a claim says and of the files it leads to."""

LETTERS: Final = "dlq"
"""Source of dead letters, as a sink's `from:` says it."""

PACK_ENTRIES: Final = 256
"""Entries of one pack."""


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

    def stored(self) -> dict[str, Any]:
        return {
            "first": self.offsets.first,
            "last": self.offsets.last,
            "offsets": self.offsets.runs,
            "layout": asdict(self.layout),
        }

    def encode(self) -> bytes:
        return orjson.dumps(self.stored())

    @classmethod
    def decode(cls, sequence: int, data: bytes, where: str) -> Claim:
        """Raises NewerFormat; Refused: not a claim (somebody else wrote here)."""
        try:
            return cls._of(sequence, orjson.loads(data), where)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(where, error) from error

    @classmethod
    def _of(cls, sequence: int, stored: dict[str, Any], where: str) -> Claim:
        version = int(stored["layout"]["format"])
        if version > LAYOUT_FORMAT:
            raise NewerFormat(f"{where} has format {version}, this service reads up to {LAYOUT_FORMAT}: upgrade it")
        return cls(sequence, Offsets.stored(stored["offsets"]), Layout(**stored["layout"]))

    @classmethod
    def decode_pack(cls, block: int, data: bytes, where: str) -> list[Claim]:
        """-> the entries of a pack, in order. Raises as `decode`."""
        try:
            stored = orjson.loads(data)
            if len(stored) != PACK_ENTRIES:
                raise ValueError(f"{len(stored)} entries")
            return [cls._of(block * PACK_ENTRIES + n, entry, where) for n, entry in enumerate(stored)]
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(where, error) from error


def encode_pack(claims: Sequence[Claim]) -> bytes:
    return orjson.dumps([claim.stored() for claim in claims])


def encode_ids(ids: Iterable[bytes]) -> str:
    """Ids of dead letters as a done mark lists them."""
    return base64.b64encode(b"".join(ids)).decode()


def decode_ids(facts: Mapping[str, Any]) -> bytes:
    """-> ids one after the other, 16 bytes each."""
    return base64.b64decode(facts.get("ids", ""))


def _unreadable(where: str, error: Exception) -> Refused:
    return Refused(
        f"{where} is not a claim ({error!r}): restore it from the bucket's versions or a backup; rows are written "
        "twice if it is merely deleted"
    )
