"""Dead letters of the sink. Pure."""

from __future__ import annotations

import pyarrow as pa

from ingestcore.messages.events import URI_SCHEME
from ingestcore.messages.rows import KEY, OBJECT, ROW, write
from ingestcore.reasons import Reason
from ingestcore.stage import Fate, Origin, Reject
from services.postgres_sink.chunk import Chunk, facts_of


def letter(chunk: Chunk, row: int, reason: Reason, message: str, sink: str, fate: Fate = Fate.REJECTED) -> Reject:
    """-> one row, as it would be sent into `normalized` again: for this sink alone."""
    part, within = chunk.locate(row)
    single = _alone(part.batch, within)
    facts = facts_of(single.column(OBJECT).dictionary[0].as_py())
    # Rows of events are numbered by their partition: only the key tells two of them apart.
    if facts.uri.startswith(URI_SCHEME):
        place = {"event": single.column(KEY)[0].as_py().hex()}
    else:
        place = {"row": str(single.column(ROW)[0].as_py())}
    return Reject(
        at=part.input.at,
        origin=Origin.of(facts),
        raw=bytes(write(single)),
        reason=reason,
        message=message,
        object=facts,
        facts={**place, "table": chunk.table.label, "dataset": chunk.dataset},
        reentry=part.input.at.topic,
        audience=sink,
        fate=fate,
    )


def _alone(batch: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """-> one row, with dictionaries of one entry."""
    columns = []
    for column in batch.slice(row, 1).columns:
        if pa.types.is_dictionary(column.type):
            entry = column.dictionary.slice(column.indices[0].as_py(), 1)
            column = pa.DictionaryArray.from_arrays(pa.array([0], column.type.index_type), entry)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
