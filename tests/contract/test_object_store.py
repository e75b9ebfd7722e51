"""The stand-in for an object store is held to what the real one does (tests/integration/test_s3_store.py)."""

from __future__ import annotations

import pytest

from ingestcore.testing.memory_store import MemoryStore
from ingestcore.testing.object_store_contract import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore(self.bucket)
