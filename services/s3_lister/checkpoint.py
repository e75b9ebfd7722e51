"""The checkpoint as operators see it: one JSON object in Redis."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import orjson

VERSION: Final = 1
ADVICE: Final = "mend it (redis-cli SET), or delete it (redis-cli DEL) to list anew"


class Unreadable(ValueError):
    """The checkpoint, or what it points to, cannot be used: an operator mends or deletes it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a source stands.

    scan         number of the last scan that changed anything
    start_after  the scan under way has dealt with all keys up to this one; "" between scans. May be edited
    snapshot     URI of what has been handed on so far; "": nothing. May be edited
    fence        number of the lease under which it was written
    """

    scan: int = 0
    start_after: str = ""
    snapshot: str = ""
    fence: int = 0

    def encode(self) -> str:
        return orjson.dumps({"version": VERSION} | asdict(self)).decode()

    @classmethod
    def decode(cls, text: str) -> Checkpoint:
        """Raises Unreadable, saying what is wrong and what to write."""
        try:
            stored: Any = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise Unreadable(f"is no JSON ({error})") from error
        if not isinstance(stored, dict):
            raise Unreadable("is no JSON object")
        version = stored.pop("version", None)
        if version != VERSION:
            raise Unreadable(f'has version {version!r}; this service writes and reads "version": {VERSION}')
        unknown = sorted(set(stored) - set(cls.__slots__))
        if unknown:
            raise Unreadable(f"has unknown fields: {', '.join(unknown)}; known: {', '.join(cls.__slots__)}")
        for name in ("scan", "fence"):
            number = stored.get(name, 0)
            if type(number) is not int or number < 0:
                raise Unreadable(f'has a "{name}" that is no whole number')
        for name in ("start_after", "snapshot"):
            if not isinstance(stored.get(name, ""), str):
                raise Unreadable(f'has a "{name}" that is no text; write "" for none')
        snapshot = stored.get("snapshot", "")
        if snapshot and not (snapshot.startswith("s3://") and "/" in snapshot[5:]):
            raise Unreadable('has a "snapshot" that is no s3://bucket/key; write "" for none')
        return cls(**stored)
