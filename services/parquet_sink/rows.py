"""Rows of `ingest.normalized` as the sink holds and writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ingestcore.messages.objects import ObjectFacts
from ingestcore.messages.rows import KEY, OBJECT, PROVENANCE, read
from ingestcore.stage import Fate, Input, Line, Origin
from services.parquet_sink.content import Parcel, ingest_date
from services.parquet_sink.files import Piece
from services.parquet_sink.lake import Folder

_NOT_WRITTEN: Final = (KEY, OBJECT, PROVENANCE)
_COLUMN_BYTES: Final = 512
"""What a column of a batch costs in memory however few rows it has."""

Codes = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one file, the provenance not spread out yet: it is the same for thousands of rows.

    batch       the columns written, without `_provenance`
    codes       per row: which entry of `provenance`
    """

    batch: pa.RecordBatch
    codes: Codes
    provenance: pa.StructArray


class RowsEncoder:
    def gather(self, items: Sequence[Rows]) -> list[Rows]:
        codes, provenance = _one_dictionary(items)
        return [Rows(pa.concat_batches([item.batch for item in items]), codes, provenance)]

    def table(self, items: Sequence[Rows]) -> pa.Table:
        """Dataset columns in order, then `_provenance`, `_row`."""
        columns = pa.Table.from_batches([item.batch for item in items])
        codes, provenance = _one_dictionary(items)
        spread = _spread(codes, provenance)
        return columns.add_column(
            columns.num_columns - 1, pa.field(PROVENANCE, spread.type, nullable=False), pa.chunked_array([spread])
        )


class RowsContent:
    encoder = RowsEncoder()

    def read(self, input: Input) -> Parcel:
        batch = read(input.value)
        dataset = input.headers["dataset"]
        table, _, version = dataset.rpartition("@")
        objects = batch.column(OBJECT)
        facts = [_facts(text) for text in objects.dictionary.to_pylist()]
        which = objects.indices.to_numpy()
        counts = np.bincount(which, minlength=len(facts))
        lines = tuple(
            Line(input.at, Origin.of(fact), Fate.DELIVERED, int(n)) for fact, n in zip(facts, counts, strict=True) if n
        )
        date = ingest_date(input.timestamp_ms)
        rows = _rows_of(batch)
        pieces = []
        for tenant, codes in _tenants(facts, counts).items():
            part = rows if len(codes) == np.count_nonzero(counts) else _filtered(rows, np.isin(which, codes))
            nbytes = part.batch.nbytes + part.codes.nbytes + part.batch.num_columns * _COLUMN_BYTES
            folder = Folder(table, version, dataset, tenant, date)
            pieces.append(Piece(folder, part.batch.schema, part, part.batch.num_rows, nbytes))
        return Parcel(table, lines, tuple(pieces), batch.num_rows, len(input.value))


def _rows_of(batch: pa.RecordBatch) -> Rows:
    coded = batch.column(PROVENANCE)
    return Rows(batch.drop_columns(list(_NOT_WRITTEN)), coded.indices.to_numpy(), coded.dictionary)


def _filtered(rows: Rows, mask: npt.NDArray[np.bool_]) -> Rows:
    return Rows(rows.batch.filter(pa.array(mask)), rows.codes[mask], rows.provenance)


def _tenants(facts: Sequence[ObjectFacts], counts: npt.NDArray[np.int64]) -> dict[str, list[int]]:
    """-> by tenant: the objects that rows of it come from."""
    found: dict[str, list[int]] = {}
    for code, fact in enumerate(facts):
        if counts[code]:
            found.setdefault(fact.tenant, []).append(code)
    return found


def _one_dictionary(items: Sequence[Rows]) -> tuple[Codes, pa.StructArray]:
    if len(items) == 1:
        return items[0].codes, items[0].provenance
    sizes = [len(item.provenance) for item in items]
    starts = np.concatenate(([0], np.cumsum(sizes[:-1]))).astype(np.int32)
    codes = np.concatenate([item.codes + start for item, start in zip(items, starts, strict=True)])
    return codes, pa.concat_arrays([item.provenance for item in items])


def _spread(codes: Codes, provenance: pa.StructArray) -> pa.StructArray:
    """-> one struct per row. Its texts stay codes into a short dictionary, which Parquet takes over as it is: spread
    out they are six times the row itself."""
    indices = pa.array(codes)
    same, none = pa.array(np.zeros(len(codes), np.int32)), pa.nulls(len(codes), pa.int32())
    fields, children = [], []
    for field in provenance.type:
        entries = pc.struct_field(provenance, field.name)
        if pa.types.is_list(entries.type):
            child = _coded_lists(entries).take(indices)
        else:
            # A dictionary handed to Parquet must not name one value twice.
            short = entries.dictionary_encode()
            if entries.null_count == len(entries):
                which = none
            elif len(short.dictionary) == 1 and not entries.null_count:
                which = same
            else:
                which = short.indices.take(indices)
            child = pa.DictionaryArray.from_arrays(which, short.dictionary)
        fields.append(pa.field(field.name, child.type, field.nullable))
        children.append(child)
    return pa.StructArray.from_arrays(children, fields=fields)


def _coded_lists(lists: pa.ListArray) -> pa.ListArray:
    """-> lists of texts as lists of codes."""
    if lists.null_count:
        return pa.array(lists.to_pylist(), pa.list_(pa.dictionary(pa.int32(), lists.type.value_type)))
    return pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())


@lru_cache(maxsize=4096)
def _facts(text: str) -> ObjectFacts:
    return ObjectFacts.decode(text)
