"""A small disk of its own for the services' local state, which can be filled to the last byte."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path
from typing import Final

_PIECE_BYTES: Final = 1 << 20


class StateDisk:
    """A tmpfs mounted over a folder. `mount` needs root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def mount(cls, folder: Path, size_bytes: int) -> StateDisk | None:
        """-> None: this process may not mount."""
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        return cls(folder)

    def fill(self) -> int:
        """Take all space that is left. -> bytes taken."""
        taken = 0
        piece = b"\0" * _PIECE_BYTES
        with (self.folder / "filler").open("wb", buffering=0) as file:
            while piece:
                try:
                    taken += file.write(piece)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    piece = piece[: len(piece) // 2]
        return taken

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    def unmount(self) -> None:
        # Lazily: a process that was killed may not be reaped yet.
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=True)
