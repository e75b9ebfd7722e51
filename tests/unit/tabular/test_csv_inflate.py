"""gzip: members, padding, damage; the same bytes come out whatever the ranges were."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingestcore.tabular.inflate import PIECE_BYTES, Damaged, inflated

RANGES = (64 << 10, 192 << 10, 16 << 20)


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as made:
        yield made


def inflate(stored: bytes, pool: ThreadPoolExecutor, size: int = 64 << 10) -> tuple[bytes, str]:
    """-> what came out, and what was wrong."""
    out = []
    try:
        for piece in inflated(iter([stored[at : at + size] for at in range(0, len(stored), size)]), pool):
            if piece is not None:
                out.append(piece)
    except Damaged as error:
        return b"".join(out), str(error)
    return b"".join(out), ""


def rows(n: int, seed: int = 0) -> bytes:
    chance = random.Random(seed)
    return b"".join(b"%d,%d\n" % (i, chance.randrange(10**12)) for i in range(n))


DATA = rows(40_000)
STORED = gzip.compress(DATA, 6)
assert len(STORED) > 3 * (64 << 10)


@pytest.mark.parametrize(
    ("stored", "data"),
    [
        (STORED, DATA),
        (STORED + b"\0" * 100_000, DATA),
        (STORED + gzip.compress(b"") + gzip.compress(b"more\n"), DATA + b"more\n"),
        (b"".join(gzip.compress(b"%d\n" % n) for n in range(5_000)), b"".join(b"%d\n" % n for n in range(5_000))),
        (gzip.compress(b""), b""),
        (gzip.compress(b"x"), b"x"),
    ],
    ids=["one member", "zero padding", "several members", "thousands of members", "empty member", "one byte"],
)
@pytest.mark.parametrize("size", RANGES)
def test_sound_streams_come_out_whole(pool: ThreadPoolExecutor, stored: bytes, data: bytes, size: int) -> None:
    assert inflate(stored, pool, size) == (data, "")


def flipped(at: int, by: int = 0x55) -> bytes:
    return STORED[:at] + bytes([STORED[at] ^ by]) + STORED[at + 1 :]


@pytest.mark.parametrize(
    ("stored", "says", "at_least"),
    [
        (STORED[: len(STORED) // 2], "cut short", len(DATA) // 2 - 10_000),
        (STORED[:-1], "cut short", len(DATA)),
        (STORED[:-8], "cut short", len(DATA)),
        (STORED[:5], "cut short", 0),
        (STORED + STORED[:1000], "cut short", len(DATA)),
        (STORED + b"rubbish" * 9, "wrapper", len(DATA)),
        (STORED + b"\0\0rubbish", "zero padding", len(DATA)),
        (STORED + b"\0" * 10_000 + STORED, "zero padding", len(DATA)),
        (b"id,name\n1,a\n" * 10_000, "wrapper", 0),
        (flipped(0), "wrapper", 0),
        (flipped(-5), "checksum", len(DATA) - 40_000),
        (flipped(-1), "checksum", len(DATA) - 40_000),
    ],
    ids=[
        "cut in the middle",
        "cut in the length",
        "cut before the checksum",
        "cut in the header",
        "second member cut",
        "rubbish after",
        "rubbish after padding",
        "a member after padding",
        "no gzip at all",
        "magic broken",
        "checksum broken",
        "length broken",
    ],
)
def test_damage_is_named_after_what_could_be_read_whatever_the_range(
    pool: ThreadPoolExecutor, stored: bytes, says: str, at_least: int
) -> None:
    seen = {inflate(stored, pool, size) for size in RANGES}
    ((data, said),) = seen
    assert says in said.lower() and "of the object as stored" in said
    assert len(data) >= at_least and DATA.startswith(data[: len(DATA)])


@pytest.mark.parametrize("seed", range(10))
def test_a_flipped_byte_never_passes_and_the_outcome_does_not_depend_on_the_range(
    pool: ThreadPoolExecutor, seed: int
) -> None:
    stored = flipped(random.Random(seed).randrange(10, len(STORED)), 1 << seed % 8)
    first, *others = [inflate(stored, pool, size) for size in RANGES]
    assert first[1] and all(other == first for other in others)


def test_a_bomb_comes_out_in_pieces(pool: ThreadPoolExecutor) -> None:
    bomb = gzip.compress(bytes(32 << 20), 9)
    tracemalloc.start()
    size = sum(len(piece) for piece in inflated(iter([bomb]), pool) if piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 32 << 20 and peak < 10 * PIECE_BYTES
