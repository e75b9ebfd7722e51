"""chunk-downloader: objects in ranges, inflated and cut at record ends into `ingest.blocks`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ingestcore.runtime.service import Service
from services.chunk_downloader.settings import ChunkDownloaderSettings

if TYPE_CHECKING:
    from ingestcore.runtime.service import Context
    from services.chunk_downloader.stage import Downloader


def build(context: Context) -> Downloader:
    from concurrent.futures import ThreadPoolExecutor

    from services.chunk_downloader.parts import Budget
    from services.chunk_downloader.stage import Downloader
    from services.chunk_downloader.streams import Workers

    settings: ChunkDownloaderSettings = context.settings
    workers = Workers(
        fetching=ThreadPoolExecutor(settings.max_workers, thread_name_prefix="fetch"),
        computing=ThreadPoolExecutor(settings.compute_workers, thread_name_prefix="compute"),
        budget=Budget(settings.memory_budget),
    )
    return Downloader(
        settings,
        context.platform.max_row_bytes,
        context.specs,
        context.store,
        context.topics.partitions("blocks"),
        workers,
        context.metrics,
    )


SERVICE = Service(
    name="chunk-downloader",
    summary="Reads objects in ranges, inflates them, judges the header, cuts blocks at record ends",
    settings=ChunkDownloaderSettings,
    build=build,
    consumes="objects",
    produces=("blocks",),
)
