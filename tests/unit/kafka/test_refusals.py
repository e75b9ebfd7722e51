"""What a broker says beside a call, as an operator reads it."""

import pytest

from ingestcore.kafka.clients import _split


@pytest.mark.parametrize(
    "after",
    ["", " (after 310ms in state AUTH_REQ)", " (after 310ms in state AUTH_REQ, 11 identical error(s) suppressed)"],
)
def test_a_refusal_reads_the_same_each_time(after: str) -> None:
    text = f"sasl_ssl://127.0.0.1:9093/bootstrap: SASL authentication error: invalid credentials{after}"
    assert _split(text) == ("127.0.0.1:9093", "SASL authentication error: invalid credentials")
