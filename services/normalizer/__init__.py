"""The normalizer: deduplicates typed rows exactly and attaches provenance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from ingestcore.datasets.registry import Registry
from ingestcore.datasets.spec import Size
from ingestcore.runtime.service import Context, Service
from ingestcore.settings import Settings
from ingestcore.stage import Owner


class NormalizerSettings(Settings):
    """Memory of the keys."""

    model_config = SettingsConfigDict(env_prefix="INGEST_NORMALIZER_")

    gather_bytes: Size = 1 << 20
    """Smaller inputs are settled together, up to this size"""

    memtable_keys: int = Field(default=1_000_000, gt=0)
    """Committed keys kept in memory, all partitions together, 16 bytes each; the rest is on disk"""

    filter_capacity: int = Field(default=8_000_000, gt=0)
    """Keys the Bloom filters are made for at first, all partitions together; they grow. Datasets that name a
    `dedupe.capacity` raise it, counted when a partition is taken over"""

    filter_error_rate: float = Field(default=0.01, gt=0, lt=1)
    """Share of new keys that need an exact lookup; the lowest of this and of the datasets' `dedupe.error_rate` counts.
    No row is ever dropped for it. 0.01 costs 12 bits a key, 0.001 24"""


def capacity_of(settings: NormalizerSettings, specs: Registry) -> tuple[int, float]:
    """-> (keys of all partitions, error rate) the filters are made for, as settings and datasets in force ask."""
    capacity, error_rate = 0, settings.filter_error_rate
    for name, version in specs.pointers().items():
        dedupe = specs.dataset(f"{name}@{version}").dedupe
        if "capacity" in dedupe.model_fields_set:
            capacity += dedupe.capacity
        if "error_rate" in dedupe.model_fields_set:
            error_rate = min(error_rate, dedupe.error_rate)
    return max(capacity, settings.filter_capacity), error_rate


def build(context: Context) -> Any:
    """-> the stage, over runs in the replica's own folder and the changelog."""
    from services.normalizer.changelog import CHANGELOG
    from services.normalizer.partitions import OwnedPartitions
    from services.normalizer.stage import Normalizer
    from services.normalizer.state import FilterPlan

    settings: NormalizerSettings = context.settings
    topics, metrics, instance = context.topics, context.metrics, context.instance

    def plan() -> FilterPlan:
        capacity, error_rate = capacity_of(settings, context.specs)
        return FilterPlan(-(-capacity // topics.partitions(CHANGELOG)), error_rate)

    shown: set[int] = set()

    def report(duplicates: Mapping[Owner, int], keys: Mapping[int, int]) -> None:
        for (tenant, source, dataset), rows in duplicates.items():
            for name in ("dedupe_hits", "connectors_worker_dedupe_hits"):
                metrics.count(name, rows, tenant=tenant, source=source, dataset=dataset, stage=instance)
        shown.update(keys)
        for partition in shown:
            metrics.set("ingest_dedupe_keys", keys.get(partition, 0), partition=str(partition))

    keys = OwnedPartitions(topics, context.state / "dedupe", plan, settings.memtable_keys)
    return Normalizer(
        keys,
        gather_bytes=settings.gather_bytes,
        window=lambda dataset: context.specs.dataset(dataset).dedupe.window,
        produced=lambda partition: topics.produced(CHANGELOG, partition),
        report=report,
    )


SERVICE = Service(
    name="normalizer",
    summary="Deduplicates typed rows exactly and attaches provenance",
    settings=NormalizerSettings,
    build=build,
    consumes="typed",
    produces=("normalized", "dedupe-changelog"),
)
