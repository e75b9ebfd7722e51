"""Checkpoints and leases of sources in Redis.

`checkpoint:<tenant>:<source>`  where a source stands: a string an operator may read, edit or delete
`lease:<tenant>:<source>`       who acts now, `<fence> <holder>`; expires by itself
`fence:<tenant>:<source>`       counts the leases granted, so that a late holder is known by its smaller number

A checkpoint is replaced only by the holder of the lease and only if it still is what that holder last saw. Every
script may be sent twice: an answer that got lost is no harm. Nothing here needs more than Redis 7.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from ingestcore.stage import Retriable
from ingestcore.stores.objects import Refused

ANSWER_SECONDS: Final = 5.0
"""A Redis that takes longer is treated as away; the caller waits and asks again."""

# A lease that nobody took since it ran out is still its last holder's: the count of grants has not moved.
_MINE: Final = """
local function mine(lease, fence, value, milliseconds)
  local current = redis.call('GET', lease)
  if current == value then redis.call('PEXPIRE', lease, milliseconds) return true end
  if current then return false end
  local number = tonumber(string.match(value, '^%d+'))
  if tonumber(redis.call('GET', fence) or '0') > number then return false end
  redis.call('SET', fence, string.match(value, '^%d+'))
  redis.call('SET', lease, value, 'PX', milliseconds)
  return true
end
"""

_ACQUIRE: Final = """
local current = redis.call('GET', KEYS[1])
if current then
  if string.match(current, '^%d+ (.*)$') == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
  return current
end
if tonumber(redis.call('GET', KEYS[2]) or '0') < tonumber(ARGV[3]) then redis.call('SET', KEYS[2], ARGV[3]) end
local value = redis.call('INCR', KEYS[2]) .. ' ' .. ARGV[1]
redis.call('SET', KEYS[1], value, 'PX', ARGV[2])
return value
"""

_RENEW: Final = (
    _MINE
    + """
