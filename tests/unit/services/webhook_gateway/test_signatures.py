"""Proofs of origin: published vectors, rotation, time, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ingestcore.datasets.http_source import Auth, Scheme
from ingestcore.datasets.webhook_signing import proof
from services.webhook_gateway.signatures import Cause, UnusableSecret, checker

NOW = 1_700_000_000.0
BODY = b'{"a": 1}'
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def auth(scheme: str, *secrets: str, **more: Any) -> Auth:
    return Auth.model_validate({"scheme": scheme, "secrets": secrets, **more})


def lower(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.lower().encode(): value.encode() for name, value in headers.items()}


# -- as published


def test_the_vector_of_standard_webhooks() -> None:
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    check = checker(auth("standard-webhooks", STANDARD_SECRET))
    assert check(lower(headers), b'{"test": 2432232314}', 1614265330) is None
    assert check(lower(headers), b'{"test": 2432232315}', 1614265330) is Cause.WRONG


def test_the_example_of_github() -> None:
    signed = b"sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    check = checker(auth("github", "It's a Secret to Everybody"))
    assert check({b"x-hub-signature-256": signed}, b"Hello, World!", NOW) is None
    assert check({b"x-hub-signature-256": signed}, b"Hello, World?", NOW) is Cause.WRONG


def test_the_example_of_slack() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar"
        b"&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack"
        b".com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0"
        b"bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    check = checker(auth("slack", "8f742231b10e8888abcd99yyyzzz85a5"))
    assert check(lower(headers), body, 1531420618) is None
    assert check(lower(headers), body + b" ", 1531420618) is Cause.WRONG


# -- every scheme

EVERY = [
    auth("standard-webhooks", STANDARD_SECRET),
    auth("github", "one"),
    auth("stripe", "one"),
    auth("slack", "one"),
    auth("shopify", "one"),
    auth("hmac", "one"),
    auth("hmac", "one", header="X-Mine", prefix="sha512=", encoding="base64", algorithm="sha512"),
    auth("bearer", "one"),
    auth("basic", "one", username="me"),
]


def other_secret(of: Auth) -> str:
    return "whsec_" + base64.b64encode(b"another secret, 24 bytes").decode() if "whsec_" in of.secrets[0] else "another"


@pytest.mark.parametrize("given", EVERY, ids=lambda a: f"{a.scheme}-{a.algorithm}")
class TestEvery:
    def test_its_own_proof_counts(self, given: Auth) -> None:
        assert checker(given)(lower(proof(given, BODY, id="e1", now=NOW)), BODY, NOW) is None

    def test_nothing_is_missing(self, given: Auth) -> None:
        assert checker(given)({}, BODY, NOW) is Cause.MISSING

    def test_another_secret_is_wrong(self, given: Auth) -> None:
        stranger = given.model_copy(update={"secrets": (other_secret(given),)})
        assert checker(given)(lower(proof(stranger, BODY, id="e1", now=NOW)), BODY, NOW) is Cause.WRONG

    def test_another_body_is_wrong_where_it_is_signed(self, given: Auth) -> None:
        found = checker(given)(lower(proof(given, BODY, id="e1", now=NOW)), BODY + b" ", NOW)
        assert found is (Cause.WRONG if given.scheme.signs else None)

    def test_any_of_the_secrets_counts_while_they_are_rotated(self, given: Auth) -> None:
        both = given.model_copy(update={"secrets": (other_secret(given), *given.secrets)})
        assert checker(both)(lower(proof(given, BODY, id="e1", now=NOW)), BODY, NOW) is None

    @pytest.mark.parametrize(
        ("after", "cause"), [(301, Cause.EXPIRED), (-301, Cause.FUTURE), (299, None), (-299, None)]
    )
    def test_a_signed_time_counts_for_five_minutes(self, given: Auth, after: float, cause: Cause | None) -> None:
        found = checker(given)(lower(proof(given, BODY, id="e1", now=NOW)), BODY, NOW + after)
        assert found is (cause if given.scheme.signs_time else None)


@pytest.mark.parametrize(
    ("scheme", "header"),
    [(Scheme.STANDARD_WEBHOOKS, b"webhook-signature"), (Scheme.STRIPE, b"stripe-signature"), (Scheme.GITHUB, b"")],
)
def test_of_two_signatures_one_must_be_right(scheme: Scheme, header: bytes) -> None:
    given = auth(scheme.value, STANDARD_SECRET)
    headers = lower(proof(given, BODY, id="e1", now=NOW))
    header = header or b"x-hub-signature-256"
    before = {
        Scheme.STANDARD_WEBHOOKS: b"v1,AAAA v1a,BBBB " + headers[header],
        Scheme.STRIPE: headers[header].replace(b",v1=", b",v1=00,v0=11,v1="),
        Scheme.GITHUB: b"sha256=00," + headers[header],
    }[scheme]
    assert checker(given)({**headers, header: before}, BODY, NOW) is None
    assert (
        checker(given)({**headers, header: before.replace(headers[header][-8:], b"00000000")}, BODY, NOW) is Cause.WRONG
    )


@pytest.mark.parametrize("moment", [b"", b"now", b"-1", b"1e9", b"9" * 40, "١".encode()])
def test_a_time_that_is_none_is_refused_whoever_signed_it(moment: bytes) -> None:
    import hmac

    key = base64.b64decode(STANDARD_SECRET[6:])
    signed = base64.b64encode(hmac.digest(key, b"e1." + moment + b"." + BODY, "sha256"))
    headers = {b"webhook-id": b"e1", b"webhook-timestamp": moment, b"webhook-signature": b"v1," + signed}
    assert checker(auth("standard-webhooks", STANDARD_SECRET))(headers, BODY, NOW) in (Cause.MALFORMED, Cause.MISSING)


def test_an_unusable_secret_is_told_without_it() -> None:
    with pytest.raises(UnusableSecret, match="base64") as raised:
        checker(auth("standard-webhooks", "whsec_not base64!"))
    assert "not base64!" not in str(raised.value)
