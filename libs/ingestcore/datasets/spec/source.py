"""A source: where objects or events come from, and which dataset they are of."""

from __future__ import annotations

import fnmatch

from pydantic import Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from ingestcore.datasets.http_source import HttpSource
from ingestcore.datasets.names import DEFAULT_TENANT
from ingestcore.datasets.spec.s3 import S3Source
from ingestcore.datasets.spec_values import Name, Spec


class SourceSpec(Spec):
    """One source: `s3`, or `http`."""

    tenant: Name = DEFAULT_TENANT
    """Whose data it is; kept apart everywhere"""

    s3: S3Source | None = None
    """Objects in a bucket, and where they are"""

    http: HttpSource | None = None
    """Events that producers post, and how they prove who they are"""

    provenance: dict[str, str] = Field(default_factory=dict)
    """`purpose`, `classification`, `ingestedBy`, `parentId`, `batchId`, `observedAt`: on every row"""

    route: dict[str, Name] | None = None
    """Ordered: key pattern → dataset, the first match wins"""

    dataset: Name | None = None
    """Where there is no `route`: the dataset of all objects or events; left out: the source's name"""

    @property
    def objects(self) -> S3Source:
        """Where the objects of an `s3` source are. Raises ValueError: it is none."""
        if self.s3 is None:
            raise ValueError("this source has no objects: it is no `s3` source")
        return self.s3

    @model_validator(mode="after")
    def _of_one_kind(self) -> SourceSpec:
        if self.s3 is None and self.http is None:
            raise ValueError("`s3` is missing: s3 with its bucket, or http with its auth for webhooks")
        if self.s3 is not None and self.http is not None:
            raise ValueError("`s3` and `http` are two sources: give each a name of its own")
        if self.http is not None and self.route is not None:
            raise ValueError("`route` picks datasets by object keys: write `dataset` for a source of webhooks")
        return self

    @field_validator("provenance")
    @classmethod
    def _known_names(cls, value: dict[str, str]) -> dict[str, str]:
        known = ("purpose", "classification", "ingestedBy", "parentId", "batchId", "observedAt")
        named = {to_camel(name): text for name, text in value.items()}
        unknown = sorted(set(named) - set(known))
        if unknown:
            raise ValueError(f"unknown provenance: {', '.join(unknown)}; known: {', '.join(known)}")
        return named

    def dataset_of(self, key: str, source: str) -> str | None:
        """-> dataset of an object key; None: no pattern matches."""
        if self.route is None:
            return self.dataset or source
        relative = key.removeprefix(self.objects.prefix)
        last = relative.rpartition("/")[2]
        for pattern, dataset in self.route.items():
            if fnmatch.fnmatchcase(relative if "/" in pattern else last, pattern):
                return dataset
        return None
