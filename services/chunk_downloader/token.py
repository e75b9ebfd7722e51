"""The resume token: all that is needed to go on in the middle of an object exactly as if nothing had happened."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final

from ingestcore.stage import Retriable

VERSION: Final = "1"


@dataclass(frozen=True, slots=True)
class Token:
    """Where an object goes on, and how it was cut so far: settings may have changed since.

    dataset        `name@version`: a resumed object keeps its version (and so its dialect)
    block_bytes, max_row_bytes  as when the object was started
    gzip           inflated from byte 0 again; a plain object goes on at a range
    byte           of the decompressed object; row: ordinal of the next record; block: number of the next block
    """

    dataset: str
    block_bytes: int
    max_row_bytes: int
    gzip: bool
    byte: int
    row: int
    block: int

    def encode(self) -> str:
        dataset, *numbers = astuple(self)
        return "|".join((VERSION, dataset, *(str(int(number)) for number in numbers)))

    @classmethod
    def decode(cls, text: str) -> Token:
        """Raises Retriable: written by a version that cuts in another way."""
        version, *parts = text.split("|")
        if version != VERSION or len(parts) != 7:
            raise Retriable(
                f"the resume token {text!r} is of another version of the downloader: run that version until its open "
                "objects are done, or reset the offsets of its group to start them anew"
            )
        block_bytes, max_row_bytes, gzip, byte, row, block = (int(part) for part in parts[1:])
        return cls(parts[0], block_bytes, max_row_bytes, bool(gzip), byte, row, block)
