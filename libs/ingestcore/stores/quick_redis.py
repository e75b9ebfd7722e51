"""Redis for what is asked with every request: an answer within a moment, or none, and then not asked again at once."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from typing import Any, Final

import hiredis
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from ingestcore.stores.objects import Refused

REST_SECONDS: Final = 1.0
"""After a failure Redis is left alone this long: each request would wait in vain."""
_CONNECTIONS: Final = 16


class RedisAway(Exception):
    """No answer; the message says why, without addresses or passwords."""


class QuickRedis:
    """seconds: until an answer must be there. Raises Refused: that is no address of Redis."""

    def __init__(self, url: str, seconds: float) -> None:
        try:
            self._pool = ConnectionPool.from_url(
                url,
                socket_timeout=None,  # it would make a task of each write; the whole question has a deadline below
                socket_connect_timeout=seconds,
                max_connections=_CONNECTIONS,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError, RedisError):
            raise Refused(
                "the Redis URL of the gateway is no address of Redis: write redis://user:password@host:port/0"
            ) from None
        self._seconds = seconds
        self._rests_until = 0.0
        self.trouble = ""
        """Why it does not answer; "": it does."""

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[str | int | float]) -> Any:
        """-> what a Lua script gives. Raises RedisAway."""
        if time.monotonic() < self._rests_until:
            raise RedisAway(self.trouble)
        digest = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    answer = await self._call("EVALSHA", digest, len(keys), *keys, *arguments)
                except NoScriptError:
                    answer = await self._call("EVAL", script, len(keys), *keys, *arguments)
        except (RedisError, OSError) as error:
            self._rests_until = time.monotonic() + REST_SECONDS
            self.trouble = f"Redis does not answer ({type(error).__name__})"
            raise RedisAway(self.trouble) from error
        self.trouble = ""
        return answer

    async def _call(self, *command: str | int | float) -> Any:
        """Packed by hiredis: redis-py's asynchronous client does that in Python, a microsecond for each key and value,
        and has a layer for retries, which are not wanted here."""
        connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]
            await connection.send_packed_command(packed, check_health=False)
            return await connection.read_response()
        finally:
            await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.aclose()
