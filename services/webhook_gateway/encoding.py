"""Content-Encoding, with a cap on size and ratio: a small body may not become a large one. Pure."""

from __future__ import annotations

import zlib
from typing import Final

from services.webhook_gateway.problems import Kind, Problem

_ACCEPTED: Final = ((b"accept-encoding", b"gzip, deflate"),)
_FREE_BYTES: Final = 64 << 10
"""What may come out whatever the ratio: short texts repeat a lot."""


def decoded(body: bytes, encoding: bytes, *, max_bytes: int, max_ratio: int) -> bytes:
    """-> the body as it was before Content-Encoding. Raises Problem."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name in (b"gzip", b"x-gzip"):
        return _inflated(body, zlib.MAX_WBITS | 16, max_bytes, max_ratio)
    if name == b"deflate":
        # RFC 9110 means zlib; some senders mean raw deflate.
        wbits = zlib.MAX_WBITS if body[:1] and (body[0] & 0x0F) == 8 else -zlib.MAX_WBITS
        return _inflated(body, wbits, max_bytes, max_ratio)
    shown = name[:40].decode("latin-1")
    raise Problem(Kind.MEDIA_TYPE, f"Content-Encoding {shown!r} is not taken: gzip, deflate or none", headers=_ACCEPTED)


def _inflated(body: bytes, wbits: int, max_bytes: int, max_ratio: int) -> bytes:
    limit = min(max_bytes, max(_FREE_BYTES, len(body) * max_ratio))
    done = b""
    rest = body
    while True:
        stream = zlib.decompressobj(wbits)
        try:
            done += stream.decompress(rest, limit + 1 - len(done))
        except zlib.error as error:
            raise Problem(Kind.BAD_ENCODING, f"the compressed body is damaged ({error})") from None
        if len(done) > limit:
            raise Problem(Kind.TOO_LARGE, f"the body is more than {limit} bytes when decompressed")
        if not stream.eof:
            raise Problem(Kind.BAD_ENCODING, "the compressed body ends too early")
        rest = stream.unused_data
        if not rest or wbits != zlib.MAX_WBITS | 16:
            break
    if rest:
        raise Problem(Kind.BAD_ENCODING, "bytes follow the compressed body")
    return done
