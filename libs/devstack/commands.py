"""The command line tools of a stack: Kafka's scripts, redis-cli and psql in `<folder>/bin`, aimed at this stack."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from devstack.endpoints import Endpoints
from devstack.java import find_java
from devstack.kafka_jars import jars_folder
from devstack.postgres import psql_command

KAFKA_TOOLS = {
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
    "kafka-consumer-groups.sh": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-console-consumer.sh": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer.sh": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-get-offsets.sh": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-transactions.sh": "org.apache.kafka.tools.TransactionsCommand",
}
# A tool lives for a second: the cheap collector and the first compiler are all it needs.
TOOL_JVM = (
    *("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)

_KAFKA_SCRIPT = """\
#!/bin/sh
# Written at every start of this stack; --bootstrap-server defaults to its broker.
[ -d {jars} ] || {install} >/dev/null || exit 1
for argument; do
    case "$argument" in
        --bootstrap-server|--bootstrap-server=*) exec {java} "$@" ;;
    esac
done
exec {java} --bootstrap-server {broker} "$@"
"""

_REDIS_SCRIPT = """\
#!/bin/sh
# Written at every start of this stack; the address defaults to its Redis.
DEVSTACK_REDIS_URL={url} exec {redis_cli} "$@"
"""

_PSQL_SCRIPT = """\
#!/bin/sh
# Written at every start of this stack; the address defaults to its Postgres.
exec {psql} "$@"
"""


def bin_folder(folder: Path) -> Path:
    return folder / "bin"


def write_commands(folder: Path, endpoints: Endpoints) -> None:
    """Write the scripts for the servers that have an address. Raises StackError when Kafka's have no Java."""
    target = bin_folder(folder)
    target.mkdir(parents=True, exist_ok=True)
    if endpoints.kafka:
        for name, tool in KAFKA_TOOLS.items():
            _write(target / name, _kafka_script(tool, endpoints.kafka))
    if endpoints.redis:
        script = _REDIS_SCRIPT.format(url=shlex.quote(endpoints.redis), redis_cli=_python_module("devstack.redis_cli"))
        _write(target / "redis-cli", script)
    psql = psql_command(endpoints.postgres) if endpoints.postgres else None
    if psql:
        _write(target / "psql", _PSQL_SCRIPT.format(psql=psql))


def import_path() -> Path:
    """The folder from which `devstack` is imported, for child processes."""
    return Path(__file__).parent.parent


def _kafka_script(tool: str, broker: str) -> str:
    # An external Kafka needs no jars here before the first tool is run: the script fetches them.
    return _KAFKA_SCRIPT.format(
        jars=shlex.quote(str(jars_folder())),
        install=_python_module("devstack") + " install",
        java=shlex.join([find_java(), *TOOL_JVM, "-cp", f"{jars_folder()}/*", tool]),
        broker=shlex.quote(broker),
    )


def _python_module(name: str) -> str:
    path = shlex.quote(f"PYTHONPATH={import_path()}")
    return f"env {path} {shlex.quote(sys.executable)} -m {name}"


def _write(path: Path, text: str) -> None:
    # A rename, since the shell may be reading the old script.
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.chmod(0o755)
    temporary.replace(path)
