"""What tests of the contract share: the chain of stages, run once without any fault."""

from __future__ import annotations

import pytest

from ingestcore.testing.stage_chain import Chain, run_chain


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """-> inputs of every stage, made by the stages before it, and what it made of them. Only to be read."""
    return run_chain(tmp_path_factory.mktemp("chain"))
