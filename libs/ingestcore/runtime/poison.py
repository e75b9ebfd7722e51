"""The step that dead-letters a poison input whole: its bytes, its error, and whose rows it held. Pure."""

from __future__ import annotations

from collections import Counter
from typing import Final

from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.messages.objects import ObjectFacts, ObjectRef
from ingestcore.reasons import Reason
from ingestcore.stage import Fate, Input, Line, Origin, Reject, Step

FAILED: Final = "{service} failed on this input three times while others passed: {why}"
KILLED: Final = (
    "{service} ended three times while it worked on this input alone, the last time after others had passed: {why}"
)
DEADLY: Final = "out of memory or a crash of a library; see the service's log and the kernel's (dmesg)"


def condemn(input: Input, service: str, why: str, *, killed: bool = False, look: bool = True) -> Step:
    """-> a finished step: one letter, INTERNAL_ERROR, and a ledger line for each object with rows in the input.

    killed  by the death of the process, not by an exception
    look    read what the input holds; else it is its own origin
    """
    owners = _owners(input) if look else [_unread(input)]
    facts = next((found for _, _, found in owners if found), None)
    rows = sum(count for _, count, _ in owners)
    reject = Reject(
        at=input.at,
        origin=owners[0][0],
        raw=input.value,
        reason=Reason.INTERNAL_ERROR,
        message=(KILLED if killed else FAILED).format(service=service, why=why),
        rows=rows,
        object=facts,
        facts={"error": why, "rows": str(rows), **({"input": _place(input)} if facts else {})},
        reentry=input.at.topic,
    )
    tally = tuple(Line(input.at, origin, Fate.REJECTED, count) for origin, count, _ in owners)
    return Step((input.at,), tally, rejects=(reject,))


def _owners(input: Input) -> list[tuple[Origin, int, ObjectFacts | None]]:
    """-> (object, its rows in the input, its facts). An input too broken to say is its own origin."""
    try:
        if "object" in input.headers:
            facts = ObjectFacts.decode(input.headers["object"])
            return [(Origin.of(facts), input.rows or 0, facts)]
        if input.at.topic == "objects":
            ref = ObjectRef.decode(input.value)
            return [(Origin(ref.id, ref.tenant, ref.source, ref.dataset, ref.uri), 0, None)]
        if input.at.topic in ("typed", "normalized"):
            counted = _rows_by_object(input)
            if sum(counted.values()) == input.rows:
                return [(Origin.of(facts), count, facts) for facts, count in _decoded(counted)]
    except ValueError:
        pass
    return [_unread(input)]


def _unread(input: Input) -> tuple[Origin, int, ObjectFacts | None]:
    return Origin(_place(input), DEFAULT_TENANT, "", input.headers.get("dataset", ""), ""), input.rows or 0, None


def _place(input: Input) -> str:
    return f"{input.at.topic}/{input.at.partition}/{input.at.offset}"


def _rows_by_object(input: Input) -> Counter[str]:
    # Only here: most services never read Arrow in the runtime.
    from ingestcore.messages.rows import OBJECT, read

    batch = read(input.value)
    if OBJECT not in batch.schema.names:
        raise ValueError(f"no column {OBJECT}")
    return Counter(batch.column(OBJECT).dictionary_decode().to_pylist())


def _decoded(counted: Counter[str]) -> list[tuple[ObjectFacts, int]]:
    return [(ObjectFacts.decode(text), count) for text, count in counted.items()]
