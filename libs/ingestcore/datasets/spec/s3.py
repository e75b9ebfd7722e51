"""S3 as sources and sinks name it: which server, as whom, where."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from ingestcore.datasets.spec_values import Seconds, Spec

_ROLE_ARN = re.compile(r"arn:[\w-]+:iam::\d*:?role/\S+")


class S3Access(Spec):
    """Which S3 server, and as whom."""

    region: str | None = None
    """Region; left out: the SDK's"""

    endpoint_url: str | None = None
    """Where the server is; left out: `S3_ENDPOINT_URL`, else AWS"""

    path_style: bool | None = None
    """Bucket in the path instead of the host name; left out: yes with an endpoint"""

    access_key_id: str | None = None
    """Left out: the SDK's credential chain. Write a reference, see Secrets"""

    secret_access_key: str | None = None
    """Goes with it"""

    role_arn: str | None = None
    """A role that is assumed with those credentials, see A role in another account"""

    external_id: str | None = Field(default=None, min_length=2, max_length=1224)
    """What the role's owner asks for"""

    role_session_name: str | None = None
    """What the role's owner sees in their logs; left out: `ingest-` and the service's or sink's name"""

    @field_validator("role_arn")
    @classmethod
    def _is_role(cls, value: str | None) -> str | None:
        if value is not None and "${" not in value and not _ROLE_ARN.fullmatch(value):
            raise ValueError(f"{value!r} is no role: arn:aws:iam::123456789012:role/name")
        return value

    @field_validator("role_session_name")
    @classmethod
    def _is_session_name(cls, value: str | None) -> str | None:
        if value is not None and "${" not in value and not re.fullmatch(r"[\w+=,.@-]{2,64}", value, re.ASCII):
            raise ValueError(f"{value!r} is no session name: 2 to 64 letters, digits and + = , . @ - _")
        return value

    @model_validator(mode="after")
    def _of_a_role(self) -> S3Access:
        for name in ("external_id", "role_session_name"):
            if self.role_arn is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is of a role: add role_arn, or leave it out")
        return self


class S3Source(S3Access):
    """Where objects are."""

    bucket: str = Field(min_length=3)
    """The bucket's name"""

    prefix: str = ""
    """Keys that begin so; left out: all"""

    poll_interval: Seconds = 10.0
    """Pause between two listings"""
