"""Where the command `structmat` begins: outside the package, so that Ctrl-C ends its import too without a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

__all__ = ["main"]


def main() -> int:
    """Import the command and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _leave)
    from structmat import cli  # noqa: PLC0415  # takes most of a second

    with contextlib.suppress(ImportError):  # which `cli.main` tells
        import structmat.cli._app  # noqa: F401, PLC0415
    signal.signal(signal.SIGINT, before)
    return cli.main()


def _leave(*_: Any) -> None:
    """End at once: an exception in the middle of an import may become another one."""
    os.write(2, b"structmat: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
