"""Puts the sink together from what the runtime gives: the only file here that knows all the parts."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import SinkSpec
from ingestcore.runtime.service import Context
from services.parquet_sink.claim import LETTERS, Layout
from services.parquet_sink.content import Content
from services.parquet_sink.files import Buffers, FileOptions
from services.parquet_sink.known import KnownLetters
from services.parquet_sink.lake import Lake
from services.parquet_sink.letters import LettersContent
from services.parquet_sink.owned import OwnedPartition, Place
from services.parquet_sink.rows import RowsContent
from services.parquet_sink.settings import ParquetSinkSettings
from services.parquet_sink.stage import ParquetSink
from services.parquet_sink.writing import Writing


def spec_in_force(context: Context) -> SinkSpec:
    """Raises NotSeenYet: the sink is not there, or no Parquet sink any more."""
    spec = context.specs.sink(context.instance)
    if spec.parquet is None:
        raise NotSeenYet(f"sink {context.instance} writes no Parquet any more")
    return spec


def open_sink(context: Context, clock: Callable[[], float] = time.monotonic) -> ParquetSink:
    """Raises NotSeenYet: the sink is not configured yet; Refused: its bucket is missing or may not be used."""
    settings: ParquetSinkSettings = context.settings
    topic = spec_in_force(context).from_
    letters = topic == LETTERS
    content: Content = LettersContent() if letters else RowsContent()
    options = FileOptions(context.state, settings.row_group_bytes, settings.zstd_level)
    buffers = Buffers(settings.buffer_bytes)

    def open_lake(spec: SinkSpec) -> Lake:
        lake = Lake(context.store(spec.lake), spec.lake.uri, settings.upload_threads)
        lake.check()
        return lake

    def open_writing(layout: Layout) -> Writing:
        return Writing(content, layout.batch_size, options, buffers)

    def open_partition(lake: Lake, number: int) -> OwnedPartition:
        topic_id = context.topics.topic_id(topic)
        claims = lake.claims(topic_id, number, lambda: context.topics.start(topic, number))
        claims.load()
        known = None
        if letters:
            earlier = [lake.claims(other, number) for other in lake.note_letters_of(topic_id) if other != topic_id]
            for log in earlier:
                log.load()
            known = KnownLetters(claims, earlier)
        place = Place(topic, topic_id, number)
        return OwnedPartition(place, lake, claims, known, content, context.topics, open_writing)

    return ParquetSink(
        context.instance,
        lambda: spec_in_force(context),
        content,
        open_lake,
        open_partition,
        open_writing,
        held_bytes=settings.held_bytes,
        clock=clock,
    )
