"""Real Kafka, S3, Redis and Postgres as child processes: for the demo, tests and benchmarks."""

from devstack.endpoints import Endpoints
from devstack.server import StackError
from devstack.stack import Stack, connect, start

__all__ = ["Endpoints", "Stack", "StackError", "connect", "start"]
