"""`python -m ingestcore.pages [FOLDER]`: draw the tables of the pages in a folder (`docs`). `make docs` runs it."""

from __future__ import annotations

import sys
from pathlib import Path

from ingestcore.pages.drawn import PAGES
from ingestcore.pages.regions import PageError, filled


def main(folder: Path) -> int:
    """Write every page that is stale. -> exit code."""
    for name, draw in PAGES.items():
        path = folder / name
        try:
            before = path.read_text(encoding="utf-8")
            after = filled(before, draw())
        except (PageError, OSError) as error:
            sys.stderr.write(f"{path}: {error}\n")
            return 1
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{path}: drawn anew\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2] or ["docs"])))
