"""A real broker with TLS, passwords and permissions, beside the plain listener that tests rule it by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

import devstack
from devstack.kafka import extra_properties
from ingestcore.testing.own_servers import own_servers
from ingestcore.testing.tls import HOST, Authority

RIGHTS: Final = {
    ResourceType.TOPIC: (
        *(AclOperation.READ, AclOperation.WRITE, AclOperation.DESCRIBE),
        *(AclOperation.CREATE, AclOperation.DESCRIBE_CONFIGS, AclOperation.ALTER_CONFIGS),
    ),
    ResourceType.GROUP: (AclOperation.READ, AclOperation.DESCRIBE),
    ResourceType.TRANSACTIONAL_ID: (AclOperation.WRITE, AclOperation.DESCRIBE),
}
"""What the platform's user needs."""
_ITERATIONS = 4096
_WAIT_SECONDS = 20.0

_PROPERTIES = """\
listeners=SECURE://{host}:{{secure}}
advertised.listeners=SECURE://{host}:{{secure}}
listener.security.protocol.map=SECURE:SASL_SSL
ssl.keystore.type=PEM
ssl.keystore.location={certificate}
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.secure.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""
"""SECURE is for clients; the plain listener and the controller are the super user's."""


class SecuredKafka:
    """One broker of the dev stack. `plain` and `secure` are bootstrap addresses.

    plain_users  name -> password for SASL/PLAIN, fixed when the broker starts
    """

    def __init__(self, folder: Path, plain_users: dict[str, str] | None = None) -> None:
        self.authority = Authority(folder / "tls")
        certificate = self.authority.issue("broker")
        users = " ".join(f'user_{name}="{password}"' for name, password in (plain_users or {}).items())
        extra_properties(folder).write_text(_PROPERTIES.format(host=HOST, certificate=certificate, users=users))
        with own_servers():
            self.stack = devstack.start(folder, servers=("kafka",))
        ports = json.loads((folder / "stack.json").read_text())["ports"]["kafka"]
        self.plain, self.secure = self.stack.endpoints.kafka, f"{HOST}:{ports['secure']}"
        self._admin = AdminClient({"bootstrap.servers": self.plain})

    def present(self, *, expired: bool) -> None:
        """Restart the broker with a certificate that has expired, or with a good one."""
        self.authority.issue("broker", expired=expired)
        self.stack.restart("kafka", hard=True)

    def set_password(self, user: str, password: str) -> None:
        """Make a SCRAM user, or change its password."""
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
        wish = UserScramCredentialUpsertion(user, how, password.encode())
        self._admin.alter_user_scram_credentials([wish])[user].result(_WAIT_SECONDS)

    def allow(self, user: str, prefix: str, *kinds: ResourceType) -> None:
        """Let a user do what docs/security.md lists with the topics, groups and transactional ids of a topic prefix, or
        only with some of these kinds."""
        bindings = [
            AclBinding(
                kind,
                prefix if kind is ResourceType.TOPIC else prefix.rstrip("."),
                ResourcePatternType.PREFIXED,
                *(f"User:{user}", "*", operation, AclPermissionType.ALLOW),
            )
            for kind, operations in RIGHTS.items()
            if not kinds or kind in kinds
            for operation in operations
        ]
        for future in self._admin.create_acls(bindings).values():
            future.result(_WAIT_SECONDS)

    def forbid(self, user: str, operation: AclOperation, topic: str) -> None:
        """Deny, which wins over everything allowed."""
        wish = AclBinding(*_denial(user, operation, topic))
        self._admin.create_acls([wish])[wish].result(_WAIT_SECONDS)

    def relent(self, user: str, operation: AclOperation, topic: str) -> None:
        """Take a `forbid` back."""
        wish = AclBindingFilter(*_denial(user, operation, topic))
        self._admin.delete_acls([wish])[wish].result(_WAIT_SECONDS)

    def stop(self) -> None:
        self.stack.stop()


def _denial(user: str, operation: AclOperation, topic: str) -> tuple[Any, ...]:
    who = f"User:{user}", "*"
    return ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, *who, operation, AclPermissionType.DENY
