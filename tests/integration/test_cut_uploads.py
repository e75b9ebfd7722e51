"""A writer that dies in the middle of an upload leaves nothing behind that a successor would take for its file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ingestcore.stores.s3 import open_store

pytestmark = pytest.mark.integration

DIES_BEFORE_THE_BODY = """
import os, signal, sys
from pathlib import Path
from ingestcore.stores.s3 import open_store

store = open_store(os.environ["S3_ENDPOINT_URL"])
import botocore.awsrequest

def die(self, message_body):
    os.kill(os.getpid(), signal.SIGKILL)

# Headers and body go separately: the server is asked first whether it wants the body.
botocore.awsrequest.AWSConnection._send_message_body = die
store.put_new(sys.argv[1], "file", Path(sys.argv[2]))
"""


def test_a_file_whose_writer_was_killed_before_the_body_is_not_there(endpoints: dict[str, str], tmp_path: Path) -> None:
    bucket = f"cut-{os.getpid()}"
    store = open_store(endpoints["S3_ENDPOINT_URL"])
    from devstack import seaweedfs

    seaweedfs.create_bucket(
        {
            "s3": endpoints["S3_ENDPOINT_URL"],
            "s3_access_key": endpoints["AWS_ACCESS_KEY_ID"],
            "s3_secret_key": endpoints["AWS_SECRET_ACCESS_KEY"],
            "s3_region": endpoints["AWS_REGION"],
        },
        bucket,
    )
    whole = tmp_path / "whole"
    whole.write_bytes(b"x" * 3_000_000)
    done = subprocess.run([sys.executable, "-c", DIES_BEFORE_THE_BODY, bucket, str(whole)], timeout=60, check=False)
    assert done.returncode == -9
    time.sleep(1)
    assert [entry.key for entry in store.list(bucket, "")] == []
    assert store.put_new(bucket, "file", whole)
    assert store.get(bucket, "file") == whole.read_bytes()
