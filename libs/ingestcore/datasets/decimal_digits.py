"""How specs write decimals: the type with its digits, and bounds that are exactly of it."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

MAX_PRECISION: Final = 38
"""Digits of a decimal: what 128 bits hold."""

_WITH_DIGITS = re.compile(r"\s*(\w+)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)\s*")


def decimal_digits(text: str) -> tuple[int, int]:
    """`decimal(10,2)` -> precision and scale. Raises ValueError with what to write."""
    found = _WITH_DIGITS.fullmatch(text)
    if found is None:
        if ")" not in text:
            raise ValueError(f'{text!r} is cut off: in {{ }} a comma ends the text, so write "decimal(10,2)" in quotes')
        raise ValueError(f"{text!r} is no decimal: decimal(10,2), 10 digits in all and 2 of them after the point")
    precision, scale = int(found[2]), int(found[3] or 0)
    if found[1].lower() != "decimal":
        raise ValueError(f"{text!r} is not known here: decimal({precision},{scale})")
    if not 1 <= precision <= MAX_PRECISION:
        raise ValueError(f"decimal has 1 to {MAX_PRECISION} digits, not {precision}: decimal({MAX_PRECISION},{scale})")
    if scale > precision:
        raise ValueError(
            f"{scale} digits after the point are more than all {precision}: decimal({precision},{precision})"
        )
    return precision, scale


_PLAIN = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_EXACT_DIGITS: Final = 15
"""Digits of a number in a file that certainly come through reading it as a 64-bit float."""


def decimal_text(value: float | int | str) -> str:
    """A bound as it was read from a file -> its digits, without an exponent. Raises ValueError with what to write."""
    if isinstance(value, str):
        return value
    exact = Decimal(repr(value))
    if isinstance(value, float) and len(exact.as_tuple().digits) > _EXACT_DIGITS:
        raise ValueError(f"{value!r} has too many digits for a number: write it in quotes")
    return format(exact, "f")


def exact_decimal(text: str, precision: int, scale: int) -> Fraction:
    """-> the value of a text in a spec. Raises ValueError: it is not exactly one of the type."""
    if _PLAIN.fullmatch(text):
        value = Fraction(text)
        unscaled = value * 10**scale
        if unscaled.denominator == 1 and abs(unscaled) < 10**precision:
            return value
    raise ValueError(f"{text!r} is not {wanted(precision, scale)}")


def wanted(precision: int, scale: int) -> str:
    """-> what to write in a file, for messages."""
    return f"a decimal number with at most {precision - scale} digits before and {scale} after the point"
