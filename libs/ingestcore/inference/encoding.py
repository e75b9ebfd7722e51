"""Whether bytes are text at all, in which encoding, and what to do where it is not one that is read."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Final

from ingestcore.datasets.encodings import UTF_8, encoding_named

_MARKS: Final = (  # UTF-32 first: its little-endian mark starts with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHER_FORMATS: Final = (
    (b"PAR1", "Parquet"),
    (b"PK\x03\x04", "a zip archive (or an Excel workbook)"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (b"BZh", "compressed with bzip2"),
    (b"\xfd7zXZ", "compressed with xz"),
    (b"ORC", "ORC"),
    (b"Obj\x01", "Avro"),
    (b"%PDF", "PDF"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook"),
)


@dataclass(frozen=True, slots=True)
class Encoding:
    """`name` as iconv and Python know it; `guessed`: nothing in the bytes says so for certain."""

    name: str
    guessed: bool = False

    @property
    def is_read(self) -> bool:
        """Whether the platform reads it as it is."""
        try:
            encoding_named(self.name)
        except ValueError:
            return False
        return True

    def to_utf8(self, data: bytes) -> bytes:
        """-> the same text as UTF-8; a character cut at the end is left out."""
        return codecs.getincrementaldecoder(self.name)("replace").decode(data).encode()


def other_format(data: bytes) -> str:
    """-> what the bytes are where they are not CSV at all, else ""."""
    for magic, name in _OTHER_FORMATS:
        if data.startswith(magic):
            return name
    text = data.removeprefix(codecs.BOM_UTF8).lstrip()
    if text[:2] in (b'{"', b"[{") or text[:5] == b"<?xml" or text[:9].lower() == b"<!doctype":
        return "XML or HTML" if text[:1] == b"<" else "JSON"
    if b"\0" in data and encoding_of(data).is_read:
        return "binary"
    return ""


def encoding_of(data: bytes) -> Encoding:
    """-> the encoding of a file's first bytes; what is not UTF-8 and has no mark is guessed."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return Encoding(name)
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(data)
    except UnicodeDecodeError:
        # ISO 8859-1 has control characters where Windows has quotation marks and the euro sign.
        windows = any(0x80 <= byte < 0xA0 for byte in data)
        return Encoding("windows-1252" if windows else "iso-8859-1", guessed=True)
    return Encoding(UTF_8)
