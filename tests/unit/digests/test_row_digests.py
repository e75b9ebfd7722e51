"""Digests of rows alone: every length of message, pairs of unequal length, columns that are slices."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ingestcore.digests.choice import RowDigests
from ingestcore.digests.machine_code import MachineCode
from ingestcore.digests.message import Message
from ingestcore.machine_code.building import build

SCOPE = bytes(range(16))


def scopes(*each: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(each), np.uint8).reshape(-1, 16)


def expected(*messages: bytes) -> list[bytes]:
    return [hashlib.sha256(message).digest()[:16] for message in messages]


def of_text(text: bytes, scope: bytes = SCOPE) -> bytes:
    return scope + b"\0" + len(text).to_bytes(4, "big") + text


def as_bytes(made: np.ndarray) -> list[bytes]:
    return [bytes(row) for row in made]


def test_messages_of_every_length_about_the_ends_of_blocks(digests: RowDigests) -> None:
    texts = [bytes([65 + n % 26]) * n for n in range(300)]
    got = digests(Message(300, scopes(SCOPE), [None], [], [pa.array(texts, pa.binary())]))
    assert as_bytes(got) == expected(*map(of_text, texts))


@pytest.mark.parametrize("lengths", [[1], [0, 5000], [5000, 0], [3, 100, 7], [1 << 20, 1, 1 << 20, 1 << 20]])
def test_rows_side_by_side_may_differ_in_length_and_in_number(digests: RowDigests, lengths: list[int]) -> None:
    texts = [b"x" * length for length in lengths]
    got = digests(Message(len(texts), scopes(SCOPE), [None], [], [pa.array(texts, pa.binary())]))
    assert as_bytes(got) == expected(*map(of_text, texts))


def test_every_row_may_have_its_own_scope(digests: RowDigests) -> None:
    own = [bytes([n]) * 16 for n in range(5)]
    got = digests(Message(5, scopes(*own), [None], [], [pa.array([b"t"] * 5, pa.binary())]))
    assert as_bytes(got) == expected(*(of_text(b"t", scope) for scope in own))


def test_slices_of_columns_and_words_apart_in_memory(digests: RowDigests) -> None:
    texts = pa.array(["left out", "a", "", "ccc", "left out"]).slice(1, 3)
    words = np.arange(20, dtype=np.uint64)[1::4][:3]
    masks = np.array([True, False, True, False, True, True])[::2]
    got = digests(Message(3, scopes(SCOPE), [masks, None], [words], [texts]))
    nulls = [bool(mask) for mask in masks]
    assert as_bytes(got) == expected(
        *(
            SCOPE + (b"\x80" if null else b"\0") + int(word).to_bytes(8, "big") + len(text).to_bytes(4, "big") + text
            for null, word, text in zip(nulls, words, [b"a", b"", b"ccc"], strict=True)
        )
    )


def test_no_rows_and_no_columns(digests: RowDigests) -> None:
    assert digests(Message(0, scopes(SCOPE), [], [], [])).shape == (0, 16)
    assert as_bytes(digests(Message(2, scopes(SCOPE), [], [], []))) == expected(SCOPE, SCOPE)
    empty = pa.array([None, None], pa.string()).fill_null("")
    assert as_bytes(digests(Message(2, scopes(SCOPE), [None], [], [empty]))) == expected(of_text(b""), of_text(b""))


TEXT = pa.array(["a", "b"])


@pytest.mark.parametrize(
    ("nulls", "words", "texts"),
    [
        ([np.zeros(1, np.bool_)], [], []),
        ([], [np.zeros(3, np.uint64)], []),
        ([], [np.zeros(2, np.uint32)], []),
        ([], [], [TEXT.slice(1)]),
        ([], [], [TEXT.cast(pa.large_string())]),
        ([], [], [TEXT.dictionary_encode()]),
        ([], [], [pa.array(["a", None])]),
    ],
    ids=["short mask", "long numbers", "small numbers", "short text", "wide text", "coded text", "null text"],
)
def test_parts_that_do_not_fit_together_never_reach_machine_code(nulls: list, words: list, texts: list) -> None:
    with pytest.raises(ValueError, match="message"):
        Message(2, scopes(SCOPE), nulls, words, texts)


@pytest.mark.parametrize(
    ("compiler", "told"),
    [("/nowhere/cc", "No such file"), (f"{sys.executable} -c 'raise SystemExit(\"no\")'", "no")],
    ids=["absent", "failing"],
)
def test_a_library_that_cannot_be_built_is_told_and_leaves_nothing(
    compiler: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    assert told in str(build(tmp_path / "library.so"))
    assert not list(tmp_path.iterdir())


def test_something_else_in_its_place_is_no_library(tmp_path: Path) -> None:
    (tmp_path / "library.so").write_text("no library")
    with pytest.raises(OSError, match="library"):
        MachineCode(tmp_path / "library.so")


def test_a_library_of_another_source_is_not_called(
    machine_code: MachineCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("ingestcore.machine_code.building.source_digest", lambda: "of another source")
        assert build(tmp_path / "library.so") is None
    with pytest.raises(OSError, match="another source"):
        MachineCode(tmp_path / "library.so")
