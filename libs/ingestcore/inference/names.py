"""Names: of datasets from those of files, of fields from those of columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Final

from ingestcore.datasets.checks import RESERVED_DATASETS
from ingestcore.datasets.names import as_name

_EXTENSION: Final = re.compile(r"(?:\.(?:csv|tsv|psv|txt|dat|tab))?(?:\.(?:gz|gzip))?$", re.IGNORECASE)
_NUMBERED_END: Final = re.compile(r"[-_. (]*\d[\d\-_.:TZ ()]*$")
_GENERIC: Final = frozenset(
    (
        "part",
        "data",
        "export",
        "file",
        "output",
        "out",
        "chunk",
        "dump",
        "table",
        "results",
        "extract",
        "batch",
        "split",
    )
)
_PLAIN: Final = re.compile(r"[^\W\d_]\w*")


def stem_of(name: str) -> str:
    """`a/orders-2024-01.csv.gz` -> `orders`: what the names of one kind of file begin with."""
    base = name.rpartition("/")[2]
    return _NUMBERED_END.sub("", base.removesuffix(extension_of(base)))


def extension_of(name: str) -> str:
    """-> `.csv`, `.csv.gz`, or "" where there is none of a CSV."""
    found = _EXTENSION.search(name)
    return found[0] if found else ""


def folder_of(names: Iterable[str]) -> str:
    """-> the folder all the names are in, with its `/`; "": the top."""
    common = _shared([name.rpartition("/")[0].split("/") for name in names])
    return "/".join(common) + "/" if any(common) else ""


def common_start(texts: Iterable[str]) -> str:
    """-> what all the texts begin with."""
    return "".join(_shared([list(text) for text in texts]))


def _shared(lists: Sequence[Sequence[str]]) -> list[str]:
    places = takewhile(lambda place: len(set(place)) == 1, zip(*lists, strict=False))
    return [place[0] for place in places]


def dataset_name(names: Sequence[str], fallback: str, taken: Iterable[str]) -> str:
    """-> what a group of files may be called: as they begin, else as their folder, else `fallback`."""
    stems = {stem_of(name) for name in names}
    shared = stems.pop() if len(stems) == 1 else common_start(stems).strip("-_. ")
    words = re.sub(r"[^a-z]", "", shared.lower())
    if not words or words in _GENERIC:
        folders = [part for part in folder_of(names).split("/") if part and "=" not in part]
        shared = folders[-1] if folders else shared if words else fallback
    made = as_name(shared)
    used = {*taken, *RESERVED_DATASETS}
    return next(name for name in (made, *(f"{made[:60]}-{n}" for n in range(2, 10_000))) if name not in used)


def field_names(titles: Sequence[str]) -> dict[str, str]:
    """-> by title: the name of its field. A title of letters, digits and _ stays as it is; others become snake_case.

    No two names differ in case alone, and none begins with _ (those are the platform's).
    """
    made: dict[str, str] = {}
    used: set[str] = set()
    for title in sorted(titles, key=lambda title: not _PLAIN.fullmatch(title)):
        name = title if _PLAIN.fullmatch(title) else _snake(title)
        number, wanted = 1, name
        while name.casefold() in used:
            number += 1
            name = f"{wanted}_{number}"
        used.add(name.casefold())
        made[title] = name
    return {title: made[title] for title in titles}


def _snake(title: str) -> str:
    text = re.sub(r"\W+", "_", re.sub(r"%", " percent ", title)).strip("_").lower()
    text = re.sub(r"_+", "_", text)
    return text if _PLAIN.fullmatch(text) else f"column_{text}" if text else "column"
