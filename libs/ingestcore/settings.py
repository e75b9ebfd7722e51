"""Platform settings: one frozen object, built once from the environment, passed down. Units are in the names.

Every name is read from `INGEST_<NAME>`; the endpoints also from the names operators already use.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ingestcore.datasets.spec import Seconds, Size


def _options(value: Any) -> Any:
    """`a=b,c=d` or a JSON object -> librdkafka options."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("{"):
        import orjson

        return {str(k): str(v) for k, v in orjson.loads(value).items()}
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if any(not sep for _, sep, _ in pairs):
        raise ValueError("write librdkafka options as name=value,name=value or as a JSON object")
    return {name.strip(): text.strip() for name, _, text in pairs}


Options = Annotated[dict[str, str], NoDecode, BeforeValidator(_options)]


class Settings(BaseSettings):
    """Manners of all settings classes: frozen, read once from the environment. The text below a field is its
    description, from which `docs/configuration.md` is drawn."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", use_attribute_docstrings=True, hide_input_in_errors=True
    )


class Platform(Settings):
    """What every service needs to know."""

    model_config = SettingsConfigDict(env_prefix="INGEST_", populate_by_name=True)

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092",
        validation_alias=AliasChoices("INGEST_KAFKA_BOOTSTRAP", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    )
    """Kafka: `host:port,host:port`"""

    kafka_options: Options = Field(default_factory=dict, repr=False)
    """Any librdkafka option of all clients, `name=value,name=value` or JSON; overrides what the platform sets.
    References (`${VAR}`, `${file:path}`) are resolved where a client is made"""

    consumer_options: Options = Field(default_factory=dict, repr=False)
    """The same, of consumers"""

    producer_options: Options = Field(default_factory=dict, repr=False)
    """The same, of producers"""

    s3_endpoint_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("INGEST_S3_ENDPOINT_URL", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    )
    """S3; left out: AWS. Credentials by the SDK's chain (`AWS_ACCESS_KEY_ID` ...)"""

    redis_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        validation_alias=AliasChoices("INGEST_REDIS_URL", "REDIS_URL"),
        repr=False,
    )
    """Redis: checkpoints and leases of sources. May hold references, too"""

    topic_prefix: str = "ingest."
    """Of topics and, with `-`, of consumer groups"""

    partitions: int = Field(default=8, gt=0, le=1024)
    """Of topics that are made; never change it on a fleet with data"""

    replication_factor: int | None = Field(default=None, gt=0)
    """Of topics that are made; left out: 3, or the number of brokers where there are fewer"""

    replica: str = "0"
    """Stable per process of a service; left out: the pod's ordinal, else 0"""

    state_dir: Path = Path(".ingest/state")
    """Local state (dedupe runs, temp files); may be lost, never shared by two processes"""

    work_uri: str | None = Field(default=None, pattern=r"^s3://[^/]{3,}(/.*)?$")
    """Where listers keep snapshots; left out: `_ingest/` of the first Parquet sink"""

    temp_max_age_seconds: Seconds = 86_400.0
    """Temp and spool files older than this are removed at start"""

    log_level: str = Field(default="INFO", validation_alias=AliasChoices("INGEST_LOG_LEVEL", "LOG_LEVEL"))
    """`DEBUG`, `INFO`, `WARNING` or `ERROR`"""

    log_format: str = Field(default="json", pattern="^(json|console)$")
    """`json`: one object a line; `console`: for people"""

    admin_host: str = "127.0.0.1"
    """Address where a process serves `/health/*`, `/metrics` and `/admin/*`"""

    admin_port: int = Field(default=0, ge=0, le=65535)
    """Their port; 0: any free one, which `ingest status` tells. `ingest up` serves all of its processes together, by
    default on 8080"""

    admin_token: SecretStr | None = Field(default=None, min_length=1)
    """What `/admin/*` asks for (`Authorization: Bearer ...`); left out: nothing. Set it where the host is not
    loopback"""

    start_drained: bool = False
    """Take nothing until `POST /admin/resume`"""

    metrics_label_sets: int = Field(default=500, gt=0)
    """Tenants × sources × datasets told apart in metrics; further ones count as `other`"""

    commit_bytes: Size = 32 << 20
    """A transaction is committed once it holds this much input and output"""

    commit_seconds: Seconds = 0.4
    """... or is this old, whichever comes first"""

    session_timeout_ms: int = Field(default=10_000, ge=1000)
    """Milliseconds. A replica that is silent this long loses its partitions"""

    transaction_timeout_ms: int = Field(default=10_000, ge=1000)
    """Milliseconds. A stuck transaction holds up readers for about twice this"""

    drain_seconds: Seconds = 20.0
    """Deadline of a clean stop"""

    max_row_bytes: Size = Field(default=1 << 20, gt=0, le=32 << 20)
    """A longer record is dead-lettered"""

    storm_limit: int = Field(default=1000, gt=0)
    """Bad rows of one block that are dead-lettered one by one; the further ones go as one letter"""

    @field_validator("replica")
    @classmethod
    def _replica_word(cls, value: str) -> str:
        if not value or not all(c.isalnum() or c in "-_." for c in value):
            raise ValueError("letters, digits, '-', '_' and '.' only")
        return value

    def group(self, service: str) -> str:
        """-> consumer group of a service, or of a sink by its name."""
        return f"{self.topic_prefix.rstrip('.').replace('.', '-') or 'ingest'}-{service}"


def replica_of(environ: dict[str, str] | None = None) -> str:
    """Replica id: INGEST_REPLICA, else the pod's ordinal (StatefulSet host name `name-3`), else 0."""
    env = os.environ if environ is None else environ
    if env.get("INGEST_REPLICA"):
        return env["INGEST_REPLICA"]
    host, _, ordinal = env.get("HOSTNAME", "").rpartition("-")
    return ordinal if host and ordinal.isdigit() and "KUBERNETES_SERVICE_HOST" in env else "0"
