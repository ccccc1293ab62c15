"""Where the command `structmat` begins: outside the package, so that Ctrl-C ends its import too without a traceback."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any

__all__ = ["leave_on_interrupt", "main"]


def main() -> int:
    """Import the command and run it."""
    leave_on_interrupt()
    from structmat import cli  # noqa: PLC0415  # takes most of a second

    with contextlib.suppress(ImportError):  # which `cli.main` tells
        import structmat.cli._app  # noqa: F401, PLC0415
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


def leave_on_interrupt() -> None:
    """Let Ctrl-C end the process in one line, from now until the command runs."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # and not ignored, as in the background
        signal.signal(signal.SIGINT, _leave)


def _leave(*_: Any) -> None:
    """End at once: an exception in the middle of an import may become another one."""
    os.write(2, b"structmat: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
