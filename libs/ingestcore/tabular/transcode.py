"""Single-byte encodings -> UTF-8, which is what everything behind the row ends reads."""

from __future__ import annotations

import codecs
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ingestcore.datasets.encodings import UTF_8

_NO_CHARACTER: Final = "\udcff"
"""Stands for an undefined byte, and becomes 0xFF: a byte that is in no UTF-8, whatever stands beside it."""


def to_utf8(data: bytes, encoding: str) -> bytes:
    """-> the same text in UTF-8; a byte the encoding does not define becomes one that is no UTF-8."""
    if encoding == UTF_8 or data.isascii():
        return data
    text, _ = codecs.charmap_decode(data, "strict", _table(encoding))
    return text.encode("utf-8", "surrogateescape")


def undefined_bytes(data: bytes, encoding: str) -> NDArray[np.int64]:
    """-> offsets of bytes that a single-byte encoding does not define."""
    undefined = _undefined(encoding)
    if not undefined or not len(data.translate(None, _all_but(undefined))):
        return np.empty(0, np.int64)
    return np.flatnonzero(np.isin(np.frombuffer(data, np.uint8), np.frombuffer(undefined, np.uint8)))


@lru_cache(maxsize=64)
def _table(encoding: str) -> str:
    """-> the characters of the bytes 0 to 255."""
    return "".join(bytes([byte]).decode(encoding, "replace") for byte in range(256)).replace("\ufffd", _NO_CHARACTER)


def _undefined(encoding: str) -> bytes:
    return bytes(byte for byte, character in enumerate(_table(encoding)) if character == _NO_CHARACTER)


@lru_cache(maxsize=64)
def _all_but(wanted: bytes) -> bytes:
    return bytes(byte for byte in range(256) if byte not in wanted)
