"""A stack of its own, since these tests kill its servers, with a misbehaving proxy before S3."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import devstack
from ingestcore.fleet.servers import given_servers
from ingestcore.testing.faults.s3_proxy import S3Proxy


@dataclass(frozen=True)
class Servers:
    """environ: reaches them, S3 by way of the proxy."""

    stack: devstack.Stack
    proxy: S3Proxy
    environ: dict[str, str]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """-> servers that may be killed; also set in this process's environment. Those it names are not touched."""
    before = dict(os.environ)
    for name in _addresses(before):
        del os.environ[name]
    servers = ("kafka", "s3", "redis", "postgres")
    stack = devstack.start(tmp_path_factory.mktemp("stack"), servers=servers)
    proxy = S3Proxy(stack.endpoints.s3)
    environ = {**stack.endpoints.environ(), "S3_ENDPOINT_URL": proxy.url}
    os.environ.update(environ)
    try:
        yield Servers(stack, proxy, environ)
    finally:
        os.environ.clear()
        os.environ.update(before)
        proxy.close()
        stack.stop()


def _addresses(environ: dict[str, str]) -> list[str]:
    """-> variables that name servers."""
    named = {address for given in given_servers(environ).values() for address in given.values()}
    return [name for name, value in environ.items() if value in named]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """-> prints a line past pytest's capturing: which faults struck matters most when a run never ends."""

    def print_at_once(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    return print_at_once


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fleet")
