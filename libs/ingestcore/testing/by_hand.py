"""A stage fed and settled by hand, in the order a test wants. Every step is checked as the runtime checks it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ingestcore.stage import Fate, Input, Stage, Step, check


def feed(stage: Stage, *inputs: Input) -> list[Step]:
    """-> the steps of these inputs, one input after the other. Raises Unbalanced."""
    return checked(step for input in inputs for step in stage.process(input, None))


def settle(stage: Stage, *, final: bool = False) -> list[Step]:
    """-> the steps of a commit boundary. Raises Unbalanced."""
    return checked(stage.settle(final=final))


def checked(steps: Iterable[Step | None]) -> list[Step]:
    """-> the steps that are there. Raises Unbalanced."""
    done = [step for step in steps if step]
    for step in done:
        check(step)
    return done


def fates(steps: Iterable[Step]) -> Counter[Fate]:
    """-> rows by fate."""
    found: Counter[Fate] = Counter()
    for line in (line for step in steps for line in step.tally):
        found[line.fate] += line.rows
    return found


def offsets(steps: Sequence[Step]) -> list[int]:
    """-> offsets of the inputs the steps cover, in their order."""
    return [at.offset for step in steps for at in step.covers]
