"""Hand-written pages with drawn regions: what stands between two marks is replaced, the rest is left alone.

<!-- drawn: NAME -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

_REGION: Final = re.compile(r"^<!-- drawn: (?P<name>[\w-]+) -->\n(?P<body>.*?)^<!-- end -->$", re.M | re.S)
_BEGIN: Final = re.compile(r"^<!-- drawn:", re.M)


class PageError(Exception):
    """A page and what is drawn into it do not fit each other. The message says what to write or to remove."""


def filled(page: str, drawn: Mapping[str, str]) -> str:
    """-> the page with every region as drawn.

    Raises PageError: a region nobody draws, one that is drawn and stands nowhere, or one without its end.
    """
    found = [region["name"] for region in _REGION.finditer(page)]
    if len(found) != len(_BEGIN.findall(page)):
        raise PageError("a region is not closed: write `<!-- end -->` below it, on a line of its own")
    for name in found:
        if name not in drawn:
            raise PageError(f"nothing draws the region {name}; known: {', '.join(sorted(drawn))}")
    for name in drawn:
        if found.count(name) != 1:
            raise PageError(f"the region {name} stands {found.count(name)} times: write `<!-- drawn: {name} -->` once")
    return _REGION.sub(lambda at: f"<!-- drawn: {at['name']} -->\n{drawn[at['name']].strip()}\n<!-- end -->", page)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """-> a Markdown table. A bar in a cell is escaped."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
