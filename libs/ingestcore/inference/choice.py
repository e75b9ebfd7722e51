"""Which of many files to look at: some of every kind, spread over each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from ingestcore.inference.names import extension_of, stem_of


@dataclass(frozen=True, slots=True)
class Chosen:
    """heads: files whose first bytes are enough; sampled: those of which more rows are read."""

    sampled: tuple[str, ...]
    heads: tuple[str, ...]


def choose(names: Sequence[str], most: int, sampled_of_a_kind: int) -> Chosen:
    """-> at most `most` files, of every kind about as many. A kind: names of one folder at the top that begin and end
    alike."""
    kinds: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        top = name.partition("/")[0] if "/" in name else ""
        kinds.setdefault((top, stem_of(name), extension_of(name)), []).append(name)
    spread = [[kind[place] for place in _spread(len(kind))] for kind in kinds.values()]
    rounds = list(zip_longest(*spread))
    taken = [(turn, name) for turn, names_ in enumerate(rounds) for name in names_ if name is not None][:most]
    return Chosen(
        tuple(name for turn, name in taken if turn < sampled_of_a_kind),
        tuple(name for turn, name in taken if turn >= sampled_of_a_kind),
    )


def _spread(count: int) -> Iterator[int]:
    """0, the last, the middle, the quarters, …: each prefix is spread over the whole."""
    seen: set[int] = set()
    parts = 1
    while len(seen) < count:
        for part in range(parts + 1):
            place = (count - 1) * part // parts
            if place not in seen:
                seen.add(place)
                yield place
        parts *= 2
