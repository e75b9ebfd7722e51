"""Decimals of a fixed number of digits: read exactly, vectorised.

Written like a float without an exponent: `7`, `+7`, `-0.5`, `.5`, `1.`. Zeros that change nothing (`007`, `1.500` of
two places) are welcome; a value that would have to be rounded or cut is none of the type.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_ONLY_DECIMALS: Final = b"0123456789+-."
_SAFE_LENGTH: Final = 38
"""pyarrow's cast wraps around from 39 digits on: longer texts are checked, and stripped of their zeros, first."""


def parse_decimals(text: pa.Array, precision: int, scale: int) -> pa.Array:
    """-> decimal128(precision, scale); null where not of the type. `text`: binary without empty values."""
    kind = pa.decimal128(precision, scale)
    if _is_plain(text):
        try:
            return text.cast(pa.string()).cast(kind)
        except pa.ArrowInvalid:
            pass  # some value is not of the type: which?
    fits = pc.match_substring_regex(text, rf"\A[ \t]*{_grammar(precision, scale)}[ \t]*\z")
    clean = pc.ascii_trim(pc.if_else(fits, text, pa.scalar(None, text.type)).cast(pa.string()), " \t")
    if _longest(clean) > _SAFE_LENGTH:
        clean = pc.replace_substring_regex(clean, r"\A([+-]?)0*", r"\10")
        clean = pc.replace_substring_regex(clean, rf"(\.\d{{0,{scale}}})0*\z", r"\1")
    return clean.cast(kind)


def _grammar(precision: int, scale: int) -> str:
    """-> regular expression of the values that have an exact place in the type."""
    before = precision - scale
    whole = rf"0*\d{{1,{before}}}" if before else "0+"
    bare = rf"\d{{1,{scale}}}0*" if scale else "0+"
    return rf"[+-]?(?:{whole}(?:\.\d{{0,{scale}}}0*)?|\.{bare})"


def _is_plain(text: pa.Array) -> bool:
    """Whether pyarrow's cast accepts of these texts just what the grammar does: it takes exponents too."""
    if _longest(text) > _SAFE_LENGTH:
        return False
    _, offsets, data = text.buffers()
    ends = np.frombuffer(offsets, np.int32)[[text.offset, text.offset + len(text)]].tolist()
    return data is None or not bytes(data[slice(*ends)]).translate(None, _ONLY_DECIMALS)


def _longest(text: pa.Array) -> int:
    return pc.max(pc.binary_length(text)).as_py() or 0
