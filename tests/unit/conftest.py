"""What unit tests share: configuration files written as an operator would, a service whose settings they name, and the
command line run in an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from ingestcore.cli.main import main
from ingestcore.datasets.spec import Size
from ingestcore.digests.choice import RowDigests
from ingestcore.digests.machine_code import MachineCode
from ingestcore.digests.portable import portable
from ingestcore.machine_code.building import build
from ingestcore.tabular import record_scan, row_ends, suspects
from ingestcore.tabular.record_scan import RecordScan


class DownloaderSettings(BaseSettings):
    """Stands for the settings class of a service."""

    model_config = SettingsConfigDict(env_prefix="INGEST_CHUNK_DOWNLOADER_", extra="ignore")

    chunk_size: Size = 16 << 20
    max_workers: int = Field(default=4, ge=1)
    verbose: bool = False


@pytest.fixture
def services() -> dict[str, type[BaseSettings]]:
    """-> settings classes by service, as a configuration is judged with."""
    return {"chunk-downloader": DownloaderSettings}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """-> writes (text, file name) into a folder of the test; gives the path."""

    def written(text: str, name: str = "ingest.yaml") -> Path:
        path = tmp_path / name
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return written


@dataclass
class Ran:
    code: int
    out: str
    err: str


@pytest.fixture
def ingest(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Ran]:
    """Run a command in an empty folder; -> exit code and output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as end:
            main(arguments)
        captured = capsys.readouterr()
        return Ran(int(end.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of these sources, built here: the installed one may be older."""
    to = tmp_path_factory.mktemp("machine-code") / "library.so"
    missing = build(to)
    if missing is not None:
        pytest.skip(f"this machine goes without machine code: {missing}")
    return to


@pytest.fixture(scope="session")
def machine_code(library: Path) -> MachineCode:
    try:
        return MachineCode(library)
    except OSError as error:
        pytest.skip(f"this machine makes digests without machine code: {error}")


@pytest.fixture(params=["machine code", "portable"])
def digests(request: pytest.FixtureRequest) -> RowDigests:
    """Both ways to the digests of rows."""
    return request.getfixturevalue("machine_code") if request.param == "machine code" else portable


@pytest.fixture(params=["machine code", "numpy"])
def scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> RecordScan | None:
    """Both ways to the ends of records and to what is set aside before a block is read."""
    chosen = RecordScan(request.getfixturevalue("library")) if request.param == "machine code" else None
    for module in (record_scan, row_ends, suspects):
        monkeypatch.setattr(module, "record_scan", lambda: chosen)
    return chosen
