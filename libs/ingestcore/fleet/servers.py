"""Which servers a fleet uses: those the environment names, or embedded ones. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ingestcore.datasets.config_file import Config
from ingestcore.datasets.registry import Registry
from ingestcore.datasets.secrets import SecretMissing, resolve
from ingestcore.settings import Platform

_VARIABLES = {
    "kafka": ("INGEST_KAFKA_BOOTSTRAP", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKERS"),
    "s3": ("INGEST_S3_ENDPOINT_URL", "S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    "redis": ("INGEST_REDIS_URL", "REDIS_URL"),
    "postgres": ("POSTGRES_URL",),
}
"""Names by which each server may be given, the first set one counts."""

_STANDARD = {
    "kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "s3": "S3_ENDPOINT_URL",
    "redis": "REDIS_URL",
    "postgres": "POSTGRES_URL",
}
_CREDENTIALS = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
)
_ALWAYS = ("kafka", "s3", "redis")
_TO_COME = "postgresql://embedded"


def wanted_servers(config: Config, had: Collection[str]) -> tuple[str, ...]:
    """-> servers a fleet needs: Postgres only where a sink of the files names it by its variable.

    had  servers that were embedded here before: what is in force may name them
    """
    named = any("${POSTGRES_URL" in sink.postgres.dsn for sink in config.sinks.values() if sink.postgres)
    return (*_ALWAYS, "postgres") if named or "postgres" in had else _ALWAYS


def with_embedded(environ: Mapping[str, str]) -> dict[str, str]:
    """-> the environment as processes will see it, with stand-ins for addresses of servers that are started first."""
    return {_STANDARD["postgres"]: _TO_COME, **environ}


def reaching(environ: Mapping[str, str], offered: Mapping[str, str]) -> dict[str, str]:
    """-> the environment, with servers that are offered. Credentials go with their server: an operator's own for
    another S3 are no good at an embedded one."""
    foreign = _CREDENTIALS if "AWS_ACCESS_KEY_ID" in offered else ()
    return {**{name: value for name, value in environ.items() if name not in foreign}, **offered}


def given_servers(
    environ: Mapping[str, str], own: Mapping[str, Mapping[str, str]] | None = None
) -> dict[str, dict[str, str]]:
    """-> servers the environment names, each with the variables that reach it.

    own: endpoint fields of the servers embedded last time. Such an address, still exported in an operator's shell, is
    no reason not to start the server.
    """
    given = {}
    for server, names in _VARIABLES.items():
        address = next((environ[name] for name in names if environ.get(name)), "")
        if address and address not in (own or {}).get(server, {}).values():
            given[server] = {_STANDARD[server]: address}
    return given


def platform_of(environ: Mapping[str, str]) -> Platform:
    """-> settings of this process's environment, with the servers of the mapping. Raises pydantic.ValidationError."""
    servers = {name: next(iter(v.values())) for name, v in given_servers(environ).items()}
    named = {"kafka_bootstrap": "kafka", "s3_endpoint_url": "s3", "redis_url": "redis"}
    chosen: dict[str, Any] = {setting: servers[server] for setting, server in named.items() if server in servers}
    return Platform(**chosen)


def quiet(settings: Platform) -> Platform:
    """-> settings for a command: librdkafka's own log lines would bury its one message."""
    return settings.model_copy(update={"kafka_options": {"log_level": "0", **settings.kafka_options}})


def buckets_of(registry: Registry, environ: Mapping[str, str]) -> set[str]:
    """-> buckets of sources and sinks at the platform's own S3."""
    lakes = [sink.parquet for sink in registry.sinks().values() if sink.parquet]
    places = [source.s3 for source in registry.sources().values() if source.s3 is not None]
    named = [place.bucket for place in places if place.endpoint_url is None]
    named += [lake.uri.removeprefix("s3://").partition("/")[0] for lake in lakes if lake.endpoint_url is None]
    found = set()
    for name in named:
        try:
            found.add(resolve(name, environ))
        except SecretMissing:
            continue  # the service says so, with its own environment at hand
    return found
