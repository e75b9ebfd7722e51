"""One entry of the claim log. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

from ingestcore.messages.lake import LAYOUT_FORMAT
from ingestcore.stage import NewerFormat
from ingestcore.stores.objects import Refused
from services.parquet_sink.offsets import Offsets

LETTERS: Final = "dlq"
"""Source of dead letters, as a sink's `from:` says it."""


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
        first, last = self.offsets.first, self.offsets.last
        return orjson.dumps({"first": first, "last": last, "offsets": self.offsets.runs, "layout": asdict(self.layout)})

    @classmethod
    def decode(cls, sequence: int, data: bytes, where: str) -> Claim:
        """Raises NewerFormat; Refused: not a claim (somebody else wrote here)."""
        try:
            stored = orjson.loads(data)
            version = int(stored["layout"]["format"])
            if version > LAYOUT_FORMAT:
                raise NewerFormat(f"{where} has format {version}, this service reads up to {LAYOUT_FORMAT}: upgrade it")
            return cls(sequence, Offsets.stored(stored["offsets"]), Layout(**stored["layout"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Refused(
                f"{where} is not a claim ({error!r}): restore it from the bucket's versions or a backup; rows are "
                "written twice if it is merely deleted"
            ) from error


def encode_ids(ids: Iterable[bytes]) -> str:
    """Ids of dead letters as a done mark lists them."""
    return base64.b64encode(b"".join(ids)).decode()


def decode_ids(facts: Mapping[str, Any]) -> bytes:
    """-> ids one after the other, 16 bytes each."""
    return base64.b64decode(facts.get("ids", ""))
