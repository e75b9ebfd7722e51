"""Opens every Kafka client, and says in one sentence why one gets no answer.

A broker's refusal reaches librdkafka beside the calls, as an error event: the call itself only times out. So each
client notes what it was told last.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from ingestcore.datasets.secrets import MASK, SecretMissing, is_secret_name, resolve
from ingestcore.kafka import options
from ingestcore.kafka.errors import KafkaRefused, error_of, is_refused, meaning, refused
from ingestcore.settings import Platform
from ingestcore.stage import Retriable

_UNTRUSTED: Final = "certificate verify failed"
_HANDSHAKE: Final = "handshake failed"
_SAID: Final = re.compile(r"^(?:\w+://)?(?P<address>[^\s/]+:\d+)/\w+: (?P<words>.*?)(?: \(after .*\))?$", re.S)
_CREDENTIALS: Final = ("sasl.username", "sasl.password")
_LOOK_SECONDS: Final = 3.0
_METADATA_SECONDS: Final = 20.0
_METADATA_TRY_SECONDS: Final = 5.0
"""A refusal is told after this long, silence only after the whole time."""


class _Untrusted:
    """A certificate that was not accepted. librdkafka says no more than that, so we look at it once ourselves: in a
    thread, since whoever polls may have others to serve meanwhile."""

    def __init__(self, address: str, words: str, trusted: str | None) -> None:
        """trusted: file of those who may have signed it."""
        self.why = words
        self._looking = threading.Thread(target=self._look, args=(address, trusted), daemon=True)
        self._looking.start()

    def wait(self) -> None:
        self._looking.join(2 * _LOOK_SECONDS)

    def _look(self, address: str, trusted: str | None) -> None:
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError, ValueError):
            context = ssl.create_default_context(cafile=trusted if trusted and os.path.isfile(trusted) else None)
            try:
                with (
                    socket.create_connection((host, int(port)), timeout=_LOOK_SECONDS) as plain,
                    context.wrap_socket(plain, server_hostname=host),
                ):
                    pass
            except ssl.SSLCertVerificationError as error:
                self.why = f"the certificate of {address} is not accepted: {error.verify_message}"


class Heard:
    """What the brokers told one client last.

    refusal  why they, or we, want no connection; a later failure of another kind replaces it
    hint     of what may be wrong with a connection that only broke
    down     no broker is connected
    """

    def __init__(self, wanted: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """wanted, config: options before and after their references were replaced."""
        self._refusal: KafkaRefused | None = None
        self.hint = ""
        self.down = False
        self.client: Any = None
        """A weak reference to whose these are."""
        self._wanted, self._config = wanted, dict(config)
        self._untrusted: _Untrusted | None = None

    @property
    def refusal(self) -> KafkaRefused | None:
        untrusted = self._untrusted
        return refused(KafkaError._SSL, untrusted.why) if untrusted else self._refusal

    def clear(self) -> None:
        """A broker has answered."""
        self._refusal, self.hint, self.down, self._untrusted = None, "", False, None

    def __call__(self, error: KafkaError) -> None:
        address, words = _split(error.str())
        if _UNTRUSTED in words:
            self._untrusted = self._untrusted or _Untrusted(address, words, self._config.get("ssl.ca.location"))
        elif is_refused(error):
            self._refusal, self._untrusted = refused(error.code(), words), None
            if error.code() == KafkaError._AUTHENTICATION:
                self._take_new_password()
        elif error.code() in (KafkaError._TRANSPORT, KafkaError._RESOLVE):
            self._refusal, self._untrusted = None, None
            # A mere "disconnected" says nothing, and each time in other words.
            self.hint = words if error.code() == KafkaError._RESOLVE or _HANDSHAKE in words else ""
        elif error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.down = True

    def _take_new_password(self) -> None:
        """A file that a reference names may hold another one by now."""
        with contextlib.suppress(SecretMissing):
            now = _completed(self._wanted)
            client = self.client and self.client()
            if client is not None and any(now.get(name) != self._config.get(name) for name in _CREDENTIALS):
                self._config |= {name: now.get(name) for name in _CREDENTIALS}
                # Not from here: this is a callback of the client, which ends the process when it is called from one.
                given = tuple(now.get(name, "") for name in _CREDENTIALS)
                threading.Thread(target=client.set_sasl_credentials, args=given, daemon=True).start()

    def silence(self, what: str, words: str) -> Exception:
        """-> KafkaRefused or Retriable: why `what` did not come about; `words`: what the call itself says. May take
        seconds."""
        untrusted = self._untrusted
        if untrusted is not None:
            untrusted.wait()
        if self.refusal is not None:
            return self.refusal
        return Retriable(f"{what}: {self.hint or words}")


def _split(text: str) -> tuple[str, str]:
    """-> address of the broker and what it said, without the milliseconds, which differ each time."""
    found = _SAID.match(text)
    return (found["address"], found["words"]) if found else ("", text)


class _Hearing:
    """What the three kinds of client share."""

    heard: Heard

    def _listen(self, config: Mapping[str, Any]) -> None:
        self.heard = config["error_cb"]
        self.heard.client = weakref.ref(self)

    def failed(self, error: KafkaException | TimeoutError, what: str) -> Exception:
        """-> KafkaRefused or Retriable for a call that failed. Not for a reader that has partitions: it looks for error
        events first, and a record that waits before them would be lost."""
        client: Any = self
        with contextlib.suppress(KafkaException):  # a fatal error is raised again by whatever is called next
            client.poll(0)
        return self.why(error, what)

    def why(self, error: KafkaException | TimeoutError, what: str) -> Exception:
        """-> the same of a client that is polled anyway."""
        if isinstance(error, TimeoutError):
            return self.heard.silence(what, "no answer in time")
        cause = error_of(error)
        return meaning(cause, what) if is_refused(cause) else self.heard.silence(what, cause.str())


class Admin(_Hearing, AdminClient):
    """Raises KafkaRefused, SecretMissing: the options can't be right."""

    def __init__(self, platform: Platform) -> None:
        with _usable(options.client(platform)) as config:
            self._listen(config)
            super().__init__(config)

    def metadata(self) -> Any:
        """-> brokers and topics this user may see. Raises KafkaRefused, Retriable: nothing answers."""
        deadline = time.monotonic() + _METADATA_SECONDS
        while True:
            try:
                return self.list_topics(timeout=_METADATA_TRY_SECONDS)
            except KafkaException as error:
                failure = self.failed(error, "Kafka does not answer")
                if isinstance(failure, KafkaRefused) or time.monotonic() > deadline:
                    raise failure from error


