"""`ingest topics`: the topic registry beside what the broker has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from ingestcore.cli.console import UNKNOWN, AsJson, err, print_json, print_table, table
from ingestcore.cli.errors import EXIT_FAILED
from ingestcore.cli.target import DEFAULT_FOLDER, Folder, platform
from ingestcore.settings import Platform

if TYPE_CHECKING:
    from ingestcore.kafka.admin import TopicState


def topics(
    create: Annotated[bool, typer.Option("--create", help="Create topics that are missing.")] = False,
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
) -> None:
    """Show every topic of the platform: partitions, retention, end offsets, and where the broker differs.

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
    if as_json:
        print_json({"topics": [_as_dict(state, faults[name]) for name, state in states.items()]})
    else:
        _show(states, faults)
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
    if state.config.get("message.timestamp.type", "LogAppendTime") != "LogAppendTime":
        faults.append("message.timestamp.type is not LogAppendTime: old timestamps may be deleted unread")
    return faults


def _as_dict(state: TopicState, faults: list[str]) -> dict[str, Any]:
    return {
        "topic": state.name,
        "exists": state.exists,
        "topic_id": state.topic_id or None,
        "partitions": state.partitions,
        "replication": state.replication,
        "retention_ms": int(state.config.get("retention.ms", "0")) if state.exists else None,
        "cleanup_policy": state.config.get("cleanup.policy"),
        "end_offsets": list(state.end_offsets),
        "messages": sum(state.end_offsets),
        "summary": state.spec.summary,
        "key": state.spec.key,
        "value": state.spec.value,
        "problems": faults,
    }


def _show(states: dict[str, TopicState], faults: dict[str, list[str]]) -> None:
    numbers = ("PARTITIONS", "END OFFSETS")
    made = table("TOPIC", *numbers, "RETENTION", "VALUE", "SUMMARY", "DIFFERS", right=numbers)
    for name, state in states.items():
        retention = retention_text(
            state.config.get("retention.ms", ""), "compact" in state.config.get("cleanup.policy", "")
        )
        made.add_row(
            state.name,
            str(state.partitions or UNKNOWN),
            f"{sum(state.end_offsets):,}" if state.exists else UNKNOWN,
            retention,
            state.spec.value,
            state.spec.summary,
            f"[red]{escape('; '.join(faults[name]))}[/red]" if faults[name] else "",
        )
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
