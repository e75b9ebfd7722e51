"""What the S3 client raises -> what the platform knows: away, missing, changed or refused, in one sentence each."""

from __future__ import annotations

from typing import Any, Final

from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from ingestcore.stores.objects import Changed, Missing, Refused, Unavailable

THROTTLING: Final = frozenset(
    ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "RequestThrottled")
)
TRANSIENT: Final = frozenset(("RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted"))
ABSENT: Final = frozenset(("NoSuchKey", "NoSuchVersion", "NotFound"))
OTHER_VERSION: Final = frozenset(("PreconditionFailed", "ConditionalRequestConflict", "InvalidRange"))

TROUBLE: Final = (sdk.ClientError, sdk.BotoCoreError, ResponseParserError, OSError)
"""What the SDK raises when a request fails, whoever is to blame."""

ADVICE: Final = {
    "NoSuchBucket": "there is no such bucket: create it or mend the bucket's name in the configuration",
    "InvalidBucketName": "this is no valid bucket name: mend it in the configuration",
    "AccessDenied": "these credentials may not do this: grant s3:ListBucket, s3:GetObject and, for sinks and work "
    "folders, s3:PutObject and s3:DeleteObject",
    "InvalidAccessKeyId": "the access key id is unknown there: check the credentials, and that the endpoint is the "
    "one they belong to",
    "SignatureDoesNotMatch": "the secret access key is wrong: check the credentials",
    "ExpiredToken": "the session token has expired: renew the credentials",
    "InvalidToken": "the session token is not valid: renew the credentials",
    "RequestTimeTooSkewed": "this machine's clock differs too much from the server's: set the clock",
    "PermanentRedirect": "the bucket is in another region: set `region`",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set `region`",
    "InvalidObjectState": "the object is archived: restore it from its storage class first",
}
"""Error code -> what is wrong and what to do. Anything else is passed on in the server's words."""


def translate(error: Exception, doing: str, where: str) -> Exception:
    """-> Unavailable, Missing, Changed or Refused for an exception of the SDK.

    doing  what was tried, as `reading s3://bucket/key`; where: the endpoint, for connection errors
    """
    if isinstance(error, sdk.ClientError):
        return _answered(error, doing)
    if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError | sdk.CredentialRetrievalError):
        return Refused(
            f"{doing}: no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, an AWS profile or role, "
            f"or access_key_id and secret_access_key in the configuration ({_first_line(error)})"
        )
    if isinstance(error, sdk.SSLError) and "CERTIFICATE" in str(error).upper():
        return Refused(f"{doing}: no TLS connection to {where}: check its certificate and AWS_CA_BUNDLE")
    if isinstance(error, sdk.EndpointConnectionError):
        return Unavailable(f"{doing}: {_unreached(error)} {where}: waiting for it")
    if isinstance(error, sdk.ConnectTimeoutError | sdk.ReadTimeoutError):
        return Unavailable(f"{doing}: {where} does not answer in time: waiting for it")
    if isinstance(error, sdk.IncompleteReadError):
        got = error.kwargs
        return Unavailable(f"{doing}: the body ended after {got['actual_bytes']} of {got['expected_bytes']} bytes")
    if isinstance(error, ResponseParserError):
        return Unavailable(f"{doing}: what {where} answers is no answer of such a server: is a proxy in between?")
    if isinstance(error, sdk.HTTPClientError | sdk.ConnectionError | OSError):
        return Unavailable(f"{doing}: the connection to {where} broke: waiting for it")
    return Refused(f"{doing}: {_first_line(error)}")


def _answered(error: sdk.ClientError, doing: str) -> Exception:
    answer: Any = error.response
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(answer.get("Error", {}).get("Code", status))
    said = str(answer.get("Error", {}).get("Message", "")).strip() or "no message"
    if code in THROTTLING or status == 429 or (status == 503 and code == "503"):
        return Unavailable(f"{doing}: S3 asks for a lower rate ({code})", throttled=True)
    if code in TRANSIENT or status >= 500:
        return Unavailable(f"{doing}: S3 failed with {status} {code}: {said}")
    if code in ADVICE:
        return Refused(f"{doing}: {ADVICE[code]} ({code})")
    if code in ABSENT or status == 404:
        return Missing(f"{doing}: there is no such object")
    if code in OTHER_VERSION or status in (409, 412, 416):
        return Changed(f"{doing}: the object is not the version that was asked for ({code})")
    if status in (301, 307):
        return Refused(f"{doing}: {ADVICE['PermanentRedirect']} ({status})")
    if status in (401, 403):
        return Refused(f"{doing}: {ADVICE['AccessDenied']} ({code}: {said})")
    return Refused(f"{doing}: S3 refuses it with {status} {code}: {said}")


def _unreached(error: sdk.EndpointConnectionError) -> str:
    cause = repr(error.kwargs.get("error", ""))
    if "NameResolution" in cause or "gaierror" in cause:
        return "the name cannot be resolved of"
    if "refused" in cause:
        return "nothing listens at"
    return "cannot connect to"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
