"""Names as operators write them: snake_case or camelCase keys, kebab-case names of things."""

from __future__ import annotations

import re
from typing import Final

DEFAULT_TENANT: Final = "default"
"""Whose data it is where nobody says so."""

NAME_RULE = "lower-case letters, digits, - and _, beginning with a letter or digit, at most 63"

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def snake(key: str) -> str:
    """`batchSize` -> `batch_size`."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: "_" + found[1].lower(), key).rstrip("_")


def is_name(text: str) -> bool:
    """Whether sources, datasets and sinks may be called so."""
    return bool(_NAME.fullmatch(text))


def as_name(text: str) -> str:
    """-> the name an operator probably wanted: `Zip Codes` -> `zip-codes`."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63] or "name"