class Reader(_Hearing, Consumer):
    """wanted: of `options.consumer` or `options.group_member`. Raises KafkaRefused, SecretMissing."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        with _usable(wanted) as config:
            self._listen(config)
            super().__init__(config)


class Writer(_Hearing, Producer):
    """wanted: of `options.producer`. Raises KafkaRefused, SecretMissing."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        with _usable(wanted) as config:
            self._listen(config)
            super().__init__(config)


@contextlib.contextmanager
def _usable(wanted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """-> options with their references replaced, read anew for each client. What librdkafka does not take becomes a
    message that holds no secret."""
    config = _completed(wanted)
    config["error_cb"] = Heard(wanted, config)
    try:
        yield config
    except (KafkaException, ValueError, TypeError) as error:
        text = error_of(error).str() if isinstance(error, KafkaException) else str(error)
        for name, value in config.items():
            if is_secret_name(name) and isinstance(value, str) and value:
                text = text.replace(value, MASK)
        raise KafkaRefused(
            f"no Kafka client can be made with these options: {text}. Mend INGEST_KAFKA_OPTIONS"
        ) from None


def _completed(wanted: Mapping[str, Any]) -> dict[str, Any]:
    done = {}
    for name, value in wanted.items():
        try:
            done[name] = resolve(value, os.environ) if isinstance(value, str) else value
        except SecretMissing as error:
            raise SecretMissing(f"Kafka option {name}: {error}") from None
    return done
