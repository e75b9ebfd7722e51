"""The demo's burst of events, and that whatever differs from it is found."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from ingestcore.cli.demo.events import COUNT, MISFITS, REFUSED, REPEAT, TAKEN, Burst, burst
from ingestcore.cli.demo.producers import Answers
from ingestcore.cli.demo.webhooks import checks
from ingestcore.ledger import ObjectAudit, State
from ingestcore.stage import Origin


def audit(burst: Burst, **more: Any) -> ObjectAudit:
    origin = Origin("id", "default", "demo-shop", "payments@1", "webhook://demo-shop/2026-01-02")
    return ObjectAudit(origin=origin, **{"state": State.BALANCED, "read": burst.taken + 3, "duplicates": 3, **more})


def test_the_same_seed_makes_the_same_burst() -> None:
    assert burst(3) == burst(3) and burst(3).posts != burst(4).posts


def test_every_event_is_posted_and_some_again() -> None:
    made = burst(0)
    taken = [post for post in made.posts if post.answer == TAKEN]
    assert {post.id for post in taken} == {*made.rows, *made.misfits} and len(made.rows) == COUNT
    assert len(made.misfits) == MISFITS and not set(made.rows) & set(made.misfits)
    assert all(len({post.body for post in taken if post.id == id}) == 1 for id in list(made.rows)[:20])
    answers = made.answers()
    assert answers[TAKEN] == COUNT + MISFITS and answers[REPEAT] == len(taken) - answers[TAKEN] > 0
    assert answers["key-reused"] == answers["unauthorized"] == answers["invalid-json"] == REFUSED
    assert {post.id for post in made.late} <= set(made.rows)


@pytest.mark.parametrize(
    "harm",
    ["none", "lost", "doubled", "changed", "letter lost", "letter doubled", "letter changed", "unbalanced", "unread"],
)
def test_whatever_differs_is_found(harm: str) -> None:
    made = burst(1)
    rows, letters = list(made.rows.values()), Counter(made.misfits.items())
    answers = Answers(taken=dict.fromkeys([*made.rows, *made.misfits], 1.0))
    day: dict[str, Any] = {}
    first = next(iter(letters))
    match harm:
        case "lost":
            del rows[5]
        case "doubled":
            rows.append(rows[5])
        case "changed":
            rows[5] = (rows[5][0], rows[5][1] + Decimal("0.01"), *rows[5][2:])
        case "letter lost":
            del letters[first]
        case "letter doubled":
            letters[first] += 1
        case "letter changed":
            letters = letters - Counter([first]) + Counter([(first[0], first[1] + b" ")])
        case "unbalanced":
            day = {"state": State.UNBALANCED}
        case "unread":
            day = {"read": made.taken + 2}
    found = checks(made, answers, rows, letters, [audit(made, **day)])
    assert all(right for *_, right in found) is (harm == "none"), found
