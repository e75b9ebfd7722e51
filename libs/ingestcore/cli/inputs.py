"""Files that a command is pointed at: local paths, or objects of the S3 that services use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ingestcore.cli.errors import EXIT_CONFIGURATION, OperatorError
from ingestcore.cli.target import offered
from ingestcore.fleet.servers import platform_of, reaching
from ingestcore.stores.objects import Changed, Missing

if TYPE_CHECKING:
    from ingestcore.datasets.spec import S3Access, S3Source
    from ingestcore.stores.objects import ObjectStore

S3: Final = "s3://"
PIECE_BYTES: Final = 4 << 20
START_PIECE_BYTES: Final = 1 << 20
MAX_KEYS: Final = 100_000
"""Of a listing: what lies behind is told, not looked at."""


@dataclass(frozen=True, slots=True)
class File:
    """uri: as an operator names it; key: in its bucket, or path with `/`; etag: "" of a local file.

    read  (first byte, size) -> these stored bytes
    """

    uri: str
    key: str
    etag: str
    size: int
    read: Callable[[int, int], bytes]

    def pieces(self, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
        """-> the stored bytes in order. Raises OperatorError: the file is gone or was changed meanwhile."""
        for first in range(0, self.size, piece_bytes):
            try:
                yield self.read(first, min(piece_bytes, self.size - first))
            except (Missing, Changed) as error:
                raise OperatorError(f"{error}; begin again") from error


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` -> bucket, key. Raises OperatorError."""
    bucket, _, key = uri.removeprefix(S3).partition("/")
    if len(bucket) < 3:
        raise OperatorError(f"{uri} is no S3 address: s3://bucket/prefix/", EXIT_CONFIGURATION)
    return bucket, key


def open_s3(folder: Path, place: S3Access | None = None) -> ObjectStore:
    """-> the S3 that a source or sink names, else the environment, else the fleet in the folder, else AWS."""
    from ingestcore.stores.s3 import open_store
    from ingestcore.stores.s3_role import role_of

    # Without keys of the place or of the fleet the SDK looks for them itself: temporary ones have a token, too.
    keys = place if place is not None and place.access_key_id is not None else None
    fleet = offered(folder)
    variables = reaching(os.environ, fleet)
    return open_store(
        endpoint_url=(place.endpoint_url if place else None) or platform_of(variables).s3_endpoint_url,
        region=(place.region if place else None) or variables.get("AWS_REGION"),
        path_style=place.path_style if place else None,
        access_key_id=keys.access_key_id if keys else fleet.get("AWS_ACCESS_KEY_ID"),
        secret_access_key=keys.secret_access_key if keys else fleet.get("AWS_SECRET_ACCESS_KEY"),
        role=role_of(place, "cli"),
    )


def listed(store: ObjectStore, bucket: str, prefix: str) -> tuple[list[File], bool]:
    """-> objects below a prefix, without folder markers, and whether there are more than are listed here."""
    entries = (entry for entry in store.list(bucket, prefix) if not entry.key.endswith("/"))
    found = [
        File(
            f"{S3}{bucket}/{entry.key}",
            entry.key,
            entry.etag,
            entry.size,
            partial(store.get_range, bucket, entry.key, entry.etag),
        )
        for entry in islice(entries, MAX_KEYS)
    ]
    return found, next(entries, None) is not None


def one_file(name: str, folder: Path, place: S3Source | None = None) -> File:
    """-> a local file, or an object. Raises OperatorError: it is not there."""
    if not name.startswith(S3):
        return local([name])[0]
    bucket, key = split_uri(name)
    found, _ = listed(open_s3(folder, place), bucket, key)
    for file in found:
        if file.key == key:
            return file
    near = f"below it are {', '.join(file.uri for file in found[:3])}" if found else f"nothing in {bucket} begins so"
    raise OperatorError(f"{name}: no such object; {near}", EXIT_CONFIGURATION)


def local(names: Sequence[str]) -> list[File]:
    """-> local files; of a folder all that are in it. Raises OSError."""
    paths: list[Path] = []
    for name in names:
        path = Path(name)
        paths += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return [File(str(path), path.as_posix(), "", path.stat().st_size, partial(_read, path)) for path in paths]


def _read(path: Path, first: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(first)
        data = file.read(size)
    if len(data) != size:
        raise Changed(f"{path} is shorter than it was")
    return data


def start_of(file: File, most: int) -> tuple[bytes, bool]:
    """-> the first bytes of a file, inflated, and whether they are all. Of a damaged one: what comes before."""
    from ingestcore.tabular.inflate import Damaged
    from ingestcore.tabular.rehearsal import inflate, is_gzip

    stored = file.pieces(min(START_PIECE_BYTES, most))
    first = next(stored, b"")
    pieces: Iterator[bytes] = chain([first], stored)
    if is_gzip(file.key, first):
        pieces = inflate(pieces)
    data = bytearray()
    try:
        for piece in pieces:
            data += piece
            if len(data) > most:
                return bytes(data[:most]), False
    except Damaged:
        return bytes(data), False
    return bytes(data), True
