"""A deadline for calls into librdkafka that keep none."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """The call did not return. It goes on in a thread that nobody waits for: use its client no more."""


def within(seconds: float, call: Callable[[], T], what: str) -> T:
    """Run a call on a thread of its own. -> what it returns; raises what it raises. Raises Stuck: not in time.

    librdkafka's `send_offsets_to_transaction` forgets its own time-out when the group's coordinator goes away
    (librdkafka#5456), and `close` can hang.
    """
    answers: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(call())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise Stuck(f"{what} has not returned after {seconds:g} s")
    if failures:
        raise failures[0]
    return answers[0]
