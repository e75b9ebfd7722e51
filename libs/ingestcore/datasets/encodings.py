"""How files may be encoded: UTF-8, or one byte a character with ASCII in its place.

In these every quote, delimiter and line end is one byte that means nothing else, so records are found on raw bytes.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

UTF_8: Final = "utf-8"

_SAME_AS_UTF_8: Final = ("utf-8", "utf-8-sig", "ascii")
_SINGLE_BYTE: Final = re.compile(
    r"iso8859-\d+|cp125\d|koi8-[rtu]|cp(?:437|720|737|775|8[56]\d)|mac-\w+|tis-620|kz1048|ptcp154"
)
_ASCII: Final = bytes(range(128))
_COMMON: Final = "utf-8, windows-1252, iso-8859-1, iso-8859-15"


def encoding_named(text: str) -> str:
    """-> the encoding under its usual name, which Python's codecs and iconv know too. Raises ValueError with advice."""
    try:
        name = codecs.lookup(text).name
    except LookupError:
        raise ValueError(f"{text!r} is no encoding known here; known: {_COMMON}, ...") from None
    if name in _SAME_AS_UTF_8:
        return UTF_8
    if not _SINGLE_BYTE.fullmatch(name) or _ASCII.decode(name, "replace") != _ASCII.decode("ascii"):
        raise ValueError(f"{text} is not read, {_why_not(name)}: convert the files, e.g. `iconv -f {text} -t UTF-8`")
    return name.replace("iso8859", "iso-8859").replace("cp125", "windows-125")


def spelled(encoding: str) -> str:
    """-> the name as messages give it."""
    return "UTF-8" if encoding == UTF_8 else encoding


def _why_not(name: str) -> str:
    if name.startswith(("utf-16", "utf-32")):
        return "its delimiters and line ends take several bytes"
    return "a byte of its characters may look like a quote, a delimiter or a line end"
