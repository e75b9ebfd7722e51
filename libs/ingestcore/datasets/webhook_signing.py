"""What a producer adds to a post so that a source takes it: the other side of the gateway's checks. Pure."""

from __future__ import annotations

import base64
import hmac

from ingestcore.datasets.http_source import Auth, Scheme


def proof(auth: Auth, body: bytes, *, id: str, now: float) -> dict[str, str]:
    """-> headers.

    auth  references resolved; the first secret signs
    id    of the event, where the scheme has one
    now   seconds since 1970
    """
    secret = auth.secrets[0] if auth.secrets else ""
    moment = str(int(now))
    match auth.scheme:
        case Scheme.STANDARD_WEBHOOKS:
            key = base64.b64decode(secret.removeprefix("whsec_"))
            signed = base64.b64encode(hmac.digest(key, f"{id}.{moment}.".encode() + body, "sha256")).decode()
            return {"webhook-id": id, "webhook-timestamp": moment, "webhook-signature": f"v1,{signed}"}
        case Scheme.GITHUB:
            signed = "sha256=" + hmac.digest(secret.encode(), body, "sha256").hex()
            return {"X-Hub-Signature-256": signed, "X-GitHub-Delivery": id, "X-GitHub-Event": "push"}
        case Scheme.STRIPE:
            signed = hmac.digest(secret.encode(), f"{moment}.".encode() + body, "sha256").hex()
            return {"Stripe-Signature": f"t={moment},v1={signed}"}
        case Scheme.SLACK:
            signed = "v0=" + hmac.digest(secret.encode(), f"v0:{moment}:".encode() + body, "sha256").hex()
            return {"X-Slack-Request-Timestamp": moment, "X-Slack-Signature": signed}
        case Scheme.SHOPIFY:
            signed = base64.b64encode(hmac.digest(secret.encode(), body, "sha256")).decode()
            return {"X-Shopify-Hmac-Sha256": signed, "X-Shopify-Webhook-Id": id}
        case Scheme.HMAC:
            digest = hmac.digest(secret.encode(), body, auth.algorithm)
            signed = digest.hex() if auth.encoding == "hex" else base64.b64encode(digest).decode()
            return {auth.header or "X-Signature": auth.prefix + signed, "Idempotency-Key": id}
        case Scheme.BEARER:
            return {"Authorization": f"Bearer {secret}", "Idempotency-Key": id}
        case Scheme.BASIC:
            pair = base64.b64encode(f"{auth.username}:{secret}".encode()).decode()
            return {"Authorization": f"Basic {pair}", "Idempotency-Key": id}
        case Scheme.OPEN:
            return {"Idempotency-Key": id}
