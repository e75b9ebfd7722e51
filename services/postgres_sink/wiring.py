"""Puts the sink together from what the runtime gives: the only file here that knows all the parts."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingestcore.datasets.postgres_sink import PostgresSink
from ingestcore.datasets.registry import NotSeenYet
from ingestcore.datasets.spec import SinkSpec
from ingestcore.runtime.service import Context
from services.postgres_sink.database import Database
from services.postgres_sink.settings import PostgresSinkSettings
from services.postgres_sink.stage import PostgresSinkStage


def open_sink(context: Context, clock: Callable[[], float] = time.monotonic) -> PostgresSinkStage:
    """Raises NotSeenYet: the sink is not configured yet; OperatorNeeded: its database refuses it; Away, TimedOut."""
    settings: PostgresSinkSettings = context.settings

    def spec() -> SinkSpec:
        found = context.specs.sink(context.instance)
        if found.postgres is None:
            raise NotSeenYet(f"sink {context.instance} writes to no Postgres any more")
        return found

    def open(place: PostgresSink) -> Database:
        return Database(context.instance, place, settings.silence)

    first = open(spec().database)
    first.check()
    first.close()
    return PostgresSinkStage(
        context.instance, spec, context.specs.dataset, lambda: context.topics.topic_id("normalized"), open, clock=clock
    )
