"""s3-lister: finds objects below a prefix, each version once, and hands them on to the downloader."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ingestcore.runtime.service import Service
from services.s3_lister.settings import ListerSettings

if TYPE_CHECKING:
    from ingestcore.runtime.service import Context, OpenSource


def build(context: Context) -> OpenSource:
    from ingestcore.datasets.secrets import resolve
    from ingestcore.stores.leases import RedisLeases
    from services.s3_lister.source import Lister

    leases = RedisLeases(resolve(context.platform.redis_url, os.environ))
    return lambda name: Lister(name, context, leases)


SERVICE = Service(
    name="s3-lister",
    summary="Polls prefixes, routes keys to datasets, emits new and changed objects",
    settings=ListerSettings,
    build=build,
    consumes=None,
    produces=("objects",),
    takes="s3",
)
