"""A role assumed at STS: temporary credentials that renew themselves while the store is in use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials
from botocore.exceptions import ClientError

from ingestcore.datasets.spec import S3Access
from ingestcore.stores.objects import Refused, Unavailable
from ingestcore.stores.s3_errors import THROTTLING, TROUBLE, translate

_OWN_CREDENTIALS: Final = frozenset(
    ("InvalidClientTokenId", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException")
)


@dataclass(frozen=True, slots=True)
class Role:
    """external_id: what the role's owner asks for, so that nobody else has us use their role; session_name: what
    their logs show."""

    arn: str
    external_id: str | None = None
    session_name: str = "ingest"


def role_of(access: S3Access | None, user: str) -> Role | None:
    """-> the role that a source or sink names. user: of the role, as its owner's logs show it, unless it names one."""
    if access is None or access.role_arn is None:
        return None
    return Role(access.role_arn, access.external_id, access.role_session_name or f"ingest-{user}"[:64])


def session_as(role: Role, own: boto3.Session, region: str, config: Config) -> boto3.Session:
    """-> a session with the role's credentials, asked for with those of `own` when they are first needed and again
    before they expire (the SDK begins 15 minutes earlier). STS is where the SDK finds it, or AWS_ENDPOINT_URL_STS;
    `config` is how it is spoken to.

    Its clients raise Refused: the role may not be assumed; Unavailable: STS is away.
    """
    made = botocore.session.Session()
    made.register_component("credential_provider", CredentialResolver([_Assumed(role, own, region, config)]))
    return boto3.Session(botocore_session=made, region_name=region)


class _Assumed(CredentialProvider):
    METHOD = "assume-role"

    def __init__(self, role: Role, own: boto3.Session, region: str, config: Config) -> None:
        super().__init__()
        self._role, self._own, self._region, self._config = role, own, region, config

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._assume, self.METHOD)

    def _assume(self) -> dict[str, str]:
        asked: dict[str, Any] = {"RoleArn": self._role.arn, "RoleSessionName": self._role.session_name}
        if self._role.external_id is not None:
            asked["ExternalId"] = self._role.external_id
        where = "STS"
        try:
            sts = self._own.client("sts", region_name=self._region, config=self._config)
            where = sts.meta.endpoint_url
            given = sts.assume_role(**asked)["Credentials"]
        except TROUBLE as error:
            raise _told(error, self._role, where) from error
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }


def _told(error: Exception, role: Role, where: str) -> Exception:
    doing = f"assuming role {role.arn}"
    if not isinstance(error, ClientError):
        return translate(error, doing, where)
    answer: Any = error.response
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, said = str(answer.get("Error", {}).get("Code", status)), answer.get("Error", {}).get("Message", "")
    if code in THROTTLING or status == 429 or status >= 500:
        return Unavailable(f"{doing}: {where} answers {status} {code}: waiting for it", throttled=status < 500)
    if code in _OWN_CREDENTIALS:
        advice = "check the credentials the role is assumed with: access_key_id and secret_access_key, or the SDK's"
    elif role.external_id is None:
        advice = "the role's trust policy must name these credentials; set `external_id` if it asks for one"
    else:
        advice = "the role's trust policy must name these credentials and this `external_id`"
    return Refused(f"{doing}: {where} refuses it ({code}: {said}): {advice}")
