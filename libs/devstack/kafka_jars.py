"""Install Kafka's jars once per user: resolved by mvn or jgo, checked against the committed SHA-256 list."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from devstack.cache import cache_folder
from devstack.process import run_tied
from devstack.server import StackError

KAFKA_VERSION = "4.3.1"
COORDINATES = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}",
    "org.slf4j:slf4j-simple:1.7.36",
)
CHECKSUMS = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
MIRROR_VARIABLE = "KAFKA_MAVEN_MIRROR"
COPY_GOAL = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
DOWNLOAD_TIMEOUT_SECONDS = 900.0  # 54 MB in 92 files; half a minute on a good line
_MARKER = ".verified.json"

Resolver = Callable[[Path], None]


def jars_folder() -> Path:
    """Where the jars are or will be."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


def installed() -> bool:
    """Cheap check for every start: all files are there with the sizes they had when they were verified."""
    folder = jars_folder()
    try:
        marker = json.loads((folder / _MARKER).read_text())
        return bool(
            marker["list"] == _list_digest()
            and set(marker["sizes"]) == set(expected_checksums())
            and all((folder / name).stat().st_size == size for name, size in marker["sizes"].items())
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def install() -> Path:
    """The folder with the verified jars; downloads them when needed.

    Safe to run in several processes at once: one downloads, the others wait for it. Raises StackError when
    no resolver works or a checksum differs.
    """
    if installed():
        return jars_folder()
    cache_folder().mkdir(parents=True, exist_ok=True)
    with _only_one():
        if not installed():
            _install_now()
    return jars_folder()


def expected_checksums() -> dict[str, str]:
    """File name to SHA-256, as committed."""
    pairs = (line.split(maxsplit=1) for line in CHECKSUMS.read_text().splitlines() if line)
    return {name.strip(): digest for digest, name in pairs}


def _install_now() -> None:
    failures: list[str] = []
    for resolve in _resolvers():
        staging = Path(tempfile.mkdtemp(prefix=f"kafka-{KAFKA_VERSION}-", dir=cache_folder()))
        try:
            resolve(staging)
            _verify(staging)
            _publish(staging)
            return
        except StackError as error:
            failures.append(str(error))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    advice = f"A mirror of the registry may be named in {MIRROR_VARIABLE}."
    raise StackError("cannot install Kafka's jars. " + advice + "\n" + "\n".join(failures))


def _resolvers() -> Iterator[Resolver]:
    """Maven first, since it honours the user's own settings; jgo needs nothing but Python."""
    if shutil.which("mvn"):
        yield _copy_with_maven
    yield _copy_with_jgo


def _copy_with_maven(target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pom-", dir=cache_folder()) as work:
        pom = Path(work) / "pom.xml"
        pom.write_text(_pom(os.environ.get(MIRROR_VARIABLE)))
        run_tied(
            ["mvn", "-q", "-B", "-f", str(pom), COPY_GOAL, f"-DoutputDirectory={target}"],
            what="mvn dependency:copy-dependencies",
            timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS,
        )


def _copy_with_jgo(target: Path) -> None:
    # The download folder stays after a failure, so that the next try goes on from there.
    work = cache_folder() / "jgo"
    mirror = os.environ.get(MIRROR_VARIABLE)
    run_tied(
        [
            *(sys.executable, "-m", "jgo", "--ignore-config", "--resolver", "python"),
            *("--repo-cache", str(work / "repository"), "--cache-dir", str(work / "environments")),
            *(("-r", f"central:{mirror}") if mirror else ()),
            *("info", "classpath", "+".join(COORDINATES)),
        ],
        what="jgo",
        timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS,
        tail_lines=3,  # of a traceback
    )
    for jar in (work / "repository").rglob("*.jar"):
        shutil.copyfile(jar, target / jar.name)
    shutil.rmtree(work, ignore_errors=True)


def _pom(mirror: str | None) -> str:
    """A project that depends on the three artifacts. A mirror takes the place of the central repository."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in (coordinate.split(":") for coordinate in COORDINATES)
    )
    central = f"<id>central</id><url>{escape(mirror)}</url>" if mirror else ""
    repositories = (
        f"<repositories><repository>{central}</repository></repositories>"
        f"<pluginRepositories><pluginRepository>{central}</pluginRepository></pluginRepositories>"
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>devstack</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>"
        f"{repositories if mirror else ''}<dependencies>{dependencies}</dependencies></project>"
    )


def _verify(folder: Path) -> None:
    """Compare the jars with the committed list; raises StackError naming what differs."""
    expected = expected_checksums()
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        listed = ", ".join(differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise StackError(f"{len(differing)} jars of Kafka are missing, unexpected or unlike {CHECKSUMS.name}: {listed}")


def _publish(staging: Path) -> None:
    """Make the verified folder visible in one step."""
    sizes = {jar.name: jar.stat().st_size for jar in staging.glob("*.jar")}
    (staging / _MARKER).write_text(json.dumps({"list": _list_digest(), "sizes": sizes}))
    staging.chmod(0o755)
    target = jars_folder()
    if target.exists():  # damaged, or of an older list
        shutil.rmtree(target)
    staging.rename(target)


def _list_digest() -> str:
    return hashlib.sha256(CHECKSUMS.read_bytes()).hexdigest()


@contextmanager
def _only_one() -> Iterator[None]:
    with (cache_folder() / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