if mine(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 1 end
return 0
"""
)

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""

_REPLACE: Final = (
    _MINE
    + """
if not mine(KEYS[1], KEYS[2], ARGV[1], ARGV[2]) then return 'fenced' end
local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'string' and kind ~= 'none' then return 'edited' end
local current = redis.call('GET', KEYS[3]) or ''
if current == ARGV[4] then return 'done' end
if current ~= ARGV[3] then return 'edited' end
redis.call('SET', KEYS[3], ARGV[4])
return 'done'
"""
)


class Outcome(StrEnum):
    """What became of a replacement. EDITED: the checkpoint is not what was last seen; FENCED: another holder acts."""

    DONE = "done"
    EDITED = "edited"
    FENCED = "fenced"


class NotText(ValueError):
    """The checkpoint's key holds something that is no text."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as granted. `name`: `<tenant>:<source>`; `fence` grows with every grant of that name."""

    name: str
    holder: str
    fence: int

    @property
    def value(self) -> str:
        return f"{self.fence} {self.holder}"

    @classmethod
    def of(cls, name: str, value: str) -> Grant:
        fence, _, holder = value.partition(" ")
        return cls(name, holder, int(fence))


class Leases(Protocol):
    """What a source needs of the lease store. Every method raises Retriable while it is away, Refused while it wants
    other credentials."""

    def acquire(self, name: str, holder: str, seconds: float, above: int) -> Grant:
        """-> the lease in force: ours if its holder is `holder`. A new fence is larger than `above`."""

    def renew(self, grant: Grant, seconds: float) -> bool:
        """-> still ours? An expired lease that nobody else took is."""

    def release(self, grant: Grant) -> None:
        """Give it up; one that is not ours any more is left alone."""

    def read(self, name: str) -> str:
        """-> the checkpoint, "" if there is none. Raises NotText."""

    def check(self) -> None:
        """Is it there?"""

    def replace(self, grant: Grant, expected: str, new: str, seconds: float) -> Outcome:
        """Set the checkpoint if it is still `expected` and the lease is still ours (which renews it)."""


class RedisLeases:
    """`Leases` in Redis. Thread-safe."""

    def __init__(self, url: str) -> None:
        """Raises Refused: that is no address of Redis."""
        try:
            # Waiting is the caller's: a client that retries by itself hides that Redis is away.
            self._client = redis.Redis.from_url(
                url,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=15,
            )
            place = urlsplit(url)
            if "@" in place.path or place.netloc.count("@") > 1:
                raise ValueError("a password with `@` or `/` in clear: half of it would pass for the host")
            self._where = f"Redis at {place.hostname or place.path}" + (f":{place.port}" if place.port else "")
            self._client.connection_pool.make_connection()  # options are looked at only now; nothing is sent
        except (ValueError, TypeError, redis.RedisError):
            # The reason may hold a piece of the password.
            raise Refused(
                "REDIS_URL is no address of Redis: write redis://user:password@host:port/0 (rediss:// for TLS, options "
                "as in docs/security.md), special characters of the password as %XX"
            ) from None

    def acquire(self, name: str, holder: str, seconds: float, above: int) -> Grant:
        value = self._run(_ACQUIRE, (f"lease:{name}", f"fence:{name}"), holder, _milliseconds(seconds), above)
        return Grant.of(name, value.decode())

    def renew(self, grant: Grant, seconds: float) -> bool:
        keys = (f"lease:{grant.name}", f"fence:{grant.name}")
        return bool(self._run(_RENEW, keys, grant.value, _milliseconds(seconds)))

    def release(self, grant: Grant) -> None:
        self._run(_RELEASE, (f"lease:{grant.name}",), grant.value)

    def read(self, name: str) -> str:
        try:
            value: Any = self._client.get(f"checkpoint:{name}")
        except redis.RedisError as error:
            if str(error).startswith("WRONGTYPE"):
                raise NotText(f"checkpoint:{name} is no string") from error
            raise self._away(error) from error
        try:
            return bytes(value or b"").decode()
        except UnicodeDecodeError as error:
            raise NotText(f"checkpoint:{name} is not UTF-8 text") from error

    def check(self) -> None:
        self._run("return 1", ())

    def replace(self, grant: Grant, expected: str, new: str, seconds: float) -> Outcome:
        keys = (f"lease:{grant.name}", f"fence:{grant.name}", f"checkpoint:{grant.name}")
        answer = self._run(_REPLACE, keys, grant.value, _milliseconds(seconds), expected, new)
        return Outcome(answer.decode())

    def _run(self, script: str, keys: tuple[str, ...], *arguments: str | int) -> Any:
        try:
            return self._client.eval(script, len(keys), *keys, *map(str, arguments))
        except redis.RedisError as error:
            raise self._away(error) from error

    def _away(self, error: redis.RedisError) -> Exception:
        if isinstance(error, redis.AuthenticationError):
            return Refused(f"{self._where} refuses these credentials: mend the user or password in REDIS_URL")
        if isinstance(error, NoPermissionError):
            return Refused(
                f"{self._where} does not let this user do what a lister needs: grant it the commands and keys of "
                "docs/security.md (ACL SETUSER)"
            )
        if "CERTIFICATE" in str(error).upper() or "WRONG_VERSION_NUMBER" in str(error):
            return Refused(
                f"no TLS connection to {self._where} ({_tls_reason(error)}): check its certificate, and ssl_ca_certs, "
                "ssl_certfile and ssl_keyfile in REDIS_URL"
            )
        if isinstance(error, redis.TimeoutError):
            return Retriable(f"{self._where} does not answer within {ANSWER_SECONDS:g} s: waiting for it")
        if isinstance(error, redis.ConnectionError):
            return Retriable(f"{self._where} is away: waiting for it")
        return Retriable(f"{self._where} answers: {str(error).splitlines()[0]}: waiting for it")


def _tls_reason(error: Exception) -> str:
    """-> `certificate verify failed: certificate has expired`, out of OpenSSL's line."""
    found = re.search(r"\[SSL: \w+\] (.*?)(?: \(_ssl|\.?$)", str(error))
    return found[1] if found else "refused"


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
