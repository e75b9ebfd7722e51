"""`python -m ingestcore.pages [CHECKOUT]`: draw what the code says into pages and schemas. `make docs` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from ingestcore.pages.drawn import DRAWN
from ingestcore.pages.regions import PageError


def main(checkout: Path) -> int:
    """Write every file that is stale. -> exit code."""
    for name, draw in DRAWN.items():
        path = checkout / name
        try:
            before = path.read_text(encoding="utf-8") if path.exists() else ""
            after = draw(before)
        except (PageError, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            return 1
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path}: drawn anew\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2])))
