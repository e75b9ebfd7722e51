"""What is wrong with a configuration file: where it is, and what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from ingestcore.stage import OperatorNeeded

KeyPath = tuple[str | int, ...]
"""Place in a configuration: keys and list indices from the top."""


class Level(StrEnum):
    """An error keeps the configuration from being used; a warning is advice."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `path` like `datasets.zipcodes.fields.zip_code.type`; `line` counts from 1, 0: the whole file."""

    file: str
    path: str
    line: int
    message: str
    instead: str = ""
    level: Level = Level.ERROR

    def as_dict(self) -> dict[str, str | int]:
        """-> what `ingest validate --json` prints."""
        return {
            "level": self.level.value,
            "file": self.file,
            "path": self.path,
            "line": self.line,
            "message": self.message,
            "instead": self.instead,
        }

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f" {self.path}:" if self.path else ""
        advice = f" -> {self.instead}" if self.instead else ""
        return f"{place}:{where} {self.message}{advice}"


class ConfigError(OperatorNeeded):
    """The configuration can't be used. `problems` holds every error and warning found."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem whose line is not looked up yet."""

    path: KeyPath
    message: str
    instead: str = ""
    level: Level = Level.ERROR

    def at(self, file: str, lines: Mapping[KeyPath, int]) -> Problem:
        """-> the problem, at the line of the path or of the nearest thing around it that was written."""
        line = next((lines[self.path[:n]] for n in range(len(self.path), -1, -1) if self.path[:n] in lines), 0)
        return Problem(file, shown(self.path), line, self.message, self.instead, self.level)


def shown(path: KeyPath) -> str:
    """-> `a.b[0]["key with dots.csv"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[\w-]+|\*", part):
            text += f".{part}" if text else part
        else:
            text += f'["{part}"]'
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """-> the known word that was probably meant, or ""."""
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in known], n=1, cutoff=0.6)
    return next((name for name in known if close and name.lower() == close[0]), "")
