"""What a broker says beside a call, as an operator reads it."""

import socket
import ssl
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from ingestcore.kafka.clients import Heard, _split
from ingestcore.testing.tls import HOST, Authority


@pytest.mark.parametrize(
    "after",
    ["", " (after 310ms in state AUTH_REQ)", " (after 310ms in state AUTH_REQ, 11 identical error(s) suppressed)"],
)
def test_a_refusal_reads_the_same_each_time(after: str) -> None:
    text = f"sasl_ssl://127.0.0.1:9093/bootstrap: SASL authentication error: invalid credentials{after}"
    assert _split(text) == ("127.0.0.1:9093", "SASL authentication error: invalid credentials")


def test_whoever_polls_does_not_wait_for_the_look_at_a_certificate(tmp_path: Path) -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(Authority(tmp_path / "theirs").issue("broker"))
    trusted = Authority(tmp_path / "ours").file
    with socket.create_server((HOST, 0)) as listener:
        listener.settimeout(30)
        address = f"{HOST}:{listener.getsockname()[1]}"
        words = "SSL handshake failed: certificate verify failed"
        heard = Heard({}, {"ssl.ca.location": str(trusted)})
        heard(KafkaError(KafkaError._SSL, f"ssl://{address}/bootstrap: {words}"))
        # The callback is back, though the broker says nothing before the next lines.
        assert words in str(heard.refusal)
        plain, _ = listener.accept()
        with plain, pytest.raises(ssl.SSLError):
            serving.wrap_socket(plain, server_side=True)
    assert f"the certificate of {address} is not accepted: unable to get" in str(heard.silence("it stopped", ""))
