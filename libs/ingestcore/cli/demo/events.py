"""The demo's events: what is posted, and what must become of it. Pure: the same seed makes the same burst."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

COUNT: Final = 2_000
"""Distinct events that become rows."""
RETRIED: Final = 400
"""Of these are posted two to four times, as a producer does that has lost an answer."""
MISFITS: Final = 20
"""Events that are taken and that no row can be made of, half of them posted twice."""
REFUSED: Final = 20
"""Posts of each kind that must be refused at the door."""

SPEC: Final = {
    "primary_key": ["id"],
    "fields": {
        "id": {"from": "payment.id", "type": "integer"},
        "amount": {"from": "payment.amount", "type": "decimal(12,2)"},
        "customer": {"from": "payment.customer"},
        "type": "string",
        "event": {"from": "$event_id"},
    },
    "on_extra": "freeze",
}
"""The dataset as an operator would write it."""

Row = tuple[int, Decimal, str, str]
"""id, amount, customer, event."""

TAKEN, REPEAT = "taken", "repeat"


@dataclass(frozen=True, slots=True)
class Post:
    """One post. id: of the event; answer: what it must be answered with, TAKEN for repeats too, or the end of a
    problem's `type`; forged: signed with another secret."""

    id: str
    body: bytes
    answer: str = TAKEN
    forged: bool = False


@dataclass(frozen=True)
class Burst:
    """posts: in any order and side by side; late: after all of them. rows and misfits (bodies) by event id: what must
    be in the table, and what must be a dead letter, each once."""

    posts: Sequence[Post]
    late: Sequence[Post]
    rows: Mapping[str, Row]
    misfits: Mapping[str, bytes]

    @property
    def taken(self) -> int:
        """Distinct events."""
        return len(self.rows) + len(self.misfits)

    def answers(self) -> Counter[str]:
        """-> how many posts of each answer there must be."""
        found = Counter(post.answer for post in (*self.posts, *self.late))
        found[REPEAT] = found[TAKEN] - self.taken
        found[TAKEN] = self.taken
        return found


def burst(seed: int) -> Burst:
    """-> events, repeats of some, and posts that must be refused, shuffled."""
    chance = random.Random(seed)
    rows: dict[str, Row] = {}
    misfits: dict[str, bytes] = {}
    posts: list[Post] = []
    for number in range(COUNT):
        amount = Decimal(chance.randrange(100, 1_000_000)) / 100
        row = (number, amount, f"c-{chance.randrange(500)}", f"evt_{number}")
        rows[row[-1]] = row
        times = chance.randint(2, 4) if number < RETRIED else 1
        posts += [Post(row[-1], _body(row[0], float(amount), row[2]))] * times
    for number in range(MISFITS):
        id, body = f"evt_misfit_{number}", _body(COUNT + number, "a lot", f"c-{number}")
        misfits[id] = body
        posts += [Post(id, body)] * (1 + number % 2)
    for number in range(REFUSED):
        body = _body(10 * COUNT + number, 1.0, "nobody")
        posts.append(Post(f"evt_forged_{number}", body, "unauthorized", forged=True))
        posts.append(Post(f"evt_broken_{number}", body[:-1], "invalid-json"))
    late = [Post(f"evt_{number}", _body(number, 0.01, "another"), "key-reused") for number in range(REFUSED)]
    chance.shuffle(posts)
    return Burst(posts, late, rows, misfits)


def _body(id: int, amount: Any, customer: str) -> bytes:
    payment = {"id": id, "amount": amount, "customer": customer}
    return json.dumps({"type": "payment.settled", "payment": payment}).encode()
