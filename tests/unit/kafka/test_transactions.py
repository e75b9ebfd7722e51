"""A transactional producer whose client never comes back from a call. Kafka's client is a stand-in here: the real one
does this only when its broker dies at the wrong moment (`tests/faults`, `kill-kafka`)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ingestcore.kafka import transactions
from ingestcore.kafka.errors import UnknownOutcome
from ingestcore.kafka.transactions import Transactions
from ingestcore.settings import Platform


class StandIn:
    """stuck: name of the call that never returns, of the first producer only."""

    stuck = ""
    made: list[StandIn]

    def __init__(self, _: object) -> None:
        self.calls: list[str] = []
        self.heard: dict[str, str] = {}
        self.first = not type(self).made
        type(self).made.append(self)

    def __getattr__(self, name: str) -> Any:
        def call(*_: object, **__: object) -> None:
            self.calls.append(name)
            if self.first and name == type(self).stuck:
                threading.Event().wait()

        return call


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    StandIn.made = []
    monkeypatch.setattr(transactions, "Writer", StandIn)
    monkeypatch.setattr(transactions, "_CALL_SECONDS", 0.1)
    monkeypatch.setattr(transactions, "_GRACE_SECONDS", 0.1)
    return StandIn


@pytest.mark.parametrize("stuck", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_commit_that_never_returns_is_given_up_and_a_new_producer_goes_on(
    stand_in: type[StandIn], stuck: str
) -> None:
    stand_in.stuck = stuck
    tx = Transactions(Platform(), "id")
    offsets = {("topic", 0): (1, "")}
    tx.send("topic", b"value", key=None, partition=0, headers={})
    with pytest.raises(UnknownOutcome, match="not returned"):
        tx.commit(offsets, b"membership")
    tx.abort()
    tx.commit(offsets, b"membership")
    dead, alive = stand_in.made
    assert dead.calls[-1] == stuck, "the stuck producer is left alone"
    assert alive.calls[0] == "init_transactions" and alive.calls[-1] == "commit_transaction"


def test_an_abort_that_never_returns_is_given_up(stand_in: type[StandIn]) -> None:
    stand_in.stuck = "abort_transaction"
    tx = Transactions(Platform(), "id")
    tx.send("topic", b"value", key=None, partition=0, headers={})
    tx.abort()
    assert not tx.open and not tx.broken and len(stand_in.made) == 2
