"""What the platform says about an object: `ObjectRef` as listed, `ObjectFacts` as every row remembers it."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import lru_cache

import orjson


def object_id(tenant: str, source: str, dataset: str, bucket: str, key: str, etag: str) -> str:
    """-> 32 hex digits: SHA-256 over the length-prefixed parts, cut to 16 bytes. Another ETag is another object."""
    digest = hashlib.sha256()
    for part in (tenant, source, dataset, bucket, key, etag):
        data = part.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """Value of `ingest.objects`: an object as the lister saw it.

    etag           without quotes, as S3 gave it
    size           bytes as stored
    last_modified  ISO 8601, UTC
    first_seen     ISO 8601, UTC: when the lister saw it; `ingestedAt` of its rows
    """

    tenant: str
    source: str
    dataset: str
    bucket: str
    key: str
    etag: str
    size: int
    last_modified: str
    first_seen: str

    @property
    def id(self) -> str:
        return object_id(self.tenant, self.source, self.dataset, self.bucket, self.key, self.etag)

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"

    def encode(self) -> bytes:
        return orjson.dumps(asdict(self) | {"id": self.id})

    @classmethod
    def decode(cls, value: bytes) -> ObjectRef:
        """Raises ValueError: not an ObjectRef, or its id does not fit its parts."""
        try:
            stored = orjson.loads(value)
            given = stored.pop("id")
            ref = cls(**{name: stored[name] for name in cls.__slots__})
        except (KeyError, TypeError, AttributeError, orjson.JSONDecodeError) as error:
            raise ValueError(f"not an object reference: {error!r}") from error
        if ref.id != given:
            raise ValueError(f"object id {given} does not fit its parts")
        return ref


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What rows remember of their object: rides in block headers, in `_object` of typed rows, in dead letters.

    dataset     `name@version`: chosen by the downloader, never resolved again
    provenance  the source's `provenance:` (purpose, ingestedBy, classification …), names as in ProvenanceMetadata
    """

    id: str
    tenant: str
    source: str
    dataset: str
    uri: str
    etag: str
    first_seen: str
    provenance: dict[str, str] = field(hash=False)

    @property
    def table(self) -> str:
        """The dataset's name without its version."""
        return self.dataset.rpartition("@")[0]

    def encode(self) -> str:
        """-> compact JSON text, equal for equal facts."""
        return _encoded(self)

    @classmethod
    def decode(cls, text: str) -> ObjectFacts:
        """Raises ValueError."""
        return _decoded(text)


@lru_cache(maxsize=1024)
def _encoded(facts: ObjectFacts) -> str:
    """One text stands in many messages."""
    return orjson.dumps(asdict(facts), option=orjson.OPT_SORT_KEYS).decode()


@lru_cache(maxsize=1024)
def _decoded(text: str) -> ObjectFacts:
    try:
        return ObjectFacts(**orjson.loads(text))
    except (TypeError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not object facts: {error!r}") from error
