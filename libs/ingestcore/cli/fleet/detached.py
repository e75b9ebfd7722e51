"""The supervisor of `ingest up --detach`: `python -m ingestcore.cli.fleet.detached OPTIONS`."""

from __future__ import annotations

import sys
import traceback

from ingestcore.cli.errors import EXIT_FAILED, OperatorError, explained
from ingestcore.cli.fleet.screens import Handshake
from ingestcore.fleet.bring_up import Options, run


def main(text: str) -> int:
    """-> exit code."""
    screen = Handshake()
    try:
        run(Options.decode(text), screen)
    except KeyboardInterrupt:
        screen.failed("interrupted", EXIT_FAILED)
        return EXIT_FAILED
    except Exception as error:
        known = explained(error)
        if known is None:
            traceback.print_exc()
            known = OperatorError(f"a defect: {error!r}; see the supervisor's log")
        screen.failed(str(known), known.exit_code)
        return known.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
