"""One range of one partition on its way into files: inputs in, complete files and their facts out."""

from __future__ import annotations

from typing import Any

from ingestcore.messages.lake import Span
from ingestcore.stage import Fate, Input
from services.parquet_sink.claim import encode_ids
from services.parquet_sink.content import Content, Parcel
from services.parquet_sink.files import Buffers, FileOptions, OpenFiles
from services.parquet_sink.lake import Finished, Lake
from services.parquet_sink.offsets import Offsets


class Writing:
    """What inputs become follows from the inputs alone, in the order of their offsets: whoever writes them, the files
    hold the same rows. A dead letter that comes twice within the range is written once."""

    def __init__(self, content: Content, batch_size: int, options: FileOptions, buffers: Buffers) -> None:
        self._files = OpenFiles(content.encoder, batch_size, options, buffers)
        self._letters: dict[bytes, None] = {}
        self._repeats: list[int] = []
        self._finished: list[Finished] = []
        self.rows = 0

    def add(self, input: Input, parcel: Parcel) -> Fate:
        """-> DELIVERED, or DUPLICATE: a letter this range has already."""
        if parcel.letter is not None:
            if parcel.letter in self._letters:
                self._repeats.append(input.at.offset)
                return Fate.DUPLICATE
            self._letters[parcel.letter] = None
        for piece in parcel.pieces:
            self._files.add(piece)
        self.rows += parcel.rows
        return Fate.DELIVERED

    def finish(self, lake: Lake, span: Span) -> tuple[list[Finished], dict[str, Any]]:
        """-> local files, and what the claim's done mark says: `files`, `rows`, `letters`; of letters also their `ids`
        and the offsets of `repeats`."""
        files = self._finished = self._files.finish(span)
        facts: dict[str, Any] = {
            "files": [{"key": lake.key(file, span), "rows": file.rows} for file in files],
            "rows": sum(file.rows for file in files),
            "letters": len(self._letters),
        }
        if self._letters:
            facts |= {"ids": encode_ids(self._letters), "repeats": Offsets.of(self._repeats).runs}
        return files, facts

    def discard(self) -> None:
        self._files.discard()
        for file in self._finished:
            file.path.unlink(missing_ok=True)
