"""Small inputs gathered into one message: a three-row Arrow stream costs more in framing than in rows. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from ingestcore.messages.rows import MAX_ROWS
from ingestcore.stage import At


@dataclass
class Pile:
    """Inputs of one partition and dataset version, of one schema, that will be settled together."""

    dataset: str
    partition: int
    schema: pa.Schema
    window_ms: int
    inputs: list[At] = field(default_factory=list)
    batches: list[pa.RecordBatch] = field(default_factory=list)
    nbytes: int = 0
    rows: int = 0
    time_ms: int = 0
    """Broker time of the oldest input: nothing that it must still meet may be forgotten."""

    def takes(self, batch: pa.RecordBatch) -> bool:
        return self.rows + batch.num_rows <= MAX_ROWS and bool(batch.schema.equals(self.schema, check_metadata=True))

    def add(self, at: At, batch: pa.RecordBatch, nbytes: int, time_ms: int) -> None:
        self.inputs.append(at)
        self.batches.append(batch)
        self.nbytes += nbytes
        self.rows += batch.num_rows
        self.time_ms = min(self.time_ms or time_ms, time_ms)

    def batch(self) -> pa.RecordBatch:
        """-> all rows, in the order of the inputs; the dictionaries of the parts are unified."""
        return self.batches[0] if len(self.batches) == 1 else pa.concat_batches(self.batches)
