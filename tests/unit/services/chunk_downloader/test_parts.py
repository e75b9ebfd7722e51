"""Ranges side by side within the budget, segment hashes, settings and the resume token."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from ingestcore.messages.blocks import SEGMENT_BYTES
from ingestcore.stage import Retriable
from ingestcore.stores.objects import Unavailable
from services.chunk_downloader.parts import FIRST_PART_BYTES, Budget, parallel_parts, parts
from services.chunk_downloader.segments import Segments
from services.chunk_downloader.settings import ChunkDownloaderSettings
from services.chunk_downloader.token import Token

MIB = 1 << 20


class AtOnce(Executor):
    """Runs everything where it is submitted."""

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
        job: Future = Future()
        try:
            job.set_result(fn(*args, **kwargs))
        except Exception as error:
            job.set_exception(error)
        return job


def test_parts_come_in_order_however_long_each_takes_and_no_more_run_than_allowed() -> None:
    chance, lock, running, most = random.Random(1), threading.Lock(), [0], [0]

    def get(first: int, size: int) -> bytes:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(chance.random() / 200)
        with lock:
            running[0] -= 1
        return bytes([first % 251]) * size

    budget = Budget(100 * MIB)
    with ThreadPoolExecutor(8) as pool:
        stream = parts(get, 5, 1005, chunk_size=10, at_once=3, in_memory=6, pool=pool, budget=budget)
        got = [part for part in stream if part is not None]
    assert b"".join(got) == b"".join(bytes([first % 251]) * 10 for first in range(5, 1005, 10))
    assert most[0] <= 3 and budget.free_bytes == 100 * MIB


def test_memory_is_never_more_than_the_parts_allowed_and_the_budget() -> None:
    budget = Budget(10 * MIB)
    stream = parts(
        lambda first, size: b"", 0, 100 * MIB, chunk_size=MIB, at_once=9, in_memory=3, pool=AtOnce(), budget=budget
    )
    for _ in range(50):
        assert next(stream) is not None
        assert budget.free_bytes >= 7 * MIB
    other = parts(
        lambda first, size: b"", 0, 100 * MIB, chunk_size=MIB, at_once=9, in_memory=99, pool=AtOnce(), budget=budget
    )
    next(other)
    assert budget.free_bytes == FIRST_PART_BYTES
    stream.close()
    other.close()
    assert budget.free_bytes == 10 * MIB


def test_without_memory_nothing_is_ready_until_others_give_back() -> None:
    budget = Budget(MIB)
    assert budget.take(MIB)
    stream = parts(lambda first, size: b"x", 0, 1, chunk_size=1, at_once=1, in_memory=1, pool=AtOnce(), budget=budget)
    assert next(stream) is None
    budget.give(MIB)
    assert next(stream) == b"x"


def test_what_a_fetch_raises_comes_in_its_place_and_memory_is_given_back() -> None:
    def get(first: int, size: int) -> bytes:
        if first == 2:
            raise Unavailable("away")
        return bytes([first])

    budget = Budget(100 * MIB)
    stream = parts(get, 0, 5, chunk_size=1, at_once=9, in_memory=9, pool=AtOnce(), budget=budget)
    assert [next(stream), next(stream)] == [b"\0", b"\1"]
    with pytest.raises(Unavailable, match="away"):
        next(stream)
    assert budget.free_bytes == 100 * MIB


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [(0, 16, 1), (10, 16, 1), (16, 16, 1), (31, 16, 1), (32, 16, 2), (160, 16, 10), (1600, 16, 16), (1600, 4, 4)],
)
def test_part_concurrency_follows_object_size(size: int, most: int, expected: int) -> None:
    assert parallel_parts(size * MIB, 16 * MIB, most) == expected


@pytest.mark.parametrize("size", [0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, SEGMENT_BYTES + 1, 3 * SEGMENT_BYTES + 7])
@pytest.mark.parametrize("first", [0, 5])
def test_segments_are_hashed_once_read_completely_or_at_the_end(size: int, first: int) -> None:
    data, chance = random.Random(size).randbytes(size), random.Random(2)
    segments, at = Segments(AtOnce(), first * SEGMENT_BYTES), 0
    while at < size:
        piece = data[at : at + chance.randrange(1, 2 * SEGMENT_BYTES)]
        segments.feed(memoryview(piece))
        at += len(piece)
        assert segments.complete(first, first + at // SEGMENT_BYTES - 1) and not segments.complete(
            first, first + at // SEGMENT_BYTES
        )
    count = -(-size // SEGMENT_BYTES)
    if size % SEGMENT_BYTES:
        assert segments.digests(first, first + count - 1) is None
    segments.end()
    expected = tuple(
        (first + n, hashlib.sha256(data[n * SEGMENT_BYTES : (n + 1) * SEGMENT_BYTES]).hexdigest()) for n in range(count)
    )
    assert segments.digests(first, first + count - 1) == expected
    assert segments.read_bytes == first * SEGMENT_BYTES + size


def test_the_defaults_are_those_of_the_runbook_and_fit_their_budget() -> None:
    settings = ChunkDownloaderSettings()
    assert (settings.chunk_size, settings.buffer_chunks, settings.objects) == (16 * MIB, 4, 4)
    assert 1 <= settings.max_workers <= 16 and settings.memory_budget == 256 * MIB and settings.side_by_side == 16


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGEST_CHUNK_DOWNLOADER_CHUNK_SIZE", "8MiB")
    monkeypatch.setenv("INGEST_CHUNK_DOWNLOADER_MAX_WORKERS", "3")
    settings = ChunkDownloaderSettings()
    assert (settings.chunk_size, settings.max_workers) == (8 * MIB, 3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"chunk_size": "32MiB"},
            "objects 4 × buffer_chunks 4 × chunk_size 32 MiB = 512 MiB, memory_budget is 256 MiB",
        ),
        ({"memory_budget": "100MiB"}, "= 256 MiB, memory_budget is 100 MiB"),
        ({"chunk_size": "32KiB"}, "greater than or equal to 65536"),
        ({"chunk_size": 100_000}, "multiple of 65536"),
        ({"block_bytes": "64MiB"}, "less than or equal to 33554432"),
        ({"max_workers": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_arithmetic(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        ChunkDownloaderSettings(**settings)  # type: ignore[arg-type]
    assert says in str(error.value)


def test_a_token_is_short_and_comes_back_as_it_was() -> None:
    token = Token("x" * 63 + "@123456", 2 << 20, 32 << 20, gzip=True, byte=10**15, row=10**13, block=10**9)
    assert Token.decode(token.encode()) == token and len(token.encode()) < 200


@pytest.mark.parametrize("text", ["2|a@1|1|1|0|0|1|0", "1|a@1|1|1|0|0|1", "{}"])
def test_a_token_of_another_version_is_not_guessed_at(text: str) -> None:
    with pytest.raises(Retriable, match="another version"):
        Token.decode(text)
