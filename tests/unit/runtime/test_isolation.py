"""Which input is poison, and which failure is the stage's own."""

from ingestcore.runtime.isolation import ATTEMPTS, IDLE_SECONDS, Isolation
from ingestcore.stage import At

BAD, GOOD = At("t", 3, 7), At("t", 1, 0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def failed_alone(isolation: Isolation, at: At = BAD) -> None:
    for _ in range(ATTEMPTS):
        isolation.failed(at, "boom", alone=True)


def test_after_a_failure_inputs_are_tried_one_by_one_the_suspect_first() -> None:
    isolation = Isolation(Clock())
    assert not isolation.alone
    isolation.failed(BAD, "boom", alone=False)
    assert isolation.alone
    assert isolation.focus() == BAD.partition


def test_failing_beside_others_proves_nothing() -> None:
    isolation = Isolation(Clock())
    for _ in range(10):
        isolation.failed(BAD, "boom", alone=False)
    isolation.passed([GOOD])
    assert isolation.poison(BAD) is None


def test_an_input_that_failed_alone_is_poison_once_another_passed() -> None:
    isolation = Isolation(Clock())
    failed_alone(isolation)
    assert isolation.exhausted(BAD)
    assert isolation.poison(BAD) is None
    isolation.passed([GOOD])
    assert isolation.poison(BAD) == "boom"


def test_a_stage_that_fails_on_everything_condemns_nothing() -> None:
    isolation = Isolation(Clock())
    for offset in range(5):
        failed_alone(isolation, At("t", 0, offset))
    assert all(isolation.poison(At("t", 0, offset)) is None for offset in range(5))
    assert "none has passed since" in isolation.stuck()


def test_an_idle_topic_counts_as_a_pass_but_only_a_few_times_in_a_row() -> None:
    clock = Clock()
    isolation = Isolation(clock)
    condemned = 0
    for offset in range(10):
        at = At("t", 0, offset)
        failed_alone(isolation, at)
        clock.now += IDLE_SECONDS + 1
        if isolation.poison(at):
            isolation.condemned(at)
            condemned += 1
    assert condemned == 3


def test_an_input_that_passes_later_is_cleared() -> None:
    isolation = Isolation(Clock())
    failed_alone(isolation)
    isolation.passed([BAD])
    assert not isolation.exhausted(BAD)
    assert isolation.focus() is None
