"""How clients reach the servers of a stack."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Endpoints:
    """Addresses and keys. Fields of a server that was not asked for are empty."""

    kafka: str = ""  # host:port, or a comma-separated list of them
    s3: str = ""  # http://host:port
    s3_access_key: str = ""
    s3_secret_key: str = ""
    s3_region: str = ""
    redis: str = ""  # redis://host:port/database
    postgres: str = ""  # postgresql://user@host:port/database

    def as_dict(self) -> dict[str, str]:
        return asdict(self)

    def environ(self) -> dict[str, str]:
        """The variables that services and command line tools read; none for what is not there."""
        variables = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "KAFKA_BROKERS": self.kafka,
            "S3_ENDPOINT_URL": self.s3,
            "AWS_ACCESS_KEY_ID": self.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3_secret_key,
            "AWS_REGION": self.s3_region,
            "AWS_DEFAULT_REGION": self.s3_region,
            "REDIS_URL": self.redis,
            "POSTGRES_URL": self.postgres,
        }
        return {name: value for name, value in variables.items() if value}
