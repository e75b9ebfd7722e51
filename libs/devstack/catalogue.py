"""All servers a stack can have. A new one is a file with a `Server` class and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from devstack.kafka import Kafka
from devstack.postgres import Postgres
from devstack.seaweedfs import SeaweedFS
from devstack.server import Server, StackError
from devstack.valkey import Valkey

SERVERS: dict[str, Server] = {server.name: server for server in (Kafka(), SeaweedFS(), Valkey(), Postgres())}


def pick(names: Sequence[str]) -> list[Server]:
    """The servers of these names. Raises StackError for an unknown one."""
    unknown = sorted(set(names) - set(SERVERS))
    if unknown:
        raise StackError(f"no such server: {', '.join(unknown)}; there are {', '.join(SERVERS)}")
    return [SERVERS[name] for name in dict.fromkeys(names)]
