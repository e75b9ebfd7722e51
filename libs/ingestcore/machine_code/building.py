"""Building the library: `cc` or what `CC` names, into the folder of its sources. Uses nothing but the standard library,
for it runs before anything is installed."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Final

SOURCES: Final = tuple(sorted(Path(__file__).parent.glob("*.c")))
BUILT: Final = Path(__file__).with_name("libingest.so")

_FLAGS: Final = ("-O3", "-std=gnu11", "-fPIC", "-shared")


def source_digest() -> str:
    return hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()


def build(to: Path = BUILT) -> str | None:
    """Compile the library. -> why it could not be built; None: it is at `to`."""
    compiler = (
        shlex.split(os.environ.get("CC", "")) or [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    )
    if not compiler:
        return "no C compiler was found (cc, gcc, clang, or CC)"
    named = [f'-DSOURCE_DIGEST="{source_digest()}"']
    beside = to.with_name(f"{to.name}.{os.getpid()}")  # a process that has the old one mapped keeps it
    try:
        done = subprocess.run(
            [*compiler, *_FLAGS, *named, "-o", str(beside), *map(str, SOURCES)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return f"{shlex.join(compiler)}: {done.stderr.strip()[-500:]}"
        beside.replace(to)
        return None
    except OSError as error:
        return f"{shlex.join(compiler)}: {error}"
    finally:
        beside.unlink(missing_ok=True)
