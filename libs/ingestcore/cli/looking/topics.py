"""`ingest topics`: the topic registry beside what the broker has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ingestcore.cli.console import UNKNOWN, AsJson, err, print_json, print_table, table
from ingestcore.cli.errors import EXIT_FAILED
from ingestcore.cli.looking.topic_disk import Disk, disk, readable
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.settings import Platform
from ingestcore.stage import OperatorNeeded, Retriable
from ingestcore.topics import min_insync

if TYPE_CHECKING:
    from ingestcore.kafka.admin import TopicState


def topics(
    create: Annotated[bool, typer.Option("--create", help="Create topics that are missing.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show every topic of the platform: partitions, copies, retention, disk, and where the broker differs.

    ON DISK is what its records take now, all copies together; AT RETENTION what they will take at the rate since the
    oldest one. Both are estimates from a few records of each partition, before any compression.

    Examples:

      ingest topics

      ingest topics --create

      ingest topics --json | jq '.topics[] | select(.problems != [])'
    """
    from ingestcore.kafka import admin

    target = platform(folder)
    if create:
        for name in admin.create_topics(target):
            err().print(escape(f"created {name}"))
    states = admin.describe(target)
    faults = {name: faults_of(state, target) for name, state in states.items()}
    disks = _disks(target, states)
    if as_json:
        told = [_as_dict(state, faults[name], disks.get(name)) for name, state in states.items()]
        print_json({"topics": told, "total": total(disks.values())})
    else:
        _show(states, faults, disks)
    if any(faults.values()):
        raise typer.Exit(EXIT_FAILED)


def faults_of(state: TopicState, target: Platform) -> list[str]:
    """-> where the broker's topic differs from the registry in a way that matters."""
    spec = state.spec
    if not state.exists:
        return ["missing: `ingest topics --create`"]
    faults = []
    wanted = spec.partitions or target.partitions
    if state.partitions != wanted:
        weight = "keys would move to other owners" if spec.keyed else "harmless"
        if spec.keyed:
            faults.append(f"{state.partitions} partitions, {wanted} wanted: {weight}")
    limit = int(state.config.get("max.message.bytes", "0"))
    if limit < spec.max_bytes:
        faults.append(f"max.message.bytes {limit}, at least {spec.max_bytes} wanted")
    policy = "compact" if spec.compacted else "delete"
    if policy not in state.config.get("cleanup.policy", policy):
        faults.append(f"cleanup.policy {state.config['cleanup.policy']}, {policy} wanted")
    faults += _copy_faults(state)
    if state.config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        faults.append("message.timestamp.type is not LogAppendTime: old timestamps may be deleted unread")
    return faults


def _copy_faults(state: TopicState) -> Iterator[str]:
    wanted, insync = state.wanted_replication, int(state.config.get("min.insync.replicas", "1"))
    if state.replication < wanted:
        yield f"{state.replication} copies, {wanted} wanted: kafka-reassign-partitions.sh adds them"
    elif insync < min_insync(wanted):
        yield (
            f"min.insync.replicas {insync}, {min_insync(wanted)} wanted: what one broker alone acknowledged is lost "
            "with it"
        )
    if state.replication and insync > state.replication:
        yield f"min.insync.replicas {insync} with {state.replication} copies: nothing can be written"


def _disks(target: Platform, states: Mapping[str, TopicState]) -> dict[str, Disk]:
    """-> by logical topic, of those that exist; empty where records can't be read."""
    from ingestcore.kafka import sizes

    try:
        found = sizes.sizes(target, [name for name, state in states.items() if state.exists])
    except (Retriable, OperatorNeeded) as error:
        err().print(escape(f"disk unknown: {error}"))
        return {}
    now_ms = int(time.time() * 1000)
    return {
        name: disk(size.nbytes, size.first_ms, now_ms, states[name].replication, _retention_ms(states[name]))
        for name, size in found.items()
    }


def _retention_ms(state: TopicState) -> int | None:
    """-> None: kept for ever, or until a newer record with the key."""
    kept = "compact" in state.config.get("cleanup.policy", "")
    return None if kept else int(state.config.get("retention.ms") or -1)


def total(disks: Iterable[Disk]) -> dict[str, int | None]:
    """-> sums; those of the growth only over topics old enough to tell."""
    known = list(disks)
    return {
        "disk_bytes": sum(found.now for found in known),
        "disk_bytes_per_day": sum(found.day or 0 for found in known),
        "disk_bytes_at_retention": sum(found.at_retention or 0 for found in known),
    }


def _as_dict(state: TopicState, faults: list[str], disk: Disk | None) -> dict[str, Any]:
    return {
        "topic": state.name,
        "exists": state.exists,
        "topic_id": state.topic_id or None,
        "partitions": state.partitions,
        "replication": state.replication,
        "min_insync_replicas": int(state.config.get("min.insync.replicas", "1")) if state.exists else None,
        "retention_ms": int(state.config.get("retention.ms", "0")) if state.exists else None,
        "cleanup_policy": state.config.get("cleanup.policy"),
        "end_offsets": list(state.end_offsets),
        "messages": sum(state.end_offsets),
        "disk_bytes": disk.now if disk else None,
        "disk_bytes_per_day": disk.day if disk else None,
        "disk_bytes_at_retention": disk.at_retention if disk else None,
        "summary": state.spec.summary,
        "key": state.spec.key,
        "value": state.spec.value,
        "problems": faults,
    }


def _show(states: Mapping[str, TopicState], faults: Mapping[str, list[str]], disks: Mapping[str, Disk]) -> None:
    numbers = ("PARTITIONS", "COPIES", "END OFFSETS", "ON DISK", "A DAY", "AT RETENTION")
    columns = ("TOPIC", *numbers[:3], "RETENTION", *numbers[3:], "VALUE", "SUMMARY", "DIFFERS")
    made = table(*columns, right=numbers)
    for name, state in states.items():
        retention = retention_text(
            state.config.get("retention.ms", ""), "compact" in state.config.get("cleanup.policy", "")
        )
        found = disks.get(name)
        made.add_row(
            state.name,
            str(state.partitions or UNKNOWN),
            str(state.replication or UNKNOWN),
            f"{sum(state.end_offsets):,}" if state.exists else UNKNOWN,
            retention,
            *((readable(found.now), readable(found.day), readable(found.at_retention)) if found else (UNKNOWN,) * 3),
            state.spec.value,
            state.spec.summary,
            f"[red]{escape('; '.join(faults[name]))}[/red]" if faults[name] else "",
        )
    sums = [readable(value) for value in total(disks.values()).values()]
    made.add_row("total", *[""] * 4, *sums, style="bold")
    print_table(made)


def retention_text(retention_ms: str, compacted: bool) -> str:
    """-> `7d`, `12h`, `for ever`, `compacted`."""
    if compacted:
        return "compacted"
    if not retention_ms:
        return UNKNOWN
    if int(retention_ms) < 0:
        return "for ever"
    hours = int(retention_ms) / 3_600_000
    return f"{hours / 24:g}d" if hours >= 24 else f"{hours:g}h"
