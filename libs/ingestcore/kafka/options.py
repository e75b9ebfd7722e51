"""librdkafka options of every client, from the platform's settings. Operators' options override all of them."""

from __future__ import annotations

from typing import Any

from ingestcore.settings import Platform
from ingestcore.topics import MAX_MESSAGE_BYTES

_MESSAGE_BYTES = MAX_MESSAGE_BYTES + (1 << 20)
_PREFETCH_KBYTES = 32 << 10
_FETCH_BYTES = 16 << 20
_PARTITION_FETCH_BYTES = 4 << 20
_MAX_POLL_INTERVAL_MS = 600_000
"""A restore or an upload may hold the loop this long; the heartbeat is librdkafka's own thread."""


def client(platform: Platform) -> dict[str, Any]:
    return {
        "bootstrap.servers": platform.kafka_bootstrap,
        "client.id": f"ingest-{platform.replica}",
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2_000,
        # Below "critical" librdkafka prints a line per failed connection; what matters is raised or said in health.
        "log_level": 2,
        **platform.kafka_options,
    }


def consumer(platform: Platform, group: str, **more: Any) -> dict[str, Any]:
    """A reader of committed records that never moves an offset by itself and never jumps over a gap."""
    return {
        **client(platform),
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 500,
        "fetch.max.bytes": _FETCH_BYTES,
        "max.partition.fetch.bytes": _PARTITION_FETCH_BYTES,
        "receive.message.max.bytes": _MESSAGE_BYTES + _FETCH_BYTES,
        "queued.max.messages.kbytes": _PREFETCH_KBYTES,
        **more,
        **platform.consumer_options,
    }


def group_member(platform: Platform, group: str) -> dict[str, Any]:
    return consumer(
        platform,
        group,
        **{
            "session.timeout.ms": platform.session_timeout_ms,
            "heartbeat.interval.ms": max(200, platform.session_timeout_ms // 5),
            "max.poll.interval.ms": max(_MAX_POLL_INTERVAL_MS, platform.session_timeout_ms),
            "partition.assignment.strategy": "cooperative-sticky",
        },
    )


def producer(platform: Platform, transactional_id: str | None = None) -> dict[str, Any]:
    """acks=all, idempotent; with an id: transactional."""
    options = {
        **client(platform),
        "acks": "all",
        "enable.idempotence": True,
        "message.max.bytes": _MESSAGE_BYTES,
        "queue.buffering.max.kbytes": 256 << 10,
        "linger.ms": 5,
        "delivery.timeout.ms": 30_000,
    }
    if transactional_id is not None:
        options |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": platform.transaction_timeout_ms,
            "delivery.timeout.ms": platform.transaction_timeout_ms,
        }
    return options | platform.producer_options
