"""Encodings of files: which are read, and that each of them becomes the same text in UTF-8."""

from __future__ import annotations

import codecs
import encodings.aliases

import numpy as np
import pytest

from ingestcore.datasets.encodings import encoding_named
from ingestcore.tabular.transcode import to_utf8, undefined_bytes


def codec_names() -> list[str]:
    """-> every text codec Python knows."""
    found = {*encodings.aliases.aliases.values(), "koi8_u", "koi8_t", "cp720", "cp737", "cp856", "mac_croatian"}
    found |= {"mac_farsi", "mac_arabic", "mac_romanian", "cp1006", "utf_8_sig", "unicode_escape", "idna", "punycode"}
    names = []
    for name in sorted(found):
        try:
            names.append(codecs.lookup(name).name)
        except LookupError:
            continue  # another platform's
    return names


def read(name: str) -> str | None:
    """-> what the encoding is called here; None: refused."""
    try:
        return encoding_named(name)
    except ValueError:
        return None


SINGLE = sorted({name for name in map(read, codec_names()) if name and name != "utf-8"})


def test_encodings_of_one_byte_a_character_are_read_and_others_are_refused() -> None:
    assert {"windows-1252", "iso-8859-1", "iso-8859-15", "koi8-r", "koi8-u", "cp850", "mac-roman"} <= set(SINGLE)
    refused = {name for name in codec_names() if read(name) is None}
    assert {"shift_jis", "gbk", "gb18030", "big5", "euc_jp", "utf-16", "utf-16-le", "utf-32", "utf-7", "hz"} <= refused
    assert {"cp037", "cp500", "cp864", "iso2022_jp", "idna", "punycode", "unicode-escape"} <= refused


@pytest.mark.parametrize("name", SINGLE)
def test_a_byte_is_a_character_and_ascii_is_in_its_place(name: str) -> None:
    assert bytes(range(128)).decode(name).isascii()
    for byte in range(256):
        assert len(bytes([byte]).decode(name, "replace")) == 1


@pytest.mark.parametrize("name", SINGLE)
def test_what_is_defined_is_the_same_text_in_utf_8_and_what_is_not_is_no_utf_8(name: str) -> None:
    every = [bytes([byte]) for byte in range(256)]
    defined = b"".join(byte for byte in every if byte.decode(name, "replace") != "\ufffd")
    assert to_utf8(defined, name) == defined.decode(name).encode()
    assert not len(undefined_bytes(defined, name))
    undefined = [byte for byte in every if byte not in defined]
    for first in undefined:
        for second in (b"", *undefined):
            data = b"a" + first + second + b"z"
            with pytest.raises(UnicodeDecodeError):
                to_utf8(data, name).decode()
            assert undefined_bytes(data, name).tolist() == list(np.arange(1, len(data) - 1))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("UTF8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("ASCII", "utf-8"),
        ("latin1", "iso-8859-1"),
        ("Latin-1", "iso-8859-1"),
        ("ISO_8859-15", "iso-8859-15"),
        ("l9", "iso-8859-15"),
        ("cp1252", "windows-1252"),
        ("Windows-1252", "windows-1252"),
    ],
)
def test_an_encoding_has_one_name_here_which_is_known_elsewhere(written: str, name: str) -> None:
    assert encoding_named(written) == name
    assert codecs.lookup(name).name == codecs.lookup(written).name or name == "utf-8"
