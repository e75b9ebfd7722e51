"""What names say: words of column names, names of codes and of identifiers."""

from __future__ import annotations

import re
from typing import Final


def _set(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


CODES: Final = _set(
    "zip zipcode postal postcode postalcode plz cap phone telephone tel mobile cell fax msisdn imei fips ssn ein tin "
    "vat isbn issn ean upc gtin iban bic swift npi code codes version naics sic hs icd cpt ndc cas mac ip"
)
"""Last words of names whose digits are no number: nobody adds them up, and zeros in front count."""

_IDENTIFIERS: Final = _set(
    "id ids uuid guid key pk code number no nr num ref reference sku isbn issn ean upc gtin vin imei iata icao "
    "isin cusip lei npi ticker zip zipcode postcode iban symbol slug email username hash etag"
)
_NO_IDENTIFIERS: Final = _set(
    "paid unpaid prepaid valid invalid avoid void bid grid rapid solid liquid fluid covid hybrid android squid"
)
_OF_TIME: Final = _set("date day time timestamp datetime ts dt at on when since until")
_CHANGED: Final = _set("updated modified changed edited")


def words_of(name: str) -> list[str]:
    """`orderId`, `order_id`, `Order ID` -> `order`, `id`."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+", name)]


def is_code(name: str) -> bool:
    """Whether digits in a column of this name are a code."""
    words = words_of(name)
    return bool(words) and (words[-1] in CODES or words[0] in ("zip", "postal", "phone"))


def is_identifier(name: str) -> bool:
    """Whether a column of this name may identify a row."""
    words = words_of(name)
    if not words:
        return False
    last = words[-1]
    glued = len(last) > 4 and last.endswith("id") and last not in _NO_IDENTIFIERS
    return last in _IDENTIFIERS or words[0] == "id" or glued


def is_of_time(name: str) -> bool:
    """Whether a column of this name holds dates or times."""
    return any(word in _OF_TIME for word in words_of(name))


def is_revision(name: str) -> bool:
    """Whether a column of this name says which version of a row is newer."""
    words = words_of(name)
    if words in (["revision"], ["rev"], ["version"], ["row", "version"]):
        return True
    return any(word in _CHANGED for word in words) and (len(words) == 1 or is_of_time(name) or words[0] == "last")
